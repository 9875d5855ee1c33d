"""Are the words where the sound is loud? Lag, drift and stretch of a transcript against its recording.

The words as a mask (1 during a word) are correlated with the logarithm of loudness at every lag, both without what
changes slower than 10 s. Speech has a pause every few words, so the right lag stands out by dozens of standard
deviations of the wrong ones, in any language.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

HOP_S = 0.02
HIGH_PASS_S = 10.0
MIN_LAG_S, MAX_LAG_S = 15.0, 60.0
"""Lags up to a quarter of the recording are tried, within these bounds."""
MIN_SOUND_S = 45.0
TOLERANCE_S = 0.25
CONVINCING_Z = 8.0
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class Alignment:
    """How words fit the sound best.

    Parameters
    ----------
    shift_s : float
        How much later the sound is than the words say.
    r : float
        Correlation of the mask of words with loudness at that shift.
    z, z_as_given : float
        The same in standard deviations over wrong lags; and the highest within `TOLERANCE_S` of no shift.
    convincing : bool
        Whether it is far beyond what wrong lags reach.
    """

    shift_s: float
    r: float
    z: float
    z_as_given: float
    convincing: bool

    @property
    def shifted(self) -> bool:
        """Whether the words fit clearly better where the transcript does not put them."""
        return self.convincing and abs(self.shift_s) > TOLERANCE_S and self.z - self.z_as_given > 4


def loudness(rms: npt.ArrayLike) -> FloatArray:
    """Logarithm of the root mean square; what is 30 dB below loud speech counts as silence."""
    values = np.asarray(rms, dtype=np.float64)
    return np.asarray(np.log(values + 0.03 * np.percentile(values, 95) + 1e-9))


def word_mask(start_s: npt.ArrayLike, end_s: npt.ArrayLike, n_frames: int, stretch: float = 1.0) -> FloatArray:
    """1 in the frames of HOP_S that a word covers, times multiplied by `stretch`: shape (n_frames,)."""
    edges = [np.rint(np.asarray(times) * stretch / HOP_S).astype(np.int64) for times in (start_s, end_s)]
    first, last = (np.clip(edge, 0, n_frames) for edge in edges)
    steps = np.bincount(first, minlength=n_frames + 1) - np.bincount(last, minlength=n_frames + 1)
    return (np.cumsum(steps)[:n_frames] > 0).astype(np.float64)


def align(mask: FloatArray, loud: FloatArray) -> Alignment | None:
    """The lag at which words and loudness agree best, against all lags outside the window (circular).

    Parameters
    ----------
    mask, loud : arrays of shape (n_frames,)
        HOP_S seconds per frame.

    Returns
    -------
    Alignment or None
        None for less than `MIN_SOUND_S`, or if one of them does not change.
    """
    n_frames = len(loud)
    if n_frames * HOP_S < MIN_SOUND_S:
        return None
    words, sound = (_without_slow(series) for series in (mask, loud))
    scale = np.linalg.norm(words) * np.linalg.norm(sound)
    if not scale > 1e-9:
        return None
    products = np.fft.irfft(np.conj(np.fft.rfft(words)) * np.fft.rfft(sound), n_frames) / scale
    n_lags = round(np.clip(n_frames * HOP_S / 4, MIN_LAG_S, MAX_LAG_S) / HOP_S)
    lags = np.arange(-n_lags, n_lags + 1)
    inside, outside = products[lags], products[n_lags + 1 : n_frames - n_lags]
    deviation = float(outside.std()) or 1.0
    best = int(inside.argmax())
    z_as_given = float(inside[np.abs(lags) * HOP_S <= TOLERANCE_S + 1e-9].max()) / deviation
    r, z = float(inside[best]), float(inside[best]) / deviation
    convincing = z > CONVINCING_Z and r > 0.15 and r > 1.5 * float(outside.max())
    return Alignment(float(lags[best] * HOP_S), r, z, z_as_given, convincing)


def drift_of_words_s(mask: FloatArray, loud: FloatArray) -> tuple[float, float] | None:
    """Shifts of the sound against the words in the first and in the last third, where both are convincing."""
    third = len(loud) // 3
    parts = [align(mask[part], loud[part]) for part in (slice(0, third), slice(len(loud) - third, None))]
    first, last = parts
    if first is None or last is None or not (first.convincing and last.convincing):
        return None
    return first.shift_s, last.shift_s


def wrong_rate(
    start_s: npt.ArrayLike, end_s: npt.ArrayLike, loud: FloatArray
) -> tuple[float, tuple[int, int], Alignment] | None:
    """The stretch of the words that makes them fit, among the ratios of usual sample rates.

    Returns
    -------
    stretch, (taken_hz, true_hz), alignment
        The file has true_hz and was read as taken_hz (or the words were). None if no stretch is convincing.
    """
    best: tuple[float, tuple[int, int], Alignment] | None = None
    for ratio, rates in sample_rate_ratios().items():
        fit = align(word_mask(start_s, end_s, len(loud), float(ratio)), loud)
        if fit is not None and fit.convincing and (best is None or fit.r > best[2].r):
            best = float(ratio), rates, fit
    return best


def sample_rate_ratios() -> dict[Fraction, tuple[int, int]]:
    """true / taken for each pair of `RATES_HZ`, 1 left out; of equal ratios the pair with the higher rates."""
    return {Fraction(true, taken): (taken, true) for taken in RATES_HZ for true in RATES_HZ if true != taken}


def _without_slow(series: FloatArray) -> FloatArray:
    """Less the running mean over HIGH_PASS_S (shorter at the ends)."""
    half = round(HIGH_PASS_S / HOP_S / 2)
    sums = np.concatenate([[0.0], np.cumsum(series)])
    place = np.arange(len(series))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(series))
    return np.asarray(series - (sums[last] - sums[first]) / (last - first))
