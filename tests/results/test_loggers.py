from __future__ import annotations

import csv
from pathlib import Path

from brainlit.results.loggers import MetricsLogger


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_run_continues_metrics_csv(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    first = MetricsLogger(tmp_path)
    first.log_metrics({"train/loss": 1.0}, step=0)
    first.save()
    second = MetricsLogger(tmp_path)
    second.log_metrics({"train/loss": 0.5, "val/loss": 0.7}, step=1)
    second.save()
    assert [(row["step"], row["train/loss"], row["val/loss"]) for row in rows(tmp_path)] == [
        ("0", "1.0", ""),
        ("1", "0.5", "0.7"),
    ]
    assert sorted([file.name for file in tmp_path.iterdir()]) == ["checkpoints", "metrics.csv"]


def test_rows_of_steps_that_are_trained_again_are_dropped_and_none_is_written_twice(tmp_path: Path) -> None:
    first = MetricsLogger(tmp_path)
    probe = {"probe/all/r": 0.1}
    first.log_metrics(probe, step=0)
    for step in range(4):
        first.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": step // 2}, step=step)
    first.log_metrics({"probe/all/r": 0.2}, step=2)
    first.log_metrics({"probe/all/r": 0.3}, step=4)
    first.save()

    resumed = MetricsLogger(tmp_path, resumed_step=2)
    resumed.log_metrics(probe, step=0)
    resumed.log_metrics({"train/loss": 0.25, "epoch": 1}, step=2)
    resumed.save()
    found = [(row["step"], row["train/loss"], row["probe/all/r"]) for row in rows(tmp_path)]
    assert found == [("0", "", "0.1"), ("0", "1.0", ""), ("1", "0.5", ""), ("2", "", "0.2"), ("2", "0.25", "")]
