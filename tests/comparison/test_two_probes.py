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

from brainlit.comparison.probe_pairs import ProbesDifferError, probe_files
from brainlit.comparison.two_probes import (
    CompareConfig,
    ProbeComparison,
    RegionDifference,
    compare_probes,
    probes_table,
    write_comparison,
)
from brainlit.encoding.result import ProbeResult
from brainlit.results.record import ProbeRecord, load_record, record_path, save_record
from brainlit.results.run_directory import RunDirectory
from tests.benchmarks.refitted_probes import Cell, rejections

FAST = CompareConfig(n_bootstraps=200, permutation_trs=11, n_permutations=999)


@pytest.fixture(scope="module")
def early(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's probe from before it learned, as a probe of its own."""
    return folder_of(run, 0, tmp_path_factory.mktemp("early"))


@pytest.fixture(scope="module")
def learned(run: RunDirectory, early: Path) -> ProbeComparison:
    """The run, after it learned, against itself before."""
    return compare_probes(run.path, early, config=FAST)


@pytest.fixture(scope="module")
def held(run: RunDirectory, early: Path) -> ProbeComparison:
    """The same with the fitted weights held fixed."""
    return compare_probes(run.path, early, config=dataclasses.replace(FAST, hold_fits=True))


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
        assert (semantic.test, semantic.n_trs, semantic.n_stories, semantic.n_parts) == ("blocks and fit", 110, 2, 4)
        assert semantic.smallest_p == pytest.approx(2 / 2**10), "ten blocks of eleven rows"
        assert semantic.smallest_p <= semantic.p <= semantic.q < 0.05
        assert semantic.n_lower == 0
        assert null.difference.interval is not None
        assert null.difference.interval[0] < 0 < null.difference.interval[1]
        assert null.p > 0.02
        assert null.n_higher + null.n_lower <= 1


def test_simulated_listeners_are_said_first(
    run: RunDirectory, early: Path, learned: ProbeComparison, tmp_path: Path
) -> None:
    assert probes_table(learned).startswith("The listeners are simulated: this shows that the method recovers")
    file, table = write_comparison(learned, tmp_path)
    assert next(iter(json.loads(file.read_text()).items())) == ("simulated", True)
    with table.open(newline="") as lines:
        assert {row["simulated"] for row in csv.DictReader(lines)} == {"True"}
    people = dataclasses.replace(learned, simulated=False)
    assert probes_table(people).startswith("A: ")
    assert not compare_probes(early, folder_of(run, 4, tmp_path / "late"), config=FAST).simulated, "nobody says so"


def test_the_interval_is_paired(held: ProbeComparison) -> None:
    """The draws are shared, so the interval of the difference is narrower than that of two unpaired ones."""
    row = row_of(held, "sub-1", "auditory")
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
    text = probes_table(learned)
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


# --- The fit ---


def test_the_jackknife_over_fit_stories_is_added_to_the_interval(
    run: RunDirectory, early: Path, learned: ProbeComparison, held: ProbeComparison
) -> None:
    mask = load_record(record_path(run.probes, "sub-1", 4)).regions["semantic"]
    files = record_path(run.probes, "sub-1", 4), record_path(early / "probes", "sub-1", 0)
    after, before = (ProbeResult.load(file).left_out["r"][:, mask].mean(axis=1) for file in files)
    gaps = np.asarray(after - before, dtype=float)
    variance = sum((gap - gaps.mean()) ** 2 for gap in gaps) * 3 / 4
    drawn, fixed = (row_of(some, "sub-1", "semantic") for some in (learned, held))
    assert drawn.difference.value == fixed.difference.value
    for end in ("low", "high"):
        time = getattr(fixed.difference, end) - fixed.difference.value
        own = getattr(drawn.difference, end) - drawn.difference.value
        assert abs(own) == pytest.approx(np.sqrt(time**2 + 3.182446**2 * variance), rel=1e-5)
    assert fixed.test == "blocks"
    assert fixed.n_parts == 0
    for one, other in zip(learned.rows, held.rows, strict=True):
        assert one.p >= other.p


def test_it_says_what_is_drawn_and_that_no_training_run_is(learned: ProbeComparison, held: ProbeComparison) -> None:
    drawn, fixed = probes_table(learned), probes_table(held)
    assert "Drawn: minutes of the scored stories, and fit stories (4 parts left out in turn" in drawn
    assert (
        "Drawn for sub-1, sub-2: minutes of the scored stories only. The fitted weights are held fixed, as asked"
        in fixed
    )
    for said in (drawn, fixed):
        assert "Not drawn: the training run." in said


def test_probes_without_it_are_compared_with_fits_held_and_say_so(
    run: RunDirectory, early: Path, tmp_path: Path
) -> None:
    file = changed(run, tmp_path, lambda old: {"left_out": {}})
    found = compare_probes(file, record_path(early / "probes", "sub-1", 0), "semantic", FAST)
    assert (found.rows[0].test, found.rows[0].n_parts) == ("blocks", 0)
    assert "held fixed, for at least 4 fit stories are needed" in probes_table(found)


def test_probes_fitted_on_other_stories_err_each_by_itself(run: RunDirectory, early: Path, tmp_path: Path) -> None:
    files = [changed(run, tmp_path / str(k), lambda old: {}, {"fit_spans": [f"other{k}[0:60]"]}) for k in range(2)]
    row = row_of(compare_probes(*files, "semantic", FAST), "sub-1", "semantic")
    variance = 2 * jackknife_of(run, "semantic")
    assert row.difference.value == 0
    assert row.difference.high == pytest.approx(3.182446 * np.sqrt(variance), rel=1e-5)


def jackknife_of(run: RunDirectory, region: str) -> float:
    file = record_path(run.probes, "sub-1", 4)
    left = ProbeResult.load(file).left_out["r"][:, load_record(file).regions[region]].mean(axis=1, dtype=np.float64)
    return float(3 / 4 * ((left - left.mean()) ** 2).sum())


def test_equal_models_fitted_on_other_stories_come_out_different_less_often() -> None:
    """A small form of the benchmark, whose table has 200 data sets per row."""
    held_p, held_interval, drawn_p, drawn_interval = rejections(Cell(12, 60, 40), 20, first_seed=1_000).mean(axis=0)
    assert held_p >= drawn_p <= 0.05
    assert held_interval >= drawn_interval <= 0.05
