"""Block bootstrap: how sure a region's mean correlation, R2 or low-level share is.

Consecutive rows are not independent, so whole blocks of them are drawn with replacement, as if other minutes of the
same stories had been heard (`over='time'`: non-overlapping blocks within each story, Carlstein 1986, Ann. Statist.
14:1171; Künsch 1989, Ann. Statist. 17:1217), or whole stories, as if other stories had been told (`over='stories'`).
Predictions stay as they are. The draws depend only on the seed and on the stories' lengths, so two probes of the same
stories (before and after, real and permuted) share them, and the difference of two replicates is a paired replicate of
the difference. A correlation needs only three sums, so each block is summed once and every replicate is a product of
draw counts with block sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import Array, BoolArray, FloatArray, IntArray, demean_within, group_slices
from brainlit.encoding.intervals import Interval, percentile_interval, small_sample_factor
from brainlit.hints import did_you_mean

Over = Literal["time", "stories"]
ScoreName = Literal["r", "r2"]
Blocks = tuple[IntArray, FloatArray]
SHARE_MODELS = ("backbone", "low_level", "backbone+low_level")
N_VOXELS_AT_ONCE = 2048


@dataclass(frozen=True)
class BlockDraws:
    """How blocks are drawn.

    Parameters
    ----------
    block_trs : int
        Rows per block; longer than the responses remember (10 TRs of 2 s are 20 s). Not used over stories.
    n_bootstraps : int
    level : float
        Coverage of the interval.
    seed : int
    over : 'time' or 'stories'
        Blocks of time within each story, or whole stories.
    """

    block_trs: int = 10
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


def time_blocks(groups: npt.ArrayLike, block_trs: int) -> IntArray:
    """Number of the block of each row, (n_trs,); a story's rest shorter than half a block joins the block before it.

    >>> time_blocks([0, 0, 0, 0, 0, 1, 1, 1], 2).tolist()
    [0, 0, 1, 1, 2, 3, 3, 4]
    """
    if block_trs < 1:
        raise ValueError(f"block_trs is {block_trs}; a block has at least 1 row.")
    labels = np.asarray(groups)
    block_of_row = np.empty(len(labels), dtype=np.int64)
    first = 0
    for rows in group_slices(labels):
        n_rows = rows.stop - rows.start
        n_blocks = max(1, int(np.floor(n_rows / block_trs + 0.5)))
        block_of_row[rows] = first + np.minimum(np.arange(n_rows) // block_trs, n_blocks - 1)
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


def block_bootstrap(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    *,
    score: ScoreName = "r",
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Interval:
    """Mean correlation or R2 over a region's voxels.

    Over time, the interval is the percentiles of the replicates, as in the reports. Over stories it is stretched by
    `small_sample_factor`, because stories are few.

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
        If shapes differ, no voxel is left, or there is nothing to draw from.
    """
    (scores,), n_units, how = _draw_scores(observed, [predicted], groups, score, voxels, draws)
    return _interval(scores, n_units, how)


def block_bootstrap_difference(
    observed: Array,
    predicted_a: Array,
    predicted_b: Array,
    groups: npt.ArrayLike,
    *,
    score: ScoreName = "r",
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Interval:
    """Mean correlation (or R2) over a region of predictions a minus that of predictions b, on the same rows.

    Both get the same blocks, so what makes a block easy or hard for both cancels.
    """
    (a, b), n_units, how = _draw_scores(observed, [predicted_a, predicted_b], groups, score, voxels, draws)
    return _interval(a - b, n_units, how)


def block_bootstrap_share(
    observed: Array,
    predictions: Mapping[str, Array],
    groups: npt.ArrayLike,
    *,
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Interval:
    """Low-level share of a region: (R2_B + R2_L - R2_BL) / R2_B, each R2 the mean over its voxels.

    Parameters
    ----------
    predictions : mapping of 'backbone', 'low_level' and 'backbone+low_level' to array of shape (n_trs, n_voxels)
        As a ProbeResult keeps them.
    """
    scores, n_units, how = _draw_scores(observed, _share_models(predictions), groups, "r2", voxels, draws)
    return _interval(_share(*scores), n_units, how)


def block_bootstrap_share_difference(
    observed: Array,
    predictions_a: Mapping[str, Array],
    predictions_b: Mapping[str, Array],
    groups: npt.ArrayLike,
    *,
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Interval:
    """Low-level share with predictions a minus that with predictions b, on the same rows with the same blocks."""
    models = [*_share_models(predictions_a), *_share_models(predictions_b)]
    scores, n_units, how = _draw_scores(observed, models, groups, "r2", voxels, draws)
    return _interval(_share(*scores[:3]) - _share(*scores[3:]), n_units, how)


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

    Each story's mean is removed once, before the draws, as the probe does for its point values.
    """
    o, p = (demean_within(values, groups) for values in (observed, predicted))
    starts = np.flatnonzero(np.diff(block_of_row, prepend=-1))

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(weights @ np.add.reduceat(values, starts, axis=0))

    sst, spp, sop = total(o * o), total(p * p), total(o * p)
    spread = np.sqrt(sst * spp)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 0, sop / spread, 0.0)
        r2 = np.where(sst > 0, 1 - (sst - 2 * sop + spp) / sst, 0.0)
    return r, r2


def _draw_scores(
    observed: Array,
    predictions: Sequence[Array],
    groups: npt.ArrayLike,
    score: ScoreName,
    voxels: BoolArray | None,
    draws: BlockDraws | None,
) -> tuple[list[FloatArray], dict[str, int], BlockDraws]:
    """Per model the region's score and, after it, its replicates, (1 + n_bootstraps,); and what was drawn."""
    how, labels = draws or BlockDraws(), np.asarray(groups)
    arrays = [np.asarray(array) for array in (observed, *predictions)]
    if any(array.shape != arrays[0].shape for array in arrays) or labels.shape != arrays[0].shape[:1]:
        raise ValueError(f"observed {arrays[0].shape}, predictions and groups {labels.shape} must have the same rows.")
    keep = np.all([np.isfinite(array).all(axis=0) for array in arrays], axis=0)
    keep = keep if voxels is None else keep & np.asarray(voxels, dtype=bool)
    if not keep.any():
        raise ValueError("the region has no voxel with finite responses and predictions.")
    block_of_row, weights = block_weights(labels, how.block_trs, how.n_bootstraps, how.seed, how.over)
    n_units = {"stories" if how.over == "stories" else "blocks": weights.shape[1]}
    if how.over == "time" and weights.shape[1] == len(group_slices(labels)):
        raise ValueError(f"no story is longer than a block of {how.block_trs} rows; lower block_trs.")
    blocks = (block_of_row, np.concatenate([np.ones_like(weights[:1]), weights]))
    found = [region_replicates(arrays[0], array, labels, {"": keep}, blocks)[""] for array in arrays[1:]]
    return [r if score == "r" else r2 for r, r2 in found], n_units, how


def _share_models(predictions: Mapping[str, Array]) -> list[Array]:
    missing = [model for model in SHARE_MODELS if model not in predictions]
    if missing:
        raise ValueError(f"no predictions of {', '.join(missing)}; the share needs those of {', '.join(SHARE_MODELS)}.")
    return [predictions[model] for model in SHARE_MODELS]


def _share(backbone: FloatArray, low_level: FloatArray, both: FloatArray) -> FloatArray:
    return np.asarray((backbone + low_level - both) / backbone)


def _interval(scores: FloatArray, n_units: dict[str, int], how: BlockDraws) -> Interval:
    stretch = small_sample_factor(n_units["stories"], how.level) if how.over == "stories" else 1.0
    low, high = percentile_interval(float(scores[0]), scores[1:], how.level, stretch)
    return Interval(float(scores[0]), low, high, how.level, n_units)
