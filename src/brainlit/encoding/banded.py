"""Banded ridge: several feature spaces, each with its own regularisation, chosen per target by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, FloatArray
from brainlit.encoding.himalaya_solvers import backend_name, himalaya_backend
from brainlit.encoding.search import (
    DEFAULT_MEMORY_GB,
    DEFAULT_N_GAMMAS,
    SOLVERS,
    Fold,
    Precision,
    RidgeSearch,
    SolverName,
    check_alphas,
    check_shapes,
    choose,
    gamma_pool,
    make_folds,
    refit_weights,
    search_pool,
)

DEFAULT_ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(-3, 4, 15))
"""Half-decade steps. With bands scaled to unit mean row norm, alpha is the ratio of noise to signal variance."""


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
        Which solver found it: 'primal', 'kernel', 'himalaya', 'himalaya_group' or 'himalaya_hyper_gradient'.
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
    solver: SolverName = "auto",
    precision: Precision = "float32",
    device: str = "cpu",
    n_targets_batch: int | None = None,
    memory_gb: float = DEFAULT_MEMORY_GB,
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
    solver, precision, device, n_targets_batch, memory_gb
        See `open_search`.

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
    search = open_search(
        arrays,
        np.asarray(Y),
        folds,
        alphas,
        solver=solver,
        precision=precision,
        device=device,
        n_targets_batch=n_targets_batch,
        memory_gb=memory_gb,
    )
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
    *,
    solver: SolverName = "auto",
    precision: Precision = "float32",
    device: str = "cpu",
    n_targets_batch: int | None = None,
    memory_gb: float = DEFAULT_MEMORY_GB,
) -> RidgeSearch:
    """Prepare a solver for the bands Xs, each (n_rows, n_features_b), and the responses Y, (n_rows, n_targets).

    Parameters
    ----------
    solver : str
        'primal' works in the space of features, 'kernel' in that of rows; 'auto' takes the smaller one: primal where
        all bands together have fewer features than the smallest training set has rows. 'himalaya' (multiple-kernel
        ridge) and 'himalaya_group' (group ridge) are himalaya's random searches, the reference: same answers, slower.
    precision : 'float32' or 'float64'
    device : str
        Any torch device.
    n_targets_batch : int, optional
        Targets that are scored at once; None: as many as memory allows. A GPU that runs out of memory halves it.
    memory_gb : float
        What our searches may hold besides the responses, in 1e9 bytes. It bounds the batches and how many products
        are kept; features and decompositions are held whatever it is.

    Raises
    ------
    ValueError
        If shapes do not match, alphas are not positive and increasing, or the solver is unknown.
    """
    check_shapes(Xs, Y)
    check_alphas(alphas)
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}.")
    if solver == "auto":
        n_train = min(fold.train.size for fold in folds)
        solver = "primal" if sum(X.shape[1] for X in Xs) < n_train else "kernel"
    return _solver_class(solver)(
        Xs,
        Y,
        folds,
        alphas,
        precision=precision,
        device=device,
        n_targets_batch=n_targets_batch,
        memory_gb=memory_gb,
    )


def _solver_class(solver: SolverName) -> Callable[..., RidgeSearch]:
    if solver == "primal":
        from brainlit.encoding.eigen_solvers import PrimalSearch

        return PrimalSearch
    if solver == "kernel":
        from brainlit.encoding.eigen_solvers import KernelSearch

        return KernelSearch
    from brainlit.encoding.himalaya_solvers import HimalayaGroupSearch, HimalayaSearch

    return HimalayaGroupSearch if solver == "himalaya_group" else HimalayaSearch


# --- ridge
# Plain ridge: one feature space, one alpha per target chosen by cross-validation.


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


# --- hyper_gradient
# Banded ridge with continuous hyper-parameters, by himalaya's hyper-gradient.


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
