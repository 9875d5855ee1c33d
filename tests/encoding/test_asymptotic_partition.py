"""Shares of the joint R2 are unbiased and their intervals cover, on planted partitions; wrong estimators are found out.

The small form of `python -m tests.benchmarks.calibration`, whose table is in docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from brainlit.encoding import (
    BANDS,
    LeakError,
    ProbeConfig,
    delay_within,
    model_name,
    partition_variance,
    region_shares,
    run_probe,
    subsets,
)
from brainlit.encoding.arrays import demean_within
from tests.encoding.simulate import (
    DELAYS,
    Setting,
    Simulated,
    draw_population,
    population_r2,
    population_split,
    simulate,
    truth,
)

SMALL = Setting(n_features=4, n_voxels=8)
MIXTURES = ((0.5, 0.3, 0.2), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5))
N_SETS = 48
PARTS = tuple(truth(draw_population(0, SMALL)))


def data_set(k: int, n_fit: int = 400, n_score: int = 300) -> Simulated:
    return simulate(k, n_fit, n_score, replace(SMALL, fractions=MIXTURES[k % len(MIXTURES)]))


def check_bias(errors: np.ndarray, at_most: float = 0.03) -> None:
    """No part of any mixture is off by more than 0.03 on average; errors of shape (n_sets, n_parts)."""
    for k, mixture in enumerate(MIXTURES):
        own = errors[k :: len(MIXTURES)]
        limit = at_most + 2.0 * own.std(axis=0) / np.sqrt(len(own))
        wrong = np.abs(own.mean(axis=0)) > limit
        assert not wrong.any(), (mixture, dict(zip(np.array(PARTS)[wrong], own.mean(axis=0)[wrong], strict=True)))


def check_coverage(hits: np.ndarray) -> None:
    """95 % intervals cover 93 to 97 %, give or take what so few data sets can tell; hits of shape (n_sets, n_parts)."""
    error = 2.5 * max(hits.mean(axis=1).std() / np.sqrt(len(hits)), 0.005)
    assert 0.93 - error < hits.mean() < 0.97 + error, f"{hits.mean():.3f} +- {error:.3f}"


def errors_of(estimate: Callable[[Simulated], dict[str, float]], n_sets: int = N_SETS) -> np.ndarray:
    rows = []
    for k in range(n_sets):
        data = data_set(k)
        known, found = truth(data.population), estimate(data)
        rows.append([found[part] - known[part] for part in PARTS])
    return np.array(rows)


@pytest.fixture(scope="module")
def offered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, hits and hits of half as wide intervals, each (n_sets, n_parts)."""
    errors, widths = [], []
    for k in range(N_SETS):
        data = data_set(k)
        known = truth(data.population)
        found = region_shares(data.bands, data.Y, data.groups, data.fit, data.score).parts
        errors.append([found[part].value - known[part] for part in PARTS])
        widths.append([found[part].high - found[part].low for part in PARTS])
    e, w = np.array(errors), np.array(widths)
    return e, np.abs(e) <= w / 2, np.abs(e) <= w / 4


def test_shares_have_no_bias_and_their_intervals_cover(offered: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    errors, hits, half = offered
    check_bias(errors)
    check_coverage(hits)
    with pytest.raises(AssertionError):
        check_coverage(half)


def least_squares(data: Simulated, *, scored: bool, covariance: bool) -> dict[str, float]:
    """Shares by hand: least squares on fitted rows, each model judged on scored rows or on the fitted ones."""
    judge = data.score if scored else data.fit
    F = {band: demean_within(delay_within(X, data.groups, DELAYS), data.groups) for band, X in data.bands.items()}
    Y = demean_within(data.Y, data.groups)
    r2 = {}
    for members in subsets(BANDS):
        X = np.concatenate([F[band] for band in members], axis=1)
        p = X[judge] @ np.linalg.lstsq(X[data.fit], Y[data.fit], rcond=1e-9)[0]
        explained = (Y[judge] * p).sum() if covariance else (2 * Y[judge] * p - p * p).sum()
        r2[model_name(members)] = np.array([explained])
    joint = float(r2[model_name(BANDS)][0])
    return {part: float(value[0]) / joint for part, value in partition_variance(r2, BANDS).items()}


def test_the_value_is_the_covariance_score_of_least_squares() -> None:
    data = data_set(3)
    found = region_shares(data.bands, data.Y, data.groups, data.fit, data.score, ProbeConfig(skip_trs=0))
    by_hand = least_squares(data, scored=True, covariance=True)
    assert not found.is_cut
    assert sum(share.value for share in found.parts.values()) == pytest.approx(1.0)
    for part in PARTS:
        assert found.parts[part].value == pytest.approx(by_hand[part], abs=0.02)


@pytest.mark.parametrize("scored", [False, True], ids=["in-sample R2", "held-out R2 of least squares"])
def test_other_scores_of_the_same_weights_are_biased(scored: bool) -> None:
    with pytest.raises(AssertionError):
        check_bias(errors_of(lambda data: least_squares(data, scored=scored, covariance=False), 24))


def test_the_truth_is_what_noise_free_signals_give_at_large_n() -> None:
    setting = Setting(n_features=3, n_voxels=5, signal=(1.0, 1.0), decay=0.5)
    data = simulate(5, 20_000, 10_000, setting)
    known, found = truth(data.population), least_squares(data, scored=True, covariance=False)
    assert max(abs(known[part] - found[part]) for part in PARTS) < 0.02
    split = population_split(data.population)
    assert split["joint"] == pytest.approx(population_r2(data.population)[model_name(BANDS)].mean(), abs=1e-6)
    assert sum(split[band] for band in BANDS) == pytest.approx(1.0)


def test_planted_fractions_of_zero_are_zero_in_the_truth() -> None:
    known = truth(draw_population(0, replace(SMALL, fractions=(1.0, 0.0, 0.0), backbone=(1.0, 0.0, 0.0))))
    for part in ("backbone", "semantic", "backbone&semantic"):
        assert known[part] == pytest.approx(0.0, abs=1e-6)
    assert known["backbone&low_level"] > 0.1


def test_a_backbone_of_low_level_information_has_no_semantic_part_except_by_the_published_residual() -> None:
    only = replace(SMALL, fractions=(1.0, 0.0, 0.0), backbone=(1.0, 0.0, 0.0), signal=(0.3, 0.6))
    left: dict[str, list[float]] = {}
    hits = []
    for k in range(2):
        data = simulate(k, 700, 450, only)
        found = region_shares(data.bands, data.Y, data.groups, data.fit, data.score).parts
        hits += [found[part].low <= 0.0 <= found[part].high for part in ("backbone", "semantic", "backbone&semantic")]
        result = run_probe(data.bands, data.Y, data.groups, data.fit, data.score)
        joint, r = result.r2.sum(), result.r_by_model["backbone"].mean()
        for part in ("backbone", "semantic", "backbone&semantic"):
            left.setdefault(f"partition {part}", []).append(result.partition[part].sum() / joint)
        left.setdefault("product measure", []).append(result.split["semantic"].sum() / joint)
        for way, rest in result.r_rest.items():
            left.setdefault(way, []).append(rest.mean() / r)
    assert np.mean(hits) >= 0.75
    published = left.pop("residual_lag0")
    assert min(published) > 0.5
    for way, values in left.items():
        assert abs(np.mean(values)) < 0.1, way


def test_bands_with_too_many_columns_are_refused_and_it_is_said_what_it_takes() -> None:
    wide = Setting(n_features=20, n_voxels=5, decay=1.0)
    data = simulate(0, 450, 300, wide)
    n_fit = int(data.fit.sum()) - 5 * 2
    said = rf"240 columns .*backbone 80, low_level 80, semantic 80\) are too many for {n_fit} fitted rows.*at least 480"
    with pytest.raises(ValueError, match=rf"{said}.*temporal 'hrf'.*backbone_components={n_fit // 2 - 160} at most"):
        region_shares(data.bands, data.Y, data.groups, data.fit, data.score)
    only = {band: data.bands[band] for band in ("low_level", "semantic")}
    found = region_shares(only, data.Y, data.groups, data.fit, data.score)
    assert found.n_columns == {"low_level": 80, "semantic": 80}
    data = simulate(0, 600, 300, wide)
    found = region_shares(data.bands, data.Y, data.groups, data.fit, data.score)
    assert (sum(found.n_columns.values()), found.is_cut, found.kept_variance) == (240, False, 1.0)


def test_rows_are_asked_for_all_columns_where_components_are_as_many_as_rows() -> None:
    data = simulate(0, 220, 300, Setting(n_features=80, n_voxels=5))
    with pytest.raises(ValueError, match=r"960 columns .*at least 1920 rows") as refused:
        region_shares(data.bands, data.Y, data.groups, data.fit, data.score)
    assert "backbone_components" not in str(refused.value)


def test_copies_of_columns_do_not_count() -> None:
    data = data_set(0)
    bands = {**data.bands, "backbone": np.tile(data.bands["backbone"], (1, 40))}
    plain = region_shares(data.bands, data.Y, data.groups, data.fit, data.score)
    found = region_shares(bands, data.Y, data.groups, data.fit, data.score)
    assert found.n_columns == plain.n_columns
    assert found.parts["backbone"].value == pytest.approx(plain.parts["backbone"].value, abs=1e-5)


def test_no_component_is_left_out_whatever_the_probe_keeps() -> None:
    data = simulate(0, 400, 300, replace(SMALL, decay=2.0))
    given = (data.bands, data.Y, data.groups, data.fit, data.score)
    few = region_shares(*given, ProbeConfig(keep_variance=0.8))
    assert few.n_columns == {"backbone": 16, "low_level": 16, "semantic": 16}
    assert few.parts == region_shares(*given).parts


def test_two_bands_give_three_parts_and_no_low_level_share_without_low_level() -> None:
    data = data_set(0)
    bands = {band: data.bands[band] for band in ("backbone", "semantic")}
    found = region_shares(bands, data.Y, data.groups, data.fit, data.score)
    assert list(found.parts) == ["backbone", "semantic", "backbone&semantic"]
    assert found.low_level_share is None


def test_low_level_share_and_joint_r2_are_on_their_scales() -> None:
    data = simulate(1, 900, 900, replace(SMALL, fractions=(0.6, 0.2, 0.2)))
    found = region_shares(data.bands, data.Y, data.groups, data.fit, data.score)
    r2 = {model: (v * data.population.signal).sum() for model, v in population_r2(data.population).items()}
    low_level = (r2["backbone"] + r2["low_level"] - r2["backbone+low_level"]) / r2["backbone"]
    assert found.low_level_share is not None
    assert abs(found.low_level_share.value - low_level) < found.low_level_share.high - found.low_level_share.low
    joint = r2[model_name(BANDS)] / SMALL.n_voxels
    assert found.joint_r2.low - 0.02 < joint < found.joint_r2.high + 0.02


def test_a_band_that_never_changes_explains_nothing() -> None:
    data = data_set(0)
    bands = {**data.bands, "semantic": np.ones((len(data.Y), 3))}
    found = region_shares(bands, data.Y, data.groups, data.fit, data.score)
    assert found.n_columns["semantic"] == 0
    assert found.parts["semantic"].value == pytest.approx(0.0, abs=1e-9)
    assert found.parts["backbone"].value > 0.05


def test_what_cannot_be_shared_out_is_refused() -> None:
    data = data_set(0)
    with pytest.raises(LeakError, match="both fitted and scored"):
        region_shares(data.bands, data.Y, data.groups, data.fit, data.fit)
    with pytest.raises(ValueError, match=r"blocks of 60 scored rows.*Score more rows"):
        region_shares(data.bands, data.Y, data.groups, data.fit, data.score, block_trs=60)
    with pytest.raises(ValueError, match=r"level is 95"):
        region_shares(data.bands, data.Y, data.groups, data.fit, data.score, level=95)
    opposite = np.where(data.fit[:, None], data.Y, -data.Y)
    with pytest.raises(ValueError, match="explain nothing"):
        region_shares(data.bands, opposite, data.groups, data.fit, data.score)
