"""Finite impulse response: every feature at several delays, never across a group's border."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import Array, group_slices


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
    if abs(delay) >= n_trs:
        return
    if delay >= 0:
        target[delay:] = source[: n_trs - delay]
    else:
        target[:delay] = source[-delay:]
