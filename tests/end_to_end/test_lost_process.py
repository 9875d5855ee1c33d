"""One of two processes of a run is killed: the other ends soon with an error, and the same command goes on."""

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

from brainlit.results.run_directory import RunDirectory, checkpoint_step
from tests.processes import start

N_EPOCHS, N_STEPS = 3, 5
ENDS_WITHIN_S = 60.0
DIES = "BRAINLIT_TEST_DIES"


class Die(pl.Callback):
    """Kill this process in the middle of an epoch, where the environment says so: 'rank epoch'."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        middle = trainer.fit_loop.epoch_loop.batch_idx == N_STEPS // 2
        if middle and os.environ.get(DIES) == f"{trainer.global_rank} {trainer.current_epoch}":
            os.kill(os.getpid(), signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def fit(folder: Path, dies: str) -> tuple[list[int | None], float]:
    """Exit codes of the two processes of one command, and the seconds between their ends."""
    arguments = [
        *("fit", "--data.source", "tests.toy.ToySource", "--data.store_dir", str(folder / "store")),
        *("--data.window.n_trs", "8", "--data.window.context_s", "10", "--data.batch_size", "1"),
        *("--data.window.random_phase", "false"),
        *("--model.backbone.weights", "random:tiny", "--trainer.max_epochs", str(N_EPOCHS)),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"),
        *("--trainer.enable_progress_bar", "false", "--trainer.num_sanity_val_steps", "0"),
        *("--trainer.log_every_n_steps", "1", "--trainer.limit_val_batches", "0"),
        *("--trainer.callbacks+", "tests.end_to_end.test_lost_process.Die"),
        *("--run.root", str(folder), "--run.experiment", "lost", "--run.id", "one", "--run.wandb", "off"),
    ]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    shared |= {DIES: dies, "OMP_NUM_THREADS": "1"}
    both = [start(arguments, folder / f"log-{k}.txt", {**shared, "LOCAL_RANK": str(k)}) for k in range(2)]
    victim = both[int(dies.split()[0])] if dies else both[0]
    victim.join(timeout=300)
    ended = time.monotonic()
    for process in both:
        process.join(timeout=ENDS_WITHIN_S)
    took_s = time.monotonic() - ended
    for process in both:
        process.kill()
        process.join()
    return [process.exitcode for process in both], took_s


def log(folder: Path, rank: int) -> str:
    return (folder / f"log-{rank}.txt").read_text()


def test_a_killed_process_ends_the_run_soon_and_the_same_command_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "lost" / "one"
    for victim, epoch in ((1, 1), (0, 2)):
        codes, took_s = fit(tmp_path, f"{victim} {epoch}")
        assert codes[victim] == -signal.SIGKILL, log(tmp_path, victim)[-3000:]
        assert codes[1 - victim] not in (0, -signal.SIGKILL), log(tmp_path, 1 - victim)[-3000:]
        assert took_s < ENDS_WITHIN_S
        checkpoint = run / "checkpoints" / "last.ckpt"
        assert checkpoint_step(checkpoint) == epoch * N_STEPS, "whole, of the last epoch that ended"
        torch.load(checkpoint, weights_only=True)
        assert RunDirectory.open(run).state == "killed"
    codes, _ = fit(tmp_path, "")
    assert codes == [0, 0], log(tmp_path, 0)[-3000:]
    assert RunDirectory.open(run).state == "finished"
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = {int(row["step"]): float(row["train/loss_step"]) for row in rows if row["train/loss_step"]}
    assert sorted(steps) == list(range(N_EPOCHS * N_STEPS))
    assert len([row for row in rows if row["train/loss_step"]]) == len(steps), "each step once"
    means = [float(row["train/loss_epoch"]) for row in rows if row["train/loss_epoch"]]
    expected = [sum(steps[epoch * N_STEPS + k] for k in range(N_STEPS)) / N_STEPS for epoch in range(N_EPOCHS)]
    assert means == pytest.approx(expected, rel=1e-4), "a step's loss is that of both processes"
