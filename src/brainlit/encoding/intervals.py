"""Intervals from bootstrap replicates, and how much wider they must be where few units were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from brainlit.encoding.groups import FloatArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval, and what was drawn to get it.

    Parameters
    ----------
    estimate, low, high : float
    level : float
        Coverage that the interval is made for.
    n_units : mapping of what was drawn to how many there are
        {'blocks': 29} or {'stories': 6, 'subjects': 3}.
    not_resampled : tuple of str
        Levels with a single unit: they contribute no uncertainty, and the interval says nothing about other ones.
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95
    n_units: Mapping[str, int] = field(default_factory=dict)
    not_resampled: tuple[str, ...] = ()


def small_sample_factor(n_units: int, level: float = 0.95) -> float:
    """How much wider than its percentiles an interval from n_units drawn units must be: sqrt(n / (n - 1)) t / z.

    Drawing n of n units makes the variance of a mean too small by (n - 1) / n, and percentiles are those of a normal
    curve where Student's t with n - 1 degrees of freedom is due (Hesterberg 2015, Am. Stat. 69:371, section 5).

    >>> [round(small_sample_factor(n), 2) for n in (3, 5, 10, 30)]
    [2.69, 1.58, 1.22, 1.06]
    """
    from scipy.stats import norm, t

    tail = (1.0 + level) / 2.0
    return float(np.sqrt(n_units / (n_units - 1)) * t.ppf(tail, n_units - 1) / norm.ppf(tail))


def percentile_interval(
    estimate: float, replicates: FloatArray, level: float = 0.95, stretch: float = 1.0
) -> tuple[float, float]:
    """Percentiles of the replicates (Efron 1979, Ann. Statist. 7:1), their distances from the estimate stretched."""
    low, high = np.quantile(replicates, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(estimate + stretch * (low - estimate)), float(estimate + stretch * (high - estimate))
