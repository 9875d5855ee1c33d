"""From the frames of a window to the rows that a head reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from brainlit.backbones.frames import attention_of_rows, end_of_rows, max_of_rows, mean_of_rows, one_row, rows_of_frames
from brainlit.tuning.settings import check_choice

Over = Literal["tr", "window"]
How = Literal["mean", "max", "last", "attention", "first"]


@dataclass(frozen=True)
class PoolingConfig:
    """How the frames of sound become the rows that the head reads. Only frames that hear real sound are pooled.

    Parameters
    ----------
    over : str
        tr pools the frames of each scanner row and lets the head carry the haemodynamic delays (windows of many rows,
        each frame encoded about once); window pools all frames of a window to predict its one row, as in the paper
        (windows of 1 row with 8 s of sound before it).
    how : str
        mean of the frames; max of each feature; last or first frame; attention is a mean whose weights are the softmax
        of a learned query's products with the frames, and begins as the mean. Probes always use the mean.
    """

    over: Over = "tr"
    how: How = "mean"

    def __post_init__(self) -> None:
        check_choice("pooling over", self.over, Over)
        check_choice("pooling how", self.how, How)


class Pooling(nn.Module):
    """Pools the frames of each row; see PoolingConfig. It has parameters only for attention.

    Parameters
    ----------
    config : PoolingConfig
    hidden_size : int
    """

    def __init__(self, config: PoolingConfig, hidden_size: int) -> None:
        super().__init__()
        self.over, self.how = config.over, config.how
        if self.how == "attention":
            self.query = nn.Parameter(torch.zeros(hidden_size))

    def forward(
        self, states: Tensor, frame_mask: Tensor, frame_times_s: Tensor, bin_edges_s: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pooled states, in fp32 whatever the precision of training.

        Parameters
        ----------
        states : Tensor of shape (batch, n_frames, hidden_size)
        frame_mask : bool Tensor of shape (batch, n_frames)
            Frames of padding count for nothing, whatever their states hold.
        frame_times_s : Tensor of shape (n_frames,)
            Rising seconds from the window's first sample.
        bin_edges_s : Tensor of shape (batch, n_bins + 1)
            Edges of each item's own rows, on the same clock; a frame on an edge belongs to the row that begins there.

        Returns
        -------
        pooled : float32 Tensor of shape (batch, n_bins, hidden_size), or (batch, 1, hidden_size) for window
            0 in rows without a real frame.
        heard : bool Tensor of shape (batch, n_bins) or (batch, 1)
            False in rows without a real frame.
        """
        if self.over == "window":
            return self._pool(states, one_row(frame_mask), 1)
        return self._pool(states, rows_of_frames(frame_mask, frame_times_s, bin_edges_s), bin_edges_s.shape[1] - 1)

    def _pool(self, states: Tensor, rows: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        match self.how:
            case "mean":
                return mean_of_rows(states, rows, n_rows)
            case "max":
                return max_of_rows(states, rows, n_rows)
            case "attention":
                return attention_of_rows(states, rows, n_rows, self.query)
            case end:
                return end_of_rows(states, rows, n_rows, end)


def build_pooling(config: PoolingConfig, hidden_size: int, seed: int = 0) -> Pooling:
    """A pooling with fresh weights.

    Parameters
    ----------
    seed : int
        Of random initial weights, as for heads; attention, the only pooling that learns, starts at 0 for every seed.
    """
    return Pooling(config, hidden_size)
