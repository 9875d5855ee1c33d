from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.encoding import correlation, mean_of_ratios, noise_ceiling, normalise, ratio_of_means
from brainlit.encoding.ceiling import CEILING_METHODS, CeilingMethod, ceiling_of_rows, half_splits, signal_rows

every_method = pytest.mark.parametrize("method", CEILING_METHODS)


def simulate(n_repeats: int, n_trs: int, n_voxels: int, signal_share: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    signal = np.sqrt(signal_share) * rng.standard_normal((n_trs, n_voxels))
    noise = np.sqrt(1 - signal_share) * rng.standard_normal((n_repeats, n_trs, n_voxels))
    return signal, signal + noise


@pytest.mark.parametrize("n_repeats", [2, 5, 10])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_explainable_variance_is_unbiased_for_any_number_of_repeats(n_repeats: int, share: float) -> None:
    _, repeats = simulate(n_repeats, 200, 300, share)
    assert noise_ceiling(repeats).explainable_variance.mean() == pytest.approx(share, abs=0.012)


def test_the_ceiling_is_the_correlation_of_the_true_signal_with_the_mean_of_repeats() -> None:
    signal, repeats = simulate(5, 400, 200, 0.2, seed=1)
    ceiling = noise_ceiling(repeats)
    reached = correlation(signal, repeats.mean(axis=0))
    assert np.abs(ceiling.ceiling_r - reached).mean() < 0.04
    assert ceiling.ceiling_r.mean() == pytest.approx(np.sqrt(0.2 / (0.2 + 0.8 / 5)), abs=0.02)


def test_it_equals_the_loop_over_pairs() -> None:
    _, repeats = simulate(3, 60, 4, 0.3, seed=2)
    centred = repeats - repeats.mean(axis=1, keepdims=True)
    pairs = [(centred[i] * centred[j]).mean(axis=0) for i in range(3) for j in range(3) if i != j]
    power = np.square(centred).mean(axis=(0, 1))
    np.testing.assert_allclose(noise_ceiling(repeats).explainable_variance, np.mean(pairs, axis=0) / power)


@every_method
@pytest.mark.parametrize(("autocorrelation", "n_repeats"), [(0.0, 10), (0.6, 10), (0.0, 2), (0.6, 5)])
def test_pure_noise_seldom_passes(autocorrelation: float, n_repeats: int, method: CeilingMethod) -> None:
    from scipy.signal import lfilter

    rng = np.random.default_rng(3)
    white = rng.standard_normal((n_repeats, 291, 2000)).astype(np.float32)
    noise = lfilter([1.0], [1.0, -autocorrelation], white, axis=1)
    ceiling = noise_ceiling(noise, method=method)
    assert 0.4 < ceiling.n_negative / 2000 < 0.65
    assert np.isnan(ceiling.ceiling_r).sum() == ceiling.n_negative
    assert (ceiling.explainable_variance < 0).sum() == ceiling.n_negative
    assert ceiling.reliable(0.4).mean() < 0.01
    assert np.nan_to_num(ceiling.ceiling_r > 0.4).mean() > 0.01


@pytest.mark.parametrize(("autocorrelation", "share"), [(0.0, 0.031), (0.6, 0.084)])
def test_the_published_rule_passes_noise_that_ours_does_not(autocorrelation: float, share: float) -> None:
    """SP over a total power of 1, although rows were cut off after z-scoring, and no test: ceilings of chance."""
    from scipy.signal import lfilter

    white = np.random.default_rng(11).standard_normal((10, 331, 3000))
    noise = lfilter([1.0], [1.0, -autocorrelation], white, axis=1)
    noise = ((noise - noise.mean(axis=1, keepdims=True)) / noise.std(axis=1, keepdims=True))[:, 40:]
    signal_power = (10 * noise.mean(axis=0).var(axis=0) - noise.var(axis=1).mean(axis=0)) / 9
    with np.errstate(invalid="ignore", divide="ignore"):
        published = np.nan_to_num(1 / np.sqrt(1 + (1 / signal_power - 1) / 10)) * (signal_power > 0)
    assert (published > 0.4).mean() == pytest.approx(share, abs=0.015)
    assert noise_ceiling(noise).reliable(0.4).mean() < 0.01


@every_method
def test_real_signal_passes(method: CeilingMethod) -> None:
    _, repeats = simulate(5, 300, 200, 0.3, seed=4)
    ceiling = noise_ceiling(repeats, method=method)
    assert ceiling.reliable(0.4).mean() > 0.95
    assert ceiling.method == method


@every_method
@pytest.mark.parametrize("n_repeats", [2, 3, 10])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_every_method_finds_the_planted_share_of_signal(method: CeilingMethod, n_repeats: int, share: float) -> None:
    _, repeats = simulate(n_repeats, 291, 400, share, seed=6)
    ceiling = noise_ceiling(repeats, method=method)
    planted = np.sqrt(share / (share + (1 - share) / n_repeats))
    assert ceiling.explainable_variance.mean() == pytest.approx(share, abs=0.01)
    if share > 0.1:
        assert np.nanmean(ceiling.ceiling_r) == pytest.approx(planted, abs=0.015)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def slow_split_half(repeats: np.ndarray) -> tuple[float, float]:
    """All ordered splits of one voxel, (n_repeats, n_trs): share of signal in one presentation, and ceiling."""
    n, half = len(repeats), len(repeats) // 2
    repeats = np.array([(one - one.mean()) / one.std() for one in repeats])
    found = []
    for order in permutations(range(n)):
        first, second = list(order[:half]), list(order[half : 2 * half])
        found.append(pearson(repeats[first].mean(axis=0), repeats[second].mean(axis=0)))
    r = np.mean(found)
    one = (r / half) / (1 + (1 / half - 1) * r)
    return one, np.sqrt(n * one / (1 + (n - 1) * one)) if r > 0 else np.nan


def slow_explainable_variance(repeats: np.ndarray) -> tuple[float, float]:
    scored = np.array([(one - one.mean()) / one.std() for one in repeats])
    mean, n = scored.mean(axis=0), len(scored)
    biased = sum(value**2 for value in mean) / len(mean)
    corrected = biased - (1 - biased) / (n - 1)
    return corrected, np.sqrt(corrected / biased) if corrected > 0 else np.nan


@pytest.mark.parametrize("n_repeats", [2, 3, 4, 5])
def test_every_method_equals_its_loops(n_repeats: int) -> None:
    _, repeats = simulate(n_repeats, 40, 6, 0.2, seed=7)
    repeats *= np.linspace(0.5, 2, n_repeats)[:, None, None]
    for method, slow in (("split_half", slow_split_half), ("explainable_variance", slow_explainable_variance)):
        fast = noise_ceiling(repeats, method=method)  # type: ignore[arg-type]
        wanted = np.array([slow(repeats[:, :, v]) for v in range(6)])
        np.testing.assert_allclose(fast.explainable_variance, wanted[:, 0], atol=1e-12)
        np.testing.assert_allclose(fast.ceiling_r, wanted[:, 1], atol=1e-12)
        assert fast.n_negative == (wanted[:, 0] <= 0).sum()


def test_methods_agree_on_long_recordings_and_differ_where_scales_do() -> None:
    _, repeats = simulate(6, 6000, 20, 0.3, seed=8)
    power, halves, explained = (noise_ceiling(repeats, method=method) for method in CEILING_METHODS)
    for other in (halves, explained):
        np.testing.assert_allclose(other.ceiling_r, power.ceiling_r, atol=0.01)
        np.testing.assert_allclose(other.explainable_variance, power.explainable_variance, atol=0.01)
    repeats[0] *= 30
    loud = noise_ceiling(repeats).explainable_variance
    assert (loud < 0.7 * power.explainable_variance).all()
    for method, before in (("split_half", halves), ("explainable_variance", explained)):
        after = noise_ceiling(repeats, method=method).explainable_variance  # type: ignore[arg-type]
        np.testing.assert_allclose(after, before.explainable_variance, rtol=1e-9)


def test_splits_are_all_or_drawn_with_the_seed() -> None:
    assert len(half_splits(10, 200, 0)) == len({frozenset(pair) for pair in half_splits(10, 200, 0)}) == 126
    assert half_splits(2, 200, 0) == [((0,), (1,))]
    drawn = half_splits(12, 50, 3)
    assert drawn == half_splits(12, 50, 3) != half_splits(12, 50, 4)
    assert all(len({*a, *b}) == 12 for a, b in drawn)
    _, repeats = simulate(10, 291, 300, 0.2, seed=9)
    every = noise_ceiling(repeats, method="split_half")
    some = noise_ceiling(repeats, method="split_half", n_splits=40, seed=1)
    assert 0 < np.nanmax(np.abs(every.ceiling_r - some.ceiling_r)) < 0.05


@every_method
def test_blocks_of_voxels_change_nothing(method: CeilingMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    _, repeats = simulate(4, 60, 11, 0.3, seed=10)
    repeats[0, 3, 2] = np.nan
    at_once = noise_ceiling(repeats.astype(np.float32), method=method)
    monkeypatch.setattr("brainlit.encoding.ceiling.VOXELS_AT_ONCE", 3)
    in_blocks = noise_ceiling(repeats.astype(np.float32), method=method)
    for name in ("explainable_variance", "ceiling_r", "p"):
        np.testing.assert_allclose(getattr(in_blocks, name), getattr(at_once, name), rtol=1e-9)
    assert in_blocks.n_negative == at_once.n_negative


@given(
    n_repeats=st.integers(2, 5),
    share=st.floats(0, 0.95),
    seed=st.integers(0, 999),
    method=st.sampled_from(CEILING_METHODS),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_ceilings_are_correlations_and_order_and_sign_of_time_do_not_matter(
    n_repeats: int, share: float, seed: int, method: CeilingMethod
) -> None:
    _, repeats = simulate(n_repeats, 60, 5, share, seed)
    ceiling = noise_ceiling(repeats, method=method)
    known = ceiling.ceiling_r[~np.isnan(ceiling.ceiling_r)]
    assert ((known > 0) & (known <= 1)).all()
    assert (np.isnan(ceiling.ceiling_r) == (ceiling.explainable_variance <= 0)).all()
    turned = noise_ceiling(-repeats[::-1, ::-1], method=method)
    np.testing.assert_allclose(turned.explainable_variance, ceiling.explainable_variance, atol=1e-9)


@every_method
def test_story_levels_are_not_signal_and_bad_voxels_stay_unknown(method: CeilingMethod) -> None:
    _, repeats = simulate(4, 120, 5, 0.0, seed=5)
    groups = np.repeat([0, 1], 60)
    np.testing.assert_allclose(
        noise_ceiling(repeats + 10 * groups[:, None], groups, method=method).explainable_variance,
        noise_ceiling(repeats, groups, method=method).explainable_variance,
        atol=1e-9,
    )
    repeats[1, 3, 0] = np.nan
    repeats[:, :, 1] = 0.1
    ceiling = noise_ceiling(repeats, groups, method=method)
    assert np.isnan(ceiling.explainable_variance[:2]).all()
    assert np.isnan(ceiling.p[:2]).all()
    assert not ceiling.reliable(0.0)[:2].any()
    assert np.isfinite(ceiling.explainable_variance[2:]).all()


def test_too_little_data_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 repeats"):
        noise_ceiling(np.zeros((1, 50, 3)))
    with pytest.raises(ValueError, match="at least 3"):
        noise_ceiling(np.zeros((3, 20, 3)), block_trs=10)
    with pytest.raises(ValueError, match="known: signal_power, split_half, explainable_variance"):
        noise_ceiling(np.zeros((3, 50, 3)), method="halves")  # type: ignore[arg-type]


def slow_together(stories: list[np.ndarray]) -> np.ndarray:
    """Squared ceilings of all rows, by loops over voxels and pairs of presentations."""
    found = []
    for v in range(stories[0].shape[2]):
        signal, known, rows, scored = 0.0, 0, 0, 0.0
        for story in stories:
            each = [one - one.mean() for one in story[:, :, v].astype(float)]
            scored += (np.mean(each, axis=0) ** 2).sum()
            rows += len(each[0])
            if len(each) > 1:
                signal += np.mean([(a * b).sum() for i, a in enumerate(each) for j, b in enumerate(each) if i != j])
                known += len(each[0])
        found.append(signal / known * rows / scored)
    return np.array(found)


def test_stories_count_with_their_own_number_of_presentations() -> None:
    stories = [simulate(n, n_trs, 7, 0.3, seed=n)[1] for n, n_trs in ((10, 60), (2, 90), (1, 40))]
    wanted = slow_together(stories)
    np.testing.assert_allclose(noise_ceiling(stories).ceiling_r ** 2, wanted, rtol=1e-9)
    signal = signal_rows(stories)
    assert np.isnan(signal[150:]).all()
    np.testing.assert_allclose(signal[:150].mean(axis=0), wanted, rtol=1e-5)
    np.testing.assert_allclose(ceiling_of_rows(signal) ** 2, wanted, rtol=1e-5)
    alone = noise_ceiling(stories[0])
    for ceiling in (noise_ceiling(stories[:1]), noise_ceiling([stories[0][:, :30], stories[0][:, 30:]])):
        assert (ceiling.n_repeats, ceiling.method) == (10, alone.method)
    np.testing.assert_allclose(noise_ceiling(stories[:1]).ceiling_r, alone.ceiling_r)


@every_method
def test_the_ceiling_of_mixed_stories_is_what_the_signal_reaches(method: CeilingMethod) -> None:
    """Of 10, 2 and 1 presentations: sqrt(.2 / mean of .28, .6 and 1)."""
    rng = np.random.default_rng(12)
    stories, signals = [], []
    for n in (10, 2, 1):
        signal = np.sqrt(0.2) * rng.standard_normal((250, 200))
        signals.append(signal - signal.mean(axis=0))
        stories.append(signal + np.sqrt(0.8) * rng.standard_normal((n, 250, 200)))
    means = np.concatenate([each.mean(axis=0) - each.mean(axis=(0, 1)) for each in stories])
    reached = correlation(np.concatenate(signals), means)
    ceiling = noise_ceiling(stories, method=method)
    assert np.mean(ceiling.ceiling_r**2) == pytest.approx(np.mean(reached**2), abs=0.015)
    assert np.mean(reached) == pytest.approx(np.sqrt(0.2 / np.mean([0.28, 0.6, 1.0])), abs=0.01)
    assert ceiling.explainable_variance.mean() == pytest.approx(0.2, abs=0.01)


def test_stories_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="need one n_voxels for all"):
        noise_ceiling([np.zeros((2, 50, 3)), np.zeros((2, 50, 4))])
    with pytest.raises(ValueError, match="no groups beside a list"):
        noise_ceiling([np.zeros((2, 50, 3))], np.zeros(50))
    with pytest.raises(ValueError, match="at least 2 repeats of some story"):
        signal_rows([np.zeros((1, 50, 3)), np.zeros((1, 50, 3))])


R = np.array([0.1, 0.3, 0.5, 0.2, 0.4, np.nan])
CEILING = np.array([0.05, 0.6, 0.5, np.nan, 0.8, 0.9])


def test_both_ratios_with_raw_and_ceiling_and_what_was_dropped() -> None:
    found = normalise(R, CEILING, min_ceiling=0.1)
    assert (found.n_used, found.n_dropped) == (3, 3)
    assert found.raw == pytest.approx(0.4)
    assert found.ceiling == pytest.approx(1.9 / 3)
    assert found.mean_of_ratios == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert found.ratio_of_means == pytest.approx(1.2 / 1.9)
    assert found.mean_of_ratios == mean_of_ratios(R[[1, 2, 4]], CEILING[[1, 2, 4]])
    assert found.ratio_of_means == ratio_of_means(R[[1, 2, 4]], CEILING[[1, 2, 4]])


def test_only_voxels_of_the_region_count_and_nothing_is_clipped() -> None:
    found = normalise(R + 0.4, CEILING, np.array([True, False, True, False, False, False]))
    assert (found.n_used, found.n_dropped) == (1, 1)
    assert found.mean_of_ratios == pytest.approx(1.8)
    empty = normalise(R, CEILING, np.zeros(6, dtype=bool))
    assert (empty.n_used, empty.n_dropped) == (0, 0)
    assert np.isnan([empty.raw, empty.ceiling, empty.mean_of_ratios, empty.ratio_of_means]).all()


def test_a_threshold_of_zero_and_wrong_shapes_are_refused() -> None:
    """Ceilings of 0 that are divided by are a published error."""
    with pytest.raises(ValueError, match="divides by 0"):
        normalise(R, CEILING, min_ceiling=0.0)
    with pytest.raises(ValueError, match="one per voxel"):
        normalise(R, CEILING[1:])
