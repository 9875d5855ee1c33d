"""Numbers that carry their bootstrap replicates, so that differences and ratios of them are paired.

The replicates come from `encoding.bootstrap`: a region's score is the mean over its voxels, and blocks of some twenty
TRs are drawn within each story. Two probes of the same stories share the draws. Few blocks scatter too little, so a
probe's replicates are stretched about their value before they are kept; differences and means of stretched ones need
no more of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from brainlit.encoding.bootstrap import Blocks, block_weights, region_replicates
from brainlit.encoding.groups import BoolArray, FloatArray, IntArray, group_slices
from brainlit.encoding.intervals import small_sample_factor

__all__ = [
    "Blocks",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "Score",
    "block_weights",
    "mean_score",
    "region_replicates",
    "stretch_of",
]

INTERVAL = 0.95
MIN_MORE_BLOCKS = 3
"""With one or two degrees of freedom an interval is 13 or 4 times the standard error, and leaves [-1, 1]."""


@dataclass(frozen=True)
class Score:
    """A number with its bootstrap replicates.

    Parameters
    ----------
    value : float
    replicates : array of shape (n_bootstraps,) or None
        None where the number has no interval.
    """

    value: float
    replicates: FloatArray | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """2.5 and 97.5 % quantiles of the replicates."""
        if self.replicates is None or not np.isfinite(self.replicates).all():
            return None
        low, high = np.quantile(self.replicates, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        return float(low), float(high)

    def combine(self, other: Score, how: Any) -> Score:
        """how(self, other), replicate by replicate; paired where both come from the same rows and seed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(how(np.float64(self.value), np.float64(other.value)))
            if self.replicates is None or other.replicates is None:
                return Score(value)
            return Score(value, how(self.replicates, other.replicates))

    def __sub__(self, other: Score) -> Score:
        return self.combine(other, np.subtract)

    def __add__(self, other: Score) -> Score:
        return self.combine(other, np.add)

    def stretched(self, factor: float | None) -> Score:
        """Replicates so many times as far from the value; without replicates where the factor is None."""
        if self.replicates is None or factor is None:
            return Score(self.value)
        return Score(self.value, self.value + factor * (self.replicates - self.value))

    def over(self, other: Score) -> Score:
        """Ratio self / other."""
        return self.combine(other, np.divide)

    def json(self) -> dict[str, float | None]:
        """Value, low and high; None for what is not a number."""
        low, high = self.interval or (None, None)
        return {"value": _number(self.value), "low": _number(low), "high": _number(high)}


def stretch_of(groups: IntArray, blocks: Blocks) -> float | None:
    """How much too narrow plain percentiles are: `encoding.intervals.small_sample_factor`.

    Parameters
    ----------
    groups : int array of shape (n_trs,)
        Story of each scored row.
    blocks : result of `block_weights` for these rows, over time

    Returns
    -------
    float or None
        None where there are too few blocks for an interval: fewer than MIN_MORE_BLOCKS more than stories.
    """
    n_blocks, n_stories = blocks[1].shape[1], len(group_slices(groups))
    enough = n_blocks >= n_stories + MIN_MORE_BLOCKS
    return small_sample_factor(n_blocks, INTERVAL, n_stories) if enough else None


def mean_score(scores: list[Score]) -> Score:
    """Mean of several scores (subjects), replicate by replicate."""
    if not scores:
        raise ValueError("no scores to average; give at least one.")
    value = float(np.mean([score.value for score in scores]))
    replicates = [score.replicates for score in scores if score.replicates is not None]
    if len(replicates) < len(scores) or len({len(r) for r in replicates}) > 1:
        return Score(value)
    return Score(value, np.mean(replicates, axis=0))


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
