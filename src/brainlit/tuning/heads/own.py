"""Heads for subjects whose voxels need not correspond: a map of its own for each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from brainlit.tuning.heads.base import Head, initial_map
from brainlit.tuning.heads.config import HeadConfig
from brainlit.tuning.pooling import Over


class LinearHead(Head):
    """One linear map per subject (a head per subject); the maps of all subjects are one matrix.

    Parameters
    ----------
    config : HeadConfig
    hidden_size : int
    target_sizes : mapping of subject to int
    over : str
        As for Head.
    seed : int
        Of the initial weights; the global random state is not used.
    """

    def __init__(
        self, config: HeadConfig, hidden_size: int, target_sizes: Mapping[str, int], over: Over, seed: int = 0
    ) -> None:
        super().__init__(config, hidden_size, target_sizes, over)
        self.linear = self._map_of_rows(sum(target_sizes.values()), torch.Generator().manual_seed(seed))

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """Responses of all subjects from one product."""
        return split_subjects(self.linear(rows), self.target_sizes)


class BottleneckHead(Head):
    """`rank` features common to all subjects, then one linear map per subject (arXiv 2502.08866).

    All that is predicted passes through the few features, and a voxel costs rank weights instead of hidden_size.
    Parameters are those of LinearHead.
    """

    def __init__(
        self, config: HeadConfig, hidden_size: int, target_sizes: Mapping[str, int], over: Over, seed: int = 0
    ) -> None:
        super().__init__(config, hidden_size, target_sizes, over)
        generator = torch.Generator().manual_seed(seed)
        self.narrow = self._map_of_rows(config.rank, generator, gain=math.sqrt(3), bias=False)
        self.linear = initial_map(config.rank, sum(target_sizes.values()), generator)

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """Responses of all subjects from two products."""
        return split_subjects(self.linear(self.narrow(rows)), self.target_sizes)


def split_subjects(predicted: Tensor, target_sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The columns of each subject, who follow one another in the order of target_sizes."""
    return dict(zip(target_sizes, torch.split(predicted, list(target_sizes.values()), dim=2), strict=True))
