"""Lag of responses, words against sound, drift: pure functions against slow references, simulations and real data."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from brainlit.demo import DemoSource
from brainlit.demo.haemodynamics import haemodynamic_response
from brainlit.features.spectral import envelope_frames
from brainlit.store import StoryStore, build_store, check_store
from brainlit.store.checks.findings import Finding
from brainlit.store.checks.stories import (
    HOP_S,
    align,
    drift_of_words_s,
    loudness,
    sample_rate_ratios,
    word_mask,
    wrong_rate,
)
from brainlit.store.checks.timing import (
    ERROR_P,
    MAX_P,
    MIN_LOG_ODDS,
    LagEstimate,
    LagEvidence,
    agreement,
    clock_drift_s,
    expected_responses,
    lag_of_match,
    lag_of_strength,
    lags_s_of,
    matches_of_stories,
    shifts_to_try,
    strength,
    surrogates,
)
from brainlit.stories import ManifestSource, Story
from brainlit.stories.readers.cleaning import drift_basis
from brainlit.timebase import TimeBase

TR_S = 2.0
MANIFEST = Path(__file__).parents[3] / "data" / "alice" / "manifest.yaml"
Array = npt.NDArray[np.float64]


def _rates(rng: np.random.Generator, n_trs: int) -> Array:
    """Two rates that share half of what they do, and change slowly, as words and loudness do."""
    noise = rng.standard_normal((n_trs, 2)) + rng.standard_normal((n_trs, 1))
    for row in range(1, n_trs):
        noise[row] += 0.5 * noise[row - 1]
    return noise


def _noise(rng: np.random.Generator, n_trs: int, n_voxels: int) -> Array:
    """Autoregressive noise, most of it shared by all voxels."""
    noise = 0.6 * rng.standard_normal((n_trs, n_voxels)) + 0.8 * rng.standard_normal((n_trs, 1))
    for row in range(1, n_trs):
        noise[row] += 0.4 * noise[row - 1]
    return noise


def _lags(n_trs: int, tr_s: float = TR_S) -> tuple[npt.NDArray[np.int64], Array]:
    shifts = shifts_to_try(n_trs, tr_s)
    assert shifts is not None
    return shifts, lags_s_of(shifts, tr_s)


def _estimate(rates: Array, responses: Array, seed: int = 0) -> LagEstimate:
    shifts, lags_s = _lags(len(rates))
    found = agreement(expected_responses(rates, TR_S), responses, TR_S, shifts, np.random.default_rng(seed))
    return lag_of_strength([strength(found)], lags_s)


def test_the_response_is_the_canonical_one_and_peaks_at_five_seconds() -> None:
    times_s = np.arange(0, 32, 0.1)
    written_out = (times_s**5 / math.gamma(6) - times_s**15 / math.gamma(16) / 6) * np.exp(-times_s)
    assert np.allclose(haemodynamic_response(times_s), written_out)
    assert times_s[haemodynamic_response(times_s).argmax()] == pytest.approx(5.0, abs=0.05)
    assert not haemodynamic_response([-3.0, 0.0]).any()


@pytest.mark.parametrize("tr_s", [0.5, 1.49, 2.0, 3.0])
def test_lags_reach_from_well_before_the_sound_to_well_after(tr_s: float) -> None:
    for n_trs in (round(100 / tr_s), 2000):
        shifts, lags_s = _lags(n_trs, tr_s)
        assert lags_s[0] <= -15
        assert lags_s[-1] >= 20
        assert len(shifts) < n_trs
    assert shifts_to_try(round(40 / tr_s), tr_s) is None


def test_agreement_is_that_of_slow_loops() -> None:
    rng = np.random.default_rng(0)
    n_trs, shifts = 64, np.array([-3, 0, 5])
    rates, voxels = _rates(rng, n_trs), _noise(rng, n_trs, 3)
    voxels[10, 0] = 40.0  # a spike
    found = agreement(rates, voxels, TR_S, shifts, rng)
    basis = drift_basis(n_trs, TR_S, 128.0)
    x, y = (values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0] for values in (rates, voxels))
    noise = np.median([np.sum(y[1:, v] * y[:-1, v]) / np.sum(y[:, v] ** 2) for v in range(3)])
    assert 0 < noise < 0.8
    for values in (x, y):
        values[1:] = [values[t] - noise * values[t - 1] for t in range(1, n_trs)]
        values[0] *= np.sqrt(1 - noise**2)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.clip((y - y.mean(axis=0)) / y.std(axis=0), -4, 4)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    for row, shift in enumerate(shifts):
        for column, (k, v) in enumerate([(k, v) for k in range(2) for v in range(3)]):
            slow = sum(x[t, k] * y[(t + shift) % n_trs, v] for t in range(n_trs))
            assert found.at_lags[row, column] == pytest.approx(slow, abs=1e-3)
    assert found.at_chance.shape == (200, 6)


def test_surrogates_keep_spectra_and_what_the_rates_share() -> None:
    rng = np.random.default_rng(1)
    for n_trs in (60, 61):
        rates = _rates(rng, n_trs)
        drawn = surrogates(rates, 5, rng)
        spectrum, other = np.fft.rfft(rates, axis=0), np.fft.rfft(drawn, axis=1)
        assert np.allclose(np.abs(other), np.abs(spectrum))
        assert np.allclose(other[:, :, 0] * np.conj(other[:, :, 1]), spectrum[:, 0] * np.conj(spectrum[:, 1]))
        assert not np.allclose(drawn[0], drawn[1])


def test_traces_are_those_of_the_covariance_at_chance() -> None:
    rng = np.random.default_rng(2)
    shifts, _ = _lags(300)
    found = agreement(expected_responses(_rates(rng, 300), TR_S), _noise(rng, 300, 6), TR_S, shifts, rng)
    summed = strength(found)
    covariance = np.cov(found.at_chance.T)
    values = np.linalg.eigvalsh(covariance)
    assert np.allclose(summed.at_lags, [(row.astype(float) ** 2).sum() for row in found.at_lags])
    assert summed.traces == pytest.approx([values.sum(), (values**2).sum(), (values**3).sum()], rel=0.25)


@pytest.mark.parametrize("late_trs", [-6, -3, 0, 4, 8])
def test_a_planted_lag_comes_back_whatever_the_sign(late_trs: int) -> None:
    rng = np.random.default_rng(3)
    rates = _rates(rng, 300)
    signal = expected_responses(rates, TR_S).sum(axis=1, keepdims=True)
    signs = np.where(np.arange(20) % 2, 1.0, -1.0)
    responses = np.roll(signs * signal / signal.std(), late_trs, axis=0) + 2 * _noise(rng, 300, 20)
    found = _estimate(rates, responses)
    assert found.lag_s == pytest.approx(5 + late_trs * TR_S, abs=1.0)
    assert found.interval_s[0] <= found.lag_s <= found.interval_s[1]
    assert found.p < MAX_P
    assert (found.log_odds > MIN_LOG_ODDS) == (late_trs != 0)


def test_pure_noise_alarms_in_fewer_than_one_of_a_hundred() -> None:
    """Few voxels that share their noise are the hardest case: one weight decides, and the tail is heavy."""
    rng = np.random.default_rng(4)
    found = [_estimate(_rates(rng, 110), _noise(rng, 110, 6), seed) for seed in range(400)]
    assert sum(one.p < MAX_P and one.log_odds > MIN_LOG_ODDS for one in found) <= 3
    assert sum(one.p < ERROR_P for one in found) == 0
    assert 0.01 < np.mean([one.p < 0.1 for one in found]) < 0.15, "p is neither too small nor useless"


def test_one_moved_story_is_told_by_the_pattern_of_the_others() -> None:
    rng = np.random.default_rng(5)
    shifts, lags_s = _lags(150)
    pattern = rng.standard_normal(30)
    stories = []
    for k in range(6):
        rates = _rates(rng, 150)
        signal = expected_responses(rates, TR_S).sum(axis=1)
        responses = np.outer(np.roll(signal / signal.std(), 4 if k == 2 else 0), pattern) + 2 * _noise(rng, 150, 30)
        stories.append(agreement(expected_responses(rates, TR_S), responses, TR_S, shifts, rng))
    found = [lag_of_match([match], lags_s, (2.0, 8.0)) for match in matches_of_stories(stories)]
    assert found[2].lag_s == pytest.approx(13, abs=1.5)
    assert [one.p * 6 < MAX_P and one.log_odds > MIN_LOG_ODDS for one in found] == [k == 2 for k in range(6)]


def test_constant_voxels_say_nothing() -> None:
    found = _estimate(_rates(np.random.default_rng(6), 100), np.ones((100, 3)))
    assert found.p == 1
    assert np.isnan(found.lag_s)
    assert found.log_odds == -np.inf


def test_drift_of_a_clock() -> None:
    starts_s = TimeBase.regular(355, 2.0045, onset_s=10.0).tr_starts_s
    assert clock_drift_s(starts_s, 2.0) == pytest.approx(354 * 0.0045)
    assert clock_drift_s(starts_s, 2.0045) == pytest.approx(0, abs=1e-9)
    assert clock_drift_s([7.0], 2.0) == 0


@cache
def _spoken() -> tuple[Array, Array, Array]:
    """Word starts and ends of two and a half minutes with a pause now and then, and their loudness."""
    rng = np.random.default_rng(7)
    duration_s = rng.uniform(0.15, 0.6, 330)
    pause_s = np.where(rng.random(330) < 0.2, rng.uniform(0.3, 1.2, 330), 0.0)
    start_s = 2 + np.cumsum(duration_s + pause_s) - duration_s
    end_s = start_s + duration_s
    n_frames = round((end_s[-1] + 3) / HOP_S)
    rms = 0.01 + word_mask(start_s, end_s, n_frames) * rng.uniform(0.05, 0.4, n_frames)
    return start_s, end_s, rms


def test_mask_and_lag_are_those_of_slow_loops() -> None:
    start_s, end_s, rms = _spoken()
    mask = word_mask(start_s, end_s, len(rms))
    slow = np.zeros(len(rms))
    for first, last in zip(start_s, end_s, strict=True):
        slow[round(first / HOP_S) : round(last / HOP_S)] = 1
    assert np.array_equal(mask, slow)
    loud = loudness(np.roll(rms, 100))
    fit = align(mask, loud)
    assert fit is not None
    r = [np.corrcoef(np.roll(mask, lag), loud)[0, 1] for lag in range(0, 200)]
    assert fit.shift_s == pytest.approx(np.argmax(r) * HOP_S)
    assert fit.r == pytest.approx(max(r), abs=0.05)


@pytest.mark.parametrize("shift_s", [-12.0, -0.6, 0.0, 0.1, 10.0, 25.0])
def test_shifted_words_are_found_and_small_shifts_are_not_minded(shift_s: float) -> None:
    start_s, end_s, rms = _spoken()
    fit = align(word_mask(start_s - shift_s, end_s - shift_s, len(rms)), loudness(rms))
    assert fit is not None
    assert fit.convincing
    assert fit.shift_s == pytest.approx(shift_s, abs=0.03)
    assert fit.shifted == (abs(shift_s) > 0.25)


@pytest.mark.parametrize(("taken_hz", "true_hz"), [(48000, 44100), (44100, 48000), (16000, 8000), (16000, 22050)])
def test_a_wrong_sample_rate_is_named(taken_hz: int, true_hz: int) -> None:
    start_s, end_s, rms = _spoken()
    stretch = true_hz / taken_hz
    heard = np.interp(np.arange(round(len(rms) * stretch)) / stretch, np.arange(len(rms)), rms)
    loud = loudness(heard)
    given = align(word_mask(start_s, end_s, len(loud)), loud)
    assert given is not None
    assert not given.convincing
    found = wrong_rate(start_s, end_s, loud)
    assert found is not None
    assert found[0] == pytest.approx(stretch)
    assert found[1][1] / found[1][0] == pytest.approx(stretch)
    assert len(sample_rate_ratios()) == len({float(ratio) for ratio in sample_rate_ratios()})


def test_words_at_another_speed_drift() -> None:
    start_s, end_s, rms = _spoken()
    drift = drift_of_words_s(word_mask(start_s / 1.006, end_s / 1.006, len(rms)), loudness(rms))
    assert drift is not None
    assert drift[1] - drift[0] == pytest.approx(0.006 * 100, abs=0.2)


def test_unrelated_words_and_sound_are_not_judged() -> None:
    start_s, end_s, rms = _spoken()
    rng = np.random.default_rng(8)
    other = np.convolve(rng.standard_normal(len(rms)), np.ones(25), "same")
    fit = align(word_mask(start_s, end_s, len(rms)), other)
    assert fit is not None
    assert not fit.convincing
    assert wrong_rate(start_s, end_s, other) is None
    assert align(np.ones(len(rms)), other) is None
    assert align(np.ones(100), other[:100]) is None


def _moved(store: StoryStore, moved_trs: int) -> list[Finding]:
    """What is said of the real listeners when the clock is some TRs late and the sound goes on in silence."""
    evidence = LagEvidence(store)
    clock = store.timebase("alice")
    audio = store.audio("alice", 0, store.n_samples("alice") + 2 * 16000 * max(moved_trs, 0))
    moved = TimeBase(clock.tr_starts_s + moved_trs * clock.tr_s, clock.tr_s)
    evidence.add_story(Story("alice", audio, store.words("alice"), None, moved))
    for subject in store.subject_names:
        values = store.responses(subject, "alice")
        assert values is not None
        evidence.add_responses("alice", values)
        evidence.close_subject(subject, store.n_voxels(subject))
    return list(evidence.findings())


@pytest.mark.usefixtures("alice")
def test_real_listeners_are_in_order_and_a_clock_three_trs_early_is_found(tmp_path: Path) -> None:
    """Ten listeners, twelve minutes, six regions are little: three TRs late is seen, but not beyond doubt."""
    store = build_store(ManifestSource(str(MANIFEST)), tmp_path, progress=False)
    assert {finding.kind for finding in check_store(tmp_path, progress=False)} == {"left_out"}
    assert _moved(store, 0) == []
    (early,) = _moved(store, -3)
    assert (early.kind, early.level, early.where) == ("response_lag", "warning", "alice")
    assert "responses peak -0.6 s after the sound" in early.message
    assert "+2.8 TRs" in early.cure
    (late,) = _moved(store, 3)
    assert (late.kind, late.level) == ("no_response", "info")
    assert "no response at a plausible lag found (60 voxels, best lag 11.3 s" in late.message


@pytest.mark.usefixtures("alice")
def test_the_real_transcript_fits_its_sound_and_its_damaged_copies_do_not() -> None:
    story = ManifestSource(str(MANIFEST)).story("alice")
    rms = envelope_frames(story)[0]
    loud = loudness(rms[: len(rms) // 2 * 2].reshape(-1, 2).mean(axis=1))
    words = story.words
    fit = align(word_mask(words.start_s, words.end_s, len(loud)), loud)
    assert fit is not None
    assert fit.shift_s == pytest.approx(0, abs=0.03)
    assert fit.z > 30
    found = wrong_rate(words.start_s / 1.0884, words.end_s / 1.0884, loud)
    assert found is not None
    assert found[1] == (44100, 48000)


def test_the_demo_is_in_order(tmp_path: Path) -> None:
    source = DemoSource(n_tune=1, n_choose=1, n_fit=1, n_score=1, story_minutes=1.5, n_subjects=1, n_voxels=60)
    build_store(source, tmp_path, progress=False)
    assert check_store(tmp_path, progress=False) == []
