"""A SLURM job that is told to end in the middle of an epoch, requeued and started again, through the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from brainlit.results.run_directory import RunDirectory
from tests.backbones.conftest import save_mini
from tests.callbacks.test_resume import SLURM, fake_scontrol
from tests.processes import start

PATIENCE_S = 300


class EndIsNear(pl.Callback):
    """What SLURM does some time before the limit: send SIGUSR1, here in the middle of a step; once."""

    def __init__(self, epoch: int, batch: int, once: str) -> None:
        self.when, self.once = (epoch, batch), Path(once)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == self.when and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGUSR1)


def run(arguments: list[str], environ: dict[str, str], log: Path) -> int | None:
    """The exit status of the command in a SLURM job."""
    process = start(arguments, log, environ)
    process.join(PATIENCE_S)
    assert not process.is_alive(), log.read_text()[-3000:]
    return process.exitcode


def arguments(folder: Path, name: str, epoch: int = 9) -> list[str]:
    """Two epochs of five batches with dropout in the head; the end is near before the third step of an epoch."""
    near = {"epoch": epoch, "batch": 2, "once": str(folder / "once")}
    callbacks = json.dumps([{"class_path": f"{__name__}.EndIsNear", "init_args": near}])
    return [
        *("fit", "--data.source", "tests.toy.ToySource", "--data.store_dir", str(folder / "store")),
        *("--data.window.n_trs", "8", "--data.batch_size", "2", "--model.backbone.weights", str(folder / "mini")),
        *("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.devices", "1"),
        *("--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0"),
        *("--trainer.callbacks", callbacks, "--trainer.enable_progress_bar", "false"),
        *("--run.root", str(folder / name), "--run.wandb", "off"),
    ]


def the_run(folder: Path, name: str) -> RunDirectory:
    (path,) = (folder / name / "brain_tune").iterdir()
    return RunDirectory.open(path)


def rows(run: RunDirectory) -> list[dict[str, float]]:
    with (run.path / "metrics.csv").open(newline="") as file:
        found = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return sorted(found, key=lambda row: (row["step"], sorted(row)))


def test_a_requeued_job_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    save_mini(tmp_path / "mini")
    log, said = tmp_path / "log.txt", fake_scontrol(tmp_path, then="kill -KILL $PPID")
    environ = {**SLURM, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    assert run(arguments(tmp_path, "whole"), environ, log) == 0, log.read_text()[-3000:]

    assert run(arguments(tmp_path, "cut", epoch=1), environ, log) == -signal.SIGKILL, log.read_text()[-3000:]
    assert said.read_text() == "requeue 77\n"
    cut = the_run(tmp_path, "cut")
    assert cut.state == "killed"
    assert cut.last_checkpoint == cut.path / "hpc_ckpt_1.ckpt"
    assert cut.resumed_step is None
    assert run(arguments(tmp_path, "cut", epoch=1), environ, log) == 0, log.read_text()[-3000:]
    assert "from hpc_ckpt_1.ckpt" in log.read_text()

    whole = the_run(tmp_path, "whole")
    assert (cut.state, len(cut.status["starts"])) == ("finished", 2)
    assert not (cut.path / "hpc_ckpt_1.ckpt").exists()
    ours, theirs = (torch.load(one.checkpoints / "last.ckpt", weights_only=True) for one in (cut, whole))
    assert ours["global_step"] == theirs["global_step"] == 12
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=0, atol=1e-5, msg=name)
    for one, other in zip(rows(cut), rows(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
