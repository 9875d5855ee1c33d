"""save_pretrained folders of a few thousand random weights, one form for each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from brainlit.backbones import BACKBONES, BackboneConfig, SpeechBackbone, load_backbone

CONVOLUTIONAL = ("wav2vec", "hubert", "wavlm", "data2vec", "unispeech-sat")

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
OF_FAMILY: dict[str, dict[str, Any]] = {
    "wavlm": {"num_buckets": 16, "max_bucket_distance": 20},
    "data2vec": {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5},
}


def save_mini(folder: Path, family: str = "wav2vec", **changes: Any) -> Any:
    """Write a random model there; returns it, in eval mode."""
    import transformers

    config_class, model_class = (getattr(transformers, name) for name in BACKBONES[family].class_names)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config_class(**{**MINI, **OF_FAMILY.get(family, {}), **changes})).eval()
        spread(model)
    model.save_pretrained(folder)
    return model


def spread(model: Any) -> None:
    """Random biases and gates too, which models are born without, so that every parameter makes a difference."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)


def load(folder: Path, family: str = "wav2vec", **settings: Any) -> SpeechBackbone:
    """The backbone of a folder."""
    return load_backbone(BackboneConfig(family=family, weights=str(folder), **settings))


def sound(n_batch: int = 2, n_samples: int = 16_000, seed: int = 0) -> Tensor:
    """int16 noise."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n_batch, n_samples, generator=generator) * 3000).to(torch.int16)


def everything(audio: Tensor) -> Tensor:
    """A mask that leaves nothing out."""
    return torch.ones_like(audio, dtype=torch.bool)


@pytest.fixture
def mini_folder(tmp_path: Path) -> Path:
    """A small wav2vec 2.0."""
    save_mini(tmp_path / "mini")
    return tmp_path / "mini"


@pytest.fixture(params=CONVOLUTIONAL)
def family(request: pytest.FixtureRequest) -> str:
    """Each family of convolutions over the waveform."""
    name: str = request.param
    return name


@pytest.fixture
def family_folder(tmp_path: Path, family: str) -> Path:
    """A small model of each such family."""
    save_mini(tmp_path / family, family)
    return tmp_path / family
