"""The interface behind which every speech family stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from brainlit.backbones.config import BackboneConfig


class Encoded(NamedTuple):
    """What a backbone makes of a batch of windows.

    Parameters
    ----------
    hidden_states : tuple of n_layers + 1 Tensors of shape (batch, n_frames, hidden_size)
        Entry 0 goes into the first layer, entry k comes out of layer k; the last is the model's output.
    frame_mask : bool Tensor of shape (batch, n_frames)
        True for frames that hear nothing but real sound. The others must not be pooled.
    frame_times_s : float32 Tensor of shape (n_frames,)
        Middle of each frame's receptive field, in seconds from the window's first sample.
    """

    hidden_states: tuple[Tensor, ...]
    frame_mask: Tensor
    frame_times_s: Tensor


class SpeechBackbone(nn.Module, ABC):
    """A speech model that turns windows of sound into hidden states with known times.

    Attributes
    ----------
    family : str
        Name in BACKBONES.
    hidden_size : int
        Features of a hidden state.
    n_layers : int
        Transformer layers; there is one hidden state more.
    frame_rate_hz : float
        Frames per second.
    sample_rate_hz : int
        Rate of the audio it expects.
    """

    family: ClassVar[str]
    hidden_size: int
    n_layers: int
    frame_rate_hz: float
    sample_rate_hz: int

    @classmethod
    @abstractmethod
    def load(cls, config: BackboneConfig) -> SpeechBackbone:
        """The backbone with its weights, in eval mode, every parameter trainable."""

    @abstractmethod
    def encode(self, audio: Tensor, audio_mask: Tensor) -> Encoded:
        """Hidden states of a batch of windows.

        Parameters
        ----------
        audio : int16 or floating Tensor of shape (batch, n_samples)
            On the backbone's device; normalised here, clip by clip.
        audio_mask : bool Tensor of shape (batch, n_samples)
            True where there is sound.
        """

    @abstractmethod
    def frame_times_s(self, n_samples: int) -> Tensor:
        """Middle of each frame of n_samples of audio, in seconds from the first; float32, shape (n_frames,)."""

    @abstractmethod
    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutions that hear the waveform; they then run without gradients."""

    @abstractmethod
    def restore_description(self, config: BackboneConfig, origin: dict[str, Any]) -> None:
        """Say where the weights really came from, after those of a tuned checkpoint were loaded into random ones."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
