"""The CSV under a figure has the summary's numbers, and no others."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from brainlit.results.figure_data import MOST_VOXELS, learning_csv, scores_csv, voxels_csv
from brainlit.results.run_directory import RunDirectory
from brainlit.results.summary import build_summary


@pytest.fixture(scope="module")
def summary(run: RunDirectory) -> dict[str, Any]:
    return build_summary(run)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("all_layers", [False, True])
def test_every_score_of_all_subjects_is_there_once(summary: dict[str, Any], all_layers: bool) -> None:
    found = {
        (row["region"], int(row["layer"]), row["metric"], row["stage"]): (float(row["value"]), row["low"])
        for row in rows_of(scores_csv(summary, ["r_backbone", "partition_"], all_layers=all_layers))
    }
    expected = {
        (row["region"], row["layer"], row["metric"], stage): row[stage]
        for row in summary["scores"]
        for stage in ("before", "after", "difference")
        if row["subject"] == "all" and stage in row
        if row["metric"] == "r_backbone" or row["metric"].startswith("partition_")
        if all_layers or row["layer"] == summary["probe"]["layer"]
    }
    assert found.keys() == expected.keys()
    assert len({layer for _, layer, _, _ in found}) == 1 + all_layers
    for key, score in expected.items():
        assert found[key][0] == score["value"]
        assert found[key][1] == ("" if score["low"] is None else str(score["low"]))


def test_learning_has_losses_by_step_and_alignment_by_epoch(summary: dict[str, Any]) -> None:
    rows = rows_of(learning_csv(summary, {"val/loss": [(9, 0.5), (19, 0.25)]}))
    assert [(row["step"], row["value"]) for row in rows if row["what"] == "val/loss"] == [("9", "0.5"), ("19", "0.25")]
    aligned = [row for row in rows if row["what"] == "r_backbone"]
    assert {row["epoch"] for row in aligned} == {"0", "2", "4"}
    assert len(aligned) == sum(row["metric"] == "r_backbone" for row in summary["learning"])


def test_a_map_of_too_many_voxels_has_no_csv() -> None:
    few = {"vertex": np.arange(3), "r": np.array([0.5, np.nan, -0.25])}
    assert voxels_csv(few) == "vertex,r\n0,0.5\n1,nan\n2,-0.25\n"
    assert voxels_csv({"vertex": np.arange(MOST_VOXELS + 1)}) == ""
