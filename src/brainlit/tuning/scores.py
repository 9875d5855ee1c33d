"""Correlation per voxel, batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningCorrelation:
    """Pearson's r of each column over rows that arrive in batches, in fp64.

    Parameters
    ----------
    n_targets : int
        Columns.
    device : torch.device
        Of the rows that will come.
    """

    def __init__(self, n_targets: int, device: torch.device) -> None:
        self.sums = torch.zeros(6, n_targets, dtype=torch.float64, device=device)

    def update(self, predicted: Tensor, observed: Tensor, mask: Tensor) -> None:
        """Add rows: predicted and observed (batch, n_trs, n_targets), mask bool (batch, n_trs)."""
        p, y = predicted[mask].double(), observed[mask].double()
        self.sums += torch.stack([torch.ones_like(p), p, y, p * p, y * y, p * y]).sum(1)

    def r(self) -> Tensor:
        """Correlation per column, shape (n_targets,); NaN where a column does not vary or no row came."""
        n, p, y, pp, yy, py = self.sums
        covariance = n * py - p * y
        variances = (n * pp - p * p) * (n * yy - y * y)
        return torch.where(variances > 0, covariance / variances.clamp(min=1e-300).sqrt(), torch.nan)
