"""Losses between predicted and real targets, over the rows that each subject heard.

`LOSSES` has them by name; `TargetLoss` takes one, masks, and adds up subjects. In distributed training a loss is that
of the rows of all processes together, correlations too. Batches whose gradients are accumulated are losses of their
own, of which the mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from brainlit.hints import did_you_mean
from brainlit.tuning.across_processes import count_processes, sum_over_processes

OverSubjects = Literal["mean", "sum"]

SMALLEST_SD = 1e-4
"""Rows or voxels that vary less count as if they varied so much in correlations and cosines. Responses have sd 1."""
FEWEST = 3
"""Rows (temporal) or voxels (spatial) that a correlation needs; any two points lie on a line."""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised between predicted and real targets.

    Parameters
    ----------
    name : str
        mse, ceiling_mse (voxels count by their noise ceiling squared), temporal_correlation (of each voxel, over the
        rows of a batch: needs batches of many rows), spatial_correlation (of each row, over voxels), cosine_huber or
        cosine_l2.
    over_subjects : str
        mean weighs each subject of a batch by one over their number; sum gives each the gradient that it would have
        alone, so that the backbone's grows with the number of subjects.
    huber_delta : float
        Of cosine_huber: errors above it count in proportion, those below it squared.
    cosine_weight : float
        Of cosine_l2: weight of 1 - cosine beside the squared error.
    """

    name: str = "mse"
    over_subjects: OverSubjects = "mean"
    huber_delta: float = 0.6
    cosine_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ValueError(f"loss is {self.name!r}. {did_you_mean(self.name, LOSSES)}")
        if self.over_subjects not in get_args(OverSubjects):
            raise ValueError(f"loss over_subjects is {self.over_subjects!r}; choose mean or sum.")
        if not (math.isfinite(self.huber_delta) and self.huber_delta > 0):
            raise ValueError(f"loss huber_delta is {self.huber_delta}; give a positive error, such as 0.6.")
        if not (math.isfinite(self.cosine_weight) and self.cosine_weight >= 0):
            raise ValueError(f"loss cosine_weight is {self.cosine_weight}; give 0 or more, such as 0.5.")


class Rows(NamedTuple):
    """One subject's part of a batch, in fp32 (fp64 stays).

    Parameters
    ----------
    predicted, target : Tensors of shape (batch, n_trs, n_targets)
        Rows that do not count may hold anything.
    mask : bool Tensor of shape (batch, n_trs)
        Rows that count.
    n_rows : Tensor of shape ()
        How many count in all processes, at least 1.
    voxel_weights : Tensor of shape (n_targets,), or None
        Mean 1.
    """

    predicted: Tensor
    target: Tensor
    mask: Tensor
    n_rows: Tensor
    voxel_weights: Tensor | None = None

    def mean(self, values: Tensor) -> Tensor:
        """Mean of values (batch, n_trs), which are 0 in rows that do not count, over the rows of all processes."""
        return sum_over_processes(values.sum()) / self.n_rows

    def error(self) -> Tensor:
        """predicted - target, 0 in rows that do not count."""
        return torch.where(self.mask[:, :, None], self.predicted - self.target, 0.0)

    def real(self) -> tuple[Tensor, Tensor]:
        """predicted and target, 0 in rows that do not count."""
        counts = self.mask[:, :, None]
        return torch.where(counts, self.predicted, 0.0), torch.where(counts, self.target, 0.0)


LossFunction = Callable[[Rows, LossConfig], Tensor]


def mse(rows: Rows, config: LossConfig) -> Tensor:
    """Mean squared error over rows and voxels (arXiv 2410.09230, whose code takes torch's MSELoss)."""
    return rows.mean(rows.error().square().mean(2))


def ceiling_mse(rows: Rows, config: LossConfig) -> Tensor:
    """Squared error, weighted per voxel by its noise ceiling squared: the share of its variance a model can explain.

    Own choice. Weights have mean 1 over the subject's voxels; voxels without a positive ceiling weigh 0.
    """
    assert rows.voxel_weights is not None
    return rows.mean((rows.error().square() * rows.voxel_weights).mean(2))


def temporal_correlation(rows: Rows, config: LossConfig) -> Tensor:
    """1 - mean over voxels of Pearson's r over all real rows of the batch, whatever window or story they are from.

    The correlation loss that arXiv 2510.21520 found better than L2 with up to 6 hours of data; over which rows it was
    taken there is not known. Rows of one window would be few, and alike; responses are z-scored per story, so levels of
    stories do not make a correlation. A constant voxel has r = 0.
    """
    # The mean has no gradient of its own to give: deviations from it add up to 0 over all rows.
    means = sum_over_processes(torch.stack([values.detach().sum((0, 1)) for values in rows.real()])) / rows.n_rows
    counts = rows.mask[:, :, None]
    deviations = [torch.where(counts, values - mean, 0.0) for values, mean in zip(rows.real(), means, strict=True)]
    products = sum_over_processes(_products(deviations[0], deviations[1], over=(0, 1)))
    return 1 - _cosine(products, rows.n_rows).mean()


def spatial_correlation(rows: Rows, config: LossConfig) -> Tensor:
    """1 - mean over rows of Pearson's r over voxels (BrainWavLM, arXiv 2502.08866, whose loss is -r). Constant: r = 0.

    Which voxels respond most at a time counts, and not how much all of them do.
    """
    predicted, target = (values - values.mean(2, keepdim=True) for values in rows.real())
    return _one_minus_cosine(rows, predicted, target)


def cosine_huber(rows: Rows, config: LossConfig) -> Tensor:
    """Mean Huber error plus 1 - cosine, as the code released with arXiv 2510.21520 has it (delta 0.6, no weight).

    torch's Huber loss: e^2 / 2 up to delta, delta (|e| - delta / 2) beyond. The axis of the cosine is not stated in the
    paper; here it is that of each row over the voxels.
    """
    predicted, target = rows.real()
    error = huber_loss(predicted, target, reduction="none", delta=config.huber_delta)
    return rows.mean(error.mean(2)) + _one_minus_cosine(rows, predicted, target)


def cosine_l2(rows: Rows, config: LossConfig) -> Tensor:
    """Mean squared error plus cosine_weight (1 - cosine), as arXiv 2510.21520 describes it (weight 0.5).

    The axis of the cosine is not stated there; here it is that of each row over the voxels.
    """
    return mse(rows, config) + config.cosine_weight * _one_minus_cosine(rows, *rows.real())


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs in order to mean anything.

    Parameters
    ----------
    function : callable
        (Rows, LossConfig) -> Tensor of shape ().
    fewest_rows : int
        Rows of a subject in a batch; with fewer the subject does not count.
    fewest_targets : int
        Targets of a subject; one with fewer is refused.
    needs_ceilings : bool
        Whether voxels are weighed by their noise ceilings.
    """

    function: LossFunction
    fewest_rows: int = 1
    fewest_targets: int = 1
    needs_ceilings: bool = False


LOSSES: dict[str, Loss] = {
    "mse": Loss(mse),
    "ceiling_mse": Loss(ceiling_mse, needs_ceilings=True),
    "temporal_correlation": Loss(temporal_correlation, fewest_rows=FEWEST),
    "spatial_correlation": Loss(spatial_correlation, fewest_targets=FEWEST),
    "cosine_huber": Loss(cosine_huber),
    "cosine_l2": Loss(cosine_l2),
}


class TargetLoss(nn.Module):
    """The loss of a batch over all subjects.

    Computed in fp32 whatever the precision of training. It has nothing to save; the voxel weights move with `.to()`.

    Parameters
    ----------
    config : LossConfig
    ceilings : mapping of subject to array of shape (n_targets,), or None
        Noise ceilings as correlations, NaN where there is none; for losses that need them.

    Raises
    ------
    ValueError
        If the loss needs ceilings and there are none.
    """

    def __init__(self, config: LossConfig, ceilings: Mapping[str, npt.ArrayLike] | None = None) -> None:
        super().__init__()
        self.config = config
        self._loss = LOSSES[config.name]
        self._buffer_of: dict[str, str] = {}
        self._has_run = False
        if self._loss.needs_ceilings:
            self._keep_weights(ceilings or {})

    def forward(
        self, predicted: Mapping[str, Tensor], targets: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> Tensor:
        """Mean or sum over the subjects of the batch.

        Parameters
        ----------
        predicted, targets : dict of subject to Tensor of shape (batch, n_trs, n_targets)
        masks : dict of subject to bool Tensor of shape (batch, n_trs)
            Rows to count; the others may hold anything, NaN too. A subject with no such row in the batches of all
            processes (or fewer than 3, for temporal_correlation) counts for nothing.

        Returns
        -------
        Tensor of shape ()
            0 (with gradients of 0) if no subject counts.

        Raises
        ------
        ValueError
            If a correlation has too few rows or voxels to be one, or a subject has no ceilings. Too few rows are an
            error in the first batch only; a small last batch of an epoch counts for nothing.
        """
        device = next(iter(predicted.values())).device
        total, n_subjects = torch.zeros((), device=device), torch.zeros((), device=device)
        n_rows = sum_over_processes(torch.stack([masks[subject].sum() for subject in predicted]))
        for (subject, prediction), n_counted in zip(predicted.items(), n_rows, strict=True):
            dtype = torch.promote_types(prediction.dtype, torch.float32)
            weights = self._weights(subject, prediction)
            values = prediction.to(dtype), targets[subject].to(dtype)
            rows = Rows(*values, masks[subject], n_counted.clamp(min=1), weights)
            enough = n_counted >= self._check_size(subject, rows)
            with torch.autocast(prediction.device.type, enabled=False):
                total = total + torch.where(enough, self._loss.function(rows, self.config), 0.0)
            n_subjects = n_subjects + enough
        self._has_run = True
        return total / n_subjects.clamp(min=1) if self.config.over_subjects == "mean" else total

    def _check_size(self, subject: str, rows: Rows) -> int:
        """Rows that the subject needs in order to count; refuses batches and subjects that can never do."""
        n_rows, n_targets = rows.mask.numel() * count_processes(), rows.predicted.shape[2]
        name, fewest_rows, fewest_targets = self.config.name, self._loss.fewest_rows, self._loss.fewest_targets
        if n_targets < fewest_targets:
            raise ValueError(
                f"loss {name} correlates over voxels, and {subject} has {n_targets}; it needs at least"
                f" {fewest_targets}. Tune on more voxels, or give --model.loss.name mse."
            )
        # Only the first batch is an error: the last one of an epoch may be smaller than the others.
        if n_rows < fewest_rows and not self._has_run:
            raise ValueError(
                f"loss {name} correlates over the rows of a batch, and this one has {n_rows}; it needs at"
                f" least {fewest_rows}, and tens to mean anything. Give a larger --data.batch_size or"
                " --data.window.n_trs, or --model.loss.name mse."
            )
        return fewest_rows

    # --- weights of voxels ---

    def _keep_weights(self, ceilings: Mapping[str, npt.ArrayLike]) -> None:
        if not ceilings:
            raise ValueError(
                f"loss {self.config.name} weighs voxels by their noise ceilings, and there are none. {_CURE}"
            )
        for k, (subject, ceiling) in enumerate(ceilings.items()):
            self._buffer_of[subject] = f"weights_{k}"
            self.register_buffer(f"weights_{k}", ceiling_weights(subject, ceiling), persistent=False)

    def _weights(self, subject: str, predicted: Tensor) -> Tensor | None:
        if not self._loss.needs_ceilings:
            return None
        if subject not in self._buffer_of:
            raise ValueError(f"loss {self.config.name} has no noise ceilings of subject {subject!r}. {_CURE}")
        weights: Tensor = getattr(self, self._buffer_of[subject])
        if len(weights) != predicted.shape[2]:
            raise ValueError(
                f"{subject} has {len(weights)} noise ceilings, but {predicted.shape[2]} predicted voxels; give the"
                " ceilings of the voxels that are tuned on, in their order."
            )
        return weights


_CURE = (
    "They are measured on repeats: give the role 'choose' a story that was heard repeatedly, and --data.min_ceiling 0.1"
    " or so; or take --model.loss.name mse."
)


def ceiling_weights(subject: str, ceiling: npt.ArrayLike) -> Tensor:
    """Ceiling squared, scaled to mean 1; 0 for voxels without a positive ceiling: float32 Tensor of shape (n_targets,).

    Raises
    ------
    ValueError
        If no voxel has a positive ceiling.
    """
    values = np.asarray(ceiling, dtype=np.float64)
    positive = np.isfinite(values) & (values > 0)
    if not positive.any():
        raise ValueError(f"no voxel of subject {subject!r} has a positive noise ceiling. {_CURE}")
    squared = np.where(positive, values, 0.0) ** 2
    return torch.from_numpy((squared / squared.mean()).astype(np.float32))


def _one_minus_cosine(rows: Rows, a: Tensor, b: Tensor) -> Tensor:
    """Mean over the rows that count of 1 - cosine over voxels."""
    cosine = _cosine(_products(a, b, over=(2,)), a.shape[2])
    return rows.mean(torch.where(rows.mask, 1 - cosine, 0.0))


def _products(a: Tensor, b: Tensor, over: tuple[int, ...]) -> Tensor:
    """Sums over some axes of a a, b b and a b, one above the other."""
    return torch.stack([(a * a).sum(over), (b * b).sum(over), (a * b).sum(over)])


def _cosine(products: Tensor, n: Tensor | int) -> Tensor:
    """Cosine from the sums of products of n values; 0, with finite gradients, where one of the two is (nearly) 0."""
    lengths = products[:2].clamp(min=SMALLEST_SD**2 * n).sqrt()
    return products[2] / (lengths[0] * lengths[1])
