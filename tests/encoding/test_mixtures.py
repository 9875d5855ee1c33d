"""The search from coarse to fine against the search of all mixtures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from brainlit.encoding import ProbeCache, ProbeConfig, SolverConfig, gamma_pool, run_probe, run_probes
from brainlit.encoding.config import DEFAULT_ALPHAS
from brainlit.encoding.eigen import EigenSearch
from brainlit.encoding.mixtures import ErrorSurface, can_begin_coarse, first_mixtures, grade, worth_trying
from brainlit.encoding.search import inside_set

ALPHAS = np.asarray(DEFAULT_ALPHAS)
COARSE = ProbeConfig(low_level_impact=False, leave_out_fit=False, temporal="fir", mixture_search="coarse")
ALL = replace(COARSE, mixture_search="all")
N_TRS = 400


def smooth_errors(gammas: np.ndarray, n_targets: int) -> np.ndarray:
    """Held-out errors (n_pool, n_alphas, n_targets) of a ridge whose bands have orthonormal directions, by formula.

    A direction with variance lam and signal s leaves (1 - h)^2 s of the signal and adds h^2 lam^-1 of noise, with
    h = theta lam / (theta lam + 1).
    """
    rng = np.random.default_rng(0)
    theta = gammas[:, None, :, None] / ALPHAS[None, :, None, None]
    lam = 300.0 * np.arange(1, 41) ** -1.4
    h = theta * lam / (theta * lam + 1)
    shares = rng.dirichlet(np.ones(3), n_targets).T[:, None] * rng.uniform(0.02, 0.5, n_targets)
    signal = shares * rng.uniform(0, 2, (3, 40, n_targets)) * (lam / lam.sum())[:, None]
    bias = ((1 - h) ** 2).reshape(-1, 120) @ signal.reshape(120, -1)
    variance = (h**2 / lam).sum(axis=(2, 3)).reshape(-1, 1)
    return np.asarray(1 + bias + variance).reshape(len(gammas), ALPHAS.size, -1)


def test_the_first_mixtures_are_single_bands_and_equal_shares_of_two_and_of_all() -> None:
    pool, third = gamma_pool(3), pytest.approx(1 / 3)
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [third] * 3]
    assert pool[first_mixtures(pool)].tolist() == expected
    assert first_mixtures(gamma_pool(5)).sum() == 16
    assert first_mixtures(gamma_pool(2)).sum() == 3
    assert can_begin_coarse(gamma_pool(2), 200)
    assert can_begin_coarse(pool, 200)
    assert not can_begin_coarse(pool, 199)
    assert not can_begin_coarse(pool[first_mixtures(pool)], 200)
    assert not can_begin_coarse(pool[[0, 1, 2, 15, 16]], 200), "sub-bands have no equal pairs"


def test_grades_keep_the_order_and_bound_what_overfits() -> None:
    errors = np.array([0.5, 0.9, 1.1, 1.3, 50.0, 1.0]).reshape(1, -1, 1) * 7
    graded = grade(errors).ravel()
    np.testing.assert_allclose(graded, [-0.5, -0.1, 0.05, 0.075, 0.1, 0], atol=3e-4)


def test_guesses_are_near_the_truth_and_say_how_near() -> None:
    pool = gamma_pool(3)
    errors = smooth_errors(pool, 60)
    surface = ErrorSurface(pool, ALPHAS, 1000)
    guessed, deviation = surface.guess(grade(errors[surface.first]))
    truth = errors[~surface.first].min(axis=1) / errors[0, -1] - 1
    apart = np.abs(guessed - truth)
    assert np.sqrt(np.square(apart).mean()) < 0.2 * truth.std(axis=0).mean()
    assert deviation.shape == truth.shape
    assert (apart <= 3 * deviation).mean() > 0.95
    assert np.median(deviation) < 0.3 * truth.std(axis=0).mean(), "a deviation that is always large says nothing"


def test_what_is_known_is_guessed_as_it_is() -> None:
    """A pool that holds a first mixture a second time, a little aside."""
    pool = np.concatenate([gamma_pool(2, {1: 1, 2: 1}), [[0.5 + 1e-4, 0.5 - 1e-4]]])
    errors = smooth_errors(np.c_[pool, np.zeros(4)], 8)
    guessed, deviation = ErrorSurface(pool, ALPHAS, 1000).guess(grade(errors[:3]))
    np.testing.assert_allclose(guessed[0], grade(errors)[2].min(axis=0), atol=1e-5)
    assert deviation.max() < 1e-3


def test_the_best_of_every_model_is_tried_and_most_are_not() -> None:
    pool = gamma_pool(3)
    errors = smooth_errors(pool, 90)
    models = [inside_set(pool, members) for members in ([0], [0, 1], [0, 2], [1, 2], [0, 1, 2])]
    surface = ErrorSurface(pool, ALPHAS, 1000)
    wanted = worth_trying(surface, errors[surface.first], models)
    assert not wanted[surface.first].any()
    assert wanted[~surface.first].mean() < 0.5
    scored = wanted | surface.first[:, None]
    lowest = errors.min(axis=1)
    for inside in models:
        chosen = np.where(scored, lowest, np.inf)[inside].min(axis=0)
        lost = chosen - lowest[inside].min(axis=0)
        assert (lost == 0).mean() >= 0.95
        assert lost.mean() < 1e-4


def test_one_model_tries_less_than_all_and_voxels_do_not_know_each_other() -> None:
    pool = gamma_pool(3)
    errors = smooth_errors(pool, 40)
    surface = ErrorSurface(pool, ALPHAS, 1000)
    first, pair = errors[surface.first], inside_set(pool, [0, 1])
    whole = worth_trying(surface, first, [pair])
    assert not whole[~pair].any()
    np.testing.assert_array_equal(worth_trying(surface, first[:, :, 7:20], [pair]), whole[:, 7:20])


# --- The whole probe ---

Simulated = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    """As `simulation` has it; bands share less than they have of their own."""
    return simulation(0.5)


def simulation(shared: float) -> Simulated:
    """Bands of 72 + 48 + 96 delayed columns with falling spectra, which share a part; weak voxels, and null ones."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(8), N_TRS // 8)
    common = rng.standard_normal((N_TRS, 24))
    bands = {}
    for name, size in (("backbone", 18), ("low_level", 12), ("semantic", 24)):
        latent = (rng.standard_normal((N_TRS, size)) + shared * common[:, :size]) * np.arange(1, size + 1) ** -0.7
        bands[name] = latent @ np.linalg.qr(rng.standard_normal((size, size)))[0]
    parts = [np.roll(X, 2, axis=0) @ rng.standard_normal((X.shape[1], 120)) for X in bands.values()]
    shares = np.sqrt(rng.dirichlet(np.ones(3), 120)).T * np.sqrt(rng.uniform(0.05, 0.5, 120))
    shares[:, 80:] = 0
    Y = rng.standard_normal((N_TRS, 120))
    Y += sum(part / part.std(axis=0) * share for part, share in zip(parts, shares, strict=True))
    return bands, Y, groups, groups < 6, groups >= 6


def test_choices_are_those_of_all_mixtures_for_less_than_half_of_the_scores(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    losses = EigenSearch.cv_losses

    def counted(self: EigenSearch, gamma: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        asked.append(120 if targets is None else len(targets))
        return losses(self, gamma, targets)

    monkeypatch.setattr(EigenSearch, "cv_losses", counted)
    every = run_probe(*simulated, ALL)
    assert (sum(asked), every.meta["mixture_search"]) == (23 * 120, "all")
    asked.clear()
    coarse = run_probe(*simulated, COARSE)
    assert sum(asked) < 0.5 * 23 * 120
    assert coarse.meta["mixture_search"] == "coarse"
    for model, r in every.r_by_model.items():
        difference = coarse.r_by_model[model] - r
        assert abs(difference.mean()) < 3e-4
        assert (np.abs(difference) < 0.01).mean() >= 0.98
        same = coarse.gamma_index[model] == every.gamma_index[model]
        assert same.mean() > 0.95
        np.testing.assert_array_equal(coarse.alpha_index[model][same], every.alpha_index[model][same])


def test_bands_that_share_most_of_their_variance_get_the_same_scores() -> None:
    """What such bands do by twos does not say what they do by threes."""
    overlapping = simulation(1.5)
    every, coarse = run_probe(*overlapping, ALL), run_probe(*overlapping, COARSE)
    for model, r in every.r_by_model.items():
        difference = coarse.r_by_model[model] - r
        assert abs(difference.mean()) < 3e-4, model
        assert (np.abs(difference) < 0.01).mean() >= 0.98, model


def test_subjects_side_by_side_and_a_cache_change_nothing(simulated: Simulated) -> None:
    bands, Y, *rows = simulated
    both = run_probes(bands, {"a": Y[:, :50], "b": Y[:, 50:]}, *rows, COARSE)
    cache = ProbeCache()
    probe = partial(run_probe, bands, Y[:, 50:], *rows, cache=cache)
    alone = probe(COARSE)
    misses = cache.misses
    again = probe(COARSE)
    assert cache.misses == misses
    every, plain = probe(ALL), run_probe(bands, Y[:, 50:], *rows, ALL)
    for model in alone.r_by_model:
        for other in (both["b"], again):
            np.testing.assert_array_equal(other.gamma_index[model], alone.gamma_index[model])
        np.testing.assert_array_equal(every.gamma_ranking[model], plain.gamma_ranking[model])


@pytest.mark.parametrize("name", ["kernel", "himalaya"])
def test_the_kernel_solver_does_it_too_and_himalaya_scores_all(simulated: Simulated, name: str) -> None:
    bands, Y, *rows = simulated
    settings = replace(COARSE, solver=SolverConfig(name), n_gammas={1: 1, 2: 2, 3: 2})  # type: ignore[arg-type]
    found = run_probe(bands, Y[:, :40], *rows, settings)
    assert found.meta["mixture_search"] == ("all" if name == "himalaya" else "coarse")
    every = run_probe(bands, Y[:, :40], *rows, replace(settings, mixture_search="all"))
    assert abs((found.r - every.r).mean()) < 3e-4


def test_an_unknown_search_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown mixture_search 'course'. Did you mean 'coarse'"):
        ProbeConfig(mixture_search="course")  # type: ignore[arg-type]
