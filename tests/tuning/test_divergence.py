from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from brainlit.callbacks.divergence import DivergenceGuard
from brainlit.tuning import load_tuned
from brainlit.tuning.divergence import DivergedError, check_finite, check_weights
from tests.tuning.conftest import FakeData


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
