"""w2v-BERT 2.0 (Seamless Communication 2023, arXiv 2312.05187), through transformers' Wav2Vec2BertModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from brainlit.backbones.base import FrontEnd, SpeechBackbone, require
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.frames import VARIANCE_FLOOR, FrameGrid, real_sound
from brainlit.backbones.log_mel import MEL_HOP_SAMPLES, WINDOW_SAMPLES, KaldiLogMel

STACKED = 2
"""Spectrogram frames that make one frame of the published model."""


class Wav2Vec2BertBackbone(SpeechBackbone):
    """w2v-BERT 2.0: conformer layers over a Kaldi spectrogram, two of its frames at a time.

    The front end has nothing to learn: log power in mel bands, standardised band by band over the real frames of each
    clip, as SeamlessM4TFeatureExtractor does it. Frames of padding are neither attended to nor pooled, and positions
    are relative, so what a clip becomes does not depend on the padding at either side.

    Parameters are those of SpeechBackbone; the model is a Wav2Vec2BertModel.
    """

    family: ClassVar[str] = "w2v-bert"
    model_type: ClassVar[str] = "wav2vec2-bert"
    extractor: ClassVar[str] = "SeamlessM4TFeatureExtractor"
    class_names: ClassVar[tuple[str, str]] = ("Wav2Vec2BertConfig", "Wav2Vec2BertModel")
    dropouts: ClassVar[tuple[str, ...]] = (
        "hidden_dropout",
        "attention_dropout",
        "activation_dropout",
        "feat_proj_dropout",
        "conformer_conv_dropout",
        "final_dropout",
    )
    lora_targets: ClassVar[tuple[str, ...]] = ("linear_q", "linear_k", "linear_v", "linear_out")
    tiny_recipe: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 100})
    """Its steps take three times as long on a CPU as wav2vec's, and it needs fewer."""

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__(model, config, origin)
        settings = model.config
        self.stacked = int(self.sound.get("stride", STACKED))
        self.uses_attention_mask = bool(self.sound.get("return_attention_mask", True))
        self.frames = FrameGrid((WINDOW_SAMPLES, self.stacked), (MEL_HOP_SAMPLES, self.stacked), self.sample_rate_hz)
        self.frame_rate_hz = self.frames.frame_rate_hz
        self.hidden_size = int(settings.hidden_size)
        self.n_features = int(settings.feature_projection_input_dim)
        self.log_mel = KaldiLogMel(self.n_features // self.stacked)
        self.train(model.training)

    @classmethod
    def sound_settings(cls, extractor: Any, said: Mapping[str, Any], config: Any) -> dict[str, Any]:
        """Spectrogram frames per frame of the model, and the mask; see SpeechBackbone.sound_settings."""
        stacked, n_features = extractor.stride, config.feature_projection_input_dim
        if stacked * extractor.num_mel_bins != n_features:
            raise ValueError(
                f"stride {stacked} x num_mel_bins {extractor.num_mel_bins} are not the {n_features} features that"
                " config.json's feature_projection_input_dim says"
            )
        if not extractor.return_attention_mask:
            require(extractor, "padding_value", 0, "windows are padded with silence")
        found = {"stride": stacked, "return_attention_mask": bool(extractor.return_attention_mask)}
        usual = {"stride": STACKED, "return_attention_mask": True}
        return {name: value for name, value in found.items() if value != usual[name]}

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model, as its config.json would hold them: four conformer layers of 128."""
        return {
            "model_type": cls.model_type,
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 384,
            "conv_depthwise_kernel_size": 15,
            "mask_time_prob": 0.05,
        }

    def front_end_modules(self) -> Sequence[nn.Module]:
        """None: the spectrogram has nothing to learn."""
        return []

    def front_end(self, audio: Tensor, audio_mask: Tensor) -> FrontEnd:
        """Standardised spectrogram, two frames at a time; see SpeechBackbone.front_end."""
        frame_mask = self.frame_mask(audio_mask)
        real = FrameGrid((WINDOW_SAMPLES,), (MEL_HOP_SAMPLES,), self.sample_rate_hz).mask(audio_mask)
        log_mel = standardise_bands(self.log_mel(real_sound(audio, audio_mask)), real)
        n_frames = frame_mask.shape[1]
        features = log_mel[:, : self.stacked * n_frames].reshape(len(audio), n_frames, self.n_features)
        return FrontEnd(features, frame_mask, self.frame_times_s(audio.shape[1]).to(audio.device))

    def trunk(self, features: Tensor, frame_mask: Tensor, hidden_from: Tensor | None = None) -> tuple[Tensor, ...]:
        """Projection and conformer layers; see SpeechBackbone.trunk."""
        encoder, attended = self.model.encoder, self.attended(frame_mask)
        hidden = self.masked(self.model.feature_projection(features)[0], attended, hidden_from)
        positions = encoder.embed_positions(hidden) if encoder.embed_positions else None
        options = {"conv_attention_mask": attended, "relative_position_embeddings": positions}
        return tuple(self.run_layers(encoder.dropout(hidden), attended, **options))

    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
        return {**super().describe(), "receptive_field_samples": self.frames.field_samples}


def standardise_bands(log_mel: Tensor, real: Tensor) -> Tensor:
    """Zero mean and unit variance of each clip's bands over its real frames; 0 elsewhere.

    Parameters
    ----------
    log_mel : Tensor of shape (batch, n_frames, n_mels)
    real : bool Tensor of shape (batch, n_frames)
    """
    n_real = real.sum(1)[:, None, None]
    mean = torch.where(real[:, :, None], log_mel, 0.0).sum(1, keepdim=True) / n_real.clamp(min=1)
    centred = torch.where(real[:, :, None], log_mel - mean, 0.0)
    variance = centred.square().sum(1, keepdim=True) / (n_real - 1).clamp(min=1)
    return centred / (variance + VARIANCE_FLOOR).sqrt()
