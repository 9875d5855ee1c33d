"""How well any model could do: explainable variance and the highest reachable correlation, from repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import BoolArray, FloatArray, demean_within
from brainlit.encoding.statistics import cut_blocks

MIN_BLOCKS = 3


@dataclass(frozen=True, eq=False)
class Ceiling:
    """Noise ceiling of every voxel; NaN where a voxel has no (finite, changing) data.

    Parameters
    ----------
    explainable_variance : array of shape (n_voxels,)
        Signal power over the power of one presentation; unbiased, so it is negative in about half of the voxels
        without signal.
    ceiling_r : array of shape (n_voxels,)
        Highest expected correlation with the mean of the repeats: sqrt(signal power / power of the mean). NaN where
        the signal power is not positive: no ceiling can be given there, which is not the same as a ceiling of 0.
    p : array of shape (n_voxels,)
        One-sided p-value of signal power above 0, from a t-test over blocks of time.
    n_negative : int
        Voxels whose signal power is 0 or less.
    n_repeats : int
    """

    explainable_variance: FloatArray
    ceiling_r: FloatArray
    p: FloatArray
    n_negative: int
    n_repeats: int

    def reliable(self, min_ceiling: float = 0.4, max_p: float = 0.005) -> BoolArray:
        """Voxels whose ceiling is above min_ceiling and whose signal power is above 0 at max_p, shape (n_voxels,).

        Both are needed. With ten repeats of 291 TRs some 3 % of pure-noise voxels have a ceiling above 0.4 (the
        ceiling of noise is the square root of a small random number), and a long recording finds voxels whose signal
        is sure but too weak to be of use. With both, at most a share max_p of pure-noise voxels passes.
        """
        with np.errstate(invalid="ignore"):
            return np.asarray((self.ceiling_r > min_ceiling) & (self.p < max_p))


def noise_ceiling(repeats: npt.ArrayLike, groups: npt.ArrayLike | None = None, block_trs: int = 10) -> Ceiling:
    """Noise ceiling from several presentations of the same stimulus.

    The signal power is the mean product of two different presentations, SP = mean over t and i != j of y_i(t) y_j(t)
    (Sahani & Linden 2003; Hsu et al. 2004, with the same result): noise that differs between presentations cancels,
    so there is no bias of 1 / n_repeats to take off. The mean of n presentations has the power SP + NP / n.

    Parameters
    ----------
    repeats : array of shape (n_repeats, n_trs, n_voxels)
        One scale for all presentations (z-scored over time, say).
    groups : int array of shape (n_trs,), optional
        Stories; each presentation is demeaned within them. One story by default.
    block_trs : int
        Length of the blocks whose signal powers the t-test compares; longer than the noise remembers.

    Raises
    ------
    ValueError
        If there are fewer than two presentations, or fewer than three blocks.
    """
    values = np.asarray(repeats, dtype=np.float64)
    if values.ndim != 3 or len(values) < 2:
        raise ValueError(
            f"repeats have shape {values.shape}; need (n_repeats, n_trs, n_voxels) with at least 2 repeats."
        )
    n_repeats, n_trs, _ = values.shape
    labels = np.zeros(n_trs, dtype=np.int64) if groups is None else np.asarray(groups)
    centred = np.stack([demean_within(one, labels) for one in values])
    total, single = np.square(centred.sum(axis=0)), np.square(centred).sum(axis=0)
    products = (total - single) / (n_repeats * (n_repeats - 1))
    signal, power = products.mean(axis=0), single.mean(axis=0) / n_repeats
    power_of_mean = total.mean(axis=0) / n_repeats**2
    known = np.isfinite(power) & (power > 1e-12 * np.square(values).mean(axis=(0, 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        explainable = np.where(known, signal / power, np.nan)
        ceiling_r = np.where(known & (signal > 0), np.sqrt(np.abs(signal) / power_of_mean), np.nan)
    p = np.where(known, _p_above_zero(products, labels, block_trs), np.nan)
    return Ceiling(explainable, ceiling_r, p, int((known & (signal <= 0)).sum()), n_repeats)


def _p_above_zero(products: FloatArray, labels: npt.NDArray[np.int64], block_trs: int) -> FloatArray:
    """One-sided t-test over the means of blocks of time, shape (n_voxels,)."""
    from scipy.stats import t as student

    blocks = [rows for rows in cut_blocks(labels, block_trs) if 2 * len(rows) >= block_trs]
    if len(blocks) < MIN_BLOCKS:
        raise ValueError(
            f"{len(labels)} TRs give {len(blocks)} blocks of {block_trs}; need at least {MIN_BLOCKS}:"
            " lower block_trs or give more data."
        )
    means = np.stack([products[rows].mean(axis=0) for rows in blocks])
    error = means.std(axis=0, ddof=1) / np.sqrt(len(blocks))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(student.sf(means.mean(axis=0) / error, df=len(blocks) - 1))
