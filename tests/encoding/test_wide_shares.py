"""Shares of bands with falling spectra: whole at two rows per column, of components, and what cutting them would do.

The small form of `python -m tests.benchmarks.wide_shares`, whose table is in docs/calibration.md.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from brainlit.encoding import BANDS, ProbeConfig, model_name, partition_variance, region_shares, subsets
from tests.benchmarks.wide_shares import MIXTURES, NULL_PARTS, PARTS, SOUND, Cell, Found, measure
from tests.encoding.simulate_wide import DELAYS, Wide, directions_of, draw_world, shares, simulate_wide

NARROW = Wide(16, 3, 6, n_voxels=8)
WHOLE = Cell("100 columns", NARROW, 230, 300)
WIDE = Cell("200 columns, 25 of them components", Wide(40, 3, 6, n_voxels=8), 300, 300, components=25)
N_SETS = 40


def check(found: Found, parts: tuple[str, ...] = PARTS) -> None:
    """Coverage is 95 %, give or take what so few data sets can tell, and no part is off by more than 0.04."""
    of = [PARTS.index(part) for part in parts]
    errors, hits = np.array(found.errors)[:, of], np.array(found.hits)[:, of]
    tell = 2.5 * max(hits.mean(axis=1).std() / np.sqrt(len(hits)), 0.005)
    assert hits.mean() > 0.93 - tell, f"{hits.mean():.3f} +- {tell:.3f}"
    limit = 0.02 + 2.5 * errors.std(axis=0) / np.sqrt(len(errors))
    assert (np.abs(errors.mean(axis=0)) < limit).all(), errors.mean(axis=0)


@pytest.mark.parametrize("cell", [WHOLE, WIDE], ids=["whole", "components"])
def test_shares_cover_at_two_rows_per_column(cell: Cell) -> None:
    check(measure(cell, MIXTURES, N_SETS, 0, cut=False))
    check(measure(cell, SOUND, N_SETS, 0, cut=False), NULL_PARTS)


def test_bands_that_were_cut_would_not_cover() -> None:
    cut = replace(WHOLE, n_fit=200)
    with pytest.raises(AssertionError):
        check(measure(cut, MIXTURES, N_SETS, 0, cut=True))
    with pytest.raises(AssertionError):
        check(measure(cut, SOUND, N_SETS, 0, cut=True), NULL_PARTS)


def test_shares_of_components_are_those_of_the_band_of_these_components() -> None:
    data = simulate_wide(0, 400, 300, NARROW, n_other=300)
    given = (data.Y, data.groups, data.fit, data.score)
    found = region_shares(data.bands, *given, backbone_components=20)
    assert found.is_cut
    assert found.n_columns["backbone"] == 20
    assert 0.4 < found.kept_variance < 0.95
    directions = directions_of(data, 20)
    components = np.zeros((len(data.Y), 20))
    for story in np.unique(data.groups):
        own = np.flatnonzero(data.groups == story)
        for delay, weights in zip(DELAYS, directions, strict=True):
            X = data.bands["backbone"][own] - data.bands["backbone"][own].mean(axis=0)
            components[own[delay:]] += X[:-delay] @ weights
    late = {band: _delayed(data.bands[band], data.groups) for band in ("low_level", "semantic")}
    expected = region_shares({"backbone": components, **late}, *given, ProbeConfig(delays_trs=(0,)))
    for part, share in expected.parts.items():
        assert found.parts[part].value == pytest.approx(share.value, abs=2e-3)


def _delayed(X: np.ndarray, groups: np.ndarray) -> np.ndarray:
    late = np.zeros((len(X), len(DELAYS), X.shape[1]))
    for story in np.unique(groups):
        own = np.flatnonzero(groups == story)
        for k, delay in enumerate(DELAYS):
            late[own[delay:], k] = (X[own] - X[own].mean(axis=0))[:-delay]
    return late.reshape(len(X), -1)


def test_a_backbone_of_all_its_components_is_whole() -> None:
    data = simulate_wide(0, 400, 300, NARROW, n_other=300)
    given = (data.bands, data.Y, data.groups, data.fit, data.score)
    whole, found = region_shares(*given), region_shares(*given, backbone_components=64)
    assert not found.is_cut
    assert found.kept_variance == pytest.approx(1.0)
    assert found.parts["backbone"].value == pytest.approx(whole.parts["backbone"].value, abs=1e-4)


def test_components_need_other_stories_and_a_backbone() -> None:
    data = simulate_wide(0, 400, 300, NARROW)
    given = (data.Y, data.groups, data.fit, data.score)
    with pytest.raises(ValueError, match=r"backbone_components is 20.*on 0 rows.*neither fitted nor scored"):
        region_shares(data.bands, *given, backbone_components=20)
    only = {"low_level": data.bands["low_level"]}
    with pytest.raises(ValueError, match=r"backbone_components is 20.*no backbone.*low_level"):
        region_shares(only, *given, backbone_components=20)


def test_the_truth_is_the_same_block_by_block_and_what_noise_free_signals_give() -> None:
    setting = replace(NARROW, signal=(1.0, 1.0), n_voxels=3)
    data = simulate_wide(1, 6_000, 6_000, setting)
    every = np.zeros((len(DELAYS), 16, 64))
    for k in range(len(DELAYS)):
        every[k, :, 16 * k : 16 * (k + 1)] = np.eye(16)
    known, again = shares(data.world), shares(data.world, every)
    columns = {band: _delayed(X, data.groups) for band, X in data.bands.items()}
    explained = {}
    for model in subsets(BANDS):
        X = np.concatenate([columns[band] for band in model], axis=1)
        left = data.Y[data.score] - X[data.score] @ np.linalg.lstsq(X[data.fit], data.Y[data.fit], rcond=1e-9)[0]
        explained[model_name(model)] = np.array([(np.var(data.Y[data.score], axis=0) - np.var(left, axis=0)).sum()])
    found = partition_variance(explained, BANDS)
    for part, value in known.items():
        assert again[part] == pytest.approx(value, abs=1e-6)
        assert found[part][0] / explained[model_name(BANDS)][0] == pytest.approx(value, abs=0.02)


def test_what_follows_sound_alone_has_no_semantic_part_in_truth() -> None:
    known = shares(draw_world(0, replace(NARROW, fractions=SOUND[0])))
    assert all(abs(known[part]) < 1e-9 for part in NULL_PARTS)
    assert known["backbone&low_level"] > 0.1
