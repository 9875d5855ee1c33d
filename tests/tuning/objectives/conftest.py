"""A few thousand random weights, and windows in which each letter is a tone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.backbones import BackboneConfig, FrontEnd, SpeechBackbone, load_backbone
from brainlit.tuning.objectives import Objective
from tests.backbones.conftest import save_mini

Front = Callable[[dict[str, Any]], FrontEnd]
TONES_HZ = {" ": 5000, "a": 300, "b": 900, "c": 2500}
SMALL_CODES = {"codevector_dim": 12, "proj_codevector_dim": 10, "num_codevectors_per_group": 8}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small wav2vec 2.0 of 50 frames per second."""
    path = tmp_path_factory.mktemp("mini")
    save_mini(path, **SMALL_CODES)
    return path


@pytest.fixture
def backbone(folder: Path) -> SpeechBackbone:
    return frozen_front(folder)


def frozen_front(folder: Path) -> SpeechBackbone:
    """The wav2vec 2.0 of a folder as brain-tuning uses it."""
    found = load_backbone(BackboneConfig(weights=str(folder)))
    found.freeze_feature_encoder()
    return found


def tone_batch(n_windows: int = 4, n_letters: int = 6, letter_s: float = 0.4, seed: int = 0) -> dict[str, Any]:
    """Windows of tones that spell their text; the first begins with padding, the second ends with it."""
    rng = np.random.default_rng(seed)
    length = int(16_000 * letter_s)
    audio = np.zeros((n_windows, n_letters * length))
    mask = np.ones(audio.shape, dtype=bool)
    texts = []
    for k in range(n_windows):
        letters = _no_letter_twice(n_letters, rng)
        for j, letter in enumerate(letters):
            audio[k, j * length : (j + 1) * length] = np.sin(2 * np.pi * TONES_HZ[letter] * np.arange(length) / 16_000)
        padded = {0: slice(0, length), 1: slice(-length, None)}.get(k, slice(0, 0))
        mask[k, padded] = False
        texts.append("".join(letters[k == 0 : n_letters - (k == 1)]).strip())
    audio += 0.05 * rng.standard_normal(audio.shape)
    return {
        "audio": torch.from_numpy((audio * mask * 8000).astype(np.int16)),
        "audio_mask": torch.from_numpy(mask),
        "story": torch.arange(n_windows) % 2,
        "first_tr": torch.arange(n_windows) * 16 + seed,
        "text": texts,
    }


def _no_letter_twice(n_letters: int, rng: np.random.Generator) -> list[str]:
    letters: list[str] = []
    while len(letters) < n_letters:
        letter = str(rng.choice(list(TONES_HZ)))
        if letter not in letters[-1:]:
            letters.append(letter)
    return letters


def learn(objective: Objective, backbone: SpeechBackbone, batches: list[Any], steps: int, lr: float) -> list[float]:
    """Losses of some steps of Adam on backbone and objective."""
    parameters = [p for module in (backbone, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr)
    losses = []
    for step in range(steps):
        batch = batches[step % len(batches)]
        front = backbone.front_end(batch["audio"], batch["audio_mask"])
        loss = objective(backbone, front, batch, step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@contextmanager
def random_states_untouched() -> Iterator[None]:
    """Fails if the global random state of torch, numpy or Python is another afterwards."""
    before = _random_states()
    yield
    after = _random_states()
    assert [name for name in before if before[name] != after[name]] == []


def _random_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "python": random.getstate(),
    }


def values(parts: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in parts.items()}


@pytest.fixture
def front(backbone: SpeechBackbone) -> Front:
    """The front end of the backbone on a batch."""
    return lambda batch: backbone.front_end(batch["audio"], batch["audio_mask"])
