"""Which rows and voxels a probe uses: masks made once, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import (
    Array,
    BoolArray,
    Float32Array,
    IntArray,
    demean_within,
    position_in_group,
)
from brainlit.encoding.roles import LeakError

CONSTANT = 1e-6
"""A voxel whose sd is below this share of its root mean square counts as constant."""


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
    """

    fit: Float32Array
    score: Float32Array
    good: BoolArray

    def spread(self, values: Array) -> Any:
        """Put values of the good voxels at their places: (..., n_good) -> (..., n_voxels), NaN elsewhere."""
        array = np.asarray(values)
        whole = np.full((*array.shape[:-1], self.good.size), np.nan, dtype=array.dtype)
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


def prepare_targets(Y: Array, rows: ProbeRows) -> ProbeTargets:
    """Pick the usable voxels and scale them.

    Raises
    ------
    ValueError
        If Y is not two-dimensional or no voxel is usable.
    """
    if Y.ndim != 2:
        raise ValueError(f"Y has shape {Y.shape}; need (n_trs, n_voxels).")
    values = np.asarray(Y[rows.used], dtype=np.float64)
    finite = np.isfinite(values).all(axis=0)
    values[:, ~finite] = 0.0
    centred = demean_within(values, rows.groups[rows.used])
    size = np.sqrt(np.square(values).mean(axis=0))
    sd = np.sqrt(np.square(centred[rows.fit_of_used]).mean(axis=0))
    sd_score = np.sqrt(np.square(centred[rows.score_of_used]).mean(axis=0))
    good = finite & (np.minimum(sd, sd_score) > CONSTANT * size)
    if not good.any():
        raise ValueError(f"none of {Y.shape[1]} voxels is finite and changing on the used rows; check the responses.")
    scaled = (centred[:, good] / sd[good]).astype(np.float32)
    return ProbeTargets(scaled[rows.fit_of_used], scaled[rows.score_of_used], good)
