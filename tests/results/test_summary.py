from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.results.lookup import find_score, regions_of
from brainlit.results.record import find_records
from brainlit.results.run_directory import RunDirectory
from brainlit.results.summary import build_summary, write_summary


def test_numbers_are_means_over_subjects_with_paired_differences(run: RunDirectory) -> None:
    records = find_records(run.probes)
    row = find_score(build_summary(run), "semantic", "r_backbone")
    assert row is not None
    own = {(r.subject, r.epoch): r.table.get("semantic", 2, "r_backbone") for r in records}
    for stage, epoch in (("before", 0), ("after", 4)):
        values = [own[name, epoch].score.value for name in ("sub-1", "sub-2")]  # type: ignore[union-attr]
        assert row[stage]["value"] == pytest.approx(np.mean(values))
    assert row["difference"]["value"] == pytest.approx(row["after"]["value"] - row["before"]["value"])
    assert row["difference"]["low"] > 0
    assert (row["n_voxels"], row["n_subjects"]) == (16, 2)
    paired, alone = (row[key]["high"] - row[key]["low"] for key in ("difference", "before"))
    draws = [own[name, 4].score.replicates - own[name, 0].score.replicates for name in ("sub-1", "sub-2")]  # type: ignore[union-attr, operator]
    low, high = np.quantile(np.mean(draws, axis=0), [0.025, 0.975])
    assert paired == pytest.approx(high - low)
    assert alone > 0


def test_voxels_up_counts_voxels(run: RunDirectory) -> None:
    records = {(r.subject, r.epoch): r for r in find_records(run.probes)}
    up = np.concatenate(
        [(records[name, 4].r > records[name, 0].r)[records[name, 0].regions["semantic"]] for name in ("sub-1", "sub-2")]
    )
    row = find_score(build_summary(run), "semantic", "r_backbone")
    assert row is not None
    assert row["voxels_up"] == pytest.approx(up.mean())


def test_it_is_plain_json_and_comes_back(run: RunDirectory, tmp_path: Path) -> None:
    summary = build_summary(run)
    other = RunDirectory(tmp_path)
    assert json.loads(write_summary(other, summary).read_text()) == json.loads(json.dumps(summary))


def test_stages_and_learning_cover_the_epochs(run: RunDirectory) -> None:
    summary = build_summary(run)
    assert {name: stage["epoch"] for name, stage in summary["stages"].items()} == {"before": 0, "after": 4}
    curve = [row for row in summary["learning"] if (row["region"], row["metric"]) == ("semantic", "r_backbone")]
    assert [row["epoch"] for row in curve] == [0, 2, 4]
    assert curve[0]["value"] < curve[1]["value"]


def test_the_headline_region_follows_the_rule(run: RunDirectory) -> None:
    records = find_records(run.probes)
    assert build_summary(run, records)["headline_region"] == "semantic"
    asked = [replace(r, facts={**r.facts, "headline_region": "auditory"}) for r in records]
    assert build_summary(run, asked)["headline_region"] == "auditory"
    unknown = [replace(r, facts={**r.facts, "headline_region": "nowhere"}) for r in records]
    assert build_summary(run, unknown)["headline_region"] == "semantic"


def test_probes_with_other_settings_are_not_compared(run: RunDirectory) -> None:
    records = find_records(run.probes)
    records[-1] = replace(records[-1], fingerprint="other")
    with pytest.raises(ValueError, match="cannot be compared"):
        build_summary(run, records)


def test_warnings_that_differ_in_numbers_come_once_and_from_the_last_probe(run: RunDirectory) -> None:
    texts = {("sub-1", 0): "old", ("sub-1", 4): "12 % lie at 1e4.", ("sub-2", 4): "7 % lie at 1e4."}
    records = [
        replace(r, facts={**r.facts, "warnings": [texts[r.subject, r.epoch]] if (r.subject, r.epoch) in texts else []})
        for r in find_records(run.probes)
    ]
    assert build_summary(run, records)["warnings"] == ["12 % lie at 1e4. (So, with other numbers, for 2 subjects.)"]
    assert build_summary(run, records[:1])["warnings"] == ["old"]


def test_a_run_without_training_has_no_difference(run: RunDirectory) -> None:
    summary = build_summary(run, [r for r in find_records(run.probes) if r.epoch == 0])
    row = find_score(summary, "semantic", "r_backbone")
    assert row is not None
    assert "difference" not in row
    assert "after" not in summary["stages"]
    assert "is 0." in summary["headline"][0]


def test_a_run_without_probes_has_a_summary(tmp_path: Path) -> None:
    summary = build_summary(RunDirectory.create(tmp_path, "e", "one"))
    assert summary["scores"] == []
    assert regions_of(summary) == []
    assert find_score(summary, "semantic", "r_backbone") is None
