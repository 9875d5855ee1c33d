from dataclasses import replace

import numpy as np
import pytest

from brainlit.demo.haemodynamics import (
    bold_of_events,
    bold_of_frames,
    response_basis,
    slow_drift_basis,
)
from brainlit.demo.listeners import (
    KINDS,
    LOW_LEVEL_FRACTION,
    N_COLUMNS,
    N_COMPONENTS,
    N_MELS,
    Listener,
    Stimulus,
    principal_components,
    stimulus_of,
    zscore,
)
from brainlit.demo.text import N_DIMENSIONS, random_stream, word_vectors
from brainlit.features.linguistic import phone_class_table
from brainlit.features.spectral import envelope_frames, mel_frames
from brainlit.timebase import TimeBase

AUDITORY, SEMANTIC = KINDS.index("auditory"), KINDS.index("semantic")
N_SERIES = 29


def stimulus_of_noise(n_trs=2000, seed=0):
    """White noise, other noise under each curve; the average response is the first curve."""
    rng = np.random.default_rng(seed)
    basis = replace(response_basis("varied"), average=np.eye(10)[0])
    n_columns = dict(N_COLUMNS) | {"low_level": N_SERIES}
    del n_columns["attention"]
    series = {
        part: np.stack([zscore(rng.standard_normal((n_trs, n))) for _ in basis.average])
        for part, n in n_columns.items()
    }
    return Stimulus(series, rng.uniform(0, 1, 20 * n_trs), "s", TimeBase.regular(n_trs, 2.0), basis)


def with_series(stimulus, **changes):
    return replace(stimulus, series={**stimulus.series, **changes})


SHARES_OF_TWO = {"auditory": 0.3, "semantic": 0.5}
SHARES_OF_ALL = {"auditory": 0.2, "semantic": 0.2} | dict.fromkeys(KINDS[3:], 0.12)


def listener_of(name="a", seed=0, n_voxels=300, snr=1.0, shares=SHARES_OF_TWO):
    return Listener(name, seed, n_voxels, shares, snr)


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
    scores = np.concatenate(list(stimulus.series["low_level"] @ components), axis=1)
    scores = scores - drifts @ (drifts.T @ scores)
    signal = listener.signals(stimulus, components)[:, auditory]
    fitted = scores @ np.linalg.lstsq(scores, signal, rcond=None)[0]
    np.testing.assert_allclose(fitted, signal, atol=1e-3)
    silent = with_series(stimulus, semantic=np.zeros_like(stimulus.series["semantic"]))
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
    assert not np.allclose(a.subject.truth["peak_s"], b.subject.truth["peak_s"])
    again = listener_of("a").signals(stimulus, components)
    np.testing.assert_array_equal(again, signals[0])
    assert not np.array_equal(listener_of("a", seed=1).subject.vertices, a.subject.vertices)


def test_blocks_of_voxels_do_not_change_signals(stimulus, components, monkeypatch):
    whole = listener_of().signals(stimulus, components)
    monkeypatch.setattr("brainlit.demo.listeners._VOXELS_PER_BLOCK", 77)
    np.testing.assert_allclose(listener_of().signals(stimulus, components), whole, atol=1e-5)


def test_components_are_orthonormal_ordered_and_signed(stimulus):
    mixing = np.diag(np.linspace(3, 0.5, N_SERIES))
    mixed = with_series(stimulus, low_level=stimulus.series["low_level"] @ mixing)
    components = principal_components([mixed])
    assert components.shape == (N_SERIES, N_COMPONENTS)
    np.testing.assert_allclose(components.T @ components, np.eye(N_COMPONENTS), atol=1e-10)
    variances = (mixed.series["low_level"][0] @ components).var(axis=0)
    assert (np.diff(variances) <= 1e-9).all()
    assert (components[np.abs(components).argmax(axis=0), np.arange(N_COMPONENTS)] > 0).all()


def test_the_stimulus_of_a_story_is_standardised_and_needs_phones(source):
    story = source.story("story_001")
    stimulus = stimulus_of(story)
    n_curves = len(stimulus.basis.curves)
    assert stimulus.series["low_level"].shape == (n_curves, story.timebase.n_trs, N_SERIES)
    for part, series in stimulus.series.items():
        np.testing.assert_allclose(series.mean(axis=1), 0, atol=1e-9, err_msg=part)
    average = stimulus.average_low_level()
    np.testing.assert_allclose(average.std(axis=0), 1)
    # series through the average response, without the curves
    sound = mel_frames(story, N_MELS)
    curve = replace(stimulus.basis, curves=stimulus.basis.average[None] @ stimulus.basis.curves)
    np.testing.assert_allclose(average[:, :N_MELS], zscore(bold_of_frames(*sound, story.timebase, curve)[0]), atol=1e-9)
    with pytest.raises(ValueError, match="'story_001' has no phones"):
        stimulus_of(replace(story, phones=None))


def test_zscore_leaves_constant_columns_at_zero():
    values = np.column_stack([np.arange(5.0), np.full(5, 3.3)])
    np.testing.assert_allclose(zscore(values).std(axis=0), [1, 0])
    assert zscore(values.astype(np.float32)).dtype == np.float32


def test_canonical_listeners_are_one_matrix_product_per_kind(source):
    """The canonical response, written out."""
    stories = [source.story(name) for name in ("story_001", "story_002")]
    canonical = [stimulus_of(story, "canonical") for story in stories]
    series = []
    for story in stories:
        clock, phones = story.timebase, np.column_stack([np.ones(len(story.phones)), phone_class_table(story)])
        rms, rms_times_s = envelope_frames(story)
        meaning = np.stack([word_vectors().get(w.lower(), np.zeros(N_DIMENSIONS)) for w in story.words.labels])
        low_level = [
            bold_of_frames(*mel_frames(story, N_MELS), clock)[0],
            bold_of_frames(rms[:, None], rms_times_s, clock)[0],
            bold_of_events(phones, story.phones.middle_s, clock)[0],
            bold_of_events(np.ones((len(story.words), 1)), story.words.middle_s, clock)[0],
        ]
        semantic = bold_of_events(meaning, story.words.middle_s, clock)[0]
        series.append((zscore(np.column_stack(low_level)), zscore(semantic)))
    stacked = np.concatenate([low_level for low_level, _ in series])
    components = principal_components(canonical)
    largest = np.linalg.eigh(stacked.T @ stacked)[1][:, ::-1][:, :N_COMPONENTS]
    np.testing.assert_array_equal(np.abs(components), np.abs(largest))

    listener = replace(listener_of(), hrf="canonical")
    rng_weights = random_stream(0, "weights", "a")
    low_weights, weights = (rng_weights.standard_normal((n, 300)) for n in (N_COMPONENTS, N_DIMENSIONS))
    truth, drifts = listener.subject.truth, slow_drift_basis(stories[0].timebase)
    low_level, semantic = series[0][0] @ components, series[0][1]
    low = zscore((low_level - drifts @ (drifts.T @ low_level)) @ low_weights) * (truth["kind"] > 0)
    high = zscore((semantic - drifts @ (drifts.T @ semantic)) @ weights) * (truth["kind"] == SEMANTIC)
    mixed = zscore(np.sqrt(truth["low_level_fraction"]) * low + np.sqrt(truth["semantic_fraction"]) * high)
    for part, expected in {"all": mixed, "low_level": low, "semantic": high}.items():
        found = listener.signals(canonical[0], components, part)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert "peak_s" not in truth


def test_only_the_responses_of_voxels_change_with_hrf():
    varied, canonical = listener_of(), replace(listener_of(), hrf="canonical")
    np.testing.assert_array_equal(varied.subject.vertices, canonical.subject.vertices)
    for name, values in canonical.subject.truth.items():
        np.testing.assert_array_equal(varied.subject.truth[name], values)


@pytest.fixture(scope="module")
def isolated_events():
    """When 240 events 32 to 40 s apart happened, and what a first series of such events and no other is heard as."""
    rng = np.random.default_rng(0)
    times_s = 20 + np.cumsum(rng.uniform(32, 40, 240))
    clock, basis = TimeBase.regular(int(times_s[-1] / 2) + 30, 2.0), response_basis("varied")
    heard = bold_of_events(np.ones((len(times_s), 1)), times_s, clock, basis)
    heard /= (basis.average @ heard[:, :, 0]).std()
    low_level, semantic = (np.concatenate([heard, np.zeros((*heard.shape[:2], n - 1))], axis=2) for n in (N_SERIES, 24))
    return times_s, Stimulus({"low_level": low_level, "semantic": semantic}, np.ones(1), "s", clock, basis)


def test_what_follows_isolated_events_is_the_planted_response(isolated_events):
    times_s, stimulus = isolated_events
    listener = listener_of(n_voxels=60)
    signal = listener.signals(stimulus, np.eye(N_SERIES)[:, :N_COMPONENTS])
    ends_s = stimulus.timebase.tr_ends_s
    # every sample of the first 30 s after any event, by its time after it
    lags_s = ends_s - times_s[np.searchsorted(times_s, ends_s) - 1]
    inside = (ends_s > times_s[0]) & (lags_s < 30)
    order = np.argsort(lags_s[inside])
    lags_s, samples = lags_s[inside][order], signal[inside][order]
    planted = listener.haemodynamics.at(lags_s)
    for voxel in np.flatnonzero(listener.subject.truth["kind"] > 0):
        match = np.corrcoef(samples[:, voxel], planted[voxel])[0, 1]
        assert abs(match) > 0.98, "the sign of its only weight, and the slow part that detrending takes out, are free"
        peak_s = listener.subject.truth["peak_s"][voxel]
        near = np.abs(lags_s - peak_s) < 2
        curve = np.polynomial.Polynomial.fit(lags_s[near], samples[near, voxel] * np.sign(match), 4)
        around_s = np.arange(peak_s - 1.5, peak_s + 1.5, 0.01)
        assert around_s[curve(around_s).argmax()] == pytest.approx(peak_s, abs=0.2)


def test_signals_are_the_sum_of_every_voxels_own_responses():
    """Mixing from curves leaves no trace: an explicit sum over events, detrended, is the signal."""
    rng = np.random.default_rng(0)
    clock, basis = TimeBase.regular(90, 1.5), response_basis("varied")
    times_s = (np.sort(rng.choice(1340, 120, replace=False)) + 0.5) * 0.1  # the middles of bins
    values = rng.standard_normal((120, N_SERIES + N_DIMENSIONS))
    heard = bold_of_events(values, times_s, clock, basis)
    series = {"low_level": heard[:, :, :N_SERIES], "semantic": heard[:, :, N_SERIES:]}
    stimulus = Stimulus(series, np.ones(1), "s", clock, basis)
    components = np.linalg.qr(rng.standard_normal((N_SERIES, N_COMPONENTS)))[0]
    listener, drifts = listener_of(n_voxels=40), slow_drift_basis(clock)
    n_bins = 1351
    bins = np.zeros((n_bins, values.shape[1]))
    bins[(times_s * 10).astype(int)] = values
    bins -= bins.mean(axis=0)
    # the nearest two bins of each read-out, weighed equally: volumes end at the border between them
    lags_s = clock.tr_ends_s[:, None] - (np.arange(n_bins) + 0.5) * 0.1
    weights = random_stream(0, "weights", "a")
    low_weights, high_weights = (weights.standard_normal((n, 40)) for n in (N_COMPONENTS, N_DIMENSIONS))
    driven = [bins[:, :N_SERIES] @ components @ low_weights, bins[:, N_SERIES:] @ high_weights]
    found = [listener.signals(stimulus, components, part) for part in ("low_level", "semantic")]
    for voxel in np.flatnonzero(listener.subject.truth["kind"] == SEMANTIC):
        own = listener.haemodynamics.of(slice(voxel, voxel + 1))
        response = (own.at((lags_s - 0.05).ravel()) + own.at((lags_s + 0.05).ravel())).reshape(lags_s.shape) / 2
        for series, signals in zip(driven, found, strict=True):
            expected = response @ series[:, voxel]
            expected = zscore((expected - drifts @ (drifts.T @ expected))[:, None])[:, 0]
            np.testing.assert_allclose(signals[:, voxel], expected, atol=0.01)


@pytest.mark.parametrize("n_voxels", [1, 2, 5])
def test_few_voxels_have_signals_too(stimulus, components, n_voxels):
    listener = Listener("a", 0, n_voxels, {"auditory": 1.0}, 1.0)
    signal = listener.signals(stimulus, components)
    np.testing.assert_allclose(signal.std(axis=0), np.ones(n_voxels), atol=1e-3)
    assert len(listener.subject.truth["peak_s"]) == n_voxels
