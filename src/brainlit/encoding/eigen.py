"""Cross-validation of one gamma from eigendecompositions: what the primal and the kernel search have in common.

With K = sum_b gamma_b X_b X_b' = V diag(lam) V', V orthonormal, ridge smooths the responses by H_a = V diag(lam /
(lam + a)) V'. There are two ways to the held-out errors of a fold that does not train on the rows S:

- 'refit': decompose the training rows of the fold and predict its held-out rows. One decomposition per fold.
- 'leave out': the errors on S of the fit without S are (I - H_a,SS)^-1 (y - H_a y)_S, the block form of the
  leave-one-out identity of linear smoothers (Golub, Heath and Wahba 1979, doi:10.1080/00401706.1979.10489751). One
  decomposition for all folds, but for each fold and alpha a system of |S| equations and a product of |S|^2 x targets.

The second is taken where it costs fewer operations, that is for not too many targets, and where the inverse is safe:
its norm says by how much rounding grows, and a fold where that is too much is refitted. Both give the same numbers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from brainlit.encoding.arrays import Array, FloatArray, IntArray
from brainlit.encoding.config import SolverConfig, check_alphas
from brainlit.encoding.decompositions import checked_eigh
from brainlit.encoding.himalaya_solvers import exact_products
from brainlit.encoding.search import Fold, LossSearch, best_alphas
from brainlit.encoding.target_batches import TargetBatches, Targets

RUN_DECADES = 0.25
"""Width of a run of eigenvalues. Wider ones need more vectors, narrower ones more mixing; measured from 0.25 to 3."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Dropped part of a prediction, in standard deviations of the response: below the rounding of what it is added to."""
RANK_TOLERANCE = 10.0
"""Eigenvalues below this many roundings of the largest are noise, and count as 0."""
GROWTH = 1e-4
"""Largest error, in the units of the responses, that rounding may grow to in the leave-out form."""
EIGH_FLOPS = {"cpu": 13.0, "cuda": 300.0}
"""An eigendecomposition of size d takes as long as a product of this number times d^3 operations.

Measured on a CPU (11 to 14 for d from 1,000 to 2,400); an estimate for a GPU."""
INVERSE_FLOPS = 4.0
"""The same for a Cholesky inverse (measured: 3.0 to 3.4 on a CPU, from d = 600)."""
TERMS = 3.0
"""Products over all eigenvalues that the filters of all alphas take; see `filter_basis`."""
Rows = torch.Tensor | slice
"""Rows as torch takes them."""
DECOMPOSITIONS_SHARE = 0.25
"""Part of the spare memory in which decompositions of all rows are kept for the last fit."""

# --- All alphas of a ridge at once: the shrinkage of every alpha from a few functions of the eigenvalues ---
#
# A held-out prediction is L diag(f_a) Z, with L (rows x R), Z (R x targets) and f_a(lam) = 1 / (lam + a) or
# lam / (lam + a), once per alpha. These functions are smooth in log(lam): on a quarter of a decade two or three of them
# span all alphas of any grid. So the eigenvalues are cut into runs, the matrix (alphas x eigenvalues) of each run is
# replaced by its leading singular vectors, and the products over R are done once per vector instead of once per alpha.
# With 15 alphas that is 2 to 3 products instead of 15, or instead of the 10 that are left when eigenvalues far below
# alpha are cut off, which this does as well: a run that no alpha lets through gets no vector.
#
# The error is known beforehand: each column is weighted by how large it can become in a prediction, and what is
# dropped adds up to less than `tolerance` of a response's standard deviation.


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


def filter_basis(filters: FloatArray, eigenvalues: Array, weight: Array, tolerance: float) -> FilterBasis:
    """Fewest basis vectors per run that reproduce filters * weight to a sum of squares of tolerance squared.

    Parameters
    ----------
    filters : array of shape (n_alphas, R)
    eigenvalues : increasing positive numbers, (R,)
    weight : array of shape (R,)
        Positive: size in a prediction of a direction whose filter is 1, in standard deviations of the response.
    """
    # a run ends where the eigenvalues cross into the next quarter of a decade; they come in increasing order
    decade = np.floor(np.log10(np.asarray(eigenvalues, dtype=np.float64)) / RUN_DECADES)
    edges = [*np.flatnonzero(np.diff(decade, prepend=-np.inf)), len(decade)]
    runs = [slice(int(a), int(b)) for a, b in pairwise(edges)]
    found = [np.linalg.svd(filters[:, run] * weight[run], full_matrices=False) for run in runs]
    # one limit for all runs, since it is their errors together that must stay below the tolerance
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
        parts[-1] = responses  # with the last column of mix, -1: the product below is prediction minus response
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

    def n_numbers(self) -> int:
        """Numbers that `residuals` holds for a target, its result and its squares included."""
        return (self._mix.shape[1] + 2 * self._mix.shape[0]) * len(self._left)

    def _scaled(self, run: slice, vectors: torch.Tensor) -> torch.Tensor:
        """Columns of a run times each basis vector, one below the other: (n_terms * n_rows, n_eigenvalues)."""
        return (self._left[None, :, run] * vectors[:, None, :]).reshape(-1, vectors.shape[1])


# --- The search ---


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of a Gram matrix, increasing and none of them noise, and eigenvectors, (size, n_eigenvalues)."""

    eigenvalues: torch.Tensor
    vectors: torch.Tensor

    @classmethod
    def of(cls, gram: torch.Tensor) -> Spectrum:
        """Decompose (see `checked_eigh`); eigenvalues that rounding made up are left out."""
        eigenvalues, vectors = checked_eigh(gram)
        noise = RANK_TOLERANCE * torch.finfo(gram.dtype).eps * float(eigenvalues[-1]) if len(eigenvalues) else 0.0
        first = int((eigenvalues <= max(noise, 0.0)).sum())
        return cls(eigenvalues[first:], vectors[:, first:])

    def shrink(self, alphas: FloatArray) -> FloatArray:
        """1 / (eigenvalue + alpha), (n_alphas, n_eigenvalues)."""
        return np.asarray(1.0 / (self.values() + alphas[:, None]))

    def values(self) -> FloatArray:
        """Eigenvalues as numpy's."""
        return np.asarray(self.eigenvalues.cpu().numpy(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Smoother:
    """All rows decomposed: V (given for any rows), V'Y of the asked targets, and the filters lam / (lam + alpha)."""

    left: Callable[[Rows], torch.Tensor]
    coefficients: torch.Tensor
    basis: FilterBasis


class EigenSearch(LossSearch):
    """Ridge search by decompositions in some space; subclasses say how that space is made.

    Parameters
    ----------
    Xs : sequence of arrays of shape (n_rows, n_features_b)
        Delayed, zero-mean bands of the rows fitted on.
    Y : array of shape (n_rows, n_targets)
        Zero-mean responses; not copied if it has the precision and is on the device.
    folds : sequence of Fold
    alphas : increasing positive numbers
    solver : SolverConfig
    """

    @exact_products()
    def __init__(
        self, Xs: Sequence[Array], Y: Array, folds: Sequence[Fold], alphas: Sequence[float], solver: SolverConfig
    ) -> None:
        self.alphas = check_alphas(alphas)
        self._dtype = getattr(torch, solver.precision)
        self._device = solver.device
        self._Y = self._tensor(Y)
        self._n_rows, self._n_targets = self._Y.shape
        self._folds = [_FoldRows.of(fold, self._n_rows, solver.device) for fold in folds]
        self._batches = TargetBatches(solver)
        self._kept: OrderedDict[bytes, Spectrum] = OrderedDict()
        self._open(Xs)
        self._room = DECOMPOSITIONS_SHARE * self._batches.spare_bytes
        self._batches.hold(self._room, "the decompositions")

    @abstractmethod
    def _open(self, Xs: Sequence[Array]) -> None:
        """Form the products of the bands that every gamma needs, and `_hold` them."""

    @abstractmethod
    def _decompose(self, gamma: FloatArray) -> Spectrum:
        """Of all rows."""

    @abstractmethod
    def _left(self, gamma: FloatArray, spectrum: Spectrum, rows: Rows) -> torch.Tensor:
        """Rows of V, (n_rows, R)."""

    @abstractmethod
    def _project(self, gamma: FloatArray, spectrum: Spectrum) -> Callable[[Targets], torch.Tensor]:
        """V'Y of any columns."""

    @abstractmethod
    def _refit(self, gamma: FloatArray, k: int) -> tuple[Spectrum, torch.Tensor, Callable[[Targets], torch.Tensor]]:
        """Spectrum of the rows that fold k trains on; L and Z: its held-out rows are predicted by L diag(f) Z."""

    @abstractmethod
    def _sizes(self, gamma: FloatArray) -> tuple[int, list[int]]:
        """Sizes of the decompositions: of all rows, and of each fold."""

    def cv_scores(self, gamma: FloatArray, targets: IntArray | None = None) -> tuple[FloatArray, IntArray]:
        """See RidgeSearch."""
        return best_alphas(self.cv_losses(gamma, targets), self.alphas)

    @exact_products()
    def cv_losses(self, gamma: FloatArray, targets: IntArray | None = None) -> FloatArray:
        """See LossSearch."""
        n_asked = self._n_targets if targets is None else len(targets)
        smoother = self._smoother(gamma, targets) if self._leaving_out_pays(gamma, n_asked) else None
        loss = np.zeros((len(self.alphas), n_asked))
        for k in range(len(self._folds)):
            left_out = None if smoother is None else self._leave_out(k, smoother, targets)
            loss += self._refit_fold(gamma, k, targets) if left_out is None else left_out
        return loss / len(self._folds)

    def spectrum(self, gamma: FloatArray) -> Spectrum:
        """Decomposition of all rows, remembered as far as memory allows: the last fit asks again for the search's."""
        key = np.asarray(gamma, dtype=np.float64).tobytes()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._kept[key] = self._decompose(gamma)
        while len(self._kept) > 1 and sum(kept.vectors.nbytes for kept in self._kept.values()) > self._room:
            self._kept.popitem(last=False)
        return found

    def _tensor(self, values: Array) -> torch.Tensor:
        """The array on the device, without a copy where dtype and place are the array's own."""
        readable = np.ascontiguousarray(values) if min(values.strides, default=0) < 0 else values
        return torch.as_tensor(readable, dtype=self._dtype, device=self._device)

    def _hold(self, n_numbers: int, size: int, unit: str) -> None:
        """Take matrices from the memory budget, and what scoring needs for decompositions of a size."""
        largest = max(fold.n_untrained for fold in self._folds)
        scoring = (TERMS + 2.0) * largest * size
        self._batches.hold((n_numbers + scoring) * self._Y.element_size(), f"the search over {size} {unit}")

    def _leaving_out_pays(self, gamma: FloatArray, n_asked: int) -> bool:
        """Whether the leave-out form costs fewer operations than decomposing each fold, and fits into memory.

        Only what differs is counted: decompositions and products with their vectors on one side; smoothers of the
        untrained rows, their inverses and products with those on the other.
        """
        eigh = EIGH_FLOPS.get(self._Y.device.type, EIGH_FLOPS["cuda"])
        whole, parts = self._sizes(gamma)
        refit = sum(eigh * size**3 + 2 * size**2 * n_asked for size in parts)
        leave_out = eigh * whole**3 + 2 * whole**2 * n_asked
        for fold in self._folds:
            n = fold.n_untrained
            per_alpha = INVERSE_FLOPS * n**3 + 2 * n * fold.n_held_out * n_asked
            leave_out += 2 * TERMS * n**2 * whole + len(self.alphas) * per_alpha
        largest = max(fold.n_untrained for fold in self._folds)
        numbers = whole * n_asked + 3 * len(self.alphas) * largest**2
        return leave_out < refit and numbers * self._Y.element_size() < 0.5 * self._batches.spare_bytes

    def _smoother(self, gamma: FloatArray, targets: IntArray | None) -> Smoother:
        spectrum = self.spectrum(gamma)
        per_target = 2.0 * self._Y.element_size() * max(self._sizes(gamma)[0], 1)
        coefficients = self._batches.run(self._n_targets, per_target, self._project(gamma, spectrum), targets)
        # V is orthonormal: the smoother is V diag(lam / (lam + a)) V', and an entry of V is about 1 / sqrt(n_rows)
        filters = spectrum.values() * spectrum.shrink(self.alphas)
        weight = np.full(filters.shape[1], self._n_rows**-0.5)
        basis = filter_basis(filters, spectrum.values(), weight, TOLERANCE[self._dtype])
        return Smoother(partial(self._left, gamma, spectrum), coefficients, basis)

    def _leave_out(self, k: int, smoother: Smoother, targets: IntArray | None) -> FloatArray | None:
        """Held-out mean squared errors, (n_alphas, n_targets), of a fit without some rows; None if not safe."""
        fold = self._folds[k]
        rows = HeldOutRows(smoother.left(fold.untrained), smoother.basis)
        inverse = _safe_inverse(rows.smoother())
        if inverse is None:
            return None
        # with S the rows left out and e the residuals of the fit on all rows, a fit without S errs on S by
        # (I - H_SS)^-1 e_S, exactly and for every alpha: no fold is decomposed
        # purged rows are left out of the fit like held-out ones: the inverse is over both, only held-out errors count
        inverse = inverse[:, fold.held_out_of_untrained]
        order = None if targets is None else _positions(targets, self._n_targets, self._Y.device)

        def work(batch: Targets) -> torch.Tensor:
            own = batch if order is None else order[batch]
            residuals = rows.residuals(smoother.coefficients[:, own], cut_out(self._Y, fold.untrained, batch))
            return _mean_square(inverse @ residuals)

        return self._losses(2 * rows.n_numbers(), work, targets)

    def _refit_fold(self, gamma: FloatArray, k: int, targets: IntArray | None) -> FloatArray:
        """Held-out mean squared errors, (n_alphas, n_targets), from a decomposition of the training rows."""
        spectrum, left, project = self._refit(gamma, k)
        held_out = self._folds[k].held_out
        typical = self._typical_coefficient(spectrum)
        size = left.square().mean(dim=0).sqrt().cpu().numpy().astype(np.float64)
        weight = np.maximum(size * typical, np.finfo(np.float32).tiny)
        basis = filter_basis(spectrum.shrink(self.alphas), spectrum.values(), weight, TOLERANCE[self._dtype])
        rows = HeldOutRows(left, basis)

        def work(batch: Targets) -> torch.Tensor:
            return _mean_square(rows.residuals(project(batch), cut_out(self._Y, held_out, batch)))

        n_numbers = rows.n_numbers() + 2 * left.shape[1] + self._n_rows
        return self._losses(n_numbers, work, targets)

    def _alpha_of_each(self, alphas: FloatArray, targets: IntArray) -> torch.Tensor:
        """Alphas at the places of their targets, (n_targets,); 1 elsewhere."""
        whole = np.ones(self._n_targets)
        whole[targets] = alphas
        return self._tensor(whole)

    def _typical_coefficient(self, spectrum: Spectrum) -> FloatArray:
        """Size of a row of Z for responses that are noise of unit variance, (R,)."""
        return np.ones(len(spectrum.eigenvalues))

    def _losses(
        self, n_numbers: float, work: Callable[[Targets], torch.Tensor], targets: IntArray | None
    ) -> FloatArray:
        per_target = float(n_numbers * self._Y.element_size())
        found = self._batches.run(self._n_targets, per_target, work, targets)
        return np.asarray(found.cpu().numpy(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _FoldRows:
    """Rows of a fold as torch takes them: ranges where they follow each other, so that nothing is copied."""

    train: Rows
    held_out: Rows
    untrained: Rows
    held_out_of_untrained: Rows
    n_train: int
    n_held_out: int
    n_untrained: int

    @classmethod
    def of(cls, fold: Fold, n_rows: int, device: str) -> _FoldRows:
        out = np.ones(n_rows, dtype=bool)
        out[fold.train] = False
        untrained = np.flatnonzero(out)
        return cls(
            train=_as_range(fold.train, device),
            held_out=_as_range(fold.held_out, device),
            untrained=_as_range(untrained, device),
            held_out_of_untrained=_as_range(np.searchsorted(untrained, fold.held_out), device),
            n_train=fold.train.size,
            n_held_out=fold.held_out.size,
            n_untrained=untrained.size,
        )


def _as_range(rows: IntArray, device: str) -> Rows:
    if rows.size and rows[-1] - rows[0] + 1 == rows.size and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return torch.from_numpy(rows).to(device)


def _positions(targets: IntArray, n_targets: int, device: torch.device) -> torch.Tensor:
    """Where each column stands among the asked ones."""
    order = torch.zeros(n_targets, dtype=torch.int64, device=device)
    order[torch.from_numpy(np.ascontiguousarray(targets)).to(device)] = torch.arange(len(targets), device=device)
    return order


def _safe_inverse(smoother: torch.Tensor) -> torch.Tensor | None:
    """(I - H)^-1 of every alpha; None where rounding would grow beyond GROWTH, or an I - H is not positive."""
    left_over = smoother.neg_()
    left_over.diagonal(dim1=1, dim2=2).add_(1.0)
    factor, failed = torch.linalg.cholesky_ex(left_over)
    if bool(failed.any()):
        return None
    inverse = torch.cholesky_inverse(factor)
    norm = float(inverse.abs().sum(dim=1).max())
    return inverse if norm * torch.finfo(inverse.dtype).eps < GROWTH else None


def cut_out(Y: torch.Tensor, rows: Rows, targets: Targets) -> torch.Tensor:
    """Some rows of some targets. A range is cut out without a copy, and first: then the other copies less."""
    return Y[rows][:, targets] if isinstance(rows, slice) else Y[:, targets][rows]


def _mean_square(residuals: torch.Tensor) -> torch.Tensor:
    """Over rows: (n_alphas, n_rows, n_targets) -> (n_alphas, n_targets)."""
    return residuals.square_().mean(dim=1)
