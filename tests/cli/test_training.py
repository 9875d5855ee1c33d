"""fit, validate, test, predict and report on a small run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import lightning.pytorch as pl
import numpy as np
import pytest
import yaml

from brainlit.cli import main
from brainlit.cli.errors import INTERRUPTED
from brainlit.cli.run_options import RunOptions
from brainlit.cli.training import loggers
from brainlit.results.run_directory import RunDirectory

Command = Callable[..., list[str]]


def test_a_run_leaves_what_its_directory_promises(finished_run: Path) -> None:
    assert RunDirectory.open(finished_run).state == "finished"
    for name in ("config.yaml", "metrics.csv", "summary.json", "provenance.json", "report.html"):
        assert (finished_run / name).stat().st_size > 0, name
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert not (finished_run / "wandb").exists(), "W&B was off"
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["model"]["backbone"]["weights"] == "random:tiny"
    assert json.loads((finished_run / "summary.json").read_text())["headline"]


def test_a_finished_run_is_never_overwritten(
    finished_run: Path, small: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file()}
    assert main(["fit", *small("--run.id", "finished")]) == 2
    assert "finished at" in capsys.readouterr().err
    now = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file()}
    assert {path for path in before if now[path] != before[path]} <= {finished_run / ".lock"}


def test_test_and_validate_give_their_numbers(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(finished_run)]) == 0
    assert "test/r/sub-A" in capsys.readouterr().out
    assert main(["validate", str(finished_run)]) == 0
    assert "val/loss" in capsys.readouterr().out


def test_predictions_are_in_their_places(finished_run: Path) -> None:
    assert main(["predict", str(finished_run)]) == 0
    with h5py.File(finished_run / "predictions.h5") as file:
        assert file["sub-A/toy5"].shape == (40, 12)
        assert np.isfinite(file["sub-A/toy5"][()]).all()
        assert len(file["sub-B/voxels"]) == 12
        assert set(file["sub-A"]) == {"toy5", "voxels"}


def test_the_report_can_be_written_again(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished_run / "report.html").unlink()
    assert main(["report", str(finished_run)]) == 0
    assert (finished_run / "report.html").stat().st_size > 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Report: {finished_run / 'report.html'}"


def test_without_runs_there_is_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--root", str(tmp_path)]) == 2
    assert "Train first" in capsys.readouterr().err
    assert main(["test", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_a_verb_without_a_model_says_what_it_needs(small: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", *small()]) == 2
    assert "brainlit test needs a tuned model: brainlit test runs/" in capsys.readouterr().err
    assert main(["test", *small("--ckpt_path", "no/such.ckpt")]) == 2
    assert "there is no checkpoint no/such.ckpt" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(finished_run), "--model.head.delays_trs", "[1,2]"]) == 2
    assert "delays_trs" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_wandb_id(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        run = RunDirectory.claim(tmp_path, "brain_tune", "mine")
        _, wandb = loggers(run, RunOptions(wandb="offline"), {})
        ids.append(wandb.version)
        run.release()
    assert ids == ["mine", "mine"]


class Interrupt(pl.Callback):
    """Ctrl-C after the first epoch, unless that has happened before."""

    def __init__(self, once: str) -> None:
        self.once = Path(once)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and not self.once.exists():
            self.once.touch()
            raise KeyboardInterrupt


def test_ctrl_c_leaves_a_run_that_the_same_command_finishes(
    small: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [{"class_path": f"{__name__}.Interrupt", "init_args": {"once": str(tmp_path / "once")}}]
    arguments = small("--run.root", str(tmp_path), "--trainer.callbacks", json.dumps(callbacks))
    arguments[arguments.index("--trainer.max_epochs") + 1] = "2"
    assert main(["fit", *arguments]) == INTERRUPTED
    assert "goes on from the last checkpoint" in capsys.readouterr().err
    (run,) = (RunDirectory.open(path.parent) for path in tmp_path.glob("brain_tune/*/status.json"))
    assert run.state == "killed"
    assert main(["fit", *arguments]) == 0
    assert run.state == "finished"
    assert len(run.status["starts"]) == 2
    epochs = [row.split(",") for row in (run.path / "metrics.csv").read_text().splitlines()]
    at = epochs[0].index("epoch")
    assert {row[at] for row in epochs[1:]} == {"0", "1"}
