"""One clock for scanner volumes, sound samples, words, windows and features.

Convention, stated once: time is in seconds of sound (0 is the first sample of the story's audio file). A time t
belongs to the sample floor(t x rate + 1/2), so an edge is off by at most half a sample and never drifts: positions are
computed from the time itself, not by adding up steps. Row k of a response matrix is the volume that the scanner
acquired from tr_starts_s[k] to tr_ends_s[k].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SAMPLE_RATE_HZ = 16_000
_SHORTEST_TR_S, _LONGEST_TR_S = 0.03, 60.0


@dataclass(frozen=True, eq=False)
class TimeBase:
    """When each scanner volume happened, in seconds of sound.

    Parameters
    ----------
    tr_starts_s : array of shape (n_trs,)
        Start of each volume; strictly increasing. Negative before the sound begins.
    tr_s : float
        Nominal repetition time; the duration of the last volume and of those extrapolated beyond the ends.
    sample_rate_hz : int
        Rate of the audio that shares this clock.

    Raises
    ------
    ValueError
        If the starts are not one-dimensional, finite and strictly increasing, an interval is more than 50 % off
        `tr_s` (a missed trigger), or `tr_s` or `sample_rate_hz` is not positive.
    """

    tr_starts_s: FloatArray
    tr_s: float
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        starts_s = np.asarray(self.tr_starts_s, dtype=np.float64).copy()
        if not (np.isfinite(self.tr_s) and self.tr_s > 0):
            raise ValueError(f"tr_s is {self.tr_s}; a repetition time is a positive number of seconds.")
        if self.sample_rate_hz <= 0:
            raise ValueError(f"sample_rate_hz is {self.sample_rate_hz}; it must be positive.")
        if starts_s.ndim != 1 or starts_s.size == 0 or not np.isfinite(starts_s).all():
            raise ValueError(f"tr_starts_s has shape {starts_s.shape}; need a non-empty list of finite seconds.")
        intervals_s = np.diff(starts_s)
        odd = np.flatnonzero(np.abs(intervals_s - self.tr_s) > 0.5 * self.tr_s)
        if odd.size:
            k = int(odd[0])
            raise ValueError(
                f"TR {k} starts at {starts_s[k]:.4f} s and TR {k + 1} at {starts_s[k + 1]:.4f} s, but tr_s is"
                f" {self.tr_s} s: a trigger is missing, doubled or out of order. Repair the scanner log"
                " (fill_missed_triggers puts missing ones in) or set tr_s."
            )
        starts_s.setflags(write=False)
        object.__setattr__(self, "tr_starts_s", starts_s)

    @classmethod
    def regular(cls, n_trs: int, tr_s: float, onset_s: float = 0.0, sample_rate_hz: int = SAMPLE_RATE_HZ) -> TimeBase:
        """Volumes at onset_s + k x tr_s, k = 0 .. n_trs - 1.

        >>> TimeBase.regular(3, tr_s=2.0045, onset_s=10.0).tr_starts_s.tolist()
        [10.0, 12.0045, 14.009]
        """
        return cls(np.asarray(onset_s + np.arange(n_trs) * float(tr_s), dtype=np.float64), float(tr_s), sample_rate_hz)

    @property
    def n_trs(self) -> int:
        """Number of volumes."""
        return int(self.tr_starts_s.size)

    @cached_property
    def tr_ends_s(self) -> FloatArray:
        """End of each volume, shape (n_trs,): the next one's start; the last lasts tr_s."""
        return self.tr_edges_s(0, self.n_trs)[1:]

    @property
    def end_s(self) -> float:
        """End of the last volume."""
        return float(self.tr_ends_s[-1])

    def tr_edges_s(self, first_tr: int, n_trs: int) -> FloatArray:
        """Edges of n_trs consecutive volumes from first_tr on, shape (n_trs + 1,), in seconds of sound.

        Rows outside the recording (negative, or past the end) are extrapolated by tr_s, so a window may reach back
        before the first volume.
        """
        if first_tr >= 0 and first_tr + n_trs < self.n_trs:
            return self.tr_starts_s[first_tr : first_tr + n_trs + 1]
        k = np.arange(first_tr, first_tr + n_trs + 1)  # edges; those before row 0 or after the last row go by tr_s
        inside = np.clip(k, 0, self.n_trs - 1)
        return np.asarray(self.tr_starts_s[inside] + (k - inside) * self.tr_s)

    def samples_at(self, times_s: npt.ArrayLike) -> IntArray:
        """Sample index floor(t x rate + 1/2) of each time; same shape; may be negative."""
        times = np.asarray(times_s, dtype=np.float64)
        return np.floor(times * self.sample_rate_hz + 0.5).astype(np.int64)

    def times_of_samples_s(self, samples: npt.ArrayLike) -> FloatArray:
        """Time at which each sample starts, in seconds of sound; same shape."""
        return np.asarray(samples, dtype=np.float64) / self.sample_rate_hz

    def trs_at(self, times_s: npt.ArrayLike) -> IntArray:
        """Row during which each time falls (starts belong to the row, ends to the next); -1 outside the recording.

        >>> TimeBase.regular(2, tr_s=2.0, onset_s=1.0).trs_at([0.9, 1.0, 2.999, 3.0, 5.0]).tolist()
        [-1, 0, 0, 1, -1]
        """
        times = np.asarray(times_s, dtype=np.float64)
        rows = np.searchsorted(self.tr_starts_s, times, side="right") - 1
        return np.where(times < self.end_s, rows, -1).astype(np.int64)

    def window_samples(
        self, first_tr: int, n_trs: int, context_s: float = 0.0, shift_s: float = 0.0
    ) -> tuple[int, int]:
        """First and one-past-last sample of the sound for rows first_tr .. first_tr + n_trs - 1.

        The window ends where the last row ends (plus shift_s) and lasts n_trs x tr_s + context_s, rounded once, so
        all windows of a data set have one length even on an irregular clock. The start may be negative: pad there.

        >>> TimeBase.regular(400, tr_s=2.0).window_samples(15, 1, context_s=8.0)
        (352000, 512000)
        """
        end_s = self.tr_edges_s(first_tr, n_trs)[-1] + shift_s
        stop = int(self.samples_at(end_s))
        return stop - self.window_length(n_trs, context_s), stop

    def window_length(self, n_trs: int, context_s: float = 0.0) -> int:
        """Number of samples of every window of n_trs rows with context_s of sound before them."""
        return int(self.samples_at(n_trs * self.tr_s + context_s))

    def average_per_tr(self, values: npt.ArrayLike, times_s: npt.ArrayLike) -> FloatArray:
        """Mean of the values whose time falls in each row: (n, n_features) -> (n_trs, n_features); 0 where none."""
        return self.sum_per_tr(values, times_s) / np.maximum(self.count_per_tr(times_s), 1)[:, None]

    def sum_per_tr(self, values: npt.ArrayLike, times_s: npt.ArrayLike) -> FloatArray:
        """Sum of the values whose time falls in each row: (n, n_features) -> (n_trs, n_features)."""
        array = np.asarray(values, dtype=np.float64)
        rows = self.trs_at(times_s)
        if array.ndim != 2 or len(array) != len(rows):
            raise ValueError(f"values have shape {array.shape} for {len(rows)} times; need (n_times, n_features).")
        totals = np.zeros((self.n_trs, array.shape[1]))
        np.add.at(totals, rows[rows >= 0], array[rows >= 0])
        return totals

    def count_per_tr(self, times_s: npt.ArrayLike) -> IntArray:
        """How many of the times fall in each row, shape (n_trs,)."""
        rows = self.trs_at(times_s)
        return np.bincount(rows[rows >= 0], minlength=self.n_trs).astype(np.int64)


def unlikely_tr(tr_s: float) -> str | None:
    """A question about a repetition time that no scanner has: the unit is another; None for likely seconds.

    >>> unlikely_tr(2000.0), unlikely_tr(2.0)
    ('are these milliseconds? Then it is 2 s', None)
    """
    if tr_s > _LONGEST_TR_S:
        return f"are these milliseconds? Then it is {tr_s / 1e3:g} s"
    return f"were seconds taken for milliseconds? Then it is {tr_s * 1e3:g} s" if tr_s < _SHORTEST_TR_S else None


def fill_missed_triggers(triggers_s: npt.ArrayLike, tr_s: float) -> tuple[FloatArray, IntArray]:
    """Put evenly spaced triggers into the gaps of a scanner log that are whole numbers of TRs long.

    A scanner log can lack a trigger of a volume that was acquired (the log of `naked` in LeBel et al. 2023 lacks one).

    Parameters
    ----------
    triggers_s : array of shape (n_triggers,)
        Times of the triggers in seconds, increasing.
    tr_s : float
        Repetition time; an interval within a quarter of it of m x tr_s, m >= 2, is a gap of m - 1 triggers.

    Returns
    -------
    filled_s : array of shape (n_triggers + n_missed,)
    missed : int array of shape (n_missed,)
        Rows of filled_s that were put in; report them.

    >>> filled_s, missed = fill_missed_triggers([0.0, 2.0, 6.0, 8.0], tr_s=2.0)
    >>> filled_s.tolist(), missed.tolist()
    ([0.0, 2.0, 4.0, 6.0, 8.0], [2])
    """
    times_s = np.asarray(triggers_s, dtype=np.float64)
    intervals_s = np.diff(times_s)
    n_steps = np.maximum(np.rint(intervals_s / tr_s), 1).astype(np.int64)
    n_steps[np.abs(intervals_s - n_steps * tr_s) > 0.25 * tr_s] = 1
    places = np.concatenate([[0], np.cumsum(n_steps)])  # row of each trigger once the missed ones are in
    rows = np.arange(places[-1] + 1)
    return np.interp(rows, places, times_s), np.setdiff1d(rows, places).astype(np.int64)
