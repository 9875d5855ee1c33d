"""himalaya's own solvers behind our door: the reference that every other solver is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainlit.encoding.backend import himalaya_backend
from brainlit.encoding.folds import Fold
from brainlit.encoding.groups import Array, FloatArray, IntArray
from brainlit.encoding.search import Precision, check_alphas


class HimalayaSearch:
    """Multiple-kernel ridge by `himalaya.kernel_ridge`, one call of its random search per gamma.

    Its cost is that of kernels of n_rows x n_rows, whatever the number of features: the form for more features than
    rows. Parameters are those of PrimalSearch; float32 runs on himalaya's torch backend, float64 on numpy.
    """

    name = "himalaya"

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
    ) -> None:
        self.alphas = check_alphas(alphas)
        self._backend = backend_name(precision, device)
        self._Xs = [np.asarray(X, dtype=precision) for X in Xs]
        self._Y = np.asarray(Y, dtype=precision)
        self._cv = [(fold.train, fold.held_out) for fold in folds]
        self._batch = n_targets_batch
        with himalaya_backend(self._backend) as backend:
            bands = [backend.asarray(X) for X in self._Xs]
            self._kernels = backend.stack([X @ X.T for X in bands])

    def cv_scores(self, gamma: FloatArray, targets: IntArray | None = None) -> tuple[FloatArray, IntArray]:
        """Best score over alphas and the index of that alpha, of the asked targets (all by default)."""
        from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

        used = np.flatnonzero(gamma)
        with himalaya_backend(self._backend) as backend:
            _, _, scores, alphas = solve_multiple_kernel_ridge_random_search(
                self._kernels[used],
                backend.asarray(self._Y if targets is None else self._Y[:, targets]),
                n_iter=backend.asarray(np.asarray(gamma, dtype=self._Y.dtype)[None, used]),
                alphas=backend.asarray(self.alphas.astype(self._Y.dtype)),
                cv=self._cv,
                return_weights=None,
                return_alphas=True,
                n_targets_batch=self._batch,
                progress_bar=False,
            )
            found = np.asarray(backend.to_numpy(alphas), dtype=np.float64)
            index = np.argmin(np.abs(np.log(found)[:, None] - np.log(self.alphas)), axis=1)
            return np.asarray(backend.to_numpy(scores)[0], dtype=np.float64), index

    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """Primal weights per band, each (n_features, len(targets)), fitted on all rows with one alpha per target.

        The closed form for the kernel of this gamma. himalaya's `solve_kernel_ridge_eigenvalues` gives the same, but
        with one alpha per target it forms a matrix of n_rows x n_rows for every target.
        """
        with himalaya_backend(self._backend) as backend:
            shares = backend.asarray(np.asarray(gamma, dtype=self._Y.dtype))
            eigenvalues, U = backend.eigh((shares[:, None, None] * self._kernels).sum(0))
            eigenvalues[eigenvalues < 0] = 0
            Z = U.T @ backend.asarray(self._Y[:, targets])
            alpha = backend.asarray(np.asarray(alphas, dtype=self._Y.dtype))
            dual = backend.to_numpy(U @ (Z / (eigenvalues[:, None] + alpha)))
        return [(X.T @ dual) * X.dtype.type(share) for share, X in zip(gamma, self._Xs, strict=True)]


def backend_name(precision: Precision, device: str) -> str:
    """himalaya's backend for a precision and a torch device."""
    if device.startswith("cuda"):
        return "torch_cuda"
    return "torch" if precision == "float32" else "numpy"
