from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import (
    ProbeConfig,
    himalaya_backend,
    low_level_impact,
    model_name,
    part_name,
    partition_variance,
    residual_features,
    run_probe,
    semipartial,
    split_r2,
    subsets,
)
from brainlit.encoding.config import BANDS
from brainlit.encoding.partition import order_bands
from brainlit.encoding.statistics import correlation_within, r2_within


def test_names_keep_the_fixed_order() -> None:
    assert model_name({"semantic", "backbone"}) == "backbone+semantic"
    assert part_name(["low_level", "backbone"]) == "backbone&low_level"
    assert len(subsets(["semantic", "low_level", "backbone"])) == 7
    assert part_name(["semantic", "word_vectors", "low_level", "context"]) == "low_level&context&semantic&word_vectors"
    with pytest.raises(ValueError, match=r"\['syntax'\]; need at least one of backbone, low_level, semantic"):
        order_bands(["syntax"], BANDS)
    with pytest.raises(ValueError, match="at least one"):
        model_name([])


def test_parts_are_the_areas_of_three_circles() -> None:
    """R2 of a union is the sum of the areas that it covers; the partition finds the areas again."""
    bands = ("backbone", "low_level", "semantic")
    rng = np.random.default_rng(0)
    areas = {members: rng.uniform(0, 0.2, 5) for members in subsets(bands)}
    r2 = {
        model_name(union): sum(area for members, area in areas.items() if set(members) & set(union))
        for union in subsets(bands)
    }
    parts = partition_variance(r2, bands)
    assert set(parts) == {part_name(members) for members in areas}
    for members, area in areas.items():
        np.testing.assert_allclose(parts[part_name(members)], area, atol=1e-12)


@pytest.mark.parametrize("bands", [("backbone",), ("backbone", "low_level"), ("low_level", "semantic")])
def test_fewer_bands_have_fewer_parts_that_still_add_up(bands: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    r2 = {model_name(members): rng.uniform(-0.1, 0.5, 4) for members in subsets(bands)}
    parts = partition_variance(r2, bands)
    assert len(parts) == 2 ** len(bands) - 1
    np.testing.assert_allclose(sum(parts.values()), r2[model_name(bands)], atol=1e-12)


def test_product_measure_adds_up_and_is_himalayas() -> None:
    from himalaya.scoring import r2_score_split

    rng = np.random.default_rng(2)
    y = rng.standard_normal((50, 7))
    y -= y.mean(axis=0)
    parts = {band: 0.4 * y + rng.standard_normal(y.shape) for band in ("backbone", "semantic")}
    parts = {band: p - p.mean(axis=0) for band, p in parts.items()}
    split = split_r2(y, parts)
    np.testing.assert_allclose(sum(split.values()), r2_within(y, sum(parts.values()), np.zeros(50)), atol=1e-12)
    with himalaya_backend("numpy"):
        reference = r2_score_split(y, np.stack(list(parts.values())))
    np.testing.assert_allclose(np.stack(list(split.values())), reference, atol=1e-12)


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
    config = ProbeConfig(alphas=(1e-3, 1e-1, 10.0), n_folds=4, purge_trs=0)
    copies = residual_features(2 * low[:, :2], low, GROUPS, fit, (0,), config)
    assert not copies.any()
    unrelated = rng.standard_normal((GROUPS.size, 2))
    kept = residual_features(unrelated, low, GROUPS, fit, (0,), config)
    assert np.corrcoef(kept[:, 0], unrelated[:, 0])[0, 1] > 0.99
    constant = residual_features(unrelated, np.ones_like(low), GROUPS, fit, (0,), config)
    assert np.corrcoef(constant[:, 1], unrelated[:, 1])[0, 1] > 0.99


def test_residuals_are_fitted_on_fitted_rows_only() -> None:
    backbone, low, _ = toy(2)
    config = ProbeConfig(alphas=(1e-2, 1.0), n_folds=4, purge_trs=0)
    first = residual_features(backbone, low, GROUPS, ~SCORE, (0,), config)
    changed = backbone.copy()
    changed[SCORE] = low[SCORE] @ np.ones((4, 10)) * 30
    second = residual_features(changed, low, GROUPS, ~SCORE, (0,), config)
    np.testing.assert_array_equal(first[~SCORE], second[~SCORE])


def test_formulas() -> None:
    np.testing.assert_allclose(low_level_impact([0.4, 0.4, 0.4], [0.4, 0.0, -0.1]), [0, 100, 125])
    assert np.isnan(low_level_impact([0.0, -0.2], [0.1, 0.1])).all()


def test_semipartial_is_the_correlation_with_what_least_squares_leaves_of_the_prediction() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat([0, 1], [40, 60])
    low, own, noise = rng.standard_normal((3, 100, 5))
    both = 0.7 * low + own
    both[:, 4] = 0.3 * low[:, 4]
    low[groups == 1] += 3.0  # the level of a story is no part of a prediction
    y = both + low + noise
    r = (correlation_within(a, b, groups) for a, b in ((y, both), (y, low), (both, low)))
    found = semipartial(*r)
    stories = np.c_[groups == 0, groups == 1].astype(float)
    for voxel in range(4):
        design = np.c_[stories, low[:, voxel]]
        left = both[:, voxel] - design @ np.linalg.lstsq(design, both[:, voxel], rcond=None)[0]
        assert found[voxel] == pytest.approx(correlation_within(y[:, [voxel]], left[:, None], groups)[0])
    assert found[4] == 0, "both predict the same: not even rounding is left"


def test_with_endless_data_the_joint_models_semipartial_is_the_root_of_what_the_backbone_adds_to_r2() -> None:
    rng = np.random.default_rng(5)
    groups = np.zeros(40_000, dtype=int)
    low, own, noise = rng.standard_normal((3, 40_000, 1))
    y, both = 0.3 * low + 0.2 * own + noise, 3 * low + 2 * own
    r_both, r_low, between = (correlation_within(a, b, groups)[0] for a, b in ((y, both), (y, low), (both, low)))
    assert semipartial(r_both, r_low, between) == pytest.approx(np.sqrt(r_both**2 - r_low**2), abs=0.002)


def test_only_the_residual_over_lags_counts_what_it_predicts_beyond_low_level_features() -> None:
    backbone, low, Y = toy(6)
    result = run_probe({"backbone": backbone, "low_level": low}, Y[:, :6], GROUPS, ~SCORE, SCORE)
    groups, y, p_low = result.score_groups, result.observed, result.predictions["low_level"]
    published, over_lags = (result.rest_predictions[way] for way in ("residual_lag0", "residual_lags"))
    np.testing.assert_allclose(result.r_rest["residual_lag0"], correlation_within(y, published, groups), atol=1e-6)
    r, between = (correlation_within(a, over_lags, groups) for a in (y, p_low))
    left = semipartial(r, correlation_within(y, p_low, groups), between)
    np.testing.assert_allclose(result.r_rest["residual_lags"], left, atol=1e-6)
    assert np.abs(r - left).max() > 1e-4
    np.testing.assert_allclose(
        result.impact["residual_lags"], low_level_impact(result.r_by_model["backbone"], left), atol=1e-3
    )


@pytest.mark.parametrize("k", [0, 4])
def test_the_number_of_lags_is_a_setting(k: int) -> None:
    backbone, low, Y = toy(3)
    config = ProbeConfig(impact_lags_trs=k, n_gammas={1: 1, 2: 1})
    result = run_probe({"backbone": backbone, "low_level": low}, Y[:, :5], GROUPS, ~SCORE, SCORE, config)
    at_lag_0, over_lags = (result.rest_predictions[way] for way in ("residual_lag0", "residual_lags"))
    assert np.allclose(at_lag_0, over_lags) == (k == 0)
