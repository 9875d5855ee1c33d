"""`brainlit status FOLDER|AXES.yaml`: where the runs of a folder are, as a table.

All is read from the runs themselves: whether a process holds one, what it logged, what it said last. Slurm is asked,
where it is, which of the others wait in its queue and how jobs ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from brainlit.cli import slurm
from brainlit.cli.axes import read_axes
from brainlit.cli.option_hints import OwnParser
from brainlit.cli.run_many import LOGS
from brainlit.cli.run_options import read_config
from brainlit.cli.submit import AXES_FILE
from brainlit.files import is_being_written
from brainlit.guard import UnreadableFileError, read_csv
from brainlit.results.metrics import METRICS_FILE
from brainlit.results.run_directory import STATUS_FILE, RunDirectory
from brainlit.results.tables import markdown_table

STATES = {
    "waiting": "not begun; in the queue, or not submitted",
    "running": "a process works on it",
    "requeued": "cut short, and in the queue to go on from its checkpoint",
    "finished": "its report is there",
    "stopped": "cut short, and nobody works on it: the same command goes on",
    "failed": "ended by an error, which its log tells",
}
HEADS = ("run", "state", "epoch", "last", "time", "log")
NUMBERS = ("val/loss", "train/loss_epoch", "train/loss_step")
"""The last of the first of them that was logged is shown; the first two are logged when an epoch ends."""
LAST_BYTES = 4000
DESCRIPTION = """\
Say of all runs of a folder, or of a file of axes, where they are: state, epochs, the last loss, the time since the last
start (of finished ones, what it took), the log. States:
""" + "\n".join(f"  {name:9} {what}" for name, what in STATES.items())


@dataclass(frozen=True)
class RunStatus:
    """A line of the table.

    Parameters
    ----------
    name : str
        The run's folder.
    state : str
        One of STATES.
    epoch : str
        Whole epochs, and how many it is to have.
    last : str
        The last loss with its name.
    seconds : float or None
        Since the last start; of finished runs until they finished.
    n_starts : int
    log : Path or None
        What it said, if it was started by one of brainlit's plans.
    """

    name: str
    state: str
    epoch: str = ""
    last: str = ""
    seconds: float | None = None
    n_starts: int = 0
    log: Path | None = None

    @property
    def cells(self) -> list[str]:
        """Those of its line."""
        time = "" if self.seconds is None else str(timedelta(seconds=round(self.seconds)))
        again = f" (start {self.n_starts})" if self.n_starts > 1 else ""
        return [self.name, self.state, self.epoch, self.last, f"{time}{again}", str(self.log or "")]


def run_status(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit status."""
    parser = OwnParser(
        prog="brainlit status", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, metavar="FOLDER|AXES.yaml", help="of runs, or the file that plans them")
    parser.add_argument("--json", action="store_true", help="one JSON object for each run instead")
    given = parser.parse_args(list(arguments))
    folder, names = planned(given.path)
    found = statuses(folder, names)
    if given.json:
        print("\n".join(json.dumps(dict(zip(HEADS, one.cells, strict=True)), ensure_ascii=False) for one in found))
        return 0
    print("\n".join(markdown_table(HEADS, (one.cells for one in found))))
    counts = Counter(one.state for one in found)
    print(f"\n{', '.join(f'{counts[state]} {state}' for state in STATES if counts[state])} of {len(found)}")
    return 0


def planned(path: Path) -> tuple[Path, list[str]]:
    """The folder of the runs and their names: those of the file of axes, or of all that lie in the folder.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    if path.is_dir():
        begun = sorted(status.parent.name for status in path.glob(f"*/{STATUS_FILE}"))
        file = path / AXES_FILE
        names = [cell.name for cell in read_axes(file, path).cells] if file.is_file() else []
        if not names and not begun:
            raise FileNotFoundError(
                f"{path} holds neither runs nor {AXES_FILE}. Give runs/<experiment>, or a file of axes."
            )
        return path, [*names, *(name for name in begun if name not in names)]
    axes = read_axes(path)
    return axes.folder, [cell.name for cell in axes.cells]


def statuses(folder: Path, names: Sequence[str]) -> list[RunStatus]:
    """Where the runs are; that Slurm does not answer is said on standard error, and the rest is told."""
    jobs = slurm.read_jobs(folder)
    queue: Mapping[str, str] = {}
    over: Mapping[str, str] = {}
    if jobs:
        try:
            queue = slurm.queued()
            over = slurm.ended(job for name in names if (job := jobs.get(name)) and job not in queue)
        except slurm.SlurmError as error:
            print(f"{error} What is told of the queue is missing.", file=sys.stderr)
    is_local = is_being_written(folder / AXES_FILE)
    return [
        _status(folder, name, queue.get(jobs.get(name, "")), over.get(jobs.get(name, "")), is_local) for name in names
    ]


def _status(folder: Path, name: str, queued: str | None, ended: str | None, is_local: bool) -> RunStatus:
    """Of one run.

    Parameters
    ----------
    queued, ended : str or None
        The state of its job in the queue; how its job ended.
    is_local : bool
        Whether a scheduler is at work on the folder, here.
    """
    log: Path | None = folder / LOGS / f"{name}.txt"
    log = log if log is not None and log.is_file() else None
    is_waiting = queued is not None and queued in ("PENDING", "REQUEUED", "SUSPENDED", "COMPLETING", "CONFIGURING")
    if not (folder / name / STATUS_FILE).is_file():
        if is_waiting or log is None:
            return RunStatus(name, "waiting", log=log)
        is_at_work = queued is not None or (ended is None and is_local)
        return RunStatus(name, "running" if is_at_work else _ending(log, ended), log=log)
    run = RunDirectory.open(folder / name)
    state = run.state
    if state == "killed":
        at_work = "requeued" if is_waiting else "running"  # a lock that is held on another machine may look free here
        state = at_work if queued is not None else _ending(log, ended)
    epoch, last = _progress(run)
    starts = [str(start) for start in run.status.get("starts", [])]
    end = str(run.status.get("finished", "")) if state == "finished" else ""
    seconds = _seconds(starts[-1], end) if starts and state in ("running", "finished") else None
    return RunStatus(name, state, epoch, last, seconds, len(starts), log)


def _ending(log: Path | None, ended: str | None) -> str:
    """failed or stopped: by what Slurm says, else by what was said last."""
    if ended is not None and ended in slurm.FAILED:
        return "failed"
    return "failed" if log is not None and ended in (None, "COMPLETED") and _tells_error(log) else "stopped"


def _tells_error(log: Path) -> bool:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return any(line.startswith(("error:", "Traceback")) for line in text.rpartition("\n--- ")[2].splitlines())


def _progress(run: RunDirectory) -> tuple[str, str]:
    """Whole epochs of how many, and the last loss; what cannot be read, as while it is written, is left out."""
    most: Any = None
    rows: list[dict[str, str]] = []
    with suppress(UnreadableFileError, FileNotFoundError):
        most = (read_config(run.path).get("trainer") or {}).get("max_epochs")
    with suppress(UnreadableFileError, FileNotFoundError):
        rows = read_csv(run.path / METRICS_FILE, "a table of metrics", "Wait a moment.", "epoch")
    last = next((f"{name} {float(row[name]):.4f}" for name in NUMBERS for row in reversed(rows) if row.get(name)), "")
    done = max((int(row["epoch"]) + 1 for row in rows if row.get(NUMBERS[0]) or row.get(NUMBERS[1])), default=0)
    return str(done) if most is None else f"{done} of {most}", last


def _seconds(start: str, end: str) -> float:
    until = datetime.fromisoformat(end) if end else datetime.now(tz=UTC)
    return (until - datetime.fromisoformat(start)).total_seconds()
