"""Bands with constant and dependent columns, and values that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainlit.encoding import ProbeConfig, SolverConfig, TemporalBand, run_probe
from brainlit.encoding.arrays import NotFiniteError, naming
from brainlit.encoding.bands import principal_axes
from brainlit.encoding.decompositions import DOUBLE_UP_TO, checked_eigh
from brainlit.encoding.search import SearchTable, best_alphas, choose

GROUPS = np.repeat(np.arange(10), 60)
SCORE = GROUPS >= 8


def sparse_columns(seed: int, n_columns: int = 160, n_live: int = 16, n_rows: int = 400) -> np.ndarray:
    """Columns of which most are 0, scattered as in a delayed band with constant features; mean squared norm 1."""
    rng = np.random.default_rng(seed)
    X = np.zeros((n_rows, n_columns), dtype=np.float32)
    live = rng.choice(n_columns // 4, n_live // 4, replace=False)
    for delay in range(4):
        X[:, delay * n_columns // 4 + live] = np.roll(rng.standard_normal((n_rows, n_live // 4)), delay, axis=0)
    return X / np.float32(np.sqrt(np.square(X).sum(axis=1).mean()))


def test_scattered_zero_columns_decompose_as_numpy_says_in_double() -> None:
    """torch's eigh in float32 gives NaN, or fails, for most of these."""
    for seed in range(60):
        X = sparse_columns(seed)
        gram = torch.from_numpy(X.T @ X)
        eigenvalues, vectors = checked_eigh(gram)
        expected = np.linalg.eigvalsh(X.T.astype(np.float64) @ X)[-16:]
        np.testing.assert_allclose(eigenvalues.numpy(), expected, rtol=1e-4)
        np.testing.assert_allclose((vectors * eigenvalues @ vectors.T).numpy(), gram.numpy(), atol=1e-5)
        assert not vectors[~X.any(axis=0)].any()
        assert vectors.shape == (160, 16)


def test_principal_axes_of_bands_with_constant_features_are_finite_and_keep_the_kernel() -> None:
    for seed in range(20):
        X = sparse_columns(seed)
        axes = principal_axes(X, 0.999)
        assert axes is not None
        np.testing.assert_allclose((X @ axes) @ (X @ axes).T, X @ X.T, atol=2e-3 * np.square(X).sum(axis=1).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_matrices(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    dependent = torch.as_tensor(rng.standard_normal((300, 4)) @ rng.standard_normal((4, 40)), dtype=dtype)
    for X in (dependent, dependent.T, torch.zeros((5, 3), dtype=dtype), torch.zeros((5, 0), dtype=dtype)):
        gram = X.T @ X
        eigenvalues, vectors = checked_eigh(gram)
        assert eigenvalues.dtype == vectors.dtype == dtype
        np.testing.assert_allclose((vectors * eigenvalues @ vectors.T).numpy(), gram.numpy(), atol=2e-3)


def test_a_decomposition_that_failed_in_float32_is_made_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, asked = torch.linalg.eigh, []

    def broken(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(matrix.dtype)
        eigenvalues, vectors = plain(matrix)
        return eigenvalues, vectors if matrix.dtype == torch.float64 else vectors.flip(0)

    X = torch.randn((20, DOUBLE_UP_TO + 1), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch.linalg, "eigh", broken)
    eigenvalues, vectors = checked_eigh(X.T @ X)
    assert asked == [torch.float32, torch.float64]
    assert vectors.dtype == torch.float32
    np.testing.assert_allclose((vectors * eigenvalues @ vectors.T).numpy(), (X.T @ X).numpy(), atol=1e-3)
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: [part * np.nan for part in plain(matrix)])
    with pytest.raises(NotFiniteError, match=r"the kernel of this test .*cannot be decomposed"):
        checked_eigh(X.T @ X, "the kernel of this test")


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    gram = torch.eye(3)
    gram[1, 2] = torch.nan
    with pytest.raises(NotFiniteError, match=r"products of X \(3 x 3\) holds NaN"):
        checked_eigh(gram, "products of X")
    losses = np.ones((3, 4))
    losses[1, 2] = np.nan
    with pytest.raises(NotFiniteError, match=r"1 of 4 targets"):
        best_alphas(losses, np.array([0.1, 1.0, 10.0]))
    scores = np.full((2, 4), -np.inf)
    scores[1] = 0.5
    chosen = choose(SearchTable(np.eye(2), scores, np.zeros((2, 4), dtype=np.int64)))
    assert chosen.gamma_index.tolist() == [1] * 4
    scores[0, 3] = np.nan
    with pytest.raises(NotFiniteError, match=r"1 of 4 targets"):
        choose(SearchTable(np.eye(2), scores, np.zeros((2, 4), dtype=np.int64)))


def test_errors_name_the_band() -> None:
    with pytest.raises(NotFiniteError, match=r"^band 'semantic': oh"), naming("band 'semantic'"):
        raise NotFiniteError("oh")


@pytest.mark.parametrize("solver", ["auto", "primal", "kernel", "himalaya", "himalaya_group"])
@pytest.mark.parametrize("n_live", [4, 1])
def test_constant_features_change_no_number_of_a_probe(solver: str, n_live: int) -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((GROUPS.size, n_live))
    Y = np.roll(features, 2, axis=0) @ rng.standard_normal((n_live, 6)) + rng.standard_normal((GROUPS.size, 6))
    among = np.full((GROUPS.size, 40), 3.0)
    among[:, 5 : 5 + 9 * n_live : 9] = features
    low = rng.standard_normal((GROUPS.size, 2))
    config = ProbeConfig(n_gammas={1: 1, 2: 1}, alphas=(0.1, 1.0, 10.0), solver=SolverConfig(solver), temporal="fir")
    alone, beside = (
        run_probe({"backbone": X, "low_level": low}, Y, GROUPS, ~SCORE, SCORE, config) for X in (features, among)
    )
    assert (alone.r_by_model["backbone"] > 0.3).all()
    for model, r in alone.r_by_model.items():
        np.testing.assert_allclose(beside.r_by_model[model], r, atol=2e-3)
    for way, rest in alone.r_rest.items():
        np.testing.assert_allclose(beside.r_rest[way], rest, atol=2e-3)


def test_a_probe_whose_ridge_overflows_says_so_and_names_the_bands() -> None:
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((GROUPS.size, 3)), rng.standard_normal((GROUPS.size, 4))
    config = ProbeConfig(low_level_impact=False, alphas=(1e-300, 1.0), temporal="fir", keep_scale=("semantic",))
    band = TemporalBand({"hrf": 1e30 * X}, keeps_scale=True)
    run_probe({"semantic": band}, Y, GROUPS, ~SCORE, SCORE, config)  # its size is taken out: nothing overflows
    with pytest.raises(NotFiniteError, match=r"band 'semantic'.*too large"):
        run_probe({"semantic": TemporalBand({"hrf": 1e300 * X}, keeps_scale=True)}, Y, GROUPS, ~SCORE, SCORE, config)
