"""Our own two searches; their answers are himalaya's for the same gammas, folds and alphas.

**Primal**, in feature space: the products of features and responses are formed once, folds are taken off. With F the
bands side by side, G = F'F and B = F'Y. A fold that does not train on the rows S has G - F_S'F_S and B - F_S'Y_S, so no
product over the long axis is repeated. For one gamma, scale the columns of band b by sqrt(gamma_b) and let U diag(lam)
U' be the scaled Gram matrix of a fold: the held-out rows are predicted by F U diag(1 / (lam + alpha)) U'B, for all
alphas at once (`filter_basis`); or all folds are had from the decomposition of G (see `eigen`). No weights are formed
before the last fit. Memory: F, a Gram matrix per fold, and as many of the n_folds + 1 products B, each n_features x
n_targets, as fit into most of memory_gb; the others are formed again in each batch.

**Kernel**, in the space of rows, for more features than rows: K = sum_b gamma_b X_b X_b' from one Gram matrix per band.
A fold decomposes the block of its training rows, or all folds are had from the decomposition of K. Weights are formed
once, for the last fit; himalaya fits all rows again for each gamma. Memory: a matrix of n_rows x n_rows per band, and
some to work in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from itertools import pairwise

import numpy as np
import torch

from brainlit.encoding.arrays import Array, FloatArray, IntArray
from brainlit.encoding.eigen import EigenSearch, Rows, Spectrum, cut_out
from brainlit.encoding.himalaya_solvers import exact_products
from brainlit.encoding.target_batches import TargetBatches, Targets

PRODUCTS_SHARE = 0.85
"""Part of the spare memory that products of features and responses may take."""
FORMED_AT_ONCE = 4096
"""Targets whose products are formed at once."""
ALL_ROWS = -1
"""Stands for all rows where the number of a fold is asked."""
PRIMAL_WORK_MATRICES = 6
"""Gram matrices' worth of memory that a decomposition works in, its result included."""
KERNEL_WORK_MATRICES = 7
"""The same in kernels, the mixed kernel included."""
Parts = Sequence[tuple[slice, torch.Tensor]]
"""Columns of F and a matrix with as many rows, per band."""


class PrimalSearch(EigenSearch):
    """Banded ridge for any gamma from products that are formed once; see the module's text."""

    name = "primal"

    def _open(self, Xs: Sequence[Array]) -> None:
        edges = np.cumsum([0, *(X.shape[1] for X in Xs)])
        self._bands = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        self._F = torch.empty((self._n_rows, int(edges[-1])), dtype=self._dtype, device=self._device)
        for own, X in zip(self._bands, Xs, strict=True):
            self._F[:, own] = self._tensor(X)
        self._gram = self._F.T @ self._F
        untrained = [fold.untrained for fold in self._folds]
        # F'F is a sum over rows, so a fold's is that of all rows less that of the few rows it does not train on
        self._grams = [self._gram - self._F[rows].T @ self._F[rows] for rows in untrained]
        matrices = self._F.numel() + (1 + len(untrained) + PRIMAL_WORK_MATRICES) * self._gram.numel()
        self._hold(matrices, int(edges[-1]), "features")
        self._cross = CrossProducts(self._F, self._Y, untrained, self._batches)

    @exact_products()
    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """See RidgeSearch."""
        spectrum = self.spectrum(gamma)
        project, parts = self._project(gamma, spectrum), self._normalised(gamma, spectrum)
        eigenvalues = spectrum.eigenvalues[:, None]
        grid = self._alpha_of_each(alphas, targets)

        def work(batch: Targets) -> torch.Tensor:
            shrunk = project(batch) * (eigenvalues / (eigenvalues + grid[batch]))
            whole = shrunk.new_zeros((self._F.shape[1], shrunk.shape[1]))
            for own, part in parts:
                whole[own] = part @ shrunk
            return whole

        per_target = 4.0 * self._F.shape[1] * self._F.element_size()
        found = self._batches.run(self._n_targets, per_target, work, targets)
        return [found[own].cpu().numpy() for own in self._bands]

    def _sizes(self, gamma: FloatArray) -> tuple[int, list[int]]:
        size = sum(own.stop - own.start for own, _, _ in self._used(gamma))
        return size, [size] * len(self._folds)

    def _decompose(self, gamma: FloatArray) -> Spectrum:
        return self._scaled_spectrum(gamma, self._gram)

    def _left(self, gamma: FloatArray, spectrum: Spectrum, rows: torch.Tensor | slice) -> torch.Tensor:
        return self._features_times(rows, self._normalised(gamma, spectrum))

    def _project(self, gamma: FloatArray, spectrum: Spectrum) -> Callable[[Targets], torch.Tensor]:
        return partial(self._times_cross, self._normalised(gamma, spectrum), ALL_ROWS)

    def _refit(self, gamma: FloatArray, k: int) -> tuple[Spectrum, torch.Tensor, Callable[[Targets], torch.Tensor]]:
        spectrum = self._scaled_spectrum(gamma, self._grams[k])
        parts = self._scaled(gamma, spectrum.vectors)
        left = self._features_times(self._folds[k].held_out, parts)
        return spectrum, left, partial(self._times_cross, parts, k)

    def _typical_coefficient(self, spectrum: Spectrum) -> FloatArray:
        return np.sqrt(spectrum.values())

    def _used(self, gamma: FloatArray) -> list[tuple[slice, slice, float]]:
        """Of each band with a weight: its columns in F, its columns among those used, and sqrt(gamma)."""
        used, start = [], 0
        for own, share in zip(self._bands, gamma, strict=True):
            if share > 0:
                stop = start + own.stop - own.start
                used.append((own, slice(start, stop), float(np.sqrt(share))))
                start = stop
        return used

    def _scaled_spectrum(self, gamma: FloatArray, gram: torch.Tensor) -> Spectrum:
        """Decomposition of the Gram matrix of the scaled columns of the bands with a weight."""
        used = self._used(gamma)
        # block (a, b) of the scaled Gram matrix is that of the plain one times sqrt(gamma_a gamma_b): F is not scaled
        rows = [torch.cat([gram[a, b] * (s * t) for b, _, t in used], dim=1) for a, _, s in used]
        return Spectrum.of(torch.cat(rows))

    def _scaled(self, gamma: FloatArray, vectors: torch.Tensor) -> list[tuple[slice, torch.Tensor]]:
        """Vectors in the space of the scaled columns, as maps from each band's own columns."""
        return [(own, vectors[among] * scale) for own, among, scale in self._used(gamma)]

    def _normalised(self, gamma: FloatArray, spectrum: Spectrum) -> list[tuple[slice, torch.Tensor]]:
        """Maps from columns to the orthonormal V of all rows."""
        # F_scaled = V diag(sqrt(lam)) U', so V = F_scaled U / sqrt(lam)
        return self._scaled(gamma, spectrum.vectors / spectrum.eigenvalues.sqrt())

    def _features_times(self, rows: Rows, parts: Parts) -> torch.Tensor:
        F = self._F[rows]
        return sum_of(F[:, own] @ part for own, part in parts)

    def _times_cross(self, parts: Parts, k: int, batch: Targets) -> torch.Tensor:
        return sum_of(part.T @ self._cross.of(k, own, batch) for own, part in parts)


class CrossProducts:
    """Products of features and responses of all rows and of each fold's training rows.

    Parameters
    ----------
    F, Y : tensors of shape (n_rows, n_features) and (n_rows, n_targets)
    untrained : sequence of rows
        Of each fold.
    batches : TargetBatches
        Products are kept as long as there is room, and otherwise formed anew for each batch.
    """

    def __init__(self, F: torch.Tensor, Y: torch.Tensor, untrained: Sequence[Rows], batches: TargetBatches) -> None:
        self._F, self._Y, self._untrained = F, Y, untrained
        self._stored: dict[int, torch.Tensor] = {}
        n_bytes = F.shape[1] * Y.shape[1] * F.element_size()
        n_fitting = int(PRODUCTS_SHARE * batches.spare_bytes // max(1, n_bytes))
        for k in list(range(ALL_ROWS, len(untrained)))[:n_fitting]:
            self._stored[k] = self._form(k)
            batches.hold(n_bytes, "the products of features and responses")

    def of(self, k: int, columns: slice, batch: Targets) -> torch.Tensor:
        """F'Y of some features and targets, (n_columns, n_batch): ALL_ROWS, or the rows that fold k trains on."""
        if k in self._stored:
            return self._stored[k][columns, batch]
        if k == ALL_ROWS:
            return self._F[:, columns].T @ self._Y[:, batch]
        # those of all rows less those of the rows that the fold does not train on
        rows = self._untrained[k]
        return torch.addmm(
            self.of(ALL_ROWS, columns, batch), self._F[rows][:, columns].T, cut_out(self._Y, rows, batch), alpha=-1.0
        )

    def _form(self, k: int) -> torch.Tensor:
        whole = self._F.new_empty((self._F.shape[1], self._Y.shape[1]))
        for start in range(0, self._Y.shape[1], FORMED_AT_ONCE):
            batch = slice(start, start + FORMED_AT_ONCE)
            whole[:, batch] = self.of(k, slice(None), batch)
        return whole


def sum_of(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum, in one tensor."""
    return reduce(torch.Tensor.add_, tensors)


class KernelSearch(EigenSearch):
    """Banded ridge for any gamma from one kernel per band; see the module's text."""

    name = "kernel"

    def _open(self, Xs: Sequence[Array]) -> None:
        self._Xs = [self._tensor(X) for X in Xs]
        self._kernels = [X @ X.T for X in self._Xs]
        matrices = (len(Xs) + KERNEL_WORK_MATRICES) * self._n_rows**2
        self._hold(matrices, self._n_rows, "rows")

    @exact_products()
    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """See RidgeSearch."""
        spectrum = self.spectrum(gamma)
        eigenvalues = spectrum.eigenvalues[:, None]
        grid = self._alpha_of_each(alphas, targets)

        def work(batch: Targets) -> torch.Tensor:
            return spectrum.vectors @ (spectrum.vectors.T @ self._Y[:, batch] / (eigenvalues + grid[batch]))

        dual = self._batches.run(self._n_targets, 4.0 * self._n_rows * self._Y.element_size(), work, targets)
        # the kernel holds gamma_b X_b X_b', so a band's primal weights are gamma_b X_b' times the dual ones
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
        # the fold's own kernel is the block of its training rows; held-out rows meet it through theirs with these
        kernel, fold = self._mixed(gamma), self._folds[k]
        trained = kernel[:, fold.train]
        spectrum = Spectrum.of(trained[fold.train])
        left = trained[fold.held_out] @ spectrum.vectors
        return spectrum, left, lambda batch: spectrum.vectors.T @ cut_out(self._Y, fold.train, batch)
