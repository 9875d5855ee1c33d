"""Curves over shares of the tuning data."""

from __future__ import annotations

import copy
import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.cli import main
from brainlit.comparison.fractions import curve_figure, curve_points, curve_table, write_curve_page, write_curve_table
from brainlit.results.run_directory import RunDirectory, write_json_atomic
from brainlit.results.summary import build_summary, find_score, write_summary
from tests.make import made
from tests.results.fake_run import fake_run
from tests.results.test_report import Page

N_ROWS = 1000


def _facts(fraction: float, seed: int, regime: str, **changes: Any) -> dict[str, Any]:
    n_rows = round(fraction * N_ROWS)
    data = {
        "store": "fake",
        "store_fingerprint": "abc",
        "subjects": ["sub-1"],
        "tune_fraction": fraction,
        "hours": {"tune": n_rows * 2 / 3600},
        "rows": {"tune": n_rows},
        **changes.pop("data", {}),
    }
    model = {"family": "wav2vec", "weights": "tiny", **changes.pop("model", {})}
    return {"regime": regime, "seed": seed, "data_module": data, "backbone": model, "id": f"{regime}-{fraction}-{seed}"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run with real probes."""
    return build_summary(fake_run(tmp_path_factory.mktemp("small"), ("sub-1",), epochs=(0, 4), places=False))


def _summary(
    base: dict[str, Any], fraction: float, seed: int = 1, regime: str = "brain", gain: float = 0.0, **changes: Any
) -> dict[str, Any]:
    """The summary with another share, seed and regime; gain moves alignment after tuning."""
    summary = copy.deepcopy(base)
    summary["probe"] |= changes.pop("probe", {})
    summary["run"] |= _facts(fraction, seed, regime, **changes)
    row = next(r for r in summary["scores"] if (r["subject"], r["region"], r["layer"], r["metric"]) == _ROW)
    for part in ("after", "difference"):
        row[part] = {key: value + gain for key, value in row[part].items()}
    return summary


_ROW = ("all", "semantic", 2, "r_backbone")


def test_points_are_means_over_seeds_and_intervals_do_not_shrink(small: dict[str, Any]) -> None:
    gains = {1: 0.0, 2: 0.1, 3: -0.04}
    runs = [_summary(small, 0.5, seed, gain=gain) for seed, gain in gains.items()]
    (point,) = curve_points(runs)
    row = find_score(small, "semantic", "r_backbone")
    assert row is not None
    before, after, change = row["before"], row["after"], row["difference"]
    assert point.mean("r_before") == pytest.approx(before["value"])
    assert point.mean("r_after") == pytest.approx(after["value"] + 0.02)
    assert point.rise.value == pytest.approx(change["value"] + 0.02)
    over_seeds = 4.302653 * np.std(list(gains.values()), ddof=1) / np.sqrt(3)
    half = np.hypot(over_seeds, (change["high"] - change["low"]) / 2)
    centre = change["value"] + 0.02
    assert point.rise.interval == pytest.approx((centre - half, centre + half), abs=1e-5)
    (single,) = curve_points(runs[:1])
    assert single.rise.interval == pytest.approx((change["low"], change["high"]))
    share = find_score(small, "semantic", "low_level_share")
    assert share is not None
    assert point.mean("share_after") == pytest.approx(share["after"]["value"])
    assert (point.runs[0].rows, point.hours) == (500, pytest.approx(1000 / 3600))


def test_table_and_file_have_a_line_per_regime_and_fraction(small: dict[str, Any], tmp_path: Path) -> None:
    runs = [
        _summary(small, fraction, seed, regime, gain=fraction if regime == "brain" else -0.3)
        for regime in ("permuted", "brain")
        for fraction in (1.0, 0.1)
        for seed in (12, 11)
    ]
    points = curve_points(runs)
    assert [(p.regime, p.fraction) for p in points] == [
        ("brain", 0.1),
        ("brain", 1.0),
        ("permuted", 0.1),
        ("permuted", 1.0),
    ]
    assert curve_table(points).count("\n| ") == 5
    assert "| brain | 0.1 | 0.0556 | 2 |" in curve_table(points)
    with write_curve_table(points, tmp_path / "new").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["regime"] for row in rows] == ["brain", "brain", "permuted", "permuted"]
    assert (rows[0]["rows"], rows[0]["n_seeds"], rows[0]["seeds"]) == ("100", "2", "11 12")
    assert float(rows[1]["r_after"]) - float(rows[0]["r_after"]) == pytest.approx(0.9, abs=1e-5)
    assert float(rows[0]["difference_low"]) < float(rows[0]["difference"]) < float(rows[0]["difference_high"])


def test_the_effect_and_what_the_listeners_are_come_first(small: dict[str, Any], tmp_path: Path) -> None:
    runs = [_summary(small, share, seed, gain=share / 10) for share in (0.1, 1.0) for seed in (11, 12)]
    points = curve_points(runs)
    assert small["run"]["simulated"]
    simulated = "The listeners are simulated: this shows that the method recovers what was planted, not a brain."
    lines = curve_table(points).splitlines()
    assert lines[0] == simulated
    low, high = points[1].rise.interval or (0, 0)
    before, after = (points[1].mean(name) for name in ("r_before", "r_after"))
    effect = (
        f"Brain, 2 seeds: alignment r with semantic voxels is {before:.3f} before tuning and {after:.3f} after 33.3"
        f" minutes of it, {points[1].rise.value:+.3f} (95 % interval {low:+.3f} to {high:+.3f}); after 3.33 minutes the"
        " change is"
    )
    assert lines[2].startswith(effect)
    figure = curve_figure(points)
    assert figure.caption.startswith("Simulated listeners. Alignment r: mean over voxels of Pearson r between")
    first = points[0].runs[0].change
    assert f"{first.n_voxels} voxels, {first.n_subjects} subject" in figure.caption
    seeds = [(mark.numbers[:7], mark.n) for mark in figure.marks if mark.n.startswith("seed ")]
    runs_of = [(f"r {run.change.r_after:.3f}", f"seed {run.seed}") for point in points for run in point.runs]
    assert sorted(seeds) == sorted(runs_of)
    assert [mark.n for mark in figure.marks if mark.n not in {n for _, n in runs_of}] == ["2 seeds", "2 seeds"]
    text = write_curve_page(points, figure, tmp_path).read_text()
    page = " ".join(Page(text).text.split())
    sections = [
        page.index(f"{title} ", page.index(effect)) for title in ("The effect", "The numbers")
    ]  # not the contents
    assert 0 < page.index(simulated) < page.index(effect) < sections[0] < sections[1]
    assert not re.search(r"https?://|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    with write_curve_table(points, tmp_path).open(newline="") as file:
        assert {row["simulated"] for row in csv.DictReader(file)} == {"True"}
    for run in runs:
        run["run"]["simulated"] = False
    people = curve_points(runs)
    assert curve_table(people).startswith("Brain, 2 seeds: ")
    assert "imulated" not in curve_table(people) + curve_figure(people).alt


def test_numbers_without_an_interval_or_share_stay_empty(small: dict[str, Any], tmp_path: Path) -> None:
    bare = _summary(small, 0.5)
    for row in bare["scores"]:
        for part in ("before", "after", "difference"):
            row.get(part, {}).update(low=None, high=None)
    bare["scores"] = [row for row in bare["scores"] if row["metric"] != "low_level_share"]
    points = curve_points([bare])
    assert "- / -" in curve_table(points)
    with write_curve_table(points, tmp_path).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["difference_low"], row["low_level_share_before"]) == ("", "")
    assert curve_figure(points).png.startswith(b"\x89PNG")


def _drawn(monkeypatch: pytest.MonkeyPatch, points: Any) -> Any:
    kept: list[Any] = []
    monkeypatch.setattr("brainlit.results.style.render", lambda figure, *_: kept.append(figure) or b"</style>")
    curve_figure(points)
    return kept[0].axes[0]


def test_the_figure_has_a_line_and_a_band_per_regime(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fractions = (0.1, 0.25, 1.0)
    runs = [_summary(small, f, 1, regime) for f in fractions for regime in ("brain", "permuted")]
    points = curve_points(runs)
    axes = _drawn(monkeypatch, points)
    lines = {line.get_label(): line for line in axes.get_lines()}
    before = points[0].mean("r_before")
    assert set(lines) == {"brain", "permuted", "untuned"}
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(lines["brain"].get_xdata(), [f * N_ROWS * 2 / 3600 for f in fractions])
    np.testing.assert_allclose(lines["untuned"].get_ydata(), before)
    assert lines["untuned"].get_linestyle() == "--"
    assert len(axes.collections) == 2
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    low, high = points[0].rise.interval or (0, 0)
    assert (corners.min(), corners.max()) == pytest.approx((before + low, before + high))


def test_one_point_alone_keeps_its_interval(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (point,) = curve_points([_summary(small, 1.0)])
    axes = _drawn(monkeypatch, [point])
    bars = [line.get_ydata() for line in axes.get_lines() if line.get_linewidth() == 1.4]
    low, high = point.rise.interval or (0, 0)
    np.testing.assert_allclose(bars, [[point.runs[0].change.r_before + low, point.runs[0].change.r_before + high]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"store": "other"}}, r"data 'fake \(abc\)' and 'other \(abc\)'"),
        ({"data": {"subjects": ["sub-2"]}}, "subjects 'sub-1' and 'sub-2'"),
        ({"model": {"family": "hubert"}}, r"model 'wav2vec \(tiny\)' and 'hubert \(tiny\)'"),
        ({"probe": {"score_spans": ["story9[0:60]"]}}, r"score stories 'story4\[0:60\], .*' and 'story9\[0:60\]'"),
        ({"probe": {"fit_spans": ["story9[0:60]"]}}, "fit stories"),
    ],
)
def test_runs_of_other_things_are_refused(small: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"cannot stand in one curve: {message}"):
        curve_points([_summary(small, 0.1), _summary(small, 1.0, **changes)])


def test_the_same_run_twice_and_other_starts_are_refused(small: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"two runs of regime 'brain' have tune_fraction 0\.1 and seed 1"):
        curve_points([_summary(small, 0.1), _summary(small, 0.1)])
    other = _summary(small, 1.0)
    row = next(r for r in other["scores"] if (r["subject"], r["region"], r["layer"], r["metric"]) == _ROW)
    row["before"]["value"] += 0.01
    with pytest.raises(ValueError, match=r"seed 1: before tuning.*did not start from the same model"):
        curve_points([_summary(small, 0.1), other])
    other["run"]["seed"] = 2  # another seed may start elsewhere
    assert len(curve_points([_summary(small, 0.1), other])) == 2


def test_shares_of_other_stories_are_refused(small: dict[str, Any]) -> None:
    other = _summary(small, 0.5, data={"rows": {"tune": 900}})
    with pytest.raises(ValueError, match=r"0\.1 is 100 rows .* 0\.5 is 900 rows .* different tuning stories"):
        curve_points([_summary(small, 0.1), other])


def test_runs_that_were_not_tuned_or_do_not_say_how_much_are_refused(small: dict[str, Any]) -> None:
    untuned = _summary(small, 1.0)
    for row in untuned["scores"]:
        row.pop("difference", None)
    with pytest.raises(
        ValueError, match=r"no r_backbone before and after tuning in 'semantic'.*leave regime pretrained"
    ):
        curve_points([untuned])
    old = _summary(small, 1.0)
    del old["run"]["data_module"]["tune_fraction"]
    with pytest.raises(ValueError, match="does not say how much it was tuned on"):
        curve_points([old])
    with pytest.raises(ValueError, match="no run is given"):
        curve_points([])


def test_the_command_reads_runs_and_writes_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for fraction, learns in ((0.1, 0.2), (1.0, 1.0)):
        run = fake_run(tmp_path, ("sub-1",), learns, (0, 4), places=False, run_id=f"wav2vec-brain-{fraction}-11")
        facts = json.loads((run.path / "run.json").read_text())
        write_json_atomic(run.path / "run.json", {**facts, **_facts(fraction, 11, "brain")})
        opened = RunDirectory(run.path)
        write_summary(opened, build_summary(opened))
        folders.append(str(run.path))
    assert main(["curve", *folders]) == 0
    out = capsys.readouterr().out
    assert "| brain | 0.1 | 0.0556 | 1 |" in out
    assert f"Figure: {tmp_path / 'fake' / 'curve.png'}\nPage: {tmp_path / 'fake' / 'curve.html'}" in out
    assert (tmp_path / "fake" / "curve.png").read_bytes().startswith(b"\x89PNG")
    everything = [str(path) for path in sorted((tmp_path / "fake").iterdir())]
    assert main(["curve", *everything, "--region", "auditory", "--output", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "curve.csv").read_text().count("auditory") == 2
    assert main(["curve", *folders, str(tmp_path)]) == 2
    assert "has no summary.json" in capsys.readouterr().err


def test_make_trains_what_is_missing_and_draws_all_there_is(tmp_path: Path) -> None:
    chosen = ["MODEL=hubert", "REGIME=permuted", "FRACTIONS=0.1 1", "SEEDS=11", "DATA=alice"]
    (command,) = made(tmp_path, "fractions", *chosen)
    assert " ".join(command) == (
        "brainlit fractions --model hubert --regime permuted --data alice --experiment fractions-alice"
        " --fractions 0.1 1 --seeds 11"
    )
