"""Block bootstrap over time: how sure a region's mean correlation, or its low-level share, is.

Blocks of consecutive rows are drawn with replacement, so that the autocorrelation of responses inside a block is kept.
A correlation needs only five sums, so each block is summed once and every replicate is a product of draw counts with
block sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import Array, BoolArray, FloatArray, IntArray, demean_within, group_slices
from brainlit.encoding.statistics import correlation, cut_blocks, r2_within

BlockKind = Literal["moving", "fixed"]
Score = Literal["r", "r2"]
SHARE_MODELS = ("backbone", "low_level", "backbone+low_level")
VOXELS_AT_ONCE = 500


@dataclass(frozen=True)
class BlockDraws:
    """How blocks are drawn.

    Parameters
    ----------
    block_trs : int
        Rows per block; longer than the responses remember (10 TRs of 2 s are 20 s).
    kind : 'moving' or 'fixed'
        Blocks may start at every row of a group, or the groups are cut into consecutive blocks once.
    n_boot : int
    level : float
        Coverage of the percentile interval.
    seed : int
    """

    block_trs: int = 10
    kind: BlockKind = "moving"
    n_boot: int = 2000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("moving", "fixed"):
            raise ValueError(f"kind is {self.kind!r}; blocks are 'moving' or 'fixed'.")
        if self.block_trs < 1 or self.n_boot < 1 or not 0.0 < self.level < 1.0:
            raise ValueError(
                f"block_trs {self.block_trs}, n_boot {self.n_boot}, level {self.level}; need at least 1, at least 1,"
                " and a share between 0 and 1."
            )


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap percentile interval and the number of blocks drawn per replicate."""

    estimate: float
    low: float
    high: float
    n_blocks: int


def block_bootstrap_r(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    *,
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Interval:
    """Mean correlation over a region's voxels.

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Voxels with NaN are left out.
    groups : int array of shape (n_trs,)
        Stories; each is demeaned, and no block crosses a border.
    voxels : bool array of shape (n_voxels,), optional
    """
    how = draws or BlockDraws()
    y, (p,), labels = _region(observed, [predicted], groups, voxels)
    counts, blocks, n_blocks = _draw(labels, how, how.seed)
    return _interval(_mean_r(y, p), _replicates(y, p, blocks, counts, "r"), n_blocks, how)


def block_bootstrap_r_difference(
    observed: Array,
    predicted_a: Array,
    predicted_b: Array,
    groups: npt.ArrayLike,
    *,
    paired: bool = True,
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Interval:
    """Mean correlation over a region of predictions a minus that of predictions b, on the same rows.

    Paired draws give both the same blocks, so what makes a block easy or hard for both cancels. Unpaired draws treat
    them as independent, which is wider; for predictions of two halves of an experiment that share no noise.
    """
    how = draws or BlockDraws()
    y, (a, b), labels = _region(observed, [predicted_a, predicted_b], groups, voxels)
    counts, blocks, n_blocks = _draw(labels, how, how.seed)
    other = counts if paired else _draw(labels, how, how.seed + 1)[0]
    difference = _replicates(y, a, blocks, counts, "r") - _replicates(y, b, blocks, other, "r")
    return _interval(_mean_r(y, a) - _mean_r(y, b), difference, n_blocks, how)


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
    how = draws or BlockDraws()
    estimate, replicates, n_blocks = _share(observed, predictions, groups, voxels, how)
    return _interval(estimate, replicates, n_blocks, how)


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
    how = draws or BlockDraws()
    estimate_a, replicates_a, n_blocks = _share(observed, predictions_a, groups, voxels, how)
    estimate_b, replicates_b, _ = _share(observed, predictions_b, groups, voxels, how)
    return _interval(estimate_a - estimate_b, replicates_a - replicates_b, n_blocks, how)


def _share(
    observed: Array, predictions: Mapping[str, Array], groups: npt.ArrayLike, voxels: BoolArray | None, how: BlockDraws
) -> tuple[float, FloatArray, int]:
    missing = [model for model in SHARE_MODELS if model not in predictions]
    if missing:
        raise ValueError(f"no predictions of {', '.join(missing)}; the share needs those of {', '.join(SHARE_MODELS)}.")
    y, parts, labels = _region(observed, [predictions[model] for model in SHARE_MODELS], groups, voxels)
    counts, blocks, n_blocks = _draw(labels, how, how.seed)
    exact = [float(r2_within(y, p, labels).mean()) for p in parts]
    backbone, low_level, both = (_replicates(y, p, blocks, counts, "r2") for p in parts)
    return (exact[0] + exact[1] - exact[2]) / exact[0], (backbone + low_level - both) / backbone, n_blocks


def _region(
    observed: Array, predictions: list[Array], groups: npt.ArrayLike, voxels: BoolArray | None
) -> tuple[FloatArray, list[FloatArray], npt.NDArray[np.int64]]:
    """Demeaned responses and predictions of the region's voxels that are finite in all of them."""
    arrays = [np.asarray(array, dtype=np.float64) for array in (observed, *predictions)]
    labels = np.asarray(groups)
    if any(array.shape != arrays[0].shape for array in arrays) or labels.shape != arrays[0].shape[:1]:
        raise ValueError(f"observed {arrays[0].shape}, predictions and groups {labels.shape} must have the same rows.")
    keep = np.all([np.isfinite(array).all(axis=0) for array in arrays], axis=0)
    keep = keep if voxels is None else keep & np.asarray(voxels, dtype=bool)
    if not keep.any():
        raise ValueError("the region has no voxel with finite responses and predictions.")
    centred = [demean_within(array[:, keep], labels) for array in arrays]
    return centred[0], centred[1:], labels


def _draw(labels: npt.NDArray[np.int64], how: BlockDraws, seed: int) -> tuple[FloatArray, IntArray, int]:
    """Draw counts (n_boot, n_candidates), first and one-past-last row of each candidate, and blocks per replicate."""
    if how.kind == "fixed":
        blocks = np.array([(rows[0], rows[-1] + 1) for rows in cut_blocks(labels, how.block_trs)])
        n_blocks = len(blocks)
    else:
        blocks = np.array([pair for rows in group_slices(labels) for pair in _windows(rows, how.block_trs)])
        n_blocks = max(1, round(labels.size / float(np.mean(blocks[:, 1] - blocks[:, 0]))))
    if n_blocks < 2:
        raise ValueError(f"{labels.size} rows hold {n_blocks} block of {how.block_trs}; lower block_trs.")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_blocks, np.full(len(blocks), 1.0 / len(blocks)), size=how.n_boot)
    return counts.astype(np.float64), blocks, n_blocks


def _windows(rows: slice, block_trs: int) -> list[tuple[int, int]]:
    length = min(block_trs, rows.stop - rows.start)
    return [(start, start + length) for start in range(rows.start, rows.stop - length + 1)]


def _replicates(y: FloatArray, p: FloatArray, blocks: IntArray, counts: FloatArray, score: Score) -> FloatArray:
    """Mean score over voxels of every replicate, (n_boot,)."""
    n = counts @ (blocks[:, 1] - blocks[:, 0])
    total: FloatArray = np.zeros(len(counts))
    for start in range(0, y.shape[1], VOXELS_AT_ONCE):
        a, b = y[:, start : start + VOXELS_AT_ONCE], p[:, start : start + VOXELS_AT_ONCE]
        sums = [counts @ _block_sums(values, blocks) for values in (a, b, a * a, b * b, a * b)]
        total += (_r_of_sums if score == "r" else _r2_of_sums)(n[:, None], *sums).sum(axis=1)
    return np.asarray(total / y.shape[1])


def _block_sums(values: FloatArray, blocks: IntArray) -> FloatArray:
    running = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    return np.asarray(running[blocks[:, 1]] - running[blocks[:, 0]])


def _r_of_sums(
    n: FloatArray, y: FloatArray, p: FloatArray, yy: FloatArray, pp: FloatArray, yp: FloatArray
) -> FloatArray:
    scale = (yy - y * y / n) * (pp - p * p / n)
    positive = scale > 0
    return np.where(positive, (yp - y * p / n) / np.sqrt(np.where(positive, scale, 1.0)), 0.0)


def _r2_of_sums(
    n: FloatArray, y: FloatArray, p: FloatArray, yy: FloatArray, pp: FloatArray, yp: FloatArray
) -> FloatArray:
    sst = yy - y * y / n
    return np.where(sst > 0, 1.0 - (yy - 2.0 * yp + pp) / np.where(sst > 0, sst, 1.0), 0.0)


def _mean_r(y: FloatArray, p: FloatArray) -> float:
    return float(np.nan_to_num(correlation(y, p)).mean())


def _interval(estimate: float, replicates: FloatArray, n_blocks: int, how: BlockDraws) -> Interval:
    tail = (1.0 - how.level) / 2.0
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return Interval(float(estimate), float(low), float(high), n_blocks)
