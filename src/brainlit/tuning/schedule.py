"""AdamW for backbone and head, and its learning rate by optimiser step: warm up, then fall to zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def adamw_with_schedule(
    parameters: dict[str, Iterable[nn.Parameter]],
    learning_rates: dict[str, float],
    weight_decay: float,
    n_steps: int,
    warmup_fraction: float,
    fused: bool,
) -> Any:
    """What configure_optimizers returns: one group for each name, leaving out frozen parameters.

    Parameters
    ----------
    parameters, learning_rates : dicts by name of the group
        Peak learning rates.
    n_steps : int
        Optimiser steps of the whole run.
    fused : bool
        Update all parameters in one kernel: the same numbers, sooner.
    """
    groups = [
        {"name": name, "params": [p for p in group if p.requires_grad], "lr": learning_rates[name]}
        for name, group in parameters.items()
    ]
    optimizer = AdamW(groups, weight_decay=weight_decay, fused=fused)
    schedule = LambdaLR(optimizer, lambda step: warmup_linear_decay(step, n_steps, warmup_fraction))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warmup_linear_decay(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Factor of the learning rate at a step; counts optimiser steps, not epochs, stories or batches.

    Rises to 1 over the first warmup_fraction of the steps, then falls so that the step after the last would have 0.
    No step is lost: the first and the last have a small factor, and neither has 0.

    Parameters
    ----------
    step : int
        From 0.
    n_steps : int
        Optimiser steps of the whole run.
    warmup_fraction : float
        Share of the steps that warm up, 0 to 1.

    Examples
    --------
    >>> [round(warmup_linear_decay(step, 8, 0.5), 2) for step in range(9)]
    [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    """
    n_warmup = round(warmup_fraction * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return max(0.0, (n_steps - step) / (n_steps - n_warmup + 1))
