"""WavLM (Chen et al. 2021, arXiv 2110.13900), through transformers' WavLMModel."""

from __future__ import annotations

from typing import Any, ClassVar

from brainlit.backbones.convolutional import ConvolutionalBackbone


class WavLMBackbone(ConvolutionalBackbone):
    """WavLM: base, base-plus and large models."""

    family: ClassVar[str] = "wavlm"
    model_type: ClassVar[str] = "wavlm"
    class_names: ClassVar[tuple[str, str]] = ("WavLMConfig", "WavLMModel")

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model; distances are in frames of 40 ms."""
        return {**super().tiny_architecture(), "num_buckets": 80, "max_bucket_distance": 200}
