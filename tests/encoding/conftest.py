"""Small seeded problems with a known answer, shared by the room's tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from brainlit.encoding import delay_within

DELAYS = (1, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class Planted:
    """Bands, responses built from them, and the share of each source in the signal of every voxel."""

    bands: dict[str, np.ndarray]
    Y: np.ndarray
    groups: np.ndarray
    fit: np.ndarray
    score: np.ndarray
    truth: dict[str, np.ndarray]


def unit_response(X: np.ndarray, groups: np.ndarray, n_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """A linear response of unit variance to the delayed features, (n_trs, n_voxels)."""
    delayed = delay_within(X, groups, DELAYS)
    response = delayed @ rng.standard_normal((delayed.shape[1], n_voxels))
    return response / response.std(axis=0)


def make_planted(
    seed: int = 0, n_stories: int = 8, n_trs: int = 100, n_voxels: int = 60, noise: float = 1.0
) -> Planted:
    """Independent low-level, semantic and own sources; the backbone holds its own and some of the low-level one."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_stories), n_trs)
    low, semantic, own = (rng.standard_normal((groups.size, 3)) for _ in range(3))
    backbone = np.c_[own, 0.5 * low @ rng.standard_normal((3, 3)) + 0.5 * own]
    backbone += 0.1 * rng.standard_normal(backbone.shape)
    shares = rng.dirichlet(np.ones(3), n_voxels).T
    shares[:, : n_voxels // 4] = np.array([[0.6], [0.0], [0.4]])
    signal = sum(
        np.sqrt(share) * unit_response(X, groups, n_voxels, rng)
        for share, X in zip(shares, (low, semantic, own), strict=True)
    )
    Y = signal + noise * rng.standard_normal(signal.shape)
    score = groups >= n_stories - 2
    truth = dict(zip(("low_level", "semantic", "own"), shares, strict=True))
    return Planted({"backbone": backbone, "low_level": low, "semantic": semantic}, Y, groups, ~score, score, truth)


@pytest.fixture(scope="session")
def planted() -> Planted:
    return make_planted()
