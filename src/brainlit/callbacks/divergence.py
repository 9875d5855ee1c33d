"""Stops a run whose loss or weights are no longer finite, before anything of it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from brainlit.tuning.divergence import check_finite, check_weights


class _Loss(NamedTuple):
    """A loss that was not looked at yet, still on its device."""

    value: Tensor
    step: int
    epoch: int
    batch: int


class DivergenceGuard(pl.Callback):
    """End training with a DivergedError when a loss is NaN or infinite, and keep such weights out of checkpoints.

    Losses are looked at after each step, trained weights at the end of each epoch and whenever a checkpoint is about to
    be written, whoever writes it and when: a checkpoint that is already there stays as it is. Callbacks that save come
    last in Lightning, so this one is asked first, wherever it stands in the list.

    In distributed training each process looks at its own losses and its copy of the weights; the first to find
    something ends, and the launcher ends the others.

    Parameters
    ----------
    every_n_steps : int
        Look at the losses of so many batches at once. Each look waits for the GPU: some tens of microseconds beside a
        step of a tenth of a second or more; give 50 where steps are very short. Whatever the number, the error names
        the batch in which it began.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; give 1 (after each step) or more.")
        self.every_n_steps = every_n_steps
        self._losses: list[_Loss] = []
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the losses of an earlier run."""
        self._losses = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember which optimiser step this batch belongs to; accumulated batches share one."""
        self._step = trainer.global_step + 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss."""
        loss = outputs if isinstance(outputs, Tensor) else (outputs or {}).get("loss")
        if loss is not None:
            self._losses.append(_Loss(loss.detach(), self._step, trainer.current_epoch, batch_idx))
        if len(self._losses) >= self.every_n_steps:
            self._check_losses(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the losses that are left, and at the weights."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look once more: nothing is on disk yet."""
        self._check(trainer, pl_module)

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_losses(trainer)
        check_weights(
            pl_module, trainer.global_step, trainer.current_epoch, str(trainer.precision), last_checkpoint(trainer)
        )

    def _check_losses(self, trainer: pl.Trainer) -> None:
        losses, self._losses = self._losses, []
        if not losses or torch.isfinite(torch.stack([loss.value for loss in losses])).all():
            return
        for value, step, epoch, batch in losses:
            check_finite(value, step, epoch, batch, str(trainer.precision), last_checkpoint(trainer))


def last_checkpoint(trainer: pl.Trainer) -> Path | None:
    """The newest checkpoint that the trainer wrote, else the one that it was resumed from; None if there is none."""
    found = [
        Path(path)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, Checkpoint)
        for path in (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
        if path and Path(path).is_file()
    ]
    if found:
        return max(found, key=lambda path: path.stat().st_mtime)
    return Path(trainer.ckpt_path) if trainer.ckpt_path else None
