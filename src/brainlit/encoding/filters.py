"""All alphas of a ridge at once: the shrinkage of every alpha from a few functions of the eigenvalues.

A held-out prediction is L diag(f_a) Z, with L (rows x R), Z (R x targets) and f_a(lam) = 1 / (lam + a) or
lam / (lam + a), once per alpha. These functions are smooth in log(lam): on a quarter of a decade two or three of them
span all alphas of any grid. So the eigenvalues are cut into runs, the matrix (alphas x eigenvalues) of each run is
replaced by its leading singular vectors, and the products over R are done once per vector instead of once per alpha.
With 15 alphas that is 2 to 3 products instead of 15, or instead of the 10 that are left when eigenvalues far below
alpha are cut off, which this does as well: a run that no alpha lets through gets no vector.

The error is known beforehand: each column is weighted by how large it can become in a prediction, and what is
dropped adds up to less than `tolerance` of a response's standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from brainlit.encoding.groups import Array, FloatArray

RUN_DECADES = 0.25
"""Width of a run of eigenvalues. Wider ones need more vectors, narrower ones more mixing; measured from 0.25 to 3."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Dropped part of a prediction, in standard deviations of the response: below the rounding of what it is added to."""


@dataclass(frozen=True, eq=False)
class FilterBasis:
    """Filters of shape (n_alphas, R) as mix @ basis, the basis vectors being 0 outside their run.

    Parameters
    ----------
    mix : array of shape (n_alphas, n_terms)
    runs : sequence of (slice, array of shape (n_terms_of_run, n_eigenvalues_of_run))
        Terms follow each other in the order of the runs.
    """

    mix: FloatArray
    runs: Sequence[tuple[slice, FloatArray]]

    @property
    def n_terms(self) -> int:
        """Number of basis vectors."""
        return int(self.mix.shape[1])

    def dense(self, n_eigenvalues: int) -> FloatArray:
        """The filters themselves, (n_alphas, n_eigenvalues)."""
        basis = np.zeros((self.n_terms, n_eigenvalues))
        start = 0
        for own, vectors in self.runs:
            basis[start : start + len(vectors), own] = vectors
            start += len(vectors)
        return np.asarray(self.mix @ basis)


def filter_basis(filters: FloatArray, eigenvalues: Array, weight: Array, tolerance: float) -> FilterBasis:
    """Fewest basis vectors per run that reproduce filters * weight to a sum of squares of tolerance squared.

    Parameters
    ----------
    filters : array of shape (n_alphas, R)
    eigenvalues : increasing positive numbers, (R,)
    weight : array of shape (R,)
        Positive: size in a prediction of a direction whose filter is 1, in standard deviations of the response.
    """
    decade = np.floor(np.log10(np.asarray(eigenvalues, dtype=np.float64)) / RUN_DECADES)
    edges = [*np.flatnonzero(np.diff(decade, prepend=-np.inf)), len(decade)]
    runs = [slice(int(a), int(b)) for a, b in pairwise(edges)]
    found = [np.linalg.svd(filters[:, run] * weight[run], full_matrices=False) for run in runs]
    limit = _cut([sizes for _, sizes, _ in found], tolerance)
    mixes, kept = [np.zeros((len(filters), 0))], []
    for run, (left, sizes, right) in zip(runs, found, strict=True):
        n_kept = int((sizes > limit).sum())
        if n_kept:
            mixes.append(left[:, :n_kept] * sizes[:n_kept])
            kept.append((run, right[:n_kept] / weight[run]))
    return FilterBasis(np.concatenate(mixes, axis=1), kept)


def _cut(sizes: Sequence[FloatArray], tolerance: float) -> float:
    """The largest singular value that may be dropped, with all smaller ones of all runs."""
    ordered = np.sort(np.concatenate([np.zeros(1), *sizes]))
    return float(ordered[np.cumsum(np.square(ordered)) <= tolerance**2][-1])


class HeldOutRows:
    """Residuals of some rows for all alphas, from coefficients and responses of a batch of targets.

    Parameters
    ----------
    left : tensor of shape (n_rows, R)
    basis : FilterBasis of the R eigenvalues
    """

    def __init__(self, left: torch.Tensor, basis: FilterBasis) -> None:
        self._left, self._basis = left, basis
        self._terms = [(run, self._scaled(run, left.new_tensor(vectors))) for run, vectors in basis.runs]
        mix = np.concatenate([basis.mix, -np.ones((len(basis.mix), 1))], axis=1)
        self._mix = left.new_tensor(mix)

    def residuals(self, coefficients: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
        """Prediction minus response, (n_alphas, n_rows, n_targets).

        Parameters
        ----------
        coefficients : tensor of shape (R, n_targets)
        responses : tensor of shape (n_rows, n_targets)
        """
        n_rows, n_targets = responses.shape
        parts = responses.new_empty((self._mix.shape[1], n_rows, n_targets))
        parts[-1] = responses
        start = 0
        for run, vectors in self._terms:
            stop = start + len(vectors) // n_rows
            torch.mm(vectors, coefficients[run], out=parts[start:stop].flatten(0, 1))
            start = stop
        return (self._mix @ parts.flatten(1)).view(len(self._mix), n_rows, n_targets)

    def smoother(self) -> torch.Tensor:
        """left diag(filter) left' of every alpha, (n_alphas, n_rows, n_rows)."""
        n_rows, start = len(self._left), 0
        whole = self._left.new_zeros((len(self._mix), n_rows * n_rows))
        for run, vectors in self._terms:
            parts = (vectors @ self._left[:, run].T).view(-1, n_rows * n_rows)
            whole.addmm_(self._mix[:, start : start + len(parts)], parts)
            start += len(parts)
        return whole.view(-1, n_rows, n_rows)

    def n_numbers(self, n_targets: int = 1) -> int:
        """Numbers that `residuals` holds for so many targets, its result and its squares included."""
        return (self._mix.shape[1] + 2 * self._mix.shape[0]) * len(self._left) * n_targets

    def _scaled(self, run: slice, vectors: torch.Tensor) -> torch.Tensor:
        """Columns of a run times each basis vector, one below the other: (n_terms * n_rows, n_eigenvalues)."""
        return (self._left[None, :, run] * vectors[:, None, :]).reshape(-1, vectors.shape[1])
