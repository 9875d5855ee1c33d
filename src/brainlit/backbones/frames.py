"""When the frames of a convolutional encoder happen, which of them hear real sound, and the sound they are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
        return math.prod(self.strides)

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
        # Samples heard before each sample: the difference over a field is its field's length where all of it is sound.
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
    and however long the padding is. What goes in and comes out, and what is refused, as in real_sound.
    """
    sound = real_sound(audio, audio_mask)
    n_real = audio_mask.sum(1, keepdim=True).clamp(min=1)
    mean = sound.sum(1, keepdim=True) / n_real
    centred = (sound - mean) * audio_mask
    variance = centred.square().sum(1, keepdim=True) / n_real
    return centred / (variance + VARIANCE_FLOOR).sqrt()


# --- From frames of sound to rows of the scanner ---


NO_ROW = -1


def pool_per_tr(
    states: Tensor, frame_mask: Tensor, frame_times_s: Tensor, bin_edges_s: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean of the real frames whose time falls in each row.

    A frame on an edge belongs to the row that begins there. Computed in fp32 whatever the precision of training.

    Parameters
    ----------
    states : Tensor of shape (batch, n_frames, hidden_size)
    frame_mask : bool Tensor of shape (batch, n_frames)
        Frames of padding count for nothing, whatever their states hold.
    frame_times_s : Tensor of shape (n_frames,)
        Seconds from the window's first sample.
    bin_edges_s : Tensor of shape (batch, n_bins + 1)
        Edges of each item's own rows, on the same clock.

    Returns
    -------
    pooled : float32 Tensor of shape (batch, n_bins, hidden_size)
        0 in rows without a real frame.
    heard : bool Tensor of shape (batch, n_bins)
        False in rows without a real frame.
    """
    return mean_of_rows(states, rows_of_frames(frame_mask, frame_times_s, bin_edges_s), bin_edges_s.shape[1] - 1)


def pool_window(states: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of all real frames of each window, as one row.

    Returns
    -------
    pooled : float32 Tensor of shape (batch, 1, hidden_size)
    heard : bool Tensor of shape (batch, 1)
        False where the window has no real frame.
    """
    return mean_of_rows(states, one_row(frame_mask), 1)


def rows_of_frames(frame_mask: Tensor, frame_times_s: Tensor, bin_edges_s: Tensor) -> Tensor:
    """The row in which each real frame falls, int64 (batch, n_frames); NO_ROW for padding and frames outside all rows.

    Parameters are those of pool_per_tr.
    """
    n_bins = bin_edges_s.shape[1] - 1
    times = frame_times_s.to(bin_edges_s.dtype).expand(frame_mask.shape).contiguous()
    rows = torch.searchsorted(bin_edges_s.contiguous(), times, right=True) - 1
    return rows.masked_fill(~frame_mask | (rows >= n_bins), NO_ROW)


def one_row(frame_mask: Tensor) -> Tensor:
    """All real frames in row 0, int64 (batch, n_frames); NO_ROW for padding."""
    return torch.where(frame_mask, 0, NO_ROW)


def mean_of_rows(states: Tensor, rows: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Mean over the frames of each row.

    Parameters
    ----------
    states : Tensor of shape (batch, n_frames, hidden_size)
    rows : int64 Tensor of shape (batch, n_frames)
        The row of each frame, as rows_of_frames or one_row gives it; frames of NO_ROW count for nothing.
    n_rows : int

    Returns
    -------
    pooled : float32 Tensor of shape (batch, n_rows, hidden_size)
        0 in rows without a frame.
    heard : bool Tensor of shape (batch, n_rows)
        False in rows without a frame.
    """
    with torch.autocast(states.device.type, enabled=False):
        belongs = _belongs(rows, n_rows)
        counts = belongs.sum(2)
        pooled = torch.bmm(belongs.float(), _real(states, rows)) / counts.clamp(min=1)[:, :, None]
    return pooled, counts > 0


def max_of_rows(states: Tensor, rows: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Largest value of each feature over the frames of each row; see mean_of_rows."""
    with torch.autocast(states.device.type, enabled=False):
        n_batch, _, hidden_size = states.shape
        real = _real(states, rows)
        largest = real.new_zeros(n_batch, n_rows + 1, hidden_size)  # frames without a row go into one that is dropped
        index = _dropped_last(rows, n_rows)[:, :, None].expand_as(real)
        largest = largest.scatter_reduce(1, index, real, "amax", include_self=False)
    return largest[:, :n_rows], _belongs(rows, n_rows).any(2)


def end_of_rows(states: Tensor, rows: Tensor, n_rows: int, end: Literal["first", "last"]) -> tuple[Tensor, Tensor]:
    """First or last frame of each row, in the order of the frames; see mean_of_rows.

    With padding left out the last frame is the last of the sound, not of the silence after it.
    """
    n_batch, n_frames = rows.shape
    places = torch.arange(n_frames, device=rows.device).expand(n_batch, n_frames)
    chosen = places.new_zeros(n_batch, n_rows + 1)
    reduction = "amax" if end == "last" else "amin"
    chosen = chosen.scatter_reduce(1, _dropped_last(rows, n_rows), places, reduction, include_self=False)[:, :n_rows]
    heard = _belongs(rows, n_rows).any(2)
    picked = states[torch.arange(n_batch, device=rows.device)[:, None], chosen].float()
    return torch.where(heard[:, :, None], picked, 0.0), heard


def attention_of_rows(states: Tensor, rows: Tensor, n_rows: int, query: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the frames of each row, weighted by the softmax of query . state / sqrt(hidden_size); see mean_of_rows.

    Parameters
    ----------
    query : Tensor of shape (hidden_size,)
        0 gives the mean.
    """
    with torch.autocast(states.device.type, enabled=False):
        real, belongs = _real(states, rows), _belongs(rows, n_rows)
        scores = real @ query.float() / len(query) ** 0.5
        lowest = torch.finfo(scores.dtype).min  # -inf would give nan in rows without frames
        weights = scores[:, None, :].masked_fill(~belongs, lowest).softmax(2).masked_fill(~belongs, 0.0)
        pooled = torch.bmm(weights, real)
    return pooled, belongs.any(2)


def _real(states: Tensor, rows: Tensor) -> Tensor:
    """The states in fp32, 0 where a frame belongs to no row, whatever it holds."""
    return torch.where((rows != NO_ROW)[:, :, None], states.float(), 0.0)


def _belongs(rows: Tensor, n_rows: int) -> Tensor:
    """Which frames belong to which row, bool (batch, n_rows, n_frames)."""
    return rows[:, None, :] == torch.arange(n_rows, device=rows.device)[None, :, None]


def _dropped_last(rows: Tensor, n_rows: int) -> Tensor:
    """Rows as an index into n_rows + 1 of them, the last for frames without a row."""
    return torch.where(rows == NO_ROW, n_rows, rows)
