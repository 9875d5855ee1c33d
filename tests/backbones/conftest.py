"""A save_pretrained folder of a few thousand random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

MINI: dict[str, Any] = {
    "conv_dim": [12, 16],
    "conv_stride": [20, 16],
    "conv_kernel": [40, 16],
    "num_feat_extract_layers": 2,
    "feat_extract_norm": "layer",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def save_mini(folder: Path, **changes: Any) -> Any:
    """Write a random model there; returns it, in eval mode."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Wav2Vec2Model(Wav2Vec2Config(**{**MINI, **changes})).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture
def mini_folder(tmp_path: Path) -> Path:
    """A small wav2vec 2.0."""
    save_mini(tmp_path / "mini")
    return tmp_path / "mini"
