"""Training that has diverged: a run whose loss or weights are no longer finite ends before anything of it is saved.

The error says what is not finite, where it was noticed, and what usually helps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

MOST_NAMED = 3
"""Weights that an error names."""


class DivergedError(RuntimeError):
    """The loss or the weights are no longer finite; going on would train nothing."""


class _Loss(NamedTuple):
    """A loss that was not looked at yet, still on its device."""

    value: Tensor
    step: int
    epoch: int
    batch: int


class DivergenceGuard(Callback):
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the losses of an earlier run."""
        self._losses = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember which optimiser step this batch belongs to; accumulated batches share one."""
        self._step = trainer.global_step + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss."""
        loss = outputs if isinstance(outputs, Tensor) else (outputs or {}).get("loss")
        if loss is not None:
            self._losses.append(_Loss(loss.detach(), self._step, trainer.current_epoch, batch_idx))
        if len(self._losses) >= self.every_n_steps:
            self._check_losses(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the losses that are left, and at the weights."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look once more: nothing is on disk yet."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_losses(trainer)
        check_weights(
            pl_module, trainer.global_step, trainer.current_epoch, str(trainer.precision), last_checkpoint(trainer)
        )

    def _check_losses(self, trainer: Trainer) -> None:
        losses, self._losses = self._losses, []
        if not losses or torch.isfinite(torch.stack([loss.value for loss in losses])).all():
            return
        for value, step, epoch, batch in losses:
            check_finite(value, step, epoch, batch, str(trainer.precision), last_checkpoint(trainer))


# --- What is looked at ---


def check_finite(
    loss: Tensor | float, step: int, epoch: int, batch: int, precision: str, last_good: Path | None
) -> None:
    """Refuse a loss that is NaN or infinite.

    Reading the value off a GPU waits for the step to end.

    Parameters
    ----------
    loss : Tensor of shape () or float
    step : int
        Optimiser step that the loss belongs to, the first being 1.
    epoch, batch : int
        Counted from 0, as Lightning does.
    precision : str
        The trainer's, such as 16-mixed.
    last_good : Path or None
        Newest checkpoint from before.

    Raises
    ------
    DivergedError
        Saying where, and what to do.
    """
    value = float(loss.detach()) if isinstance(loss, Tensor) else loss
    if not math.isfinite(value):
        where = f"optimiser step {step} (epoch {epoch}, batch {batch}, both counted from 0)"
        raise DivergedError(f"the loss is {value} at {where}, precision {precision}. {cures(precision, last_good)}")


def check_weights(module: nn.Module, step: int, epoch: int, precision: str, last_good: Path | None) -> None:
    """Refuse trained weights that are NaN or infinite; parameters as in check_finite.

    In 16-mixed the gradient scaler leaves out steps whose gradients are not finite, which is usual, so gradients say
    nothing about whether training has diverged; weights do.

    Raises
    ------
    DivergedError
        Naming the first of them.
    """
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    broken = not_finite(trained)
    if broken:
        names = ", ".join(broken[:MOST_NAMED]) + (", ..." if len(broken) > MOST_NAMED else "")
        raise DivergedError(
            f"{len(broken)} of {len(trained)} trained weights are not finite after optimiser step {step} (epoch"
            f" {epoch}, counted from 0), precision {precision}: {names}. {cures(precision, last_good)}"
        )


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or infinite values; asks the device once.

    >>> not_finite([("a", torch.ones(2)), ("b", torch.tensor([1.0, float("nan")]))])
    ['b']
    """
    finite = {name: torch.isfinite(tensor.detach()).all() for name, tensor in named}
    if not finite:
        return []
    return [name for name, good in zip(finite, torch.stack(list(finite.values())).tolist(), strict=True) if not good]


def cures(precision: str, last_good: Path | None) -> str:
    """The last good checkpoint, and what usually helps."""
    kept = f"The last good checkpoint is {last_good}" if last_good else "There is no checkpoint yet"
    half = "--trainer.precision bf16-mixed (fp16 ends at 65504), " if precision.startswith("16") else ""
    return (
        f"{kept}; nothing was saved after that. What helps: {half}a lower --model.backbone_lr,"
        " --trainer.gradient_clip_val 1.0, and a look at the data (brainlit data check)."
    )


def last_checkpoint(trainer: Trainer) -> Path | None:
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
