"""Banded ridge: several feature spaces, each with its own regularisation, chosen per target by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, FloatArray
from brainlit.encoding.config import DEFAULT_ALPHAS, DEFAULT_N_GAMMAS, SolverConfig, SolverName, check_alphas
from brainlit.encoding.search import (
    Fold,
    RidgeSearch,
    check_shapes,
    choose,
    gamma_pool,
    make_folds,
    refit_weights,
    search_pool,
)


@dataclass(frozen=True, eq=False)
class BandedRidge:
    """A fitted (banded) ridge.

    Parameters
    ----------
    weights : mapping of band to array of shape (n_features, n_targets)
        Primal weights; predictions are the sum over bands of X @ weights.
    gammas : array of shape (n_bands, n_targets)
        Share of the prior variance of each band; columns sum to 1.
    alphas : array of shape (n_targets,)
    cv_scores : array of shape (n_targets,)
        Minus the mean squared error on held-out rows, averaged over folds.
    solver : str
        Which solver found it: 'primal', 'kernel', 'himalaya' or 'himalaya_group'.
    """

    weights: Mapping[str, Array]
    gammas: FloatArray
    alphas: FloatArray
    cv_scores: FloatArray
    solver: str

    @property
    def deltas(self) -> FloatArray:
        """log(gamma / alpha), himalaya's parameter, (n_bands, n_targets); minus infinity for unused bands."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.gammas / self.alphas))

    def predict_bands(self, Xs: Mapping[str, Array]) -> dict[str, Array]:
        """Each band's part of the prediction, (n_rows, n_targets)."""
        return {band: np.asarray(Xs[band]) @ weights for band, weights in self.weights.items()}

    def predict(self, Xs: Mapping[str, Array]) -> Array:
        """Prediction of all bands together, (n_rows, n_targets)."""
        return np.asarray(sum(self.predict_bands(Xs).values()))


def banded_ridge_cv(
    Xs: Mapping[str, Array],
    Y: Array,
    groups: npt.ArrayLike,
    *,
    gammas: FloatArray | None = None,
    n_gammas: Mapping[int, int] = DEFAULT_N_GAMMAS,
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    n_folds: int = 4,
    purge_trs: int = 0,
    seed: int = 0,
    solver: SolverConfig | None = None,
) -> BandedRidge:
    """Fit min ||Y - sum_b X_b w_b||^2 + alpha sum_b ||w_b||^2 / gamma_b, gammas and alpha per target.

    Parameters
    ----------
    Xs : mapping of band to array of shape (n_rows, n_features)
        Delayed and zero-mean; scaled as they are, so scale the bands alike if gammas are to be comparable.
    Y : array of shape (n_rows, n_targets)
        Zero-mean.
    groups : int array of shape (n_rows,)
        Stories; see `make_folds` for how they become folds and for `n_folds` and `purge_trs`.
    gammas : array of shape (n_gammas, n_bands), optional
        Candidates; by default the nested pool of `gamma_pool(n_bands, n_gammas, seed)`.
    alphas : increasing positive numbers
    solver : SolverConfig, optional

    Returns
    -------
    BandedRidge
        Names the solver it was found by.

    Raises
    ------
    ValueError
        If shapes do not match, or folds, alphas, gammas or solver make no sense.
    """
    pool = gamma_pool(len(Xs), n_gammas, seed) if gammas is None else check_gammas(gammas, len(Xs))
    grid = np.asarray(alphas, dtype=np.float64)
    folds = make_folds(groups, n_folds, purge_trs)
    arrays = [np.asarray(X) for X in Xs.values()]
    search = open_search(arrays, np.asarray(Y), folds, alphas, solver)
    table = search_pool(search, pool)
    chosen = choose(table)
    weights = refit_weights(search, table, chosen, grid)
    return BandedRidge(
        weights=dict(zip(Xs, weights, strict=True)),
        gammas=pool[chosen.gamma_index].T,
        alphas=grid[chosen.alpha_index],
        cv_scores=chosen.cv_scores,
        solver=search.name,
    )


def check_gammas(gammas: npt.ArrayLike, n_bands: int) -> FloatArray:
    """Candidates as an array (n_gammas, n_bands); ValueError unless each is a point of the simplex."""
    pool = np.asarray(gammas, dtype=np.float64)
    if pool.ndim != 2 or pool.shape[1] != n_bands or len(pool) == 0:
        raise ValueError(f"gammas have shape {pool.shape} for {n_bands} bands; need (n_gammas, {n_bands}).")
    if (pool < 0).any() or not np.allclose(pool.sum(axis=1), 1.0):
        raise ValueError("gammas must not be negative and each row must sum to 1; divide each row by its sum.")
    return pool


def open_search(
    Xs: Sequence[Array],
    Y: Array,
    folds: Sequence[Fold],
    alphas: Sequence[float],
    solver: SolverConfig | None = None,
) -> RidgeSearch:
    """Prepare a solver for the bands Xs, each (n_rows, n_features_b), and the responses Y, (n_rows, n_targets).

    Parameters
    ----------
    solver : SolverConfig, optional
        'auto' is 'primal' where all bands together have fewer features than the smallest training set has rows.

    Raises
    ------
    ValueError
        If shapes do not match, or alphas are not positive and increasing.
    """
    check_shapes(Xs, Y)
    check_alphas(alphas)
    config = solver or SolverConfig()
    if config.name == "auto":
        n_train = min(fold.train.size for fold in folds)
        config = replace(config, name="primal" if sum(X.shape[1] for X in Xs) < n_train else "kernel")
    return _solver_class(config.name)(Xs, Y, folds, alphas, config)


def _solver_class(name: SolverName) -> Callable[..., RidgeSearch]:
    """Imported when it is needed: himalaya takes a second to load."""
    if name in ("primal", "kernel"):
        from brainlit.encoding import eigen_solvers

        return eigen_solvers.PrimalSearch if name == "primal" else eigen_solvers.KernelSearch
    from brainlit.encoding import himalaya_solvers

    return himalaya_solvers.HimalayaGroupSearch if name == "himalaya_group" else himalaya_solvers.HimalayaSearch
