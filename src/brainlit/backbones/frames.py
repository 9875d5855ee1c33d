"""When the frames of a convolutional encoder happen, which of them hear real sound, and the sound they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

INT16_FULL_SCALE = 32768.0
VARIANCE_FLOOR = 1e-7


@dataclass(frozen=True)
class FrameGrid:
    """The frames of a stack of unpadded strided convolutions.

    Frame k hears samples k x hop .. k x hop + field - 1 and nothing else; it happens at the middle of that stretch.

    Parameters
    ----------
    kernels, strides : sequences of int
        One per convolution, in samples of that convolution's input.
    sample_rate_hz : int
        Rate of the audio.

    Examples
    --------
    >>> grid = FrameGrid((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 16_000)  # wav2vec 2.0
    >>> grid.hop_samples, grid.field_samples, grid.n_frames(16_000)
    (320, 400, 49)
    """

    kernels: Sequence[int]
    strides: Sequence[int]
    sample_rate_hz: int

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        hop = 1
        for stride in self.strides:
            hop *= stride
        return hop

    @property
    def field_samples(self) -> int:
        """Samples that one frame hears: its receptive field."""
        field, hop = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            field += (kernel - 1) * hop
            hop *= stride
        return field

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.sample_rate_hz / self.hop_samples

    def n_frames(self, n_samples: int) -> int:
        """Frames of n_samples of audio.

        Raises
        ------
        ValueError
            If the audio is shorter than one receptive field.
        """
        if n_samples < self.field_samples:
            raise ValueError(
                f"{n_samples} samples of audio are shorter than one frame of the backbone ({self.field_samples}"
                f" samples, {1000 * self.field_samples / self.sample_rate_hz:.0f} ms); use longer windows."
            )
        return (n_samples - self.field_samples) // self.hop_samples + 1

    def times_s(self, n_samples: int) -> Tensor:
        """Middle of each frame's receptive field in seconds from the first sample; float32, shape (n_frames,)."""
        k = torch.arange(self.n_frames(n_samples), dtype=torch.float64)
        return ((k * self.hop_samples + self.field_samples / 2) / self.sample_rate_hz).float()

    def mask(self, audio_mask: Tensor) -> Tensor:
        """Frames whose whole receptive field is real sound: (batch, n_samples) bool -> (batch, n_frames) bool.

        Unlike the length-based mask of the published models it is right for padding on either side.
        """
        n_frames = self.n_frames(audio_mask.shape[1])
        heard = functional.pad(audio_mask.cumsum(1, dtype=torch.int32), (1, 0))
        starts = torch.arange(n_frames, device=audio_mask.device) * self.hop_samples
        return heard[:, starts + self.field_samples] - heard[:, starts] == self.field_samples


def real_sound(audio: Tensor, audio_mask: Tensor) -> Tensor:
    """Sound between -1 and 1 with exact zeros in its padding, whatever the padding held.

    Parameters
    ----------
    audio : int16 or floating Tensor of shape (batch, n_samples)
        Full scale is 32768 for int16 and 1 for floats.
    audio_mask : bool Tensor of shape (batch, n_samples)
        True where there is sound.

    Returns
    -------
    float32 Tensor of shape (batch, n_samples)

    Raises
    ------
    TypeError, ValueError
        If the audio is neither int16 nor floating, or the shapes differ.
    """
    if audio.ndim != 2 or audio.shape != audio_mask.shape:
        raise ValueError(
            f"audio has shape {tuple(audio.shape)} and its mask {tuple(audio_mask.shape)}; both must be"
            " (batch, n_samples)."
        )
    if audio.dtype != torch.int16 and not audio.is_floating_point():
        raise TypeError(f"audio is {audio.dtype}; give int16 samples, or floats between -1 and 1.")
    full_scale = INT16_FULL_SCALE if audio.dtype == torch.int16 else 1.0
    return torch.where(audio_mask, audio.float() / full_scale, 0.0)


def normalise_clips(audio: Tensor, audio_mask: Tensor) -> Tensor:
    """Zero mean and unit variance for each clip over its real samples alone; padding becomes exactly 0.

    The same numbers as the published models' feature extractor for one clip at a time, whatever else is in the batch
    and however long the padding is.

    Parameters
    ----------
    audio : int16 or floating Tensor of shape (batch, n_samples)
        Full scale is 32768 for int16 and 1 for floats.
    audio_mask : bool Tensor of shape (batch, n_samples)
        True where there is sound.

    Returns
    -------
    float32 Tensor of shape (batch, n_samples)

    Raises
    ------
    TypeError, ValueError
        If the audio is neither int16 nor floating, or the shapes differ.
    """
    sound = real_sound(audio, audio_mask)
    n_real = audio_mask.sum(1, keepdim=True).clamp(min=1)
    mean = sound.sum(1, keepdim=True) / n_real
    centred = (sound - mean) * audio_mask
    variance = centred.square().sum(1, keepdim=True) / n_real
    return centred / (variance + VARIANCE_FLOOR).sqrt()
