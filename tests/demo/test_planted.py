"""What was planted to embarrass, against references of its own: filters by their impulse responses, sums by loops."""

from dataclasses import replace

import numpy as np
import pytest

from brainlit.demo.haemodynamics import response_basis
from brainlit.demo.listeners import KINDS, N_COLUMNS, PARTS, SHARES, Listener, stimulus_of, zscore
from brainlit.demo.planted import (
    INTEGRATION_S,
    RATES_HZ,
    SCALES_PER_OCTAVE,
    arousal_bins,
    attention_course,
    brain_only_values,
    loudness_bins,
    modulation_energies,
    modulation_frames,
    slow_noise,
)
from brainlit.demo.text import CATEGORIES, category_of, word_vectors
from brainlit.features.spectral import envelope_frames

STEP_S, N_CHANNELS = 0.02, 49


def ripple(rate_hz, scale, n_frames=1000):
    """A moving grating on the axes of the filters; with a negative scale it moves the other way."""
    t, octave = np.arange(n_frames)[:, None] * STEP_S, np.arange(N_CHANNELS) / 8
    return np.cos(2 * np.pi * (rate_hz * t + scale * octave))


@pytest.mark.parametrize("rate", range(4))
@pytest.mark.parametrize("scale", range(1, 4))
def test_a_moving_grating_has_most_energy_in_its_own_filter(rate, scale):
    energies = [
        modulation_energies(ripple(RATES_HZ[rate], way * SCALES_PER_OCTAVE[scale]), STEP_S)[200:-200].mean(axis=0)
        for way in (1, -1)
    ]
    best = [np.unravel_index(energy.argmax(), (4, 4, 2)) for energy in energies]
    assert {tuple(place[:2]) for place in best} == {(rate, scale)}
    assert best[0][2] != best[1][2], "upwards and downwards are told apart"


def test_energies_are_squares_and_do_not_know_the_level():
    rng = np.random.default_rng(0)
    octaves = rng.standard_normal((400, N_CHANNELS))
    energies = modulation_energies(octaves, STEP_S)
    assert energies.shape == (400, 32)
    np.testing.assert_allclose(modulation_energies(3 * octaves, STEP_S), 9 * energies, rtol=1e-3)
    np.testing.assert_allclose(modulation_energies(octaves + 5, STEP_S), energies, rtol=1e-3, atol=1e-5)


def test_onsets_are_rises_of_the_sound(source):
    story = source.story("story_001")
    audio = np.zeros_like(story.audio)
    noise = np.random.default_rng(0).integers(-8000, 8000, 16_000).astype(np.int16)
    audio[32_000:48_000] = noise  # from 2 s to 3 s
    frames, times_s = modulation_frames(replace(story, audio=audio))
    onsets = frames[:, 32:].sum(axis=1)
    assert frames.shape[1] == N_COLUMNS["modulation"]
    assert times_s[onsets.argmax()] == pytest.approx(2.0, abs=0.03)
    around = np.abs(times_s - 3.0) < 0.1
    assert onsets[around].max() < 0.2 * onsets.max(), "the end is no onset"
    assert not onsets[times_s > 3.2].any()


def test_attention_is_positive_slow_and_each_listeners_own():
    course = attention_course(np.random.default_rng(0), 20_000)
    assert course.min() > 0
    assert np.corrcoef(course[10:], course[:-10])[0, 1] > 0.9, "one second later it is much the same"
    assert abs(np.corrcoef(course[1200:], course[:-1200])[0, 1]) < 0.3, "two minutes later it is not"


def test_slow_noise_has_unit_variance_and_the_width_that_is_asked_for():
    rng = np.random.default_rng(1)
    noise = np.concatenate([slow_noise(rng, 5000, 2.0) for _ in range(20)])
    assert noise.std() == pytest.approx(1, abs=0.1)
    lagged = np.corrcoef(noise[20:], noise[:-20])[0, 1]
    assert lagged == pytest.approx(np.exp(-((2.0 / 2.0) ** 2) / 4), abs=0.05), "bells of 2 s, two seconds apart"


def test_arousal_integrates_loudness_and_rates(source):
    story = source.story("story_001")
    rms, _ = envelope_frames(story)
    loudness = loudness_bins(rms)
    np.testing.assert_allclose(loudness[7], rms[70:80].mean())
    found = arousal_bins(story, loudness, np.random.default_rng(0))
    assert found.shape == (len(loudness), N_COLUMNS["arousal"])
    for number, constant_s in enumerate(INTEGRATION_S):
        heard = (loudness - loudness.mean()) / loudness.std()
        level, integrated = 0.0, []
        for value in heard:  # a leaky bucket, step by step
            level += (1 - np.exp(-0.1 / constant_s)) * (value - level)
            integrated.append(level)
        np.testing.assert_allclose(found[:, 3 * number], integrated, atol=1e-9)
    again = arousal_bins(story, loudness, np.random.default_rng(1))
    np.testing.assert_array_equal(found[:, :6], again[:, :6])
    assert not np.allclose(found[:, 6:], again[:, 6:]), "the part of the story that no sound has"


def test_what_only_the_brain_knows_is_in_no_vector_and_in_no_place_of_a_sentence():
    values = np.array([brain_only_values()[word] for word in category_of()])
    vectors = np.stack([word_vectors()[word] for word in category_of()])
    assert values.std() == pytest.approx(1)
    assert np.abs(vectors.T @ values).max() < 1e-9
    for category in CATEGORIES.values():
        for slot in category:
            own = np.array([brain_only_values()[word] for word in slot])
            assert abs(own.sum()) < 1e-9
            assert (own > 0).sum() * 2 == len(own)
    assert np.median(np.abs(values)) == pytest.approx(1, abs=0.15), "about +1 or -1"


@pytest.fixture(scope="module")
def listener():
    shares = {"auditory": 0.2, "semantic": 0.2} | dict.fromkeys(KINDS[3:], 0.12)
    return Listener("a", 0, 100, shares, 1.0)


@pytest.fixture(scope="module")
def stimulus(source):
    return stimulus_of(source.story("story_001"))


def components():
    return np.eye(29)[:, :8]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_each_kind_of_voxel_is_made_of_its_own_parts_only(listener, stimulus, kind):
    voxels = listener.subject.truth["kind"] == KINDS.index(kind)
    parts = {part: listener.signals(stimulus, components(), part)[:, voxels] for part in PARTS}
    assert {part for part, signal in parts.items() if signal.any()} == set(SHARES[kind])
    mixed = sum(np.sqrt(share) * parts[part] for part, share in SHARES[kind].items())
    np.testing.assert_allclose(listener.signals(stimulus, components())[:, voxels], zscore(mixed), atol=1e-4)
    for part in PARTS:
        assert set(listener.subject.truth[f"{part}_fraction"][voxels]) == {SHARES[kind].get(part, 0.0)}


@pytest.mark.parametrize("kind", ["auditory", "modulation", "attention", "arousal"])
def test_no_planted_null_knows_a_word(listener, stimulus, kind):
    """Other meanings of all words leave these voxels as they are, to the last bit."""
    voxels = listener.subject.truth["kind"] == KINDS.index(kind)
    changed = {part: np.zeros_like(stimulus.series[part]) for part in ("semantic", "brain_only")}
    meaningless = replace(stimulus, series={**stimulus.series, **changed})
    before, after = (listener.signals(heard, components())[:, voxels] for heard in (stimulus, meaningless))
    np.testing.assert_array_equal(before, after)


def test_attention_is_the_same_in_every_repeat_and_another_for_every_listener_and_story(listener, stimulus):
    voxels = listener.subject.truth["kind"] == KINDS.index("attention")
    heard = listener.signals(stimulus, components(), "attention")[:, voxels]
    np.testing.assert_array_equal(listener.signals(stimulus, components(), "attention")[:, voxels], heard)
    other_story = listener.signals(replace(stimulus, story="t"), components(), "attention")[:, voxels]
    other = replace(listener, name="b")
    other_voxels = other.subject.truth["kind"] == KINDS.index("attention")
    other_heard = other.signals(stimulus, components(), "attention")[:, other_voxels]
    for changed in (other_story, other_heard):
        assert not np.allclose(changed.mean(axis=1), heard.mean(axis=1), atol=0.1)


def test_an_attended_story_is_loudness_times_attention(stimulus):
    """Without ups and downs of attention it is loudness, as the probe's own envelope has it."""
    steady = stimulus.attended(np.full(len(stimulus.loudness), 2.0))
    mean = np.tensordot(response_basis("varied").average, steady, axes=1)[:, 0]
    envelope = stimulus.average_low_level()[:, 20]
    assert np.corrcoef(mean, envelope)[0, 1] > 0.998
