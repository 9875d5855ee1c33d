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
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray, demean_within
from brainlit.encoding.statistics import cut_blocks

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
    repeats: npt.ArrayLike,
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
    repeats : array of shape (n_repeats, n_trs, n_voxels)
        One scale for all presentations (z-scored over time, say).
    groups : int array of shape (n_trs,), optional
        Stories; each presentation is demeaned within them. One story by default.
    block_trs : int
        Length of the blocks whose signal powers the t-test compares; longer than the noise remembers.
    method : 'signal_power', 'split_half' or 'explainable_variance'
        See the head of this module.
    n_splits, seed : int
        Splits of 'split_half': all of them if there are no more than n_splits, or else n_splits drawn with the seed.

    Raises
    ------
    ValueError
        If there are fewer than two presentations, or fewer than three blocks, or the method is unknown.
    """
    values = np.asarray(repeats)
    if values.ndim != 3 or len(values) < 2:
        raise ValueError(
            f"repeats have shape {values.shape}; need (n_repeats, n_trs, n_voxels) with at least 2 repeats."
        )
    if method not in CEILING_METHODS:
        raise ValueError(f"method is {method!r}; known: {', '.join(CEILING_METHODS)}.")
    n_repeats, n_trs, n_voxels = values.shape
    labels = np.zeros(n_trs, dtype=np.int64) if groups is None else np.asarray(groups)
    blocks = _time_blocks(labels, block_trs)
    splits = half_splits(n_repeats, n_splits, seed) if method == "split_half" else []
    found = np.full((3, n_voxels), np.nan)
    for start in range(0, n_voxels, VOXELS_AT_ONCE):
        part = slice(start, start + VOXELS_AT_ONCE)
        centred = _centred(values[:, :, part], labels, scale=method != "signal_power")
        signal, ceiling = _split_half(centred, splits) if splits else _powers(centred)
        found[:, part] = signal, ceiling, _p_above_zero(centred, blocks)
    negative = found[0] <= 0
    found[1, negative] = np.nan
    return Ceiling(found[0], found[1], found[2], int(negative.sum()), n_repeats, method)


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


def _powers(centred: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of signal and ceiling from the powers of one presentation and of the mean."""
    n = len(centred)
    power = np.square(centred).mean(axis=(0, 1))
    power_of_mean = np.square(centred.mean(axis=0)).mean(axis=0)
    signal = (n * power_of_mean - power) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(signal / power), np.sqrt(np.maximum(signal, 0) / power_of_mean)


def _split_half(centred: FloatArray, splits: list[Split]) -> tuple[FloatArray, FloatArray]:
    """Share of signal and ceiling from the correlations of halves, by the covariances of all pairs of repeats."""
    n, n_trs, n_voxels = centred.shape
    half = len(splits[0][0])
    covariance = (np.einsum("itv,jtv->ijv", centred, centred) / n_trs).reshape(n, -1)
    total = np.zeros(n_voxels)
    for halves in splits:
        a, b = (np.isin(np.arange(n), members).astype(np.float64) for members in halves)
        from_a, from_b = ((one @ covariance).reshape(n, n_voxels) for one in (a, b))
        with np.errstate(invalid="ignore", divide="ignore"):
            total += b @ from_a / np.sqrt((a @ from_a) * (b @ from_b))
    r = total / len(splits)
    return _spearman_brown(r, 1 / half), np.sqrt(np.maximum(_spearman_brown(np.maximum(r, 0), n / half), 0))


def _spearman_brown(r: FloatArray, k: float) -> FloatArray:
    """Reliability of a measurement k times as long as one of reliability r."""
    return np.asarray(k * r / (1 + (k - 1) * r))


def _time_blocks(labels: IntArray, block_trs: int) -> list[IntArray]:
    blocks = [rows for rows in cut_blocks(labels, block_trs) if 2 * len(rows) >= block_trs]
    if len(blocks) < MIN_BLOCKS:
        raise ValueError(
            f"{len(labels)} TRs give {len(blocks)} blocks of {block_trs}; need at least {MIN_BLOCKS}:"
            " lower block_trs or give more data."
        )
    return blocks


def _p_above_zero(centred: FloatArray, blocks: list[IntArray]) -> FloatArray:
    """One-sided t-test of the products of different presentations over blocks of time, shape (n_voxels,)."""
    from scipy.stats import t as student

    products = np.square(centred.sum(axis=0)) - np.square(centred).sum(axis=0)
    means = np.stack([products[rows].mean(axis=0) for rows in blocks])
    error = means.std(axis=0, ddof=1) / np.sqrt(len(blocks))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(student.sf(means.mean(axis=0) / error, df=len(blocks) - 1))


# --- Correlations as a share of what any model could reach, raw and ceiling always beside them ---
#
# Two numbers go by that name. The mean of ratios gives every voxel the same say, and voxels with a low ceiling, whose
# ratio is a small number over a small number, most of the scatter. The ratio of means is what a region reaches of what
# it could (as in Schoppe et al. 2016, Front. Comput. Neurosci. 10:10, the ceiling is the highest expected correlation
# with the mean of the repeats). Neither is clipped: sampling can put both above 1.


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
    """Raw, ceiling and both normalised correlations of a region.

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
