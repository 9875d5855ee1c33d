"""What a W&B server has of a run that was killed, that it did not answer, or that an agent of a sweep started."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import ROW, STEP
from brainlit.results.wandb_names import wandb_id
from tests.end_to_end.wandb_worker import fit_options
from tests.wandb_server import API_KEY, ROWS, WandbServer, wandb_server

ROOT = Path(__file__).parents[2]
THREE_ROWS = """
import sys
from pathlib import Path

from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import WandbOptions, wandb_logger

run = RunDirectory.create(Path(sys.argv[1]), "brain_tune", "one")
logger = wandb_logger(run, {}, WandbOptions(finish_timeout_s=3.0), mode="online")
for step in range(3):
    logger.log_metrics({"train/loss": 1.0 / (1 + step)}, step=step)
logger.finalize("success")
print("the end", flush=True)
"""


def environ(server: WandbServer, home: Path) -> dict[str, str]:
    """Somebody who is logged in at this server, to which rows are sent every second."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return own | {
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": API_KEY,
        "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
        "WANDB_INIT_TIMEOUT": "3",
    }


def execute(server: WandbServer, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environ(server, home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 300
    while not is_so():
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.1)


def numbers(rows: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    """Step, name and value of all scalars that are not W&B's own."""
    own = (STEP, ROW, "epoch")
    scalars = [(row[STEP], key, row[key]) for row in rows for key in row if key[0] != "_" and key not in own]
    return sorted((step, key, value) for step, key, value in scalars if isinstance(value, int | float))


def kept_numbers(run: RunDirectory) -> list[tuple[int, str, float]]:
    """The same of the run's own table."""
    with (run.path / "metrics.csv").open(newline="") as file:
        return sorted(
            (int(float(row["step"])), key, float(value))
            for row in csv.DictReader(file)
            for key, value in row.items()
            if value and key not in ("step", "epoch")
        )


def test_a_killed_run_that_goes_on_is_one_run_with_every_step_once(tmp_path: Path) -> None:
    """Of its second epoch the server has one step, which is computed again, and lacks the other."""
    command = [sys.executable, "-m", "tests.end_to_end.wandb_worker", str(tmp_path), "online"]
    with wandb_server() as server, (tmp_path / "log").open("w") as log:
        killed = subprocess.Popen(command, cwd=ROOT, env=environ(server, tmp_path), stdout=log, stderr=log, text=True)
        wait_until(lambda: any(row.get(STEP) == 2 for run in server.runs.values() for row in run.rows()), killed)
        server.stalls.add(ROWS)
        (tmp_path / "go").touch()
        assert killed.wait(300) == -signal.SIGKILL, (tmp_path / "log").read_text()[-4000:]
        server.stalls.clear()
        (first,) = server.runs.values()
        assert not first.complete
        had = first.rows()
        assert [row[STEP] for row in had if "train/loss_step" in row] == [0, 1, 2]
        done = execute(server, tmp_path, *command)
        assert done.returncode == 0, done.stderr[-4000:]
        assert "wandb:" not in done.stdout + done.stderr
    run = RunDirectory.open(tmp_path / "runs" / "brain_tune" / "one")
    assert list(server.runs) == [wandb_id(run)]
    assert first.complete
    rows = first.rows()
    assert rows[: len(had)] == had
    assert first.n_replaced == 0
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert [row[ROW] for row in rows] == list(range(len(rows)))
    assert [row[STEP] for row in rows if "train/loss_step" in row] == [0, 1, 2, 3]
    kept = kept_numbers(run)
    assert len(kept) == 4 * 3 + 2 * 3, "loss and two rates a step; one training and two validation losses an epoch"
    assert numbers(rows) == kept


def test_a_server_that_stops_answering_holds_a_run_for_a_limited_time(tmp_path: Path) -> None:
    with wandb_server() as server:
        server.stalls.add(ROWS)
        done = execute(server, tmp_path, sys.executable, "-c", THREE_ROWS, str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "the end" in done.stdout
        (line,) = [line for line in done.stderr.splitlines() if "wandb.finish_timeout_s" in line]
        assert "W&B did not take all of this run in 3 s" in line
        assert "wandb.finish_timeout_s" in line
        (run,) = server.runs.values()
        assert run.rows() == []
        server.stalls.clear()
        sync = line.split("`")[1].split()
        given = execute(server, tmp_path, sys.executable, "-m", *sync)
        assert given.returncode == 0, given.stderr
        assert [(row[STEP], row["train/loss"]) for row in run.rows()] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]


def test_a_server_that_does_not_answer_at_the_start_costs_the_run_nothing(tmp_path: Path) -> None:
    with wandb_server() as server:
        server.stalls.add("UpsertBucket")
        done = execute(server, tmp_path, sys.executable, "-c", THREE_ROWS, str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "the end" in done.stdout
        (line,) = [line for line in done.stderr.splitlines() if "W&B" in line]
        assert "W&B does not answer" in line
        server.stalls.clear()
        given = execute(server, tmp_path, sys.executable, "-m", *line.split("`")[1].split())
        assert given.returncode == 0, given.stderr
        (run,) = server.runs.values()
        assert [row[STEP] for row in run.rows()] == [0, 1, 2]


def test_an_agent_trains_with_what_the_sweep_chose(tmp_path: Path) -> None:
    """`wandb agent` itself, with the file of a sweep; on the toy data set."""
    sweep = yaml.safe_load((ROOT / "experiments" / "sweeps" / "rates.yaml").read_text())
    chosen = {"model.backbone_lr": 0.0011, "model.head_lr": 0.0022}
    words = sweep["command"]
    sweep["command"] = [*words[:-1], *fit_options(tmp_path, [])[2:], "--run.wandb", "online", words[-1]]
    agent = [sys.executable, "-m", "wandb", "agent", "--count", "1", f"lab/{sweep['project']}/one-sweep"]
    with wandb_server() as server:
        server.sweep, server.chosen = sweep, {"of-agent": chosen}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = execute(server, tmp_path, "env", f"PATH={path}", *agent)
        assert done.returncode == 0, done.stderr
    assert list(server.runs) == ["of-agent"], done.stderr[-4000:]
    run = server.runs["of-agent"]
    assert run.complete
    config = json.loads(run.config)
    assert {key: config["model"]["value"][key.split(".")[1]] for key in chosen} == chosen
    folder = RunDirectory.open(tmp_path / "runs" / "sweep_rates" / "one")
    assert numbers(run.rows()) == kept_numbers(folder)
    losses = [value for _, key, value in kept_numbers(folder) if key == sweep["metric"]["name"]]
    assert run.summary()[sweep["metric"]["name"]] == losses[-1]
