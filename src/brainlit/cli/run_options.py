"""The `run` group of the configuration: where a run is recorded, and which one an interrupted command goes on with."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from brainlit.cli.yaml_names import dump_yaml
from brainlit.guard import read_yaml
from brainlit.results.run_directory import (
    CONFIG_FILE,
    JOB,
    STATUS_FILE,
    RunBusyError,
    RunDirectory,
    RunError,
    slurm_job,
    write_text_atomic,
)

log = logging.getLogger(__name__)

RUN_VARIABLE = "BRAINLIT_RUN"
"""Tells the processes that Lightning starts beside the first one where the run is recorded."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run is recorded: <root>/<experiment>/<id>/.

    Parameters
    ----------
    root : str
        Folder of all runs.
    experiment : str
        Name of the experiment: a folder, and the W&B group where none is given.
    id : str
        Name of the run; auto makes a new one from the time, or takes that of an interrupted run (see resume).
    resume : str
        auto goes on with the latest interrupted run that had the same settings (in a SLURM job that was requeued: with
        its own); never starts a new run.
    wandb : str
        auto logs online where the user is logged in and else offline; offline, online and off say which.
    probe_cache_gb : float
        Disk in brainlit's cache, in 10^9 bytes, for probes before training: runs of the same model, data and probe
        settings read what the first of them found. The least recently used go first; 0 computes anew, keeps nothing.
    """

    root: str = "runs"
    experiment: str = "brain_tune"
    id: str = "auto"
    resume: Literal["auto", "never"] = "auto"
    wandb: Literal["auto", "offline", "online", "off"] = "auto"
    probe_cache_gb: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.probe_cache_gb < float("inf"):
            raise ValueError(
                f"run.probe_cache_gb is {self.probe_cache_gb}; give gigabytes of disk, 0 for no probe read or kept."
            )


def open_run(options: RunOptions, config: Mapping[str, Any]) -> RunDirectory:
    """The folder of this run, locked, with the configuration in it.

    Parameters
    ----------
    config : mapping
        The resolved configuration as plain values.

    Raises
    ------
    RunError
        If the named run exists and may not be resumed, or was started with other settings.
    RunBusyError
        If another process is writing the named run.
    RunFinishedError
        If the named run has finished.
    """
    run = _named(options, config) if options.id != "auto" else _interrupted(options, config)
    run = run or RunDirectory.create(options.root, options.experiment)
    os.environ[RUN_VARIABLE] = str(run.path.resolve())
    write_text_atomic(run.path / CONFIG_FILE, dump_yaml(dict(config)))
    if run.resumed:
        start = run.last_checkpoint
        log.info("going on with %s from %s", run.path, start.name if start else "the beginning (no checkpoint yet)")
    return run


def follow_run(options: RunOptions) -> RunDirectory:
    """The folder that the first process of a distributed run has opened; the others take no lock and write nothing.

    Raises
    ------
    RunError
        If it cannot be known: the processes were not started by the first one, and the run has no name.
    """
    if options.id != "auto":  # whatever another run, in whose process this one was started, has left in the environment
        return RunDirectory(Path(options.root) / options.experiment / options.id)
    if RUN_VARIABLE not in os.environ:
        raise RunError("processes that a scheduler starts cannot agree on a new run by themselves. Give --run.id NAME.")
    return RunDirectory(Path(os.environ[RUN_VARIABLE]))


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first key in which two configurations differ, with both values; None if they are the same run.

    >>> difference({"a": {"b": 1}, "run": {"id": "x"}}, {"a": {"b": 2}, "run": {"id": "y"}})
    'a.b is 1, was 2'
    """
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if not prefix and key in ("run", "wandb"):
            continue
        new, old = ours.get(key), theirs.get(key)
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            found = difference(new, old, f"{prefix}{key}.")
            if found:
                return found
        elif new != old:
            return f"{prefix}{key} is {new!r}, was {old!r}"
    return None


def read_config(run: Path) -> dict[str, Any]:
    """The configuration that a run was started with; empty where it was killed before that was written."""
    file = run / CONFIG_FILE
    cure = "Remove the folder, if it is not needed."
    return read_yaml(file, "the configuration of a run", cure) if file.is_file() else {}


def _named(options: RunOptions, config: Mapping[str, Any]) -> RunDirectory:
    path = Path(options.root) / options.experiment / options.id
    if options.resume == "never":
        return RunDirectory.create(options.root, options.experiment, options.id)
    if (path / STATUS_FILE).exists() and RunDirectory.open(path).state == "killed":
        changed = difference(config, read_config(path))
        if changed:
            raise RunError(
                f"{path} was started with other settings: {changed}. Use the same to go on with it, or give another"
                " --run.id."
            )
    return RunDirectory.claim(options.root, options.experiment, options.id)


def _interrupted(options: RunOptions, config: Mapping[str, Any]) -> RunDirectory | None:
    if options.resume == "never":
        return None
    for path in _newest_first(Path(options.root) / options.experiment):
        if RunDirectory.open(path).state == "killed" and difference(config, read_config(path)) is None:
            try:
                return RunDirectory.claim(options.root, options.experiment, path.name)
            except RunBusyError:
                log.info("%s was taken by another process in this moment", path)
    return None


def _newest_first(folder: Path) -> Iterator[Path]:
    """Runs that this SLURM job started before it was requeued, then the others; each from the newest."""
    job = slurm_job()
    found = [status.parent for status in folder.glob(f"*/{STATUS_FILE}")]
    own = {path: job is not None and RunDirectory.open(path).status.get(JOB) == job for path in found}
    yield from sorted(found, key=lambda path: (own[path], (path / STATUS_FILE).stat().st_mtime_ns), reverse=True)
