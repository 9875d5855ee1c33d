"""One cell of the matrix family x full tuning or LoRA x regime: trained from the demo's sound to its probes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from torch import Tensor

from brainlit.backbones import BACKBONES, BackboneConfig
from brainlit.backbones.lora import LoraConfig
from brainlit.backbones.tiny_text import MOST_TOKENS, _tokenizer, vocabulary
from brainlit.callbacks import BandedRidgeProbe
from brainlit.datamodules import LanguageTargetsConfig, SpeechTargetsConfig, StoryDataModule, WindowConfig
from brainlit.demo import DemoSource
from brainlit.encoding.config import ProbeConfig
from brainlit.results.record import load_record, record_path
from brainlit.tuning import BrainTuning, HeadConfig, ObjectiveConfig

REGIME_FILES = Path(__file__).parents[1] / "experiments" / "regime"

FAMILIES = ("wav2vec", "hubert", "whisper", "speecht5", "wavlm")
HOWS = ("full", "lora")
TRAINED = ("brain", "permuted", "stimulus", "language_model", "large_speech_model")


SMALLER: dict[str, Any] = {
    "conv_dim": [8, 8, 8, 8, 16],
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "num_buckets": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "encoder_max_relative_position": 16,
    "d_model": 16,
}
"""What is smaller than in the families' tiny architectures, under the names that they have for it."""
QUANTISER = {"codevector_dim": 16, "proj_codevector_dim": 16}
"""Of wav2vec alone. As many codewords as published: of a few, most distractors share the true one and do not count."""


@dataclass(frozen=True)
class Setting:
    """What all cells of a matrix share.

    Parameters
    ----------
    source : DemoSource
    folder : Path
        Of the store, and of a run directory per cell.
    weights : mapping of family to str
        As in BackboneConfig.
    language_model, speech_model : as in StoryDataModule
        Whose hidden states two of the regimes predict.
    epochs, batch_size : int
    window : WindowConfig
        Of all families alike, so shorter than the 30 s that Whisper takes.
    head : HeadConfig
    rates : mapping of how to (backbone_lr, head_lr); (None, None) for the defaults
    lora_rank : int
    objective : mapping
        Settings of ObjectiveConfig beside those of the regime.
    probe : mapping
        Settings of BandedRidgeProbe.
    accelerator : str
    """

    source: DemoSource
    folder: Path
    weights: Mapping[str, str]
    language_model: LanguageTargetsConfig
    speech_model: SpeechTargetsConfig
    epochs: int
    batch_size: int
    window: WindowConfig
    head: HeadConfig
    rates: Mapping[str, tuple[float | None, float | None]]
    lora_rank: int = 8
    objective: Mapping[str, Any] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)
    accelerator: str = "cpu"


@dataclass(frozen=True)
class Cell:
    """What became of one run.

    Parameters
    ----------
    loss_before, loss_after : float
        Mean training loss over the same windows, with the same masks, in eval mode; NaN where nothing was trained.
    n_trained_parameters, n_head_parameters : int
        Numbers in all tensors that were trained, and in those of the head (0 without one).
    r_before, r_after : float
        Mean alignment over voxels and subjects; r_after is NaN where nothing was trained.
    seconds : float
    n_steps, n_windows : int
        Optimiser steps, and windows heard in them.
    trained, changed, front_end : sets of str
        Names in the module's state_dict: what the optimiser held, what is not bit for bit what it was before the first
        step, and what belongs to the front end.
    """

    family: str
    how: str
    regime: str
    loss_before: float
    loss_after: float
    n_trained_parameters: int
    n_head_parameters: int
    r_before: float
    r_after: float
    seconds: float
    n_steps: int
    n_windows: int
    trained: frozenset[str]
    changed: frozenset[str]
    front_end: frozenset[str]


class Watch(pl.Callback):
    """Loss over fixed windows and all weights, right before the first step and right after the last."""

    def __init__(self) -> None:
        self.losses: list[float] = [math.nan, math.nan]
        self.trained: frozenset[str] = frozenset()
        self.changed: frozenset[str] = frozenset()
        self.n_windows = 0
        self._batches: list[Any] = []
        self._before: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._batches = [trainer.strategy.batch_to_device(batch) for batch in data.train_dataloader()]
        self.losses[0] = loss_over(pl_module, self._batches)
        self._before = {name: value.clone() for name, value in pl_module.state_dict().items()}
        held = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
        self.trained = frozenset(name for name, value in pl_module.named_parameters() if id(value) in held)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.n_windows += len(batch["audio"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.losses[1] = loss_over(pl_module, self._batches)
        now = pl_module.state_dict()
        assert now.keys() == self._before.keys()
        self.changed = frozenset(name for name, value in now.items() if not torch.equal(value, self._before[name]))


@torch.no_grad()
def loss_over(module: Any, batches: Iterable[Any]) -> float:
    """Mean loss of the batches in eval mode, in which nothing is drawn anew; every part gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        return float(np.mean([float(module.losses(batch)["loss"]) for batch in batches]))
    finally:
        for part, training in modes:
            part.training = training


def mini_setting(folder: Path, epochs: int = 4) -> Setting:
    """Models of a few thousand random weights and six stories of half a minute: a cell takes a second or two."""
    sizes = {"n_tune": 2, "n_choose": 1, "n_fit": 2, "n_score": 1, "n_subjects": 2, "n_repeats": 1}
    # of a seed whose two stories to tune on make nine windows, three batches
    source = DemoSource(seed=2, story_minutes=0.5, n_voxels=[24, 16], **sizes)  # type: ignore[arg-type]
    large = mini_folder(folder / "large", num_hidden_layers=3)
    return Setting(
        source=source,
        folder=folder,
        weights={family: f"random:{mini_folder(folder / family, family)}" for family in FAMILIES},
        language_model=LanguageTargetsConfig(str(text_model_folder(folder / "text"))),
        speech_model=SpeechTargetsConfig(weights=f"random:{large}", seed=1),
        epochs=epochs,
        batch_size=4,
        window=WindowConfig(n_trs=4, context_s=4.0),
        head=HeadConfig(delays_trs=(0, 1, 2), dropout=0.0),
        rates={"full": (2e-3, 3e-2), "lora": (2e-2, 3e-2)},
        lora_rank=4,
        objective={"n_clusters": 8, "n_negatives": 10},
        probe={"layers": [-1], "probe": ProbeConfig(n_folds=2, n_gammas={1: 1, 2: 3, 3: 5}), "n_bootstraps": 10},
    )


def mini_folder(folder: Path, family: str = "wav2vec", **changes: Any) -> Path:
    """A config.json that says what the family's tiny model would be if it were smaller still."""
    settings = BACKBONES[family].tiny_architecture()
    settings |= {name: value for name, value in (SMALLER | changes).items() if name in settings}
    settings |= QUANTISER if family == "wav2vec" else {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def text_model_folder(folder: Path) -> Path:
    """A random GPT-2 of two layers of 16 that has a token for every word of the demo."""
    from transformers import GPT2Config, GPT2LMHeadModel

    words = vocabulary()
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": MOST_TOKENS}
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), **sizes, **ids))
    model.save_pretrained(folder)
    _tokenizer(words).save_pretrained(folder)
    return folder


def train_cell(family: str, how: str, regime: str, setting: Setting) -> Cell:
    """Train one cell as `make train MODEL=family REGIME=regime` does, with a probe before and after.

    Parameters
    ----------
    family : str
        Of FAMILIES.
    how : str
        full or lora.
    regime : str
        Of TRAINED, or pretrained, which trains nothing.
    """
    started = time.monotonic()
    file: Any = yaml.safe_load((REGIME_FILES / f"{regime}.yaml").read_text())
    module = make_module(family, how, file.get("model", {}).get("objective", {}), setting)
    data = make_data(file["data"]["regime"], setting)
    watch, folder = Watch(), setting.folder / "runs" / f"{family}-{how}-{regime}"
    trainer = make_trainer(setting, folder, file.get("trainer", {}).get("max_epochs", setting.epochs), watch)
    trainer.fit(module, datamodule=data)
    parameters = dict(module.named_parameters())
    return Cell(
        family=family,
        how=how,
        regime=regime,
        loss_before=watch.losses[0],
        loss_after=watch.losses[1],
        n_trained_parameters=sum(parameters[name].numel() for name in watch.trained),
        n_head_parameters=0 if module.head is None else sum(value.numel() for value in module.head.parameters()),
        r_before=mean_r(folder, data.probed_subjects, 0),
        r_after=mean_r(folder, data.probed_subjects, trainer.current_epoch) if trainer.global_step else math.nan,
        seconds=time.monotonic() - started,
        n_steps=trainer.global_step,
        n_windows=watch.n_windows,
        trained=watch.trained,
        changed=watch.changed,
        front_end=front_end_names(module),
    )


def make_module(family: str, how: str, objective: Mapping[str, Any], setting: Setting) -> BrainTuning:
    """The module of a cell."""
    backbone_lr, head_lr = setting.rates[how]
    return BrainTuning(
        backbone=BackboneConfig(family=family, weights=setting.weights[family]),
        lora=LoraConfig(rank=setting.lora_rank if how == "lora" else 0),
        head=setting.head,
        objective=ObjectiveConfig(**objective, **setting.objective),
        backbone_lr=backbone_lr,
        head_lr=head_lr,
    )


def make_data(regime: Any, setting: Setting) -> StoryDataModule:
    """The data module of a cell; its store is made by the first one that needs it."""
    return StoryDataModule(
        setting.source,
        str(setting.folder / "store"),
        window=setting.window,
        batch_size=setting.batch_size,
        regime=regime,
        language_model=setting.language_model,
        speech_model=setting.speech_model,
    )


def make_trainer(setting: Setting, folder: Path, epochs: int, watch: Watch) -> pl.Trainer:
    """A quiet trainer with the callbacks that a cell is about; it validates after the last epoch."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator=setting.accelerator,
        devices=1,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=max(epochs, 1),
        callbacks=[watch, BandedRidgeProbe(figures=False, **setting.probe)],
        default_root_dir=str(folder),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def mean_r(folder: Path, subjects: Sequence[str], epoch: int) -> float:
    """What the probes of an epoch left on disk: mean r over all voxels of all subjects."""
    return float(np.mean([np.nanmean(load_record(record_path(folder / "probes", s, epoch)).r) for s in subjects]))


def front_end_names(module: BrainTuning) -> frozenset[str]:
    """Names in the module's state_dict of what belongs to the backbone's front end."""
    parts = list(module.backbone.front_end_modules())
    inside = {id(value) for part in parts for value in part.state_dict(keep_vars=True).values()}
    return frozenset(name for name, value in module.state_dict(keep_vars=True).items() if id(value) in inside)
