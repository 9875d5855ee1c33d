"""data2vec for audio (Baevski et al. 2022, arXiv 2202.03555), through transformers' Data2VecAudioModel."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from brainlit.backbones.convolutional import ConvolutionalBackbone


class Data2VecBackbone(ConvolutionalBackbone):
    """data2vec-audio: base and large models.

    Its convolutions always normalise over the layer, its transformer always after attention, and positions come from a
    stack of narrow convolutions instead of one wide one.
    """

    family: ClassVar[str] = "data2vec"
    model_type: ClassVar[str] = "data2vec-audio"
    class_names: ClassVar[tuple[str, str]] = ("Data2VecAudioConfig", "Data2VecAudioModel")

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model; its positional convolutions are two of 9 frames."""
        return {**super().tiny_architecture(), "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 9}

    @property
    def convolution_norm(self) -> str:
        """Always 'layer', whatever config.json says."""
        return "layer"

    @property
    def layer_norm_last(self) -> bool:
        """Never, whatever config.json says."""
        return False

    def position_signal(self, hidden: Tensor, attended: Tensor | None) -> Tensor:
        """What the positional convolutions add to each frame; padding stays 0 from one to the next.

        transformers lets what the first of them puts into the padding flow back into real frames, which makes a clip's
        states depend on how it is padded. Here they are those of the clip alone.
        """
        signal = hidden.transpose(1, 2)
        for layer in self.encoder.pos_conv_embed.layers:
            signal = layer(signal)
            if attended is not None:
                signal = signal.masked_fill(~attended[:, None, :], 0.0)
        return signal.transpose(1, 2)
