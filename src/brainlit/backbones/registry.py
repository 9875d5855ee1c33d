"""Families by name."""

from __future__ import annotations

import difflib

from brainlit.backbones.base import SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.wav2vec import Wav2vecBackbone

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
        near = difflib.get_close_matches(config.family, BACKBONES, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"backbone family {config.family!r} is not known;{hint} known: {', '.join(sorted(BACKBONES))}."
        )
    return BACKBONES[config.family].load(config)
