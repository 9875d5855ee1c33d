"""Scores per voxel and what turns them into p-values: correlation, R2, blocks of rows, false discovery rate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import FloatArray, IntArray, demean_within, group_slices


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
