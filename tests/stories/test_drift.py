"""Slow drift goes, faster signal stays, and columns without data become NaN."""

from __future__ import annotations

import numpy as np
import pytest

from brainlit.stories.drift import clean, drift_basis, remove_drift, zscore

TR_S, N_TRS = 2.0, 300
T_S = TR_S * np.arange(N_TRS)


def test_the_basis_is_orthonormal_and_holds_what_is_slow() -> None:
    basis = drift_basis(N_TRS, TR_S, 128.0)
    assert basis.shape == (N_TRS, 1 + 9 + 1), "constant, cosines with periods 1200 / k >= 128 s, line"
    assert np.allclose(basis.T @ basis, np.eye(11), atol=1e-10)


@pytest.mark.parametrize(("period_s", "kept"), [(1200, 0.02), (300, 0.02), (60, 0.9), (20, 0.98)])
def test_what_is_slower_than_the_limit_goes_and_the_rest_stays(period_s: float, kept: float) -> None:
    wave = np.sin(2 * np.pi * T_S / period_s)[:, None]
    rest = remove_drift(wave, TR_S, 128.0)
    share = float((rest**2).sum() / (wave**2).sum())
    assert share <= kept if kept < 0.5 else share >= kept


def test_a_short_recording_loses_its_trend() -> None:
    rest = remove_drift(np.arange(20.0)[:, None] * 3 + 7, TR_S, 128.0)
    assert np.abs(rest).max() < 1e-9


def test_without_a_limit_only_the_mean_goes() -> None:
    ramp = np.arange(6.0)[:, None]
    assert np.allclose(remove_drift(ramp, TR_S, None), ramp - 2.5)


def test_it_agrees_with_explicit_regression() -> None:
    values = np.random.default_rng(0).normal(size=(N_TRS, 2)).cumsum(axis=0)
    k = np.arange(10)
    slow = np.cos(np.pi * np.outer(np.arange(N_TRS) + 0.5, k) / N_TRS)
    design = np.column_stack([slow, T_S])
    expected = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    assert np.allclose(remove_drift(values, TR_S, 128.0), expected)


def test_columns_without_data_become_nan_and_the_others_z_scores() -> None:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(100, 3, N_TRS), np.full(N_TRS, 7.1), rng.normal(size=N_TRS), T_S * 0.3 + 2])
    values[4, 2] = np.nan
    cleaned = clean(values, TR_S, 128.0)
    assert np.isnan(cleaned).all(axis=0).tolist() == [False, True, True, True]
    assert cleaned[:, 0].std() == pytest.approx(1)
    assert np.isnan(zscore(values)).all(axis=0).tolist() == [False, True, True, False]
