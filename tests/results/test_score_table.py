from __future__ import annotations

import numpy as np
import pytest

from brainlit.results.region_scores import Score, block_weights
from brainlit.results.score_table import (
    ALL_VOXELS,
    ScoreRow,
    ScoreTable,
    partition_scores,
    probe_rows,
    regions_with_all,
)
from tests.results.fake_run import BOOTSTRAP, FakeBrain


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
    assert ratio == pytest.approx(value(table, "semantic", "r_backbone") / 0.3)
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
