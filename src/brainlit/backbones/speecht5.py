"""SpeechT5's speech encoder (Ao et al. 2021, arXiv 2110.07205), through transformers' SpeechT5ForSpeechToText."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from brainlit.backbones.base import FrontEnd
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.wav2vec_like import TINY_SETTINGS, ConvolutionalBackbone


class SpeechT5Backbone(ConvolutionalBackbone):
    """SpeechT5's encoder behind its speech prenet; the text decoder is kept for exports, frozen, and never run.

    The model is SpeechT5ForSpeechToText, the class of microsoft/speecht5_asr. AutoModel would open an export as
    SpeechT5Model, which has no prenet; AutoModelForSpeechSeq2Seq opens it whole. Checkpoints for voice conversion
    (speecht5_vc) have the encoder, and not what writes text; those for speech synthesis (speecht5_tts) are refused, for
    their encoder reads text.

    Its published feature extractor does not normalise the sound, and gives the transformer an attention mask although
    the convolutions normalise over the group; so it is here, unless a folder's own extractor says otherwise. Positions
    count real frames only.

    Parameters are those of SpeechBackbone; the model is a SpeechT5ForSpeechToText.
    """

    family: ClassVar[str] = "speecht5"
    model_type: ClassVar[str] = "speecht5"
    never_run: ClassVar[tuple[str, ...]] = ("speecht5.decoder", "speecht5.decoder.prenet", "text_decoder_postnet")
    extractor: ClassVar[str] = "SpeechT5FeatureExtractor"
    normalises_unsaid: ClassVar[bool] = False
    class_names: ClassVar[tuple[str, str]] = ("SpeechT5Config", "SpeechT5ForSpeechToText")
    dropouts = ("positional_dropout", "hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    layerdrop: ClassVar[str] = "encoder_layerdrop"
    auto_class: ClassVar[str] = "AutoModelForSpeechSeq2Seq"
    """What opens an export of it in transformers."""
    max_samples: int

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__(model, config, origin)
        max_frames = int(model.config.max_speech_positions)
        self.max_samples = max_frames * self.frames.hop_samples + self.frames.field_samples - 1
        for part in self.idle_parts:
            part.requires_grad_(False)

    @classmethod
    def masks_unsaid(cls, config: Any) -> bool:
        """Always, as published."""
        return True

    @classmethod
    def refusal(cls, settings: Mapping[str, Any]) -> str | None:
        """Refuse checkpoints for other tasks; see SpeechBackbone.refusal."""
        found = settings.get("architectures")
        if not found or {cls.class_names[1], "SpeechT5ForSpeechToSpeech"} & set(found):
            return None
        if "SpeechT5ForTextToSpeech" in found:
            return (
                "are a SpeechT5ForTextToSpeech, whose encoder reads text: no part of it hears speech. This family needs"
                f" a {cls.class_names[1]} or a SpeechT5ForSpeechToSpeech; use microsoft/speecht5_asr."
            )
        return (
            f"are a {found[0]}, and this family needs a {cls.class_names[1]}, whose encoder hears speech and whose"
            " decoder writes text; use microsoft/speecht5_asr."
        )

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model: convolutions and layers as in wav2vec's, and as small a decoder as can be."""
        shared = ("hidden_size", "conv_", "feat_extract_", "num_conv_pos_", "mask_time_")
        return {
            "model_type": cls.model_type,
            **{name: value for name, value in TINY_SETTINGS.items() if name.startswith(shared)},
            "encoder_layers": TINY_SETTINGS["num_hidden_layers"],
            "encoder_attention_heads": TINY_SETTINGS["num_attention_heads"],
            "encoder_ffn_dim": TINY_SETTINGS["intermediate_size"],
            "encoder_max_relative_position": 80,
            "max_speech_positions": 2000,
            "decoder_layers": 1,
            "decoder_attention_heads": 1,
            "decoder_ffn_dim": 1,
            "max_text_positions": 1,
        }

    def train(self, mode: bool = True) -> Self:
        """As in torch, but the decoder stays in eval mode."""
        super().train(mode)
        for part in self.idle_parts:
            part.eval()
        return self

    # --- where the parts are ---

    @property
    def idle_parts(self) -> tuple[nn.Module, nn.Module]:
        """What never runs: the text decoder and what reads it."""
        return self.model.speecht5.decoder, self.model.text_decoder_postnet

    @property
    def prenet(self) -> Any:
        """Convolutions, projection and absolute positions."""
        return self.model.speecht5.encoder.prenet

    @property
    def encoder(self) -> Any:
        """The transformer with its relative positions."""
        return self.model.speecht5.encoder.wrapped_encoder

    @property
    def feature_extractor(self) -> nn.Module:
        """The convolutions."""
        module: nn.Module = self.prenet.feature_encoder
        return module

    @property
    def masked_part(self) -> Any:
        """The prenet."""
        return self.prenet

    # --- forward ---

    def front_end(self, audio: Tensor, audio_mask: Tensor) -> FrontEnd:
        """Frames of the convolutions; see SpeechBackbone.front_end."""
        n_samples = audio.shape[1]
        if n_samples > self.max_samples:
            raise ValueError(
                f"windows are {n_samples / self.sample_rate_hz:g} s long, context included, and speecht5"
                f" {self.config.named!r} hears at most {self.max_samples / self.sample_rate_hz:.1f} s; shorten them"
                " with --data.window.n_trs or --data.window.context_s."
            )
        features = self.conv_features(self.prepared(audio, audio_mask))
        return FrontEnd(features, self.frame_mask(audio_mask), self.frame_times_s(n_samples).to(audio.device))

    def trunk(self, features: Tensor, frame_mask: Tensor, hidden_from: Tensor | None = None) -> tuple[Tensor, ...]:
        """Projection, positions and transformer; see SpeechBackbone.trunk."""
        encoder, attended = self.encoder, self.attended(frame_mask)
        attended = torch.ones_like(frame_mask) if attended is None else attended
        hidden = self.masked(self.project(features), attended, hidden_from)
        hidden = hidden + self.prenet.pos_conv_embed(hidden)
        hidden = hidden + self.prenet.pos_sinusoidal_embed((~attended).long())
        positions = encoder.embed_positions(hidden)
        return tuple(self.run_layers(encoder.dropout(encoder.layer_norm(hidden)), attended, position_bias=positions))

    def project(self, features: Tensor) -> Tensor:
        """Frames of the convolutions -> what the positions are added to, (batch, n_frames, hidden_size)."""
        hidden: Tensor = self.prenet.feature_projection(features)[0]
        return hidden

    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
        runs = [*self.prenet.parameters(), *self.encoder.parameters()]
        return {**super().describe(), "n_parameters_encoder": sum(parameter.numel() for parameter in runs)}
