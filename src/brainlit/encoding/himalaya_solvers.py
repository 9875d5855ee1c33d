"""himalaya's own solvers behind our interface: the reference that every other solver is compared with.

himalaya and torch keep global settings, which are borrowed here and given back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch

from brainlit.encoding.arrays import Array, FloatArray, IntArray, refuse_not_finite
from brainlit.encoding.config import Precision, SolverConfig, check_alphas
from brainlit.encoding.decompositions import checked_eigh
from brainlit.encoding.search import LOOK, Fold, RidgeSearch
from brainlit.encoding.target_batches import TargetBatches


@contextmanager
def himalaya_backend(name: str = "torch") -> Iterator[ModuleType]:
    """Use one of himalaya's backends ('numpy', 'torch', 'torch_cuda') inside the block.

    The backend is global state of himalaya: whatever was set before is set again afterwards, also when the block
    raises, so that a probe never changes what the caller's own himalaya code does. Its products are exact ones.

    Raises
    ------
    ValueError
        If himalaya does not know the backend.
    """
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    try:
        with exact_products():
            yield set_backend(name)
    finally:
        set_backend(before)


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply float32 matrices in float32 inside the block, also where training lets torch round them to less.

    `torch.set_float32_matmul_precision("medium")` is good advice for a network; a Gram matrix that is rounded to eight
    bits has lost its small eigenvalues.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _RandomSearch(RidgeSearch):
    """One call of a random search of himalaya per gamma.

    Parameters are those of EigenSearch; float32 runs on himalaya's torch backend, float64 on numpy, both on its CUDA
    backend where the device is one. memory_gb bounds what himalaya predicts at once, not its kernels and products.
    """

    def __init__(
        self, Xs: Sequence[Array], Y: Array, folds: Sequence[Fold], alphas: Sequence[float], solver: SolverConfig
    ) -> None:
        self.alphas = check_alphas(alphas)
        self._backend = backend_name(solver.precision, solver.device)
        self._Xs = [np.asarray(X, dtype=solver.precision) for X in Xs]
        self._Y = np.asarray(Y, dtype=solver.precision)
        self._cv = [(fold.train, fold.held_out) for fold in folds]
        self._batches = TargetBatches(solver)
        largest = max(fold.held_out.size for fold in folds)
        self._bytes_per_target = float((2 * self.alphas.size * largest + 3 * len(self._Y)) * self._Y.itemsize)

    @abstractmethod
    def _solve(self, backend: ModuleType, gamma: FloatArray, Y: Any, **options: Any) -> tuple[Any, Any]:
        """Deltas (n_bands_used, n_targets) and scores (1, n_targets) of himalaya's search over one gamma."""

    def cv_scores(self, gamma: FloatArray, targets: IntArray | None = None) -> tuple[FloatArray, IntArray]:
        """See RidgeSearch."""
        size = self._batches.size(self._bytes_per_target)
        while True:
            try:
                return self._scored(gamma, self._Y if targets is None else self._Y[:, targets], size)
            except torch.cuda.OutOfMemoryError as error:
                size = self._batches.halve(min(size, self._Y.shape[1]), error)

    def _shrunk(self, backend: ModuleType, gram: Any, products: Any, alphas: FloatArray) -> Array:
        """(gram + alpha)^-1 products, one alpha per column."""
        eigenvalues, U = (backend.asarray(part) for part in checked_eigh(torch.as_tensor(gram)))
        eigenvalues[eigenvalues < 0] = 0
        alpha = backend.asarray(np.asarray(alphas, dtype=self._Y.dtype))
        return np.asarray(backend.to_numpy(U @ (U.T @ products / (eigenvalues[:, None] + alpha))))

    def _scored(self, gamma: FloatArray, Y: Array, size: int) -> tuple[FloatArray, IntArray]:
        with himalaya_backend(self._backend) as backend:
            deltas, scores = self._solve(
                backend,
                np.asarray(gamma, dtype=Y.dtype),
                backend.asarray(Y),
                alphas=backend.asarray(self.alphas.astype(Y.dtype)),
                cv=self._cv,
                n_targets_batch=size,
                progress_bar=False,
            )
            deltas, scores = (np.asarray(backend.to_numpy(found), dtype=np.float64) for found in (deltas, scores))
        refuse_not_finite(scores, "himalaya's scores", LOOK)
        # himalaya returns deltas = log(gamma / alpha): any band with a weight tells the alpha of the grid
        share = np.flatnonzero(gamma)[0]
        found = np.log(gamma[share]) - deltas[0]
        return scores[0], np.argmin(np.abs(found[:, None] - np.log(self.alphas)), axis=1)


class HimalayaSearch(_RandomSearch):
    """Multiple-kernel ridge by `himalaya.kernel_ridge`, one call of its random search per gamma.

    Its cost is that of kernels of n_rows x n_rows, whatever the number of features.
    """

    name = "himalaya"

    @cached_property
    def _kernels(self) -> Any:
        with himalaya_backend(self._backend) as backend:
            bands = [backend.asarray(X) for X in self._Xs]
            return backend.stack([X @ X.T for X in bands])

    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """See RidgeSearch.

        The closed form for the kernel of this gamma. himalaya's `solve_kernel_ridge_eigenvalues` gives the same, but
        with one alpha per target it forms a matrix of n_rows x n_rows for every target.
        """
        with himalaya_backend(self._backend) as backend:
            shares = backend.asarray(np.asarray(gamma, dtype=self._Y.dtype))
            kernel = (shares[:, None, None] * self._kernels).sum(0)
            dual = self._shrunk(backend, kernel, backend.asarray(self._Y[:, targets]), alphas)
        return [(X.T @ dual) * X.dtype.type(share) for share, X in zip(gamma, self._Xs, strict=True)]

    def _solve(self, backend: ModuleType, gamma: FloatArray, Y: Any, **options: Any) -> tuple[Any, Any]:
        from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

        used = np.flatnonzero(gamma)
        deltas, _, scores = solve_multiple_kernel_ridge_random_search(
            self._kernels[used], Y, n_iter=backend.asarray(gamma[None, used]), return_weights=None, **options
        )
        return deltas, scores


class HimalayaGroupSearch(_RandomSearch):
    """Group ridge by `himalaya.ridge`, one call of its random search per gamma: the form for few features.

    Each fold has a singular value decomposition.
    """

    name = "himalaya_group"

    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """See RidgeSearch; the closed form for this gamma."""
        with himalaya_backend(self._backend) as backend:
            scaled = [X * X.dtype.type(np.sqrt(share)) for X, share in zip(self._Xs, gamma, strict=True)]
            F = backend.asarray(np.concatenate(scaled, axis=1))
            whole = self._shrunk(backend, F.T @ F, F.T @ backend.asarray(self._Y[:, targets]), alphas)
        parts = np.split(whole, np.cumsum([X.shape[1] for X in self._Xs])[:-1])
        return [part * part.dtype.type(np.sqrt(share)) for part, share in zip(parts, gamma, strict=True)]

    def _solve(self, backend: ModuleType, gamma: FloatArray, Y: Any, **options: Any) -> tuple[Any, Any]:
        from himalaya.ridge import solve_group_ridge_random_search

        used = np.flatnonzero(gamma)
        deltas, _, scores = solve_group_ridge_random_search(
            [backend.asarray(self._Xs[band]) for band in used],
            Y,
            n_iter=backend.asarray(gamma[None, used]),
            return_weights=False,
            warn=False,
            **options,
        )
        return deltas, scores


def backend_name(precision: Precision, device: str) -> str:
    """himalaya's backend for a precision and a torch device."""
    if device.startswith("cuda"):
        return "torch_cuda"
    return "torch" if precision == "float32" else "numpy"
