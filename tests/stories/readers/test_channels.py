"""What belongs together in the channels of a sound, and what does not, in material as laboratories have it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import fftconvolve, lfilter

from brainlit.stories.readers.channels import Relation, RelationOfChannels, name_of, number_of
from tests.stories.readers.voices import RATE_HZ, syllables

Array = npt.NDArray[np.float64]
SECONDS = 24.0
N = round(SECONDS * RATE_HZ)
TIMES_S = np.arange(N) / RATE_HZ


def relation_of(*channels: Array, block: int = 100_000) -> Relation:
    sound = np.column_stack(channels)
    gather = RelationOfChannels(sound.shape[1], RATE_HZ, 1.0)
    for start in range(0, len(sound), block):
        gather.add(sound[start : start + block])
    return gather.result()


def noise(db: float, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(N) * 10 ** (db / 20)


def in_room(sound: Array, delay_s: float, reverberation_s: float, seed: int) -> Array:
    """Direct sound after a delay, and an echo that has four times its energy and dies away exponentially."""
    n = round(reverberation_s * RATE_HZ)
    echo = np.random.default_rng(seed).standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    echo *= 2 / np.sqrt((echo**2).sum())
    echo[round(delay_s * RATE_HZ)] += 1
    return np.asarray(fftconvolve(sound, echo)[:N])


SPEECH, OTHER = syllables(1, SECONDS), syllables(2, SECONDS)
LOUD = np.convolve(np.abs(SPEECH), np.ones(400) / 400, "same") > 0.01
"""Where a syllable sounds."""
ONSETS = np.flatnonzero(np.diff(LOUD.astype(int)) == 1)
WIDE = [lfilter([1], [1, -0.9], noise(-34, seed)) for seed in (1, 2)]

STRANGERS: dict[str, Callable[[], Array]] = {
    "a trigger every 2 s": lambda: np.where(TIMES_S % 2 < 0.01, 0.95, 0),
    "one sample per TR": lambda: np.where(np.arange(N) % 24_000 == 0, 0.8, 0),
    "triggers with a little of the speech": lambda: np.where(TIMES_S % 2 < 0.01, 0.95, 0) + 0.03 * SPEECH,
    "a trigger at every syllable": lambda: np.isin(np.arange(N) // 160, ONSETS // 160) * 0.5,
    "a pulse as long as each syllable": lambda: 0.5 * LOUD,
    "a pulse as long as the story": lambda: 0.5 * ((TIMES_S > 1) & (TIMES_S < SECONDS - 1)),
    "hum": lambda: 0.1 * np.sin(2 * np.pi * 50 * TIMES_S),
    "hiss": lambda: noise(-40),
    "another speaker": lambda: OTHER,
}
ONE_SOUND: dict[str, Callable[[], tuple[Array, Array]]] = {
    "the same twice": lambda: (SPEECH, SPEECH),
    "panned": lambda: (SPEECH, 0.25 * SPEECH + noise(-60)),
    "a noisy tape": lambda: (SPEECH + noise(-30, 1), SPEECH + noise(-30, 2)),
    "wide music behind speech": lambda: (SPEECH + WIDE[0], SPEECH + WIDE[1]),
    "two microphones in a room": lambda: (in_room(SPEECH, 0.001, 0.4, 1), in_room(SPEECH, 0.006, 0.4, 2)),
    "two microphones in a hall": lambda: (in_room(SPEECH, 0.001, 2.0, 1), in_room(SPEECH, 0.01, 2.0, 2)),
    "two speakers panned": lambda: (0.8 * SPEECH + 0.2 * OTHER, 0.2 * SPEECH + 0.8 * OTHER),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_channels_that_are_no_part_of_the_sound_are_found(what: str) -> None:
    for channels in ((SPEECH, STRANGERS[what]()), (STRANGERS[what](), SPEECH)):
        relation = relation_of(*channels)
        assert relation.strangers(relation.heard) == (0, 1) or relation.heard != [0, 1]
        assert not relation.cancels
    if what not in ("one sample per TR", "hiss"):  # which may be left out as silence
        assert relation.heard == [0, 1]


@pytest.mark.parametrize("what", ONE_SOUND)
def test_stereo_of_one_scene_is_one_sound(what: str) -> None:
    relation = relation_of(*ONE_SOUND[what]())
    assert relation.heard == [0, 1]
    assert relation.strangers([0, 1]) is None
    assert not relation.cancels


@pytest.mark.parametrize("gain", [1.0, 0.8, 0.4])
def test_a_turned_polarity_cancels(gain: float) -> None:
    assert relation_of(SPEECH, -gain * SPEECH).cancels
    assert relation_of(SPEECH + noise(-40, 1), -gain * SPEECH + noise(-40, 2)).cancels
    assert relation_of(SPEECH, -gain * SPEECH).cancelled_part == pytest.approx(1)


def test_a_constant_added_to_a_channel_changes_nothing() -> None:
    plain, moved = relation_of(SPEECH, OTHER), relation_of(SPEECH + 0.5, OTHER - 0.3)
    np.testing.assert_allclose(moved.waveform_r, plain.waveform_r, atol=1e-6)
    np.testing.assert_allclose(moved.loudness_r, plain.loudness_r, atol=1e-6)
    np.testing.assert_allclose(moved.level_db, plain.level_db, atol=1e-3)


def test_r_of_the_waveforms_is_numpys_whatever_the_blocks() -> None:
    expected = np.corrcoef(SPEECH, 0.5 * SPEECH + OTHER)
    for block in (N, 70_001):
        relation = relation_of(SPEECH, 0.5 * SPEECH + OTHER, block=block)
        np.testing.assert_allclose(relation.waveform_r, expected, atol=1e-6)
    np.testing.assert_allclose(relation.level_db[0], 20 * np.log10(SPEECH.std()), atol=1e-6)


def test_channels_may_belong_together_through_a_third() -> None:
    relation = relation_of(SPEECH, SPEECH + OTHER, OTHER)
    assert abs(relation.waveform_r[0, 2]) < 0.1
    assert relation.strangers([0, 1, 2]) is None
    assert relation.strangers([0, 2]) == (0, 2)


def test_short_sounds_are_not_judged_and_silence_is_heard_if_there_is_nothing_else() -> None:
    short = slice(0, 8 * RATE_HZ)
    assert relation_of(SPEECH[short], OTHER[short]).strangers([0, 1]) is None
    nothing = relation_of(np.zeros(1000), np.zeros(1000))
    assert nothing.heard == [0, 1]
    assert not nothing.cancels


def test_names() -> None:
    assert [number_of("left"), number_of("right"), number_of(5)] == [0, 1, 5]
    assert [name_of(1, 2), name_of(1, 3)] == ["channel 1 (right)", "channel 1"]
