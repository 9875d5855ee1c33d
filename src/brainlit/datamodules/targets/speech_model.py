"""What a large speech model makes of the sound of each row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from brainlit.backbones import BackboneConfig, SpeechBackbone, load_backbone
from brainlit.backbones.rows import pool_per_tr
from brainlit.datamodules.dataset import WindowDataset
from brainlit.datamodules.targets.config import SpeechTargetsConfig, layer_numbers
from brainlit.datamodules.targets.stamp import stamp_of_weights
from brainlit.datamodules.targets.voxels import Float32Array, VoxelTargets
from brainlit.datamodules.windows import WindowBatch, WindowConfig, evaluation_windows
from brainlit.encoding.roles import Span
from brainlit.store import StoryStore

NAME = "large_speech_model"


class SpeechRepresentation:
    """Hidden states of a speech model, averaged over the frames of each row, from the windows that training uses.

    Parameters
    ----------
    config : SpeechTargetsConfig
    window : WindowConfig
        Each row is heard with the sound before it that the tuned model hears; where the model cannot take windows so
        long, they hold fewer rows.
    """

    name = NAME

    def __init__(self, config: SpeechTargetsConfig, window: WindowConfig) -> None:
        self.config, self.window = config, window

    def settings(self) -> dict[str, Any]:
        """All that decides the numbers; small models that are made here are described by what they are."""
        config = self.config
        made_here = config.weights.startswith(("tiny", "random:"))
        described = self.backbone.describe() if made_here else {}
        return {
            "family": config.family,
            "weights": stamp_of_weights(config.weights),
            "seed": config.seed,
            "made_of": {key: described[key] for key in ("origin", "architecture") if key in described},
            "layers": config.layers if isinstance(config.layers, str) else list(config.layers),
            "window": {name: getattr(self.window, name) for name in ("n_trs", "context_s", "shift_s")},
        }

    @cached_property
    def backbone(self) -> SpeechBackbone:
        """The model, on the GPU where there is one."""
        config = self.config
        backbone = load_backbone(BackboneConfig(family=config.family, weights=config.weights, seed=config.seed))
        return backbone.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def features(self, store: StoryStore, stories: Sequence[str]) -> Iterator[Float32Array]:
        """Hidden states of the layers side by side, shape (n_trs, n_layers * hidden_size); 0 in rows without sound.

        Raises
        ------
        ValueError
            If the model has no such layer, or cannot take the context with one row.
        """
        backbone = self.backbone
        layers = layer_numbers("speech_model", self.config.layers, backbone.n_layers)
        dataset = WindowDataset(store, fitting_window(self.window, backbone, store.tr_s), [], VoxelTargets(store, {}))
        for story in tqdm(stories, desc=f"hidden states of {self.config.weights}", unit="story"):
            windows = evaluation_windows([Span(story, 0, store.n_trs(story))], dataset.config.n_trs)
            size = self.config.batch_size
            batches = (windows[at : at + size] for at in range(0, len(windows), size))
            yield np.concatenate([rows_of_batch(backbone, dataset.read(batch), layers) for batch in batches])
        del self.backbone  # its memory is wanted for the model that is tuned


def fitting_window(window: WindowConfig, backbone: SpeechBackbone, tr_s: float) -> WindowConfig:
    """The window, with fewer rows where the backbone cannot take so long a one.

    Raises
    ------
    ValueError
        If not even one row fits beside the context.
    """
    if backbone.max_samples is None:
        return window
    most_s = backbone.max_samples / backbone.sample_rate_hz
    n_trs = min(window.n_trs, math.floor((most_s - window.context_s) / tr_s + 1e-9))
    if n_trs < 1:
        raise ValueError(
            f"a row of {tr_s:g} s with window.context_s {window.context_s:g} is longer than the {most_s:g} s that the"
            " speech model takes; use a shorter context."
        )
    return replace(window, n_trs=n_trs)


@torch.inference_mode()
def rows_of_batch(backbone: SpeechBackbone, batch: WindowBatch, layers: Sequence[int]) -> Float32Array:
    """Mean hidden states of the rows that count, in order: (n_rows, n_layers * hidden_size)."""
    device = next(backbone.parameters()).device
    encoded = backbone.encode(batch["audio"].to(device), batch["audio_mask"].to(device))
    edges_s, row_mask = batch["bin_edges_s"].to(device), batch["row_mask"]
    pooled = [
        pool_per_tr(encoded.hidden_states[layer], encoded.frame_mask, encoded.frame_times_s, edges_s)[0]
        for layer in layers
    ]
    rows = torch.cat(pooled, dim=2)[:, -row_mask.shape[1] :].float().cpu()
    values: Float32Array = rows[row_mask].numpy()
    return values
