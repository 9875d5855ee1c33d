"""HuBERT (Hsu et al. 2021, arXiv 2106.07447), through transformers' HubertModel."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import nn

from brainlit.backbones.convolutional import ConvolutionalBackbone


class HubertBackbone(ConvolutionalBackbone):
    """HuBERT: base, large and extra large models, and its kin (DistilHuBERT, mHuBERT)."""

    family: ClassVar[str] = "hubert"
    model_type: ClassVar[str] = "hubert"
    class_names: ClassVar[tuple[str, str]] = ("HubertConfig", "HubertModel")

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode; batch normalisation, which mHuBERT has, always uses the statistics it came with.

        Otherwise the states of a clip would depend on its batch.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self
