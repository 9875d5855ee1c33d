"""Two probes of the same listeners, compared region by region, against slow references."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.comparison.two_probes import (
    CompareConfig,
    ProbeComparison,
    ProbesDifferError,
    RegionDifference,
    compare_probes,
    comparison_table,
    probe_files,
    write_comparison,
)
from brainlit.encoding.result import ProbeResult
from brainlit.results.record import ProbeRecord, load_record, record_path, save_record
from brainlit.results.run_directory import RunDirectory

FAST = CompareConfig(n_bootstraps=200, permutation_trs=11, n_permutations=999)


@pytest.fixture(scope="module")
def early(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's probe from before it learned, as a probe of its own."""
    return folder_of(run, 0, tmp_path_factory.mktemp("early"))


@pytest.fixture(scope="module")
def learned(run: RunDirectory, early: Path) -> ProbeComparison:
    """The run, after it learned, against itself before."""
    return compare_probes(run.path, early, config=FAST)


def folder_of(run: RunDirectory, epoch: int, folder: Path) -> Path:
    for subject in ("sub-1", "sub-2"):
        copy = record_path(folder / "probes", subject, epoch)
        copy.parent.mkdir(parents=True)
        shutil.copy(record_path(run.probes, subject, epoch), copy)
    return folder


def row_of(comparison: ProbeComparison, subject: str, region: str) -> RegionDifference:
    (row,) = [row for row in comparison.rows if (row.subject, row.region) == (subject, region)]
    return row


def slow_r(result: ProbeResult, mask: np.ndarray, metric: str = "r") -> float:
    """Mean over voxels, every story demeaned, one voxel at a time."""
    scores = []
    for voxel in np.flatnonzero(mask):
        y, p = (np.array(a[:, voxel], dtype=float) for a in (result.observed, result.predictions["backbone"]))
        for group in np.unique(result.score_groups):
            rows = result.score_groups == group
            y[rows] -= y[rows].mean()
            p[rows] -= p[rows].mean()
        scores.append(np.corrcoef(y, p)[0, 1] if metric == "r" else 1 - ((y - p) ** 2).sum() / (y**2).sum())
    return float(np.mean(scores))


@pytest.mark.parametrize("metric", ["r", "r2"])
def test_differences_are_those_of_the_predictions(run: RunDirectory, early: Path, metric: Any) -> None:
    config = dataclasses.replace(FAST, metric=metric, n_permutations=20, n_bootstraps=20)
    found = compare_probes(run.path, early, config=config)
    for region in ("all voxels", "semantic", "auditory", "null"):
        expected = []
        for subject in ("sub-1", "sub-2"):
            files = [record_path(run.probes, subject, epoch) for epoch in (4, 0)]
            mask = load_record(files[0]).regions[region]
            after, before = (slow_r(ProbeResult.load(file), mask, metric) for file in files)
            row = row_of(found, subject, region)
            assert row.a.value == pytest.approx(after, abs=1e-5)
            assert row.b.value == pytest.approx(before, abs=1e-5)
            assert row.difference.value == pytest.approx(after - before, abs=1e-5)
            assert row.n_voxels == int(mask.sum())
            expected.append(after - before)
        assert row_of(found, "all", region).difference.value == pytest.approx(np.mean(expected), abs=1e-5)


def test_what_was_learned_is_found_and_nothing_else(learned: ProbeComparison) -> None:
    for subject in ("sub-1", "sub-2"):
        semantic, null = (row_of(learned, subject, region) for region in ("semantic", "null"))
        assert semantic.difference.interval is not None
        assert semantic.difference.interval[0] > 0
        assert (semantic.test, semantic.n_trs, semantic.n_stories) == ("blocks", 110, 2)
        assert semantic.smallest_p == pytest.approx(2 / 2**10), "ten blocks of eleven rows"
        assert semantic.smallest_p <= semantic.p <= semantic.q < 0.05
        assert semantic.n_lower == 0
        assert null.difference.interval is not None
        assert null.difference.interval[0] < 0 < null.difference.interval[1]
        assert null.p > 0.02
        assert null.n_higher + null.n_lower <= 1


def test_the_interval_is_paired(learned: ProbeComparison) -> None:
    """The draws are shared, so the interval of the difference is narrower than that of two unpaired ones."""
    row = row_of(learned, "sub-1", "auditory")
    a, b, difference = (score.replicates for score in (row.a, row.b, row.difference))
    assert a is not None
    assert b is not None
    assert difference is not None
    np.testing.assert_allclose(difference, a - b)
    assert difference.std() < 0.7 * np.hypot(a.std(), b.std())


def test_adjusted_p_and_the_test_over_subjects(learned: ProbeComparison) -> None:
    rows = [row for row in learned.rows if row.subject == "sub-1"]
    order = sorted(rows, key=lambda row: row.p)
    for rank, row in enumerate(order, start=1):
        later = [len(rows) * other.p / k for k, other in enumerate(order[rank - 1 :], start=rank)]
        assert row.q == pytest.approx(min(1.0, *later))
    both = row_of(learned, "all", "semantic")
    assert (both.test, both.n_subjects, both.n_voxels) == ("wilcoxon", 2, 16)
    assert both.p == both.smallest_p == 0.5, "two people cannot give less"
    text = comparison_table(learned)
    assert "the smallest p that they can give is 0.5" in text
    assert "(b + 1) / (m + 1) with 999 permutations" in text


def test_exchanging_the_two_changes_the_sign(run: RunDirectory, early: Path, learned: ProbeComparison) -> None:
    turned = compare_probes(early, run.path, "semantic", FAST)
    assert {row.region for row in turned.rows} == {"semantic"}
    one, other = (row_of(some, "sub-1", "semantic") for some in (turned, learned))
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.p == pytest.approx(other.p)
    assert (one.n_higher, one.n_lower) == (other.n_lower, other.n_higher)


def test_it_is_written_once(learned: ProbeComparison, tmp_path: Path) -> None:
    file, table = write_comparison(learned, tmp_path / "new")
    whole = json.loads(file.read_text())
    rows = list(csv.DictReader(table.open()))
    assert len(whole["rows"]) == len(rows) == len(learned.rows)
    assert float(rows[0]["difference"]) == whole["rows"][0]["difference"] == learned.rows[0].difference.value
    with pytest.raises(FileExistsError, match="is not overwritten"):
        write_comparison(learned, tmp_path / "new")


def test_responses_in_other_units_are_the_same_responses(run: RunDirectory, early: Path, tmp_path: Path) -> None:
    """Probes fitted on other stories scale their voxels by other standard deviations."""
    file = changed(run, tmp_path, lambda old: {"observed": 3 * old.observed, "predictions": scaled(old, 3)})
    scaled_row, plain_row = (
        row_of(compare_probes(some, record_path(early / "probes", "sub-1", 0), "semantic", FAST), "sub-1", "semantic")
        for some in (file, record_path(run.probes, "sub-1", 4))
    )
    assert scaled_row.difference.value == pytest.approx(plain_row.difference.value, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "facts", "words"),
    [
        (lambda old: {"observed": np.roll(old.observed, 1, axis=1)}, {}, r"responses of sub-1 differ in \d+ of 24"),
        (lambda old: {"used": ~(np.arange(24) == 3)}, {}, "1 voxels of sub-1 are used in one probe and dropped"),
        (lambda old: {"used": np.ones(30, bool)}, {}, "have 30 and 24 voxels"),
        (lambda old: {}, {"score_spans": ["other[0:60]"]}, r"scored on other rows: other\[0:60\] and story4"),
        (lambda old: {"score_groups": old.score_groups[:-3]}, {}, "score 107 and 110 TRs of the same stories"),
    ],
)
def test_what_is_no_pair_is_refused(
    run: RunDirectory, early: Path, tmp_path: Path, change: Any, facts: dict[str, Any], words: str
) -> None:
    file = changed(run, tmp_path, change, facts)
    with pytest.raises(ProbesDifferError, match=words):
        compare_probes(file, early, config=FAST)


def test_regions_must_have_the_same_voxels(run: RunDirectory, early: Path, tmp_path: Path) -> None:
    record = load_record(record_path(run.probes, "sub-1", 4))
    other = {**record.regions, "null": ~record.regions["null"]}
    result = ProbeResult.load(record_path(run.probes, "sub-1", 4))
    file = save_record(dataclasses.replace(record, regions=other), result, tmp_path)
    with pytest.raises(ProbesDifferError, match="the region 'null' of sub-1 has other voxels"):
        compare_probes(file, early)


def test_nothing_to_compare_is_said(run: RunDirectory, early: Path, tmp_path: Path) -> None:
    one, two = (record_path(run.probes, f"sub-{k}", 4) for k in (1, 2))
    with pytest.raises(ProbesDifferError, match=r"nothing to compare: .* has probes of sub-1, .* of sub-2"):
        compare_probes(one, two)
    with pytest.raises(ProbesDifferError, match="are the same probe"):
        compare_probes(run.path, run.probes)
    with pytest.raises(FileNotFoundError, match="holds no probe"):
        compare_probes(tmp_path, early)
    with pytest.raises(ValueError, match="Did you mean 'semantic'"):
        compare_probes(run.path, early, "semantics")
    with pytest.raises(ValueError, match="smaller --bootstrap_trs"):
        compare_probes(run.path, early, config=CompareConfig(bootstrap_trs=100))
    with pytest.raises(ValueError, match="metric is 'R'"):
        CompareConfig(metric="R")  # type: ignore[arg-type]
    ProbeResult.load(one).save(tmp_path / "no_record.h5")
    with pytest.raises(ValueError, match="holds no probe record"):
        compare_probes(tmp_path / "no_record.h5", early)


def test_the_last_epoch_of_a_run_is_taken(run: RunDirectory) -> None:
    assert {file.name for file in probe_files(run.path).values()} == {"epoch-004.h5"}
    assert set(probe_files(record_path(run.probes, "sub-2", 0))) == {"sub-2"}


def changed(run: RunDirectory, folder: Path, change: Any, facts: dict[str, Any] | None = None) -> Path:
    """The file of sub-1 after learning, with changes."""
    file = record_path(run.probes, "sub-1", 4)
    result, record = ProbeResult.load(file), load_record(file)
    other: ProbeRecord = dataclasses.replace(record, facts={**record.facts, **(facts or {})})
    return save_record(other, dataclasses.replace(result, **change(result)), folder)


def scaled(result: ProbeResult, factor: float) -> dict[str, np.ndarray]:
    return {model: factor * predicted for model, predicted in result.predictions.items()}
