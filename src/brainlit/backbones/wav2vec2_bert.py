"""w2v-BERT 2.0 (Seamless Communication 2023, arXiv 2312.05187), through transformers' Wav2Vec2BertModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from brainlit.backbones.base import FrontEnd, SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.frames import FrameGrid, real_sound
from brainlit.backbones.log_mel import MEL_HOP_SAMPLES, WINDOW_SAMPLES, KaldiLogMel
from brainlit.timebase import SAMPLE_RATE_HZ

STACKED = 2
"""Spectrogram frames that make one frame of the model."""
VARIANCE_FLOOR = 1e-7
DROPOUTS = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feat_proj_dropout",
    "conformer_conv_dropout",
    "final_dropout",
)


class Wav2Vec2BertBackbone(SpeechBackbone):
    """w2v-BERT 2.0: conformer layers over a Kaldi spectrogram, two of its frames at a time.

    The front end has nothing to learn: log power in mel bands, standardised band by band over the real frames of each
    clip, as SeamlessM4TFeatureExtractor does it. Frames of padding are neither attended to nor pooled, and positions
    are relative, so what a clip becomes does not depend on the padding at either side.

    Parameters
    ----------
    model : transformers Wav2Vec2BertModel
    config : BackboneConfig
    origin : mapping
        See SpeechBackbone.
    """

    family: ClassVar[str] = "w2v-bert"
    model_type: ClassVar[str] = "wav2vec2-bert"
    class_names: ClassVar[tuple[str, str]] = ("Wav2Vec2BertConfig", "Wav2Vec2BertModel")
    lora_targets: ClassVar[tuple[str, ...]] = ("linear_q", "linear_k", "linear_v", "linear_out")
    tiny_recipe: ClassVar[Mapping[str, Any]] = MappingProxyType({"steps": 100})
    """Its steps take three times as long on a CPU as wav2vec's, and it needs fewer."""

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__(model, config, origin)
        settings = model.config
        if settings.add_adapter:
            raise ValueError(
                f"weights {config.weights!r} have an adapter that changes the frame rate after the transformer; it is"
                " not supported. Use a checkpoint without one (add_adapter: false)."
            )
        self.sample_rate_hz = SAMPLE_RATE_HZ
        self.frames = FrameGrid((WINDOW_SAMPLES, STACKED), (MEL_HOP_SAMPLES, STACKED), SAMPLE_RATE_HZ)
        self.frame_rate_hz = self.frames.frame_rate_hz
        self.hidden_size = int(settings.hidden_size)
        self.n_features = int(settings.feature_projection_input_dim)
        self.log_mel = KaldiLogMel(self.n_features // STACKED)
        self.n_layers = len(self.layers)
        if self.mask_embedding is not None:
            self.mask_embedding.requires_grad_(config.spec_augment)
        self.train(model.training)

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

    @classmethod
    def switches(cls, config: BackboneConfig) -> dict[str, Any]:
        """Settings of the model that the backbone's config decides."""
        dropouts = dict.fromkeys(DROPOUTS, config.dropout)
        return {**dropouts, "layerdrop": config.layerdrop, "apply_spec_augment": config.spec_augment}

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The conformer layers, from the bottom."""
        found: Sequence[nn.Module] = self.model.encoder.layers
        return found

    @property
    def mask_embedding(self) -> nn.Parameter | None:
        """What stands in for a hidden frame; None where the checkpoint has none."""
        embedding: nn.Parameter | None = getattr(self.model, "masked_spec_embed", None)
        return embedding

    def front_end_modules(self) -> Sequence[nn.Module]:
        """None: the spectrogram has nothing to learn."""
        return []

    def front_end(self, audio: Tensor, audio_mask: Tensor) -> FrontEnd:
        """Standardised spectrogram, two frames at a time; see SpeechBackbone.front_end."""
        frame_mask = self.frame_mask(audio_mask)
        real = FrameGrid((WINDOW_SAMPLES,), (MEL_HOP_SAMPLES,), SAMPLE_RATE_HZ).mask(audio_mask)
        log_mel = standardise_bands(self.log_mel(real_sound(audio, audio_mask)), real)
        n_frames = frame_mask.shape[1]
        features = log_mel[:, : STACKED * n_frames].reshape(len(audio), n_frames, self.n_features)
        return FrontEnd(features, frame_mask, self.frame_times_s(audio.shape[1]).to(audio.device))

    def trunk(self, features: Tensor, frame_mask: Tensor, hidden_from: Tensor | None = None) -> tuple[Tensor, ...]:
        """Projection and conformer layers; see SpeechBackbone.trunk."""
        from transformers.masking_utils import create_bidirectional_mask

        encoder = self.model.encoder
        attended = frame_mask | ~frame_mask.any(1, keepdim=True)
        hidden = self._projected(features, attended, hidden_from)
        options = {
            "attention_mask": create_bidirectional_mask(
                config=self.model.config, inputs_embeds=hidden, attention_mask=attended
            ),
            "conv_attention_mask": attended,
            "relative_position_embeddings": encoder.embed_positions(hidden) if encoder.embed_positions else None,
        }
        states = [encoder.dropout(hidden)]
        for layer in self.layers:
            before = states[-1]
            states.append(before if self._left_out() else self._run(layer, before, **options))
        return tuple(states)

    def frame_times_s(self, n_samples: int) -> Tensor:
        """Middle of each frame of n_samples of audio, in seconds from the first; float32, shape (n_frames,)."""
        return self.frames.times_s(n_samples)

    def frame_mask(self, audio_mask: Tensor) -> Tensor:
        """Frames whose whole receptive field is real sound."""
        return self.frames.mask(audio_mask)

    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
        return {**super().describe(), "receptive_field_samples": self.frames.field_samples}

    def _projected(self, features: Tensor, attended: Tensor, hidden_from: Tensor | None) -> Tensor:
        """What goes into the layers; some of it hidden, zero where there is padding."""
        hidden: Tensor = self.model.feature_projection(features)[0]
        if hidden_from is None:
            hidden = self.model._mask_hidden_states(hidden, attention_mask=attended)
        elif self.mask_embedding is None:
            raise ValueError(
                f"weights {self.config.weights!r} have no mask embedding (mask_time_prob is 0 in their config), so"
                " nothing can be hidden from them; masked prediction needs another checkpoint."
            )
        else:
            hidden = torch.where(hidden_from[:, :, None], self.mask_embedding.to(hidden.dtype), hidden)
        return hidden.masked_fill(~attended[:, :, None], 0.0)


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
