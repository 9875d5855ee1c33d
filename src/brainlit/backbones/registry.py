"""Families by name."""

from __future__ import annotations

from brainlit.backbones.base import SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.wav2vec import Wav2vecBackbone
from brainlit.hints import did_you_mean

BACKBONES: dict[str, type[SpeechBackbone]] = {Wav2vecBackbone.family: Wav2vecBackbone}


def load_backbone(config: BackboneConfig) -> SpeechBackbone:
    """The backbone that the config asks for, in eval mode, every parameter trainable.

    Raises
    ------
    ValueError
        If the family is not known.
    WeightsError
        If its weights cannot be had.
    """
    if config.family not in BACKBONES:
        raise ValueError(f"backbone family {config.family!r} is not known. {did_you_mean(config.family, BACKBONES)}")
    return BACKBONES[config.family].load(config)
