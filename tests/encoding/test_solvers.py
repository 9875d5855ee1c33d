"""Our two searches against himalaya's and against slow float64 references, in easy and in bad conditions."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch

from brainlit.encoding import Fold, SolverConfig, make_folds
from brainlit.encoding.banded import open_search
from brainlit.encoding.eigen import EigenSearch, filter_basis
from brainlit.encoding.search import RidgeSearch, choose, refit_weights, search_pool
from brainlit.encoding.target_batches import TargetBatches

ALPHAS = tuple(np.logspace(-3, 4, 15))
POOL = np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.0, 0.6, 0.4]])
POOL_OF_4 = np.array([[0.0, 0.0, 0.0, 1.0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]])
STORIES = np.repeat(np.arange(5), 36)
SOLVERS = ("primal", "kernel", "himalaya", "himalaya_group")


def problem(seed: int = 0, sizes: tuple[int, ...] = (30, 12, 20), n_targets: int = 40) -> tuple[list, np.ndarray]:
    """Bands of unit mean row norm with falling spectra, and voxels of very different SNR."""
    rng = np.random.default_rng(seed)
    raw = [rng.standard_normal((STORIES.size, size)) / np.sqrt(np.arange(1, size + 1)) for size in sizes]
    Xs = [X / np.sqrt(np.square(X).sum(axis=1).mean()) for X in raw]
    Y = sum(X @ rng.standard_normal((X.shape[1], n_targets)) for X in Xs)
    return Xs, Y / Y.std(axis=0) * rng.uniform(0.1, 1, n_targets) + rng.standard_normal(Y.shape)


def slow_losses(Xs: list, Y: np.ndarray, folds: list[Fold], gamma: np.ndarray, alphas: tuple = ALPHAS) -> np.ndarray:
    """Held-out mean squared errors (n_alphas, n_targets) in float64, one system of equations per alpha and fold."""
    X = np.hstack([np.asarray(X, np.float64) * np.sqrt(share) for X, share in zip(Xs, gamma, strict=True)])
    losses = np.zeros((len(alphas), Y.shape[1]))
    for fold in folds:
        kernel, cross = X[fold.train] @ X[fold.train].T, X[fold.held_out] @ X[fold.train].T
        for k, alpha in enumerate(alphas):
            predicted = cross @ np.linalg.solve(kernel + alpha * np.eye(len(kernel)), Y[fold.train])
            losses[k] += np.square(Y[fold.held_out] - predicted).mean(axis=0) / len(folds)
    return losses


def our_losses(search: RidgeSearch, gamma: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The losses of all alphas that a search chooses from."""
    seen = {}
    monkeypatch.setattr("brainlit.encoding.eigen.best_alphas", lambda loss, _: (seen.update(loss=loss), loss[0])[::-1])
    search.cv_scores(gamma)
    return seen["loss"]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("purged", "pool"), [(False, POOL), (True, POOL), (True, POOL_OF_4)])
def test_all_solvers_give_the_same_answer(precision: str, purged: bool, pool: np.ndarray) -> None:
    Xs, Y = problem(sizes=(30, 12, 20, 9)[: pool.shape[1]])
    folds = make_folds(np.zeros(STORIES.size) if purged else STORIES, 4, purge_trs=8)
    assert purged == (folds[0].train.size + folds[0].held_out.size < STORIES.size)
    found = {}
    for solver in SOLVERS:
        search = open_search(Xs, Y, folds, ALPHAS, SolverConfig(solver, precision))
        table = search_pool(search, pool)
        choice = choose(table)
        weights = np.vstack(refit_weights(search, table, choice, np.asarray(ALPHAS)))
        found[solver] = table, choice, np.hstack(Xs) @ weights
    reference, chosen, predicted = found["himalaya"]
    tolerance = 1e-4 if precision == "float32" else 1e-8
    for solver in SOLVERS:
        table, choice, own = found[solver]
        np.testing.assert_allclose(table.scores, reference.scores, atol=tolerance)
        assert (table.alpha_index == reference.alpha_index).mean() >= 0.99
        same = (choice.gamma_index == chosen.gamma_index) & (choice.alpha_index == chosen.alpha_index)
        assert same.mean() >= 0.9, "two mixtures may tie in a voxel or two"
        assert np.abs(own - predicted)[:, same].max() < 10 * tolerance


@pytest.mark.parametrize("solver", ["primal", "kernel"])
@pytest.mark.parametrize("pays", [False, True])
@pytest.mark.parametrize("purged", [False, True])
def test_both_ways_to_the_held_out_errors_are_exact(
    solver: str, pays: bool, purged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Xs, Y = problem(1)
    folds = make_folds(np.zeros(STORIES.size) if purged else STORIES, 4, purge_trs=5)
    refits = _decide(monkeypatch, leave_out=pays)
    search = open_search(Xs, Y, folds, ALPHAS, SolverConfig(solver, "float64"))
    np.testing.assert_allclose(our_losses(search, POOL[1], monkeypatch), slow_losses(Xs, Y, folds, POOL[1]), atol=1e-7)
    assert len(refits) == (0 if pays else len(folds))


def _decide(monkeypatch: pytest.MonkeyPatch, leave_out: bool) -> list[int]:
    """Take one of the two ways, and count the folds that are fitted again."""
    refits: list[int] = []
    refit = EigenSearch._refit_fold
    monkeypatch.setattr(EigenSearch, "_leaving_out_pays", lambda *_: leave_out)
    monkeypatch.setattr(
        EigenSearch, "_refit_fold", lambda self, gamma, k, t: (refits.append(k), refit(self, gamma, k, t))[1]
    )
    return refits


def bad_bands(which: str) -> tuple[list, tuple[float, ...]]:
    """Bands and alphas on which float32 could go wrong; 144 rows are trained on."""
    rng = np.random.default_rng(3)
    Xs, _ = problem(3)
    if which == "as many features as rows":
        return problem(3, (70, 40, 33))[0], ALPHAS
    if which == "more features than rows":
        return problem(3, (90, 60, 60))[0], ALPHAS
    if which == "rank deficient":
        return [Xs[0] @ rng.standard_normal((30, 60)) / 8, Xs[1], Xs[2]], ALPHAS
    if which == "duplicate columns":
        return [np.hstack([Xs[0], Xs[0]]), Xs[1], Xs[1].copy()], ALPHAS
    if which == "zero band":
        return [Xs[0], np.zeros_like(Xs[1]), Xs[2]], ALPHAS
    return Xs, tuple(np.logspace(-8, 4, 15))


@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("solver", ["primal", "kernel"])
@pytest.mark.parametrize(
    "which",
    [
        "as many features as rows",
        "more features than rows",
        "rank deficient",
        "duplicate columns",
        "zero band",
        "tiny alphas",
    ],
)
def test_float32_is_safe(which: str, solver: str, leave_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are within 1e-3 of float64's, and no loss of any alpha is far below the true one, so none is chosen."""
    Xs, alphas = bad_bands(which)
    Y = problem(3)[1]
    folds = make_folds(STORIES, 5)
    _decide(monkeypatch, leave_out)
    search = open_search(Xs, Y, folds, alphas, SolverConfig(solver))
    for gamma in POOL:
        slow = slow_losses(Xs, Y, folds, gamma, alphas)
        scores, index = search.cv_scores(gamma)
        np.testing.assert_allclose(-scores, slow.min(axis=0), rtol=1e-3)
        np.testing.assert_allclose(slow[index, np.arange(len(index))], slow.min(axis=0), rtol=1e-3)
    quick = our_losses(search, POOL[1], monkeypatch)
    slow = slow_losses(Xs, Y, folds, POOL[1], alphas)
    assert (quick > 0.98 * slow).all()


def test_an_unsafe_inverse_is_refitted(monkeypatch: pytest.MonkeyPatch) -> None:
    Xs, Y = problem(4, (90, 60, 60))
    refits = _decide(monkeypatch, leave_out=True)
    open_search(Xs, Y, make_folds(STORIES, 5), (1e-8, 1.0), SolverConfig("primal")).cv_scores(POOL[1])
    assert refits == [0, 1, 2, 3, 4]


def test_the_way_that_costs_less_is_taken() -> None:
    Xs, Y = problem(5)
    folds = make_folds(STORIES, 5)
    few, many = (open_search(Xs, np.tile(Y, (1, times)), folds, ALPHAS, SolverConfig("primal")) for times in (1, 200))
    big = (2000, [2000] * 5)
    for search, pays in ((few, True), (many, False)):
        search._sizes = lambda _: big
        search._folds = [type(fold)(*[slice(0, 1)] * 4, 2400, 600, 600) for fold in search._folds]
        assert search._leaving_out_pays(POOL[1], search._n_targets * 50) == pays


@pytest.mark.parametrize("solver", ["primal", "kernel"])
def test_products_are_exact_whatever_training_allows(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Xs, Y = problem(12)
    before = torch.get_float32_matmul_precision()
    seen = []
    real = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda A: (seen.append(torch.get_float32_matmul_precision()), real(A))[1])
    torch.set_float32_matmul_precision("medium")
    try:
        search = open_search(Xs, Y, make_folds(STORIES, 4), ALPHAS, SolverConfig(solver))
        scores, index = search.cv_scores(POOL[1])
        search._kept.clear()
        search.weights(POOL[1], np.asarray(ALPHAS)[index], np.arange(scores.size))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(seen) >= 2
    assert set(seen) == {"highest"}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("leave_out", [False, True])
def test_some_targets_are_scored_as_all_are(solver: str, leave_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Xs, Y = problem(6)
    _decide(monkeypatch, leave_out)
    search = open_search(Xs, Y, make_folds(STORIES, 4), ALPHAS, SolverConfig(solver, n_targets_batch=7))
    targets = np.array([31, 4, 5, 6, 39, 0, 12, 13, 14, 15])
    every, some = search.cv_scores(POOL[1]), search.cv_scores(POOL[1], targets)
    np.testing.assert_allclose(some[0], every[0][targets], rtol=1e-5)
    np.testing.assert_array_equal(some[1], every[1][targets])
    nothing = search.cv_scores(POOL[1], targets[:0]) if solver in ("primal", "kernel") else every
    assert nothing[0].size == (0 if solver in ("primal", "kernel") else 40)


@pytest.mark.parametrize("memory_gb", [4.0, 6e-4, 1e-6])
def test_products_that_do_not_fit_are_formed_again(memory_gb: float) -> None:
    Xs, Y = problem(7, n_targets=300)
    folds = make_folds(STORIES, 4)
    search = open_search(Xs, Y, folds, ALPHAS, SolverConfig("primal", memory_gb=memory_gb))
    assert len(search._cross._stored) == {4.0: 5, 6e-4: 3, 1e-6: 0}[memory_gb]
    roomy = open_search(Xs, Y, folds, ALPHAS, SolverConfig("primal"))
    np.testing.assert_allclose(search.cv_scores(POOL[1])[0], roomy.cv_scores(POOL[1])[0], rtol=1e-5)


def test_a_search_stays_within_its_memory_and_does_not_copy_the_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole brain made small: 9,000 rows, 2,800 features, 50,732 targets and 4 GB, each side a fifteenth."""
    monkeypatch.setattr("brainlit.encoding.target_batches.SMALLEST_BATCH", 8)
    rng = np.random.default_rng(8)
    Xs = [rng.standard_normal((600, size), dtype=np.float32) / 16 for size in (88, 11, 88)]
    Y = rng.standard_normal((600, 3382), dtype=np.float32)
    budget_gb = 4.0 / 15**2

    def score() -> RidgeSearch:
        folds = make_folds(np.repeat(np.arange(8), 75), 4)
        search = open_search(Xs, Y, folds, ALPHAS, SolverConfig(memory_gb=budget_gb))
        search.cv_scores(POOL[1])
        return search

    peak, search = peak_bytes(score)
    assert len(search._cross._stored) == 5
    assert 5 * 187 * 3382 * 4 < peak < budget_gb * 1e9


def peak_bytes(run: Callable[[], RidgeSearch]) -> tuple[int, RidgeSearch]:
    """Most bytes that torch held at once for tensors made inside the call, and its result."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum(changes).max()), kept


class ScarceMemory:
    """Fails as a GPU does for more than so many targets."""

    def __init__(self, most: int) -> None:
        self.most, self.seen = most, []

    def __call__(self, batch: slice | torch.Tensor) -> torch.Tensor:
        numbers = torch.arange(100)[batch]
        self.seen.append(len(numbers))
        if len(numbers) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return numbers[None] * 1.0


def test_a_device_without_memory_gets_half_as_many_targets(caplog: pytest.LogCaptureFixture) -> None:
    batches, work = TargetBatches(SolverConfig(n_targets_batch=64)), ScarceMemory(20)
    with caplog.at_level(logging.WARNING):
        found = batches.run(100, 1.0, work)
    assert found[0].tolist() == list(range(100))
    assert work.seen == [64, 32, *[16] * 6, 4]
    assert "ran out of memory with 64 targets at once; going on with 32" in caplog.text
    assert "with 32 targets at once; going on with 16" in caplog.text
    with pytest.raises(torch.cuda.OutOfMemoryError, match="no memory for the search of one target"):
        batches.run(100, 1.0, ScarceMemory(0))


@pytest.mark.parametrize("solver", ["primal", "kernel", "himalaya"])
def test_a_search_goes_on_with_smaller_batches(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Xs, Y = problem(9)
    folds = make_folds(STORIES, 4)
    plain = open_search(Xs, Y, folds, ALPHAS, SolverConfig(solver)).cv_scores(POOL[1])
    search = open_search(Xs, Y, folds, ALPHAS, SolverConfig(solver, n_targets_batch=16))
    whole, place = (search._scored, "_scored") if solver == "himalaya" else (search._refit_fold, "_refit")
    assert callable(whole)
    real, failures = getattr(search, place), iter([True])

    def scarce(*args: object) -> object:
        if solver == "himalaya" and next(failures, False):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        found = real(*args)
        return found if solver == "himalaya" else (*found[:2], _failing_once(found[2], failures))

    _decide(monkeypatch, leave_out=False)
    monkeypatch.setattr(search, place, scarce)
    found = search.cv_scores(POOL[1])
    np.testing.assert_allclose(found[0], plain[0], rtol=1e-5)
    assert search._batches.size(1.0) == 8


def _failing_once(work: Callable, failures: object) -> Callable:
    def project(batch: slice) -> torch.Tensor:
        if next(failures, False):  # type: ignore[call-overload]
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return work(batch)

    return project


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_gb": 0.0}, "memory_gb is 0.0"),
        ({"n_targets_batch": 0}, "n_targets_batch is 0"),
        ({"name": "magic"}, "unknown solver 'magic'"),
        ({"name": "himalya"}, "unknown solver 'himalya'. Did you mean 'himalaya'?"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"device": "gpu"}, "'gpu' is no device that torch knows; write 'cpu', 'cuda', or 'cuda:1'"),
    ],
)
def test_senseless_settings_of_a_solver_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SolverConfig(**arguments)


def test_too_little_memory_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Xs, Y = problem()
    with caplog.at_level(logging.WARNING):
        open_search(Xs, Y, make_folds(STORIES, 4), ALPHAS, SolverConfig(memory_gb=1e-5))
    assert "the search over 62 features takes" in caplog.text
    assert "raise memory_gb, or lower keep_variance" in caplog.text


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_few_vectors_stand_for_all_filters(tolerance: float) -> None:
    eigenvalues = np.sort(np.random.default_rng(0).lognormal(0, 3, 600))
    filters = eigenvalues / (eigenvalues + np.asarray(ALPHAS)[:, None])
    weight = np.random.default_rng(1).uniform(0.5, 2, 600) / np.sqrt(800)
    basis = filter_basis(filters, eigenvalues, weight, tolerance)
    dense, terms = np.zeros_like(filters), iter(basis.mix.T)
    for own, vectors in basis.runs:
        dense[:, own] = sum(np.outer(next(terms), vector) for vector in vectors)
    assert np.linalg.norm((dense - filters) * weight) <= tolerance
    products = sum(len(vectors) * vectors.shape[1] for _, vectors in basis.runs) / 600
    assert products < (3 if tolerance == 1e-3 else 6)


@pytest.mark.gpu
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("leave_out", [False, True])
def test_a_gpu_gives_the_same_answer(solver: str, leave_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    Xs, Y = problem(11)
    _decide(monkeypatch, leave_out)
    folds = make_folds(STORIES, 4)
    found = []
    for device in ("cpu", "cuda"):
        search = open_search(Xs, Y, folds, ALPHAS, SolverConfig(solver, device=device))
        scores, index = search.cv_scores(POOL[1])
        targets = np.arange(Y.shape[1])
        found.append((scores, np.vstack(search.weights(POOL[1], np.asarray(ALPHAS)[index], targets))))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-4)
    np.testing.assert_allclose(np.hstack(Xs) @ found[0][1], np.hstack(Xs) @ found[1][1], atol=1e-2)
