"""From voxels to regions, with the uncertainty that comes from hearing only so many minutes of story.

A region's score is the mean over its voxels. Its uncertainty is a block bootstrap over time: the scored rows of every
story are cut into blocks of some ten TRs, and blocks are drawn with replacement within each story. Predictions stay as
they are. The draws depend only on the seed and on the stories' lengths, so two probes of the same stories (before and
after, real and permuted) share them, and the difference of two replicates is a paired replicate of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

INTERVAL = 0.95
N_VOXELS_AT_ONCE = 2048


@dataclass(frozen=True)
class Score:
    """A number with its bootstrap replicates.

    Parameters
    ----------
    value : float
    replicates : array of shape (n_bootstraps,) or None
        None where the number has no interval.
    """

    value: float
    replicates: FloatArray | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """2.5 and 97.5 % quantiles of the replicates."""
        if self.replicates is None or not np.isfinite(self.replicates).all():
            return None
        low, high = np.quantile(self.replicates, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        return float(low), float(high)

    def combine(self, other: Score, how: Any) -> Score:
        """how(self, other), replicate by replicate; paired where both come from the same rows and seed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(how(np.float64(self.value), np.float64(other.value)))
            if self.replicates is None or other.replicates is None:
                return Score(value)
            return Score(value, how(self.replicates, other.replicates))

    def __sub__(self, other: Score) -> Score:
        return self.combine(other, np.subtract)

    def __add__(self, other: Score) -> Score:
        return self.combine(other, np.add)

    def over(self, other: Score) -> Score:
        """Ratio self / other."""
        return self.combine(other, np.divide)

    def json(self) -> dict[str, float | None]:
        """Value, low and high; None for what is not a number."""
        low, high = self.interval or (None, None)
        return {"value": _number(self.value), "low": _number(low), "high": _number(high)}


def mean_score(scores: list[Score]) -> Score:
    """Mean of several scores (subjects), replicate by replicate."""
    if not scores:
        raise ValueError("no scores to average; give at least one.")
    value = float(np.mean([score.value for score in scores]))
    replicates = [score.replicates for score in scores if score.replicates is not None]
    if len(replicates) < len(scores) or len({len(r) for r in replicates}) > 1:
        return Score(value)
    return Score(value, np.mean(replicates, axis=0))


def block_weights(groups: IntArray, block_trs: int, n_bootstraps: int, seed: int) -> tuple[IntArray, FloatArray]:
    """How often each block is drawn in each bootstrap.

    Parameters
    ----------
    groups : int array of shape (n_trs,)
        Story of each scored row, contiguous.
    block_trs : int
        Rows per block; a story's rest shorter than half a block joins the block before it.

    Returns
    -------
    block_of_row : int array of shape (n_trs,)
    weights : array of shape (n_bootstraps, n_blocks)
        Counts; the counts of a story's blocks add up to its number of blocks.
    """
    if block_trs < 1 or n_bootstraps < 1:
        raise ValueError(f"block_trs is {block_trs} and n_bootstraps {n_bootstraps}; both must be at least 1.")
    rng = np.random.default_rng(seed)
    block_of_row = np.empty(len(groups), dtype=np.int64)
    weights, first = [], 0
    for rows in _runs(groups):
        n_blocks = max(1, int(np.floor((rows.stop - rows.start) / block_trs + 0.5)))
        block_of_row[rows] = first + np.minimum(np.arange(rows.stop - rows.start) // block_trs, n_blocks - 1)
        weights.append(rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_bootstraps))
        first += n_blocks
    return block_of_row, np.concatenate(weights, axis=1).astype(np.float64)


def region_replicates(
    observed: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    groups: IntArray,
    regions: Mapping[str, BoolArray],
    blocks: tuple[IntArray, FloatArray],
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Bootstrap replicates of each region's mean r and mean R2.

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Scored rows.
    regions : mapping of name to bool array of shape (n_voxels,)
        Voxels to average, without those that the probe dropped.
    blocks : result of `block_weights`

    Returns
    -------
    mapping of region to (r, r2), each of shape (n_bootstraps,)
    """
    block_of_row, weights = blocks
    totals = {name: np.zeros((2, len(weights))) for name in regions}
    for start in range(0, observed.shape[1], N_VOXELS_AT_ONCE):
        part = slice(start, start + N_VOXELS_AT_ONCE)
        inside = {name: mask[part].astype(np.float64) for name, mask in regions.items()}
        keep = np.any(list(inside.values()), axis=0)
        if not keep.any():
            continue
        r, r2 = _voxel_replicates(
            observed[:, part][:, keep], predicted[:, part][:, keep], groups, block_of_row, weights
        )
        for name, mask in inside.items():
            totals[name] += np.stack([r @ mask[keep], r2 @ mask[keep]])
    counts = {name: max(int(mask.sum()), 1) for name, mask in regions.items()}
    return {name: (total[0] / counts[name], total[1] / counts[name]) for name, total in totals.items()}


def _voxel_replicates(
    observed: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    groups: IntArray,
    block_of_row: IntArray,
    weights: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Replicates of r and R2 per voxel, (n_bootstraps, n_voxels) each, from sums over blocks.

    Each story's mean is removed once, before the draws, as the probe does for its point values.
    """
    o, p = (np.array(values, dtype=np.float64) for values in (observed, predicted))
    for rows in _runs(groups):
        o[rows] -= o[rows].mean(axis=0)
        p[rows] -= p[rows].mean(axis=0)
    starts = np.flatnonzero(np.diff(block_of_row, prepend=-1))

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(weights @ np.add.reduceat(values, starts, axis=0))

    sst, spp, sop = total(o * o), total(p * p), total(o * p)
    spread = np.sqrt(sst * spp)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 0, sop / spread, 0.0)
        r2 = np.where(sst > 0, 1 - (sst - 2 * sop + spp) / sst, 0.0)
    return r, r2


def _runs(groups: IntArray) -> Iterator[slice]:
    """Slices of equal neighbours."""
    edges = np.flatnonzero(np.diff(groups)) + 1
    for start, stop in zip([0, *edges], [*edges, len(groups)], strict=True):
        yield slice(int(start), int(stop))


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
