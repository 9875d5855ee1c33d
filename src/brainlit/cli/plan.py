"""Runs that belong together: which of them are missing, as jobs, and whether those that exist were made alike."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlit.cli.errors import UsageError
from brainlit.cli.jobs import Job, JobError, run_jobs, thread_variables
from brainlit.doctor import available_cores
from brainlit.hints import did_you_mean

EXPERIMENTS = Path("experiments")
OURS = ("seed_everything", "data.regime", "data.control.draw", "run.root", "run.experiment", "run.id", "run.resume")
"""Options of a fit that a plan sets."""
LOGS = "logs"
BRAINLIT = (sys.executable, "-m", "brainlit.cli")


@dataclass(frozen=True)
class Run:
    """One run of a reproduction or a sweep.

    Parameters
    ----------
    path : Path
        Its folder.
    kind : str
        What it is among those of its seed: its regime, or the value that is varied.
    seed : int
    fit : tuple of str
        Arguments of brainlit.
    models : tuple of str
        What `brainlit downstream` asks: untuned, tuned; nothing is asked where this is empty.
    """

    path: Path
    kind: str
    seed: int
    fit: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def is_started(self) -> bool:
        """Whether there is a run in its folder."""
        from brainlit.results.run_directory import STATUS_FILE

        return (self.path / STATUS_FILE).is_file()

    @property
    def is_finished(self) -> bool:
        """Whether its status says so."""
        from brainlit.results.run_directory import RunDirectory

        return self.is_started and RunDirectory.open(self.path).state == "finished"

    @property
    def todo(self) -> tuple[str, ...]:
        """Arguments of brainlit that bring it to its report; none where it has one."""
        if not self.is_finished:
            return self.fit
        return () if (self.path / "report.html").is_file() else ("report", str(self.path))

    @property
    def downstream(self) -> tuple[str, ...]:
        """Arguments of brainlit for the downstream tasks, which leaves out those that are done."""
        return ("downstream", str(self.path), "--models", *self.models)


def planned_jobs(runs: Sequence[Run]) -> Iterator[Job]:
    """What is missing of the runs: each its fit, then its downstream tasks.

    The first fit of a seed makes the store and the tiny model, for which the others of this seed wait; where a run of
    the seed has finished, they are there.
    """
    first: dict[int, str] = {}
    made = {run.seed for run in runs if run.is_finished}
    for run in runs:
        name = run.path.name
        before: tuple[str, ...] = ()
        if run.todo:
            gate = name if run.seed in made else first.setdefault(run.seed, name)
            yield _job(name, run.todo, (gate,) if gate != name else (), f"fit {run.kind}")
            before = (name,)
        if run.models:
            yield _job(f"{name}-downstream", run.downstream, before, "downstream")


def check_settings(runs: Iterable[Run]) -> None:
    """See that options are understood and runs that exist were made with them, before anything is started.

    Raises
    ------
    UsageError
        If an option of a fit is unknown, or a run was made with other settings. Settings that only one of the two has,
        as after an update, do not count.
    """
    import yaml

    from brainlit.cli.run_options import CONFIG_FILE, difference
    from brainlit.cli.training import parsed

    runs = list(runs)
    parser = parsed("fit", runs[0].fit[1:]).parser
    seen: set[str] = set()
    for run in runs:
        file = run.path / CONFIG_FILE
        if run.kind in seen and not file.is_file():
            continue
        seen.add(run.kind)
        wanted = yaml.safe_load(parser.dump(parser.parse_args(list(run.fit[1:])), skip_validation=True))
        if run.is_started and file.is_file():
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
            changed = difference(_shared(wanted, found), _shared(found, wanted))
            if changed:
                raise UsageError(
                    f"{run.path} was made with other settings: {changed}. Take the same, or --experiment NAME for runs"
                    " with these."
                )


def _shared(ours: Any, theirs: Any) -> Any:
    """Ours without the keys that theirs lacks."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return {key: _shared(value, theirs[key]) for key, value in ours.items() if key in theirs}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [_shared(one, other) for one, other in zip(ours, theirs, strict=True)]
    return ours


def show_commands(runs: Sequence[Run], *last: Sequence[str]) -> int:
    """Print the commands that are left to do, and how many runs are finished."""
    commands = [*(job.command[len(BRAINLIT) :] for job in planned_jobs(runs)), *last]
    print("\n".join([*(shlex.join(["brainlit", *command]) for command in commands), _count(runs)]))
    return 0


def run_missing(runs: Sequence[Run], folder: Path, n_at_once: int | None) -> bool:
    """Run what is missing side by side, by default on all cores, with logs in the folder.

    Returns
    -------
    bool
        Whether everything is there now; a job that failed is told on standard error.
    """
    n_cores = available_cores()
    n_at_once = n_at_once or min(n_cores, len(runs))
    print(f"{_count(runs)} {n_at_once} jobs at a time; their logs: {folder / LOGS}")
    try:
        run_jobs(list(planned_jobs(runs)), folder / LOGS, n_at_once, thread_variables(n_at_once, n_cores))
    except JobError as error:
        print(f"error: {error}\nThe same command goes on where it stopped.", file=sys.stderr)
        return False
    return True


def _count(runs: Sequence[Run]) -> str:
    return f"{sum(not run.todo for run in runs)} of {len(runs)} runs are finished."


def _job(name: str, arguments: Sequence[str], after: tuple[str, ...], kind: str) -> Job:
    return Job(name, (*BRAINLIT, *arguments), after, kind)


def split_further(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before -- and after it."""
    cut = list(arguments).index("--") if "--" in arguments else len(arguments)
    return list(arguments[:cut]), list(arguments[cut + 1 :])


def base_files(model: str, regime: str, quick: bool = False) -> list[str]:
    """The config files of a run on the demo, as options."""
    names = ["brain_tune", "data/demo", f"model/{model}", *(["quick"] if quick else []), f"regime/{regime}"]
    return [part for name in names for part in ("-c", str(EXPERIMENTS / f"{name}.yaml"))]


def check_further(further: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Refuse, by a UsageError, what is no option of a fit, and what the plan sets."""
    own = [option[2:] for action in parser._actions for option in action.option_strings]
    if further and not further[0].startswith("-"):
        raise UsageError(f"{further[0]!r} belongs to no option; {parser.prog} --help says which there are.")
    for option in (word for word in further if re.match(r"--?[A-Za-z]", word)):
        name = option.lstrip("-").partition("=")[0]
        if name in OURS:
            raise UsageError(f"--{name} is set for each run; {parser.prog} --help says by which options.")
        if "." not in name and name not in ("c", "config"):
            raise UsageError(f"there is no option {option!r}. {did_you_mean(name, own)}")


def check_numbers(given: argparse.Namespace) -> None:
    """Refuse, by a UsageError, seeds that come twice or are negative, and counts below 1."""
    if len(set(given.seeds)) < len(given.seeds) or min(given.seeds) < 0:
        raise UsageError(f"--seeds {' '.join(map(str, given.seeds))}: give different numbers from 0 on.")
    for name in ("permutations", "jobs"):
        value = getattr(given, name, None)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; give at least 1.")


def check_known(chosen: Mapping[str, Sequence[str]]) -> None:
    """Refuse models and regimes that have no file below experiments/, and other folders than brainlit's own."""
    if not (EXPERIMENTS / "brain_tune.yaml").is_file():
        raise FileNotFoundError(f"there is no {EXPERIMENTS}/brain_tune.yaml here: start in brainlit's own folder.")
    for folder, names in chosen.items():
        known = [path.stem for path in (EXPERIMENTS / folder).glob("*.yaml")]
        for name in names:
            if name not in known:
                raise UsageError(f"there is no {folder} {name!r}. {did_you_mean(name, known)}")
