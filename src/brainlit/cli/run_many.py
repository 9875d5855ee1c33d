"""Many runs side by side: a scheduler of jobs, and the runs that it brings to their reports.

A job is a process of its own with a log file of its own; some wait for others. The plan says which jobs are missing of
runs that belong together, and refuses runs that were made with other settings. `brainlit reproduce`, `sweep`,
`fractions` and `submit --local` are plans for this one scheduler.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm.auto import tqdm

from brainlit.cli import PARENT_VARIABLE, lean
from brainlit.cli.errors import UsageError
from brainlit.doctor import available_cores
from brainlit.files import is_being_written

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What torch, MKL and the OpenBLAS of NumPy and SciPy read; the last two come before the first where they are set."""
LAST_LINES = 15
POLL_S, PATIENCE_S = 0.1, 10.0
LOGS = "logs"
BRAINLIT = (sys.executable, "-m", "brainlit.cli")


# --- Jobs ---


@dataclass(frozen=True)
class Job:
    """A command.

    Parameters
    ----------
    name : str
        Of the job and of its log file.
    after : tuple of str
        Names of jobs that must have succeeded before this one starts; they come before it in the list.
    kind : str
        Jobs of one kind take about as long; only for the estimate of the time left.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    kind: str = ""


class JobError(RuntimeError):
    """Jobs failed; the message names each with its log file and the end of it."""


def thread_variables(n_at_once: int, n_cores: int) -> dict[str, str]:
    """Environment in which each of n_at_once jobs computes with its share of the cores.

    >>> thread_variables(3, 8)["OMP_NUM_THREADS"]
    '2'
    """
    return dict.fromkeys(THREAD_VARIABLES, str(max(1, n_cores // n_at_once)))


def run_jobs(
    jobs: Sequence[Job], logs: Path, n_at_once: int, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Run all jobs, n_at_once at a time, those first in the list first; standard error shows a bar.

    After a failure those that run are let finish and no others start. When this process is interrupted (Ctrl-C,
    SIGTERM, a closed terminal), the jobs are sent SIGINT, after ten seconds SIGTERM, after ten more SIGKILL.

    Parameters
    ----------
    logs : Path
        Folder of the log files, <name>.txt; what an earlier attempt wrote stays above.
    environment : mapping, optional
        Variables of the jobs besides those of this process.

    Returns
    -------
    dict of name to float
        Seconds that each job took.

    Raises
    ------
    JobError
        If a job failed.
    ValueError
        If two jobs have one name, or one waits for a job that does not come before it.
    """
    _check(jobs)
    pool = _Pool(list(jobs), logs, n_at_once, {**os.environ, **(environment or {})})
    logs.mkdir(parents=True, exist_ok=True)
    layout = "{desc}: {n_fmt}/{total_fmt} |{bar:20}| {elapsed}{postfix}"
    with _ending_is_ctrl_c(), tqdm(total=len(jobs), desc="jobs", bar_format=layout, disable=not jobs) as bar:
        shown: object = None
        try:
            while pool.advance():
                shown = _show(bar, pool, shown)
                time.sleep(POLL_S)
            _show(bar, pool, shown)
        finally:
            pool.end()
    if pool.failed:
        raise JobError("\n".join(_failure(job, status, pool.log(job)) for job, status in pool.failed))
    return {name: seconds for own in pool.taken.values() for name, seconds in own.items()}


def seconds_left(
    waiting: Sequence[str],
    running: Sequence[tuple[str, float]],
    taken: Mapping[str, Sequence[float]],
    n_at_once: int,
) -> float | None:
    """Estimate of the time until all jobs are done; None before the first one is.

    A job is expected to take the mean of the finished ones of its kind, or of all, where there is none.

    Parameters
    ----------
    waiting : sequence of str
        Kinds of the jobs that have not started.
    running : sequence of (str, float)
        Kinds of those that run, and the seconds since they started.
    taken : mapping of kind to seconds of its finished jobs

    >>> seconds_left(["fit", "fit"], [("fit", 40.0), ("probe", 90.0)], {"fit": [100.0], "probe": [50.0]}, 2)
    130.0
    """
    everything = [seconds for own in taken.values() for seconds in own]
    if not everything:
        return None

    def typical(kind: str) -> float:
        own = taken.get(kind) or everything
        return sum(own) / len(own)

    work = sum(map(typical, waiting)) + sum(max(typical(kind) - elapsed, 0.0) for kind, elapsed in running)
    return work / n_at_once


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started_s: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_s


@dataclass
class _Pool:
    waiting: list[Job]
    logs: Path
    n_at_once: int
    environment: Mapping[str, str]
    running: list[_Running] = field(default_factory=list)
    taken: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: list[tuple[Job, int]] = field(default_factory=list)

    @property
    def done(self) -> set[str]:
        return {name for own in self.taken.values() for name in own}

    def log(self, job: Job) -> Path:
        return self.logs / f"{job.name}.txt"

    def advance(self) -> bool:
        """Note which jobs have ended, start those whose turn it is; whether any is running."""
        for own in [own for own in self.running if own.process.poll() is not None]:
            self.running.remove(own)
            if own.process.returncode == 0:
                self.taken.setdefault(own.job.kind, {})[own.job.name] = own.seconds
            else:
                self.failed.append((own.job, own.process.returncode))
        while not self.failed and len(self.running) < self.n_at_once and (job := self._next()) is not None:
            self.waiting.remove(job)
            self.running.append(_Running(job, self._start(job)))
        return bool(self.running)

    def _next(self) -> Job | None:
        return next((job for job in self.waiting if self.done.issuperset(job.after)), None)

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        """In a process group of its own, so that Ctrl-C in the terminal reaches it once: from here."""
        with self.log(job).open("ab") as log:
            return subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment, PARENT_VARIABLE: str(os.getpid())},
                process_group=0,
            )

    def end(self) -> None:
        """End what still runs: with a question, with a demand, by force; at once where this is interrupted, too."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._signal(number)
                until = time.monotonic() + PATIENCE_S
                while self._alive() and time.monotonic() < until:
                    time.sleep(POLL_S)
        finally:
            self._signal(signal.SIGKILL)
            for own in self.running:
                own.process.wait()

    def _alive(self) -> list[_Running]:
        return [own for own in self.running if own.process.poll() is None]

    def _signal(self, number: signal.Signals) -> None:
        for own in self._alive():
            with suppress(ProcessLookupError):
                os.killpg(own.process.pid, number)


def _check(jobs: Sequence[Job]) -> None:
    before: set[str] = set()
    for job in jobs:
        if job.name in before:
            raise ValueError(f"two jobs are called {job.name!r}; their logs would be one file.")
        if missing := set(job.after) - before:
            raise ValueError(f"job {job.name!r} waits for {sorted(missing)}, which do not come before it.")
        before.add(job.name)


def _show(bar: tqdm, pool: _Pool, shown: object) -> object:
    """Draw the bar if what it says has changed (on a terminal every second): about how long the others take, what runs.

    Returns what it says now, by which the next call knows a change.
    """
    now = ", ".join(own.job.name for own in pool.running)
    state = len(pool.done), len(pool.failed), now, int(time.monotonic()) if sys.stderr.isatty() else 0
    if state == shown:
        return shown
    taken = {kind: list(own.values()) for kind, own in pool.taken.items()}
    running = [(own.job.kind, own.seconds) for own in pool.running]
    left = seconds_left([job.kind for job in pool.waiting], running, taken, pool.n_at_once)
    words = [f"about {tqdm.format_interval(left)} left"] if left and not pool.failed else []
    words += [f"{job.name} failed, no others start" for job, _ in pool.failed]
    words += [f"now {now}"] if now else []
    bar.n = len(pool.done)
    bar.set_postfix_str("; ".join(words))
    return state


def _failure(job: Job, status: int, log: Path) -> str:
    """How a job failed, and the end of its log."""
    how = f"exit status {status}" if status > 0 else f"ended by {signal.Signals(-status).name}"
    if -status == signal.SIGKILL:
        how += ", as the system does where memory runs out: try fewer jobs at once"
    text = log.read_bytes().decode("utf-8", errors="replace")
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]  # of a bar its last state
    end = "\n".join(f"  | {line}" for line in [line for line in lines if line][-LAST_LINES:])
    return f"{job.name} failed ({how}). The end of its log, {log}:\n{end or '  (it is empty)'}"


@contextmanager
def _ending_is_ctrl_c() -> Iterator[None]:
    """SIGTERM and the end of the terminal raise KeyboardInterrupt, unless somebody handles or ignores them already."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGHUP) if main else ()
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


# --- Runs ---


@dataclass(frozen=True)
class Run:
    """One run of a plan.

    Parameters
    ----------
    path : Path
        Its folder.
    kind : str
        What it is among those of its seed: its regime, or the value that is varied.
    fit : tuple of str
        Arguments of brainlit.
    models : tuple of str
        What `brainlit downstream` asks: untuned, tuned; nothing is asked where this is empty.
    """

    path: Path
    kind: str
    seed: int
    fit: tuple[str, ...]
    models: tuple[str, ...] = ()

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
        """Arguments of brainlit for the downstream tasks, which leaves out those that are done.

        Each seed has clips and draws of words of its own, so that seeds are independent there, too.
        """
        return ("downstream", str(self.path), "--seed", str(self.seed), "--models", *self.models)


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
            yield Job(name, (*BRAINLIT, *run.todo), (gate,) if gate != name else (), f"fit {run.kind}")
            before = (name,)
        if run.models:
            yield Job(f"{name}-downstream", (*BRAINLIT, *run.downstream), before, "downstream")


def check_settings(runs: Iterable[Run]) -> None:
    """See that options are understood and runs that exist were made with them, before anything is started.

    Raises
    ------
    UsageError
        If an option of a fit is unknown, or a run was made with other settings. Settings that only one of the two has,
        as after an update, do not count.
    """
    import yaml

    lean.import_lightning()
    from brainlit.cli.config_names import expanded
    from brainlit.cli.run_options import difference, read_config
    from brainlit.cli.training import parsed

    runs = list(runs)
    arguments = {run.path: expanded(run.fit[1:], with_base=True) for run in runs}
    parser = parsed("fit", arguments[runs[0].path]).parser
    seen: set[str] = set()
    for run in runs:
        found = read_config(run.path)
        if run.kind in seen and not found:
            continue
        seen.add(run.kind)
        wanted = yaml.safe_load(parser.dump(parser.parse_args(arguments[run.path]), skip_validation=True))
        if run.is_started and found:
            changed = difference(_common(wanted, found), _common(found, wanted))
            if changed:
                raise UsageError(
                    f"{run.path} was made with other settings: {changed}. Take the same, or --experiment NAME for runs"
                    " with these."
                )


def _common(ours: Any, theirs: Any) -> Any:
    """Ours without the keys that theirs lacks."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return {key: _common(value, theirs[key]) for key, value in ours.items() if key in theirs}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [_common(one, other) for one, other in zip(ours, theirs, strict=True)]
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
    wait_for_others(runs)
    n_cores = available_cores()
    n_at_once = n_at_once or min(n_cores, len(runs))
    print(f"{_count(runs)} {n_at_once} jobs at a time; their logs: {folder / LOGS}")
    try:
        run_jobs(list(planned_jobs(runs)), folder / LOGS, n_at_once, thread_variables(n_at_once, n_cores))
    except JobError as error:
        print(f"error: {error}\nThe same command goes on where it stopped.", file=sys.stderr)
        return False
    return True


def wait_for_others(runs: Sequence[Run]) -> None:
    """Wait until no other process writes any of the runs, as the jobs of a plan that was killed a moment ago may.

    A job may be a fit, or `brainlit downstream`.
    """
    from brainlit.downstream.result import FOLDER
    from brainlit.results.run_directory import RunDirectory

    def is_busy(run: Run) -> bool:
        return RunDirectory.open(run.path).state == "running" or is_being_written(run.path / FOLDER)

    for run in runs:
        said = False
        while run.is_started and is_busy(run):
            if not said:
                print(f"waiting: another process is writing {run.path}", file=sys.stderr)
            said = True
            time.sleep(POLL_S)


def _count(runs: Sequence[Run]) -> str:
    return f"{sum(not run.todo for run in runs)} of {len(runs)} runs are finished."
