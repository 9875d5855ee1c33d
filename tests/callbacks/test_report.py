"""What a run says about how it was trained."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import WandbLogger

from brainlit.backbones.lora import LoraConfig
from brainlit.backbones.trainable import TrainableConfig
from brainlit.callbacks.report import _settings_words, _tell_wandb, online_facts, parts_said, trial_said


def said(**settings):
    return ", ".join(_settings_words(settings))


def test_rates_are_said_with_three_digits() -> None:
    words = said(layer=6, backbone_lr=3e-4 / 7, head_lr=3e-3, backbone_mode="eval")
    assert words.startswith("layer 6, backbone_lr 4.29e-05, head_lr 0.003, backbone_mode eval, ")


def test_what_trains_is_said_with_what_does_not() -> None:
    assert said(trainable=asdict(TrainableConfig())) == "all weights above the front end"
    few = asdict(TrainableConfig(upper_layers=2, projection=False))
    assert said(trainable=few) == "all weights above the front end, but upper_layers 2, projection False"
    assert said(trainable=few, lora=asdict(LoraConfig(rank=8))).startswith("LoRA of rank 8, but upper_layers 2")
    none = asdict(TrainableConfig(upper_layers=0, projection=False))
    assert said(trainable=none) == "the head alone, all weights of the backbone frozen"


def test_the_run_in_wandb_says_that_listeners_are_simulated(monkeypatch) -> None:
    run = SimpleNamespace(notes="my first try", tags=("brain_tune",))
    monkeypatch.setattr(WandbLogger, "experiment", property(lambda _: run))
    loggers: Any = [SimpleNamespace(), WandbLogger.__new__(WandbLogger)]
    for _ in ("fit", "resumed"):
        _tell_wandb(SimpleNamespace(loggers=loggers))
    assert run.notes.startswith("The listeners are simulated: this shows that the method recovers")
    assert run.notes.endswith("\nmy first try")
    assert run.notes.count("simulated") == 1
    assert run.tags == ("brain_tune", "simulated-listeners")


def trainer(**settings: Any) -> Any:
    limits = {"limit_train_batches": 1.0, "limit_val_batches": 1.0, "max_epochs": 3}
    return SimpleNamespace(**{"fast_dev_run": False, "loggers": ["csv"], **limits, **settings})


def test_a_run_that_is_online_says_where(monkeypatch) -> None:
    address = "https://wandb.ai/me/brainlit/runs/one"
    loggers: Any = [SimpleNamespace(), WandbLogger.__new__(WandbLogger)]
    for offline, expected in ((False, {"wandb_url": address}), (True, {})):
        run = SimpleNamespace(offline=offline, url=address)
        monkeypatch.setattr(WandbLogger, "experiment", property(lambda _, run=run: run))
        assert online_facts(loggers) == expected


def test_a_trial_is_said_to_be_one() -> None:
    assert trial_said(trainer()) is None
    assert "fast_dev_run: 1 batch of training" in str(trial_said(trainer(fast_dev_run=True)))
    assert "fast_dev_run: 3 batches of training" in str(trial_said(trainer(fast_dev_run=3)))
    assert parts_said(trainer(fast_dev_run=3, limit_train_batches=3)) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"limit_train_batches": 2, "max_epochs": 0}, []),
        (
            {"limit_train_batches": 0.25},
            ["--trainer.limit_train_batches 0.25: 25% of the batches of an epoch are trained on."],
        ),
        (
            {"limit_train_batches": 1},
            ["--trainer.limit_train_batches 1: at most 1 of the batches of an epoch is trained on."],
        ),
        (
            {"limit_val_batches": 0},
            ["--trainer.limit_val_batches 0: none of the batches of an epoch are validated on."],
        ),
    ],
)
def test_what_a_run_left_out_is_said(settings: dict[str, Any], expected: list[str]) -> None:
    assert parts_said(trainer(**settings)) == expected


def test_a_run_without_loggers_says_what_is_not_known() -> None:
    (said,) = parts_said(trainer(loggers=[]))
    assert "nothing was logged, so there are no curves" in said
