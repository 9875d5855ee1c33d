"""From values at their own times (frames of sound, words, phones) to values per TR: one way for all spaces.

Every space keeps its values at their own times too (`TimedValues`), for responses to be convolved with: frames as means
of a tenth of a second, which blood cannot tell from shorter ones, events as impulses.

Lanczos resampling is as encoding models of speech use it: the kernel is sinc(c d) sinc(c d / w) for |c d| < w, with d
the time between an old and a new sample, c twice the cut-off frequency and w the number of lobes (three). It is not
normalised, so sums of events (words) keep their area per 1 / c seconds. Formula: Duchon (1979), J. Appl. Meteor.
18:1016; use for word features: Huth et al. (2016), Nature.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from brainlit.stories import FeatureSpace, Story, TimedValues
from brainlit.stories.base import FeatureKind, Float32Array, FloatArray
from brainlit.timebase import TimeBase

PerTr = Literal["mean", "lanczos"]
Combine = Literal["mean", "sum"]
Rate = Literal["frames", "events"]

BIN_S = 0.1
"""Frames are kept as means of this long."""

_NEW_TIMES_PER_BLOCK = 32
_BINS_PER_BLOCK = 600


def to_trs(
    values: npt.ArrayLike, times_s: npt.ArrayLike, timebase: TimeBase, combine: Combine, per_tr: PerTr = "mean"
) -> Float32Array:
    """Values on the scanner's rows, (n_times, n_features) -> (n_trs, n_features).

    Parameters
    ----------
    values : array of shape (n_times, n_features)
    times_s : array of shape (n_times,)
        Middles of what the values describe, in seconds of sound.
    combine : 'mean' or 'sum'
        Mean of the values in a row (what goes on in time) or their sum (events); 0 where there are none.
    per_tr : 'mean' or 'lanczos'
        'mean': from the values whose time falls into the row, as `combine` says. 'lanczos': from all values, weighted
        by the three-lobe kernel around the middle of the row with its cut-off at 1 / (2 TR). The kernel is not
        normalised, as in published encoding models: a steady value comes out times the number of values per TR, and
        rows beside an event ring.

    Raises
    ------
    ValueError
        If values and times do not fit each other.
    """
    if per_tr == "lanczos":
        middles_s = (timebase.tr_starts_s + timebase.tr_ends_s) / 2
        rows = lanczos_resample(values, times_s, middles_s, window=3, cutoff_hz=1 / (2 * timebase.tr_s))
    elif combine == "mean":
        rows = timebase.average_per_tr(values, times_s)
    else:
        rows = timebase.sum_per_tr(values, times_s)
    return rows.astype(np.float32)


def in_words(combine: Combine, per_tr: PerTr) -> str:
    """What `to_trs` does, for the `source` of a space.

    >>> in_words("mean", "mean"), in_words("sum", "mean")
    ('mean per TR', 'sum per TR')
    """
    return "three-lobe Lanczos at the middle of each TR" if per_tr == "lanczos" else f"{combine} per TR"


def space_per_tr(
    story: Story,
    name: str,
    columns: Iterable[str],
    source: str,
    values: npt.ArrayLike,
    times_s: npt.ArrayLike,
    combine: Combine,
    per_tr: PerTr,
    kind: FeatureKind = "low_level",
    coverage: float = 1.0,
    rate: Rate | None = None,
) -> FeatureSpace:
    """A feature space of what `to_trs` makes of values at their own times; its source goes on with `in_words`.

    `rate` says what the values are at their own times; None: frames where the mean is taken, events where the sum is.
    """
    rows = to_trs(values, times_s, story.timebase, combine, per_tr)
    is_frames = (rate or ("frames" if combine == "mean" else "events")) == "frames"
    timed = binned_frames(values, times_s) if is_frames else events(values, times_s)
    return FeatureSpace(name, kind, tuple(columns), f"{source}, {in_words(combine, per_tr)}", rows, coverage, timed)


# --- Their own rate ---


def events(values: npt.ArrayLike, times_s: npt.ArrayLike) -> TimedValues:
    """Impulses in the order of their times: words that overlap may have their middles the other way round."""
    times = np.asarray(times_s, dtype=np.float64)
    order = np.argsort(times, kind="stable")
    return TimedValues(np.asarray(values, dtype=np.float32)[order], times[order])


def binned_frames(values: npt.ArrayLike, times_s: npt.ArrayLike, bin_s: float = BIN_S) -> TimedValues:
    """Means of the frames in bins of bin_s, which begin where the first frame does; frames as long as a bin stay.

    A last bin that is not full counts what is missing as 0 (silence), so that values times bin_s sum to the integral.

    Parameters
    ----------
    values : array of shape (n_frames, n_features)
    times_s : array of shape (n_frames,)
        Middles of frames that follow each other at one distance.
    """
    array, times = np.asarray(values), np.asarray(times_s, dtype=np.float64)
    hop_s = float((times[-1] - times[0]) / (len(times) - 1)) if len(times) > 1 else bin_s
    if hop_s >= bin_s or not len(times):
        return TimedValues(np.asarray(array, dtype=np.float32), times, hop_s)
    start_s = times[0] - hop_s / 2  # a frame lies half its length off every edge, so rounding moves none across one
    bins, firsts, sizes = np.unique(((times - start_s) / bin_s).astype(np.int64), return_index=True, return_counts=True)
    means = np.empty((len(bins), array.shape[1]), dtype=np.float32)
    for first in range(0, len(bins), _BINS_PER_BLOCK):  # sums in float64 need a copy of the frames
        here = slice(first, first + _BINS_PER_BLOCK)
        frames = array[firsts[first] : firsts[here][-1] + sizes[here][-1]].astype(np.float64)
        means[here] = np.add.reduceat(frames, firsts[here] - firsts[first], axis=0) / sizes[here, None]
    means[-1] *= min((times[-1] + hop_s / 2 - start_s) / bin_s - bins[-1], 1.0)
    return TimedValues(means, start_s + (bins + 0.5) * bin_s, bin_s)


# --- Lanczos resampling ---


def lanczos_matrix(
    old_times_s: npt.ArrayLike, new_times_s: npt.ArrayLike, window: int = 3, cutoff_hz: float | None = None
) -> FloatArray:
    """Weights that take values at old times to new times, shape (n_new, n_old).

    Parameters
    ----------
    old_times_s, new_times_s : arrays of shape (n_old,) and (n_new,)
        Seconds of sound.
    window : int
        Lobes of the kernel on each side.
    cutoff_hz : float or None
        Frequencies above it are removed. None: half the rate of the new times, 1 / (2 TR), from their mean distance.

    Raises
    ------
    ValueError
        If times are not one-dimensional, window < 1, cutoff_hz is not positive, or cannot be found from one new time.
    """
    old_s, new_s = (np.asarray(times, dtype=np.float64) for times in (old_times_s, new_times_s))
    if old_s.ndim != 1 or new_s.ndim != 1:
        raise ValueError(f"times have shapes {old_s.shape} and {new_s.shape}; both must be one-dimensional.")
    if window < 1:
        raise ValueError(f"window is {window}; the kernel needs at least one lobe.")
    scaled = 2 * _cutoff(new_s, cutoff_hz) * (new_s[:, None] - old_s[None, :])
    return np.asarray(np.where(np.abs(scaled) < window, np.sinc(scaled) * np.sinc(scaled / window), 0.0))


def lanczos_resample(
    values: npt.ArrayLike,
    old_times_s: npt.ArrayLike,
    new_times_s: npt.ArrayLike,
    window: int = 3,
    cutoff_hz: float | None = None,
) -> FloatArray:
    """Values at the new times, (n_old, n_features) -> (n_new, n_features); see `lanczos_matrix`.

    The weights are built for some new times at a time, from the old times within their reach, so that hours of
    100 Hz features fit in memory.
    """
    array = np.asarray(values, dtype=np.float64)
    old_s, new_s = (np.asarray(times, dtype=np.float64) for times in (old_times_s, new_times_s))
    if array.ndim != 2 or len(array) != old_s.size:
        raise ValueError(f"values have shape {array.shape} for {old_s.size} times; need (n_times, n_features).")
    cutoff = _cutoff(new_s, cutoff_hz)
    reach_s = window / (2 * cutoff)
    resampled = np.zeros((new_s.size, array.shape[1]))
    for first in range(0, new_s.size, _NEW_TIMES_PER_BLOCK):
        block_s = new_s[first : first + _NEW_TIMES_PER_BLOCK]
        near = (old_s > block_s.min() - reach_s) & (old_s < block_s.max() + reach_s)
        resampled[first : first + len(block_s)] = lanczos_matrix(old_s[near], block_s, window, cutoff) @ array[near]
    return resampled


def _cutoff(new_s: FloatArray, cutoff_hz: float | None) -> float:
    if cutoff_hz is None:
        if new_s.size < 2:
            raise ValueError(f"cutoff_hz is not given and {new_s.size} new times have no spacing; pass cutoff_hz.")
        cutoff_hz = 1 / (2 * float(np.mean(np.diff(new_s))))
    if not (np.isfinite(cutoff_hz) and cutoff_hz > 0):
        raise ValueError(f"cutoff_hz is {cutoff_hz}; it must be a positive frequency, such as 1 / (2 TR).")
    return float(cutoff_hz)
