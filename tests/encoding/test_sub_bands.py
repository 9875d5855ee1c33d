"""The finer cut: parts of the low-level band each get back what was planted in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainlit.encoding import ProbeCache, ProbeConfig, ProbeResult, load_probe, run_probe, save_probe
from brainlit.encoding.sub_bands import gather_bands, sub_band_pool

from .conftest import unit_response

GROUPS = np.repeat(np.arange(6), 80)
SCORE = GROUPS >= 4
FINER = ProbeConfig(n_gammas={1: 1, 2: 2, 3: 4}, low_level_impact=False, sub_bands=True)


def bands_and_responses() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """10 voxels of the spectrum, 10 of the rates, 10 of half of each; phonemic features explain nothing."""
    rng = np.random.default_rng(0)
    spectral, phonemic, rates, own = (rng.standard_normal((GROUPS.size, n)) for n in (4, 3, 2, 3))
    sound, pace = (unit_response(X, GROUPS, 30, rng) for X in (spectral, rates))
    kind = np.repeat([0, 1, 2], 10)
    signal = np.where(kind == 0, sound, np.where(kind == 1, pace, (sound + pace) / np.sqrt(2)))
    bands = {
        "low_level/spectral": spectral,
        "backbone": np.c_[own, spectral + rng.standard_normal(spectral.shape)],
        "low_level/phonemic": phonemic,
        "low_level/rates": rates,
    }
    return bands, signal + rng.standard_normal(signal.shape)


@pytest.fixture(scope="module")
def result() -> ProbeResult:
    return run_probe(*bands_and_responses(), GROUPS, ~SCORE, SCORE, FINER)


def test_planted_parts_come_back(result: ProbeResult) -> None:
    assert set(result.sub_split) == {"backbone", "low_level/spectral", "low_level/phonemic", "low_level/rates"}
    assert set(result.sub_unique) == set(result.sub_split) - {"backbone"}
    rates, spectral, phonemic = (result.sub_unique[f"low_level/{name}"] for name in ("rates", "spectral", "phonemic"))
    assert np.abs(rates[:10]).max() < 0.05
    assert rates[10:20].mean() == pytest.approx(0.5, abs=0.07)
    assert rates[20:].mean() == pytest.approx(0.25, abs=0.07)
    assert spectral[:10].mean() > 0.2 > 0.05 > np.abs(spectral[10:20]).max()
    assert abs(phonemic.mean()) < 0.01
    assert sum(values[20:].mean() for values in result.sub_split.values()) == pytest.approx(
        result.r2[20:].mean(), abs=0.02
    )


def test_whole_bands_are_what_they_are_without_the_finer_cut(result: ProbeResult) -> None:
    bands, Y = bands_and_responses()
    low_level = np.concatenate([X for band, X in bands.items() if band != "backbone"], axis=1)
    whole = {"backbone": bands["backbone"], "low_level": low_level}
    plain = run_probe(whole, Y, GROUPS, ~SCORE, SCORE, ProbeConfig(n_gammas=FINER.n_gammas, low_level_impact=False))
    assert plain.sub_split == plain.sub_unique == {}
    assert result.partition.keys() == plain.partition.keys() == {"backbone", "low_level", "backbone&low_level"}
    for part, values in plain.partition.items():
        np.testing.assert_allclose(result.partition[part], values, atol=1e-6)
    coarse = run_probe(bands, Y, GROUPS, ~SCORE, SCORE, ProbeConfig(n_gammas=FINER.n_gammas, low_level_impact=False))
    np.testing.assert_array_equal(coarse.r, result.r)
    assert coarse.sub_split == {}


def test_sub_bands_are_cached_and_saved(result: ProbeResult, tmp_path: Path) -> None:
    cache = ProbeCache()
    bands, Y = bands_and_responses()
    run_probe(bands, Y, GROUPS, ~SCORE, SCORE, FINER, cache=cache)
    hits = cache.hits
    again = run_probe(
        {**bands, "backbone": bands["backbone"][::-1].copy()}, Y, GROUPS, ~SCORE, SCORE, FINER, cache=cache
    )
    assert cache.hits - hits >= 2 + 3 + 3
    assert again.sub_split.keys() == result.sub_split.keys()
    loaded = load_probe(save_probe(result, tmp_path / "probe.h5"))
    for name, values in result.sub_unique.items():
        np.testing.assert_array_equal(loaded.sub_unique[name], values)


def test_a_model_without_a_sub_band_has_the_joint_models_mixtures() -> None:
    names = ("backbone", "low_level/rates", "low_level/spectral")
    pool = sub_band_pool(names, {1: 1, 2: 2, 3: 3}, seed=0)
    assert pool.shape == (3 + 3 * 3, 3)
    np.testing.assert_allclose(pool.sum(axis=1), 1.0)
    joint, without = pool[3:6], pool[6:9]
    assert (joint > 0).all()
    assert (without[:, 1] == 0).all()
    np.testing.assert_allclose(without[:, 0] / without[:, 2], joint[:, 0] / joint[:, 2])


def test_a_band_comes_whole_or_in_parts() -> None:
    one = np.ones((3, 1))
    whole, parts = gather_bands(
        {"semantic": one, "low_level/rates": one, "backbone": one, "low_level/phonemic": 2 * one}
    )
    assert list(whole) == ["backbone", "low_level", "semantic"]
    assert list(parts) == ["backbone", "low_level/rates", "low_level/phonemic", "semantic"]
    np.testing.assert_array_equal(whole["low_level"], [[1, 2]] * 3)
    with pytest.raises(ValueError, match="'low_level' is given whole and as low_level/rates"):
        gather_bands({"low_level": one, "low_level/rates": one})
    with pytest.raises(ValueError, match="at least one of backbone"):
        gather_bands({"syntax/depth": one})
