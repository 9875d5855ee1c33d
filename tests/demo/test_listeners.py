from dataclasses import replace

import numpy as np
import pytest

from brainlit.demo.listeners import (
    KINDS,
    LOW_LEVEL_FRACTION,
    N_COMPONENTS,
    Listener,
    Stimulus,
    bold_of_events,
    bold_of_frames,
    haemodynamic_response,
    principal_components,
    slow_drift_basis,
    stimulus_of,
    zscore,
)
from brainlit.demo.text import N_DIMENSIONS
from brainlit.timebase import TimeBase

AUDITORY, SEMANTIC = KINDS.index("auditory"), KINDS.index("semantic")
N_SERIES = 29


def stimulus_of_noise(n_trs=2000, seed=0):
    rng = np.random.default_rng(seed)
    low_level, semantic = (zscore(rng.standard_normal((n_trs, n))) for n in (N_SERIES, N_DIMENSIONS))
    return Stimulus(low_level, semantic, TimeBase.regular(n_trs, 2.0))


def listener_of(name="a", seed=0, n_voxels=300, snr=1.0):
    return Listener(name, seed, n_voxels, (0.3, 0.5), snr)


@pytest.fixture(scope="module")
def stimulus():
    return stimulus_of_noise()


@pytest.fixture(scope="module")
def components(stimulus):
    return principal_components([stimulus])


def test_signals_have_the_planted_variance_fractions(stimulus, components):
    listener = listener_of()
    kind, truth = listener.subject.truth["kind"], listener.subject.truth
    signal, low, high = (listener.signals(stimulus, components, part) for part in ("all", "low_level", "semantic"))
    np.testing.assert_allclose(signal[:, kind > 0].std(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose((signal * low).mean(axis=0) ** 2, truth["low_level_fraction"], atol=0.07)
    np.testing.assert_allclose((signal * high).mean(axis=0) ** 2, truth["semantic_fraction"], atol=0.07)
    assert set(truth["low_level_fraction"][kind == SEMANTIC]) == {LOW_LEVEL_FRACTION}
    assert not signal[:, kind == 0].any()


def test_auditory_voxels_are_low_level_components_and_nothing_else(stimulus, components):
    listener = listener_of()
    auditory = listener.subject.truth["kind"] == AUDITORY
    drifts = slow_drift_basis(stimulus.timebase)
    scores = stimulus.low_level @ components
    scores = scores - drifts @ (drifts.T @ scores)
    signal = listener.signals(stimulus, components)[:, auditory]
    fitted = scores @ np.linalg.lstsq(scores, signal, rcond=None)[0]
    np.testing.assert_allclose(fitted, signal, atol=1e-3)
    silent = replace(stimulus, semantic=np.zeros_like(stimulus.semantic))
    np.testing.assert_allclose(listener.signals(silent, components)[:, auditory], signal, atol=1e-5)


def test_the_signal_fraction_is_exact_in_the_data(stimulus, components):
    listener = listener_of()
    signal = listener.signals(stimulus, components)
    response = listener.presentation(signal, stimulus.timebase, "s", 0)
    np.testing.assert_allclose(response.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(response.std(axis=0), 1, atol=1e-3)
    observed = (response * signal).mean(axis=0)
    np.testing.assert_allclose(observed, np.sqrt(listener.subject.truth["signal_fraction"]), atol=0.08)


def test_ceilings_grow_with_the_signal_to_noise_ratio_and_with_repeats(stimulus, components):
    ceilings = []
    for snr in (0.0, 0.5, 1.0, 1.5):
        listener = listener_of(snr=snr)
        signal = listener.signals(stimulus, components)
        semantic = listener.subject.truth["kind"] == SEMANTIC
        one, two = (listener.presentation(signal, stimulus.timebase, "s", k) for k in (0, 1))
        ceilings.append((one * signal).mean(axis=0)[semantic].mean())
        both = zscore(one + two)
        if snr:
            assert (both * signal).mean(axis=0)[semantic].mean() > ceilings[-1] + 0.05
    assert abs(ceilings[0]) < 0.01
    assert (np.diff(ceilings) > 0.08).all()


def test_null_voxels_do_not_know_which_story_was_heard(stimulus, components):
    listener = listener_of()
    null = listener.subject.truth["kind"] == 0
    other = stimulus_of_noise(seed=1)
    heard = [
        listener.presentation(listener.signals(s, components), stimulus.timebase, "s", 0) for s in (stimulus, other)
    ]
    np.testing.assert_array_equal(heard[0][:, null], heard[1][:, null])
    assert not np.allclose(heard[0][:, ~null], heard[1][:, ~null])


def test_noise_is_autocorrelated_without_slow_drift_and_new_each_time(stimulus):
    listener = listener_of()
    silence = np.zeros((stimulus.timebase.n_trs, 300), dtype=np.float32)
    one, two = (listener.presentation(silence, stimulus.timebase, "s", repeat) for repeat in (0, 1))
    assert 0.32 < (one[1:] * one[:-1]).mean() < 0.40, "0.4, less what detrending takes"
    drifts = slow_drift_basis(stimulus.timebase)
    assert np.abs(drifts.T @ one).max() < 1e-2
    assert abs((one * two).mean()) < 0.01
    other_story = listener.presentation(silence, stimulus.timebase, "t", 0)
    assert abs((one * other_story).mean()) < 0.01


def test_listeners_differ_in_places_weights_gain_and_noise(stimulus, components):
    a, b = listener_of("a"), listener_of("b")
    assert not np.array_equal(a.subject.vertices, b.subject.vertices)
    assert a.subject.truth["signal_fraction"].max() != b.subject.truth["signal_fraction"].max()
    signals = [listener.signals(stimulus, components) for listener in (a, b)]
    assert not np.allclose(*signals)
    again = listener_of("a").signals(stimulus, components)
    np.testing.assert_array_equal(again, signals[0])
    assert not np.array_equal(listener_of("a", seed=1).subject.vertices, a.subject.vertices)


def test_blocks_of_voxels_do_not_change_signals(stimulus, components, monkeypatch):
    whole = listener_of().signals(stimulus, components)
    monkeypatch.setattr("brainlit.demo.listeners._VOXELS_PER_BLOCK", 77)
    np.testing.assert_allclose(listener_of().signals(stimulus, components), whole, atol=1e-5)


def test_components_are_orthonormal_ordered_and_signed(stimulus):
    mixing = np.diag(np.linspace(3, 0.5, N_SERIES))
    mixed = replace(stimulus, low_level=stimulus.low_level @ mixing)
    components = principal_components([mixed])
    assert components.shape == (N_SERIES, N_COMPONENTS)
    np.testing.assert_allclose(components.T @ components, np.eye(N_COMPONENTS), atol=1e-10)
    variances = (mixed.low_level @ components).var(axis=0)
    assert (np.diff(variances) <= 1e-9).all()
    assert (components[np.abs(components).argmax(axis=0), np.arange(N_COMPONENTS)] > 0).all()


def test_the_stimulus_of_a_story_is_standardised_and_needs_phones(source):
    story = source.story("story_001")
    stimulus = stimulus_of(story)
    assert stimulus.low_level.shape == (story.timebase.n_trs, N_SERIES)
    np.testing.assert_allclose(stimulus.semantic.std(axis=0), 1)
    with pytest.raises(ValueError, match="'story_001' has no phones"):
        stimulus_of(replace(story, phones=None))


def test_zscore_leaves_constant_columns_at_zero():
    values = np.column_stack([np.arange(5.0), np.full(5, 3.3)])
    np.testing.assert_allclose(zscore(values).std(axis=0), [1, 0])
    assert zscore(values.astype(np.float32)).dtype == np.float32


def test_the_response_is_a_double_gamma():
    times_s = np.arange(-5, 32, 0.01)
    response = haemodynamic_response(times_s)
    assert times_s[response.argmax()] == pytest.approx(5.0, abs=0.05)
    assert times_s[response.argmin()] == pytest.approx(15.5, abs=1.5)
    assert not response[times_s < 0].any()
    assert response.sum() * 0.01 == pytest.approx(1 - 1 / 6, abs=0.01)


@pytest.mark.parametrize(("tr_s", "lag"), [(1.2, 4), (1.5, 3), (2.0, 2), (2.0045, 2), (5.0, 1)])
def test_an_event_in_the_middle_of_row_j_peaks_at_the_row_that_ends_nearest_5_s_later(tr_s, lag):
    timebase = TimeBase.regular(430, tr_s)
    for row in (20, 400):
        middle_s = timebase.tr_edges_s(row, 1).mean()
        bold = bold_of_events(np.ones((1, 1)), [middle_s], timebase)
        assert bold[:, 0].argmax() == row + lag


def test_equals_an_explicit_sum_over_bins():
    rng = np.random.default_rng(0)
    timebase = TimeBase(np.array([-1.0, 1.0, 2.9, 5.0, 7.2, 9.1, 11.0, 13.0]), 2.0)
    times_s, values = np.sort(rng.uniform(-1, 15, 30)), rng.standard_normal((30, 2))
    n_bins = int(np.ceil(16.0 / 0.1)) + 1
    bins = np.zeros((n_bins, 2))
    for time_s, value in zip(times_s, values, strict=True):
        bins[int((time_s + 1.0) // 0.1)] += value
    bins -= bins.mean(axis=0)
    middles_s = -1.0 + (np.arange(n_bins) + 0.5) * 0.1
    expected = np.zeros((8, 2))
    for row, end_s in enumerate(timebase.tr_ends_s):
        for middle_s, value in zip(middles_s, bins, strict=True):
            expected[row] += 0.1 * value * haemodynamic_response(end_s - middle_s)
    np.testing.assert_allclose(bold_of_events(values, times_s, timebase), expected, atol=2e-3 * np.abs(expected).max())


def test_frames_and_events_of_the_same_thing_agree():
    timebase = TimeBase.regular(30, 2.0)
    times_s = np.arange(0.05, 60, 0.1)
    series = np.sin(times_s / 3)[:, None]
    np.testing.assert_allclose(
        bold_of_frames(series, times_s, timebase), bold_of_events(series, times_s, timebase), atol=1e-9
    )


def test_a_constant_sound_has_no_onset_response():
    timebase = TimeBase.regular(30, 2.0)
    times_s = np.arange(0.005, 60.1, 0.01)
    np.testing.assert_allclose(bold_of_frames(np.full((len(times_s), 1), 7.0), times_s, timebase), 0, atol=1e-9)


@pytest.mark.parametrize(("n_trs", "n_drifts"), [(8, 3), (64, 5), (105, 6)])
def test_the_drift_basis_is_orthonormal_and_holds_the_slow_shapes(n_trs, n_drifts):
    basis = slow_drift_basis(TimeBase.regular(n_trs, 2.0))
    assert basis.shape == (n_trs, n_drifts)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n_drifts), atol=1e-10)
    t = np.linspace(-1, 1, n_trs)
    for shape in (np.ones(n_trs), t, t**2):
        np.testing.assert_allclose(shape - basis @ (basis.T @ shape), 0, atol=1e-9)
    fast = np.cos(np.pi * np.arange(n_trs))
    assert np.linalg.norm(fast - basis @ (basis.T @ fast)) > 0.9 * np.linalg.norm(fast)
