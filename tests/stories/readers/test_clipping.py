"""Flat tops, told from silence, gates, quiet sounds and the one largest value that every sound has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from brainlit.stories.readers.clipping import FlatTops, clipped_level
from tests.stories.readers.voices import RATE_HZ, syllables

SPEECH = syllables(3, 4)


def part_of(sound: npt.NDArray[np.float64], block: int = 40_000) -> float:
    tops = FlatTops(1, RATE_HZ, softest=0.03)
    for start in range(0, len(sound), block):
        tops.add(sound[start : start + block, None])
    return tops.parts()[0]


def slow_count(sound: npt.NDArray[np.float64]) -> float:
    """Sample by sample: runs of 3 and more at the largest or the smallest value, over samples that are not 0."""
    n_flat = n_run = 0
    values, largest = sound.tolist(), float(np.abs(sound).max())
    for k, value in enumerate(values):
        n_run = n_run + 1 if k and value == values[k - 1] and abs(value) == largest else 1
        n_flat += 3 if n_run == 3 else n_run > 3
    return n_flat / np.count_nonzero(sound)


@pytest.mark.parametrize("limit", [0.035, 0.06, 0.1])
@pytest.mark.parametrize("gain", [1.0, 9.0])
def test_flat_tops_are_counted(limit: float, gain: float) -> None:
    flat = gain * np.clip(SPEECH, -limit, limit)
    assert part_of(flat) == pytest.approx(slow_count(flat), rel=1e-9)
    assert part_of(flat) > 1e-3


def test_silence_does_not_hide_clipping_and_is_none() -> None:
    flat = np.clip(SPEECH, -0.04, 0.04)
    silence = np.zeros(5 * len(flat))
    assert part_of(np.concatenate([silence, flat])) == pytest.approx(part_of(flat))
    assert part_of(silence) == 0
    assert part_of(np.maximum(SPEECH, 0)) == 0, "a sound that only swings upwards has its silence at its lowest value"


@pytest.mark.parametrize("name", ["whole", "gate", "constant", "quiet steps"])
def test_what_is_no_clipping_is_not_counted(name: str) -> None:
    gate = np.where(np.arange(len(SPEECH)) % 8000 < 2000, 0.5, 0.0)
    sounds = {"whole": SPEECH, "gate": gate, "constant": 0 * SPEECH + 0.5, "quiet steps": np.rint(SPEECH * 30) / 1000}
    assert part_of(sounds[name]) == 0


def test_each_channel_has_its_own_limit() -> None:
    tops = FlatTops(2, RATE_HZ, softest=0.03)
    tops.add(np.column_stack([np.clip(SPEECH, -0.04, 0.04), SPEECH]))
    first, second = tops.parts()
    assert first > 0.01 > second == 0


def test_levels() -> None:
    assert [clipped_level(part) for part in (0.002, 0.049, 0.051, 1.0)] == ["warning", "warning", "error", "error"]
