"""One folder per run, runs/<experiment>/<id>/, which is never overwritten.

A run is claimed by a lock that the kernel releases when the process ends in whatever way, so a folder whose status
says "running" and whose lock is free belongs to a run that was killed, and may be resumed from its last checkpoint.
Beside the folder itself stand here which of its checkpoints training can go on from, and its provenance: versions,
source revision, data hashes, seed, machine and command.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from filelock import FileLock, Timeout

from brainlit.files import atomic_path, remove, sha256_of, sweep, write_json
from brainlit.guard import read_json as read_guarded
from brainlit.weight_files import zip_damage

log = logging.getLogger(__name__)

STATUS_FILE = "status.json"
JOB = "slurm_job"
"""Entry of status.json: the SLURM job that started the run, which keeps its number when it is requeued."""
CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"
SUBFOLDERS = ("checkpoints", "probes", "figures")
WRITTEN_LATER = ("figures", "downstream", "export", "maps", "predictions")
"""What commands write into a run that has finished."""
PACKAGES = ("brainlit", "torch", "lightning", "transformers", "himalaya", "numpy", "scipy", "h5py", "nilearn", "wandb")
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
    """Write plain JSON with its checksum (NaN and infinities refused: they are not JSON) atomically."""
    return write_json(path, value, allow_nan=False)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnreadableFileError
        If it is none.
    """
    return read_guarded(path, "a JSON object, as brainlit writes it", "Fetch the run again, or delete the file.")


def read_json_if_there(path: Path) -> dict[str, Any]:
    """As `read_json`; empty where there is no file."""
    return read_json(path) if path.is_file() else {}


def slurm_job() -> str | None:
    """The number of this SLURM job (of an array: JOB_TASK), the same after it was requeued; None outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    return job if re.fullmatch(r"\d+(_\d+)?", job) else None


def new_run_id() -> str:
    """Sortable by time, unique by eight random digits that do not touch anyone's random state."""
    return f"{datetime.now(tz=UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


class RunDirectory:
    """The folder of one run; make it with `create` or `claim`, read it with `open`.

    Parameters
    ----------
    path : Path
        runs/<experiment>/<id>.
    resumed : bool
        Whether the folder was left unfinished by an earlier process.

    Attributes
    ----------
    experiment, run_id : str
    checkpoints, probes, figures : Path
        Its subfolders.

    Notes
    -----
    ======================  ==========================================================
    status.json             running or finished, when, where, how often started
    config.yaml             the resolved configuration
    checkpoints/            last.ckpt and others
    metrics.csv             what was logged during training
    probes/                 one table per probe, one array file per probe and subject
    figures/                PNG, SVG, and CSV of their numbers
    summary.json            the report's numbers
    provenance.json         versions, revision, store hashes, seed, machine, command
    report.html             one self-contained page
    methods.md              what was done as a paper says it, and what to cite
    ======================  ==========================================================
    """

    def __init__(self, path: Path, resumed: bool = False, lock: FileLock | None = None) -> None:
        self.path, self.resumed, self._lock = Path(path), resumed, lock
        self.experiment, self.run_id = self.path.parent.name, self.path.name
        self.checkpoints, self.probes, self.figures = (self.path / name for name in SUBFOLDERS)

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
        RunError
            If what commands write into it would land elsewhere, through a link.
        """
        for part in (Path(path) / name for name in WRITTEN_LATER):
            if part.is_symlink() and not part.resolve().is_relative_to(Path(path).resolve()):
                raise RunError(f"{part} is a link that leads out of the run, and is written to. Put a folder there.")
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
        run._make_folders()
        if not run.status:
            run._write_status(state="running", starts=[_now()])
        return run

    @classmethod
    def _start(cls, path: Path, resumed: bool) -> RunDirectory:
        lock = FileLock(str(path / ".lock"), blocking=False)
        run = cls(path, resumed=resumed, lock=lock)
        run._make_folders()
        try:
            lock.acquire()
        except Timeout as error:
            raise RunBusyError(f"another process is writing {path}. Wait for it, or start under another id.") from error
        try:
            run._refuse_finished()
        except RunFinishedError:
            lock.release()
            raise
        sweep(path)
        run._write_status(state="running", starts=[*run.status.get("starts", []), _now()], **{JOB: slurm_job()})
        return run

    def _make_folders(self) -> None:
        for folder in (self.checkpoints, self.probes, self.figures):
            folder.mkdir(parents=True, exist_ok=True)

    def _refuse_finished(self) -> None:
        status = self.status
        if status.get("state") == "finished":
            raise RunFinishedError(
                f"the run {self.path} finished at {status.get('finished')}; its folder is not written again."
                " Start under another id, or read its report.html."
            )

    @property
    def status(self) -> dict[str, Any]:
        """What status.json says; empty where there is none."""
        return read_json_if_there(self.path / STATUS_FILE)

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
    def last_checkpoint(self) -> Path | None:
        """What to resume from: the checkpoint with the most steps, of those at equal steps the newest; None if none.

        The best one does not count: it may be an old one. Those that hold weights only, or cannot be read, do not
        count either.
        """
        found = [path for path in self.checkpoints.glob("*.ckpt") if not path.name.startswith(("best", "."))]
        found += self.path.glob("hpc_ckpt_*.ckpt")
        steps = {path: step for path in found if (step := checkpoint_step(path)) is not None}
        return max(steps, key=lambda path: (steps[path], path.stat().st_mtime_ns), default=None)

    @property
    def resumed_step(self) -> int | None:
        """Steps behind the checkpoint that this process goes on from, 0 if there is none; None for a new run."""
        if not self.resumed:
            return None
        checkpoint = self.last_checkpoint
        return 0 if checkpoint is None else checkpoint_step(checkpoint)

    def finish(self) -> None:
        """Mark the run as finished and let go of it."""
        self._write_status(state="finished", finished=_now())
        self.release()

    def release(self) -> None:
        """Let go of the lock without finishing (the run can be resumed)."""
        if self._lock is not None:
            self._lock.release()

    def discard_unused(self) -> bool:
        """Remove the folder of a start that failed before anything was recorded; returns whether it is gone.

        A run that was resumed, or has a checkpoint, a probe or a logged number, stays, and so does one that holds files
        of others.
        """
        ours = {STATUS_FILE, CONFIG_FILE, ".lock", *SUBFOLDERS}
        parts = (self.checkpoints, self.probes, self.figures)
        if self.resumed or self.state == "finished" or any(any(part.iterdir()) for part in parts if part.is_dir()):
            return False
        if {path.name for path in self.path.iterdir()} - ours:
            return False
        remove(self.path)
        self.release()
        with suppress(OSError):  # other runs of the experiment
            self.path.parent.rmdir()
        return True

    def _write_status(self, **changes: Any) -> None:
        status = {**self.status, "experiment": self.experiment, "id": self.run_id, **changes}
        write_json_atomic(self.path / STATUS_FILE, {**status, "pid": os.getpid()})


def _run_path(root: Path | str, experiment: str, run_id: str) -> Path:
    for what, name in (("experiment", experiment), ("run id", run_id)):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what} {name!r} is not a folder name; use letters, digits, '.', '_' and '-'.")
    return Path(root) / experiment / run_id


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


# --- Checkpoints ---


def checkpoint_step(path: Path) -> int | None:
    """Optimiser steps behind a checkpoint that training can go on from; None where there are none.

    So it is where a file cannot be read, holds only weights, or was written between the last step of an epoch and the
    end of that epoch: Lightning would leave out the validation, and then stop early. Only what the file says about
    itself is read; the weights stay on disk.
    """
    import torch

    try:
        if damage := zip_damage(path):
            raise EOFError(damage)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        log.warning("cannot read the checkpoint %s (%s); it is left alone", path, error)
        return None
    if not {"global_step", "optimizer_states", "loops"} <= checkpoint.keys() or _is_at_last_batch(checkpoint["loops"]):
        return None
    return int(checkpoint["global_step"])


def _is_at_last_batch(loops: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written after the last batch of an epoch that had not ended."""
    fit = loops["fit_loop"]
    epoch, batch = fit["epoch_progress"]["current"], fit["epoch_loop.batch_progress"]
    return bool(batch["is_last_batch"] and epoch["processed"] < epoch["started"])


# --- Where a run's numbers come from ---


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that a number may depend on; 'not installed' where absent."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """Revision of the source tree and whether it holds uncommitted changes; 'unknown' outside a git checkout.

    An installed copy inside somebody else's repository is not tracked there, and is 'unknown' too.
    """
    file = Path(__file__).resolve()
    where = folder or file.parent
    tracked = folder is not None or _git(where, "ls-files", "--error-unmatch", file.name) is not None
    revision = _git(where, "rev-parse", "HEAD") if tracked else None
    if revision is None:
        return {"revision": "unknown", "dirty": None}
    status = _git(where, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "dirty": bool(status)}


def machine() -> dict[str, Any]:
    """Processor, cores, threads and accelerator, without the names of users or hosts."""
    import torch

    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }


def store_hashes(store_path: Path | str | None) -> dict[str, Any]:
    """SHA-256 of the store's index (which lists that of every file) and the settings that made it."""
    index = Path(store_path) / "store.json" if store_path is not None else None
    if index is None or not index.is_file():
        return {"sha256": "unknown"}
    return {"sha256": sha256_of(index), "settings": read_json(index).get("settings")}


def collect(seed: int | None = None, store_path: Path | str | None = None, **extra: Any) -> dict[str, Any]:
    """Versions, revision, machine, data and seed as one JSON value; `extra` is added at the top level."""
    return {
        "written": _now(),
        "command": " ".join(sys.argv),
        "seed": seed,
        "git": git_state(),
        "versions": package_versions(),
        "machine": machine(),
        "store": store_hashes(store_path),
        **extra,
    }


def write_provenance(folder: Path, provenance: Mapping[str, Any]) -> Path:
    """Write provenance.json into a run directory."""
    return write_json_atomic(folder / PROVENANCE_FILE, provenance)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
