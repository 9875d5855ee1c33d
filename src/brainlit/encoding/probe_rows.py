"""Which rows and voxels a probe uses: masks made once, checked once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import (
    Array,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    demean_within,
    group_slices,
    position_in_group,
)
from brainlit.splits import LeakError

CONSTANT = 1e-6
"""A voxel whose sd is below this share of its root mean square counts as constant."""
BLOCK_BYTES = 8 * 2**20
"""Float64 copies of so many bytes are made at once, 116 voxels of 9,000 TRs: larger ones leave a processor's caches."""


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """Rows of a probe after the first ones of every group are left out.

    Parameters
    ----------
    groups : int array of shape (n_trs,)
    fit, score : bool arrays of shape (n_trs,)
        Rows fitted on and rows scored.
    """

    groups: IntArray
    fit: BoolArray
    score: BoolArray

    @property
    def used(self) -> BoolArray:
        """Rows fitted on or scored, (n_trs,)."""
        return self.fit | self.score

    @property
    def fit_of_used(self) -> BoolArray:
        """Which of the used rows are fitted on, (n_used,)."""
        return self.fit[self.used]

    @property
    def score_of_used(self) -> BoolArray:
        """Which of the used rows are scored, (n_used,)."""
        return self.score[self.used]

    @property
    def fit_groups(self) -> IntArray:
        """Group of each fitted row, (n_fit,)."""
        return self.groups[self.fit]

    @property
    def score_groups(self) -> IntArray:
        """Group of each scored row, (n_score,)."""
        return self.groups[self.score]

    @property
    def fit_times(self) -> IntArray:
        """Row of its group that each fitted row is, (n_fit,)."""
        return position_in_group(self.groups)[self.fit]


@dataclass(frozen=True, eq=False)
class ProbeTargets:
    """Responses of the voxels that can be used, demeaned per group and in units of their sd on the fitted rows.

    Parameters
    ----------
    fit, score : float32 arrays of shape (n_fit, n_good) and (n_score, n_good)
    good : bool array of shape (n_voxels,)
        Finite on all used rows, and not constant on the fitted or on the scored ones.
    sd : array of shape (n_voxels,)
        On the fitted rows, in the units of the responses; NaN where not good.
    """

    fit: Float32Array
    score: Float32Array
    good: BoolArray
    sd: FloatArray

    @cached_property
    def columns(self) -> IntArray:
        """Place of each good voxel among all voxels, (n_good,)."""
        return np.flatnonzero(self.good)

    def spread(self, values: npt.NDArray[Any], fill: float = np.nan) -> Any:
        """Put values of the good voxels at their places: (..., n_good) -> (..., n_voxels), `fill` elsewhere."""
        array = np.asarray(values)
        if self.good.all():
            return array
        whole = np.full((*array.shape[:-1], self.good.size), fill, dtype=array.dtype)
        whole[..., self.good] = array
        return whole


def prepare_rows(
    groups: npt.ArrayLike, fit: npt.ArrayLike, score: npt.ArrayLike, skip_trs: int, n_trs: int
) -> ProbeRows:
    """Check the masks and leave out the first skip_trs rows of every group.

    Raises
    ------
    LeakError
        If a group has both fitted and scored rows.
    ValueError
        If shapes differ, or no fitted or no scored row remains.
    """
    labels, fit_mask, score_mask = np.asarray(groups), np.asarray(fit, dtype=bool), np.asarray(score, dtype=bool)
    if not labels.shape == fit_mask.shape == score_mask.shape == (n_trs,):
        raise ValueError(
            f"groups {labels.shape}, fit {fit_mask.shape} and score {score_mask.shape} must all have one entry for"
            f" each of the {n_trs} rows of Y."
        )
    both = np.intersect1d(labels[fit_mask], labels[score_mask])
    if both.size:
        raise LeakError(
            f"group {both[0]} is both fitted and scored; demeaning and delays tie the rows of a group together."
            " Score other stories, or give spans with a purged gap their own group."
        )
    late = position_in_group(labels) >= skip_trs
    rows = ProbeRows(labels.astype(np.int64), fit_mask & late, score_mask & late)
    for name, mask in (("fitted", rows.fit), ("scored", rows.score)):
        if mask.sum() < 2:
            raise ValueError(
                f"{int(mask.sum())} {name} rows are left after skipping {skip_trs} at the start of each group;"
                " give more rows or lower skip_trs."
            )
    return rows


def check_delays(rows: ProbeRows, delays_trs: Sequence[int]) -> None:
    """Refuse groups that are all too short for any delay.

    Raises
    ------
    ValueError
        If no fitted, or no scored, group is longer than the shortest delay: all delayed features would be 0.
    """
    shortest, lengths = min(abs(delay) for delay in delays_trs), _lengths(rows.groups)
    for name, groups in (("fitted", rows.fit_groups), ("scored", rows.score_groups)):
        longest = max((lengths[label] for label in np.unique(groups).tolist()), default=None)
        if longest is not None and longest <= shortest:
            raise ValueError(
                f"the longest {name} group has {longest} TRs and the shortest delay is {shortest}: all delayed features"
                " would be 0. Give longer stories or shorter delays_trs."
            )


def short_groups(rows: ProbeRows, delays_trs: Sequence[int]) -> list[str]:
    """A sentence about used groups that are no longer than the longest delay, if there are some."""
    longest = max(abs(delay) for delay in delays_trs)
    lengths, used = _lengths(rows.groups), np.unique(rows.groups[rows.used]).tolist()
    short = [label for label in used if lengths[label] <= longest]
    if not short:
        return []
    return [
        f"{len(short)} of {len(used)} used groups (such as {short[0]}) have no more TRs than the longest delay,"
        f" {longest}: no row of theirs has all its delayed features. Leave them out, or shorten delays_trs."
    ]


def _lengths(groups: IntArray) -> dict[int, int]:
    return {int(groups[rows.start]): rows.stop - rows.start for rows in group_slices(groups)}


def prepare_targets(Y: Array | Sequence[Array], rows: ProbeRows) -> ProbeTargets:
    """Pick the usable voxels and scale them, a block of voxels at a time.

    Parameters
    ----------
    Y : array of shape (n_trs, n_voxels), or several, whose voxels are put side by side
    rows : ProbeRows
        Without scored rows, `score` of the result is empty.

    Raises
    ------
    ValueError
        If Y is not two-dimensional or no voxel is usable.
    """
    arrays = list(Y) if isinstance(Y, Sequence) else [Y]
    for values in arrays:
        if values.ndim != 2:
            raise ValueError(f"Y has shape {values.shape}; need (n_trs, n_voxels).")
    n_voxels = sum(values.shape[1] for values in arrays)
    fit, score = (np.empty((int(mask.sum()), n_voxels), np.float32) for mask in (rows.fit, rows.score))
    good, sd, n_good = np.zeros(n_voxels, dtype=bool), np.ones(n_voxels), 0
    for place, block in _blocks(arrays, int(rows.used.sum())):
        scaled, good[place], sd[place] = _scaled(block, rows)
        columns = slice(n_good, n_good + scaled.shape[1])
        fit[:, columns], score[:, columns] = scaled[rows.fit_of_used], scaled[rows.score_of_used]
        n_good = columns.stop
    if not n_good:
        raise ValueError(f"none of {n_voxels} voxels is finite and changing on the used rows; check the responses.")
    return ProbeTargets(_narrowed(fit, n_good), _narrowed(score, n_good), good, sd)


def _blocks(arrays: Sequence[Array], n_used: int) -> Iterator[tuple[slice, Array]]:
    """Blocks of voxels that take BLOCK_BYTES in float64, with their places among all voxels."""
    n_at_once, start = max(1, BLOCK_BYTES // (8 * max(n_used, 1))), 0
    for values in arrays:
        for first in range(0, values.shape[1], n_at_once):
            block = values[:, first : first + n_at_once]
            yield slice(start + first, start + first + block.shape[1]), block
        start += values.shape[1]


def _scaled(block: Array, rows: ProbeRows) -> tuple[Float32Array, BoolArray, FloatArray]:
    """The good voxels of a block, demeaned and scaled, on the used rows; which are good; the scale of each voxel."""
    values = np.asarray(block[rows.used], dtype=np.float64)
    finite = np.isfinite(values).all(axis=0)
    values[:, ~finite] = 0.0
    size = np.sqrt(np.square(values).mean(axis=0))
    centred = demean_within(values, rows.groups[rows.used])
    sd = least = np.sqrt(np.square(centred[rows.fit_of_used]).mean(axis=0))
    if rows.score.any():
        least = np.minimum(sd, np.sqrt(np.square(centred[rows.score_of_used]).mean(axis=0)))
    good = finite & (least > CONSTANT * size)
    return (centred[:, good] / sd[good]).astype(np.float32), good, np.where(good, sd, np.nan)


def _narrowed(values: Float32Array, n_columns: int) -> Float32Array:
    """The first columns as an array without gaps, moved in place: these arrays may be as large as the memory allows."""
    n_rows, width = values.shape
    if n_columns == width:
        return values
    flat = values.reshape(-1)
    for row in range(n_rows):
        flat[row * n_columns : (row + 1) * n_columns] = values[row, :n_columns]
    return flat[: n_rows * n_columns].reshape(n_rows, n_columns)
