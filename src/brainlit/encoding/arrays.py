"""Arrays whose rows come in groups: contiguous stretches (stories, or spans of one) that nothing may cross.

Cut into groups, centre, bring to one scale, delay. Types of arrays have their home here for all rooms above.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

CONSTANT_SD = 1e-6
"""A column whose sd is below this share of its root mean square (of what was removed) counts as constant."""


class NotFiniteError(ValueError):
    """A computation gave NaN or infinity; the message says where."""


def refuse_not_finite(values: Array, what: str, cure: str) -> None:
    """NotFiniteError, with what and cure in words, unless all values are finite; the last axis are targets or columns.

    >>> refuse_not_finite(np.array([[1.0, np.nan]]), "weights", "look at the features")
    Traceback (most recent call last):
    ...
    brainlit.encoding.arrays.NotFiniteError: weights are not finite for 1 of 2 targets; look at the features.
    """
    if np.isfinite(values).all():
        return
    bad = ~np.isfinite(values).all(axis=tuple(range(values.ndim - 1)))
    raise NotFiniteError(f"{what} are not finite for {bad.sum()} of {bad.size} targets; {cure}.")


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Put what is worked on, such as "band 'semantic'", before the message of a NotFiniteError in the block."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{what}: {error}") from error


def group_slices(groups: npt.ArrayLike) -> list[slice]:
    """Where each group's rows lie, in the order of the rows.

    Parameters
    ----------
    groups : int array of shape (n_trs,)
        The same number on all rows of a story (or span).

    Raises
    ------
    ValueError
        If the labels are not one-dimensional, or a group's rows are not contiguous.

    >>> group_slices([7, 7, 3, 3, 3])
    [slice(0, 2, None), slice(2, 5, None)]
    """
    labels = np.asarray(groups)
    if labels.ndim != 1:
        raise ValueError(f"groups have shape {labels.shape}; need one label per row, (n_trs,).")
    if labels.size == 0:
        return []
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    seen, counts = np.unique(labels[starts], return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"group {seen[counts > 1][0]} appears in {counts.max()} separate stretches of rows; its rows must be"
            " contiguous and in order of time, because delays run inside a group. Give each stretch its own number."
        )
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], labels.size], strict=True)]


def position_in_group(groups: npt.ArrayLike) -> IntArray:
    """How many rows of its own group come before each row, shape (n_trs,).

    >>> position_in_group([7, 7, 3, 3, 3]).tolist()
    [0, 1, 0, 1, 2]
    """
    parts = [np.arange(rows.stop - rows.start) for rows in group_slices(groups)]
    return np.concatenate([*parts, np.zeros(0, dtype=np.int64)]).astype(np.int64)


def demean_within(values: npt.ArrayLike, groups: npt.ArrayLike) -> FloatArray:
    """Subtract each group's own mean from its rows: (n_trs, n) -> (n_trs, n), float64."""
    centred = np.array(values, dtype=np.float64)
    slices = group_slices(groups)
    if slices and slices[-1].stop != len(centred):
        raise ValueError(f"{slices[-1].stop} group labels for {len(centred)} rows; need one label per row.")
    for rows in slices:
        centred[rows] -= centred[rows].mean(axis=0)
    return centred


# --- One scale, without looking at the scored rows of another group ---


def standardise(X: npt.ArrayLike, groups: npt.ArrayLike, fit_mask: npt.ArrayLike) -> Float32Array:
    """Centre each group by its own mean and divide by the pooled standard deviation of the rows fitted on.

    The mean is each story's own, because a scanner run has an arbitrary level; the scale is shared and comes from
    the fitted rows alone, so that a louder story stays louder and nothing of the scored rows' variance is used.

    Parameters
    ----------
    X : array of shape (n_trs, n)
    groups : int array of shape (n_trs,)
    fit_mask : bool array of shape (n_trs,)
        The rows whose scale counts.

    Returns
    -------
    float32 array of shape (n_trs, n)
        Columns that are constant on the fitted rows become 0.

    Raises
    ------
    ValueError
        If shapes differ, no row is fitted, or values are not finite.
    """
    scale = column_scale(X, groups, fit_mask)
    return (demean_within(X, groups) * scale).astype(np.float32)


def column_scale(X: npt.ArrayLike, groups: npt.ArrayLike, fit_mask: npt.ArrayLike) -> FloatArray:
    """What `standardise` multiplies each centred column by, (n,): 1 / sd of the fitted rows, 0 where constant there.

    Raises
    ------
    ValueError
        As `standardise`.
    """
    values = np.asarray(X, dtype=np.float64)
    mask = np.asarray(fit_mask, dtype=bool)
    if values.ndim != 2 or mask.shape != (len(values),):
        raise ValueError(f"X has shape {values.shape} and fit_mask {mask.shape}; need (n_trs, n) and (n_trs,).")
    if not mask.any():
        raise ValueError("fit_mask selects no row; the scale has to come from somewhere: give at least one story.")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"row {row}, column {column} is {values[row, column]}; remove or fill it before scaling.")
    sd = np.sqrt(np.mean(np.square(demean_within(values, groups)[mask]), axis=0))
    size = np.sqrt(np.mean(np.square(values[mask]), axis=0))
    constant = sd <= CONSTANT_SD * np.maximum(size, np.finfo(np.float64).tiny)
    return np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, sd))


# --- Finite impulse response: every feature at several delays ---


def delay_within(X: npt.ArrayLike, groups: npt.ArrayLike, delays_trs: Sequence[int]) -> Array:
    """Shift the features by each delay inside each group and put the copies side by side.

    Row t of the block for delay d holds row t - d of the same group, zeros where that row lies outside the group:
    a story knows nothing of the one before it.

    Parameters
    ----------
    X : array of shape (n_trs, n_features)
    groups : int array of shape (n_trs,)
        Contiguous groups (stories).
    delays_trs : sequence of int
        In rows; positive delays look back in time, negative ones ahead.

    Returns
    -------
    array of shape (n_trs, n_delays * n_features)
        All features at the first delay, then all at the second, and so on; the dtype of X.

    Raises
    ------
    ValueError
        If X is not two-dimensional, groups do not fit it, or delays are empty or repeated.

    >>> delay_within(np.array([[1.0], [2.0], [3.0]]), [0, 0, 1], [0, 1]).tolist()
    [[1.0, 0.0], [2.0, 1.0], [3.0, 0.0]]
    """
    values = np.asarray(X)
    labels = np.asarray(groups)
    if values.ndim != 2 or labels.shape != (len(values),):
        raise ValueError(
            f"X has shape {values.shape} and groups {labels.shape}; need (n_trs, n_features) and (n_trs,)."
        )
    if len(delays_trs) == 0 or len(set(delays_trs)) != len(delays_trs):
        raise ValueError(f"delays_trs is {tuple(delays_trs)}; need at least one delay, each of them once.")
    n_features = values.shape[1]
    delayed = np.zeros((len(values), len(delays_trs) * n_features), dtype=values.dtype)
    for rows in group_slices(labels):
        for k, delay in enumerate(delays_trs):
            _shift_into(delayed[rows, k * n_features : (k + 1) * n_features], values[rows], int(delay))
    return delayed


def _shift_into(target: Array, source: Array, delay: int) -> None:
    n_trs = len(source)
    # target and source are one story's rows alone, so what a shift pushes past its border is lost and zeros stay
    if abs(delay) >= n_trs:
        return
    if delay >= 0:
        target[delay:] = source[: n_trs - delay]
    else:
        target[:delay] = source[-delay:]
