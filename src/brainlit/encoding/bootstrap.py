"""Bootstraps over blocks of time or stories, for the r or R2 of a region in one probe or the difference of two.

Consecutive rows are not independent, so whole blocks of them are drawn with replacement, as if other minutes of the
same stories had been heard (`over='time'`: non-overlapping blocks within each story, Carlstein 1986, Ann. Statist.
14:1171; Künsch 1989, Ann. Statist. 17:1217), or whole stories, as if other stories had been told (`over='stories'`).
Predictions stay as they are. The draws depend only on the seed and on the stories' lengths, so two probes of the same
stories (before and after, real and permuted) share them, and the difference of two replicates is a paired replicate of
the difference. A correlation needs only five sums (three of products, two for the means, which every draw takes anew),
so each block is summed once and every replicate is a product of draw counts with block sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import (
    Array,
    BoolArray,
    FloatArray,
    IntArray,
    demean_within,
    group_slices,
    refuse_not_finite,
)
from brainlit.encoding.statistics import (
    MOST_LOST,
    Score,
    lost_between_blocks,
    memory_error,
    percentile_interval,
    small_sample_factor,
)
from brainlit.hints import did_you_mean

Over = Literal["time", "stories"]
ScoreName = Literal["r", "r2"]
Blocks = tuple[IntArray, FloatArray]
N_VOXELS_AT_ONCE = 2048
LEAVE = "leave voxels that the probe dropped out of the region"
BLOCK_TRS = 20
"""Rows per block, where few rows are scored."""
DRAWN_TRS = 200
"""Intervals: up to so many scored rows blocks have the length asked for, of more rows they are longer in proportion, so
that there are some 10. Blocks of 20 rows are 12 % short of the variance where neighbouring rows of responses and
predictions correlate by .8. Few blocks pay for that by their Student's t; many would not."""
HOW_DRAWN = "about 10 blocks, centred anew"
"""Part of what tells that replicates of two records come from the same draws; another text when blocks are cut anew."""
FEWEST_BLOCKS = 3
"""Of a story, if it is long enough for so many of the length asked for."""


@dataclass(frozen=True)
class BlockDraws:
    """How blocks are drawn.

    Parameters
    ----------
    block_trs : int
        Rows per block, of up to 200 scored rows; of more, blocks are longer: see `time_blocks`. Longer than the
        responses remember (20 TRs of 2 s are 40 s). Not used over stories.
    n_bootstraps : int
    level : float
        Coverage of the interval.
    seed : int
    over : 'time' or 'stories'
        Blocks of time within each story, or whole stories.
    """

    block_trs: int = BLOCK_TRS
    n_bootstraps: int = 2000
    level: float = 0.95
    seed: int = 0
    over: Over = "time"

    def __post_init__(self) -> None:
        _check_over(self.over)
        if self.block_trs < 1 or self.n_bootstraps < 1 or not 0.0 < self.level < 1.0:
            raise ValueError(
                f"block_trs {self.block_trs}, n_bootstraps {self.n_bootstraps}, level {self.level}; need at least 1,"
                " at least 1, and a share between 0 and 1."
            )


def time_blocks(groups: npt.ArrayLike, block_trs: int, up_to_trs: int = DRAWN_TRS) -> IntArray:
    """Number of the block of each row, (n_trs,): equal parts of each story, as near to block_trs rows as that allows.

    What a block remembers of the one before is lost, in proportion to 1 / its length, and blocks need not be many. So
    they grow with the rows: more than up_to_trs of them are cut into blocks of block_trs * n_trs / up_to_trs, but no
    story into fewer than three that could have three.

    >>> time_blocks([0, 0, 0, 0, 0, 1, 1, 1], 2).tolist()
    [0, 0, 1, 1, 2, 3, 3, 4]
    >>> np.bincount(time_blocks(np.zeros(400), 20)).tolist() == [40] * 10
    True
    """
    if block_trs < 1:
        raise ValueError(f"block_trs is {block_trs}; a block has at least 1 row.")
    labels = np.asarray(groups)
    block_of_row = np.empty(len(labels), dtype=np.int64)
    longer_trs = block_trs * max(1.0, len(labels) / up_to_trs)
    first = 0
    for rows in group_slices(labels):
        n_rows = rows.stop - rows.start
        least, n_long = (int(np.floor(n_rows / trs + 0.5)) for trs in (block_trs, longer_trs))
        n_blocks = max(1, n_long, min(FEWEST_BLOCKS, least))
        block_of_row[rows] = first + np.arange(n_rows) * n_blocks // n_rows
        first += n_blocks
    return block_of_row


def block_weights(groups: IntArray, block_trs: int, n_bootstraps: int, seed: int, over: Over = "time") -> Blocks:
    """How often each block is drawn in each bootstrap.

    Parameters
    ----------
    groups : int array of shape (n_trs,)
        Story of each scored row, contiguous.
    block_trs : int
        Rows per block; see `time_blocks`.
    over : 'time' or 'stories'
        Draw blocks of time within every story, or whole stories (each story is then one block).

    Returns
    -------
    block_of_row : int array of shape (n_trs,)
    weights : array of shape (n_bootstraps, n_blocks)
        Counts; over time the counts of a story's blocks add up to its number of blocks, over stories all counts to the
        number of stories.

    Raises
    ------
    ValueError
        If a size is not positive, or whole stories are to be drawn from a single one.
    """
    if block_trs < 1 or n_bootstraps < 1:
        raise ValueError(f"block_trs is {block_trs} and n_bootstraps {n_bootstraps}; both must be at least 1.")
    _check_over(over)
    rng = np.random.default_rng(seed)
    slices = group_slices(groups)
    if over == "stories":
        if len(slices) < 2:
            raise ValueError("one story cannot be drawn from; score more stories, or draw over='time' within it.")
        story_of_row = np.repeat(np.arange(len(slices)), [rows.stop - rows.start for rows in slices])
        return story_of_row, _counts(rng, len(slices), n_bootstraps)
    block_of_row = time_blocks(groups, block_trs)
    n_blocks = [int(block_of_row[rows.stop - 1] - block_of_row[rows.start]) + 1 for rows in slices]
    return block_of_row, np.concatenate([_counts(rng, n, n_bootstraps) for n in n_blocks], axis=1)


def region_replicates(
    observed: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    groups: IntArray,
    regions: Mapping[str, BoolArray],
    blocks: Blocks,
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

    Raises
    ------
    NotFiniteError
        If a voxel of a region has NaN: it was dropped, or its prediction failed.
    """
    block_of_row, weights = blocks
    totals = {name: np.zeros((2, len(weights))) for name in regions}
    for start in range(0, observed.shape[1], N_VOXELS_AT_ONCE):
        part = slice(start, start + N_VOXELS_AT_ONCE)
        inside = {name: mask[part].astype(np.float64) for name, mask in regions.items()}
        keep = np.any(list(inside.values()), axis=0)
        if not keep.any():
            continue
        pair = observed[:, part][:, keep], predicted[:, part][:, keep]
        r, r2 = _voxel_replicates(*pair, groups, block_of_row, weights)
        for name, mask in inside.items():
            totals[name] += np.stack([r @ mask[keep], r2 @ mask[keep]])
    counts = {name: max(int(mask.sum()), 1) for name, mask in regions.items()}
    return {name: (total[0] / counts[name], total[1] / counts[name]) for name, total in totals.items()}


def voxel_correlations(
    observed: npt.NDArray[Any], predicted: npt.NDArray[Any], groups: IntArray, blocks: Blocks
) -> FloatArray:
    """Bootstrap replicates of each voxel's r, (n_bootstraps, n_voxels), for numbers that no region's mean r gives.

    Parameters, and errors, are those of `region_replicates`; take some hundred voxels at a time.
    """
    return _voxel_replicates(observed, predicted, groups, *blocks)[0]


def block_bootstrap(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    *,
    score: ScoreName = "r",
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Score:
    """Mean correlation or R2 over a region's voxels.

    The interval is the percentiles of the replicates, stretched by `small_sample_factor`, because blocks and stories
    are few (of one story of 291 rows, plain percentiles miss the truth in 8 to 9 % instead of 5), and by what blocks
    hide (`lost_between_blocks`).

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Voxels with NaN are left out.
    groups : int array of shape (n_trs,)
        Stories; each is demeaned, and no block crosses a border.
    voxels : bool array of shape (n_voxels,), optional

    Raises
    ------
    ValueError
        If shapes differ, no voxel is left, there is nothing to draw from, or rows remember too much for the blocks.
    """
    return _draw_score(observed, [predicted], groups, score, voxels, draws)


def block_bootstrap_difference(
    observed: Array,
    predicted_a: Array,
    predicted_b: Array,
    groups: npt.ArrayLike,
    *,
    score: ScoreName = "r",
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Score:
    """Mean correlation (or R2) over a region of predictions a minus that of predictions b, on the same rows.

    Both get the same blocks, so what makes a block easy or hard for both cancels.
    """
    return _draw_score(observed, [predicted_a, predicted_b], groups, score, voxels, draws)


def _check_over(over: str) -> None:
    if over not in get_args(Over):
        raise ValueError(f"over is {over!r}. {did_you_mean(over, get_args(Over))}")


def _counts(rng: np.random.Generator, n: int, n_bootstraps: int) -> FloatArray:
    return rng.multinomial(n, np.full(n, 1 / n), size=n_bootstraps).astype(np.float64)


def _voxel_replicates(
    observed: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    groups: IntArray,
    block_of_row: IntArray,
    weights: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Replicates of r and R2 per voxel, (n_bootstraps, n_voxels) each, from sums over blocks.

    Every replicate is demeaned anew within stories, as the scored rows were: another sample would have other means.
    Without it, replicates of short stories scatter up to 20 % too little.
    """
    for what, values in (("responses", observed), ("predictions", predicted)):
        refuse_not_finite(values, f"{what} of a region's voxels", LEAVE)
    o, p = (demean_within(values, groups) for values in (observed, predicted))
    starts = np.flatnonzero(np.diff(block_of_row, prepend=-1))
    sizes, sums = np.diff(np.append(starts, len(o))), [np.add.reduceat(values, starts, axis=0) for values in (o, p)]

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(weights @ np.add.reduceat(values, starts, axis=0))

    sst, spp, sop = total(o * o), total(p * p), total(o * p)
    for story in group_slices(np.asarray(groups)[starts]):
        if story.stop - story.start > 1:  # one block, drawn as often as it may be, keeps its mean of 0
            drawn = weights[:, story]
            n_rows = np.maximum(drawn @ sizes[story], 1)[:, None]
            of_o, of_p = (drawn @ values[story] for values in sums)
            sst -= of_o * of_o / n_rows
            spp -= of_p * of_p / n_rows
            sop -= of_o * of_p / n_rows
    spread = np.sqrt(np.maximum(sst, 0) * np.maximum(spp, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 0, sop / spread, 0.0)
        r2 = np.where(sst > 0, 1 - (sst - 2 * sop + spp) / sst, 0.0)
    return r, r2


def _draw_score(
    observed: Array,
    predictions: Sequence[Array],
    groups: npt.ArrayLike,
    score: ScoreName,
    voxels: BoolArray | None,
    draws: BlockDraws | None,
) -> Score:
    """The region's score of one model, or the difference of two."""
    how, labels = draws or BlockDraws(), np.asarray(groups)
    arrays = [np.asarray(array) for array in (observed, *predictions)]
    if any(array.shape != arrays[0].shape for array in arrays) or labels.shape != arrays[0].shape[:1]:
        raise ValueError(f"observed {arrays[0].shape}, predictions and groups {labels.shape} must have the same rows.")
    keep = np.all([np.isfinite(array).all(axis=0) for array in arrays], axis=0)
    keep = keep if voxels is None else keep & np.asarray(voxels, dtype=bool)
    if not keep.any():
        raise ValueError("the region has no voxel with finite responses and predictions.")
    block_of_row, weights = block_weights(labels, how.block_trs, how.n_bootstraps, how.seed, how.over)
    n_stories = len(group_slices(labels))
    if how.over == "time" and weights.shape[1] == n_stories:
        raise ValueError(f"no story is longer than a block of {how.block_trs} rows; lower block_trs.")
    # The first row of weights takes every block once: the score itself; its replicates follow.
    blocks = (block_of_row, np.concatenate([np.ones_like(weights[:1]), weights]))
    found = [region_replicates(arrays[0], array, labels, {"": keep}, blocks)[""] for array in arrays[1:]]
    scores = reduce(np.subtract, [r if score == "r" else r2 for r, r2 in found])
    over_time, n_units = how.over == "time", weights.shape[1]
    stretch = small_sample_factor(n_units, how.level, n_stories if over_time else 1)
    if over_time:
        pairs = [(arrays[0][:, keep], array[:, keep]) for array in arrays[1:]]
        lost = max(lost_between_blocks(*pair, labels, n_units) for pair in pairs)
        if lost > MOST_LOST:
            raise memory_error(lost, len(labels), n_units, how.block_trs)
        stretch /= np.sqrt(1.0 - lost)
    low, high = percentile_interval(float(scores[0]), scores[1:], how.level, stretch)
    drawn = {"blocks" if over_time else "stories": n_units}
    fixed = ("stories",) if over_time else ()
    return Score(float(scores[0]), bounds=(low, high), level=how.level, n_units=drawn, not_resampled=fixed)
