"""Banded ridge with continuous hyper-parameters, by himalaya's hyper-gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from brainlit.encoding.backend import himalaya_backend
from brainlit.encoding.banded import BandedRidge
from brainlit.encoding.folds import Fold
from brainlit.encoding.groups import Array, FloatArray
from brainlit.encoding.reference import backend_name
from brainlit.encoding.search import Precision, check_shapes

SMALLEST_DELTA = -30.0
"""Start of a band with no weight: exp(-30) is none, and its gradient still exists."""


def hyper_gradient_ridge(
    Xs: Mapping[str, Array],
    Y: Array,
    folds: Sequence[Fold],
    *,
    initial_deltas: FloatArray | None = None,
    max_iter: int = 50,
    tol: float = 1e-2,
    precision: Precision = "float32",
    device: str = "cpu",
    n_targets_batch: int | None = None,
    seed: int = 0,
) -> BandedRidge:
    """Descend the cross-validated loss of each target in deltas = log(gamma / alpha), one delta per band.

    `solve_multiple_kernel_ridge_hyper_gradient` of himalaya (Dupre la Tour et al. 2022,
    doi:10.1016/j.neuroimage.2022.119728). Its optimum is a point of a continuum, found from a start by approximate
    steps. So models of fewer bands are not nested in those of more: a part of a variance partition made from such
    fits also holds how far each fit got. Use `banded_ridge_cv`, whose pool is nested, for partitions.

    Parameters
    ----------
    Xs : mapping of band to array of shape (n_rows, n_features)
        Delayed and zero-mean.
    Y : array of shape (n_rows, n_targets)
        Zero-mean.
    folds : sequence of Fold
        From `make_folds`.
    initial_deltas : array of shape (n_bands, n_targets), optional
        Where to start, such as the `deltas` of a `banded_ridge_cv`; by default a ridge on the average kernel.
    max_iter : int
        Steps at most.
    tol : float
        Stop when no delta moves by more.
    seed : int
        Of the start vectors by which himalaya estimates step sizes.

    Returns
    -------
    BandedRidge
        `cv_scores` are those of the last step's start.

    Raises
    ------
    ValueError
        If shapes do not match.
    """
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_hyper_gradient

    arrays = [np.asarray(X, dtype=precision) for X in Xs.values()]
    responses = np.asarray(Y, dtype=precision)
    check_shapes(arrays, responses)
    name = backend_name(precision, device)
    with himalaya_backend(name) as backend:
        found, dual, scores = solve_multiple_kernel_ridge_hyper_gradient(
            backend.stack([X @ X.T for X in map(backend.asarray, arrays)]),
            backend.asarray(responses),
            cv=[(fold.train, fold.held_out) for fold in folds],
            return_weights="dual",
            initial_deltas="ridgecv" if initial_deltas is None else backend.asarray(_start(initial_deltas, precision)),
            max_iter=max_iter,
            tol=tol,
            n_targets_batch=n_targets_batch,
            random_state=seed,
            progress_bar=False,
        )
        deltas, duals, history = (np.asarray(backend.to_numpy(part), np.float64) for part in (found, dual, scores))
    sizes = np.exp(deltas)
    return BandedRidge(
        weights={band: _primal(X, duals, size, precision) for band, X, size in zip(Xs, arrays, sizes, strict=True)},
        gammas=sizes / sizes.sum(axis=0),
        alphas=1.0 / sizes.sum(axis=0),
        cv_scores=_last_written(history),
        solver="himalaya_hyper_gradient",
    )


def _start(deltas: FloatArray, precision: Precision) -> Array:
    return np.maximum(deltas, SMALLEST_DELTA).astype(precision)


def _primal(X: Array, dual: FloatArray, size: FloatArray, precision: Precision) -> Array:
    return np.asarray((X.T @ dual.astype(precision)) * size.astype(precision))


def _last_written(history: FloatArray) -> FloatArray:
    """Last score of each target; steps that were not taken are 0 in himalaya's table, scores are below."""
    last = len(history) - 1 - np.argmax(history[::-1] != 0, axis=0)
    return np.asarray(history[last, np.arange(history.shape[1])])
