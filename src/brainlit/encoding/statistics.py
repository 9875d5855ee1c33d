"""Scores per voxel, what turns them into p-values, and numbers that carry their interval.

Correlation, R2, blocks of rows and the false discovery rate work on arrays of voxels. A `Score` is one number that is
told to people: a region's mean, a difference of two, a mean over seeds. It keeps its bootstrap replicates where it has
some, so that differences and ratios of scores from the same draws are paired. Few drawn units scatter too little:
`small_sample_factor` says by how much, and replicates are stretched by it once, before they are kept; differences and
means of stretched ones need no more of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray, demean_within, group_slices

Method: TypeAlias = Literal["linear", "nearest"]
N_VALUES_AT_ONCE = 8_000_000
"""Values that tests and bootstraps hold at a time."""
N_COLUMNS_AT_ONCE = 2048
TIE = 1e-12
"""Null values this close to the observed one count as equal: the same numbers in another order of summation."""


def correlation(A: npt.ArrayLike, B: npt.ArrayLike) -> FloatArray:
    """Pearson correlation of the columns: (n_trs, n) and (n_trs, n) -> (n,); NaN where a column is constant.

    >>> correlation([[1.0], [2.0], [4.0]], [[2.0], [4.0], [8.0]]).round(6).tolist()
    [1.0]
    """
    a, b = _pair(A, B)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(scale > 0, (a * b).sum(axis=0) / scale, np.nan))


def correlation_within(A: npt.ArrayLike, B: npt.ArrayLike, groups: npt.ArrayLike) -> FloatArray:
    """Correlation of the columns after each group's own mean is removed, so that run levels do not count."""
    return correlation(demean_within(A, groups), demean_within(B, groups))


def r2_within(observed: npt.ArrayLike, predicted: npt.ArrayLike, groups: npt.ArrayLike) -> FloatArray:
    """1 - SSE / SST per column, each group demeaned first: (n_trs, n) -> (n,); NaN where observed is constant."""
    y, p = _pair(demean_within(observed, groups), demean_within(predicted, groups))
    sst = np.square(y).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(sst > 0, 1.0 - np.square(y - p).sum(axis=0) / sst, np.nan))


def permutation_p(observed: npt.ArrayLike, null: npt.ArrayLike) -> FloatArray:
    """One-sided p = (b + 1) / (m + 1), b of m null values being at least the observed one; never 0.

    The observed value is one of the permutations (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).

    Parameters
    ----------
    observed : array of shape (n,) or a number
    null : array of shape (m, n) or (m,)

    >>> float(permutation_p(2.0, [0.0, 1.0, 3.0]))
    0.5
    """
    values = np.asarray(null, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError("no null values; a permutation test needs at least one permutation.")
    statistic = np.asarray(observed, dtype=np.float64)
    p = ((values >= statistic).sum(axis=0) + 1.0) / (len(values) + 1.0)
    return np.asarray(np.where(np.isnan(statistic), np.nan, p))


def cut_blocks(groups: npt.ArrayLike, block_trs: int) -> list[IntArray]:
    """Rows of consecutive blocks of at most block_trs rows, none across a group's border.

    >>> [block.tolist() for block in cut_blocks([0, 0, 0, 1, 1], 2)]
    [[0, 1], [2], [3, 4]]
    """
    if block_trs < 1:
        raise ValueError(f"block_trs is {block_trs}; a block has at least one row.")
    return [
        np.arange(start, min(start + block_trs, rows.stop))
        for rows in group_slices(groups)
        for start in range(rows.start, rows.stop, block_trs)
    ]


def column_parts(n_columns: int, width: int, what: str) -> Iterator[slice]:
    """Slices of some columns at a time; a bar shows after three seconds."""
    from tqdm import tqdm

    for k in tqdm(range(0, n_columns, width), desc=what, unit="part", leave=False, delay=3):
        yield slice(k, min(k + width, n_columns))


def fdr(p: npt.ArrayLike) -> FloatArray:
    """Benjamini-Hochberg adjusted p-values, same shape; reject where they are at most the wanted rate. NaN stays NaN.

    Holds for independent and positively dependent voxels (Benjamini & Hochberg 1995, J. R. Stat. Soc. B 57:289;
    Benjamini & Yekutieli 2001, Ann. Statist. 29:1165).

    >>> fdr([0.01, 0.02, 0.03, 0.5]).round(4).tolist()
    [0.04, 0.04, 0.04, 0.5]
    """
    from scipy.stats import false_discovery_control

    values = np.array(p, dtype=np.float64)
    known = np.isfinite(values)
    if known.any():
        values[known] = false_discovery_control(values[known], method="bh")
    return np.where(known, values, np.nan)


def _pair(A: npt.ArrayLike, B: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(A, dtype=np.float64), np.asarray(B, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"shapes {a.shape} and {b.shape}; need the same (n_trs, n_columns).")
    return a, b


# --- Numbers with an interval ---

LEVEL = 0.95
"""Coverage of an interval, unless said."""


@dataclass(frozen=True)
class Score:
    """A number with its interval, and what was drawn to get it.

    The interval is that of the replicates, or `bounds` where it was found in another way. Differences, sums and ratios
    of numbers with replicates are paired: they are taken replicate by replicate, so both must come from the same draws.

    Parameters
    ----------
    value : float
    replicates : array of shape (n_bootstraps,), optional
    bounds : (low, high), optional
        None, as is the interval, where neither is known.
    level : float
        Coverage that the interval is made for.
    n_units : mapping of what was drawn to how many there are
        {'blocks': 29} or {'stories': 6, 'subjects': 3}.
    not_resampled : tuple of str
        Levels with a single unit: they contribute no uncertainty, and the interval says nothing about other ones.

    >>> Score(0.3, bounds=(0.2, 0.4)).json()
    {'value': 0.3, 'low': 0.2, 'high': 0.4}
    >>> draws = np.arange(101.0)
    >>> (Score(60.0, draws + 10) - Score(50.0, draws)).interval, Score(60.0).interval
    ((10.0, 10.0), None)
    """

    value: float
    replicates: FloatArray | None = field(default=None, repr=False, compare=False)
    bounds: tuple[float, float] | None = None
    level: float = LEVEL
    n_units: Mapping[str, int] = field(default_factory=dict)
    not_resampled: tuple[str, ...] = ()

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """(low, high); None where nothing was drawn, or a replicate is not finite."""
        if self.replicates is None:
            return self.bounds
        if not np.isfinite(self.replicates).all():
            return None
        low, high = _ends(self.replicates, self.level)
        return float(low), float(high)

    @property
    def low(self) -> float:
        """Lower end of the interval; NaN where there is none."""
        return self.interval[0] if self.interval else float("nan")

    @property
    def high(self) -> float:
        """Upper end of the interval; NaN where there is none."""
        return self.interval[1] if self.interval else float("nan")

    def combine(self, other: Score, how: Callable[..., Any]) -> Score:
        """how(self, other), replicate by replicate; without an interval where one of the two has no replicates."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(how(np.float64(self.value), np.float64(other.value)))
            known = self.replicates is not None and other.replicates is not None
            return replace(
                self, value=value, replicates=how(self.replicates, other.replicates) if known else None, bounds=None
            )

    def __sub__(self, other: Score) -> Score:
        return self.combine(other, np.subtract)

    def __add__(self, other: Score) -> Score:
        return self.combine(other, np.add)

    def over(self, other: Score) -> Score:
        """Ratio self / other."""
        return self.combine(other, np.divide)

    def stretched(self, factor: float | None) -> Score:
        """Replicates so many times as far from the value; without them where the factor is None."""
        drawn, value = self.replicates, self.value
        if drawn is None or factor is None:
            return replace(self, replicates=None, bounds=None)
        return replace(self, replicates=value + factor * (drawn - value), bounds=None)

    def joined(self, half: float) -> Score:
        """With an error of another source, whose half width is given: squares of half widths add up, on either side.

        Without replicates, for these are of one source; as it is where there is no interval.
        """
        if self.interval is None:
            return self
        low, high = (float(np.hypot(end - self.value, half)) for end in self.interval)
        return replace(self, replicates=None, bounds=(self.value - low, self.value + high))

    def json(self) -> dict[str, float | None]:
        """Value, low and high; None for what is not a number."""
        low, high = self.interval or (math.nan, math.nan)
        numbers = {"value": self.value, "low": low, "high": high}
        return {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}


def mean_score(scores: Sequence[Score]) -> Score:
    """Mean of several numbers (subjects, permutations, seeds), replicate by replicate.

    Where none has replicates and all have an interval, its ends are averaged too: as wide as if all erred alike.

    Raises
    ------
    ValueError
        If there are none.
    """
    if not scores:
        raise ValueError("no scores to average; give at least one.")
    if len(scores) == 1:
        return scores[0]
    value = float(np.mean([score.value for score in scores]))
    drawn = [score.replicates for score in scores if score.replicates is not None]
    if len(drawn) == len(scores) and len({len(replicates) for replicates in drawn}) == 1:
        return replace(scores[0], value=value, replicates=reduce(np.add, drawn) / len(drawn), bounds=None)
    ends = [score.interval for score in scores if score.interval is not None]
    if drawn or len(ends) < len(scores):
        return replace(scores[0], value=value, replicates=None, bounds=None)
    low, high = np.mean(ends, axis=0)
    return replace(scores[0], value=value, replicates=None, bounds=(float(low), float(high)))


def percentiles(replicates: FloatArray, level: float = LEVEL, *, method: Method = "linear") -> FloatArray:
    """Both ends of the percentile interval (Efron 1979, Ann. Statist. 7:1): (n_bootstraps, ...) -> (2, ...).

    Replicates that are NaN do not count. method is numpy's: 'nearest' where some are infinite.
    """
    replicates = np.asarray(replicates)
    if method != "linear" or not replicates.size or not np.isfinite(replicates).all():
        return np.asarray(np.nanquantile(replicates, _tails(level), axis=0, method=method))
    return np.asarray(_ends(replicates, level))


def _tails(level: float) -> tuple[float, float]:
    return (1.0 - level) / 2.0, (1.0 + level) / 2.0


def _ends(replicates: FloatArray, level: float) -> list[Any]:
    """The same as numpy's, of finite ones, in a tenth of the time: a report has tens of thousands of intervals."""
    ranks, ends = _ranks(len(replicates), level)
    ordered = np.partition(replicates, ranks, axis=0)
    between = ((ordered[below], ordered[above], share) for below, above, share in ends)
    return [b - (b - a) * (1.0 - share) if share >= 0.5 else a + (b - a) * share for a, b, share in between]


@lru_cache
def _ranks(n: int, level: float) -> tuple[list[int], list[tuple[int, int, np.float64]]]:
    """Which of n ordered numbers both ends need; of each end the two beside it, and how far it lies between them."""
    places = [np.float64(tail * (n - 1)) for tail in _tails(level)]  # float64 whatever the replicates are
    ends = [(int(place), min(int(place) + 1, n - 1), place - int(place)) for place in places]
    return sorted({rank for below, above, _ in ends for rank in (below, above)}), ends


@lru_cache
def student_quantile(df: float, level: float = LEVEL) -> float:
    """Half width of a two-sided interval in standard errors: Student's t with df degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf((1.0 + level) / 2.0, df))


def small_sample_factor(n_units: float, level: float = LEVEL, n_strata: int = 1) -> float:
    """How much wider than its percentiles an interval from n_units drawn units must be: sqrt(n / (n - 1)) t / z.

    Drawing n of n units makes the variance of a mean too small by (n - 1) / n, and percentiles are those of a normal
    curve where Student's t with n - 1 degrees of freedom is due (Hesterberg 2015, Am. Stat. 69:371, section 5). Units
    that are drawn within n_strata stories lose a degree of freedom to each.

    >>> [round(small_sample_factor(n), 2) for n in (3, 5, 10, 30)]
    [2.69, 1.58, 1.22, 1.06]
    """
    from scipy.stats import norm

    df = n_units - n_strata
    return float(np.sqrt(n_units / df) * student_quantile(df, level) / norm.ppf((1.0 + level) / 2.0))


def percentile_interval(
    estimate: float, replicates: FloatArray, level: float = LEVEL, stretch: float = 1.0
) -> tuple[float, float]:
    """Percentiles of the replicates, their distances from the estimate stretched."""
    low, high = percentiles(replicates, level)
    return float(estimate + stretch * (low - estimate)), float(estimate + stretch * (high - estimate))


# --- What blocks of time lose ---

MOST_LOST = 0.2
"""Of the variance; with more, tests by blocks of time at 5 % reject 7 % and more of true nulls."""


def lost_between_blocks(
    observed: npt.ArrayLike, predicted: npt.ArrayLike, groups: npt.ArrayLike, n_blocks: int
) -> float:
    """Share of a score's variance that blocks of time do not show, because rows on both sides of a border are alike.

    If neighbouring products of response and prediction correlate by rho, a border hides 2 rho / (1 - rho^2) rows' worth
    (of autoregressive noise; Carlstein 1986, Ann. Statist. 14:1171). rho is the correlation of neighbouring responses
    times that of neighbouring predictions, mean over voxels.

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Voxels that are constant or have NaN do not count.
    groups : int array of shape (n_trs,)
        Stories; a border between them hides nothing.
    n_blocks : int

    >>> rows = np.sin(np.arange(40.0))[:, None]  # neighbours correlate by cos(1 rad) = .54
    >>> round(lost_between_blocks(rows, rows, np.zeros(40), 4), 3)
    0.044
    """
    o, p = _pair(observed, predicted)
    slices = group_slices(groups)
    inside = np.ones(max(len(o) - 1, 0), dtype=bool)
    inside[[rows.stop - 1 for rows in slices[:-1]]] = False
    alike: list[FloatArray] = []
    for start in range(0, o.shape[1], N_COLUMNS_AT_ONCE):
        part = slice(start, start + N_COLUMNS_AT_ONCE)
        alike.append(np.prod([_neighbours(demean_within(v[:, part], groups), inside) for v in (o, p)], axis=0))
    found = np.concatenate([*alike, np.zeros(0)])
    found = found[np.isfinite(found)]
    rho = float(np.clip(found.mean(), 0.0, 1.0 - 1e-9)) if found.size else 0.0
    return (n_blocks - len(slices)) / max(len(o), 1) * 2.0 * rho / (1.0 - rho**2)


def _neighbours(centred: FloatArray, inside: BoolArray) -> FloatArray:
    """Correlation of each row with the next one, (n,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        power = np.square(centred).sum(axis=0)
        return np.asarray((centred[:-1] * centred[1:])[inside].sum(axis=0) / np.where(power > 0, power, np.nan))


def memory_error(lost: float, n_trs: int, n_blocks: int, block_trs: int) -> ValueError:
    """Rows remember too much for these blocks: what it takes."""
    longer_trs = int(np.ceil(block_trs * lost / MOST_LOST))
    return ValueError(
        f"{n_blocks} blocks of {n_trs} rows hide {lost:.0%} of the variance, because neighbouring rows are so alike; at"
        f" most {MOST_LOST:.0%} may be hidden. Ask for blocks of {longer_trs} rows or more instead of {block_trs}, for"
        f" which at least {6 * longer_trs} rows (six blocks) must be scored."
    )
