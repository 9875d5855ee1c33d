"""Cross-validation folds for choosing alphas and gammas: whole groups, or blocks with a purged border."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import IntArray, group_slices


@dataclass(frozen=True, eq=False)
class Fold:
    """Row indices of one fold: fitted on `train`, judged on `held_out`; purged rows are in neither."""

    train: IntArray
    held_out: IntArray


def make_folds(
    groups: npt.ArrayLike, n_folds: int, purge_trs: int = 0, times_trs: npt.ArrayLike | None = None
) -> list[Fold]:
    """Cut the rows into n_folds held-out sets that follow each other in time.

    With at least n_folds groups, each fold holds out whole groups (consecutive ones, about equally many rows). With
    fewer, each fold holds out a contiguous block of rows, and rows of the same group less than `purge_trs` away from
    the block are not trained on either: the response is slow and the noise autocorrelated, so neighbours of a
    held-out row would give its answer away.

    Parameters
    ----------
    groups : int array of shape (n_rows,)
    purge_trs : int
        Smallest distance, in rows of the recording, between a held-out row and a trained one of the same group.
    times_trs : int array of shape (n_rows,), optional
        Row of the recording that each row was; default 0, 1, 2, ... in order.

    Raises
    ------
    ValueError
        If there are fewer than 2 folds, more folds than rows, or purging leaves nothing to train on.
    """
    labels = np.asarray(groups)
    slices = group_slices(labels)
    if n_folds < 2 or n_folds > labels.size:
        raise ValueError(
            f"n_folds is {n_folds} for {labels.size} rows; need at least 2 folds and a row in each."
            " Lower n_folds or fit on more stories."
        )
    times = np.arange(labels.size) if times_trs is None else np.asarray(times_trs)
    if len(slices) >= n_folds:
        edges = _group_edges(slices, n_folds)
        purge_trs = 0
    else:
        edges = [round(k * labels.size / n_folds) for k in range(n_folds + 1)]
    return [_fold(labels, times, a, b, purge_trs) for a, b in pairwise(edges)]


def _group_edges(slices: list[slice], n_folds: int) -> list[int]:
    """First rows of the folds (and the end): the group borders nearest to equal shares, a group at least in each."""
    borders = [rows.stop for rows in slices]
    edges, used = [0], 0
    for k in range(1, n_folds):
        last = len(borders) - (n_folds - k)
        candidates = range(used, last)
        used = min(candidates, key=lambda g: abs(borders[g] - k * borders[-1] / n_folds)) + 1
        edges.append(borders[used - 1])
    return [*edges, borders[-1]]


def _fold(labels: npt.NDArray[np.int64], times: npt.NDArray[np.int64], start: int, stop: int, purge_trs: int) -> Fold:
    rows = np.arange(labels.size)
    held_out = rows[start:stop]
    near = np.zeros(labels.size, dtype=bool)
    for label in np.unique(labels[held_out]):
        same = labels == label
        block = times[held_out][labels[held_out] == label]
        near |= same & (times > block.min() - purge_trs) & (times < block.max() + purge_trs)
    near[start:stop] = True
    train = rows[~near]
    if train.size == 0:
        raise ValueError(
            f"holding out rows {start}..{stop - 1} with a purge of {purge_trs} TRs leaves no row to train on;"
            " fit on more rows, or lower purge_trs or n_folds."
        )
    return Fold(train=train, held_out=held_out)
