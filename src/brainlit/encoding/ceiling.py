"""How well any model could do: explainable variance and the highest reachable correlation, from repeats.

Three estimators, all of the same two numbers: the share of signal in one presentation (explainable variance) and the
correlation of the signal with the mean of all n presentations (ceiling).

'signal_power'
    SP = mean over t and i != j of y_i(t) y_j(t); explainable variance SP / P, ceiling sqrt(SP / M), with P the mean
    power of one presentation and M = SP + NP / n that of the mean (Sahani & Linden 2003; Hsu, Borst & Theunissen
    2004, with the same result). The presentations' scales count.
'explainable_variance'
    Presentations at variance 1; EV = M / P, corrected for the noise left in the mean, EV - (1 - EV) / (n - 1), which
    is the mean correlation of two presentations; ceiling sqrt(corrected / EV) (Dupré la Tour et al. 2025,
    https://gallantlab.org/voxelwise_tutorials). On z-scored presentations it equals 'signal_power'.
'split_half'
    Presentations at variance 1; r = mean correlation of the means of h = n // 2 presentations with those of h others,
    over all splits or n_splits drawn ones. By Spearman and Brown, k h presentations have the reliability
    k r / (1 + (k - 1) r): k = 1 / h gives the explainable variance of one presentation, k = n / h the reliability of
    the mean of all, whose square root is the ceiling.

Stories may have been presented different numbers of times, some of them once. A ceiling is one of rows: S, the sum
over all of them of the squared signal, over M, that of the squared responses as they are scored. Each story adds its
own numbers. The squared signal of a story that was heard once cannot be measured; it counts as what the others have per
row, and its responses, with the noise of one presentation, are in M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, Float32Array, FloatArray, IntArray, demean_within
from brainlit.encoding.bootstrap import BLOCK_TRS, time_blocks
from brainlit.encoding.statistics import Score, cut_blocks

CeilingMethod = Literal["signal_power", "split_half", "explainable_variance"]
CEILING_METHODS: tuple[CeilingMethod, ...] = get_args(CeilingMethod)

MIN_BLOCKS = 3
VOXELS_AT_ONCE = 2048
Split = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Ceiling:
    """Noise ceiling of every voxel; NaN where a voxel has no (finite, changing) data.

    Parameters
    ----------
    explainable_variance : array of shape (n_voxels,)
        Share of signal in one presentation; (nearly) unbiased, so it is negative in about half of the voxels without
        signal.
    ceiling_r : array of shape (n_voxels,)
        Highest expected correlation with the mean of the repeats. NaN where the estimated signal is not positive: no
        ceiling can be given there, which is not the same as a ceiling of 0.
    p : array of shape (n_voxels,)
        One-sided p-value of signal power above 0, from a t-test over blocks of time.
    n_negative : int
        Voxels whose estimated signal is 0 or less.
    n_repeats : int
        Of several stories, the fewest of those that were heard repeatedly.
    method : str
        Estimator, one of CEILING_METHODS.
    """

    explainable_variance: FloatArray
    ceiling_r: FloatArray
    p: FloatArray
    n_negative: int
    n_repeats: int
    method: CeilingMethod = "signal_power"

    def reliable(self, min_ceiling: float = 0.4, max_p: float = 0.005) -> BoolArray:
        """Voxels whose ceiling is above min_ceiling and whose signal power is above 0 at max_p, shape (n_voxels,).

        Both are needed. With ten repeats of 291 TRs some 3 % of pure-noise voxels have a ceiling above 0.4 (the
        ceiling of noise is the square root of a small random number), and a long recording finds voxels whose signal
        is sure but too weak to be of use. With both, at most a share max_p of pure-noise voxels passes.
        """
        with np.errstate(invalid="ignore"):
            return np.asarray((self.ceiling_r > min_ceiling) & (self.p < max_p))


def noise_ceiling(
    repeats: npt.ArrayLike | Sequence[npt.ArrayLike],
    groups: npt.ArrayLike | None = None,
    block_trs: int = 10,
    method: CeilingMethod = "signal_power",
    *,
    n_splits: int = 200,
    seed: int = 0,
) -> Ceiling:
    """Noise ceiling from several presentations of the same stimulus.

    Noise that differs between presentations cancels in the products of different ones, so no method has a bias of
    1 / n_repeats. Voxels are taken in blocks: besides `repeats` the memory is that of a few thousand voxels.

    Parameters
    ----------
    repeats : array of shape (n_repeats, n_trs, n_voxels), or a list of them, one per story
        One scale for all presentations (z-scored over time, say). Stories in a list may have different numbers of
        presentations and rows; the ceiling is that of all their rows together, each being the mean of its own.
    groups : int array of shape (n_trs,), optional
        Stories of an array; each presentation is demeaned within them. One story by default.
    block_trs : int
        Length of the blocks whose signal powers the t-test compares; longer than the noise remembers.
    method : 'signal_power', 'split_half' or 'explainable_variance'
        See the head of this module.
    n_splits, seed : int
        Splits of 'split_half': all of them if there are no more than n_splits, or else n_splits drawn with the seed.

    Raises
    ------
    ValueError
        If there are fewer than two presentations, or fewer than three blocks, shapes do not fit, or the method is
        unknown.
    """
    stories = _stories(repeats, groups)
    if method not in CEILING_METHODS:
        raise ValueError(f"method is {method!r}; known: {', '.join(CEILING_METHODS)}.")
    repeated = [len(values) > 1 for values, _ in stories]
    blocks = _time_blocks(
        [labels for (_, labels), several in zip(stories, repeated, strict=True) if several], block_trs
    )
    n_voxels = stories[0][0].shape[2]
    found = np.full((3, n_voxels), np.nan)
    for start in range(0, n_voxels, VOXELS_AT_ONCE):
        part = slice(start, start + VOXELS_AT_ONCE)
        centred = [_centred(values[:, :, part], labels, scale=method != "signal_power") for values, labels in stories]
        powers = [_powers(one) if method != "split_half" else _half_powers(one, n_splits, seed) for one in centred]
        signal, one, mean = np.sum([own for own, several in zip(powers, repeated, strict=True) if several], axis=0)
        n_trs, n_known = (sum(one.shape[1] for one in centred if len(one) > least) for least in (0, 1))
        of_mean = mean + sum(own[2] for own, several in zip(powers, repeated, strict=True) if not several)
        with np.errstate(invalid="ignore", divide="ignore"):
            ceiling = np.sqrt(np.maximum(signal, 0) * (n_trs / n_known) / of_mean)
            found[:, part] = signal / one, ceiling, _p_above_zero([one for one in centred if len(one) > 1], blocks)
    negative = found[0] <= 0
    found[1, negative] = np.nan
    fewest = min(len(values) for values, _ in stories if len(values) > 1)
    return Ceiling(found[0], found[1], found[2], int(negative.sum()), fewest, method)


def signal_rows(stories: Sequence[npt.ArrayLike]) -> Float32Array:
    """Share of signal in the scored responses, row by row; its mean over known rows is the squared ceiling of a voxel.

    Nothing is clipped: single rows, and voxels without signal, are negative about as often as positive, so that sums
    over rows and voxels have no bias. By 'signal_power', see the head of this module.

    Parameters
    ----------
    stories : sequence of arrays of shape (n_presentations, n_trs, n_voxels)
        In the order of the rows. At least one story with two presentations or more.

    Returns
    -------
    array of shape (n_rows, n_voxels)
        NaN in rows that were heard once, and in voxels without (finite, changing) data.
    """
    centred = [_centred(values, labels, scale=False) for values, labels in _stories(stories, None)]
    known = [
        (np.square(one.sum(axis=0)) - np.square(one).sum(axis=0)) / (len(one) * (len(one) - 1))
        if len(one) > 1
        else np.full(one.shape[1:], np.nan)
        for one in centred
    ]
    of_mean = np.mean(np.concatenate([np.square(one.mean(axis=0)) for one in centred]), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.concatenate(known) / of_mean, dtype=np.float32)


def ceiling_of_rows(signal: npt.NDArray[np.floating]) -> FloatArray:
    """Ceiling of each voxel from `signal_rows`, (n_voxels,); NaN where the estimated signal is not positive.

    >>> ceiling_of_rows(np.array([[0.5, -0.1], [np.nan, np.nan], [0.0, 0.05]]))
    array([0.5, nan])
    """
    known = np.isfinite(signal)
    with np.errstate(invalid="ignore", divide="ignore"):
        squared = np.where(known, signal, 0).sum(axis=0, dtype=np.float64) / known.sum(axis=0)
        return np.asarray(np.sqrt(np.where(squared > 0, squared, np.nan)))


def _stories(
    repeats: npt.ArrayLike | Sequence[npt.ArrayLike], groups: npt.ArrayLike | None
) -> list[tuple[npt.NDArray[Any], IntArray]]:
    """Presentations of each story, (n_presentations, n_trs, n_voxels), with labels of the rows to demean within."""
    if isinstance(repeats, Sequence) and all(np.ndim(one) == 3 for one in repeats):
        arrays = [np.asarray(one) for one in repeats]
        if groups is not None or len({values.shape[2] for values in arrays}) != 1:
            shapes = ", ".join(str(values.shape) for values in arrays)
            raise ValueError(f"stories have shapes {shapes}; need one n_voxels for all, and no groups beside a list.")
        labels = [np.zeros(values.shape[1], dtype=np.int64) for values in arrays]
    else:
        arrays = [np.asarray(repeats)]
        rows = arrays[0].shape[1] if arrays[0].ndim == 3 else 0
        labels = [np.zeros(rows, dtype=np.int64) if groups is None else np.asarray(groups)]
    if any(values.ndim != 3 for values in arrays) or max(len(values) for values in arrays) < 2:
        raise ValueError(
            f"repeats have shape {arrays[0].shape}; need (n_repeats, n_trs, n_voxels) with at least 2 repeats"
            " of some story."
        )
    return list(zip(arrays, labels, strict=True))


def half_splits(n_repeats: int, n_splits: int, seed: int) -> list[Split]:
    """Pairs of disjoint halves of n_repeats // 2 presentations: all, or n_splits drawn ones if there are more.

    >>> half_splits(3, 10, 0)
    [((0,), (1,)), ((0,), (2,)), ((1,), (2,))]
    """
    half = n_repeats // 2
    if comb(n_repeats, half) * comb(n_repeats - half, half) // 2 > n_splits:
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(n_repeats).tolist() for _ in range(n_splits)]
        return [(tuple(order[:half]), tuple(order[half : 2 * half])) for order in orders]
    pairs = []
    for first in combinations(range(n_repeats), half):
        rest = [k for k in range(first[0] + 1, n_repeats) if k not in first]
        pairs += [(first, second) for second in combinations(rest, half)]
    return pairs


def _centred(values: npt.NDArray[np.floating], labels: IntArray, scale: bool) -> FloatArray:
    """Presentations without their means per story, at variance 1 if asked; NaN where a voxel has no usable data."""
    given = np.asarray(values, dtype=np.float64)
    centred = np.stack([demean_within(one, labels) for one in given])
    power, level = np.square(centred).mean(axis=1), np.square(given).mean(axis=1)
    if not scale:
        power, level = power.mean(axis=0, keepdims=True), level.mean(axis=0, keepdims=True)
    with np.errstate(invalid="ignore"):
        known = (np.isfinite(power) & (power > 1e-12 * level)).all(axis=0)
    factor = 1.0 / np.sqrt(np.where(known, power, 1.0)) if scale else np.ones_like(power)
    return np.asarray(centred * np.where(known, factor, np.nan)[:, None])


def _powers(centred: FloatArray) -> FloatArray:
    """Squared signal, one presentation and their mean, summed over rows: (3, n_voxels); no signal if heard once."""
    n = len(centred)
    one = np.square(centred).sum(axis=1).mean(axis=0)
    mean = np.square(centred.mean(axis=0)).sum(axis=0)
    return np.stack([(n * mean - one) / (n - 1) if n > 1 else np.full_like(mean, np.nan), one, mean])


def _half_powers(centred: FloatArray, n_splits: int, seed: int) -> FloatArray:
    """As `_powers`, of presentations at variance 1, from the correlations of halves by all pairs of repeats."""
    n, n_trs, n_voxels = centred.shape
    if n == 1:
        return _powers(centred)
    splits = half_splits(n, n_splits, seed)
    half = len(splits[0][0])
    covariance = (np.einsum("itv,jtv->ijv", centred, centred) / n_trs).reshape(n, -1)
    total = np.zeros(n_voxels)
    for halves in splits:
        a, b = (np.isin(np.arange(n), members).astype(np.float64) for members in halves)
        from_a, from_b = ((one @ covariance).reshape(n, n_voxels) for one in (a, b))
        with np.errstate(invalid="ignore", divide="ignore"):
            total += b @ from_a / np.sqrt((a @ from_a) * (b @ from_b))
    r = total / len(splits)
    signal = r / half / (1 + (1 / half - 1) * r)  # Spearman and Brown, from half to one
    return np.asarray(np.stack([signal, np.ones_like(signal), signal + (1 - signal) / n]) * n_trs)


def _time_blocks(labels: Sequence[IntArray], block_trs: int) -> list[list[IntArray]]:
    """Rows of the blocks of each story, or array."""
    blocks = [[rows for rows in cut_blocks(own, block_trs) if 2 * len(rows) >= block_trs] for own in labels]
    n_blocks = sum(len(own) for own in blocks)
    if n_blocks < MIN_BLOCKS:
        raise ValueError(
            f"{sum(len(own) for own in labels)} TRs give {n_blocks} blocks of {block_trs}; need at least {MIN_BLOCKS}:"
            " lower block_trs or give more data."
        )
    return blocks


def _p_above_zero(stories: Sequence[FloatArray], blocks: Sequence[Sequence[IntArray]]) -> FloatArray:
    """One-sided t-test of the products of different presentations over blocks of time, shape (n_voxels,)."""
    from scipy.stats import t as student

    means = []
    for centred, own in zip(stories, blocks, strict=True):
        products = np.square(centred.sum(axis=0)) - np.square(centred).sum(axis=0)
        means += [products[rows].mean(axis=0) / (len(centred) * (len(centred) - 1)) for rows in own]
    of_blocks = np.stack(means)
    error = of_blocks.std(axis=0, ddof=1) / np.sqrt(len(of_blocks))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(student.sf(of_blocks.mean(axis=0) / error, df=len(of_blocks) - 1))


# --- A region's correlation as a share of what any model could reach ---
#
# Where ceilings are measured on the scored rows, all rows and voxels of the region go into three sums: responses times
# predictions, squared predictions, squared signal. None is clipped and no voxel is left out, so a perfect model
# reaches 1 however weak the signal of single voxels is, as soon as that of the region is sure. Voxels one by one cannot
# give that: the root of a noisy square is too small, voxels whose square comes out negative have none, and those that
# are left were chosen by their noise.
#
# Where ceilings are known from other data there are the mean of ratios, which gives every voxel the same say, and
# voxels with a low ceiling most of the scatter, and the ratio of means (Schoppe et al. 2016, Front. Comput.
# Neurosci. 10:10). Nothing is clipped: sampling can put all of them above 1.

MIN_SIGNAL = 2.0
"""Standard errors by which a region's signal must be above 0; a weaker one is no ceiling to divide by."""
LEAST_DRAWN = 0.01
"""A bootstrap's signal is taken for at least this share of the measured one: far out, and finite."""


def region_ratio(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    ceiling: Array,
    voxels: BoolArray,
    blocks: tuple[IntArray, FloatArray],
) -> dict[str, Score]:
    """r, ceiling and r / ceiling of all rows and voxels of a region together.

    With responses y, predictions p and signal s, each demeaned per story, r = sum y p / sqrt(sum p^2 sum y^2) and
    ceiling = sqrt(sum s^2 / sum y^2). Voxels count by the variance of their predictions and of their signal, so those
    without signal take nothing away. What the noise of sum s^2 adds on average is taken off by a jackknife over blocks,
    and the interval of the ratio holds that noise too.

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Of the scored rows, in one unit for each voxel.
    groups : int array of shape (n_trs,)
        Stories.
    ceiling : array of shape (n_trs, n_voxels) or (n_voxels,)
        From `signal_rows`; or ceilings that are known, which are taken as free of error (NaN: the voxel is left out).
    voxels : bool array of shape (n_voxels,)
    blocks : (block_of_row, weights), from `block_weights`

    Returns
    -------
    dict of 'r_together', 'ceiling' and 'r_over_ceiling' to Score
        Empty where no voxel has a ceiling. Without the last two where the region's signal is less than MIN_SIGNAL
        standard errors above 0, or there are too few blocks to know these from.
    """
    block_of_row, weights = blocks
    of_rows = np.asarray(ceiling)
    known = np.isfinite(of_rows).any(axis=0) if of_rows.ndim == 2 else np.isfinite(of_rows)
    columns = np.flatnonzero(np.asarray(voxels, dtype=bool) & known)
    if not columns.size:
        return {}
    rows = np.zeros((6, len(block_of_row)))
    for start in range(0, columns.size, VOXELS_AT_ONCE):
        part = columns[start : start + VOXELS_AT_ONCE]
        y, p = (demean_within(values[:, part], groups) for values in (observed, predicted))
        power = np.square(y).mean(axis=0)
        signal = of_rows[:, part] * power if of_rows.ndim == 2 else np.square(y) * np.square(of_rows[part])
        rows[:4] += [products.sum(axis=1) for products in (y * p, p * p, y * y, signal)]
    heard_again = np.isfinite(rows[3])
    rows[3], rows[4], rows[5] = np.where(heard_again, rows[3], 0.0), 1.0, heard_again
    sums = _by_block(rows, block_of_row)
    total = sums.sum(axis=0)
    estimate, drawn, bias = _together(total, total), _together(weights @ sums, total), np.zeros(3)
    scores = {"r_together": Score(float(estimate[0]), drawn[0])}
    if of_rows.ndim == 2:
        without = total - _by_block(rows, time_blocks(groups, BLOCK_TRS, rows.shape[1]))
        n_blocks = len(without)
        if n_blocks < MIN_BLOCKS or not (without[:, 5] > 0).all():
            return scores
        per_row = without[:, 3] / without[:, 5]
        error = np.sqrt((n_blocks - 1) / n_blocks * np.square(per_row - per_row.mean()).sum())
        if not total[3] / total[5] > MIN_SIGNAL * error:
            return scores
        bias = _jackknife_bias(estimate, _together(without, total))
    for k, name in ((1, "ceiling"), (2, "r_over_ceiling")):
        # replicates are off by the bias of the estimate and by as much again
        scores[name] = Score(float(estimate[k] - bias[k]), drawn[k] - 2 * bias[k])
    return scores


def _by_block(rows: FloatArray, block_of_row: IntArray) -> FloatArray:
    """Sums over blocks: (n, n_rows) -> (n_blocks, n)."""
    return np.asarray(np.add.reduceat(rows, np.flatnonzero(np.diff(block_of_row, prepend=-1)), axis=1).T)


def _jackknife_bias(estimate: FloatArray, without: FloatArray) -> FloatArray:
    """Bias of each estimate, (n,), from those without one block, (n, n_blocks); of logarithms if of one sign."""
    n = without.shape[1]
    plain = (n - 1) * (without.mean(axis=1) - estimate)
    ratio = without / np.where(estimate == 0, 1.0, estimate)[:, None]
    one_sign = np.asarray((ratio > 0).all(axis=1))
    logarithms = np.log(np.where(one_sign[:, None], ratio, 1.0)).mean(axis=1)
    return np.asarray(np.where(one_sign, estimate * (1 - np.exp(-(n - 1) * logarithms)), plain))


def _together(sums: FloatArray, whole: FloatArray) -> FloatArray:
    """r, ceiling and ratio from sums of yp, pp, yy, ss, rows and rows with ss: (..., 6) -> (3, ...)."""
    yp, pp, yy, ss, n_rows, n_known = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_row = np.maximum(np.nan_to_num(ss / n_known), LEAST_DRAWN * whole[3] / whole[5])
        signal = per_row * n_rows
        return np.stack([yp / np.sqrt(pp * yy), np.sqrt(signal / yy), yp / np.sqrt(pp * signal)])


@dataclass(frozen=True)
class Normalised:
    """Alignment of a region against its ceiling; NaN where no voxel has one.

    Parameters
    ----------
    raw, ceiling : float
        Means over the voxels that count.
    mean_of_ratios, ratio_of_means : float
    n_used, n_dropped : int
        Voxels that count, and voxels of the region whose r or ceiling is unknown or whose ceiling is below min_ceiling.
    min_ceiling : float
    """

    raw: float
    ceiling: float
    mean_of_ratios: float
    ratio_of_means: float
    n_used: int
    n_dropped: int
    min_ceiling: float


def mean_of_ratios(r: FloatArray, ceiling: FloatArray) -> float:
    """Mean over voxels of r / ceiling; NaN without voxels.

    >>> mean_of_ratios(np.array([0.25, 0.5]), np.array([0.25, 1.0]))
    0.75
    """
    return float(np.mean(r / ceiling)) if len(r) else float("nan")


def ratio_of_means(r: FloatArray, ceiling: FloatArray) -> float:
    """Mean r over mean ceiling; NaN without voxels.

    >>> ratio_of_means(np.array([0.25, 0.5]), np.array([0.25, 1.0]))
    0.6
    """
    return float(np.mean(r) / np.mean(ceiling)) if len(r) else float("nan")


def normalise(
    r: npt.ArrayLike, ceiling: npt.ArrayLike, voxels: BoolArray | None = None, min_ceiling: float = 0.1
) -> Normalised:
    """Raw, ceiling and both normalised correlations of a region, for ceilings that are known from other data.

    With ceilings from the repeats of the scored rows themselves both numbers are off where signals are weak: use
    `region_ratio`.

    Parameters
    ----------
    r, ceiling : arrays of shape (n_voxels,)
        Ceilings are NaN where none can be given (`Ceiling.ceiling_r`).
    voxels : bool array of shape (n_voxels,), optional
        The region; all voxels by default. For voxels chosen by reliability, `Ceiling.reliable` of data that are not
        scored, or else the choice favours voxels whose scored noise happens to repeat.
    min_ceiling : positive float
        Voxels with a lower ceiling are dropped and counted.

    Raises
    ------
    ValueError
        If shapes differ or min_ceiling is not positive.
    """
    scores, ceilings = np.asarray(r, dtype=np.float64), np.asarray(ceiling, dtype=np.float64)
    region = np.ones(scores.shape, dtype=bool) if voxels is None else np.asarray(voxels, dtype=bool)
    if scores.ndim != 1 or scores.shape != ceilings.shape or scores.shape != region.shape:
        raise ValueError(f"r {scores.shape}, ceiling {ceilings.shape}, voxels {region.shape}; need one per voxel.")
    if not min_ceiling > 0:
        raise ValueError(f"min_ceiling is {min_ceiling}; a ceiling of 0 divides by 0: give a positive one.")
    with np.errstate(invalid="ignore"):
        used = region & np.isfinite(scores) & (ceilings >= min_ceiling)
    own, highest = scores[used], ceilings[used]
    raw, mean_ceiling = (float(x.mean()) if len(x) else float("nan") for x in (own, highest))
    n_used = int(used.sum())
    ratios = mean_of_ratios(own, highest), ratio_of_means(own, highest)
    return Normalised(raw, mean_ceiling, *ratios, n_used, int(region.sum()) - n_used, float(min_ceiling))
