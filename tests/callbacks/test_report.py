"""What a run says about how it was trained."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from brainlit.backbones.lora import LoraConfig
from brainlit.backbones.trainable import TrainableConfig
from brainlit.callbacks.report import _settings_words, _tell_wandb


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


def test_the_run_in_wandb_says_that_listeners_are_simulated(monkeypatch) -> None:
    run = SimpleNamespace(notes=None, tags=("brain_tune",))
    monkeypatch.setattr(WandbLogger, "experiment", property(lambda _: run))
    loggers: Any = [SimpleNamespace(), WandbLogger.__new__(WandbLogger)]
    for _ in ("fit", "resumed"):
        _tell_wandb(SimpleNamespace(loggers=loggers))
    assert run.notes.startswith("The listeners are simulated: this shows that the method recovers")
    assert run.tags == ("brain_tune", "simulated-listeners")
