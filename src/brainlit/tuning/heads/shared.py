"""Heads for subjects in a common space: one map for all, with or without a deviation for each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from brainlit.tuning.heads.base import Head
from brainlit.tuning.heads.checks import common_size
from brainlit.tuning.heads.config import HeadConfig
from brainlit.tuning.pooling import Over


class SharedHead(Head):
    """One linear map for all subjects (arXiv 2510.21520, section 3), computed once however many they are.

    Parameters are those of LinearHead.

    Raises
    ------
    ValueError
        If the subjects have different numbers of targets.
    """

    def __init__(
        self, config: HeadConfig, hidden_size: int, target_sizes: Mapping[str, int], over: Over, seed: int = 0
    ) -> None:
        super().__init__(config, hidden_size, target_sizes, over)
        self.linear = self._map_of_rows(common_size(target_sizes), torch.Generator().manual_seed(seed))

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """The same responses for all subjects."""
        return dict.fromkeys(self.target_sizes, self.linear(rows))


class SharedLowRankHead(Head):
    """One linear map W for all subjects plus a deviation of low rank for each, W + U_s V_s.

    U_s is 0 at the start, so it begins as the shared head of the same seed, and what no subject needs alone is learned
    by W from all of them. Parameters are those of LinearHead.

    Raises
    ------
    ValueError
        If the subjects have different numbers of targets.
    """

    def __init__(
        self, config: HeadConfig, hidden_size: int, target_sizes: Mapping[str, int], over: Over, seed: int = 0
    ) -> None:
        super().__init__(config, hidden_size, target_sizes, over)
        n_targets, generator = common_size(target_sizes), torch.Generator().manual_seed(seed)
        self.linear = self._map_of_rows(n_targets, generator)
        self.narrow = self._map_of_rows(len(target_sizes) * config.rank, generator, bias=False)
        self.widen = nn.Parameter(torch.zeros(len(target_sizes), n_targets, config.rank))

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """What is common to all subjects plus what is each one's own."""
        n_subjects, _, rank = self.widen.shape
        narrow = self.narrow(rows).unflatten(2, (n_subjects, rank))
        own = torch.einsum("btsr,svr->sbtv", narrow, self.widen)
        common = self.linear(rows)
        return {subject: common + deviation for subject, deviation in zip(self.target_sizes, own, strict=True)}
