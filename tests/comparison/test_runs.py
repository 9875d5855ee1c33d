"""Pairs of brain and permuted runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.cli import main
from brainlit.comparison.runs import FinishedRun, pair_by_seed, pairs_table, read_finished, read_summaries
from brainlit.results.record import find_records
from brainlit.results.run_directory import RunDirectory
from brainlit.results.summary import build_summary, write_summary
from tests.results.fake_run import fake_run


def _summary(
    seed: int, regime: str, after: float, before: float = 0.2, share_after: float = 0.6, model: str = "wav2vec"
) -> dict[str, Any]:
    def row(region: str, metric: str, first: float, last: float) -> dict[str, Any]:
        change = last - first
        return {
            "subject": "all",
            "region": region,
            "layer": 4,
            "metric": metric,
            "n_voxels": 8,
            "n_subjects": 1,
            "before": {"value": first},
            "after": {"value": last},
            "difference": {"value": change, "low": change - 0.01, "high": change + 0.01},
        }

    rows = [
        row("semantic", "r_backbone", before, after),
        row("semantic", "low_level_share", 0.9, share_after),
        row("null", "r_backbone", 0.001, 0.002),
    ]
    run = {
        "seed": seed,
        "regime": regime,
        "experiment": "x",
        "id": f"{regime}-{seed}",
        "model": f"{model} (tiny), small",
    }
    return {"run": run, "probe": {"layer": 4}, "scores": rows, "headline_region": "semantic"}


def _run(*args: Any, **options: Any) -> FinishedRun:
    return FinishedRun(_summary(*args, **options), {})


def test_gain_and_difference_are_those_of_the_pair() -> None:
    (result,) = pair_by_seed([_run(3, "permuted", 0.22), _run(3, "brain", 0.3)])
    assert result.gain_percent == pytest.approx(50.0)
    assert result.beyond_permuted.value == pytest.approx(0.08)
    assert result.permuted_rise.value == pytest.approx(0.02)
    assert result.permuted_rise.interval == pytest.approx((0.01, 0.03))
    assert result.null_brain == pytest.approx(0.002)


def test_table_has_a_line_per_seed_and_the_range() -> None:
    runs = [_run(s, regime, after) for s, after in ((1, 0.3), (2, 0.26)) for regime in ("brain", "permuted")]
    table = pairs_table(pair_by_seed(runs))
    assert table.count("\n| ") == 2
    assert "mean 40, range 30 to 50 over 2 seeds" in table


def test_the_table_says_first_that_listeners_are_simulated() -> None:
    runs = [_run(1, regime, 0.3) for regime in ("brain", "permuted")]
    assert pairs_table(pair_by_seed(runs)).startswith("| model |")
    for run in runs:
        run.summary["run"]["simulated"] = True  # type: ignore[index]
    assert pairs_table(pair_by_seed(runs)).startswith("The listeners are simulated: this shows")


def test_several_models_are_paired_each_by_itself() -> None:
    runs = [
        _run(1, regime, after + more, model=model)
        for model, more in (("hubert", 0.0), ("whisper", 0.1))
        for regime, after in (("brain", 0.3), ("permuted", 0.2))
    ]
    results = pair_by_seed(runs)
    assert [(result.model, round(result.brain.r_after, 3)) for result in results] == [
        ("hubert (tiny)", 0.3),
        ("whisper (tiny)", 0.4),
    ]
    assert "whisper (tiny):\n- gain over the backbone before tuning (%): mean 100" in pairs_table(results)


def test_the_difference_has_the_interval_of_paired_replicates(tmp_path: Path) -> None:
    paths = []
    for name, learns in (("brain", 1.0), ("permuted", 0.3)):
        run = fake_run(tmp_path, epochs=(0, 4), learns=learns, control=name == "permuted", places=False, run_id=name)
        write_summary(run, build_summary(run))
        paths.append(run.path)
    (result,) = pair_by_seed(read_finished(paths))
    drawn = []
    for path in paths:
        last = [record for record in find_records(path / "probes") if record.epoch == 4]
        drawn.append(
            np.mean([record.table.get("semantic", 2, "r_backbone").score.replicates for record in last], axis=0)
        )
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    assert result.beyond_permuted.interval == pytest.approx((low, high))
    assert result.beyond_permuted.value == pytest.approx(result.brain.r_after - result.r_permuted)
    assert low > 0
    assert f"({low:+.3f} to {high:+.3f})" in pairs_table([result])


def test_permutations_of_a_seed_are_averaged(tmp_path: Path) -> None:
    paths = []
    for name, learns in (("brain", 1.0), ("permuted", 0.3), ("permuted-draw2", 0.1)):
        run = fake_run(tmp_path, ("sub-1",), learns, (0, 4), control=name != "brain", places=False, run_id=name)
        write_summary(run, build_summary(run))
        paths.append(run.path)
    runs = read_finished(paths)
    (result,) = pair_by_seed(runs)
    alone = [pair_by_seed([runs[0], run])[0] for run in runs[1:]]
    assert result.n_permutations == 2
    for name in ("r_permuted", "share_permuted"):
        assert getattr(result, name) == pytest.approx(np.mean([getattr(one, name) for one in alone])), name
    for end in ("value", "low", "high"):
        assert getattr(result.permuted_rise, end) == pytest.approx(
            np.mean([getattr(one.permuted_rise, end) for one in alone])
        )
    mean_of_draws = np.mean([one.beyond_permuted.replicates for one in alone], axis=0)
    assert result.beyond_permuted.interval == pytest.approx(np.quantile(mean_of_draws, [0.025, 0.975]))
    assert "- permuted: mean over 2 permutations of each seed" in pairs_table([result])
    assert "permutations" not in pairs_table(alone)


def test_only_what_is_compared_is_kept_of_a_probe(small_run: RunDirectory) -> None:
    write_summary(small_run, build_summary(small_run))
    (run,) = read_finished([small_run.path])
    whole = {record.epoch: record.table for record in find_records(small_run.probes)}
    for records, epoch in ((run.before, 0), (run.after, 4)):
        table = records["sub-1"].table
        assert {region for region, _, _ in table.keys} == {"semantic", "auditory", "null"}
        assert ("semantic", 2, "r_joint") in whole[epoch].keys
        assert table.get("semantic", 2, "r_joint") is None
        kept, there = table.get("semantic", 1, "r_backbone"), whole[epoch].get("semantic", 1, "r_backbone")
        assert kept is not None
        assert there is not None
        assert kept.score.value == there.score.value


def test_seeds_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="no brain and permuted run together"):
        pair_by_seed([_run(1, "brain", 0.3), _run(2, "permuted", 0.3)])


def test_runs_that_did_not_start_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="did not start from the same model"):
        pair_by_seed([_run(1, "brain", 0.3), _run(1, "permuted", 0.3, before=0.25)])


def test_the_same_regime_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two runs of wav2vec \(tiny\), seed 1"):
        pair_by_seed([_run(1, "brain", 0.3), _run(1, "brain", 0.31)])


def test_unfinished_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "summary.json").write_text(json.dumps(_summary(1, "brain", 0.3)))
    assert read_summaries([tmp_path / "done"])[0]["run"]["seed"] == 1
    with pytest.raises(FileNotFoundError, match=r"has no summary\.json"):
        read_summaries([tmp_path / "done", tmp_path / "other"])


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for regime, after in (("brain", 0.3), ("permuted", 0.21)):
        (tmp_path / regime).mkdir()
        (tmp_path / regime / "summary.json").write_text(json.dumps(_summary(5, regime, after)))
    assert main(["compare", str(tmp_path / "brain"), str(tmp_path / "permuted")]) == 0
    assert "| wav2vec (tiny) | 5 | 0.200 | 0.300 | +50 % | 0.210 | +0.090 |" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "nothing")]) == 2
    assert "has no summary.json" in capsys.readouterr().err
