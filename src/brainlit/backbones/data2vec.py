"""data2vec for audio (Baevski et al. 2022, arXiv 2202.03555), through transformers' Data2VecAudioModel."""

from __future__ import annotations

from typing import Any, ClassVar

from brainlit.backbones.convolutional import ConvolutionalBackbone


class Data2VecBackbone(ConvolutionalBackbone):
    """data2vec-audio: base and large models."""

    family: ClassVar[str] = "data2vec"
    model_type: ClassVar[str] = "data2vec-audio"
    class_names: ClassVar[tuple[str, str]] = ("Data2VecAudioConfig", "Data2VecAudioModel")

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model; two narrow positional convolutions on top of each other instead of one."""
        return {**super().tiny_architecture(), "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 9}
