"""Training that has diverged: what is not finite, where it was noticed, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

MOST_NAMED = 3


class DivergedError(RuntimeError):
    """The loss or the weights are no longer finite; going on would train nothing."""


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
