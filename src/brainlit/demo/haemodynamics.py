"""From events in the sound to the slow signal that a scanner sees, and the slow drifts that are taken out of it.

Sampling convention: row k of a response is the signal at the moment tr_ends_s[k] at which its volume is complete. So
an event in the middle of row j peaks, 5 s later, in row j + 2 for a repetition time of 2 s.

Baseline convention: what precedes the story counts as its mean, so there is no response to the onset of the sound
(otherwise most of the variance of loudness would be the rise in the first 15 s; recordings have those rows cut).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainlit.timebase import TimeBase

FloatArray = npt.NDArray[np.float64]

GRID_S = 0.1
HRF_S = 32.0
CUTOFF_S = 128.0


def haemodynamic_response(times_s: npt.ArrayLike) -> FloatArray:
    """Double gamma: density of gamma(6) minus a sixth of gamma(16), unit scale; peak at 5 s; 0 before the event.

    The form and the numbers are SPM's canonical ones (Friston et al. 1998, NeuroImage 7:30).
    """
    from scipy.stats import gamma

    times = np.asarray(times_s, dtype=np.float64)
    return np.asarray(gamma.pdf(times, 6) - gamma.pdf(times, 16) / 6)


def bold_of_events(values: npt.ArrayLike, times_s: npt.ArrayLike, timebase: TimeBase) -> FloatArray:
    """Signal per TR of impulses at given times: (n_events, n_columns) -> (n_trs, n_columns).

    Impulses are added up in bins of 0.1 s, convolved with the haemodynamic response, and read at the end of each
    volume (linearly between bins).
    """
    grid = _grid(timebase)
    return _sample(grid.sum_per_tr(values, times_s), grid, timebase)


def bold_of_frames(values: npt.ArrayLike, times_s: npt.ArrayLike, timebase: TimeBase) -> FloatArray:
    """Signal per TR of a series in time: (n_frames, n_columns) -> (n_trs, n_columns); averaged in bins of 0.1 s."""
    grid = _grid(timebase)
    return _sample(grid.average_per_tr(values, times_s), grid, timebase)


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


def _sample(series: FloatArray, grid: TimeBase, timebase: TimeBase) -> FloatArray:
    from scipy.signal import fftconvolve

    kernel = haemodynamic_response(np.arange(0, HRF_S, GRID_S))
    bold = fftconvolve(series - series.mean(axis=0), kernel[:, None], axes=0)[: grid.n_trs] * GRID_S
    middles_s = grid.tr_starts_s + GRID_S / 2
    return np.stack([np.interp(timebase.tr_ends_s, middles_s, column) for column in bold.T], axis=1)
