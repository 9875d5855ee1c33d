"""Paired tests over subjects: is a difference, one number per subject, more than chance in people?

A handful of subjects is the rule, so every result says the smallest p that its n can reach: with five subjects no
two-sided test of signs or ranks goes below 2 / 2^5 = .0625, whatever the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import FloatArray, IntArray

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
    return _result("wilcoxon", n, statistic, p, 2.0 / 2.0**n, (effect, low, high), coverage, shape)


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
    return _result("sign flip", counts, mean, p, np.full(d.shape[1], smallest), (mean, low, high), coverage, shape)


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


def _parts(n_items: int, n_rows: int) -> list[slice]:
    width = max(1, N_VALUES_AT_ONCE // n_rows)
    return [slice(k, k + width) for k in range(0, n_items, width)]


def _result(
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
    columns = (statistic, p, smallest_p, effect, low, high)
    masked = (np.where(known, values, np.nan).reshape(shape) for values in columns)
    return PairedTest(method, n.reshape(shape), *masked, coverage)
