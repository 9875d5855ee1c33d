"""Samples that were cut flat because the sound was too loud for what recorded it.

Clipped speech stays at the largest value that it can have for a few samples, again and again. Single samples at the
largest value are no clipping (every sound has one), and neither is a value that stays for longer than a sound can
swing: digital silence, a dropout, a gate. The largest value is the sound's own, because a clipped recording that was
made softer is as flat as before.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

MAX_CLIPPED, FAR_CLIPPED = 1e-3, 0.05
"""Parts of the samples that are not digital silence: of more there is a warning, of far more an error."""
_MIN_RUN = 3
_MAX_RUN_S = 0.008
_NEAR = 0.99
"""Of the largest value: a block has flat tops of the whole sound if it comes so near."""


def clipped_level(part: float) -> Literal["error", "warning"]:
    """How bad it is."""
    return "error" if part > FAR_CLIPPED else "warning"


class FlatTops:
    """Counts the samples of flat tops in each channel, block by block.

    Parameters
    ----------
    softest : float
        In sounds whose largest value is below this nothing is counted: it is a few steps of the samples' integers, and
        any sound stays on a step for a while.
    """

    def __init__(self, n_channels: int, rate_hz: int, softest: float) -> None:
        self._softest = softest
        self._longest = max(_MIN_RUN, round(_MAX_RUN_S * rate_hz))
        self._n_sounding = np.zeros(n_channels)
        self._tops: list[npt.NDArray[np.float64]] = []

    def add(self, block: npt.NDArray[Any]) -> None:
        """A block of samples, (n_frames, n_channels)."""
        channels = np.ascontiguousarray(block.T)
        self._n_sounding += [np.count_nonzero(values) for values in channels]
        self._tops.append(np.array([[self._top(values, sign) for values in channels] for sign in (1, -1)]))

    def parts(self) -> list[float]:
        """Of each channel, the part of its samples (other than 0) that lie in flat tops."""
        if not self._tops:
            return [0.0] * len(self._n_sounding)
        peaks, counts = np.moveaxis(np.array(self._tops), -1, 0)  # (n_blocks, 2, n_channels) each
        largest = peaks.max(axis=0)
        # One side may have no tops of its own: the silence of a sound that only swings upwards.
        is_top = (peaks >= _NEAR * largest) & (largest >= largest.max(axis=0) / 2)
        n_flat = np.where(is_top, counts, 0).sum(axis=(0, 1))
        return list(np.divide(n_flat, self._n_sounding, out=np.zeros_like(n_flat), where=self._n_sounding > 0))

    def _top(self, values: npt.NDArray[Any], sign: int) -> tuple[float, int]:
        """The largest value of one side, and how many samples stay there for a while."""
        extreme = values.max() if sign > 0 else values.min()
        peak = sign * float(extreme)
        at = np.flatnonzero(values == extreme)
        if not peak > self._softest or len(at) < _MIN_RUN:
            return peak, 0
        runs = np.diff(np.flatnonzero(np.diff(at, prepend=-2, append=len(values) + 1) > 1))
        return peak, int(runs[(runs >= _MIN_RUN) & (runs <= self._longest)].sum())
