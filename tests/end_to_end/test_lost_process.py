"""One of two processes of a run is killed, or told to end: the other ends soon, and the same command goes on."""

from __future__ import annotations

import csv
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from brainlit.callbacks.resume import REQUEUED_CHECKPOINT
from brainlit.cli.errors import INTERRUPTED
from brainlit.cli.run_options import RUN_VARIABLE
from brainlit.results.run_directory import RunDirectory, checkpoint_step
from tests.processes import start

N_EPOCHS, N_STEPS = 2, 5
PATIENCE_S, ENDS_WITHIN_S = 300.0, 60.0
GETS = "BRAINLIT_TEST_GETS"


class Signal(pl.Callback):
    """Send one process a signal in the middle of the last epoch, where the environment says so: 'rank batch signal'."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        if os.environ[GETS] and trainer.current_epoch == N_EPOCHS - 1:
            rank, batch, number = map(int, os.environ[GETS].split())
            if (trainer.global_rank, trainer.fit_loop.epoch_loop.batch_idx) == (rank, batch):
                os.kill(os.getpid(), number)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def begin(folder: Path, gets: str) -> list[Any]:
    """Both processes of one command, where another run was recorded before by whoever starts them."""
    arguments = [
        *("fit", "--data.source", "tests.toy.ToySource", "--data.store_dir", str(folder / "store")),
        *("--data.window.n_trs", "8", "--data.window.context_s", "10", "--data.batch_size", "1"),
        *("--data.window.random_phase", "false"),
        *("--model.backbone.weights", "random:tiny", "--trainer.max_epochs", str(N_EPOCHS)),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"),
        *("--trainer.enable_progress_bar", "false", "--trainer.num_sanity_val_steps", "0"),
        *("--trainer.log_every_n_steps", "1", "--trainer.limit_val_batches", "0"),
        *("--trainer.callbacks+", "tests.end_to_end.test_lost_process.Signal"),
        *("--run.root", str(folder), "--run.experiment", "lost", "--run.id", "one", "--run.wandb", "off"),
    ]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    shared |= {GETS: gets, "OMP_NUM_THREADS": "1", RUN_VARIABLE: str(folder / "another")}
    return [start(arguments, folder / f"log-{k}.txt", {**shared, "LOCAL_RANK": str(k)}) for k in range(2)]


def ended(process: Any, within_s: float, log: Path) -> int:
    """The exit status; a process that has none yet is killed, and its log shown."""
    process.join(within_s)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
        pytest.fail(f"still there after {within_s:.0f} s:\n{log.read_text()[-3000:]}")
    return int(status)


def test_one_process_ends_the_run_soon_and_the_same_command_goes_on(tmp_path: Path) -> None:
    run, logs = tmp_path / "lost" / "one", [tmp_path / f"log-{rank}.txt" for rank in range(2)]
    # The first process writes all, and the others meet at it.
    first, second = begin(tmp_path, f"0 {N_STEPS // 2} {signal.SIGKILL:d}")
    assert ended(first, PATIENCE_S, logs[0]) == -signal.SIGKILL, logs[0].read_text()[-3000:]
    since = time.monotonic()
    assert ended(second, ENDS_WITHIN_S, logs[1]) == 1
    print(f"the other process ended {time.monotonic() - since:.1f} s after the one that was killed")
    last_line = logs[1].read_text().splitlines()[-1]
    assert last_line.startswith("error: process 0 of the 2 of this run is gone")
    assert str(run / "checkpoints") in last_line
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert checkpoint_step(checkpoint) == (N_EPOCHS - 1) * N_STEPS, "whole, of the last epoch that ended"
    torch.load(checkpoint, weights_only=True)
    assert RunDirectory.open(run).state == "killed"

    both = begin(tmp_path, f"1 1 {signal.SIGTERM:d}")
    assert [ended(one, PATIENCE_S, log) for one, log in zip(both, logs, strict=True)] == [INTERRUPTED] * 2
    assert checkpoint_step(run / REQUEUED_CHECKPOINT) == (N_EPOCHS - 1) * N_STEPS + 2, "the running step is finished"

    both = begin(tmp_path, "")
    assert [ended(one, PATIENCE_S, log) for one, log in zip(both, logs, strict=True)] == [0, 0]
    assert RunDirectory.open(run).state == "finished"
    assert "is gone" not in logs[0].read_text()
    assert logs[1].read_text().count("is gone") == 1, "that of before"
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = {int(row["step"]): float(row["train/loss_step"]) for row in rows if row["train/loss_step"]}
    assert sorted(steps) == list(range(N_EPOCHS * N_STEPS))
    assert len([row for row in rows if row["train/loss_step"]]) == len(steps), "each step once"
    means = [float(row["train/loss_epoch"]) for row in rows if row["train/loss_epoch"]]
    expected = [sum(steps[epoch * N_STEPS + k] for k in range(N_STEPS)) / N_STEPS for epoch in range(N_EPOCHS)]
    assert means == pytest.approx(expected, rel=1e-4), "a step's loss is that of both processes"
