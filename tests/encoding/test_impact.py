from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import ProbeConfig, banded_rest, low_level_impact, residual_features, run_probe

GROUPS = np.repeat(np.arange(10), 100)
SCORE = GROUPS >= 8


def toy(seed: int = 0, own: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backbone features with low-level signal at lags 0 and 2 and, if asked, private signal in columns of its own."""
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((GROUPS.size, 4))
    private = rng.standard_normal((GROUPS.size, 4))
    backbone = low @ rng.standard_normal((4, 6)) + np.roll(low, 2, axis=0) @ rng.standard_normal((4, 6))
    backbone = np.c_[backbone, own * private]
    backbone += 0.3 * rng.standard_normal(backbone.shape)
    source = low if own == 0 else private
    Y = sum(np.roll(source, d, axis=0) @ rng.standard_normal((4, 30)) for d in (2, 3))
    return backbone, low, Y + 3 * rng.standard_normal(Y.shape)


def test_low_level_at_another_lag_escapes_the_published_residual_only() -> None:
    backbone, low, Y = toy()
    result = run_probe({"backbone": backbone, "low_level": low}, Y, GROUPS, ~SCORE, SCORE)
    r = {way: values.mean() for way, values in result.r_rest.items()}
    assert result.r_by_model["backbone"].mean() > 0.5
    assert r["residual_lag0"] > 0.2
    assert abs(r["residual_lags"]) < 0.06
    assert r["banded_ridge"] < 0.1
    region = result.region()
    assert region["impact/residual_lag0"] < 60
    assert region["impact/residual_lags"] > 85
    assert region["impact/banded_ridge"] > 85
    assert region["low_level_share"] > 0.9


def test_what_the_backbone_has_of_its_own_stays() -> None:
    backbone, low, Y = toy(own=1.0)
    region = run_probe({"backbone": backbone, "low_level": low}, Y, GROUPS, ~SCORE, SCORE).region()
    assert region["r/backbone"] > 0.3
    for way in ("residual_lag0", "residual_lags", "banded_ridge"):
        assert abs(region[f"impact/{way}"]) < 10
    assert abs(region["low_level_share"]) < 0.1


def test_features_that_low_level_explains_exactly_leave_nothing() -> None:
    rng = np.random.default_rng(1)
    low = rng.standard_normal((GROUPS.size, 3))
    fit = ~SCORE
    settings = {"alphas": (1e-3, 1e-1, 10.0), "n_folds": 4, "purge_trs": 0}
    copies = residual_features(2 * low[:, :2], low, GROUPS, fit, (0,), **settings)
    assert not copies.any()
    unrelated = rng.standard_normal((GROUPS.size, 2))
    kept = residual_features(unrelated, low, GROUPS, fit, (0,), **settings)
    assert np.corrcoef(kept[:, 0], unrelated[:, 0])[0, 1] > 0.99
    constant = residual_features(unrelated, np.ones_like(low), GROUPS, fit, (0,), **settings)
    assert np.corrcoef(constant[:, 1], unrelated[:, 1])[0, 1] > 0.99


def test_residuals_are_fitted_on_fitted_rows_only() -> None:
    backbone, low, _ = toy(2)
    settings = {"alphas": (1e-2, 1.0), "n_folds": 4, "purge_trs": 0}
    first = residual_features(backbone, low, GROUPS, ~SCORE, (0,), **settings)
    changed = backbone.copy()
    changed[SCORE] = low[SCORE] @ np.ones((4, 10)) * 30
    second = residual_features(changed, low, GROUPS, ~SCORE, (0,), **settings)
    np.testing.assert_array_equal(first[~SCORE], second[~SCORE])


def test_formulas() -> None:
    np.testing.assert_allclose(low_level_impact([0.4, 0.4, 0.4], [0.4, 0.0, -0.1]), [0, 100, 125])
    assert np.isnan(low_level_impact([0.0, -0.2], [0.1, 0.1])).all()
    np.testing.assert_allclose(banded_rest([0.5, 0.4, 0.3], [0.0, 0.4, -0.4]), [0.5, 0.0, 0.5])


@pytest.mark.parametrize("k", [0, 4])
def test_the_number_of_lags_is_a_setting(k: int) -> None:
    backbone, low, Y = toy(3)
    config = ProbeConfig(impact_lags_trs=k, n_gammas={1: 1, 2: 1})
    result = run_probe({"backbone": backbone, "low_level": low}, Y[:, :5], GROUPS, ~SCORE, SCORE, config)
    same = np.allclose(result.r_rest["residual_lag0"], result.r_rest["residual_lags"])
    assert same == (k == 0)
