"""Tests of differences: is there one, in people, or is it shown that there is none that matters?

**Paired tests** ask whether a difference, one number per subject, is more than chance. A handful of subjects is the
rule, so every result says the smallest p that its n can reach: with five subjects no two-sided test of signs or ranks
goes below 2 / 2^5 = .0625, whatever the data.

**Equivalence** is the claim 'no change': a difference is shown to lie within bounds, instead of not shown to be there.
Two one-sided tests (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657): the difference is above the lower bound and
below the upper one, each at alpha, which is the same as an interval of coverage 1 - 2 alpha inside the bounds (Berger
& Hsu 1996, Stat. Sci. 11:283). The bounds are the caller's: the largest change, in the unit of the number, that would
not matter. They are fixed before looking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray
from brainlit.encoding.statistics import LEVEL, N_VALUES_AT_ONCE, TIE, column_parts


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


def paired_wilcoxon(differences: npt.ArrayLike, *, level: float = LEVEL) -> PairedTest:
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
    return _paired("wilcoxon", n, statistic, p, 2.0 / 2.0**n, (effect, low, high), coverage, shape)


def paired_sign_flip(
    differences: npt.ArrayLike, *, level: float = LEVEL, n_flips: int = 10_000, seed: int = 0
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
    return _paired("sign flip", counts, mean, p, np.full(d.shape[1], smallest), (mean, low, high), coverage, shape)


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
    return column_parts(n_items, max(1, N_VALUES_AT_ONCE // n_rows), "Paired tests")


def _paired(
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


# --- Equivalence ---


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
    _check_bounds(bounds, alpha)
    centre = np.asarray(estimate, dtype=np.float64)
    values = centre + stretch * (np.asarray(replicates, dtype=np.float64) - centre)
    rank = int(alpha * (len(values) + 1) + 1e-9)
    if rank < 1:
        raise ValueError(f"{len(values)} replicates cannot show alpha {alpha}; draw at least {round(1 / alpha)}.")
    ordered = np.sort(values, axis=0)
    beyond = np.maximum((values <= bounds[0]).sum(axis=0), (values >= bounds[1]).sum(axis=0))
    p = np.where(np.isfinite(values).all(axis=0), (beyond + 1.0) / (len(values) + 1.0), np.nan)
    return _equivalence(bounds, alpha, centre, ordered[rank - 1], ordered[-rank], p)


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
    _check_bounds(bounds, alpha)
    if d.ndim not in (1, 2) or len(d) < 2:
        raise ValueError(f"differences have shape {d.shape}; need (n_subjects, ...) with at least 2 subjects.")
    mean, error = d.mean(axis=0), d.std(axis=0, ddof=1) / np.sqrt(len(d))
    with np.errstate(invalid="ignore", divide="ignore"):
        sides = [student.sf((mean - bounds[0]) / error, len(d) - 1), student.sf((bounds[1] - mean) / error, len(d) - 1)]
    reach = student.ppf(1 - alpha, len(d) - 1) * error
    return _equivalence(bounds, alpha, mean, mean - reach, mean + reach, np.maximum(*sides))


def _check_bounds(bounds: tuple[float, float], alpha: float) -> None:
    if len(bounds) != 2 or not bounds[0] < bounds[1] or not np.isfinite(bounds).all():
        raise ValueError(f"bounds are {bounds}; give the lower and the upper one, in the unit of the number.")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}; it is a rate of errors between 0 and 0.5.")


def _equivalence(
    bounds: tuple[float, float], alpha: float, estimate: FloatArray, low: FloatArray, high: FloatArray, p: FloatArray
) -> Equivalence:
    found, below, above = (np.asarray(values, dtype=np.float64) for values in (estimate, low, high))
    with np.errstate(invalid="ignore"):
        return Equivalence(bounds, alpha, found, below, above, np.asarray(p), np.asarray(p <= alpha))
