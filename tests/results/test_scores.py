from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from brainlit.encoding.bootstrap import block_weights, region_replicates
from brainlit.encoding.ceiling import ceiling_of_rows, signal_rows
from brainlit.encoding.statistics import Score, correlation_within, r2_within, small_sample_factor
from brainlit.results.scores import (
    ALL_VOXELS,
    FORMULAS,
    ScoreRow,
    ScoreTable,
    curve_rows,
    partition_scores,
    probe_rows,
    regions_with_all,
    stretch_of,
)
from tests.benchmarks import impacts
from tests.results.fake_run import BOOTSTRAP, CONFIG, N_FIT, N_TRS, FakeBrain

GROUPS = np.repeat([0, 1], [47, 33])


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    observed = rng.standard_normal((80, 5)) + GROUPS[:, None]
    return observed, 0.5 * observed + rng.standard_normal((80, 5))


REGIONS = {"first": np.array([True, True, False, False, False]), "last": np.array([False, False, False, True, True])}


def test_one_draw_of_every_block_gives_the_probes_own_numbers(data: tuple[np.ndarray, np.ndarray]) -> None:
    observed, predicted = data
    block_of_row, weights = block_weights(GROUPS, 10, 3, seed=0)
    found = region_replicates(observed, predicted, GROUPS, REGIONS, (block_of_row, np.ones_like(weights[:1])))
    r, r2 = correlation_within(observed, predicted, GROUPS), r2_within(observed, predicted, GROUPS)
    for name, mask in REGIONS.items():
        np.testing.assert_allclose(found[name][0], r[mask].mean(), rtol=1e-10)
        np.testing.assert_allclose(found[name][1], r2[mask].mean(), rtol=1e-10)


def test_replicates_agree_with_rows_copied_one_by_one(data: tuple[np.ndarray, np.ndarray]) -> None:
    observed, predicted = data
    block_of_row, weights = block_weights(GROUPS, 10, 4, seed=1)
    found = region_replicates(observed, predicted, GROUPS, REGIONS, (block_of_row, weights))
    for k, draw in enumerate(weights):
        rows = np.repeat(np.arange(80), draw[block_of_row].astype(int))
        x, y = observed[rows], predicted[rows]
        for group in (0, 1):
            drawn = group == GROUPS[rows]
            x[drawn], y[drawn] = x[drawn] - x[drawn].mean(axis=0), y[drawn] - y[drawn].mean(axis=0)
        r = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
        assert found["last"][0][k] == pytest.approx(r[3:].mean(), rel=1e-9)


def test_blocks_stay_inside_stories_and_short_rests_join() -> None:
    block_of_row, weights = block_weights(GROUPS, 10, 50, seed=0)
    assert not set(block_of_row[:47]) & set(block_of_row[47:])
    assert np.bincount(block_of_row).tolist() == [10, 9, 10, 9, 9, 11, 11, 11]
    assert (weights[:, :5].sum(axis=1) == 5).all()
    assert (weights[:, 5:].sum(axis=1) == 3).all()


def test_same_seed_same_draws_other_seed_others() -> None:
    one, same, other = (block_weights(GROUPS, 10, 20, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        observed = rng.standard_normal((200, 1))
        predicted = 0.5 * observed + np.sqrt(0.75) * rng.standard_normal((200, 1))
        groups = np.repeat([0, 1], 100)
        blocks = block_weights(groups, 10, 400, seed)
        draws = region_replicates(observed, predicted, groups, {"all": np.array([True])}, blocks)["all"][0]
        low, high = Score(0.5, draws).interval or (0, 0)
        covered += low < 0.5 < high
    assert 48 <= covered <= 60


def test_a_paired_difference_is_narrower_than_two_separate_ones(data: tuple[np.ndarray, np.ndarray]) -> None:
    observed, predicted = data
    better = predicted + 0.1 * observed
    blocks = block_weights(GROUPS, 10, 300, seed=0)
    before, after = (
        Score(0.0, region_replicates(observed, p, GROUPS, REGIONS, blocks)["first"][0]) for p in (predicted, better)
    )
    low, high = (after - before).interval or (0, 0)
    alone_low, alone_high = before.interval or (0, 0)
    assert 0 < high - low < 0.5 * (alone_high - alone_low)


def test_few_blocks_widen_the_interval_about_the_value_and_one_block_per_story_gives_none() -> None:
    groups = np.repeat([0, 1], [60, 100])
    few, none = block_weights(groups, 20, 500, 0), block_weights(groups, 100, 500, 0)
    white = np.random.default_rng(0).standard_normal((2, 160, 400))
    factor = stretch_of(groups, few, *white)
    assert factor == pytest.approx(small_sample_factor(8, 0.95, 2), rel=1e-3)
    assert factor == pytest.approx(np.sqrt(8 / 6) * 2.4469 / 1.95996, rel=1e-3)
    replicates = 0.3 + few[1] @ np.linspace(-0.1, 0.1, 8)
    plain = Score(0.3, replicates)
    (low, high), (lower, higher) = plain.interval, plain.stretched(factor).interval  # type: ignore[misc]
    assert [0.3 - lower, higher - 0.3] == pytest.approx([factor * (0.3 - low), factor * (high - 0.3)])
    assert stretch_of(groups, none, *white) is None
    assert stretch_of(groups, block_weights(groups, 50, 500, 0), *white) is None  # one and two blocks
    slow = np.cumsum(white, axis=1)
    assert stretch_of(groups, few, *slow) is None
    smooth = lfilter([1.0], [1.0, -0.8], white, axis=1)  # 6 borders of 160 rows, 2.17 rows each
    assert stretch_of(groups, few, *smooth) / factor == pytest.approx(1 / np.sqrt(1 - 6 / 160 * 2.17), rel=0.02)
    assert Score(0.3, replicates).stretched(None).interval is None
    difference = plain.stretched(factor) - Score(0.1, replicates * 0.5).stretched(factor)
    assert difference.replicates == pytest.approx(0.2 + factor * (replicates * 0.5 - 0.2))


@pytest.mark.parametrize(("block_trs", "n"), [(0, 10), (10, 0)])
def test_sizes_must_be_positive(block_trs: int, n: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        block_weights(GROUPS, block_trs, n, seed=0)


@pytest.fixture(scope="module")
def brain() -> FakeBrain:
    return FakeBrain("sub-1")


@pytest.fixture(scope="module")
def table(brain: FakeBrain) -> ScoreTable:
    result = brain.probe(epoch=4, layer=2)
    blocks = block_weights(result.score_groups, **BOOTSTRAP)
    return ScoreTable(probe_rows(result, regions_with_all(brain.regions, result.used), 2, blocks))


def value(table: ScoreTable, region: str, metric: str) -> float:
    row = table.get(region, 2, metric)
    assert row is not None, metric
    return row.score.value


def test_values_are_those_of_the_probe(brain: FakeBrain, table: ScoreTable) -> None:
    result = brain.probe(epoch=4, layer=2)
    region = result.region(brain.regions["semantic"])
    assert value(table, "semantic", "r_backbone") == pytest.approx(region["r/backbone"])
    assert value(table, "semantic", "r2_joint") == pytest.approx(region["r2"])
    assert value(table, "semantic", "low_level_share") == pytest.approx(region["low_level_share"])
    assert value(table, "semantic", "ceiling") == pytest.approx(region["ceiling"])
    for way in ("residual_lag0", "residual_lags", "banded_ridge"):
        assert value(table, "semantic", f"impact_{way}") == pytest.approx(region[f"impact/{way}"])
    for part, values in result.partition.items():
        expected = values[brain.regions["semantic"]].mean()
        assert value(table, "semantic", f"partition_{part}") == pytest.approx(expected, abs=1e-12)


def test_the_tables_replicates_are_widened_for_the_number_of_blocks(brain: FakeBrain, table: ScoreTable) -> None:
    result = brain.probe(epoch=4, layer=2)
    blocks = block_weights(result.score_groups, **BOOTSTRAP)
    plain, _ = region_replicates(
        result.observed, result.predictions["backbone"], result.score_groups, {"": result.used}, blocks
    )[""]
    row, factor = (
        table.get(ALL_VOXELS, 2, "r_backbone"),
        stretch_of(result.score_groups, blocks, result.observed, result.predictions["backbone"]),
    )
    assert row is not None
    assert factor is not None
    assert factor > 1.01
    assert row.score.replicates == pytest.approx(row.score.value + factor * (plain - row.score.value))
    (alone,) = [one for one in curve_rows(result, {ALL_VOXELS: result.used}, 2, blocks) if one.metric == "r_backbone"]
    assert alone.score.interval == row.score.interval


def test_parts_add_up_to_the_joint_model(table: ScoreTable) -> None:
    for region in (ALL_VOXELS, "semantic", "auditory", "null"):
        parts = [row.score.value for row in table.rows if row.region == region and row.metric.startswith("partition_")]
        assert len(parts) == 7
        assert sum(parts) == pytest.approx(value(table, region, "r2_joint"))


def test_parts_of_replicates_add_up_too() -> None:
    rng = np.random.default_rng(0)
    models = ["backbone", "low_level", "semantic", "backbone+low_level", "backbone+semantic", "low_level+semantic"]
    r2 = {name: Score(float(rng.random()), rng.random(4)) for name in [*models, "backbone+low_level+semantic"]}
    parts = partition_scores(r2)
    total = sum(part.replicates for part in parts.values() if part.replicates is not None)
    np.testing.assert_allclose(total, r2["backbone+low_level+semantic"].replicates)
    assert partition_scores({"backbone": r2["backbone"]}) == {}


def test_planted_answers_come_out(table: ScoreTable) -> None:
    assert value(table, "semantic", "r_backbone") > 0.5
    assert abs(value(table, "null", "r_backbone")) < 0.15
    assert value(table, "auditory", "low_level_share") > 0.8 > value(table, "semantic", "low_level_share")


def test_ratios_are_left_out_where_there_is_nothing_to_divide_by(table: ScoreTable) -> None:
    assert table.get("null", 2, "low_level_share") is None
    assert table.get("null", 2, "impact_banded_ridge") is None
    assert table.get("null", 2, "r_over_ceiling") is None


def test_normalised_is_not_clipped() -> None:
    brain = FakeBrain("sub-1")
    brain.ceiling = np.full(24, 0.3)
    result = brain.probe(epoch=4, layer=2)
    blocks = block_weights(result.score_groups, **BOOTSTRAP)
    table = ScoreTable(probe_rows(result, regions_with_all(brain.regions, result.used), 2, blocks))
    ratio = value(table, "semantic", "r_over_ceiling")
    assert ratio == pytest.approx(value(table, "semantic", "r_together") / 0.3)
    assert ratio > 1


def test_regions_leave_out_dropped_voxels_and_start_with_all() -> None:
    used = np.array([True, False, True])
    masks = {"area": np.array([True, True, False]), "semantic": used, "empty": ~used}
    found = regions_with_all(masks, used)
    assert list(found) == [ALL_VOXELS, "semantic", "area"]
    assert found["area"].tolist() == [True, False, False]


def test_two_rows_of_one_name_are_refused() -> None:
    row = ScoreRow("a", 0, "r", 3, Score(1.0))
    with pytest.raises(ValueError, match="share region"):
        ScoreTable([row, row])


def test_drawing_every_block_once_gives_the_values(brain: FakeBrain) -> None:
    """So replicates follow the same formulas as the values: impacts and normalised correlations among them."""
    result = brain.probe(epoch=4, layer=2)
    block_of_row, weights = block_weights(result.score_groups, **BOOTSTRAP)
    once = block_of_row, np.ones((1, weights.shape[1]))
    rows = probe_rows(result, regions_with_all(brain.regions, result.used), 2, once)
    drawn = {row.metric: row.score for row in rows if row.region == "semantic" and row.score.replicates is not None}
    for metric in ("impact_residual_lag0", "impact_residual_lags", "impact_banded_ridge", "low_level_share"):
        assert metric in drawn
    assert {"r_together", "r_over_ceiling"} < set(drawn)
    for metric, score in drawn.items():
        assert score.replicates == pytest.approx([score.value], rel=1e-3, abs=1e-4), metric


def test_impacts_have_intervals_and_old_files_only_values(brain: FakeBrain, table: ScoreTable) -> None:
    for way in ("residual_lag0", "residual_lags", "banded_ridge"):
        row = table.get("semantic", 2, f"impact_{way}")
        assert row is not None
        assert row.score.interval is not None
        assert row.score.interval[0] < row.score.value < row.score.interval[1]
    result = replace(brain.probe(epoch=4, layer=2), rest_predictions={})
    blocks = block_weights(result.score_groups, **BOOTSTRAP)
    old = ScoreTable(probe_rows(result, {"semantic": brain.regions["semantic"]}, 2, blocks))
    row = old.get("semantic", 2, "impact_residual_lags")
    assert row is not None
    assert row.score == Score(value(table, "semantic", "impact_residual_lags"))


def test_the_banded_impact_is_unbiased_and_its_interval_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small form of tests/benchmarks/impacts.py; a mean over voxels of roots of noisy differences fails it."""
    monkeypatch.setattr(impacts, "N_BOOTSTRAPS", 300)
    how, truth = impacts.Scored(600, 2, 24), 500 / 7
    found = impacts.intervals(truth, how, 40)
    bias, covered = (
        {name: np.mean([measure(one) for one in own]) for name, own in found.items()}
        for measure in (lambda one: one.value - truth, lambda one: one.low <= truth <= one.high)
    )
    assert abs(bias[impacts.NOW]) < 2 < 3 < bias[impacts.BEFORE]
    assert covered[impacts.NOW] >= 0.85 > 0.7 > covered[impacts.BEFORE]


def test_split_adds_up_in_every_region(table: ScoreTable) -> None:
    for region in (ALL_VOXELS, "semantic", "auditory", "null"):
        split = [row.score.value for row in table.rows if row.region == region and row.metric.startswith("split_")]
        assert len(split) == 3
        assert sum(split) == pytest.approx(value(table, region, "r2_joint"), abs=1e-4)


def test_r_over_ceiling_with_the_repeats_holds_their_noise_and_is_refused_without_signal() -> None:
    """Four null voxels in a hundred rows: what their repeats share by chance is no ceiling."""
    brain = FakeBrain("sub-1")
    result = brain.probe(epoch=4, layer=2)
    late = np.arange(len(brain.groups)) % N_TRS >= CONFIG.skip_trs
    stories = [brain.repeats[:, late & (brain.groups == group)] for group in (N_FIT, N_FIT + 1)]
    signal = signal_rows(stories)
    result = replace(result, ceiling=ceiling_of_rows(signal), signal=signal)
    blocks = block_weights(result.score_groups, **BOOTSTRAP)
    table = ScoreTable(probe_rows(result, regions_with_all(brain.regions, result.used), 2, blocks))
    assert table.get("null", 2, "ceiling") is table.get("null", 2, "r_together") is None
    fixed = replace(result, signal=None)
    alone = ScoreTable(probe_rows(fixed, regions_with_all(brain.regions, result.used), 2, blocks))
    for region in ("semantic", "auditory"):
        row, other = table.get(region, 2, "r_over_ceiling"), alone.get(region, 2, "r_over_ceiling")
        assert row is not None
        assert other is not None
        ratio = value(table, region, "r_together") / value(table, region, "ceiling")
        assert row.score.value == pytest.approx(ratio, rel=0.05)
        assert row.score.low < row.score.value < row.score.high
        assert row.score.interval != other.score.interval
    assert {row.metric for row in table.rows if "ceiling" in row.metric or "together" in row.metric} <= set(FORMULAS)


def test_a_layer_of_the_curve_has_r_and_r2_and_with_other_bands_the_parts(brain: FakeBrain) -> None:
    alone, together = brain.probe(epoch=4, layer=1, alone=True), brain.probe(epoch=4, layer=1)
    regions, blocks = {"semantic": brain.regions["semantic"]}, block_weights(alone.score_groups, **BOOTSTRAP)
    rows = {row.metric: row.score for row in curve_rows(alone, regions, 1, blocks)}
    assert set(rows) == {"r_backbone", "r2_backbone"}
    assert rows["r2_backbone"].value == pytest.approx(alone.region(regions["semantic"])["r2"])
    low, high = rows["r2_backbone"].interval or (0, 0)
    assert low < rows["r2_backbone"].value < high
    parts = {row.metric for row in curve_rows(together, regions, 1, blocks)}
    assert {"partition_semantic", "split_backbone", "impact_residual_lags"} < parts
