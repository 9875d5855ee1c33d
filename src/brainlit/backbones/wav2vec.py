"""wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477), through transformers' Wav2Vec2Model."""

from __future__ import annotations

from typing import ClassVar

from brainlit.backbones.convolutional import ConvolutionalBackbone


class Wav2vecBackbone(ConvolutionalBackbone):
    """wav2vec 2.0: base and large models, with group and with layer normalisation (lv60, XLS-R)."""

    family: ClassVar[str] = "wav2vec"
    model_type: ClassVar[str] = "wav2vec2"
    class_names: ClassVar[tuple[str, str]] = ("Wav2Vec2Config", "Wav2Vec2Model")
