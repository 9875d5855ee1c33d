"""Groups: the contiguous stretches of rows (stories, or spans of one) that nothing may cross."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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
