"""One folder per run, runs/<experiment>/<id>/, which is never overwritten.

A run is claimed by a lock that the kernel releases when the process ends in whatever way, so a folder whose status
says "running" and whose lock is free belongs to a run that was killed, and may be resumed from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from brainlit.store.atomic import atomic_path

STATUS_FILE = "status.json"
SUBFOLDERS = ("checkpoints", "probes", "figures")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunError(RuntimeError):
    """A run directory cannot be used as asked."""


class RunFinishedError(RunError):
    """The run has finished; its folder is a record and is not written again."""


class RunBusyError(RunError):
    """Another process is writing this run."""


def write_text_atomic(path: Path, text: str) -> Path:
    """Write text under a temporary name in the same folder and rename it, so a reader never sees half a file."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json_atomic(path: Path, value: Mapping[str, Any]) -> Path:
    """Write plain JSON (NaN and infinities refused: they are not JSON) atomically."""
    return write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False, sort_keys=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises FileNotFoundError where there is none."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}; need a JSON object. Delete it to have it rewritten.")
    return value


def new_run_id() -> str:
    """Sortable by time, unique by four random digits that do not touch anyone's random state."""
    return f"{datetime.now(tz=UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class RunDirectory:
    """The folder of one run; make it with `create` or `claim`, read it with `open`.

    Parameters
    ----------
    path : Path
        runs/<experiment>/<id>.
    resumed : bool
        Whether the folder was left unfinished by an earlier process.

    Notes
    -----
    ======================  ==========================================================
    status.json             running or finished, when, where, how often started
    config.yaml             the resolved configuration
    checkpoints/            last.ckpt and others
    metrics.csv             what was logged during training
    probes/                 one table per probe, one array file per probe and subject
    figures/                PNG and SVG
    summary.json            the report's numbers
    provenance.json         versions, revision, store hashes, seed, machine, command
    report.html             one self-contained page
    ======================  ==========================================================
    """

    def __init__(self, path: Path, resumed: bool = False, lock: FileLock | None = None) -> None:
        self.path = Path(path)
        self.resumed = resumed
        self._lock = lock

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r}, state={self.state!r}, resumed={self.resumed})"

    @classmethod
    def create(cls, root: Path | str, experiment: str, run_id: str | None = None) -> RunDirectory:
        """Make and lock a new folder.

        Raises
        ------
        RunError
            If the folder exists: a run is never overwritten.
        """
        path = _run_path(root, experiment, run_id or new_run_id())
        if path.exists():
            raise RunError(f"{path} exists and runs are never overwritten. Give another id, or `claim` it to resume.")
        return cls._start(path, resumed=False)

    @classmethod
    def claim(cls, root: Path | str, experiment: str, run_id: str | None = None) -> RunDirectory:
        """Make a new folder, or take over the unfinished one of this id.

        Raises
        ------
        RunFinishedError
            If the run of this id has finished.
        RunBusyError
            If another process is writing it.
        """
        if run_id is None:
            return cls.create(root, experiment)
        path = _run_path(root, experiment, run_id)
        return cls._start(path, resumed=(path / STATUS_FILE).exists())

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """An existing run, for reading; takes no lock.

        Raises
        ------
        FileNotFoundError
            If the folder is not a run directory.
        """
        if not (Path(path) / STATUS_FILE).exists():
            raise FileNotFoundError(
                f"{path} holds no {STATUS_FILE}: not a run directory. Look under runs/<experiment>/."
            )
        return cls(Path(path))

    @classmethod
    def adopt(cls, path: Path | str) -> RunDirectory:
        """A folder that somebody else chose (a trainer's default_root_dir), marked as running; takes no lock.

        Raises
        ------
        RunFinishedError
            If it holds a finished run.
        """
        run = cls(Path(path))
        run._refuse_finished()
        for name in SUBFOLDERS:
            (run.path / name).mkdir(parents=True, exist_ok=True)
        if not run.status:
            run._write_status(state="running", starts=[_now()])
        return run

    @classmethod
    def _start(cls, path: Path, resumed: bool) -> RunDirectory:
        for name in SUBFOLDERS:
            (path / name).mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path / ".lock"), blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunBusyError(f"another process is writing {path}. Wait for it, or start under another id.") from error
        run = cls(path, resumed=resumed, lock=lock)
        try:
            run._refuse_finished()
        except RunFinishedError:
            lock.release()
            raise
        run._write_status(state="running", starts=[*run.status.get("starts", []), _now()])
        return run

    def _refuse_finished(self) -> None:
        status = self.status
        if status.get("state") == "finished":
            raise RunFinishedError(
                f"the run {self.path} finished at {status.get('finished')}; its folder is not written again."
                " Start under another id, or read its report.html."
            )

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.path.parent.name

    @property
    def run_id(self) -> str:
        """Identifier of the run inside its experiment."""
        return self.path.name

    @property
    def status(self) -> dict[str, Any]:
        """What status.json says; empty where there is none."""
        path = self.path / STATUS_FILE
        return read_json(path) if path.exists() else {}

    @property
    def state(self) -> str:
        """'running', 'killed' (unfinished, and nobody holds it) or 'finished'."""
        state = str(self.status.get("state", "new"))
        if state != "running" or (self._lock is not None and self._lock.is_locked):
            return state
        probe = FileLock(str(self.path / ".lock"), blocking=False)
        try:
            with probe:
                return "killed"
        except Timeout:
            return "running"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def probes(self) -> Path:
        """Folder of the probes' tables and arrays."""
        return self.path / "probes"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.path / "figures"

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest last*.ckpt, to resume from; None where the run was killed before its first checkpoint."""
        found = sorted(self.checkpoints.glob("last*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        return found[-1] if found else None

    def finish(self) -> None:
        """Mark the run as finished and let go of it."""
        self._write_status(state="finished", finished=_now())
        self.release()

    def release(self) -> None:
        """Let go of the lock without finishing (the run can be resumed)."""
        if self._lock is not None:
            self._lock.release()

    def _write_status(self, **changes: Any) -> None:
        status = {**self.status, "experiment": self.experiment, "id": self.run_id, **changes}
        status["pid"] = os.getpid()
        write_json_atomic(self.path / STATUS_FILE, status)


def _run_path(root: Path | str, experiment: str, run_id: str) -> Path:
    for what, name in (("experiment", experiment), ("run id", run_id)):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what} {name!r} is not a folder name; use letters, digits, '.', '_' and '-'.")
    return Path(root) / experiment / run_id


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="seconds")
