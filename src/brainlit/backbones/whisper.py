"""Whisper's encoder (Radford et al. 2022, arXiv 2212.04356), through transformers' WhisperModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from brainlit.backbones.base import FrontEnd, SpeechBackbone, require
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.frames import real_sound
from brainlit.backbones.log_mel import MEL_HOP_SAMPLES, WINDOW_SAMPLES, WhisperLogMel

PADDED_BELOW = 0.5
"""Of what the model hears: `positions: auto` adds silence to shorter windows."""


class WhisperBackbone(SpeechBackbone):
    """Whisper's encoder over a log-mel spectrogram; the decoder is kept for exports, frozen, and never run.

    The front end is the spectrogram and the two convolutions; brain-tuning freezes these, the positions and the
    decoder, as the code of arXiv 2410.09230 does. Frame k happens at k x 20 ms and hears 65 ms around it.

    Whisper was trained on 30 s at a time. `positions: padded` gives it that: silence after the window, all of it
    encoded and attended to, as published. `positions: truncated` encodes the window's own frames with the first
    positions, several times cheaper where windows are short; nothing but the window is heard, and frames that hear
    padding inside the window are not attended to. Where the window is 30 s of sound the two are the same. The shorter
    it is the more they differ: by 84 % of the last state's norm for clips of half a second, 23 % for 10 s (Whisper
    base). So `positions: auto` pads what is shorter than PADDED_BELOW of the 30 s, and truncates what is longer.

    A frame is real (may be pooled) where every sample of its receptive field that lies inside the window is sound;
    what lies beyond the window's ends counts as neither. The silence after the window is never real.

    Parameters are those of SpeechBackbone; the model is a WhisperModel.
    """

    family: ClassVar[str] = "whisper"
    model_type: ClassVar[str] = "whisper"
    never_run: ClassVar[tuple[str, ...]] = ("decoder",)
    extractor: ClassVar[str] = "WhisperFeatureExtractor"
    max_samples: int
    class_names: ClassVar[tuple[str, str]] = ("WhisperConfig", "WhisperModel")
    dropouts: ClassVar[tuple[str, ...]] = ("dropout", "attention_dropout", "activation_dropout")
    layerdrop: ClassVar[str] = "encoder_layerdrop"
    lora_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    tiny_recipe: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"long_steps": 80, "long_batch": 2, "long_s": 30.0, "clip_every": 4}
    )
    """Positions are absolute, so it learns on crops as long as its windows; and on clips with silence after them."""

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__(model, config, origin)
        settings = model.config
        self.window_samples = int(self.sound.get("n_fft", WINDOW_SAMPLES))
        mel_hop_samples = int(self.sound.get("hop_length", MEL_HOP_SAMPLES))
        self.hop_samples = 2 * mel_hop_samples  # the second convolution has stride 2
        # Half a spectrogram's window, and a spectrogram frame to either side in each of two convolutions of three taps.
        self.half_field_samples = self.window_samples // 2 + 2 * mel_hop_samples
        self.frame_rate_hz = self.sample_rate_hz / self.hop_samples
        self.hidden_size = self.n_features = int(settings.d_model)
        self.max_frames = int(settings.max_source_positions)
        self.max_samples = self.max_frames * self.hop_samples
        self.log_mel = WhisperLogMel(int(settings.num_mel_bins), self.window_samples, mel_hop_samples)
        model.decoder.requires_grad_(False)
        self.encoder.embed_positions.requires_grad_(False)
        self.train(model.training)

    @classmethod
    def sound_settings(cls, extractor: Any, said: Mapping[str, Any], config: Any) -> dict[str, Any]:
        """Window and hop of the spectrogram; see SpeechBackbone.sound_settings."""
        require(extractor, "feature_size", config.num_mel_bins, "config.json has so many num_mel_bins")
        require(extractor, "padding_value", 0, "windows are padded with silence")
        require(extractor, "dither", 0, "no noise is added to sound here")
        n_frames, needed = extractor.nb_max_frames, 2 * config.max_source_positions
        if n_frames != needed:
            raise ValueError(
                f"chunk_length {extractor.chunk_length} s at hop_length {extractor.hop_length} makes {n_frames} frames,"
                f" and config.json's max_source_positions {config.max_source_positions} needs {needed}"
            )
        usual = {"n_fft": WINDOW_SAMPLES, "hop_length": MEL_HOP_SAMPLES}
        return {name: getattr(extractor, name) for name, value in usual.items() if getattr(extractor, name) != value}

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model, as its config.json would hold them; its decoder is as small as can be."""
        return {
            "model_type": cls.model_type,
            "d_model": 128,
            "encoder_layers": 4,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 384,
            "decoder_layers": 1,
            "decoder_attention_heads": 1,
            "decoder_ffn_dim": 1,
            "vocab_size": 8,
            "max_target_positions": 1,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "decoder_start_token_id": 0,
            "begin_suppress_tokens": None,
            "mask_time_length": 5,
        }

    def train(self, mode: bool = True) -> Self:
        """As in torch, but the decoder stays in eval mode."""
        super().train(mode)
        self.model.decoder.eval()
        return self

    def front_end_modules(self) -> Sequence[nn.Module]:
        """The two convolutions over the spectrogram."""
        return [self.encoder.conv1, self.encoder.conv2]

    # --- forward ---

    def front_end(self, audio: Tensor, audio_mask: Tensor) -> FrontEnd:
        """Spectrogram and convolutions, of 30 s where the window is padded; see SpeechBackbone.front_end."""
        sound = real_sound(audio, audio_mask)
        n_samples = sound.shape[1]
        times_s = self.frame_times_s(n_samples).to(sound.device)
        sound = functional.pad(sound, (0, self.encoded_samples(n_samples) - n_samples))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.feature_encoder_frozen):
            hidden = functional.gelu(self.encoder.conv1(self.log_mel(sound)))
            features = functional.gelu(self.encoder.conv2(hidden)).transpose(1, 2)
        return FrontEnd(features, self.frame_mask(audio_mask), times_s)

    def trunk(self, features: Tensor, frame_mask: Tensor, hidden_from: Tensor | None = None) -> tuple[Tensor, ...]:
        """Positions and transformer; the last state is layer-normalised. See SpeechBackbone.trunk."""
        if hidden_from is not None:
            raise ValueError(
                "whisper has no mask embedding, so nothing can be hidden from it; masked prediction needs a family that"
                " was trained by it, such as wav2vec, hubert or wavlm."
            )
        encoder = self.encoder
        hidden = self._spec_augment(features, frame_mask) + encoder.embed_positions.weight[: features.shape[1]]
        hidden = functional.dropout(hidden, encoder.dropout, self.training)
        states = self.run_layers(hidden, self.attended(frame_mask))
        states[-1] = encoder.layer_norm(states[-1])
        return tuple(states)

    def attended(self, frame_mask: Tensor) -> Tensor | None:
        """Frames that may be attended to, None for all: as published where 30 s are encoded, unless truncated."""
        published = self.config.positions != "truncated" and frame_mask.shape[1] == self.max_frames
        return None if published else frame_mask | ~frame_mask.any(1, keepdim=True)

    def encoded_samples(self, n_samples: int) -> int:
        """Samples that are encoded for a window of n_samples: those of 30 s where silence is added."""
        return self.max_samples if n_samples < self.silence_added_below_s * self.sample_rate_hz else n_samples

    def frame_times_s(self, n_samples: int) -> Tensor:
        """Middle of each frame of n_samples of audio, in seconds from the first; float32, shape (n_frames,).

        Where the window is padded there are frames of all 30 s.

        Raises
        ------
        ValueError
            If the audio is shorter than one spectrogram frame or longer than the model's positions.
        """
        own = self._n_frames(n_samples)
        n_frames = own if self.encoded_samples(n_samples) == n_samples else self.max_frames
        return (torch.arange(n_frames, dtype=torch.float64) * self.hop_samples / self.sample_rate_hz).float()

    def frame_mask(self, audio_mask: Tensor) -> Tensor:
        """Which frames are real, as the class says: bool (batch, n_samples) -> bool (batch, n_frames)."""
        n_samples = audio_mask.shape[1]
        n_own = self._n_frames(n_samples)
        heard = functional.pad(audio_mask.cumsum(1, dtype=torch.int32), (1, 0))
        middles = torch.arange(n_own, device=audio_mask.device) * self.hop_samples
        first = (middles - self.half_field_samples).clamp(min=0)
        end = (middles + self.half_field_samples).clamp(max=n_samples)
        own = heard[:, end] - heard[:, first] == end - first
        return functional.pad(own, (0, len(self.frame_times_s(n_samples)) - n_own))

    def front_end_settings(self) -> str:
        """What decides the front end's output besides its weights and the sound."""
        return f"{self.config.positions} {super().front_end_settings()}"

    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
        return {
            **super().describe(),
            "n_parameters_encoder": sum(parameter.numel() for parameter in self.encoder.parameters()),
            "positions": self.config.positions,
            "silence_added_below_s": self.silence_added_below_s,
            "receptive_field_samples": 2 * self.half_field_samples,
        }

    @property
    def silence_added_below_s(self) -> float:
        """Windows shorter than this are followed by silence up to what the model hears; 0 where none are."""
        below = {"auto": PADDED_BELOW, "padded": 1.0, "truncated": 0.0}[self.config.positions]
        return below * self.max_samples / self.sample_rate_hz

    def _n_frames(self, n_samples: int) -> int:
        """Frames that begin inside n_samples of audio."""
        if n_samples < self.window_samples:
            raise ValueError(
                f"{n_samples} samples of audio are shorter than one frame of whisper's spectrogram"
                f" ({self.window_samples} samples, {1000 * self.window_samples / self.sample_rate_hz:.0f} ms);"
                " use longer windows."
            )
        if n_samples > self.max_samples:
            raise ValueError(
                f"windows are {n_samples / self.sample_rate_hz:g} s long, context included, and whisper"
                f" {self.config.named!r} hears at most {self.max_frames / self.frame_rate_hz:g} s; shorten them with"
                " --data.window.n_trs or --data.window.context_s."
            )
        return (2 * n_samples // self.hop_samples + 1) // 2

    def _spec_augment(self, features: Tensor, frame_mask: Tensor) -> Tensor:
        """SpecAugment, where it is switched on and the backbone is in train mode.

        It hides stretches of the convolutions' frames where the published code hides them in the spectrogram, so that
        the front end stays a function of the sound alone.
        """
        if not (self.training and self.config.spec_augment):
            return features
        masked: Tensor = self.model._mask_input_features(features.transpose(1, 2).clone(), attention_mask=frame_mask)
        return masked.transpose(1, 2)
