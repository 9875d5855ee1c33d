"""Scores without each fit story, against ridges that are fitted again without it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

from brainlit.encoding import ProbeConfig, run_probe
from brainlit.encoding.left_out import jackknife_variance, left_out_parts, left_out_scores, p_with_fit

LENGTHS = (13, 9, 11, 10, 8)


def refitted(
    X: tuple[np.ndarray, np.ndarray],
    Y: tuple[np.ndarray, np.ndarray],
    kept: np.ndarray,
    alpha: float,
    halves: np.ndarray,
) -> tuple[float, float]:
    """r and R2 of one voxel by the normal equations on the rows that are left."""
    A, y = X[0][kept], Y[0][kept, 0]
    weights = np.linalg.solve(A.T @ A + alpha * np.eye(A.shape[1]), A.T @ y)
    p, y = X[1] @ weights, Y[1][:, 0].copy()
    for half in np.unique(halves):
        for values in (p, y):
            values[halves == half] -= values[halves == half].mean()
    return float(np.corrcoef(p, y)[0, 1]), float(1 - ((y - p) ** 2).sum() / (y**2).sum())


@pytest.mark.parametrize("n_features", [6, 70])
def test_it_is_what_a_fit_without_the_story_gives(n_features: int) -> None:
    rng = np.random.default_rng(0)
    groups, halves = np.repeat(np.arange(5), LENGTHS), np.repeat([7, 9], 12)
    X = rng.standard_normal((len(groups), n_features)), rng.standard_normal((24, n_features))
    Y = X[0][:, :3] + rng.standard_normal((len(groups), 3)), X[1][:, :3] + rng.standard_normal((24, 3))
    alphas = np.array([0.5, 20.0, 0.5])
    found = left_out_scores(X, Y, (groups, halves), alphas)
    for voxel, alpha in enumerate(alphas):
        own = (Y[0][:, [voxel]], Y[1][:, [voxel]])
        for story in range(5):
            r, r2 = refitted(X, own, groups != story, alpha, halves)
            assert found["r"][story, voxel] == pytest.approx(r, abs=1e-5)
            assert found["r2"][story, voxel] == pytest.approx(r2, abs=1e-5)


def test_many_stories_are_left_out_several_at_a_time_and_few_not_at_all() -> None:
    parts = left_out_parts(np.repeat(np.arange(50), 2))
    assert len(parts) == 20
    assert np.concatenate(parts).tolist() == list(range(100))
    assert {len(part) for part in parts} == {4, 6}
    assert left_out_parts([0, 0, 1, 1, 2, 2]) == []


def test_the_jackknife_of_a_mean_is_its_squared_standard_error() -> None:
    values = np.random.default_rng(1).standard_normal(12)
    without = np.array([np.delete(values, k).mean() for k in range(12)])
    assert jackknife_variance(without) == pytest.approx(values.var(ddof=1) / 12)


def test_p_is_that_of_its_only_source() -> None:
    normal, student = p_with_fit([1.7, 2.5], [1.0, 0.0], [0.0, 1.0], 6)
    assert normal == pytest.approx(2 * norm.sf(1.7))
    assert student == pytest.approx(2 * t.sf(2.5, 5))
    assert np.isnan(p_with_fit([np.nan], [1.0], [1.0], 6)).all()
    assert p_with_fit([0.0], [1.0], [1.0], 6)[0] == pytest.approx(1.0)


def test_a_probe_knows_it_unless_told_not_to() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(6), 30)
    X, fit = rng.standard_normal((180, 4)), groups < 5
    Y = np.roll(X, 1, axis=0) @ rng.standard_normal((4, 5)) + rng.standard_normal((180, 5))
    Y[:, 2] = 1.0
    config = {"delays_trs": (1,), "temporal": "fir", "alphas": (1.0, 10.0)}
    result = run_probe({"backbone": X}, Y, groups, fit, ~fit, ProbeConfig(**config))  # type: ignore[arg-type]
    left = result.left_out["r"]
    assert left.shape == (5, 5)
    assert np.isnan(left[:, 2]).all()
    whole, known = result.r_by_model["backbone"], np.arange(5) != 2
    np.testing.assert_allclose(left[:, known].mean(axis=0), whole[known], atol=0.02)
    assert (left[:, known] != whole[known]).all()
    off = run_probe({"backbone": X}, Y, groups, fit, ~fit, ProbeConfig(**config, leave_out_fit=False))  # type: ignore[arg-type]
    assert off.left_out == {}
    np.testing.assert_array_equal(off.r, result.r)


def test_the_jackknife_knows_how_far_a_score_moves_with_other_fit_stories() -> None:
    """The same scored rows, 150 other sets of 10 fit stories: their r scatter as the jackknife of each says."""
    rng = np.random.default_rng(3)
    weights, halves, groups = rng.standard_normal((20, 1)) / 4, np.zeros(120, dtype=int), np.repeat(np.arange(10), 25)
    scored = rng.standard_normal((120, 20))
    y = scored @ weights + rng.standard_normal((120, 1))
    y -= y.mean(axis=0)
    r, variances = [], []
    for _ in range(150):
        X = rng.standard_normal((250, 20))
        Y = X @ weights + rng.standard_normal((250, 1))
        r.append(refitted((X, scored), (Y, y), np.ones(250, dtype=bool), 10.0, halves)[0])
        left = left_out_scores((X, scored), (Y, y), (groups, halves), np.array([10.0]))["r"][:, 0]
        variances.append(jackknife_variance(left))
    assert 1.0 <= np.mean(variances) / np.var(r, ddof=1) <= 1.8, "on the safe side (Efron & Stein), and no more"
