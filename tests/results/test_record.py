from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainlit.encoding.result import ProbeResult
from brainlit.results.metrics import read_metrics
from brainlit.results.record import (
    COLUMNS,
    find_records,
    fitted_on_tuned_said,
    load_record,
    record_path,
    save_record,
    tuned_facts,
    write_table,
)
from brainlit.results.run_directory import RunDirectory
from brainlit.splits import Span
from tests.results.fake_run import FakeBrain, fake_record


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record, result = fake_record(FakeBrain("sub-1"), "before", 0)
    path = save_record(record, result, tmp_path)
    assert path == record_path(tmp_path, "sub-1", 0)
    found = load_record(path)
    assert (found.subject, found.stage, found.epoch, found.layer) == ("sub-1", "before", 0, 2)
    assert found.facts == record.facts
    np.testing.assert_array_equal(found.r, record.r)
    np.testing.assert_array_equal(found.vertices, record.vertices)
    assert found.coordinates_mm is None
    assert list(found.r_by_layer) == [1, 2]
    for layer, r in record.r_by_layer.items():
        np.testing.assert_array_equal(found.r_by_layer[layer], r)
    assert {k: v.tolist() for k, v in found.regions.items()} == {k: v.tolist() for k, v in record.regions.items()}
    assert found.table.keys == record.table.keys
    for old, new in zip(record.table.rows, found.table.rows, strict=True):
        assert new.score.value == old.score.value
        assert (new.score.interval is None) == (old.score.interval is None)
        if old.score.interval:
            np.testing.assert_allclose(new.score.interval, old.score.interval, atol=1e-6)
    assert [file.name for file in path.parent.iterdir()] == ["epoch-000.h5"]


def test_centres_of_voxels_come_back_to_the_last_bit(tmp_path: Path) -> None:
    record, result = fake_record(FakeBrain("sub-1"), "before", 0, places=False)
    centres_mm = np.random.default_rng(0).uniform(-90, 90, (24, 3))
    found = load_record(save_record(replace(record, coordinates_mm=centres_mm), result, tmp_path))
    assert found.vertices is None
    np.testing.assert_array_equal(found.coordinates_mm, centres_mm)


def test_the_file_is_still_a_probe_file(run: RunDirectory) -> None:
    path = record_path(run.probes, "sub-1", 4)
    np.testing.assert_array_equal(ProbeResult.load(path).r_by_model["backbone"], load_record(path).r)


def test_records_are_found_by_epoch(run: RunDirectory) -> None:
    found = [(record.epoch, record.subject) for record in find_records(run.probes)]
    assert found == [(epoch, name) for epoch in (0, 2, 4) for name in ("sub-1", "sub-2")]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    h5py.File(tmp_path / "epoch-000.h5", "w").close()
    with pytest.raises(ValueError, match="no probe record"):
        load_record(tmp_path / "epoch-000.h5")


def test_the_table_is_tidy(run: RunDirectory, tmp_path: Path) -> None:
    records = find_records(run.probes)
    with write_table(records, tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[:-1] == COLUMNS
    assert len(rows) == sum(len(record.table.rows) for record in records)
    row = next(r for r in rows if (r["region"], r["metric"], r["layer"]) == ("semantic", "r_backbone", "2"))
    assert float(row["low"]) < float(row["value"]) < float(row["high"])
    assert (row["n_voxels"], row["n_trs"], row["n_stories"]) == ("8", "110", "2")


def test_metrics_are_read_by_column(run: RunDirectory, tmp_path: Path) -> None:
    metrics = read_metrics(run.path / "metrics.csv")
    assert metrics["train/loss"][:2] == [(0.0, 1.0), (2.0, 0.975)]
    assert [step for step, _ in metrics["val/loss"]] == [9.0, 19.0, 29.0, 39.0]
    assert read_metrics(tmp_path / "none.csv") == {}


def test_stories_that_are_tuned_on_and_fitted_on_are_told_by_their_rows() -> None:
    fit = [Span("a", 0, 50), Span("b", 60, 90), Span("b", 95, 99), Span("c", 0, 9)]
    facts = tuned_facts(fit, [Span("a", 40, 80), Span("b", 0, 60), Span("d", 0, 9)])
    assert facts == {"fitted_on_tuned": ["a"], "n_fit_stories": 3}
    assert tuned_facts(fit, [Span("b", 0, 60), Span("d", 0, 9)]) == {}
    assert tuned_facts(fit, []) == {}
    said = fitted_on_tuned_said(facts)
    assert said.startswith("Encoding models were fitted on stories that the model was tuned on (1 of 3): ")
    assert fitted_on_tuned_said({}) == ""
