"""A few thousand random weights and four windows with a planted answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from brainlit.backbones import BackboneConfig
from brainlit.tuning import BrainTuning
from tests.backbones.conftest import MINI

TR_S = 0.25
PLANTED_DELAY_TRS = 3


class FakeData(pl.LightningDataModule):
    """Windows of high and low tones that decide the responses some rows later; batches as the story data module's."""

    def __init__(self, n_windows: int = 16, n_trs: int = 6, context_trs: int = 4, batch_size: int = 4) -> None:
        super().__init__()
        self.context_trs, self.n_trs, self.batch_size = context_trs, n_trs, batch_size
        self.target_sizes = {"S1": 3, "S2": 5}
        self.tr_s = TR_S
        self.regime = "brain"
        generator = torch.Generator().manual_seed(7)
        self.items = [self._item(index, generator) for index in range(n_windows)]

    def _item(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        n_bins, length = self.context_trs + self.n_trs, int(16_000 * TR_S)
        tone = torch.randint(0, 2, (n_bins,), generator=generator).float()
        t = torch.arange(length) / 16_000
        sound = torch.cat([torch.sin(2 * torch.pi * (200 + 1200 * high) * t) for high in tone])
        noise = 0.05 * torch.randn(len(sound), generator=generator)
        mask = torch.ones(len(sound), dtype=torch.bool)
        if index % 4 == 0:
            mask[: 2 * length] = False
        delayed = self._delayed(tone)[:, None] * 2 - 1
        return {
            "audio": ((sound + noise) * mask * 8000).to(torch.int16),
            "audio_mask": mask,
            "bin_edges_s": torch.arange(n_bins + 1) * TR_S,
            "read_s": (torch.arange(self.context_trs, n_bins) + 0.5) * TR_S,
            "targets": {name: delayed.repeat(1, size) for name, size in self.target_sizes.items()},
            "target_mask": {
                "S1": torch.ones(self.n_trs, dtype=torch.bool),
                "S2": torch.full((self.n_trs,), index % 2 == 0),
            },
            "row_mask": torch.ones(self.n_trs, dtype=torch.bool),
            "text": "high low" if index % 2 else "low",
            "story": torch.tensor(index % 3),
            "first_tr": torch.tensor(index * self.n_trs),
        }

    def _delayed(self, tone: torch.Tensor) -> torch.Tensor:
        """The tone PLANTED_DELAY_TRS rows before each target row; wraps round where the context is too short."""
        return tone.roll(PLANTED_DELAY_TRS)[self.context_trs :]

    def tuning_texts(self) -> list[str]:
        return ["high low", "low"]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.items, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.items[:8], batch_size=self.batch_size)

    test_dataloader = predict_dataloader = val_dataloader

    def batch(self, size: int = 4) -> dict[str, Any]:
        return next(iter(DataLoader(self.items, batch_size=size)))


@pytest.fixture(scope="session")
def mini_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A save_pretrained folder of a few thousand random weights."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    folder = tmp_path_factory.mktemp("mini")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Wav2Vec2Model(Wav2Vec2Config(**MINI)).save_pretrained(folder)
    return folder


@pytest.fixture
def make_module(mini_folder: Path) -> Any:
    """BrainTuning on the mini backbone, with whatever settings."""

    def make(**settings: Any) -> BrainTuning:
        backbone = BackboneConfig(weights=str(mini_folder), **settings.pop("backbone", {}))
        return BrainTuning(backbone=backbone, **{"backbone_lr": 2e-3, "head_lr": 3e-3, **settings})

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Any:
    """A quiet Trainer on the CPU."""

    def make(**settings: Any) -> pl.Trainer:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "devices": 1, "max_epochs": 2}
        return pl.Trainer(**{**quiet, "default_root_dir": tmp_path, **settings})

    return make
