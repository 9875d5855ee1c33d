"""Pairs of brain and permuted runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brainlit.cli import main
from brainlit.results.comparison import comparison_table, pair_by_seed, read_summaries


def _summary(seed: int, regime: str, after: float, before: float = 0.2, share_after: float = 0.6) -> dict[str, Any]:
    def row(region: str, metric: str, first: float, last: float) -> dict[str, Any]:
        change = last - first
        return {
            "subject": "all",
            "region": region,
            "layer": 4,
            "metric": metric,
            "before": {"value": first},
            "after": {"value": last},
            "difference": {"value": change, "low": change - 0.01, "high": change + 0.01},
        }

    rows = [
        row("semantic", "r_backbone", before, after),
        row("semantic", "low_level_share", 0.9, share_after),
        row("null", "r_backbone", 0.001, 0.002),
    ]
    run = {"seed": seed, "regime": regime, "experiment": "x", "id": f"{regime}-{seed}"}
    return {"run": run, "probe": {"layer": 4}, "scores": rows, "headline_region": "semantic"}


def test_gain_and_difference_are_those_of_the_pair() -> None:
    (result,) = pair_by_seed([_summary(3, "permuted", 0.22), _summary(3, "brain", 0.3)])
    assert result.gain_percent == pytest.approx(50.0)
    assert result.beyond_permuted == pytest.approx(0.08)
    assert result.permuted_rise == pytest.approx((0.02, 0.01, 0.03))
    assert result.null_brain == pytest.approx(0.002)


def test_table_has_a_line_per_seed_and_the_range() -> None:
    runs = [_summary(s, regime, after) for s, after in ((1, 0.3), (2, 0.26)) for regime in ("brain", "permuted")]
    table = comparison_table(pair_by_seed(runs))
    assert table.count("\n| ") == 2
    assert "mean 40, range 30 to 50 over 2 seeds" in table


def test_seeds_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="no brain and permuted run together"):
        pair_by_seed([_summary(1, "brain", 0.3), _summary(2, "permuted", 0.3)])


def test_runs_that_did_not_start_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="did not start from the same model"):
        pair_by_seed([_summary(1, "brain", 0.3), _summary(1, "permuted", 0.3, before=0.25)])


def test_the_same_regime_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="two runs of seed 1"):
        pair_by_seed([_summary(1, "brain", 0.3), _summary(1, "brain", 0.31)])


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
    assert "| 5 | 0.200 | 0.300 | +50 % | 0.210 | +0.090 |" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "nothing")]) == 2
    assert "has no summary.json" in capsys.readouterr().err
