"""From frames of sound to rows of the scanner."""

from __future__ import annotations

import torch
from torch import Tensor


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
    n_batch, n_frames, _ = states.shape
    n_bins = bin_edges_s.shape[1] - 1
    times = frame_times_s.to(bin_edges_s.dtype).expand(n_batch, n_frames).contiguous()
    rows = torch.searchsorted(bin_edges_s.contiguous(), times, right=True) - 1
    rows = rows.masked_fill(~frame_mask, -1)
    belongs = rows[:, None, :] == torch.arange(n_bins, device=rows.device)[None, :, None]
    return _masked_mean(states, frame_mask, belongs)


def pool_window(states: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of all real frames of each window, as one row.

    Returns
    -------
    pooled : float32 Tensor of shape (batch, 1, hidden_size)
    heard : bool Tensor of shape (batch, 1)
        False where the window has no real frame.
    """
    return _masked_mean(states, frame_mask, frame_mask[:, None, :])


def _masked_mean(states: Tensor, frame_mask: Tensor, belongs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the frames that belong to each bin; belongs is bool (batch, n_bins, n_frames)."""
    with torch.autocast(states.device.type, enabled=False):
        counts = belongs.sum(2)
        real = torch.where(frame_mask[:, :, None], states.float(), 0.0)
        pooled = torch.bmm(belongs.float(), real) / counts.clamp(min=1)[:, :, None]
    return pooled, counts > 0
