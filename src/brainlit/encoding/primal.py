"""Our own search, in feature space: the products of features and responses are formed once, folds are taken off.

With F the bands side by side, G = F'F and B = F'Y. A fold that trains on all rows but R has G - F_R'F_R and
B - F_R'Y_R, so no product over the long axis is repeated. For one gamma, scale the columns of band b by sqrt(gamma_b)
and let U diag(lam) U' be the scaled Gram matrix of a fold, Z = U'B, and Q = F_S U the held-out rows. The predictions
for alpha are Q diag(1 / (lam + alpha)) Z, and

    SSE = |y|^2 - 2 sum_r (Q'y)_r z_r / (lam_r + alpha) + |prediction|^2,

whose middle term is one product of matrices for all alphas. No weights are formed before the last fit. The answer is
himalaya's for the same gammas, folds and alphas, to rounding.

Memory: n_folds x n_features x n_targets numbers are held; n_targets_batch bounds what comes on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from brainlit.encoding.folds import Fold
from brainlit.encoding.groups import Array, FloatArray, IntArray
from brainlit.encoding.search import Precision, best_alphas, check_alphas


class _FoldProducts:
    """Products of one fold: training Gram and cross-product by down-dating, held-out rows as they are."""

    def __init__(self, F: torch.Tensor, Y: torch.Tensor, gram: torch.Tensor, cross: torch.Tensor, fold: Fold) -> None:
        untrained = np.ones(len(F), dtype=bool)
        untrained[fold.train] = False
        rows = torch.from_numpy(np.flatnonzero(untrained)).to(F.device)
        F_out, Y_out = F[rows], Y[rows]
        self.gram = gram - F_out.T @ F_out
        self.cross = cross - F_out.T @ Y_out
        held_out = torch.from_numpy(fold.held_out).to(F.device)
        self.F, self.Y = F[held_out], Y[held_out]


class PrimalSearch:
    """Banded ridge for any gamma from products that are formed once; see the module's text.

    Parameters
    ----------
    Xs : sequence of arrays of shape (n_rows, n_features_b)
        Delayed, zero-mean bands of the rows fitted on.
    Y : array of shape (n_rows, n_targets)
        Zero-mean responses.
    folds : sequence of Fold
    alphas : increasing positive numbers
    precision : 'float32' or 'float64'
    device : str
        Any torch device.
    n_targets_batch : int, optional
        Targets that are scored at once; all of them by default.
    """

    name = "primal"

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
        dtype = getattr(torch, precision)
        self.alphas = check_alphas(alphas)
        self._sizes = [X.shape[1] for X in Xs]
        F = torch.cat([torch.as_tensor(np.ascontiguousarray(X), dtype=dtype, device=device) for X in Xs], dim=1)
        targets = torch.as_tensor(np.ascontiguousarray(Y), dtype=dtype, device=device)
        self._batch = n_targets_batch or max(1, targets.shape[1])
        self._gram, self._cross = F.T @ F, F.T @ targets
        self._folds = [_FoldProducts(F, targets, self._gram, self._cross, fold) for fold in folds]

    def cv_scores(self, gamma: FloatArray, targets: IntArray | None = None) -> tuple[FloatArray, IntArray]:
        """Best score over alphas and the index of that alpha, of the asked targets (all by default)."""
        columns, scale = self._support(gamma)
        asked = np.arange(self._cross.shape[1]) if targets is None else targets
        loss = sum(self._fold_loss(fold, columns, scale, asked) for fold in self._folds) / len(self._folds)
        return best_alphas(np.asarray(loss), self.alphas)

    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """Primal weights per band, each (n_features, len(targets)), fitted on all rows with one alpha per target."""
        columns, scale = self._support(gamma)
        chosen = torch.from_numpy(targets).to(scale.device)
        eigenvalues, U = _decompose(self._gram, columns, scale)
        Z = U.T @ (scale[:, None] * self._cross[columns][:, chosen])
        shrunk = Z / (eigenvalues[:, None] + torch.as_tensor(alphas, dtype=Z.dtype, device=Z.device))
        whole = torch.zeros((sum(self._sizes), len(targets)), dtype=Z.dtype, device=Z.device)
        whole[columns] = scale[:, None] * (U @ shrunk)
        return [part.cpu().numpy() for part in torch.split(whole, self._sizes)]

    def _support(self, gamma: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Columns of the bands with a weight, and sqrt(gamma) of each of them."""
        scale = np.repeat(np.sqrt(np.asarray(gamma, dtype=np.float64)), self._sizes)
        columns = np.flatnonzero(scale)
        device, dtype = self._gram.device, self._gram.dtype
        return torch.from_numpy(columns).to(device), torch.as_tensor(scale[columns], dtype=dtype, device=device)

    def _fold_loss(
        self, fold: _FoldProducts, columns: torch.Tensor, scale: torch.Tensor, asked: IntArray
    ) -> FloatArray:
        """Held-out mean squared error, (n_alphas, len(asked))."""
        eigenvalues, U = _decompose(fold.gram, columns, scale)
        Q = (fold.F[:, columns] * scale) @ U
        alphas = torch.as_tensor(self.alphas, dtype=Q.dtype, device=Q.device)
        shrink = 1.0 / (eigenvalues + alphas[:, None])
        projection = U.T * scale
        losses = []
        for batch in self._batches(asked.size):
            targets = torch.from_numpy(asked[batch]).to(scale.device)
            Y = fold.Y[:, targets]
            Z = projection @ fold.cross[:, targets][columns]
            losses.append(_sse(Q, Y, Z, shrink) / len(Y))
        return np.asarray(torch.cat(losses, dim=1).cpu().numpy(), dtype=np.float64)

    def _batches(self, n_targets: int) -> Iterator[slice]:
        for start in range(0, n_targets, self._batch):
            yield slice(start, start + self._batch)


def _decompose(gram: torch.Tensor, columns: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (never negative, increasing) and eigenvectors of the scaled Gram matrix of some columns."""
    scaled = gram[columns][:, columns] * (scale[:, None] * scale)
    eigenvalues, U = torch.linalg.eigh(scaled)
    return eigenvalues.clamp_(min=0.0), U


def _sse(Q: torch.Tensor, Y: torch.Tensor, Z: torch.Tensor, shrink: torch.Tensor) -> torch.Tensor:
    """Sum of squared errors of the predictions Q diag(shrink) Z for every row of shrink: (n_alphas, n_targets)."""
    sse = Y.square().sum(dim=0) - 2.0 * shrink @ ((Q.T @ Y) * Z)
    for k, weights in enumerate(shrink):
        sse[k] += (Q @ (weights[:, None] * Z)).square().sum(dim=0)
    return sse
