"""Scores per voxel and what turns them into p-values: correlation, R2, blocks of rows, false discovery rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray, demean_within, group_slices

Method: TypeAlias = Literal["linear", "nearest"]


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


def fdr(p: npt.ArrayLike) -> FloatArray:
    """Benjamini-Hochberg adjusted p-values, same shape; reject where they are at most the wanted rate. NaN stays NaN.

    Holds for independent and positively dependent voxels (Benjamini & Hochberg 1995, J. R. Stat. Soc. B 57:289;
    Benjamini & Yekutieli 2001, Ann. Statist. 29:1165).

    >>> fdr([0.01, 0.02, 0.03, 0.5]).round(4).tolist()
    [0.04, 0.04, 0.04, 0.5]
    """
    values = np.asarray(p, dtype=np.float64)
    finite = values[np.isfinite(values)]
    order = np.argsort(finite)
    raw = finite[order] * finite.size / np.arange(1, finite.size + 1)
    adjusted = np.empty_like(finite)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(raw[::-1])[::-1])
    result = np.full(values.shape, np.nan)
    result[np.isfinite(values)] = adjusted
    return result


def _pair(A: npt.ArrayLike, B: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(A, dtype=np.float64), np.asarray(B, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"shapes {a.shape} and {b.shape}; need the same (n_trs, n_columns).")
    return a, b


# --- equivalence
# Tests of the claim 'no change': a difference is shown to lie within bounds, instead of not shown to be there.
#
# Two one-sided tests (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657): the difference is above the lower bound and
# below the upper one, each at alpha, which is the same as an interval of coverage 1 - 2 alpha inside the bounds (Berger
# & Hsu 1996, Stat. Sci. 11:283). The bounds are the caller's: the largest change, in the unit of the number, that would
# not matter. They are fixed before looking.


@dataclass(frozen=True, eq=False)
class Equivalence:
    """Result of an equivalence test of one or many differences; arrays have the shape of the items, () for one.

    Parameters
    ----------
    bounds : (float, float)
        As given, in the unit of the difference.
    alpha : float
    estimate, low, high : arrays
        Difference and its interval of coverage 1 - 2 alpha.
    p : array
        The larger one of the two tests.
    equivalent : bool array
        Whether p <= alpha: the interval lies inside the bounds. False means not shown, not that there is a change.
    """

    bounds: tuple[float, float]
    alpha: float
    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    equivalent: BoolArray


def equivalence_from_replicates(
    estimate: npt.ArrayLike,
    replicates: npt.ArrayLike,
    bounds: tuple[float, float],
    *,
    alpha: float = 0.05,
    stretch: float = 1.0,
) -> Equivalence:
    """Equivalence by the percentiles of bootstrap replicates of a difference.

    p is (b + 1) / (m + 1) with b of m replicates at or beyond a bound. Where few blocks or stories were drawn,
    replicates scatter too little: stretch them by `small_sample_factor(n_units, 1 - 2 * alpha)`.

    Parameters
    ----------
    estimate : array of shape (n_items,) or a number
    replicates : array of shape (n_bootstraps, n_items) or (n_bootstraps,)
        At least 1 / alpha of them.
    bounds : (float, float)
    alpha : float
    stretch : float
        How much further from the estimate the replicates are taken to be.

    Raises
    ------
    ValueError
        If bounds or alpha make no sense, or there are too few replicates.
    """
    _check(bounds, alpha)
    centre = np.asarray(estimate, dtype=np.float64)
    values = centre + stretch * (np.asarray(replicates, dtype=np.float64) - centre)
    rank = int(alpha * (len(values) + 1) + 1e-9)
    if rank < 1:
        raise ValueError(f"{len(values)} replicates cannot show alpha {alpha}; draw at least {round(1 / alpha)}.")
    ordered = np.sort(values, axis=0)
    beyond = np.maximum((values <= bounds[0]).sum(axis=0), (values >= bounds[1]).sum(axis=0))
    p = np.where(np.isfinite(values).all(axis=0), (beyond + 1.0) / (len(values) + 1.0), np.nan)
    return _result(bounds, alpha, centre, ordered[rank - 1], ordered[-rank], p)


def equivalence_paired(differences: npt.ArrayLike, bounds: tuple[float, float], *, alpha: float = 0.05) -> Equivalence:
    """Equivalence over subjects, by two one-sided t-tests (Schuirmann 1987).

    Parameters
    ----------
    differences : array of shape (n_subjects,) or (n_subjects, n_items)
    bounds : (float, float)

    Raises
    ------
    ValueError
        If bounds or alpha make no sense, or there are fewer than two subjects.

    >>> test = equivalence_paired([0.001, -0.002, 0.003, 0.0, -0.001], (-0.01, 0.01))
    >>> bool(test.equivalent), round(float(test.high), 4)
    (True, 0.002)
    """
    from scipy.stats import t as student

    d = np.asarray(differences, dtype=np.float64)
    _check(bounds, alpha)
    if d.ndim not in (1, 2) or len(d) < 2:
        raise ValueError(f"differences have shape {d.shape}; need (n_subjects, ...) with at least 2 subjects.")
    mean, error = d.mean(axis=0), d.std(axis=0, ddof=1) / np.sqrt(len(d))
    with np.errstate(invalid="ignore", divide="ignore"):
        sides = [student.sf((mean - bounds[0]) / error, len(d) - 1), student.sf((bounds[1] - mean) / error, len(d) - 1)]
    reach = student.ppf(1 - alpha, len(d) - 1) * error
    return _result(bounds, alpha, mean, mean - reach, mean + reach, np.maximum(*sides))


def _check(bounds: tuple[float, float], alpha: float) -> None:
    if len(bounds) != 2 or not bounds[0] < bounds[1] or not np.isfinite(bounds).all():
        raise ValueError(f"bounds are {bounds}; give the lower and the upper one, in the unit of the number.")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}; it is a rate of errors between 0 and 0.5.")


def _result(
    bounds: tuple[float, float], alpha: float, estimate: FloatArray, low: FloatArray, high: FloatArray, p: FloatArray
) -> Equivalence:
    found, below, above = (np.asarray(values, dtype=np.float64) for values in (estimate, low, high))
    with np.errstate(invalid="ignore"):
        return Equivalence(bounds, alpha, found, below, above, np.asarray(p), np.asarray(p <= alpha))


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
        low, high = percentiles(self.replicates, self.level)
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

    def json(self) -> dict[str, float | None]:
        """Value, low and high; None for what is not a number."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(number) if np.isfinite(number) else None for name, number in numbers.items()}


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
    value = float(np.mean([score.value for score in scores]))
    drawn = [score.replicates for score in scores if score.replicates is not None]
    if len(drawn) == len(scores) and len({len(replicates) for replicates in drawn}) == 1:
        return replace(scores[0], value=value, replicates=np.mean(drawn, axis=0), bounds=None)
    ends = [score.interval for score in scores if score.interval is not None]
    if drawn or len(ends) < len(scores):
        return replace(scores[0], value=value, replicates=None, bounds=None)
    low, high = np.mean(ends, axis=0)
    return replace(scores[0], value=value, replicates=None, bounds=(float(low), float(high)))


def percentiles(
    replicates: FloatArray, level: float = LEVEL, *, axis: int = 0, method: Method = "linear"
) -> FloatArray:
    """Both ends of the percentile interval (Efron 1979, Ann. Statist. 7:1): (n_bootstraps, ...) -> (2, ...).

    Replicates that are NaN do not count. method is numpy's: 'nearest' where some are infinite.
    """
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    return np.asarray(np.nanquantile(replicates, tails, axis=0, method=method))


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


# --- paired
# Paired tests over subjects: is a difference, one number per subject, more than chance in people?
#
# A handful of subjects is the rule, so every result says the smallest p that its n can reach: with five subjects no
# two-sided test of signs or ranks goes below 2 / 2^5 = .0625, whatever the data.


N_VALUES_AT_ONCE = 8_000_000
TIE = 1e-12


@dataclass(frozen=True, eq=False)
class PairedTest:
    """A two-sided paired test of one or many differences; arrays have the shape of the items, () for one.

    Parameters
    ----------
    method : str
    n : int array
        Subjects that count (for Wilcoxon: whose difference is not 0).
    statistic, p : arrays
    smallest_p : array
        The smallest p that n subjects can give.
    effect : array
        Hodges-Lehmann median (Wilcoxon) or mean (sign flips) of the differences.
    low, high : arrays
        Interval of the effect: the values that the test does not reject.
    coverage : float
        Of that interval; as near as n allows to what was asked for, and below it where n is too small.
    """

    method: str
    n: IntArray
    statistic: FloatArray
    p: FloatArray
    smallest_p: FloatArray
    effect: FloatArray
    low: FloatArray
    high: FloatArray
    coverage: float


def paired_wilcoxon(differences: npt.ArrayLike, *, level: float = 0.95) -> PairedTest:
    """Wilcoxon's signed-rank test (Wilcoxon 1945, Biometrics 1:80), by scipy.

    Exact for up to 50 subjects without ties; differences of 0 are left out. Effect and interval are the median and
    order statistics of the means of all pairs of differences (Hodges & Lehmann 1963, Ann. Math. Stat. 34:598).

    Parameters
    ----------
    differences : array of shape (n_subjects,) or (n_subjects, n_items)
        One number per subject: after minus before, a minus b. Items with NaN get NaN.
    level : float

    Raises
    ------
    ValueError
        If there are fewer than two subjects.

    >>> test = paired_wilcoxon([0.02, 0.05, 0.01, 0.04, 0.03])
    >>> float(test.p), float(test.smallest_p), test.coverage
    (0.0625, 0.0625, 0.9375)
    """
    from scipy.stats import wilcoxon

    d, shape = _items(differences)
    n = (np.nan_to_num(d) != 0).sum(axis=0)
    some = np.isfinite(d).all(axis=0) & (n > 0)
    statistic, p = np.zeros(d.shape[1]), np.ones(d.shape[1])
    if some.any():
        statistic[some], p[some] = wilcoxon(d[:, some], axis=0)
    rank, coverage = _signed_rank_quantile(len(d), level)
    i, j = np.triu_indices(len(d))
    effect, low, high = _over_items(d, lambda part: (part[i] + part[j]) / 2, rank, len(i))
    return _result_paired("wilcoxon", n, statistic, p, 2.0 / 2.0**n, (effect, low, high), coverage, shape)


def paired_sign_flip(
    differences: npt.ArrayLike, *, level: float = 0.95, n_flips: int = 10_000, seed: int = 0
) -> PairedTest:
    """Sign-flip permutation test of the mean difference (Fisher 1935, The Design of Experiments, section 21).

    If the differences are symmetric about 0, their signs are arbitrary. All 2^n patterns of signs are tried where they
    are at most n_flips, or else n_flips random ones with p = (b + 1) / (m + 1). The interval is made of the means of
    all (or of random) subsets of subjects (Hartigan 1969, J. Am. Stat. Assoc. 64:1303).

    Parameters
    ----------
    differences : array of shape (n_subjects,) or (n_subjects, n_items)
        Items with NaN get NaN.
    level : float
    n_flips, seed : int

    Raises
    ------
    ValueError
        If there are fewer than two subjects.

    >>> test = paired_sign_flip([0.02, 0.05, 0.01, 0.04, -0.03])
    >>> float(test.p), round(float(test.effect), 3)
    (0.3125, 0.018)
    """
    d, shape = _items(differences)
    n, exact = len(d), 2.0 ** len(d) <= n_flips
    chosen = _patterns(n) if exact else np.random.default_rng(seed).integers(0, 2, (n_flips, n)).astype(np.float64)
    signs, mean = 2 * chosen - 1, d.mean(axis=0)
    count = np.zeros(d.shape[1])
    for part in _parts(d.shape[1], len(signs)):
        count[part] = (np.abs(signs @ d[:, part] / n) >= np.abs(mean[part]) - TIE).sum(axis=0)
    p = count / len(signs) if exact else (count + 1) / (n_flips + 1)
    smallest = 2.0 / 2.0**n if exact else max(2.0 / 2.0**n, 1 / (n_flips + 1))
    subsets = chosen[chosen.any(axis=1)]
    subsets /= subsets.sum(axis=1, keepdims=True)
    rank = max(1, int((1 - level) / 2 * (len(subsets) + 1) + 1e-9))
    _, low, high = _over_items(d, lambda part: subsets @ part, rank, len(subsets))
    coverage = 1 - 2 * rank / (len(subsets) + 1)
    counts = np.full(d.shape[1], n)
    return _result_paired(
        "sign flip", counts, mean, p, np.full(d.shape[1], smallest), (mean, low, high), coverage, shape
    )


def _items(differences: npt.ArrayLike) -> tuple[FloatArray, tuple[int, ...]]:
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim not in (1, 2) or len(d) < 2:
        raise ValueError(
            f"differences have shape {d.shape}; need (n_subjects,) or (n_subjects, n_items) with at least 2 subjects:"
            " nothing can be said about people from one."
        )
    return d.reshape(len(d), -1), d.shape[1:]


def _patterns(n: int) -> FloatArray:
    """All rows of zeros and ones, (2^n, n)."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def _signed_rank_quantile(n: int, level: float) -> tuple[int, float]:
    """Which order statistic of the pair means bounds the interval, and its coverage, by the exact null distribution."""
    mass = np.ones(1)
    for rank in range(1, n + 1):
        mass = (np.pad(mass, (0, rank)) + np.pad(mass, (rank, 0))) / 2
    below = np.cumsum(mass)
    rank = max(1, int((2 * below <= 1 - level + 1e-12).sum()))
    return rank, float(1 - 2 * below[rank - 1])


def _over_items(
    d: FloatArray, expand: Callable[[FloatArray], FloatArray], rank: int, n_rows: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Median and the rank-th smallest and largest of the expanded rows of every item."""
    effect, low, high = np.empty((3, d.shape[1]))
    for part in _parts(d.shape[1], n_rows):
        values = np.sort(expand(d[:, part]), axis=0)
        effect[part], low[part], high[part] = np.median(values, axis=0), values[rank - 1], values[-rank]
    return effect, low, high


def _parts(n_items: int, n_rows: int) -> Iterator[slice]:
    """Slices over the items; a bar shows after three seconds."""
    from tqdm import tqdm

    width = max(1, N_VALUES_AT_ONCE // n_rows)
    for k in tqdm(range(0, n_items, width), desc="Paired tests", unit="part", leave=False, delay=3):
        yield slice(k, k + width)


def _result_paired(
    method: str,
    n: IntArray,
    statistic: FloatArray,
    p: FloatArray,
    smallest_p: FloatArray,
    interval: tuple[FloatArray, FloatArray, FloatArray],
    coverage: float,
    shape: tuple[int, ...],
) -> PairedTest:
    effect, low, high = interval
    known = np.isfinite(effect)
    found, p, smallest_p, effect, low, high = (
        np.where(known, values, np.nan).reshape(shape) for values in (statistic, p, smallest_p, effect, low, high)
    )
    return PairedTest(method, n.reshape(shape), found, p, smallest_p, effect, low, high, coverage)
