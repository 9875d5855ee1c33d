"""UniSpeech-SAT (Chen et al. 2021, arXiv 2110.05752), through transformers' UniSpeechSatModel."""

from __future__ import annotations

from typing import ClassVar

from brainlit.backbones.convolutional import ConvolutionalBackbone


class UniSpeechSatBackbone(ConvolutionalBackbone):
    """UniSpeech-SAT: HuBERT's architecture, pretrained to know speakers apart as well; base and large models."""

    family: ClassVar[str] = "unispeech-sat"
    model_type: ClassVar[str] = "unispeech-sat"
    class_names: ClassVar[tuple[str, str]] = ("UniSpeechSatConfig", "UniSpeechSatModel")
