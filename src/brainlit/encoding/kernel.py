"""Our own search in the space of rows, for more features than rows.

K = sum_b gamma_b X_b X_b' from one Gram matrix per band. A fold decomposes the block of its training rows, or all
folds are had from the decomposition of K (see `eigen`). Weights are formed once, for the last fit. The answer is
himalaya's for the same gammas, folds and alphas; himalaya fits all rows again for each gamma.

Memory: a matrix of n_rows x n_rows per band, and some to work in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from brainlit.encoding.backend import exact_products
from brainlit.encoding.eigen import EigenSearch, Rows, Spectrum, as_tensor
from brainlit.encoding.folds import Fold
from brainlit.encoding.groups import Array, FloatArray, IntArray
from brainlit.encoding.search import DEFAULT_MEMORY_GB, Precision
from brainlit.encoding.target_batches import Targets

WORK_MATRICES = 7
"""Kernels' worth of memory that a decomposition works in, the mixed kernel and its result included."""


class KernelSearch(EigenSearch):
    """Banded ridge for any gamma from one kernel per band; see the module's text.

    Parameters are those of PrimalSearch.
    """

    name = "kernel"

    @exact_products()
    def __init__(
        self,
        Xs: Sequence[Array],
        Y: Array,
        folds: Sequence[Fold],
        alphas: Sequence[float],
        *,
        precision: Precision = "float32",
        device: str = "cpu",
        n_targets_batch: int | None = None,
        memory_gb: float = DEFAULT_MEMORY_GB,
    ) -> None:
        super().__init__(
            Y,
            folds,
            alphas,
            precision=precision,
            device=device,
            n_targets_batch=n_targets_batch,
            memory_gb=memory_gb,
        )
        self._Xs = [as_tensor(X, self._dtype, device) for X in Xs]
        self._kernels = [X @ X.T for X in self._Xs]
        matrices = (len(Xs) + WORK_MATRICES) * self._n_rows**2
        self._hold(matrices, self._n_rows, "rows")
        self._keep_room_for_decompositions()

    @exact_products()
    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """Primal weights per band, each (n_features, len(targets)), fitted on all rows with one alpha per target."""
        spectrum = self.spectrum(gamma)
        eigenvalues = spectrum.eigenvalues[:, None]
        grid = self._alpha_of_each(alphas, targets)

        def work(batch: Targets) -> torch.Tensor:
            return spectrum.vectors @ (spectrum.vectors.T @ self._Y[:, batch] / (eigenvalues + grid[batch]))

        dual = self._batches.run(self._n_targets, 4.0 * self._n_rows * self._Y.element_size(), work, targets)
        return [((X.T @ dual) * float(share)).cpu().numpy() for share, X in zip(gamma, self._Xs, strict=True)]

    def _sizes(self, gamma: FloatArray) -> tuple[int, list[int]]:
        return self._n_rows, [fold.n_train for fold in self._folds]

    def _mixed(self, gamma: FloatArray) -> torch.Tensor:
        whole = torch.zeros_like(self._kernels[0])
        for share, kernel in zip(gamma, self._kernels, strict=True):
            if share > 0:
                whole.add_(kernel, alpha=float(share))
        return whole

    def _decompose(self, gamma: FloatArray) -> Spectrum:
        return Spectrum.of(self._mixed(gamma))

    def _left(self, gamma: FloatArray, spectrum: Spectrum, rows: Rows) -> torch.Tensor:
        return spectrum.vectors[rows]

    def _project(self, gamma: FloatArray, spectrum: Spectrum) -> Callable[[Targets], torch.Tensor]:
        return lambda batch: spectrum.vectors.T @ self._Y[:, batch]

    def _refit(self, gamma: FloatArray, k: int) -> tuple[Spectrum, torch.Tensor, Callable[[Targets], torch.Tensor]]:
        kernel, fold = self._mixed(gamma), self._folds[k]
        trained = kernel[:, fold.train]
        spectrum = Spectrum.of(trained[fold.train])
        left = trained[fold.held_out] @ spectrum.vectors
        return spectrum, left, lambda batch: spectrum.vectors.T @ self._Y[:, batch][fold.train]
