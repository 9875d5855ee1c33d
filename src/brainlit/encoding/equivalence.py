"""Tests of the claim 'no change': a difference is shown to lie within bounds, instead of not shown to be there.

Two one-sided tests (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657): the difference is above the lower bound and
below the upper one, each at alpha, which is the same as an interval of coverage 1 - 2 alpha inside the bounds (Berger &
Hsu 1996, Stat. Sci. 11:283). The bounds are the caller's: the largest change, in the unit of the number, that would not
matter. They are fixed before looking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import BoolArray, FloatArray


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
    estimate: npt.ArrayLike, replicates: npt.ArrayLike, bounds: tuple[float, float], *, alpha: float = 0.05
) -> Equivalence:
    """Equivalence by the percentiles of bootstrap replicates of a difference.

    p is (b + 1) / (m + 1) with b of m replicates at or beyond a bound. Where few units were drawn (stories, subjects),
    percentiles are too narrow: take `hierarchical_bootstrap` with level 1 - 2 alpha, or `equivalence_paired`.

    Parameters
    ----------
    estimate : array of shape (n_items,) or a number
    replicates : array of shape (n_bootstraps, n_items) or (n_bootstraps,)
        At least 1 / alpha of them.
    bounds : (float, float)

    Raises
    ------
    ValueError
        If bounds or alpha make no sense, or there are too few replicates.
    """
    values = np.asarray(replicates, dtype=np.float64)
    _check(bounds, alpha)
    rank = int(alpha * (len(values) + 1) + 1e-9)
    if rank < 1:
        raise ValueError(f"{len(values)} replicates cannot show alpha {alpha}; draw at least {round(1 / alpha)}.")
    ordered = np.sort(values, axis=0)
    beyond = np.maximum((values <= bounds[0]).sum(axis=0), (values >= bounds[1]).sum(axis=0))
    p = np.where(np.isfinite(values).all(axis=0), (beyond + 1.0) / (len(values) + 1.0), np.nan)
    return _result(bounds, alpha, np.asarray(estimate, dtype=np.float64), ordered[rank - 1], ordered[-rank], p)


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
