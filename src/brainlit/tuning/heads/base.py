"""What all heads share: standardise, drop out, look back; each adds a map of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from brainlit.tuning.heads.config import HeadConfig
from brainlit.tuning.heads.delays import delayed_rows, initial_delay_weights
from brainlit.tuning.pooling import Over

SMALLEST_SD = 1e-6


class Head(nn.Module, ABC):
    """Responses of every subject as a linear function of the pooled states of one window.

    In order: standardise by a fixed mean and sd, dropout, look back at the given delays, and map to each subject's
    voxels. Rows without sound count as the mean state, 0 after standardising.

    Parameters
    ----------
    config : HeadConfig
    hidden_size : int
    target_sizes : mapping of subject to int
        Voxels to predict for each subject.
    over : str
        What is pooled over: tr looks back; window does not (one row in, one row out).

    Attributes
    ----------
    target_sizes : dict of subject to int
    delays_trs : tuple of int, or None
        How many rows back the head looks; None for window.
    """

    pool_mean: Tensor
    pool_sd: Tensor
    delay_weights: Tensor

    def __init__(self, config: HeadConfig, hidden_size: int, target_sizes: Mapping[str, int], over: Over) -> None:
        super().__init__()
        if not target_sizes or min(target_sizes.values()) < 1:
            raise ValueError(
                f"target sizes are {dict(target_sizes)}; each subject needs at least one voxel. Check the subjects and"
                " the voxel selection of the data."
            )
        self.hidden_size, self.target_sizes = hidden_size, dict(target_sizes)
        self.delays_trs = config.delays_trs if over == "tr" else None
        self.fir = self.delays_trs is not None and config.delays == "fir"
        self.dropout = nn.Dropout(config.dropout)
        if self.delays_trs is not None and config.delays == "mix":
            self.delay_weights = nn.Parameter(initial_delay_weights(self.delays_trs))
        elif self.delays_trs is not None and config.delays == "fixed":
            self.register_buffer("delay_weights", initial_delay_weights(self.delays_trs))
        self.register_buffer("pool_mean", torch.zeros(hidden_size))
        self.register_buffer("pool_sd", torch.ones(hidden_size))

    @abstractmethod
    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """The map: rows of shape (batch, n_trs, hidden_size), or n_delays times as wide for fir, to responses."""

    def set_standardisation(self, mean: Tensor, sd: Tensor) -> None:
        """Fix the mean and sd, each of shape (hidden_size,); features that do not vary are only centred."""
        self.pool_mean.copy_(mean)
        self.pool_sd.copy_(torch.where(sd > SMALLEST_SD, sd, torch.ones_like(sd)))

    def forward(self, pooled: Tensor, heard: Tensor, n_trs: int) -> dict[str, Tensor]:
        """Predictions for the last n_trs rows of each window.

        Parameters
        ----------
        pooled : float32 Tensor of shape (batch, n_bins, hidden_size)
            n_bins - n_trs rows of context come first.
        heard : bool Tensor of shape (batch, n_bins)
            False in rows without sound.

        Returns
        -------
        dict of subject to Tensor of shape (batch, n_trs, n_targets)
            Subjects who share a map may share the tensor: do not change it in place.

        Raises
        ------
        ValueError
            If a delay reaches back beyond the context.
        """
        standard = ((pooled - self.pool_mean) / self.pool_sd).masked_fill(~heard[:, :, None], 0.0)
        return self.predict(self._look_back(self.dropout(standard), n_trs))

    def _look_back(self, rows: Tensor, n_trs: int) -> Tensor:
        """sum_d weight_d x row (t - d), or all rows t - d side by side for fir."""
        if self.delays_trs is None:
            return rows
        delayed = delayed_rows(rows, self.delays_trs, n_trs)
        if self.fir:
            return torch.cat(delayed, dim=2)
        return torch.einsum("d,dbth->bth", self.delay_weights.to(rows.dtype), torch.stack(delayed))

    def _map_of_rows(
        self, n_outputs: int, generator: torch.Generator, gain: float = 1.0, bias: bool = True
    ) -> nn.Linear:
        """A linear map of the rows that `predict` is given; for fir it begins as the mix of the delayed rows does."""
        once = initial_map(self.hidden_size, n_outputs, generator, gain, bias)
        return side_by_side(once, initial_delay_weights(self.delays_trs or ())) if self.fir else once


def initial_map(
    n_inputs: int, n_outputs: int, generator: torch.Generator, gain: float = 1.0, bias: bool = True
) -> nn.Linear:
    """A linear map with weights uniform in +-gain / sqrt(n_inputs) and a bias of 0.

    A gain of sqrt(3) keeps the variance of independent inputs, 1 makes it a third.
    """
    linear = nn.utils.skip_init(nn.Linear, n_inputs, n_outputs, bias=bias)  # type: ignore[no-untyped-call]
    bound = gain / math.sqrt(n_inputs)
    nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear  # type: ignore[no-any-return]


def side_by_side(once: nn.Linear, shares: Tensor) -> nn.Linear:
    """A map of as many delayed rows side by side as there are shares, each by its share of one and the same map."""
    n_inputs, bias = once.in_features * len(shares), once.bias is not None
    linear = nn.utils.skip_init(nn.Linear, n_inputs, once.out_features, bias=bias)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for block, share in zip(linear.weight.split(once.in_features, dim=1), shares, strict=True):
            torch.mul(once.weight, share, out=block)
        if bias:
            linear.bias.copy_(once.bias)
    return linear  # type: ignore[no-any-return]
