"""A story made by hand: a tone in silence, three words, four phones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainlit.stories import Intervals, Story
from brainlit.timebase import TimeBase

RATE_HZ = 16_000


def intervals(labels: Sequence[str], start_s: Sequence[float], duration_s: float | Sequence[float] = 0.1) -> Intervals:
    """Words or phones with these starts."""
    durations_s = np.broadcast_to(np.asarray(duration_s, dtype=float), len(labels))
    return Intervals(tuple(labels), np.asarray(start_s, dtype=float), durations_s)


def tone_story(
    start_s: float, stop_s: float, tr_s: float = 2.0, n_trs: int = 6, tone_hz: float = 1000.0, onset_s: float = 0.0
) -> Story:
    """12.5 s of silence with a tone from start_s to stop_s."""
    time_s = np.arange(int(12.5 * RATE_HZ)) / RATE_HZ
    tone = 8000 * np.sin(2 * np.pi * tone_hz * time_s) * ((time_s >= start_s) & (time_s < stop_s))
    words = intervals(["a", "don't", "tree"], [0.2, 2.5, 3.2])
    phones = intervals(["B", "AH0", "sp", "N"], [0.0, 1.0, 1.2, 4.0])
    return Story("tone", tone.astype(np.int16), words, phones, TimeBase.regular(n_trs, tr_s, onset_s))


def spoken(text: str, phone_s: float = 0.1) -> Intervals:
    """Phones one after the other without gaps: 'M AA sp M IY'."""
    labels = text.split()
    return intervals(labels, phone_s * np.arange(len(labels)), phone_s)
