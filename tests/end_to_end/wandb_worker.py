"""A process of a run that W&B records and that is killed once.

python -m tests.end_to_end.wandb_worker FOLDER [online]
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from brainlit.results.style import Figure, draw_figure

ROOT = Path(__file__).parents[2]


class Kill(pl.Callback):
    """SIGKILL after the first step of the second epoch, unless that has happened before."""

    def __init__(self, once: str) -> None:
        self.once = Path(once)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (1, 0) and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class KillAtTheEnd(pl.Callback):
    """In the second epoch: wait for a file `go` before its last step is logged, and SIGKILL before its checkpoint."""

    def __init__(self, folder: str) -> None:
        self.go, self.once = Path(folder) / "go", Path(folder) / "killed"

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        while (trainer.current_epoch, batch_idx) == (1, 1) and not self.go.exists():
            time.sleep(0.1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def options(folder: Path) -> list[str]:
    """A small fit on the toy data set: two epochs of two steps, a probe after each, the model to W&B."""
    callbacks = [
        {
            "class_path": "brainlit.callbacks.BandedRidgeProbe",
            "init_args": {"every_n_epochs": 1, "n_bootstraps": 20, "probe": {"n_folds": 2, "delays_trs": [1, 2, 3]}},
        },
        {"class_path": "brainlit.callbacks.RunReport"},
        {"class_path": "tests.end_to_end.wandb_worker.Kill", "init_args": {"once": str(folder / "killed")}},
    ]
    last = ["--run.wandb", "offline", "--wandb.log_model", "true"]
    return [*fit_options(folder, callbacks), *last]


def online_options(folder: Path) -> list[str]:
    """The same without probes, report and model, its rows to a server."""
    killed = {
        "class_path": "tests.end_to_end.wandb_worker.KillAtTheEnd",
        "init_args": {"folder": str(folder)},
    }
    return [*fit_options(folder, [killed]), "--run.wandb", "online"]


def fit_options(folder: Path, callbacks: list[dict[str, Any]]) -> list[str]:
    return [
        *("-c", str(ROOT / "experiments" / "brain_tune.yaml")),
        *("--data.source", "tests.toy.ToySource", "--data.store_dir", str(folder / "store")),
        *("--model.backbone.weights", "random:tiny", "--data.window.n_trs", "8"),
        *("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"),
        *("--trainer.callbacks", json.dumps(callbacks)),
        *("--run.root", str(folder / "runs"), "--run.id", "one"),
    ]


def two_figures(*_: Any, brains: bool = True) -> tuple[dict[str, Figure], dict[str, str]]:
    """In place of the real ones, which take most of the time and have tests of their own."""
    names = ["alignment", *(["brain-sub-A"] if brains else [])]
    return {name: draw_figure(name, lambda _: None, (1.0, 1.0), f"words of {name}", "") for name in names}, {}


if __name__ == "__main__":
    from brainlit.callbacks import probe_log
    from brainlit.cli import main
    from brainlit.results import report

    probe_log.draw_figures = report.draw_figures = two_figures
    chosen = online_options if sys.argv[2:] == ["online"] else options
    sys.exit(main(["fit", *chosen(Path(sys.argv[1]))]))
