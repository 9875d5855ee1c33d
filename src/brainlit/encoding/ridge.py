"""Plain ridge: one feature space, one alpha per target chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainlit.encoding.backend import himalaya_backend
from brainlit.encoding.banded import DEFAULT_ALPHAS, BandedRidge, banded_ridge_cv
from brainlit.encoding.folds import Fold, make_folds
from brainlit.encoding.groups import Array
from brainlit.encoding.reference import backend_name
from brainlit.encoding.search import DEFAULT_MEMORY_GB, Precision, SolverName, check_alphas

BAND = "X"
"""Name of the only band of a plain ridge in BandedRidge.weights."""


def ridge_cv(
    X: Array,
    Y: Array,
    groups: npt.ArrayLike,
    *,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    n_folds: int = 4,
    purge_trs: int = 0,
    solver: SolverName = "auto",
    precision: Precision = "float32",
    device: str = "cpu",
    n_targets_batch: int | None = None,
    memory_gb: float = DEFAULT_MEMORY_GB,
) -> BandedRidge:
    """Fit min ||Y - X w||^2 + alpha ||w||^2 with the alpha of each target chosen on held-out groups.

    Parameters
    ----------
    X : array of shape (n_rows, n_features)
        Delayed and zero-mean.
    Y : array of shape (n_rows, n_targets)
        Zero-mean.
    groups : int array of shape (n_rows,)
    solver, precision, device, n_targets_batch, memory_gb
        See `open_search`; but 'himalaya' is its `RidgeCV` solver where features are fewer than rows, its
        `KernelRidgeCV` solver otherwise.

    Returns
    -------
    BandedRidge
        With the single band 'X'; `predict({'X': X_new})` or `X_new @ weights['X']`.
    """
    n_rows, n_features = np.shape(X)
    few_features = n_features < n_rows
    if solver == "himalaya":
        backend = backend_name(precision, device)
        folds = make_folds(groups, n_folds, purge_trs)
        return _himalaya_ridge(X, Y, folds, alphas, backend, few_features, n_targets_batch, precision)
    return banded_ridge_cv(
        {BAND: X},
        Y,
        groups,
        alphas=alphas,
        n_folds=n_folds,
        purge_trs=purge_trs,
        solver=solver,
        precision=precision,
        device=device,
        n_targets_batch=n_targets_batch,
        memory_gb=memory_gb,
    )


def _himalaya_ridge(
    X: Array,
    Y: Array,
    folds: Sequence[Fold],
    alphas: Sequence[float],
    backend_to_use: str,
    few_features: bool,
    n_targets_batch: int | None,
    precision: Precision,
) -> BandedRidge:
    """himalaya's own grid search over alphas, in the form that suits the shape."""
    from himalaya.kernel_ridge import solve_kernel_ridge_cv_eigenvalues
    from himalaya.ridge import solve_ridge_cv_svd

    check_alphas(alphas)
    features = np.asarray(X, dtype=precision)
    cv = [(fold.train, fold.held_out) for fold in folds]
    with himalaya_backend(backend_to_use) as backend:
        grid = backend.asarray(np.asarray(alphas, dtype=precision))
        data, targets = backend.asarray(features), backend.asarray(np.asarray(Y, dtype=precision))
        if few_features:
            best, primal, scores = solve_ridge_cv_svd(
                data, targets, alphas=grid, cv=cv, n_targets_batch=n_targets_batch
            )
            weights = backend.to_numpy(primal)
        else:
            best, dual, scores = solve_kernel_ridge_cv_eigenvalues(
                data @ data.T, targets, alphas=grid, cv=cv, n_targets_batch=n_targets_batch
            )
            weights = features.T @ backend.to_numpy(dual)
        chosen = np.asarray(backend.to_numpy(best), dtype=np.float64)
        cv_scores = np.asarray(backend.to_numpy(scores), dtype=np.float64).reshape(-1)
    return BandedRidge({BAND: weights}, np.ones((1, chosen.size)), chosen, cv_scores, "himalaya")
