"""Targets in batches: as many at once as memory allows, half as many after the device ran out of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

from brainlit.encoding.arrays import IntArray
from brainlit.encoding.config import SolverConfig

log = logging.getLogger(__name__)

Targets = slice | torch.Tensor
"""Columns of the responses: a range, or indices."""
SMALLEST_BATCH = 128
"""Targets that are taken at once even where the budget has no room for them: smaller products run slowly."""
CPU_BATCH = 128
"""A processor loses with larger batches, whose products leave its caches."""


class TargetBatches:
    """Runs work on batches of targets within a budget.

    Parameters
    ----------
    solver : SolverConfig
        Its n_targets_batch, memory_gb and device are used.
    """

    def __init__(self, solver: SolverConfig) -> None:
        self.budget_bytes = solver.memory_gb * 1e9
        self.held_bytes = 0.0
        self._most: float = solver.n_targets_batch or np.inf
        self._fixed = solver.n_targets_batch is not None
        self._device = torch.device(solver.device)

    @property
    def spare_bytes(self) -> float:
        """What is left of the budget, never negative."""
        return max(0.0, self.budget_bytes - self.held_bytes)

    def hold(self, n_bytes: float, what: str) -> None:
        """Take from the budget what stays in memory between batches; say so once it is more than there is."""
        before = self.spare_bytes
        self.held_bytes += n_bytes
        if before > 0 and self.spare_bytes == 0:
            log.warning(
                "%s takes %.1f GB, memory_gb is %.1f. The search goes on with small batches; raise memory_gb, or lower"
                " keep_variance for fewer features.",
                what,
                self.held_bytes / 1e9,
                self.budget_bytes / 1e9,
            )

    def size(self, bytes_per_target: float) -> int:
        """Targets that are taken at once if each needs so many bytes."""
        if self._fixed:
            return int(self._most)
        fitting = max(SMALLEST_BATCH, self.spare_bytes // max(1.0, bytes_per_target))
        most = CPU_BATCH if self._device.type == "cpu" else np.inf
        return int(min(fitting, most, self._most, 2**31))

    def run(
        self,
        n_targets: int,
        bytes_per_target: float,
        work: Callable[[Targets], torch.Tensor],
        targets: IntArray | None = None,
    ) -> torch.Tensor:
        """Results of the work on all batches side by side, (..., n_targets).

        Parameters
        ----------
        n_targets : int
            Columns of the responses.
        work : callable
            From the columns of a batch to a tensor of shape (..., n_batch).
        targets : int array, optional
            Only these columns, in this order.

        Raises
        ------
        torch.cuda.OutOfMemoryError
            If not even one target fits.
        """
        indices = None if targets is None else torch.from_numpy(np.ascontiguousarray(targets)).to(self._device)
        n_asked = n_targets if indices is None else len(indices)
        whole: torch.Tensor | None = None
        start = 0
        while start < n_asked or whole is None:
            size = self.size(bytes_per_target)
            stop = min(start + size, n_asked)
            try:
                part = work(slice(start, stop) if indices is None else indices[start:stop])
                if whole is None:
                    whole = part.new_empty((*part.shape[:-1], n_asked))
                whole[..., start:stop] = part
                start = stop
                continue
            except torch.cuda.OutOfMemoryError as error:
                self.halve(stop - start, error)
            torch.cuda.empty_cache()
        return whole

    def halve(self, size: int, error: torch.cuda.OutOfMemoryError) -> int:
        """Take half as many targets from now on and say so; the new number.

        Raises
        ------
        torch.cuda.OutOfMemoryError
            If it was one target already.
        """
        if size <= 1:
            raise torch.cuda.OutOfMemoryError(
                f"{self._device} has no memory for the search of one target. Free the device (a model that is being"
                " trained on it?), lower keep_variance for fewer features, or search on the CPU with device 'cpu'."
            ) from error
        self._most, self._fixed = max(1, size // 2), True
        log.warning("%s ran out of memory with %d targets at once; going on with %d.", self._device, size, self._most)
        return int(self._most)
