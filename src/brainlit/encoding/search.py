"""The interface of every ridge solver, and what is common to them: mixtures, folds, the choice of gamma and alpha.

For one gamma a solver gives each target's best cross-validated score over all alphas. Scores are himalaya's default:
minus the mean squared error on the held-out rows, averaged over folds. Ties go to the larger alpha and to the earlier
gamma, as in himalaya.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import (
    Array,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    NotFiniteError,
    group_slices,
    refuse_not_finite,
)
from brainlit.encoding.config import DEFAULT_N_GAMMAS
from brainlit.splits import LeakError

N_CANDIDATES = 512
"""Draws of the simplex from which spread-out mixtures are taken."""
TIE_SLOPE = 1e-10
"""Added per unit of log(alpha), so that of equal scores the larger alpha wins (himalaya's number)."""
LOOK = (
    "look for features or responses that are very large or differ by many powers of ten, or solve in float64"
    " (solver.precision)"
)

# --- Which mixtures of bands are tried: a nested pool of gammas ---
#
# A gamma is a point of the simplex: how the prior variance is shared between the bands (himalaya's word). The pool
# holds points for every non-empty set of bands: its corner for one band, its middle and some more for two or three. A
# model of some bands may use every gamma that lies inside its set, so the pool of a larger model includes that of each
# smaller one: the cross-validated score can only rise from a model to a larger one that holds it.


def gamma_pool(n_bands: int, n_gammas: Mapping[int, int] = DEFAULT_N_GAMMAS, seed: int = 0) -> FloatArray:
    """All gammas of all sets of bands, smaller sets first.

    Inside each set the first gamma shares equally; the others are drawn from the flat Dirichlet distribution, taking
    from many draws the one farthest from those already there, so that a handful covers the simplex. The draws of a
    set depend on the seed and on which bands it holds, not on what other bands there are.

    Parameters
    ----------
    n_gammas : mapping of set size to number of gammas
        One band has one gamma whatever is asked; sizes that are missing get the number of the largest size given.

    Returns
    -------
    array of shape (n_pool, n_bands)
        Rows are not negative and sum to 1.

    >>> gamma_pool(2, {1: 1, 2: 1}).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    if n_bands < 1 or not n_gammas or min(n_gammas.values()) < 1:
        raise ValueError(f"{n_bands} bands with n_gammas {dict(n_gammas)}; need a band and at least one gamma per set.")
    rows = []
    for size in range(1, n_bands + 1):
        wanted = 1 if size == 1 else n_gammas.get(size, n_gammas[max(n_gammas)])
        for members in combinations(range(n_bands), size):
            inside = np.zeros((wanted, n_bands))
            inside[:, members] = _spread_points(size, wanted, [seed, *members])
            rows.append(inside)
    return np.concatenate(rows)


def inside_set(gammas: FloatArray, members: list[int]) -> BoolArray:
    """Which gammas put nothing on bands outside the set, shape (n_pool,)."""
    outside = np.setdiff1d(np.arange(gammas.shape[1]), members)
    return np.asarray((gammas[:, outside] == 0).all(axis=1))


def _spread_points(size: int, wanted: int, seed: list[int]) -> FloatArray:
    draws = np.random.default_rng(seed).dirichlet(np.ones(size), N_CANDIDATES)
    taken = np.concatenate([np.eye(size), np.full((1, size), 1.0 / size)])
    while len(taken) < size + wanted:
        distance = np.linalg.norm(draws[:, None] - taken[None], axis=2).min(axis=1)
        taken = np.concatenate([taken, draws[[int(np.argmax(distance))]]])
    return taken[size : size + wanted]


# --- Folds for choosing alphas and gammas: whole groups, or blocks with a purged border ---


@dataclass(frozen=True, eq=False)
class Fold:
    """Row indices of one fold: fitted on `train`, judged on `held_out`; purged rows are in neither."""

    train: IntArray
    held_out: IntArray


def make_folds(
    groups: npt.ArrayLike, n_folds: int, purge_trs: int = 0, times_trs: npt.ArrayLike | None = None
) -> list[Fold]:
    """Cut the rows into n_folds held-out sets that follow each other in time.

    With at least n_folds groups, each fold holds out whole groups (consecutive ones, about equally many rows). With
    fewer, each fold holds out a contiguous block of rows, and rows of the same group less than `purge_trs` away from
    the block are not trained on either: the response is slow and the noise autocorrelated, so neighbours of a
    held-out row would give its answer away.

    Parameters
    ----------
    groups : int array of shape (n_rows,)
    purge_trs : int
        Smallest distance, in rows of the recording, between a held-out row and a trained one of the same group.
    times_trs : int array of shape (n_rows,), optional
        Row of the recording that each row was; default 0, 1, 2, ... in order.

    Raises
    ------
    ValueError
        If there are fewer than 2 folds, more folds than rows, or purging leaves nothing to train on.
    """
    labels = np.asarray(groups)
    slices = group_slices(labels)
    if n_folds < 2 or n_folds > labels.size:
        raise ValueError(
            f"n_folds is {n_folds} for {labels.size} rows; need at least 2 folds and a row in each."
            " Lower n_folds or fit on more stories."
        )
    times = np.arange(labels.size) if times_trs is None else np.asarray(times_trs)
    if len(slices) >= n_folds:
        edges = _group_edges(slices, n_folds)
        purge_trs = 0
    else:
        edges = [round(k * labels.size / n_folds) for k in range(n_folds + 1)]
    return [_fold(labels, times, a, b, purge_trs) for a, b in pairwise(edges)]


def _group_edges(slices: list[slice], n_folds: int) -> list[int]:
    """First rows of the folds (and the end): the group borders nearest to equal shares, a group at least in each."""
    borders = [rows.stop for rows in slices]
    edges, used = [0], 0
    for k in range(1, n_folds):
        last = len(borders) - (n_folds - k)  # leaves a group for each of the folds that follow
        candidates = range(used, last)
        used = min(candidates, key=lambda g: abs(borders[g] - k * borders[-1] / n_folds)) + 1
        edges.append(borders[used - 1])
    return [*edges, borders[-1]]


def _fold(labels: npt.NDArray[np.int64], times: npt.NDArray[np.int64], start: int, stop: int, purge_trs: int) -> Fold:
    rows = np.arange(labels.size)
    held_out = rows[start:stop]
    # distances count in TRs of the recording, not in rows: rows that were skipped lie between them too
    near = np.zeros(labels.size, dtype=bool)
    for label in np.unique(labels[held_out]):
        same = labels == label
        block = times[held_out][labels[held_out] == label]
        near |= same & (times > block.min() - purge_trs) & (times < block.max() + purge_trs)
    near[start:stop] = True
    train = rows[~near]
    if train.size == 0:
        raise ValueError(
            f"holding out rows {start}..{stop - 1} with a purge of {purge_trs} TRs leaves no row to train on;"
            " fit on more rows, or lower purge_trs or n_folds."
        )
    return Fold(train=train, held_out=held_out)


def refuse_leaking_folds(folds: Sequence[Fold], groups: IntArray, times_trs: IntArray, purge_trs: int) -> None:
    """Refuse folds that hold out a row and train on one of the same group within purge_trs of it.

    Parameters
    ----------
    folds : sequence of Fold
    groups, times_trs : int arrays of shape (n_rows,)
        Group of each row, and where in its group it lies.

    Raises
    ------
    LeakError
    """
    for number, fold in enumerate(folds):
        for group in np.intersect1d(groups[fold.train], groups[fold.held_out]):
            train, held_out = (np.sort(times_trs[rows[groups[rows] == group]]) for rows in (fold.train, fold.held_out))
            # of each trained row, the held-out rows just before and just after it; at the ends one stands for both
            after = np.searchsorted(held_out, train)
            below = train - held_out[np.maximum(after - 1, 0)]
            above = held_out[np.minimum(after, held_out.size - 1)] - train
            gap_trs = int(np.minimum(np.abs(below), np.abs(above)).min())
            if gap_trs < max(purge_trs, 1):
                raise LeakError(
                    f"fold {number} trains on rows of group {group} that are {gap_trs} TRs from rows it holds out; the"
                    f" purge is {purge_trs}. Hold out whole groups, or purge what lies next to the block."
                )


# --- The interface of a solver, and the choice ---


class RidgeSearch(Protocol):
    """Cross-validated ridge on fixed bands, responses, folds and alphas, for any gamma."""

    name: str

    @abstractmethod
    def cv_scores(self, gamma: FloatArray, targets: IntArray | None = None) -> tuple[FloatArray, IntArray]:
        """Best score over alphas and the index of that alpha, both of shape (n_targets,).

        With targets, an int array of columns of the responses, only of these and in their order.
        """

    @abstractmethod
    def weights(self, gamma: FloatArray, alphas: FloatArray, targets: IntArray) -> list[Array]:
        """Primal weights per band, each (n_features, len(targets)), fitted on all rows with one alpha per target."""


@runtime_checkable
class LossSearch(RidgeSearch, Protocol):
    """A search that also tells the held-out error of every alpha."""

    @abstractmethod
    def cv_losses(self, gamma: FloatArray, targets: IntArray | None = None) -> FloatArray:
        """Held-out mean squared errors, averaged over folds, (n_alphas, n_targets)."""


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


def best_alphas(loss: FloatArray, alphas: FloatArray) -> tuple[FloatArray, IntArray]:
    """Score and index of the best alpha from held-out losses of shape (n_alphas, n_targets).

    Raises
    ------
    NotFiniteError
        If a loss is NaN or infinite: no alpha would be the best.
    """
    refuse_not_finite(loss, "held-out errors of the ridge", LOOK)
    # all alphas tie where features are constant; without the slope argmax would take the smallest one
    scores = -loss + TIE_SLOPE * np.log(alphas)[:, None]
    index = np.argmax(scores, axis=0)
    return np.take_along_axis(scores, index[None], axis=0)[0], index


def search_pool(search: RidgeSearch, gammas: FloatArray) -> SearchTable:
    """Score every gamma of the pool."""
    found = [search.cv_scores(gamma) for gamma in gammas]
    return SearchTable(gammas, np.stack([scores for scores, _ in found]), np.stack([index for _, index in found]))


def choose(table: SearchTable, allowed: BoolArray | None = None) -> Choice:
    """Best gamma of each target among the allowed rows of the pool (all of them by default).

    Raises
    ------
    NotFiniteError
        If a score is NaN; minus infinity stands for a gamma that was not tried.
    """
    if (bad := np.isnan(table.scores).any(axis=0)).any():
        raise NotFiniteError(f"scores of the search are NaN for {bad.sum()} of {bad.size} targets; {LOOK}.")
    rows = np.arange(len(table.gammas)) if allowed is None else np.flatnonzero(allowed)
    # of equal scores argmax takes the first row of the pool: in `gamma_pool` the mixture of fewer bands
    best = rows[np.argmax(table.scores[rows], axis=0)]
    targets = np.arange(table.scores.shape[1])
    return Choice(best, table.alpha_index[best, targets], table.scores[best, targets])


def refit_weights(search: RidgeSearch, table: SearchTable, choice: Choice, alphas: FloatArray) -> list[Float32Array]:
    """Weights per band, (n_features_b, n_targets), with each target's own gamma and alpha, on all rows.

    Raises
    ------
    NotFiniteError
        If a weight is not finite.
    """
    whole: list[Float32Array] = []
    n_targets = choice.gamma_index.size
    for index in np.unique(choice.gamma_index):
        targets = np.flatnonzero(choice.gamma_index == index)
        parts = search.weights(table.gammas[index], alphas[choice.alpha_index[targets]], targets)
        for part in parts:
            refuse_not_finite(part, "weights of the ridge", LOOK)
        if not whole:
            whole = [np.zeros((part.shape[0], n_targets), dtype=part.dtype) for part in parts]
        for target_weights, part in zip(whole, parts, strict=True):
            target_weights[:, targets] = part
    return whole


def check_shapes(Xs: Sequence[Array], Y: Array) -> None:
    """ValueError unless bands and responses are two-dimensional with the same rows."""
    shapes = [X.shape for X in Xs]
    if not shapes or Y.ndim != 2 or any(len(shape) != 2 or shape[0] != len(Y) for shape in shapes):
        raise ValueError(f"bands have shapes {shapes} and Y {Y.shape}; need (n_rows, n_features) and (n_rows, n).")
