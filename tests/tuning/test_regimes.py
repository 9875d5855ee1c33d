"""One module, every way to train it: objectives, LoRA, anchors, the cache, and what a checkpoint keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from brainlit.backbones.lora import LoraConfig, lora_layers
from brainlit.backbones.trainable import TrainableConfig
from brainlit.tuning import (
    AnchorConfig,
    BrainTuning,
    FrontEndCacheConfig,
    HeadConfig,
    LossConfig,
    ObjectiveConfig,
    PoolingConfig,
    load_tuned,
)
from tests.tuning.conftest import FakeData

STIMULUS = ObjectiveConfig(targets=0.0, stimulus=1.0, n_negatives=5, n_groups=2, n_vars=4)
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"lora": LoraConfig(rank=2)},
    "one layer": {"trainable": TrainableConfig(first_layer=2, projection=False)},
    "layer decay": {"trainable": TrainableConfig(layer_decay=0.5)},
    "checkpointing": {"trainable": TrainableConfig(gradient_checkpointing=True)},
    "joint": {"objective": ObjectiveConfig(targets=1.0, ctc=0.5, self_supervised=0.5, n_negatives=5)},
    "l2_sp": {"anchor": AnchorConfig("l2_sp")},
    "distillation": {"anchor": AnchorConfig("distillation")},
    "lora distillation": {"anchor": AnchorConfig("distillation"), "lora": LoraConfig(rank=2)},
    "attention and fir": {"pooling": PoolingConfig(how="attention"), "head": HeadConfig(delays="fir")},
    "temporal": {"loss": LossConfig("temporal_correlation")},
    "lora dropout": {"lora": LoraConfig(rank=2, dropout=0.2), "backbone_mode": "train"},
    "adam": {"optimizer": "adam", "schedule": "published_2410"},
}


def fit(module: BrainTuning, make_trainer: Any, data: FakeData | None = None, **settings: Any) -> Any:
    trainer = make_trainer(**{"max_epochs": 1, **settings})
    trainer.fit(module, datamodule=data or FakeData())
    return trainer


@pytest.mark.parametrize("way", WAYS)
def test_each_way_learns_and_comes_back_from_its_checkpoint(
    way: str, make_module: Any, make_trainer: Any, tmp_path: Path
) -> None:
    module, data = make_module(**WAYS[way]), FakeData()
    trainer = fit(module, make_trainer, data, max_epochs=4)
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    again, batch = load_tuned(tmp_path / "tuned.ckpt"), data.batch()
    with torch.no_grad():
        for subject, values in module.eval()(batch).items():
            assert torch.equal(values, again(batch)[subject])
    fresh = make_module(**WAYS[way])
    fresh.build_head(data.target_sizes)
    with torch.no_grad():
        before, after = (
            m.eval().target_loss(m(batch), batch["targets"], batch["target_mask"]) for m in (fresh, module)
        )
    assert after < before


def test_only_lora_and_the_head_learn(make_module: Any, make_trainer: Any) -> None:
    module = make_module(lora=LoraConfig(rank=2))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, make_trainer)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before.get(name, value))}
    assert changed
    assert all("lora_" in name for name in changed if name.startswith("backbone"))
    assert len(lora_layers(module.backbone)) == 4 * module.backbone.n_layers


def test_stimulus_trains_without_a_head(make_module: Any, make_trainer: Any, tmp_path: Path) -> None:
    data = FakeData()
    data.regime = "stimulus"
    module = make_module(objective=STIMULUS)
    trainer = fit(module, make_trainer, data, max_epochs=6)
    assert module.head is None
    assert {"val/loss", "val/self_supervised", "val/self_supervised/accuracy"} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    again = load_tuned(tmp_path / "tuned.ckpt")
    assert torch.equal(again.pooled_states(data.batch(), [-1]), module.pooled_states(data.batch(), [-1]))
    (scores,) = make_trainer().test(module, datamodule=data, verbose=False)
    assert "test/loss" in scores
    assert not any(key.startswith("test/r") for key in scores)
    with pytest.raises(ValueError, match="predicts nothing"):
        module(data.batch())


def test_the_alphabet_comes_from_the_stories_and_stays(make_module: Any, make_trainer: Any, tmp_path: Path) -> None:
    module = make_module(objective=ObjectiveConfig(ctc=1.0))
    trainer = fit(module, make_trainer)
    assert module.objectives["ctc"].characters == " ghilow"
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    assert load_tuned(tmp_path / "tuned.ckpt").objectives["ctc"].characters == " ghilow"
    resumed = make_module(objective=ObjectiveConfig(ctc=1.0))
    make_trainer(max_epochs=2).fit(resumed, datamodule=FakeData(), ckpt_path=tmp_path / "tuned.ckpt")


def test_a_regime_that_contradicts_the_objective_is_refused(make_module: Any, make_trainer: Any) -> None:
    data = FakeData()
    data.regime = "stimulus"
    with pytest.raises(ValueError, match=r"--model\.objective\.targets 0"):
        fit(make_module(), make_trainer, data)


def test_ceilings_weigh_the_loss(make_module: Any, make_trainer: Any) -> None:
    data = FakeData()
    data.target_ceilings = {name: torch.linspace(0.1, 0.9, n).numpy() for name, n in data.target_sizes.items()}
    module = make_module(loss=LossConfig("ceiling_mse"))
    fit(module, make_trainer, data)
    del data.target_ceilings
    with pytest.raises(AttributeError, match="target_ceilings"):
        fit(make_module(loss=LossConfig("ceiling_mse")), make_trainer, data)


def test_the_cache_changes_no_loss(make_module: Any, make_trainer: Any, tmp_path: Path) -> None:
    losses = []
    for max_gb in (0.0, 1.0, 1.0):
        torch.manual_seed(0)
        cache = FrontEndCacheConfig(max_gb=max_gb, folder=str(tmp_path / "cache"))
        module = make_module(front_end_cache=cache, standardise_pools=False)
        losses.append(float(fit(module, make_trainer).callback_metrics["val/loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[1] == pytest.approx(losses[2], abs=1e-6)
    assert module.cache.n_misses == 0
    assert module.cache.n_hits > 0


def test_lora_dropout_that_would_never_act_is_refused(make_module: Any) -> None:
    with pytest.raises(ValueError, match=r"lora\.dropout is 0\.1.*--model\.backbone_mode train"):
        make_module(lora=LoraConfig(rank=2, dropout=0.1))


def test_layers_above_the_one_read_out_are_not_trained(make_module: Any, make_trainer: Any) -> None:
    module = make_module(layer=1)
    before = {name: value.clone() for name, value in module.backbone.layers[1].state_dict().items()}
    fit(module, make_trainer)
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.layers[1].state_dict().items())
    joint = make_module(layer=1, objective=ObjectiveConfig(ctc=1.0))
    assert any(parameter.requires_grad for parameter in joint.backbone.layers[1].parameters())
