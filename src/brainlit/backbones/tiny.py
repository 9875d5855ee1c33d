"""Small speech models that first learn to hear: phones and spectra of synthetic speech, from scratch, in minutes.

They stand in for published weights where nothing can be downloaded, and train in seconds where those need a GPU. What
they have learned is the sound of words, not their meaning; their record says how well they know phones in a story that
they never heard. Every family has one: the backbone's class says what its architecture is, the lessons are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR

from brainlit.backbones.cache import cached_folder
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.phones import Lesson, PhoneListener, draw_crops, make_lesson, phone_inventory

log = logging.getLogger(__name__)

RECORD_FILE = "phones.json"
RECIPE_VERSION = 1
"""Part of the cache's key: another number wherever the training below changes."""

CORPUS_FILES = ("corpus.py", "grammar.py", "lexicon.py", "speech.py", "streams.py")

WIDE_AND_DEEP: dict[str, int] = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "intermediate_size": 512,
    "d_model": 256,
    "encoder_layers": 6,
    "encoder_ffn_dim": 512,
}
"""What tiny-large changes, under the names that the families have for it; about 4 times the parameters."""


@dataclass(frozen=True)
class TinyRecipe:
    """How a tiny backbone learns to hear.

    Parameters
    ----------
    seed : int
        Of the speech, the initial weights and the crops.
    steps : int
        Optimiser steps.
    minutes : float
        Speech to learn from; a further story is held out.
    batch_size, crop_s : int, float
        Random crops per step, and how long each is.
    lr : float
        Peak learning rate of a one-cycle schedule.
    mel_weight : float
        Weight of the spectral error beside the phone error.
    """

    seed: int = 0
    steps: int = 220
    minutes: float = 30.0
    batch_size: int = 8
    crop_s: float = 6.0
    lr: float = 4e-3
    mel_weight: float = 0.5


@dataclass(frozen=True)
class TinySize:
    """One size of tiny models.

    Parameters
    ----------
    architecture : mapping
        Settings that replace those of the family's tiny architecture, where it has them.
    recipe : mapping
        Settings of TinyRecipe, after the family's own.
    """

    architecture: Mapping[str, Any]
    recipe: Mapping[str, Any]


TINY_SIZES: dict[str, TinySize] = {
    "tiny": TinySize({}, {}),
    "tiny-large": TinySize(WIDE_AND_DEEP, {"steps": 200, "lr": 2e-3}),
}


def tiny_folder(seed: int = 0, family: str = "wav2vec", size: str = "tiny") -> Path:
    """The save_pretrained folder of a family's tiny backbone; made once per seed and size, then kept in the cache."""
    from brainlit.backbones.registry import BACKBONES

    changes = {**BACKBONES[family].tiny_recipe, **TINY_SIZES[size].recipe}
    return recipe_folder(replace(TinyRecipe(seed=seed), **changes), family, size)


def tiny_architecture(family: str = "wav2vec", size: str = "tiny") -> dict[str, Any]:
    """Settings of a family's tiny backbone, as its config.json would hold them."""
    from brainlit.backbones.registry import BACKBONES

    settings = BACKBONES[family].tiny_architecture()
    return settings | {name: value for name, value in TINY_SIZES[size].architecture.items() if name in settings}


def recipe_folder(recipe: TinyRecipe, family: str = "wav2vec", size: str = "tiny") -> Path:
    """The save_pretrained folder that a recipe makes, from the cache or made now."""
    settings = {
        "recipe": asdict(recipe),
        "recipe_version": RECIPE_VERSION,
        "architecture": tiny_architecture(family, size),
        "corpus_version": corpus_version(),
    }
    return cached_folder(f"{size}-{family}", settings, lambda folder: _teach(recipe, family, size, folder))


def corpus_version() -> str:
    """Changes whenever the code that writes and speaks the corpus does; the first 16 hex digits of its SHA-256."""
    folder = resources.files("brainlit.demo")
    return hashlib.sha256(b"".join(folder.joinpath(name).read_bytes() for name in CORPUS_FILES)).hexdigest()[:16]


def tiny_record(folder: str | Path) -> dict[str, Any]:
    """What a tiny backbone's folder says about its training: phone accuracy on held-out stories, steps, seconds."""
    record: dict[str, Any] = json.loads((Path(folder) / RECORD_FILE).read_text())
    return record


def _teach(recipe: TinyRecipe, family: str, size: str, folder: Path) -> None:
    """Train and save into an empty folder."""
    from brainlit.backbones.registry import load_backbone
    from brainlit.demo.corpus import speech_corpus

    log.info("teaching the %s %s backbone to hear phones, once: a minute or a few", size, family)
    started = time.monotonic()
    *stories, held_out = speech_corpus(recipe.seed, recipe.minutes)
    inventory = phone_inventory(stories)
    backbone = load_backbone(BackboneConfig(family=family, weights=f"random:{size}", seed=recipe.seed))
    listener = PhoneListener(backbone, len(inventory) + 1, recipe.seed)
    loss = learn_phones(listener, [make_lesson(story, inventory) for story in stories], recipe)
    record: dict[str, Any] = {
        "recipe": asdict(recipe),
        "phones": sorted(inventory),
        "final_loss": loss,
        "held_out": {"story": held_out.name, **listener.accuracy(make_lesson(held_out, inventory), recipe.crop_s)},
        "seconds": round(time.monotonic() - started, 1),
    }
    log.info("phones right in %.0f %% of held-out frames", 100 * record["held_out"]["accuracy_all_frames"])
    backbone.model.save_pretrained(folder)
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")


def learn_phones(listener: PhoneListener, lessons: Sequence[Lesson], recipe: TinyRecipe) -> float:
    """Train a listener on random crops; returns the mean loss of the last tenth of the steps.

    Uses its own random generator, and gradients even where the caller has switched them off.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    rng = np.random.default_rng(recipe.seed)
    n_samples = int(recipe.crop_s * listener.backbone.sample_rate_hz)
    with torch.inference_mode(False), torch.enable_grad():
        optimizer = torch.optim.AdamW(listener.parameters(), lr=recipe.lr, weight_decay=0.01, fused=True)
        schedule = OneCycleLR(optimizer, recipe.lr, total_steps=recipe.steps, pct_start=0.15)
        losses = []
        for _ in tqdm(range(recipe.steps), desc="Tiny backbone learns phones", unit="step"):
            crops = draw_crops(lessons, recipe.batch_size, n_samples, rng)
            loss = listener.loss(crops, n_samples, recipe.mel_weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(listener.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, recipe.steps // 10) :]))
