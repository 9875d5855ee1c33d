"""The speech families: the class of each, the loss it was trained by, and its published sizes.

Of the architectures, what decides the size and where the model normalises is written down where it is not the default
of transformers, so that random weights of a published size need no download.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

OwnLoss = Literal["contrastive", "masked_prediction"]


@dataclass(frozen=True)
class Family:
    """What has to be known of a family before its class is imported.

    Parameters
    ----------
    path : str
        "module:Class", the module within brainlit.backbones.
    sizes : mapping of str to str
        Size -> hub id.
    architectures : mapping of str to mapping
        Settings of those sizes that random weights know without a download.
    own_loss : str or None
        The self-supervised loss that can be continued here; None for families that were trained with labels, or by
        losses that need parts which are not in the checkpoints.
    """

    path: str
    sizes: Mapping[str, str]
    architectures: Mapping[str, Mapping[str, Any]]
    own_loss: OwnLoss | None = None


_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_NORM_LAYERS = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_LARGE_NORM_LAYERS: dict[str, Any] = {**_LARGE, **_NORM_LAYERS}
_LARGE_WITH_BIAS: dict[str, Any] = {**_LARGE_NORM_LAYERS, "conv_bias": True}
_XLARGE = {**_LARGE_WITH_BIAS, "hidden_size": 1280, "num_hidden_layers": 48, "intermediate_size": 5120}


def _whisper(d_model: int, layers: int, heads: int, **others: Any) -> dict[str, Any]:
    sides = {
        f"{side}_{what}": value
        for side in ("encoder", "decoder")
        for what, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", 4 * d_model))
    }
    return {"d_model": d_model, **sides, **others}


FAMILIES: dict[str, Family] = {
    "wav2vec": Family(
        "wav2vec_like:Wav2vecBackbone",
        {
            "base": "facebook/wav2vec2-base",
            "base-960h": "facebook/wav2vec2-base-960h",
            "large": "facebook/wav2vec2-large",
            "large-960h": "facebook/wav2vec2-large-960h",
            "large-lv60": "facebook/wav2vec2-large-lv60",
            "large-960h-lv60-self": "facebook/wav2vec2-large-960h-lv60-self",
            "xlsr-53": "facebook/wav2vec2-large-xlsr-53",
            "xls-r-300m": "facebook/wav2vec2-xls-r-300m",
            "xls-r-1b": "facebook/wav2vec2-xls-r-1b",
            "xls-r-2b": "facebook/wav2vec2-xls-r-2b",
        },
        {
            "base": {},
            "large": _LARGE,
            "large-lv60": _LARGE_WITH_BIAS,
            "xlsr-53": _LARGE_WITH_BIAS,
            "xls-r-300m": _LARGE_WITH_BIAS,
            "xls-r-1b": _XLARGE,
            "xls-r-2b": {**_XLARGE, "hidden_size": 1920, "intermediate_size": 7680},
        },
        own_loss="contrastive",
    ),
    "hubert": Family(
        "wav2vec_like:HubertBackbone",
        {
            "base": "facebook/hubert-base-ls960",
            "large": "facebook/hubert-large-ll60k",
            "xlarge": "facebook/hubert-xlarge-ll60k",
        },
        {"base": {}, "large": _LARGE_WITH_BIAS, "xlarge": _XLARGE},
        own_loss="masked_prediction",
    ),
    "wavlm": Family(
        "wavlm:WavLMBackbone",
        {
            "base": "microsoft/wavlm-base",
            "base-plus": "microsoft/wavlm-base-plus",
            "large": "microsoft/wavlm-large",
        },
        {"base": {}, "base-plus": {}, "large": _LARGE_NORM_LAYERS},
        own_loss="masked_prediction",
    ),
    "data2vec": Family(
        "wav2vec_like:Data2VecBackbone",
        {
            "base": "facebook/data2vec-audio-base",
            "base-960h": "facebook/data2vec-audio-base-960h",
            "large": "facebook/data2vec-audio-large",
            "large-960h": "facebook/data2vec-audio-large-960h",
        },
        {"base": {}, "large": _LARGE},
        own_loss="masked_prediction",
    ),
    "unispeech-sat": Family(
        "wav2vec_like:UniSpeechSatBackbone",
        {
            "base": "microsoft/unispeech-sat-base",
            "base-plus": "microsoft/unispeech-sat-base-plus",
            "large": "microsoft/unispeech-sat-large",
        },
        {"base": {}, "base-plus": {}, "large": _LARGE_WITH_BIAS},
        own_loss="masked_prediction",
    ),
    "whisper": Family(  # openai/whisper-tiny goes by its id, since tiny is brainlit's own small model
        "whisper:WhisperBackbone",
        {
            "base": "openai/whisper-base",
            "small": "openai/whisper-small",
            "medium": "openai/whisper-medium",
            "large": "openai/whisper-large",
            "large-v2": "openai/whisper-large-v2",
            "large-v3": "openai/whisper-large-v3",
        },
        {
            "base": _whisper(512, 6, 8),
            "small": _whisper(768, 12, 12),
            "medium": _whisper(1024, 24, 16),
            "large": _whisper(1280, 32, 20),
            "large-v2": _whisper(1280, 32, 20),
            "large-v3": _whisper(1280, 32, 20, num_mel_bins=128, vocab_size=51866),
        },
    ),
    "speecht5": Family(  # fine-tuned for recognition
        "speecht5:SpeechT5Backbone",
        {"base": "microsoft/speecht5_asr", "asr": "microsoft/speecht5_asr"},
        {"base": {}, "asr": {}},
    ),
    "w2v-bert": Family("wav2vec2_bert:Wav2Vec2BertBackbone", {"base": "facebook/w2v-bert-2.0"}, {"base": {}}),
}
