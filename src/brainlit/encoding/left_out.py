"""What a ridge would have scored without each of the fit stories: how far its score hangs on what it was fitted on.

Nothing is fitted again. With all stories X = V diag(s) U', H = V diag(s^2 / (s^2 + alpha)) V' and e = y - H y, the
weights without the rows S are those of all rows less (X'X + alpha)^-1 X_S' (I - H_SS)^-1 e_S: the block form of the
leave-one-out identity (Golub, Heath and Wahba 1979, doi:10.1080/00401706.1979.10489751), here for the predictions of
other rows. One decomposition serves all stories and alphas. Each voxel keeps the alpha that it chose with all stories.

The scores are for a jackknife (`jackknife_variance`) of a number made of them, such as a difference of two models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, Float32Array, FloatArray, IntArray, group_slices
from brainlit.encoding.statistics import correlation_within, r2_within

FEWEST_STORIES = 4
"""With fewer the jackknife has one or two degrees of freedom, and intervals say nothing."""
MOST_PARTS = 20
"""More stories are left out several at a time."""
SMALLEST_SHARE = 1e-12
"""Eigenvalues of X'X below this share of the largest are rounding and count as 0."""


def left_out_parts(groups: npt.ArrayLike) -> list[IntArray]:
    """Rows of the parts that are left out in turn: a story each, or neighbours where there are more than MOST_PARTS.

    Empty where there are fewer than FEWEST_STORIES stories.

    >>> [part.tolist() for part in left_out_parts([0, 0, 1, 2, 2, 5])]
    [[0, 1], [2], [3, 4], [5]]
    """
    stories = [np.arange(rows.start, rows.stop) for rows in group_slices(groups)]
    if len(stories) < FEWEST_STORIES:
        return []
    cuts = np.array_split(np.arange(len(stories)), min(len(stories), MOST_PARTS))
    return [np.concatenate([stories[k] for k in cut]) for cut in cuts]


def left_out_scores(
    X: tuple[Array, Array],
    Y: tuple[Array, Array],
    groups: tuple[IntArray, IntArray],
    alphas: FloatArray,
    memory_gb: float = 4.0,
) -> dict[str, Float32Array]:
    """Held-out r and R2 of every voxel, with each part of the fitted rows left out in turn.

    Parameters
    ----------
    X : (array of shape (n_fit, n_features), array of shape (n_score, n_features))
        Fitted and scored rows, delayed and scaled as the ridge sees them.
    Y : (array of shape (n_fit, n_voxels), array of shape (n_score, n_voxels))
        Centred within stories.
    groups : (int array of shape (n_fit,), int array of shape (n_score,))
        Stories.
    alphas : array of shape (n_voxels,)
    memory_gb : float
        For batches of voxels, beside the decomposition of X.

    Returns
    -------
    mapping of 'r' and 'r2' to float32 array of shape (n_parts, n_voxels); empty with fewer than FEWEST_STORIES stories.
    """
    parts = left_out_parts(groups[0])
    if not parts:
        return {}
    V, s, Ut = _thin(np.asarray(X[0], dtype=np.float64))
    L = np.asarray(X[1], dtype=np.float64) @ Ut.T
    n_voxels, n_values = Y[0].shape[1], 3 * len(Y[0]) + 6 * len(Y[1]) + 2 * len(s)
    n_at_once = max(1, int(memory_gb * 1e9 / (8 * n_values)))
    found = {name: np.empty((len(parts), n_voxels), dtype=np.float32) for name in ("r", "r2")}
    for alpha in np.unique(alphas):
        shrink, carry = np.square(s) / (np.square(s) + alpha), s / (np.square(s) + alpha)
        own = np.flatnonzero(alphas == alpha)
        without = []
        for rows in parts:
            inside = np.eye(len(rows)) - (V[rows] * shrink) @ V[rows].T
            # from errors on the left-out rows to what their loss changes on the scored ones
            without.append(np.linalg.solve(inside, V[rows] * carry @ L.T).T)
        for start in range(0, own.size, n_at_once):
            voxels = own[start : start + n_at_once]
            y, scored = (np.asarray(values[:, voxels], dtype=np.float64) for values in Y)
            inner = V.T @ y
            errors, whole = y - V @ (shrink[:, None] * inner), L @ (carry[:, None] * inner)
            for k, (rows, change) in enumerate(zip(parts, without, strict=True)):
                predicted = whole - change @ errors[rows]
                found["r"][k, voxels] = np.nan_to_num(correlation_within(scored, predicted, groups[1]))
                found["r2"][k, voxels] = r2_within(scored, predicted, groups[1])
    return found


def jackknife_variance(values: npt.ArrayLike) -> FloatArray:
    """Variance of a number by what it is without each part, (n_parts, ...) -> (...): (g - 1) / g times their scatter.

    (Tukey 1958; Efron & Stein 1981, Ann. Statist. 9:586: on average not too small.)
    """
    left = np.asarray(values, dtype=np.float64)
    n_parts = len(left)
    return np.asarray((n_parts - 1) / n_parts * np.square(left - left.mean(axis=0)).sum(axis=0))


def p_with_fit(
    difference: npt.ArrayLike, time_sd: npt.ArrayLike, fit_variance: npt.ArrayLike, n_parts: int
) -> FloatArray:
    """Two-sided p of a difference that errs over time (normal) and by its fit (Student's t, n_parts - 1).

    It is where the interval with the half width sqrt(z^2 time_sd^2 + t^2 fit_variance) would end at 0.

    Parameters
    ----------
    difference, time_sd, fit_variance : arrays of shape (n,)

    >>> p_with_fit([1.96, 1.96], [1.0, 1.0], [0.0, 1.0], 12).round(3).tolist()
    [0.05, 0.18]
    """
    from scipy.special import ndtri, stdtrit

    squared, time, fit = np.square(np.asarray(difference)), np.square(np.asarray(time_sd)), np.asarray(fit_variance)
    low, high = np.full(squared.shape, -300.0), np.zeros(squared.shape)
    for _ in range(45):
        middle = (low + high) / 2
        half = 10.0**middle / 2
        is_wider = np.square(ndtri(half)) * time + np.square(stdtrit(n_parts - 1, half)) * fit > squared
        low, high = np.where(is_wider, middle, low), np.where(is_wider, high, middle)
    return np.asarray(np.where(np.isfinite(squared), 10.0**high, np.nan))


def _thin(X: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """V, s, U' of X = V diag(s) U' without directions of no size, from the smaller product of X with itself."""
    n_rows, n_columns = X.shape
    product = X.T @ X if n_columns <= n_rows else X @ X.T
    values, vectors = np.linalg.eigh(product)
    kept = values > SMALLEST_SHARE * values[-1]
    s, vectors = np.sqrt(values[kept]), vectors[:, kept]
    if n_columns <= n_rows:
        return np.asarray(X @ vectors / s), s, np.asarray(vectors.T)
    return np.asarray(vectors), s, np.asarray((X.T @ vectors / s).T)
