"""The optimiser: which parameters it holds at what rates, and how the rates change by optimiser step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil
from typing import Any, Literal

from torch import nn
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR

from brainlit.backbones import SpeechBackbone
from brainlit.backbones.trainable import depths
from brainlit.tuning.settings import check_choice

Optimizer = Literal["adamw", "adam"]
Schedule = Literal["warmup_linear", "constant", "published_2410"]

SHORT_STEPS = 600
"""Runs of up to so many optimiser steps have the rates of short runs; in longer ones they fall."""
WHISPER_BASE = 18_900_000
"""Parameters in the layers of Whisper base, on which the backbone's rate was measured."""
FEWEST_WARMUP_STEPS = 5
FEWEST_STEPS = 30
"""Optimiser steps in which a head has learned most of what it can; own choice, see docs/tuning.md."""


def default_learning_rates(n_parameters: int, n_steps: int, lora: bool) -> tuple[float, float]:
    """Peak learning rates of backbone and head that suit a model of this size and a run of this length.

    backbone = min(2e-3, 1e-3 x (18.9e6 / n_parameters)^(2/3)) x max(1/8, min(1, 600 / n_steps)^(3/2))
    head = max(1e-4, 3e-3 x min(1, 600 / n_steps)^2)

    With LoRA the backbone's is twice as high, and again 2e-3 at most. docs/tuning.md says what was measured and where
    published values lie.

    Parameters
    ----------
    n_parameters : int
        In the layers of the backbone, trained or not: freezing some of them makes the others no wider.
    n_steps : int
        Optimiser steps of the whole run.
    lora : bool
        Whether the backbone is trained through LoRA.

    Examples
    --------
    A tiny model, Whisper base on a few stories, and a base-size model in the 2,300 steps of arXiv 2410.09230:

    >>> [tuple(float(f"{rate:.1e}") for rate in default_learning_rates(*run, lora=False))
    ...  for run in ((660_000, 160), (18_900_000, 44), (85_000_000, 2300))]
    [(0.002, 0.003), (0.001, 0.003), (4.9e-05, 0.0002)]
    """
    short = min(1.0, SHORT_STEPS / max(1, n_steps))
    by_size = 1e-3 * (WHISPER_BASE / n_parameters) ** (2 / 3)
    return min(2e-3, by_size * (2 if lora else 1)) * max(1 / 8, short**1.5), max(1e-4, 3e-3 * short**2)


def too_short_said(n_steps: int, steps_per_epoch: int) -> str:
    """A sentence where a run has too few optimiser steps to learn anything, with how many epochs it would take.

    Empty where it has enough, or trains nothing.

    >>> too_short_said(4, 2)
    'The run is too short to learn: 4 optimiser steps, and it takes 30 or more: --trainer.max_epochs 15.'
    """
    if not 0 < n_steps < FEWEST_STEPS:
        return ""
    return (
        f"The run is too short to learn: {n_steps} optimiser step{'s' * (n_steps > 1)}, and it takes {FEWEST_STEPS} or"
        f" more: --trainer.max_epochs {ceil(FEWEST_STEPS / steps_per_epoch)}."
    )


def parameter_groups(
    backbone: SpeechBackbone,
    head_parameters: Iterable[nn.Parameter],
    backbone_lr: float,
    head_lr: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """What the optimiser holds: trainable parameters only, in groups with a name, a rate and a weight decay.

    Without layer decay there is one group `backbone` and one `head`. With it the backbone's rates fall from top to
    bottom as in ELECTRA (arXiv 2003.10555) and BEiT (arXiv 2106.08254): the topmost trained layer L has backbone_lr,
    layer k has backbone_lr x layer_decay^(L - k) in `backbone/layer-KK`, and what lies before the layers
    backbone_lr x layer_decay^L in `backbone/projection`. (Both count the head as one step more; here it has a rate of
    its own.) A layer norm after the last layer goes with the topmost layer, a position embedding that the layers share
    with the first. Weight decay is the same for all.

    Parameters
    ----------
    head_parameters : iterable of Parameters
        Everything else that is trained.
    backbone_lr, head_lr : float
        Peak learning rates.
    layer_decay : float
        1 for none.
    """
    trained = [(name, parameter) for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    if layer_decay == 1:
        groups = [{"name": "backbone", "params": [parameter for _, parameter in trained], "lr": backbone_lr}]
    else:
        groups = _layer_groups(backbone, trained, backbone_lr, layer_decay)
    head = [parameter for parameter in head_parameters if parameter.requires_grad]
    groups.append({"name": "head", "params": head, "lr": head_lr})
    return [{**group, "weight_decay": weight_decay} for group in groups]


def optimizer_with_schedule(
    groups: list[dict[str, Any]],
    n_steps: int,
    steps_per_epoch: int,
    warmup_fraction: float,
    fused: bool,
    optimizer: Optimizer = "adamw",
    schedule: Schedule = "warmup_linear",
) -> dict[str, Any]:
    """What configure_optimizers returns; the rates change after every optimiser step.

    Parameters
    ----------
    groups : list of dict
        From parameter_groups.
    n_steps : int
        Optimiser steps of the whole run: Lightning's estimated_stepping_batches.
    steps_per_epoch : int
        Optimiser steps of an epoch; used by published_2410 only.
    warmup_fraction : float
        Share of the steps that warm up, 5 of them at least; used by warmup_linear only. See warmup_linear_decay.
    fused : bool
        Update all parameters in one kernel: the same numbers, sooner.
    optimizer : str
        adamw, or adam as in the papers (its weight decay is a penalty in the gradient).
    schedule : str
        warmup_linear rises and falls to 0; constant keeps the peak rates; published_2410 is what the released code of
        arXiv 2410.09230 does, per epoch and other than the paper says.

    Raises
    ------
    ValueError
        If there is no such optimiser or schedule.
    """
    check_choice("optimizer", optimizer, Optimizer)
    check_choice("schedule", schedule, Schedule)
    made = {"adamw": AdamW, "adam": Adam}[optimizer](groups, fused=fused)
    factors = [_factor(schedule, group["name"], n_steps, steps_per_epoch, warmup_fraction) for group in groups]
    return {"optimizer": made, "lr_scheduler": {"scheduler": LambdaLR(made, factors), "interval": "step"}}


def follow_plan(scheduler: LambdaLR, rates: Sequence[float]) -> None:
    """Give an optimiser that was read from a checkpoint the rates of this run's plan, at the step where it stands.

    Where the run goes on as it was planned, these are the rates of the checkpoint. A run that goes on for longer than
    it was planned would else take its next step with the last rate of the old plan, which may be 0.

    Parameters
    ----------
    scheduler : LambdaLR
        Of `optimizer_with_schedule`, its state read.
    rates : sequence of float
        Peak learning rates of the optimiser's groups.
    """
    scheduler.base_lrs = list(rates)
    for group, rate, factor in zip(scheduler.optimizer.param_groups, rates, scheduler.lr_lambdas, strict=True):
        group["initial_lr"], group["lr"] = rate, rate * factor(scheduler.last_epoch)


def count_planned_steps(trainer: Any) -> int:
    """Optimiser steps of the whole run of a Lightning trainer; 0 without epochs, where Lightning says those of one."""
    return 0 if trainer.max_epochs == 0 else int(trainer.estimated_stepping_batches)


def count_steps_per_epoch(trainer: Any) -> int:
    """Optimiser steps of an epoch of a Lightning trainer, gradient accumulation counted.

    An epoch that does not end by itself is as long as the run. Lightning knows the number of batches once it was asked
    for estimated_stepping_batches.
    """
    n_steps = trainer.estimated_stepping_batches
    n_batches = trainer.num_training_batches
    return int(n_steps) if n_batches == float("inf") else ceil(n_batches / int(trainer.accumulate_grad_batches))


# --- factors of the learning rate at a step ---


def warmup_linear_decay(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Factor of the learning rate at a step; counts optimiser steps, not epochs, stories or batches.

    Rises to 1 over the first warmup_fraction of the steps, but over 5 at least, or half of fewer than 10; a fraction of
    0 is none. Then it falls so that the step after the last would have 0. No step is lost: the first and the last have
    a small factor, and neither has 0. Steps count from 0; the others are as in optimizer_with_schedule.

    >>> [round(warmup_linear_decay(step, 8, 0.5), 2) for step in range(9)]
    [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    """
    # A first step of Adam is as long as the rate, whatever the gradient: it must not be the full one.
    n_warmup = max(round(warmup_fraction * n_steps), min(FEWEST_WARMUP_STEPS, n_steps // 2)) if warmup_fraction else 0
    if step < n_warmup:
        return (step + 1) / n_warmup
    return max(0.0, (n_steps - step) / (n_steps - n_warmup + 1))


def published_2410_backbone(step: int, n_steps: int, steps_per_epoch: int) -> float:
    """The backbone's factor in the released code of arXiv 2410.09230: one value per epoch, 0 in the whole first one.

    It rises over 5 of 30 epochs, then falls so that the epoch after the last would have 0. Runs of other lengths warm
    up over a sixth of their epochs, at least one. The paper says 10 % warm-up.

    Examples
    --------
    Thirty epochs of two steps, the first seven and the last:

    >>> [round(published_2410_backbone(2 * epoch, 60, 2), 2) for epoch in (0, 1, 2, 3, 4, 5, 6, 29)]
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.96, 0.04]
    >>> published_2410_backbone(1, 60, 2), published_2410_backbone(3, 60, 2)
    (0.0, 0.2)
    """
    epoch, n_epochs = step // steps_per_epoch, ceil(n_steps / steps_per_epoch)
    n_warmup = max(1, round(n_epochs / 6))
    if epoch < n_warmup:
        return epoch / n_warmup
    return max(0.0, (n_epochs - epoch) / max(1, n_epochs - n_warmup))


def published_2410_head(step: int, steps_per_epoch: int) -> float:
    """The head's factor in the released code of arXiv 2410.09230: a fifth less each epoch, down to a tenth.

    >>> [round(published_2410_head(2 * epoch, 2), 3) for epoch in (0, 1, 2, 10, 11, 29)]
    [1.0, 0.8, 0.64, 0.107, 0.1, 0.1]
    """
    return max(0.8 ** (step // steps_per_epoch), 0.1)


def _factor(
    schedule: str, group: str, n_steps: int, steps_per_epoch: int, warmup_fraction: float
) -> Callable[[int], float]:
    """The factor as a function of the step alone."""
    if schedule == "warmup_linear":
        return partial(warmup_linear_decay, n_steps=n_steps, warmup_fraction=warmup_fraction)
    if schedule == "constant":
        return lambda step: 1.0
    if group == "head":
        return partial(published_2410_head, steps_per_epoch=steps_per_epoch)
    return partial(published_2410_backbone, n_steps=n_steps, steps_per_epoch=steps_per_epoch)


def _layer_groups(
    backbone: SpeechBackbone, trained: Sequence[tuple[str, nn.Parameter]], backbone_lr: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Groups by depth, from the bottom; what acts on no hidden state by itself (a mask) counts as projection."""
    top = max(
        (n for n, layer in enumerate(backbone.layers, 1) if any(w.requires_grad for w in layer.parameters())), default=0
    )
    first_states = depths(backbone)
    by_depth: dict[int, list[nn.Parameter]] = {}
    for name, parameter in trained:
        by_depth.setdefault(min(first_states.get(name, 0), top), []).append(parameter)
    return [
        {
            "name": f"backbone/layer-{depth:02d}" if depth else "backbone/projection",
            "params": by_depth[depth],
            "lr": backbone_lr * layer_decay ** (top - depth),
        }
        for depth in sorted(by_depth)
    ]
