"""From events and frames to the signal at every volume, through responses that differ by voxel.

A listener's voxels answer an event with a peak and a weaker undershoot, both bell-shaped over the logarithm of time:

    h(t) = exp(-(ln(t / p) / s)^2 / 2) - u exp(-(ln(t / (p + d)) / 0.25)^2 / 2),    t > 0

with the time to peak p, the width 2 p sinh(1.18 s) at half the height, the undershoot's depth u and its delay d behind
the peak. Encoding models use SPM's gamma densities or delays; here it is another family, so that no model wins by
knowing what made the data. Times to peak between 4 and 7 s are what people and regions show (Handwerker et al. 2004,
NeuroImage 21:1639).

Ten curves (`ResponseBasis`) span the family to less than 0.1 % of any response. So a series is convolved ten times,
not once for every voxel, and each voxel mixes the ten results.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import FloatArray
from brainlit.timebase import TimeBase

Hrf = Literal["varied", "canonical"]
"""Responses drawn for every voxel, or SPM's double gamma for all."""

GRID_S = 0.1
HRF_S = 32.0
CUTOFF_S = 128.0

LENGTH_S = 40.0
"""Responses that are drawn end here, at less than 0.1 % of their height."""

PEAK_S = (4.0, 7.0)
WIDTH = (0.82, 1.08)
"""Full width at half the height, as a part of the time to peak."""
UNDERSHOOT = (0.0, 0.3)
"""Depth of the second bell, as a part of the height of the first."""
UNDERSHOOT_DELAY_S = (8.0, 10.0)
"""How long after the first bell the second is deepest."""

_RANGES = np.array([PEAK_S, WIDTH, UNDERSHOOT, UNDERSHOOT_DELAY_S])
_UNDERSHOOT_SPREAD = 0.25
_HALF_HEIGHT = np.sqrt(2 * np.log(2))
_N_CURVES = 10


def haemodynamic_response(times_s: npt.ArrayLike) -> FloatArray:
    """Double gamma: density of gamma(6) minus a sixth of gamma(16), unit scale; peak at 5 s; 0 before the event.

    The form and the numbers are SPM's canonical ones (Friston et al. 1998, NeuroImage 7:30).
    """
    from scipy.stats import gamma

    times = np.asarray(times_s, dtype=np.float64)
    return np.asarray(gamma.pdf(times, 6) - gamma.pdf(times, 16) / 6)


# --- Responses that differ by voxel ---


@dataclass(frozen=True, eq=False)
class VoxelResponses:
    """The responses of some voxels, each parameter an array of shape (n_voxels,).

    Parameters
    ----------
    peak_s : array
        Seconds from an event to the peak. (The undershoot moves the peak by less than 0.1 s.)
    width_s : array
        Full width of the peak at half its height, of which the undershoot takes up to a tenth.
    undershoot : array
        Depth of the second bell over the height of the first, whose tail fills a part of it.
    undershoot_delay_s : array
        Seconds from the top of the first bell to the bottom of the second.
    """

    peak_s: FloatArray
    width_s: FloatArray
    undershoot: FloatArray
    undershoot_delay_s: FloatArray

    def of(self, voxels: slice) -> VoxelResponses:
        """The responses of some of the voxels."""
        return VoxelResponses(*(parameter[voxels] for parameter in vars(self).values()))

    def at(self, lags_s: npt.ArrayLike) -> FloatArray:
        """The responses at some seconds after an event, (n_voxels, n_lags); the peak is 1 high, 0 outside 0..40 s."""
        lags = np.asarray(lags_s, dtype=np.float64)
        inside = (lags > 0) & (lags < LENGTH_S)
        log_lags = np.log(np.where(inside, lags, 1.0))
        spread = np.arcsinh(self.width_s / self.peak_s / 2) / _HALF_HEIGHT
        peak = _bell((log_lags - np.log(self.peak_s)[:, None]) / spread[:, None])
        deepest = np.log(self.peak_s + self.undershoot_delay_s)[:, None]
        undershoot = self.undershoot[:, None] * _bell((log_lags - deepest) / _UNDERSHOOT_SPREAD)
        return np.asarray(np.where(inside, peak - undershoot, 0.0))


def draw_responses(rng: np.random.Generator, n_voxels: int) -> VoxelResponses:
    """The responses of one listener's voxels.

    Every parameter is uniform over as much as its whole range around the listener's own mean, which lies in the middle
    third of the range; what falls outside of the range is put on its border. So times to peak lie between 4 and 7 s,
    around a mean between 5 and 6 s.
    """
    own_mean = rng.uniform(1 / 3, 2 / 3, size=(len(_RANGES), 1))
    places = own_mean + rng.uniform(-0.5, 0.5, size=(n_voxels, len(_RANGES))).T  # the first voxels stay if more come
    return _responses_at(np.clip(places, 0, 1))


@dataclass(frozen=True, eq=False)
class ResponseBasis:
    """Curves that responses are mixed from.

    Parameters
    ----------
    curves : array of shape (n_curves, n_lags)
        At 0, 0.1, 0.2, ... seconds after an event.
    average : array of shape (n_curves,)
        Mixes the average response, by which series are scaled.
    """

    curves: FloatArray
    average: FloatArray

    def coefficients(self, responses: VoxelResponses) -> FloatArray:
        """What mixes the responses of voxels from the curves, shape (n_curves, n_voxels)."""
        return self.curves @ responses.at(_lags_s(LENGTH_S)).T


@cache
def response_basis(hrf: Hrf) -> ResponseBasis:
    """The curves that span the family, orthonormal, or the canonical response alone."""
    if hrf == "canonical":
        return ResponseBasis(haemodynamic_response(_lags_s(HRF_S))[None], np.ones(1))
    rng = np.random.default_rng(0)
    corners = np.array(list(itertools.product([0.0, 1.0], repeat=len(_RANGES))))
    places = np.concatenate([corners, rng.uniform(size=(1000, len(_RANGES)))])
    sample = _responses_at(places.T).at(_lags_s(LENGTH_S))
    curves = np.linalg.svd(sample, full_matrices=False)[2][:_N_CURVES]
    return ResponseBasis(curves, curves @ sample.mean(axis=0))


def _responses_at(places: FloatArray) -> VoxelResponses:
    """Responses with parameters at some places in their ranges, 0 to 1, shape (4, n_voxels)."""
    low, high = _RANGES.T[:, :, None]
    peak_s, width, undershoot, undershoot_delay_s = low + places * (high - low)
    return VoxelResponses(peak_s, width * peak_s, undershoot, undershoot_delay_s)


def _bell(z: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-(z**2) / 2))


def _lags_s(length_s: float) -> FloatArray:
    return np.arange(0, length_s, GRID_S)


# --- Signals at every volume ---


def bold_of_events(
    values: npt.ArrayLike, times_s: npt.ArrayLike, timebase: TimeBase, basis: ResponseBasis | None = None
) -> FloatArray:
    """Signal per TR of impulses at given times: (n_events, n_columns) -> (n_curves, n_trs, n_columns).

    Impulses are added up in bins of 0.1 s, convolved with each curve of a basis (the canonical response by default),
    and read at the end of each volume (linearly between bins).
    """
    grid = _grid(timebase)
    return _sample(grid.sum_per_tr(values, times_s), grid, timebase, basis)


def bold_of_frames(
    values: npt.ArrayLike, times_s: npt.ArrayLike, timebase: TimeBase, basis: ResponseBasis | None = None
) -> FloatArray:
    """Signal per TR of a series in time: (n_frames, n_columns) -> (n_curves, n_trs, n_columns).

    Frames are averaged in bins of 0.1 s, then treated as events are.
    """
    grid = _grid(timebase)
    return _sample(grid.average_per_tr(values, times_s), grid, timebase, basis)


def slow_drift_basis(timebase: TimeBase) -> FloatArray:
    """Orthonormal basis of what detrending removes, (n_trs, n_drifts): a quadratic and cosines slower than 128 s."""
    n_trs = timebase.n_trs
    t = (np.arange(n_trs) + 0.5) / n_trs
    n_cosines = int(2 * n_trs * timebase.tr_s / CUTOFF_S)
    columns = [np.ones(n_trs), t, t**2, *(np.cos(np.pi * order * t) for order in range(1, n_cosines + 1))]
    return np.asarray(np.linalg.qr(np.stack(columns, axis=1))[0])


def _grid(timebase: TimeBase) -> TimeBase:
    start_s = min(0.0, float(timebase.tr_starts_s[0]))
    return TimeBase.regular(int(np.ceil((timebase.end_s - start_s) / GRID_S)) + 1, GRID_S, onset_s=start_s)


def _sample(series: FloatArray, grid: TimeBase, timebase: TimeBase, basis: ResponseBasis | None) -> FloatArray:
    from scipy.signal import fftconvolve

    centred = series - series.mean(axis=0)
    middles_s = grid.tr_starts_s + GRID_S / 2
    curves = (basis or response_basis("canonical")).curves
    bold = np.empty((len(curves), timebase.n_trs, series.shape[1]))
    for curve, own in zip(curves, bold, strict=True):
        convolved = fftconvolve(centred, curve[:, None], axes=0)[: grid.n_trs] * GRID_S
        for column, signal in enumerate(convolved.T):
            own[:, column] = np.interp(timebase.tr_ends_s, middles_s, signal)
    return bold
