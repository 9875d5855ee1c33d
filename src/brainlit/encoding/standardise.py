"""Bring features and responses to one scale without looking at scored rows of another group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import Float32Array, FloatArray, demean_within

CONSTANT_SD = 1e-6
"""A column whose sd is below this share of its root mean square (of what was removed) counts as constant."""


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
    return _inverse_sd(values, demean_within(values, groups), mask)


def _inverse_sd(values: FloatArray, centred: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    sd = np.sqrt(np.mean(np.square(centred[mask]), axis=0))
    size = np.sqrt(np.mean(np.square(values[mask]), axis=0))
    constant = sd <= CONSTANT_SD * np.maximum(size, np.finfo(np.float64).tiny)
    return np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, sd))
