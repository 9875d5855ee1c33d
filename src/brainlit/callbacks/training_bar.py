"""The one line of a training on the screen: epoch, losses, the alignment that was probed last, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

from brainlit.results.group import group_score, of_tables
from brainlit.results.record import ProbeRecord
from brainlit.results.scores import ALL_VOXELS

REGIONS = ("semantic", "auditory")
"""Regions whose alignment is shown, where the probes have them; else that of all voxels."""
_LOSSES = {"loss": "train/loss_step", "validation": "val/loss"}


class TrainingBar(TQDMProgressBar):
    """Lightning's bar with what somebody who waits for the end looks for.

    The time left is that of all steps that are planned, at the pace so far with its validations and probes; the probe
    after training and the report come on top.
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"

    def __init__(self) -> None:
        super().__init__()
        self._alignment: dict[str, str] = {}
        self._started_s = 0.0
        self._first_step = self._n_planned = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; where a run goes on, at the steps that it has."""
        super().on_train_start(trainer, pl_module)
        planned = trainer.estimated_stepping_batches
        self._n_planned = int(planned) if planned < float("inf") else 0
        self._started_s, self._first_step = time.monotonic(), trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count epochs from 1, and say of how many."""
        super().on_train_epoch_start(trainer, pl_module)
        known = trainer.max_epochs not in (None, -1)
        of_all = f" of {trainer.max_epochs}" if known else ""
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}{of_all}")

    def show(self, records: Sequence[ProbeRecord]) -> None:
        """Show the alignment of these records from now on."""
        tables = {record.subject: record.table for record in records}
        for names in (REGIONS, (ALL_VOXELS,)):
            scores = {name: group_score("r_backbone", of_tables(tables, name, records[0].layer)) for name in names}
            self._alignment = {f"r {name}": f"{one.score.value:.3f}" for name, one in scores.items() if one is not None}
            if self._alignment:
                return

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands behind the bar, in its order."""
        known: Mapping[str, Any] = trainer.callback_metrics
        found = {name: f"{float(known[key]):.3f}" for name, key in _LOSSES.items() if key in known}
        left = self._left(trainer.global_step)
        return {**found, **self._alignment, **({"left": left} if left else {})}

    def _left(self, step: int) -> str:
        n_done = step - self._first_step
        if n_done < 1 or not self._n_planned:
            return ""
        return clock((time.monotonic() - self._started_s) / n_done * max(self._n_planned - step, 0))


def show_alignment(trainer: pl.Trainer, records: Sequence[ProbeRecord]) -> None:
    """Let the bar of a trainer show what was probed, if it is one of these."""
    for callback in getattr(trainer, "callbacks", ()):
        if isinstance(callback, TrainingBar) and records:
            callback.show(records)


def clock(seconds: float) -> str:
    """Minutes and seconds, from an hour on hours and minutes.

    >>> clock(65), clock(7384)
    ('1:05 min', '2:03 h')
    """
    small, unit = (round(seconds), "min") if seconds < 3600 else (round(seconds / 60), "h")
    return f"{small // 60}:{small % 60:02d} {unit}"
