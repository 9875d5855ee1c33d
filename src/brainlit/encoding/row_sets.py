"""Correlation on some of the scored rows, with an interval from what each block of time contributes to it.

Rows of a kind (those that rest on certain words) lie in short runs all over the stories, so that the blocks of time
that hold some of them are few and unequal. Blocks drawn with replacement, as for all rows, give intervals there that
miss the truth too often (docs/calibration.md). So every block is left out once, with the stories' means taken anew,
which says how much it pulls the number (the jackknife over blocks; Künsch 1989, Ann. Statist. 17:1217), and replicates
add up the pulls of blocks drawn at random. They are linear in the blocks and share their draws, so differences are
paired; percentiles are widened to Student's t for blocks of unequal size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, FloatArray, IntArray, group_slices
from brainlit.encoding.bootstrap import BLOCK_TRS, N_VOXELS_AT_ONCE, time_blocks
from brainlit.encoding.statistics import LEVEL, Score, student_quantile

LEAST_BLOCKS = 3
"""Fewer rows than so many blocks have give no number."""
LEAST_EFFECTIVE = 4.0
"""Fewer blocks than that, counted by their sizes, give no interval: Student's t would have two degrees of freedom."""


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The rows of a set, and where they lie.

    Parameters
    ----------
    rows : int array of shape (n_rows,)
        Places among all scored rows.
    starts : int array of shape (n_blocks,)
        First row of each block that holds some, among these rows.
    story : int array of shape (n_blocks,)
        Number of the story of each block, counted among those that have some.
    sizes : array of shape (n_blocks, 1)
        Rows of the set in each block.
    """

    rows: IntArray
    starts: IntArray
    story: IntArray
    sizes: FloatArray

    @classmethod
    def of(cls, groups: IntArray, inside: BoolArray, block_trs: int) -> _Blocks:
        rows = np.flatnonzero(inside)
        # blocks that hold some rows are few, so they do not grow with the rows
        block_of_row = time_blocks(groups, block_trs, up_to_trs=len(groups))[rows]
        starts = np.flatnonzero(np.diff(block_of_row, prepend=-1))
        first = groups[rows[starts]]
        story = np.cumsum(np.append(False, first[1:] != first[:-1]))
        sizes = np.diff(np.append(starts, len(rows))).astype(np.float64)[:, None]
        return cls(rows, starts, story, sizes)

    @property
    def effective(self) -> float:
        """How many equal blocks would say as much: (sum of sizes)^2 / sum of squared sizes."""
        return float(self.sizes.sum() ** 2 / np.square(self.sizes).sum())

    def correlations(self, observed: FloatArray, predicted: FloatArray) -> FloatArray:
        """r of all rows, then r without each block, (1 + n_blocks, n_voxels); each story centred on the rows taken.

        0 where nothing varies.
        """
        o, p = observed[self.rows], predicted[self.rows]
        parts = [np.add.reduceat(values, self.starts, axis=0) for values in (o, p, o * o, p * p, o * p)]
        of_story = [_by_story(part, self.story) for part in parts]
        n_of_story = _by_story(self.sizes, self.story)
        whole = _centred(of_story, n_of_story)
        # leaving a block out changes its own story's sums only
        rest = [of[self.story] - part for of, part in zip(of_story, parts, strict=True)]
        left = _centred(rest, n_of_story[self.story] - self.sizes)
        oo, pp, op = (
            np.concatenate([w.sum(axis=0)[None], w.sum(axis=0) - w[self.story] + part])
            for w, part in zip(whole, left, strict=True)
        )
        scale = np.sqrt(np.maximum(oo, 0.0) * np.maximum(pp, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(scale > 0, op / scale, 0.0))


def row_set_scores(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    rows: npt.ArrayLike,
    regions: Mapping[str, BoolArray],
    *,
    block_trs: int = BLOCK_TRS,
    n_bootstraps: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Mean correlation over each region's voxels on some of the scored rows.

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Scored rows.
    groups : int array of shape (n_trs,)
        Story of each scored row, contiguous. Responses and predictions are centred within it, over the rows taken.
    rows : bool array of shape (n_trs,)
        The rows that are taken.
    regions : mapping of name to bool array of shape (n_voxels,)
        Voxels to average, without those that the probe dropped.
    block_trs : int
        Rows per block of time, cut in the whole stories: a block has those of its rows that are taken.

    Returns
    -------
    dict of region to Score
        Its replicates are widened already. Without them where blocks are too few for an interval; empty where fewer
        rows are taken than LEAST_BLOCKS blocks have.

    Raises
    ------
    ValueError
        If there is not one entry of rows and groups for every row.
    """
    labels, inside = np.asarray(groups), np.asarray(rows, dtype=bool)
    if not labels.shape == inside.shape == observed.shape[:1] == predicted.shape[:1]:
        raise ValueError(
            f"rows have shape {inside.shape} and groups {labels.shape} for {len(observed)} scored rows; give one entry"
            " for each."
        )
    group_slices(labels)
    if inside.sum() < LEAST_BLOCKS * block_trs:
        return {}
    blocks = _Blocks.of(labels, inside, block_trs)
    totals = {name: np.zeros(1 + len(blocks.starts)) for name in regions}
    for start in range(0, observed.shape[1], N_VOXELS_AT_ONCE):
        part = slice(start, start + N_VOXELS_AT_ONCE)
        keep = np.any([mask[part] for mask in regions.values()], axis=0)
        arrays = (np.asarray(values[:, part][:, keep], dtype=np.float64) for values in (observed, predicted))
        r = blocks.correlations(*arrays)
        for name, mask in regions.items():
            totals[name] += r[:, mask[part][keep]].sum(axis=1)
    draws = _draws(len(blocks.starts), n_bootstraps, seed)
    return {name: _score(total / max(int(regions[name].sum()), 1), blocks, draws) for name, total in totals.items()}


def _score(r: FloatArray, blocks: _Blocks, draws: FloatArray) -> Score:
    """The number with all rows, and replicates from those without each block."""
    value, without = float(r[0]), r[1:]
    n_blocks, effective = len(without), blocks.effective
    units = {"blocks": n_blocks}
    if effective < LEAST_EFFECTIVE:
        return Score(value, n_units=units, not_resampled=("stories",))
    # the sum over drawn blocks then has the jackknife's variance, (n - 1) / n times the sum of squares
    pulls = np.sqrt((n_blocks - 1) / n_blocks) * (without.mean() - without)
    widened = student_quantile(effective - 1.0, LEVEL) / student_quantile(np.inf, LEVEL)
    return Score(value, value + widened * (draws @ pulls), n_units=units, not_resampled=("stories",))


def _draws(n_blocks: int, n_bootstraps: int, seed: int) -> FloatArray:
    """How much more often than once each block is drawn, (n_bootstraps, n_blocks)."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_bootstraps)
    return counts.astype(np.float64) - 1.0


def _by_story(of_block: FloatArray, story: IntArray) -> FloatArray:
    return np.asarray(np.add.reduceat(of_block, np.flatnonzero(np.diff(story, prepend=-1)), axis=0))


def _centred(sums: Sequence[FloatArray], n: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sums of squares and products about the mean, from plain sums over n rows; 0 of no row."""
    (o, p, oo, pp, op), n_rows = sums, np.maximum(n, 1.0)
    return oo - o * o / n_rows, pp - p * p / n_rows, op - o * p / n_rows
