"""The settings of a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import torch

from brainlit.encoding.banded import DEFAULT_ALPHAS
from brainlit.encoding.search import DEFAULT_N_GAMMAS, SOLVERS, Precision, SolverName, check_alphas
from brainlit.hints import did_you_mean


@dataclass(frozen=True)
class SolverConfig:
    """Which solver fits the ridges, and how and where it computes.

    Raises
    ------
    ValueError
        At construction, if a setting makes no sense.
    """

    name: SolverName = "auto"
    """'auto' takes one of ours by the smaller space; `open_search` lists them and the references."""
    precision: Precision = "float32"
    """Of the search and the final weights; scores are always float64."""
    device: str = "cpu"
    """torch device of the solvers: 'cpu' or 'cuda'."""
    n_targets_batch: int | None = None
    """Voxels that are scored at once; None takes as many as fit into memory_gb."""
    memory_gb: float = 4.0
    """What solvers and predictions may hold besides the responses; voxels are taken in batches that fit."""

    def __post_init__(self) -> None:
        for what, value, known in (("solver", self.name, SOLVERS), ("precision", self.precision, get_args(Precision))):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}. {did_you_mean(value, known)}")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            kinds = ("cpu", "cuda", "mps", "xpu")
            raise ValueError(f"unknown device {self.device!r}. {did_you_mean(self.device, kinds)}") from error
        if not self.memory_gb > 0 or (self.n_targets_batch is not None and self.n_targets_batch < 1):
            raise ValueError(
                f"memory_gb is {self.memory_gb} and n_targets_batch {self.n_targets_batch}; both must leave room for a"
                " voxel: give more than 0, or leave n_targets_batch out."
            )


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe delays, cross-validates and solves.

    Raises
    ------
    ValueError
        At construction, if a setting makes no sense.
    """

    delays_trs: tuple[int, ...] = (1, 2, 3, 4)
    """Delays of every feature, in TRs: 2 to 8 s at a TR of 2 s, the rise and fall of the haemodynamic response."""
    alphas: tuple[float, ...] = DEFAULT_ALPHAS
    """Ratios of noise to signal variance that are tried, increasing."""
    n_gammas: Mapping[int, int] = field(default_factory=lambda: dict(DEFAULT_N_GAMMAS))
    """How many mixtures are tried for each set of 1, 2 and 3 bands; larger models may use all of the smaller ones'."""
    n_folds: int = 4
    """Folds of the cross-validation: whole stories where there are enough."""
    purge_trs: int | None = None
    """Rows left out around held-out blocks where there are fewer stories than folds; None: twice the longest delay."""
    skip_trs: int = 5
    """First rows of every group that are neither fitted nor scored (onset transients, incomplete delays)."""
    seed: int = 0
    """Seed of the gammas."""
    solver: SolverConfig = SolverConfig()
    """Which solver fits the ridges, and how and where it computes."""
    keep_variance: float = 0.999
    """Share of a band's variance that the primal solver keeps in its principal components; 1 rotates nothing."""
    low_level_impact: bool = True
    """Whether the three low-level impacts are computed (two more ridges of the backbone)."""
    impact_lags_trs: int = 4
    """k of the impact that regresses out low-level features at lags -k .. k."""
    sub_bands: bool = False
    """Whether bands that come in parts ('low_level/spectral') are also split finer; see `encoding.sub_bands`."""

    def __post_init__(self) -> None:
        check_alphas(self.alphas)
        if not self.delays_trs or len(set(self.delays_trs)) != len(self.delays_trs):
            raise ValueError(f"delays_trs is {self.delays_trs}; need at least one delay, each once.")
        if self.n_folds < 2:
            raise ValueError(f"n_folds is {self.n_folds}; cross-validation needs at least 2.")
        if self.skip_trs < 0 or self.impact_lags_trs < 0 or (self.purge_trs or 0) < 0:
            raise ValueError(
                f"skip_trs {self.skip_trs}, impact_lags_trs {self.impact_lags_trs} and purge_trs {self.purge_trs}"
                " are numbers of rows and not negative."
            )
        if not 0.0 < self.keep_variance <= 1.0:
            raise ValueError(f"keep_variance is {self.keep_variance}; it is a share in (0, 1].")

    @property
    def purge(self) -> int:
        """Rows purged around held-out blocks, with the default filled in."""
        longest = max(abs(delay) for delay in self.delays_trs)
        return 2 * longest if self.purge_trs is None else self.purge_trs
