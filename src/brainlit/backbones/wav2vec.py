"""wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477), through transformers' Wav2Vec2Model."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import torch
from torch import Tensor

from brainlit.backbones import strided
from brainlit.backbones.base import Encoded, SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.frames import FrameGrid, normalise_clips
from brainlit.backbones.weights import RANDOM_PREFIX, find_checkpoint, load_checkpoint, random_model, with_switches
from brainlit.timebase import SAMPLE_RATE_HZ

MODEL_TYPE = "wav2vec2"
DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")


class Wav2vecBackbone(SpeechBackbone):
    """wav2vec 2.0 in two separate parts: convolutions over the waveform, and a transformer over their frames.

    Checkpoints whose convolutions normalise over the group (facebook/wav2vec2-base) were trained on zero-padded clips
    without an attention mask and are run so; those that normalise over the layer (the lv60 and XLS-R models, the tiny
    one) get a mask. Frames of padding are never pooled in either.

    Parameters
    ----------
    model : transformers.Wav2Vec2Model
    config : BackboneConfig
        What was asked for.
    origin : mapping
        Where the weights came from, for the record; plain JSON values.
    """

    family: ClassVar[str] = "wav2vec"

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__()
        if model.config.add_adapter:
            raise ValueError(
                f"weights {config.weights!r} have an adapter that changes the frame rate after the transformer; it is"
                " not supported. Use a checkpoint without one (add_adapter: false)."
            )
        self.model = model
        self.config = config
        self.origin = origin
        self.sample_rate_hz = SAMPLE_RATE_HZ
        self.frames = FrameGrid(tuple(model.config.conv_kernel), tuple(model.config.conv_stride), SAMPLE_RATE_HZ)
        self.frame_rate_hz = self.frames.frame_rate_hz
        self.hidden_size = int(model.config.hidden_size)
        self.n_layers = int(model.config.num_hidden_layers)
        self.uses_attention_mask = model.config.feat_extract_norm == "layer"
        self.strided = strided.can_run(model.config)
        self.feature_encoder_frozen = False
        if hasattr(model, "masked_spec_embed"):
            model.masked_spec_embed.requires_grad_(config.spec_augment)
        self.train(model.training)

    @classmethod
    def load(cls, config: BackboneConfig) -> Wav2vecBackbone:
        """The backbone that the config asks for, in eval mode.

        Raises
        ------
        WeightsError
            If the weights are not there, incomplete, or another family's.
        """
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        switches = _switches(config)
        if config.weights.startswith(RANDOM_PREFIX):
            settings = _architecture(config.weights.removeprefix(RANDOM_PREFIX))
            model = random_model(Wav2Vec2Model, Wav2Vec2Config(**with_switches(settings, switches)), config.seed)
            return cls(model, config, {"kind": "random", "seed": config.seed})
        location = config.weights
        origin: dict[str, Any] = {"kind": "pretrained"}
        if config.weights == "tiny":
            from brainlit.backbones.tiny import tiny_folder, tiny_record

            location = str(tiny_folder(config.seed))
            origin = {"kind": "tiny", "seed": config.seed, **tiny_record(location)}
        checkpoint = find_checkpoint(location, MODEL_TYPE)
        if "_commit_hash" in checkpoint.settings:
            origin["commit"] = checkpoint.settings["_commit_hash"]
        model_config = Wav2Vec2Config(**with_switches(checkpoint.settings, switches))
        return cls(load_checkpoint(Wav2Vec2Model, checkpoint, model_config), config, origin)

    def encode(self, audio: Tensor, audio_mask: Tensor) -> Encoded:
        """Hidden states of a batch of windows; see SpeechBackbone.encode."""
        frame_mask = self.frames.mask(audio_mask)
        features = self.conv_features(normalise_clips(audio, audio_mask))
        times_s = self.frame_times_s(audio.shape[1]).to(audio.device)
        return Encoded(self.transform(features, frame_mask), frame_mask, times_s)

    def conv_features(self, sound: Tensor) -> Tensor:
        """Frames of the convolutions: normalised sound (batch, n_samples) -> (batch, n_frames, conv_size).

        Without gradients once frozen, so that nothing of the waveform's length is kept for the backward pass.
        """
        extractor = self.model.feature_extractor
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.feature_encoder_frozen):
            if self.strided and sound.device.type == "cpu":
                return strided.conv_features(extractor, sound)
            features: Tensor = extractor(sound).transpose(1, 2)
        return features

    def transform(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, ...]:
        """The trunk: (batch, n_frames, conv_size) -> n_layers + 1 tensors (batch, n_frames, hidden_size)."""
        from transformers.masking_utils import create_bidirectional_mask

        encoder = self.model.encoder
        attended = self._attended(frame_mask)
        hidden, _ = self.model.feature_projection(features)
        hidden = self.model._mask_hidden_states(hidden, attention_mask=attended)
        if attended is not None:
            hidden = hidden.masked_fill(~attended[:, :, None], 0.0)
        attention_mask = create_bidirectional_mask(
            config=self.model.config, inputs_embeds=hidden, attention_mask=attended
        )
        hidden = hidden + encoder.pos_conv_embed(hidden)
        layer_norm_last = bool(self.model.config.do_stable_layer_norm)
        if not layer_norm_last:
            hidden = encoder.layer_norm(hidden)
        states = [encoder.dropout(hidden)]
        for layer in encoder.layers:
            left_out = self.training and self.config.layerdrop > 0 and float(torch.rand(())) < self.config.layerdrop
            states.append(states[-1] if left_out else layer(states[-1], attention_mask=attention_mask))
        if layer_norm_last:
            states[-1] = encoder.layer_norm(states[-1])
        return tuple(states)

    def frame_times_s(self, n_samples: int) -> Tensor:
        """Middle of each frame of n_samples of audio, in seconds from the first; float32, shape (n_frames,)."""
        return self.frames.times_s(n_samples)

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutions; they then run without gradients."""
        self.model.freeze_feature_encoder()
        self.feature_encoder_frozen = True

    def restore_description(self, config: BackboneConfig, origin: dict[str, Any]) -> None:
        """Say where the weights really came from."""
        self.config, self.origin = config, origin

    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
        return {
            "family": self.family,
            "weights": self.config.weights,
            "origin": self.origin,
            "hidden_size": self.hidden_size,
            "n_layers": self.n_layers,
            "frame_rate_hz": self.frame_rate_hz,
            "sample_rate_hz": self.sample_rate_hz,
            "receptive_field_samples": self.frames.field_samples,
            "n_parameters": sum(parameter.numel() for parameter in self.parameters()),
            "mode": "train" if self.training else "eval",
            "dropout": self.config.dropout,
            "layerdrop": self.config.layerdrop,
            "spec_augment": self.config.spec_augment,
            "attention_mask": self.uses_attention_mask,
            "feature_encoder_frozen": self.feature_encoder_frozen,
            "architecture": self.architecture(),
        }

    def architecture(self) -> dict[str, Any]:
        """Settings of the model as its config.json would hold them; enough to build it again."""
        settings = json.loads(self.model.config.to_json_string(use_diff=True))
        return {key: value for key, value in settings.items() if key not in _NOT_ARCHITECTURE and key[0] != "_"}

    def _attended(self, frame_mask: Tensor) -> Tensor | None:
        """Frames that may be attended to; a clip of nothing but padding attends to itself rather than to nothing."""
        if not self.uses_attention_mask:
            return None
        return frame_mask | ~frame_mask.any(1, keepdim=True)


_NOT_ARCHITECTURE = ("transformers_version", "dtype", "torch_dtype", "architectures")


def _switches(config: BackboneConfig) -> dict[str, Any]:
    dropouts = dict.fromkeys(DROPOUTS, config.dropout)
    return {**dropouts, "layerdrop": config.layerdrop, "apply_spec_augment": config.spec_augment}


def _architecture(name: str) -> dict[str, Any]:
    """Settings by name (tiny, base), or those of a folder or hub id."""
    if name == "base":
        return {}
    if name == "tiny":
        from brainlit.backbones.tiny import TINY_ARCHITECTURE

        return dict(TINY_ARCHITECTURE)
    return find_checkpoint(name, MODEL_TYPE).settings
