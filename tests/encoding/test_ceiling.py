from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import correlation, noise_ceiling


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


@pytest.mark.parametrize(("autocorrelation", "n_repeats"), [(0.0, 10), (0.6, 10), (0.0, 2), (0.6, 5)])
def test_pure_noise_seldom_passes(autocorrelation: float, n_repeats: int) -> None:
    from scipy.signal import lfilter

    rng = np.random.default_rng(3)
    white = rng.standard_normal((n_repeats, 291, 2000)).astype(np.float32)
    noise = lfilter([1.0], [1.0, -autocorrelation], white, axis=1)
    ceiling = noise_ceiling(noise)
    assert 0.4 < ceiling.n_negative / 2000 < 0.65
    assert np.isnan(ceiling.ceiling_r).sum() == ceiling.n_negative
    assert (ceiling.explainable_variance < 0).sum() == ceiling.n_negative
    assert ceiling.reliable(0.4).mean() < 0.01
    assert np.nan_to_num(ceiling.ceiling_r > 0.4).mean() > 0.01


def test_real_signal_passes() -> None:
    _, repeats = simulate(5, 300, 200, 0.3, seed=4)
    assert noise_ceiling(repeats).reliable(0.4).mean() > 0.95


def test_story_levels_are_not_signal_and_bad_voxels_stay_unknown() -> None:
    _, repeats = simulate(4, 120, 5, 0.0, seed=5)
    groups = np.repeat([0, 1], 60)
    np.testing.assert_allclose(
        noise_ceiling(repeats + 10 * groups[:, None], groups).explainable_variance,
        noise_ceiling(repeats, groups).explainable_variance,
        atol=1e-9,
    )
    repeats[1, 3, 0] = np.nan
    repeats[:, :, 1] = 0.1
    ceiling = noise_ceiling(repeats, groups)
    assert np.isnan(ceiling.explainable_variance[:2]).all()
    assert np.isnan(ceiling.p[:2]).all()
    assert not ceiling.reliable(0.0)[:2].any()
    assert np.isfinite(ceiling.explainable_variance[2:]).all()


def test_too_little_data_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 repeats"):
        noise_ceiling(np.zeros((1, 50, 3)))
    with pytest.raises(ValueError, match="at least 3"):
        noise_ceiling(np.zeros((3, 20, 3)), block_trs=10)
