"""Every family takes a step in bfloat16, and gradient checkpointing changes nothing but the memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from brainlit.backbones import BACKBONES, BackboneConfig
from brainlit.backbones.trainable import TrainableConfig
from brainlit.tuning import BrainTuning
from brainlit.tuning.heads import HeadConfig
from tests.tuning.conftest import FakeData


def data() -> FakeData:
    """One batch of two windows of 0.5 s."""
    return FakeData(n_windows=2, n_trs=1, context_trs=1, batch_size=2)


def make(family: str, checkpointing: bool = False, dropout: float = 0.0) -> BrainTuning:
    """BrainTuning on a family's tiny architecture, random."""
    return BrainTuning(
        BackboneConfig(family=family, weights="random:tiny", dropout=dropout),
        trainable=TrainableConfig(gradient_checkpointing=checkpointing),
        head=HeadConfig(delays_trs=(0, 1), dropout=0.0),
        backbone_mode="train" if dropout else "eval",
        standardise_pools=False,
    )


@pytest.mark.parametrize("family", BACKBONES)
def test_a_step_in_bfloat16(make_trainer: Any, family: str) -> None:
    module, windows = make(family), data()
    products: list[torch.dtype] = []
    linear = next(part for part in module.backbone.layers[0].modules() if isinstance(part, torch.nn.Linear))
    linear.register_forward_hook(lambda layer, inputs, output: products.append(output.dtype))
    before = {name: value.detach().clone() for name, value in module.backbone.named_parameters()}
    trainer = make_trainer(precision="bf16-mixed", max_steps=1, limit_val_batches=0)
    trainer.fit(module, datamodule=windows)
    assert set(products) == {torch.bfloat16}
    assert torch.isfinite(trainer.callback_metrics["train/loss_step"])
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    same = {name for name, parameter in module.backbone.named_parameters() if torch.equal(parameter, before[name])}
    frozen = {name for name, parameter in module.backbone.named_parameters() if not parameter.requires_grad}
    maps = {name for name, parameter in module.backbone.named_parameters() if parameter.ndim > 1} - frozen
    assert frozen
    assert frozen <= same
    assert len(maps) > 4 * module.backbone.n_layers
    assert not maps & same


def loss_and_gradients(module: BrainTuning, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """In bfloat16 autocast, in the mode that training has, from the same random state."""
    module.build_head(data().target_sizes)
    module.on_train_epoch_start()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = module.losses(batch)["loss"]
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", BACKBONES)
def test_gradient_checkpointing_gives_the_same_gradients(family: str) -> None:
    """Also where dropout draws in the second pass what it drew in the first."""
    batch = data().batch(2)
    loss, plain = loss_and_gradients(make(family, dropout=0.2), batch)
    loss_again, checkpointed = loss_and_gradients(make(family, checkpointing=True, dropout=0.2), batch)
    assert torch.equal(loss, loss_again)
    assert set(plain) == set(checkpointed)
    assert any(name.startswith("backbone") and gradient.abs().max() > 0 for name, gradient in plain.items())
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-6, atol=1e-6, msg=name)
