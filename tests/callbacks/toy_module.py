"""A LightningModule that hears loudness, and a data module of the toy stories: probes of it take a second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from brainlit.callbacks import BandedRidgeProbe
from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.encoding.config import ProbeConfig
from brainlit.results.loggers import MetricsLogger
from tests.toy import ToySource


class ToyBackbone(nn.Module):
    """Two layers of gains on (loudness, loudness squared, 1)."""

    n_layers, hidden_size = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.frozen = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).eval()

    def describe(self) -> dict[str, Any]:
        return {"family": "toy", "weights": "none"}


class ToyModule(pl.LightningModule):
    """Trains its gains on noise; the frozen part stays in eval mode while the rest trains."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"seed": 5})
        self.backbone = ToyBackbone()
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1))
        self.modes_seen: list[bool] = []
        self.drawn: list[float] = []

    def pooled_states(self, batch: dict[str, Any], layers: Sequence[int]) -> Tensor:
        self.modes_seen.append(self.head.training)
        torch.rand(7)
        loudness = self._loudness(batch).log1p()
        states = torch.stack([loudness, loudness**2, torch.ones_like(loudness)], dim=-1) * self.backbone.gain
        return torch.stack([states * (1 + layer) for layer in layers])

    def _loudness(self, batch: dict[str, Any]) -> Tensor:
        edges = (batch["bin_edges_s"] * 16_000).round().long().clamp(min=0)
        audio = batch["audio"].float().abs()
        rows = [[clip[a:b].mean() for a, b in pairwise(e)] for clip, e in zip(audio, edges, strict=True)]
        return torch.nan_to_num(torch.stack([torch.stack(row) for row in rows]))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.drawn.append(float(torch.rand(())))
        loss = (self.head(self.backbone.gain) - torch.rand(())).square().sum()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def toy_data(store: Path, source: ToySource | None = None, **changes: Any) -> StoryDataModule:
    """The toy stories in windows of 10 rows."""
    return StoryDataModule(
        source or ToySource(), str(store), window=WindowConfig(n_trs=10, context_s=4.0), batch_size=4, **changes
    )


TOY_PROBE = ProbeConfig(n_gammas={1: 1, 2: 2, 3: 2}, n_folds=2, delays_trs=(1, 2, 3), temporal="fir")
"""Few mixtures and folds; delays, for the toy voxels answer two rows later."""


def toy_probe(probe: ProbeConfig = TOY_PROBE, **changes: Any) -> BandedRidgeProbe:
    """A probe with few mixtures and draws, without figures."""
    settings: dict[str, Any] = {"n_bootstraps": 20, "block_trs": 8, "figures": False}
    return BandedRidgeProbe(probe=probe, **{**settings, **changes})


def toy_trainer(path: Path, *callbacks: pl.Callback, epochs: int = 2, **changes: Any) -> pl.Trainer:
    """A quiet trainer on the CPU with two steps per epoch."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(
        default_root_dir=str(path),
        max_epochs=epochs,
        accelerator="cpu",
        logger=MetricsLogger(path),
        callbacks=list(callbacks),
        limit_train_batches=2,
        limit_val_batches=0,
        log_every_n_steps=1,
        **{**quiet, **changes},
    )
