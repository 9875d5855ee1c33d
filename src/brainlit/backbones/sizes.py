"""Published models by size: where on the hub they are, and what their architecture is.

Of the architectures, what decides the size and where the model normalises is written down where it is not the default
of transformers, so that random weights of a published size need no download.
"""

from __future__ import annotations

from typing import Any

SIZES: dict[str, dict[str, str]] = {
    "wav2vec": {
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
    "hubert": {
        "base": "facebook/hubert-base-ls960",
        "large": "facebook/hubert-large-ll60k",
        "xlarge": "facebook/hubert-xlarge-ll60k",
    },
    "wavlm": {
        "base": "microsoft/wavlm-base",
        "base-plus": "microsoft/wavlm-base-plus",
        "large": "microsoft/wavlm-large",
    },
    "data2vec": {
        "base": "facebook/data2vec-audio-base",
        "base-960h": "facebook/data2vec-audio-base-960h",
        "large": "facebook/data2vec-audio-large",
        "large-960h": "facebook/data2vec-audio-large-960h",
    },
    "unispeech-sat": {
        "base": "microsoft/unispeech-sat-base",
        "base-plus": "microsoft/unispeech-sat-base-plus",
        "large": "microsoft/unispeech-sat-large",
    },
    "whisper": {
        "base": "openai/whisper-base",
        "small": "openai/whisper-small",
        "medium": "openai/whisper-medium",
        "large": "openai/whisper-large",
        "large-v2": "openai/whisper-large-v2",
        "large-v3": "openai/whisper-large-v3",
    },
    "speecht5": {"base": "microsoft/speecht5_asr", "asr": "microsoft/speecht5_asr"},
    "w2v-bert": {"base": "facebook/w2v-bert-2.0"},
}
"""Hub ids of each family by size.

openai/whisper-tiny goes by its id, since tiny is brainlit's own small model; SpeechT5 was fine-tuned for recognition.
"""

_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_NORM_LAYERS: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
_LARGE_NORM_LAYERS: dict[str, Any] = {**_LARGE, **_NORM_LAYERS}
_WIDE: dict[str, Any] = {
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "intermediate_size": 5120,
}


def _whisper(d_model: int, layers: int, heads: int, **others: Any) -> dict[str, Any]:
    sides = {
        f"{side}_{what}": value
        for side in ("encoder", "decoder")
        for what, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", 4 * d_model))
    }
    return {"d_model": d_model, **sides, **others}


ARCHITECTURES: dict[str, dict[str, dict[str, Any]]] = {
    "wav2vec": {
        "base": {},
        "large": _LARGE,
        "large-lv60": {**_LARGE_NORM_LAYERS, "conv_bias": True},
        "xlsr-53": {**_LARGE_NORM_LAYERS, "conv_bias": True},
        "xls-r-300m": {**_LARGE_NORM_LAYERS, "conv_bias": True},
        "xls-r-1b": {**_WIDE, **_NORM_LAYERS, "conv_bias": True},
        "xls-r-2b": {**_WIDE, **_NORM_LAYERS, "conv_bias": True, "hidden_size": 1920, "intermediate_size": 7680},
    },
    "hubert": {
        "base": {},
        "large": {**_LARGE_NORM_LAYERS, "conv_bias": True},
        "xlarge": {**_WIDE, **_NORM_LAYERS, "conv_bias": True},
    },
    "wavlm": {"base": {}, "base-plus": {}, "large": _LARGE_NORM_LAYERS},
    "data2vec": {"base": {}, "large": _LARGE},
    "unispeech-sat": {"base": {}, "base-plus": {}, "large": {**_LARGE_NORM_LAYERS, "conv_bias": True}},
    "whisper": {
        "base": _whisper(512, 6, 8),
        "small": _whisper(768, 12, 12),
        "medium": _whisper(1024, 24, 16),
        "large": _whisper(1280, 32, 20),
        "large-v2": _whisper(1280, 32, 20),
        "large-v3": _whisper(1280, 32, 20, num_mel_bins=128, vocab_size=51866),
    },
    "speecht5": {"base": {}, "asr": {}},
    "w2v-bert": {"base": {}},
}
"""Settings of the published sizes, by family."""
