"""`fit --ckpt_path`: going on with the run that was interrupted, or from a checkpoint of another run.

A run that goes on from another one's checkpoint is a run of its own. What the other one had recorded up to that
checkpoint comes along, its probe from before tuning first of all, for the weights of that time are gone.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brainlit.callbacks.drift import REFERENCE_FILE
from brainlit.callbacks.drift import TABLE_FILE as DRIFT_FILE
from brainlit.cli.errors import UsageError
from brainlit.cli.run_options import RunOptions
from brainlit.files import write_csv
from brainlit.guard import read_csv
from brainlit.results.layer_curve import TABLE_FILE as LAYER_CURVE_FILE
from brainlit.results.metrics import METRICS_FILE
from brainlit.results.run_directory import STATUS_FILE, RunDirectory, checkpoint_step
from brainlit.results.tables import count_said

log = logging.getLogger(__name__)

LAST, BEST = "last", "best"
_CURE = "Move it away, if the new run can do without it."


@dataclass(frozen=True)
class Start:
    """A checkpoint that a new run goes on from.

    Parameters
    ----------
    path : Path
        The file.
    step, epoch : int
        Optimiser steps and whole epochs behind it.
    brought : tuple of Path
        What was copied into the new run.
    """

    path: Path
    step: int
    epoch: int
    brought: tuple[Path, ...] = ()

    @property
    def run(self) -> Path | None:
        """Folder of the run that wrote it; None where it lies in none."""
        parents = self.path.resolve().parents
        return next((parent for parent in list(parents)[:2] if (parent / STATUS_FILE).is_file()), None)

    def bring_records(self, run: RunDirectory) -> Start:
        """Copy what the other run had recorded up to the checkpoint into the new one."""
        if self.run is None:
            log.info("%s lies in no run: what was measured before it is not known", self.path)
            return self
        brought: list[Path] = []
        for source in sorted((self.run / "probes").rglob("epoch-*")):
            if int(source.stem.removeprefix("epoch-")) <= self.epoch:
                brought.append(_placed(source, self.run, run.path))
                shutil.copyfile(source, brought[-1])
        if (self.run / REFERENCE_FILE).is_file():
            brought.append(_placed(self.run / REFERENCE_FILE, self.run, run.path))
            shutil.copyfile(self.run / REFERENCE_FILE, brought[-1])
        for name in (DRIFT_FILE, LAYER_CURVE_FILE):
            brought += self._rows(name, run, lambda row: int(row["epoch"]) <= self.epoch)
        brought += self._rows(METRICS_FILE, run, lambda row: float(row["step"] or 0) <= self.step)
        log.info("going on from %s, after %s; its records come along", self.path, count_said(self.epoch, "epoch"))
        return replace(self, brought=tuple(brought))

    def take_back(self) -> None:
        """Remove what was copied, for nothing was added to it."""
        for path in self.brought:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in self.brought if path.parent.parent.name == "probes"}:
            if not any(folder.iterdir()):
                folder.rmdir()

    def _rows(self, name: str, run: RunDirectory, kept: Callable[[Mapping[str, str]], bool]) -> list[Path]:
        assert self.run is not None
        source, target = self.run / name, run.path / name
        if not source.is_file():
            return []
        key = "step" if name == METRICS_FILE else "epoch"
        rows: list[dict[str, Any]] = [dict(row) for row in read_csv(source, "a table of a run", _CURE, key)]
        if rows:
            write_csv(target, list(rows[0]), [row for row in rows if kept(row)])
        return [target] if rows else []


def asked_start(asked: str | None, options: RunOptions, trainer: Mapping[str, Any]) -> Start | None:
    """The checkpoint that `--ckpt_path` of fit names; None where the run says itself where it goes on.

    Parameters
    ----------
    asked : str or None
        A file, or `last`: the interrupted run that the same command would go on with.
    options : RunOptions
    trainer : mapping
        The trainer's settings, with max_epochs and max_steps.

    Raises
    ------
    UsageError
        If training cannot go on from there.
    FileNotFoundError
        If there is no such file.
    """
    if asked is None:
        return None
    if asked == LAST:
        if options.resume == "never":
            raise UsageError(
                "--ckpt_path last goes on with the interrupted run, and --run.resume never forbids that. Give one of"
                " them."
            )
        return None
    if asked in (BEST, "hpc") or asked.startswith("registry"):
        raise UsageError(
            f"--ckpt_path {asked} does not say of which run. Give last (the interrupted run goes on), or a file, such"
            " as runs/<experiment>/<id>/checkpoints/best.ckpt (a new run goes on from it)."
        )
    path = Path(asked)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}. Look into the run's folder checkpoints/, or give last."
        )
    step = checkpoint_step(path)
    if step is None:
        raise UsageError(
            f"training cannot go on from {path}: it holds only weights, or was written between the last step of an"
            " epoch and its end. Give last.ckpt of that run."
        )
    start = Start(path, step, _whole_epochs(path))
    for name, done, what in (("max_epochs", start.epoch, "epochs"), ("max_steps", step, "optimiser steps")):
        most = trainer.get(name)
        if most is not None and 0 <= most <= done:
            raise UsageError(
                f"{path} has {done} {what} behind it, and --trainer.{name} is {most}: there is nothing left to train."
                f" Give --trainer.{name} {done + 1} or more."
            )
    return start


def say_where(asked: str | None, run: RunDirectory) -> None:
    """A sentence where `last` was asked for and there is nothing to go on with."""
    if asked == LAST and not run.resumed:
        log.warning(
            "--ckpt_path last: there is no interrupted run with these settings under %s: this one begins anew.",
            run.path.parent,
        )


def _whole_epochs(path: Path) -> int:
    import torch

    loops = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["loops"]
    return int(loops["fit_loop"]["epoch_progress"]["current"]["processed"])


def _placed(source: Path, old: Path, new: Path) -> Path:
    """The same place in the new run, its folder made."""
    target = new / source.resolve().relative_to(old)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
