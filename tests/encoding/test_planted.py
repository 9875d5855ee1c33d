"""Voxels with known parts: the split and the partition find them again."""

from __future__ import annotations

import numpy as np

from brainlit.encoding import ProbeConfig, run_probe
from tests.encoding.conftest import Planted


def test_shares_of_two_independent_bands_are_recovered(planted: Planted) -> None:
    bands = {band: planted.bands[band] for band in ("low_level", "semantic")}
    result = run_probe(bands, planted.Y, planted.groups, planted.fit, planted.score)
    explained = sum(result.split.values())
    known = planted.truth["low_level"] + planted.truth["semantic"]
    strong = known > 0.3
    for band in bands:
        share = result.split[band][strong] / explained[strong]
        assert np.abs(share - planted.truth[band][strong] / known[strong]).mean() < 0.1


def test_voxels_without_semantics_have_no_semantic_part(planted: Planted) -> None:
    result = run_probe(planted.bands, planted.Y, planted.groups, planted.fit, planted.score)
    without, with_some = planted.truth["semantic"] == 0, planted.truth["semantic"] > 0.3
    assert np.abs(result.partition["semantic"][without]).max() < 0.03
    assert abs(result.partition["semantic"][without].mean()) < 0.01
    assert result.partition["semantic"][with_some].min() > 0.05
    error = result.partition["semantic"][with_some] - planted.truth["semantic"][with_some] / 2
    assert np.abs(error).mean() < 0.05


def test_what_only_the_backbone_holds_is_its_unique_part(planted: Planted) -> None:
    result = run_probe(planted.bands, planted.Y, planted.groups, planted.fit, planted.score)
    own = planted.truth["own"]
    assert np.corrcoef(result.partition["backbone"], own)[0, 1] > 0.9
    assert np.abs(result.partition["backbone"] - own / 2).mean() < 0.05
    assert result.partition["backbone&low_level"][planted.truth["low_level"] > 0.5].mean() > 0.1


def test_a_response_is_found_at_its_own_delay_only() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 80)
    X = rng.standard_normal((groups.size, 2))
    Y = np.zeros((groups.size, 3))
    for group in range(6):
        rows = np.flatnonzero(groups == group)
        Y[rows[2:], :2] = X[rows[:-2]]
    Y += 0.5 * rng.standard_normal(Y.shape)
    score = groups >= 4
    found = {
        delay: run_probe({"backbone": X}, Y, groups, ~score, score, ProbeConfig(delays_trs=(delay,))).r
        for delay in (1, 2, 3)
    }
    assert found[2][:2].min() > 0.85
    assert max(np.abs(found[1]).mean(), np.abs(found[3]).mean(), abs(found[2][2])) < 0.2
