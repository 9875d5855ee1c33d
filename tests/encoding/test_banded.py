"""Plain and banded ridge against slow obvious references and against himalaya."""

from __future__ import annotations

import numpy as np
import pytest
from himalaya.ridge import solve_ridge_cv_svd
from sklearn.linear_model import Ridge

from brainlit.encoding import SolverConfig, banded_ridge_cv, delay_within, gamma_pool, himalaya_backend, make_folds

ALPHAS = np.logspace(-2, 3, 9)
GROUPS = np.repeat(np.arange(5), 24)


def small_problem(seed: int = 0, n_features: tuple[int, ...] = (8, 5)) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    Xs = {f"band{k}": rng.standard_normal((GROUPS.size, d)) for k, d in enumerate(n_features)}
    Y = sum(X @ rng.standard_normal((X.shape[1], 6)) * rng.uniform(0, 1, 6) for X in Xs.values())
    return Xs, Y + rng.standard_normal(Y.shape) * 3


def brute_force(X: np.ndarray, Y: np.ndarray, n_folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Best score over alphas and that alpha, by one scikit-learn Ridge per alpha, fold and target."""
    losses = np.zeros((len(ALPHAS), Y.shape[1]))
    folds = make_folds(GROUPS, n_folds)
    for k, alpha in enumerate(ALPHAS):
        for fold in folds:
            model = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(X[fold.train], Y[fold.train])
            losses[k] += np.square(Y[fold.held_out] - model.predict(X[fold.held_out])).mean(axis=0) / len(folds)
    return -losses.min(axis=0), ALPHAS[losses.argmin(axis=0)]


@pytest.mark.parametrize("solver", ["primal", "kernel", "himalaya"])
@pytest.mark.parametrize("n_features", [8, 150])
def test_plain_ridge_equals_scikit_learn_loops(solver: str, n_features: int) -> None:
    Xs, Y = small_problem(1, (n_features,))
    X = Xs["band0"]
    fitted = banded_ridge_cv({"X": X}, Y, GROUPS, alphas=ALPHAS, n_folds=4, solver=SolverConfig(solver, "float64"))
    scores, alphas = brute_force(X, Y, 4)
    np.testing.assert_allclose(fitted.alphas, alphas, rtol=1e-6)
    np.testing.assert_allclose(fitted.cv_scores, scores, atol=1e-5)
    slow = [Ridge(alpha=a, fit_intercept=False).fit(X, Y[:, v]).coef_ for v, a in enumerate(alphas)]
    np.testing.assert_allclose(fitted.weights["X"], np.array(slow).T, atol=1e-5)
    assert fitted.solver == solver


@pytest.mark.parametrize("solver", ["primal", "kernel", "himalaya"])
def test_banded_ridge_equals_scikit_learn_on_scaled_bands(solver: str) -> None:
    Xs, Y = small_problem(2)
    pool = gamma_pool(2, {1: 1, 2: 3})
    fitted = banded_ridge_cv(Xs, Y, GROUPS, gammas=pool, alphas=ALPHAS, solver=SolverConfig(solver, "float64"))
    each = [
        brute_force(np.hstack([X * np.sqrt(g) for X, g in zip(Xs.values(), gamma, strict=True)]), Y, 4)
        for gamma in pool
    ]
    scores = np.array([score for score, _ in each])
    best = scores.argmax(axis=0)
    np.testing.assert_allclose(fitted.cv_scores, scores.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(fitted.gammas, pool[best].T)
    np.testing.assert_allclose(fitted.alphas, [each[g][1][v] for v, g in enumerate(best)], rtol=1e-6)
    for v, g in enumerate(best):
        scale = np.sqrt(pool[g])
        scaled = np.hstack([X * s for X, s in zip(Xs.values(), scale, strict=True)])
        slow = Ridge(alpha=fitted.alphas[v], fit_intercept=False).fit(scaled, Y[:, v]).predict(scaled)
        np.testing.assert_allclose(fitted.predict(Xs)[:, v], slow, atol=1e-5)


def test_himalaya_behind_our_door_is_himalaya() -> None:
    from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

    Xs, Y = small_problem(3)
    pool = gamma_pool(2, {1: 1, 2: 4})[2:]
    ours = banded_ridge_cv(Xs, Y, GROUPS, gammas=pool, alphas=ALPHAS, solver=SolverConfig("himalaya", "float64"))
    cv = [(fold.train, fold.held_out) for fold in make_folds(GROUPS, 4)]
    with himalaya_backend("numpy"):
        deltas, weights, scores = solve_multiple_kernel_ridge_random_search(
            np.stack([X @ X.T for X in Xs.values()]),
            Y,
            n_iter=pool,
            alphas=ALPHAS,
            cv=cv,
            return_weights="primal",
            Xs=list(Xs.values()),
            progress_bar=False,
        )
    np.testing.assert_allclose(ours.deltas, deltas, atol=1e-8)
    np.testing.assert_allclose(ours.cv_scores, scores.max(axis=0), atol=1e-8)
    np.testing.assert_allclose(np.vstack(list(ours.weights.values())), weights, atol=1e-8)


def test_primal_in_float32_agrees_with_himalaya() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(8), 50)
    raw = {"a": rng.standard_normal((400, 20)), "b": rng.standard_normal((400, 8)), "c": rng.standard_normal((400, 6))}
    Xs = {band: delay_within(X, groups, (1, 2)) / np.sqrt(2 * X.shape[1]) for band, X in raw.items()}
    signal = sum(X @ rng.standard_normal((X.shape[1], 200)) * rng.uniform(0, 1, 200) for X in Xs.values())
    Y = signal + rng.standard_normal(signal.shape) * rng.uniform(0.5, 4, 200)
    ours, reference = (banded_ridge_cv(Xs, Y, groups, seed=5, solver=SolverConfig(s)) for s in ("primal", "himalaya"))
    assert abs((ours.cv_scores - reference.cv_scores).mean()) < 3e-4
    assert (ours.alphas == reference.alphas).mean() >= 0.99
    difference = np.abs(ours.predict(Xs) - reference.predict(Xs)).max(axis=0)
    assert (difference < 0.01).mean() >= 0.99


def test_one_band_banded_is_plain_ridge() -> None:
    Xs, Y = small_problem(5, (9,))
    cv = [(fold.train, fold.held_out) for fold in make_folds(GROUPS, 4)]
    with himalaya_backend("numpy"):
        _, plain, _ = solve_ridge_cv_svd(Xs["band0"].astype(np.float64), Y, alphas=np.array(ALPHAS), cv=cv)
    banded = banded_ridge_cv(Xs, Y, GROUPS, alphas=ALPHAS, solver=SolverConfig("primal", "float64"))
    np.testing.assert_allclose(banded.weights["band0"], plain, atol=1e-8)
    assert (banded.gammas == 1).all()


def test_auto_follows_the_shape_and_batches_change_nothing() -> None:
    Xs, Y = small_problem(6)
    wide = {"band0": np.random.default_rng(0).standard_normal((GROUPS.size, 130))}
    few = banded_ridge_cv(Xs, Y, GROUPS, alphas=ALPHAS)
    assert few.solver == "primal"
    assert banded_ridge_cv(wide, Y, GROUPS, alphas=ALPHAS).solver == "kernel"
    batched = banded_ridge_cv(Xs, Y, GROUPS, alphas=ALPHAS, solver=SolverConfig(n_targets_batch=2))
    np.testing.assert_allclose(batched.predict(Xs), few.predict(Xs), atol=1e-5)


def test_held_out_rows_do_not_reach_their_own_fold() -> None:
    """A target that only one group carries, and carries wildly, cannot be predicted there."""
    rng = np.random.default_rng(7)
    X = np.zeros((GROUPS.size, 5))
    X[np.arange(GROUPS.size), GROUPS] = rng.standard_normal(GROUPS.size)
    Y = X.sum(axis=1, keepdims=True) * 10
    fitted = banded_ridge_cv({"X": X}, Y, GROUPS, alphas=ALPHAS, n_folds=5, solver=SolverConfig(precision="float64"))
    null = np.mean([np.square(Y[group == GROUPS]).mean() for group in range(5)])
    np.testing.assert_allclose(fitted.cv_scores, -null, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alphas": [1.0, 0.5]}, "increasing order"),
        ({"alphas": [0.0, 0.5]}, "positive"),
        ({"gammas": [[0.5, 0.6]]}, "sum to 1"),
        ({"gammas": [[1.0]]}, "2 bands"),
    ],
)
def test_senseless_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    Xs, Y = small_problem(8)
    with pytest.raises(ValueError, match=message):
        banded_ridge_cv(Xs, Y, GROUPS, **arguments)


def test_shapes_that_do_not_match_are_named() -> None:
    Xs, Y = small_problem(9)
    with pytest.raises(ValueError, match=r"\(120, 8\), \(120, 5\)\] and Y \(119, 6\)"):
        banded_ridge_cv(Xs, Y[1:], GROUPS)


@pytest.mark.gpu
def test_the_gpu_gives_the_same_answer() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    Xs, Y = small_problem(10)
    cpu, gpu = (
        banded_ridge_cv(Xs, Y, GROUPS, alphas=ALPHAS, solver=SolverConfig(device=device)) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu.predict(Xs), gpu.predict(Xs), atol=1e-3)
