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
    """Pools the frames of each row; see PoolingConfig. Attention alone has a parameter, which starts at 0.

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
        """Pooled states of each row, or of the whole window as one row, and which rows have a real frame.

        What goes in and comes out as in backbones.frames.pool_per_tr; n_bins is 1 for window.
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
