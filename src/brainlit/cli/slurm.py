"""Cells of AXES.yaml as tasks of a Slurm array, by submitit: what a job asks for, what it runs, which are queued.

A task becomes the very command that `--local` starts, so that Slurm's signals reach the training itself, which writes
a checkpoint and asks for its place in the queue again (`callbacks.Requeue`). What came of a cell is read from its run,
never from the job; jobs.json only says which job a cell was given to, so that nothing is submitted twice.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brainlit.cli.errors import UsageError
from brainlit.cli.run_many import BRAINLIT, LOGS
from brainlit.files import write_json
from brainlit.guard import read_json
from brainlit.hints import did_you_mean

JOBS_FILE = "jobs.json"
REPORT = "report"
"""The job of the comparison, and its log."""
TIME_MIN, SIGNAL_DELAY_S = 24 * 60, 120
_TEXT, _COUNT, _NUMBER, _LIST, _MAPPING = (str,), (int,), (int, float), (list,), (dict,)
SETTINGS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("partition", "account", "qos", "constraint", "nodelist", "exclude", "gres", "python"), _TEXT),
    **dict.fromkeys(("nodes", "ntasks_per_node", "cpus_per_task", "array_parallelism", "signal_delay_s"), _COUNT),
    "gpus_per_node": (int, str),
    "time_min": _NUMBER,
    "mem_gb": _NUMBER,
    "setup": _LIST,
    "srun_args": _LIST,
    "more": _MAPPING,
}
"""What `slurm:` of AXES.yaml may say, and of what type; names are submitit's, with units behind them."""
SQUEUE = ("squeue", "--me", "--noheader", "--array", "--format=%i %T")
SACCT = ("sacct", "--allocations", "--noheader", "--delimiter= ", "--parsable2", "--format=JobID,State")
FAILED = ("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "LAUNCH_FAILED", "SPECIAL_EXIT")
"""How a job ends by a fault; one that was cancelled or met its limit was cut short."""
_NOT_OF_THE_REPORT = ("gpus_per_node", "gres", "nodes", "ntasks_per_node", "array_parallelism")


class SlurmError(UsageError):
    """Slurm, or what speaks with it, is not there or refuses; the message says what it said."""


def check_settings(settings: Mapping[str, Any]) -> str:
    """What is wrong with the settings, beginning with the key; '' where nothing is.

    >>> check_settings({"partitions": "gpu"}).partition(" Known")[0]
    "partitions: there is no such setting. Did you mean 'partition'?"
    >>> check_settings({"time_min": "1-00:00:00"})
    "time_min is '1-00:00:00'; give a number above 0."
    """
    said: dict[tuple[type, ...], str] = {_TEXT: "a text", _LIST: "a list", _MAPPING: "a mapping"}
    said[_COUNT] = "a whole number above 0"
    for key, value in settings.items():
        if key not in SETTINGS:
            return f"{key}: there is no such setting. {did_you_mean(key, SETTINGS)}"
        is_one = isinstance(value, SETTINGS[key]) and not isinstance(value, bool)
        if not is_one or (isinstance(value, int | float) and value <= 0):
            return f"{key} is {value!r}; give {said.get(SETTINGS[key], 'a number above 0')}."
    return ""


def sbatch_settings(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What submitit is told, in its words.

    The signal is the one that training listens to. Since Slurm 22.05 srun does not take over the processors that were
    asked for, so it is told them, too.
    """
    given = {key: value for key, value in settings.items() if key not in ("python", "more", "time_min", "mem_gb")}
    delay_s = given.pop("signal_delay_s", SIGNAL_DELAY_S)
    if "cpus_per_task" in given:
        given["srun_args"] = [f"--cpus-per-task={given['cpus_per_task']}", *given.get("srun_args", [])]
    if "mem_gb" in settings:
        given["mem"] = f"{max(1, round(1024 * settings['mem_gb']))}M"
    more = {"signal": f"USR1@{delay_s}", "requeue": True, **settings.get("more", {})}
    time_min = max(1, round(settings.get("time_min", TIME_MIN)))
    return {**given, "job_name": name, "time": time_min, "stderr_to_stdout": True, "additional_parameters": more}


def report_settings(settings: Mapping[str, Any], name: str, after: Iterable[str]) -> dict[str, Any]:
    """The same for the comparison, which needs no accelerator and waits for the end of the jobs, however they end."""
    left = {key: value for key, value in settings.items() if key not in _NOT_OF_THE_REPORT}
    return {**sbatch_settings(left, name), "dependency": f"afterany:{':'.join(after)}"}


def submit_cells(folder: Path, cells: Mapping[str, Sequence[str]], settings: Mapping[str, Any]) -> dict[str, str]:
    """Submit cells as one array (a single one as a job); returns the job of each, by name.

    Parameters
    ----------
    folder : Path
        Of the runs; logs are below it.
    cells : mapping of name to arguments of brainlit

    Raises
    ------
    SlurmError
        If there is no Slurm or no submitit here, or it refuses.
    """
    jobs = _submitted(folder, cells, settings, sbatch_settings(settings, folder.name))
    return dict(zip(cells, jobs, strict=True))


def submit_report(folder: Path, report: Sequence[str], settings: Mapping[str, Any], jobs: Iterable[str]) -> str:
    """Submit the comparison as a job that waits for these; returns its number, errors are those of `submit_cells`."""
    after = dict.fromkeys(job.partition("_")[0] for job in jobs)
    (job,) = _submitted(folder, {REPORT: report}, settings, report_settings(settings, f"{folder.name}-{REPORT}", after))
    return job


def _submitted(
    folder: Path, commands: Mapping[str, Sequence[str]], settings: Mapping[str, Any], parameters: Mapping[str, Any]
) -> list[str]:
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError as error:
        raise SlurmError(
            "brainlit submit speaks with Slurm through submitit (the extra slurm), which is not installed: pip install"
            " submitit. --local needs none."
        ) from error
    logs = (folder / LOGS).absolute()
    executor = submitit.SlurmExecutor(folder=logs / "slurm", python=settings.get("python"))
    try:
        executor.update_parameters(**parameters)
        with executor.batch():
            jobs = [executor.submit(become, list(own), str(logs / f"{name}.txt")) for name, own in commands.items()]
    except FailedJobError as error:
        raise SlurmError(f"sbatch refuses: {' '.join(str(error).split())}") from error
    return [str(job.job_id) for job in jobs]


def become(arguments: Sequence[str], log: str) -> None:
    """Turn this process, which submitit started in a job, into a command of brainlit, its output at the end of a log.

    A signal that comes before training listens, or after it, is not to kill the run.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with Path(log).open("ab") as file:
        now = datetime.now(tz=UTC).isoformat(timespec="seconds")
        job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", "?"))
        task, again = os.environ.get("SLURM_ARRAY_TASK_ID"), os.environ.get("SLURM_RESTART_COUNT")
        started = f"{job}{f'_{task}' if task else ''}{f', requeued {again} times' if again else ''}"
        file.write(f"--- {now} Slurm job {started} on {os.uname().nodename}\n".encode())
        file.flush()
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.execv(BRAINLIT[0], [*BRAINLIT, *arguments])


# --- What became of jobs ---


def read_jobs(folder: Path) -> dict[str, str]:
    """The job that each cell was given to last, and that of the report."""
    path = folder / JOBS_FILE
    return dict(read_json(path, "a list of jobs", "Delete it, if none is queued.")["jobs"]) if path.is_file() else {}


def write_jobs(folder: Path, jobs: Mapping[str, str]) -> None:
    """Remember them."""
    write_json(folder / JOBS_FILE, {"jobs": dict(jobs)})


def queued() -> dict[str, str]:
    """Jobs of this user that wait or run, of arrays each task (JOB_TASK), and the state of each in Slurm's word.

    Raises
    ------
    SlurmError
        If there is no squeue here, or it does not answer.
    """
    return _states(_said(*SQUEUE))


def ended(jobs: Iterable[str]) -> dict[str, str]:
    """How jobs ended, in Slurm's word, as far as it keeps accounts or still remembers; empty where nothing does."""
    names = set(jobs)
    for command in ([*SACCT, f"--jobs={','.join(sorted(names))}"], [*SQUEUE, "--states=all"]):
        with suppress(SlurmError):
            return {job: state for job, state in _states(_said(*command)).items() if job in names}
    return {}


def cancel(job: str) -> None:
    """Take a job from the queue."""
    _said("scancel", job)


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise SlurmError(
            f"there is no {command[0]} here: go to a machine from which jobs are submitted, or say --local."
        )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} does not answer: {error}") from error
    if done.returncode:
        raise SlurmError(f"{command[0]} does not answer: {' '.join(done.stderr.split())}")
    return done.stdout


def _states(lines: str) -> dict[str, str]:
    """Of lines that begin with a job and its state; sacct says by whom a job was cancelled behind that."""
    return {words[0]: words[1] for line in lines.splitlines() if len(words := line.split()) > 1}
