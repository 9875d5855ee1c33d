from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainlit.results.loggers import MetricsLogger, wandb_logger, wandb_mode


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


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "k" * 40}, "online"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
    ],
)
def test_wandb_mode_without_netrc(environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    assert wandb_mode({"HOME": str(tmp_path), **environ}) == expected


@pytest.mark.parametrize(
    ("line", "base_url", "expected"),
    [
        ("machine api.wandb.ai login user password x\n", None, "online"),
        ("machine elsewhere.org login user password x\n", None, "offline"),
        ("machine wandb.lab.org login user password x\n", "https://wandb.lab.org", "online"),
        ("machine api.wandb.ai login user password x\n", "https://wandb.lab.org", "offline"),
        ("this is no netrc file\n", None, "offline"),
    ],
)
def test_wandb_mode_reads_netrc(line: str, base_url: str | None, expected: str, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(line)
    (tmp_path / ".netrc").chmod(0o600)
    environ = {"HOME": str(tmp_path), **({"WANDB_BASE_URL": base_url} if base_url else {})}
    assert wandb_mode(environ) == expected


def test_no_logger_where_wandb_is_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(tmp_path) is None


def test_wandb_works_offline_without_account_and_asks_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from brainlit.results.loggers import wandb_logger;"
        "logger = wandb_logger(sys.argv[1], run_id='run-1', config={'lr': 0.1});"
        "logger.log_metrics({'probe/all/layer-1/r': 0.5}, step=3);"
        "assert 'WANDB_MODE' not in os.environ;"
        "run = logger.experiment; print(run.id, run.config['lr'], run.config['run_id'], run.settings.mode);"
        "run.finish()"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["run-1", "0.1", "run-1", "offline"]
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
