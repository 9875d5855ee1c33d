"""Real runs whose loss or weights become NaN at a known step: they end there, and what was saved stays good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from brainlit.callbacks.divergence import DivergedError, DivergenceGuard, check_finite, check_weights
from brainlit.tuning import load_tuned
from brainlit.tuning.checkpoint import AtomicCheckpointIO
from tests.tuning.conftest import FakeData

N_BATCHES = 4
BAD_EPOCH, BAD_BATCH = 1, 2


class Line(pl.LightningModule):
    """A straight line through points; a batch of NaN gives a NaN loss."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.line(batch) - 2 * batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class BadBatch(pl.Callback):
    """Spoils one batch."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Tensor, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (BAD_EPOCH, BAD_BATCH):
            batch.fill_(float("nan"))


class BadWeights(pl.Callback):
    """Spoils a weight after the last batch of an epoch, when its loss was seen already."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (BAD_EPOCH, N_BATCHES - 1):
            pl_module.line.bias.data.fill_(float("inf"))


def fit(path: Path, *callbacks: pl.Callback, ckpt_path: Path | None = None, **changes: Any) -> pl.Trainer:
    points = DataLoader(torch.linspace(-1, 1, 2 * N_BATCHES)[:, None], batch_size=2)  # type: ignore[arg-type]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        default_root_dir=path,
        max_epochs=3,
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        **{**quiet, **changes},
    )
    trainer.fit(Line(), points, points, ckpt_path=ckpt_path)
    return trainer


def saving(path: Path, **settings: Any) -> ModelCheckpoint:
    return ModelCheckpoint(path, filename="last", enable_version_counter=False, **settings)


def saved(path: Path) -> tuple[int, bool]:
    """Optimiser steps of the checkpoint, and whether its weights are finite."""
    checkpoint = torch.load(path / "last.ckpt", weights_only=True)
    finite = all(bool(torch.isfinite(value).all()) for value in checkpoint["state_dict"].values())
    return checkpoint["global_step"], finite


@pytest.mark.parametrize("every_n_steps", [1, 3, 100])
def test_it_ends_at_the_step_whose_loss_is_nan_and_keeps_the_checkpoint(tmp_path: Path, every_n_steps: int) -> None:
    with pytest.raises(DivergedError, match=r"loss is nan at optimiser step 7 \(epoch 1, batch 2.*last\.ckpt"):
        fit(tmp_path, saving(tmp_path, save_on_train_epoch_end=True), BadBatch(), DivergenceGuard(every_n_steps))
    assert saved(tmp_path) == (4, True)
    assert fit(tmp_path, DivergenceGuard(), ckpt_path=tmp_path / "last.ckpt").global_step == 12


def test_without_it_the_checkpoint_is_overwritten(tmp_path: Path) -> None:
    fit(tmp_path, saving(tmp_path, save_on_train_epoch_end=True), BadBatch())
    assert saved(tmp_path) == (12, False)


@pytest.mark.parametrize(
    ("settings", "step"),
    [({"every_n_train_steps": 1}, 6), ({"monitor": "val/loss"}, 4), ({"save_weights_only": True}, 4)],
)
def test_nothing_bad_is_saved_whenever_checkpoints_are_written(
    tmp_path: Path, settings: dict[str, Any], step: int
) -> None:
    with pytest.raises(DivergedError, match="optimiser step 7"):
        fit(tmp_path, saving(tmp_path, **settings), BadBatch(), DivergenceGuard(100))
    assert saved(tmp_path) == (step, True)


@pytest.mark.parametrize("settings", [{"save_on_train_epoch_end": True}, {"monitor": "val/loss"}])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(DivergedError, match=r"trained weights are not finite after optimiser step 8.*line\.bias"):
        fit(tmp_path, saving(tmp_path, **settings), DivergenceGuard(), BadWeights())
    assert saved(tmp_path) == (4, True)


def test_accumulated_batches_share_a_step(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"optimiser step 4 \(epoch 1, batch 2.*no checkpoint yet"):
        fit(tmp_path, BadBatch(), DivergenceGuard(), accumulate_grad_batches=2, enable_checkpointing=False)


def test_a_good_run_is_the_same_with_it_and_callbacks_that_save_come_after_it(tmp_path: Path) -> None:
    lines = []
    for guards in ([], [DivergenceGuard()]):
        torch.manual_seed(0)
        trainer = fit(tmp_path, saving(tmp_path), *guards)
        lines.append(trainer.lightning_module.line.weight.item())  # type: ignore[union-attr, operator]
    assert lines[0] == lines[1]
    names = [type(callback).__name__ for callback in trainer.callbacks]  # type: ignore[attr-defined]
    assert names.index("DivergenceGuard") < names.index("ModelCheckpoint")


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        DivergenceGuard(0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_an_error_that_says_where_and_what_helps(value: float) -> None:
    with pytest.raises(DivergedError) as caught:
        check_finite(torch.tensor(value, requires_grad=True), 7, 1, 2, "16-mixed", Path("runs/a/last.ckpt"))
    message = str(caught.value)
    assert f"the loss is {value} at optimiser step 7 (epoch 1, batch 2" in message
    for part in ("16-mixed", "runs/a/last.ckpt", "bf16-mixed", "--model.backbone_lr", "--trainer.gradient_clip_val"):
        assert part in message


def test_in_full_precision_without_a_checkpoint_it_says_so() -> None:
    with pytest.raises(DivergedError, match="There is no checkpoint yet") as caught:
        check_finite(float("nan"), 1, 0, 0, "32-true", None)
    assert "bf16" not in str(caught.value)


def test_trained_weights_are_named_and_frozen_ones_do_not_matter() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
        module[2].bias[1] = float("inf")
    module[0].requires_grad_(False)
    with pytest.raises(
        DivergedError, match=r"1 of 4 trained weights are not finite after optimiser step 5.*: 2\.bias\."
    ):
        check_weights(module, 5, 0, "32-true", None)


def test_finite_ones_pass() -> None:
    check_finite(torch.tensor(1e30), 1, 0, 0, "32-true", None)
    check_finite(0.0, 1, 0, 0, "32-true", None)
    check_weights(nn.Linear(2, 2), 1, 0, "32-true", None)
    check_weights(nn.Linear(2, 2).requires_grad_(False), 1, 0, "32-true", None)


class BadResponses(pl.Callback):
    """NaN in the responses of one batch of the second epoch."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: dict[str, Any], batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (1, 2):
            batch["targets"]["S1"].fill_(float("nan"))


def test_a_tuning_run_ends_there_and_its_last_checkpoint_loads(
    make_module: Any, make_trainer: Any, tmp_path: Path
) -> None:
    last = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer = make_trainer(callbacks=[last, BadResponses(), DivergenceGuard()], enable_checkpointing=True)
    with pytest.raises(DivergedError, match=r"optimiser step 7 \(epoch 1, batch 2.*last\.ckpt"):
        trainer.fit(make_module(), datamodule=FakeData())
    tuned = load_tuned(tmp_path / "last.ckpt")
    assert all(torch.isfinite(parameter).all() for parameter in tuned.parameters())
