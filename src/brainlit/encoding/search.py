"""The door behind which every ridge solver stands, and the choice of gamma and alpha that is common to them.

For one gamma a solver gives each target's best cross-validated score over all alphas. Scores are himalaya's default:
minus the mean squared error on the held-out rows, averaged over folds. Ties go to the larger alpha and to the earlier
gamma, as in himalaya.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from brainlit.encoding.folds import Fold
from brainlit.encoding.groups import Array, BoolArray, Float32Array, FloatArray, IntArray

SolverName = Literal["auto", "primal", "himalaya"]
Precision = Literal["float32", "float64"]
SOLVERS: tuple[str, ...] = ("auto", "primal", "himalaya")
TIE_SLOPE = 1e-10
"""Added per unit of log(alpha), so that of equal scores the larger alpha wins (himalaya's number)."""


class RidgeSearch(Protocol):
    """Cross-validated ridge on fixed bands, responses, folds and alphas, for any gamma."""

    name: str

    def cv_scores(self, gamma: FloatArray, targets: IntArray | None = None) -> tuple[FloatArray, IntArray]:
        """Best score over alphas and the index of that alpha, of the asked targets (all by default)."""
        ...

    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """Primal weights per band, each (n_features, len(targets)), fitted on all rows with one alpha per target."""
        ...


@dataclass(frozen=True, eq=False)
class SearchTable:
    """What the search found: the pool, and per gamma and target the best score and its alpha.

    Parameters
    ----------
    gammas : array of shape (n_gammas, n_bands)
    scores : array of shape (n_gammas, n_targets)
        Minus the held-out mean squared error.
    alpha_index : int array of shape (n_gammas, n_targets)
    """

    gammas: FloatArray
    scores: FloatArray
    alpha_index: IntArray


@dataclass(frozen=True, eq=False)
class Choice:
    """The gamma and alpha of every target: indices into pool and grid, and the score, each of shape (n_targets,)."""

    gamma_index: IntArray
    alpha_index: IntArray
    cv_scores: FloatArray


def open_search(
    Xs: Sequence[Array],
    Y: Array,
    folds: Sequence[Fold],
    alphas: Sequence[float],
    *,
    solver: SolverName = "auto",
    precision: Precision = "float32",
    device: str = "cpu",
    n_targets_batch: int | None = None,
    memory_gb: float = 4.0,
) -> RidgeSearch:
    """Prepare a solver for the bands Xs, each (n_rows, n_features_b), and the responses Y, (n_rows, n_targets).

    'auto' works in the smaller of two spaces: primal (features) where all bands together have fewer features than the
    smallest training set has rows, himalaya's kernels (rows) otherwise.

    Raises
    ------
    ValueError
        If shapes do not match, alphas are not positive and increasing, or the solver is unknown.
    """
    _check_shapes(Xs, Y)
    check_alphas(alphas)
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}.")
    n_features = sum(X.shape[1] for X in Xs)
    n_train = min(fold.train.size for fold in folds)
    n_targets_batch = n_targets_batch or max(1, int(memory_gb * 2**30 / (8 * (n_features + len(Y)))))
    if solver == "primal" or (solver == "auto" and n_features < n_train):
        from brainlit.encoding.primal import PrimalSearch

        return PrimalSearch(Xs, Y, folds, alphas, precision=precision, device=device, n_targets_batch=n_targets_batch)
    from brainlit.encoding.reference import HimalayaSearch

    return HimalayaSearch(Xs, Y, folds, alphas, precision=precision, device=device, n_targets_batch=n_targets_batch)


def best_alphas(loss: FloatArray, alphas: FloatArray) -> tuple[FloatArray, IntArray]:
    """Score and index of the best alpha from held-out losses of shape (n_alphas, n_targets)."""
    scores = -loss + TIE_SLOPE * np.log(alphas)[:, None]
    index = np.argmax(scores, axis=0)
    return np.take_along_axis(scores, index[None], axis=0)[0], index


def search_pool(search: RidgeSearch, gammas: FloatArray) -> SearchTable:
    """Score every gamma of the pool."""
    found = [search.cv_scores(gamma) for gamma in gammas]
    return SearchTable(gammas, np.stack([scores for scores, _ in found]), np.stack([index for _, index in found]))


def choose(table: SearchTable, allowed: BoolArray | None = None) -> Choice:
    """Best gamma of each target among the allowed rows of the pool (all of them by default)."""
    rows = np.arange(len(table.gammas)) if allowed is None else np.flatnonzero(allowed)
    best = rows[np.argmax(table.scores[rows], axis=0)]
    targets = np.arange(table.scores.shape[1])
    return Choice(best, table.alpha_index[best, targets], table.scores[best, targets])


def refit_weights(search: RidgeSearch, table: SearchTable, choice: Choice, alphas: FloatArray) -> list[Float32Array]:
    """Weights per band, (n_features_b, n_targets), with each target's own gamma and alpha, on all rows."""
    whole: list[Float32Array] = []
    n_targets = choice.gamma_index.size
    for index in np.unique(choice.gamma_index):
        targets = np.flatnonzero(choice.gamma_index == index)
        parts = search.weights(table.gammas[index], alphas[choice.alpha_index[targets]], targets)
        if not whole:
            whole = [np.zeros((part.shape[0], n_targets), dtype=part.dtype) for part in parts]
        for target_weights, part in zip(whole, parts, strict=True):
            target_weights[:, targets] = part
    return whole


def check_alphas(alphas: Sequence[float]) -> FloatArray:
    """The grid as an array; ValueError unless positive and increasing."""
    grid = np.asarray(alphas, dtype=np.float64)
    if grid.ndim != 1 or grid.size == 0 or not (grid > 0).all() or not (np.diff(grid) > 0).all():
        raise ValueError(f"alphas are {grid.tolist()}; need positive numbers in increasing order.")
    return grid


def _check_shapes(Xs: Sequence[Array], Y: Array) -> None:
    shapes = [X.shape for X in Xs]
    if not shapes or Y.ndim != 2 or any(len(shape) != 2 or shape[0] != len(Y) for shape in shapes):
        raise ValueError(f"bands have shapes {shapes} and Y {Y.shape}; need (n_rows, n_features) and (n_rows, n).")
