"""What a probe leaves out to stay within a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from brainlit.probing.budget import Costs, ProbeScope, pilot, reduce_scope, sample_voxels, spread_layers

WHOLE = ProbeScope(tuple(range(13)), 1.0, {1: 1, 2: 4, 3: 8})
COSTS = Costs(10.0, 2.0, 0.001, 40_000, {"backbone": 1000, "low_level": 400, "semantic": 1000})


def test_layers_go_first_then_voxels_then_mixtures() -> None:
    seen = [reduce_scope(WHOLE, 9, budget_s, COSTS) for budget_s in (10_000, 4_800, 3_000, 1_000, 200, 1)]
    assert seen[0] == WHOLE
    assert (len(seen[1].layers), seen[1].voxel_share) == (7, 1.0)
    assert (seen[2].layers, seen[2].voxel_share, seen[2].n_gammas) == ((9,), 0.5, WHOLE.n_gammas)
    assert seen[3].voxel_share == 0.125
    assert seen[4].n_gammas == {1: 1, 2: 1, 3: 2}
    assert seen[5] == ProbeScope((9,), 0.0625, {1: 1, 2: 1, 3: 1})
    for scope, budget_s in zip(seen[:5], (10_000, 4_800, 3_000, 1_000, 200), strict=True):
        assert 9 in scope.layers
        assert COSTS.seconds(scope) <= budget_s


def test_a_search_from_coarse_to_fine_takes_less_of_the_voxels_and_all_decompositions() -> None:
    fixed_alone, many = replace(COSTS, voxel_s=0.0), ProbeScope((9,), 1.0, {1: 1, 2: 1000, 3: 1000})
    assert replace(fixed_alone, coarse=True).partition_s(WHOLE) == fixed_alone.partition_s(WHOLE)
    by_voxels = replace(COSTS, fixed_s=0.0)
    shares = [
        replace(by_voxels, coarse=True).partition_s(scope) / by_voxels.partition_s(scope) for scope in (WHOLE, many)
    ]
    # 2 residuals, 2.16 single bands, 7.92 of each mixture of two (1 + 0.3 * 3 of 4), 5.76 of three (1 + 0.3 * 7 of 8)
    assert shares == pytest.approx([(4.16 + 7.92 * 1.9 + 5.76 * 3.1) / (4.16 + 7.92 * 4 + 5.76 * 8), 0.3], abs=0.01)
    first_ones_alone = ProbeScope((9,), 1.0, {1: 1, 2: 1, 3: 1})
    assert replace(by_voxels, coarse=True).partition_s(first_ones_alone) == by_voxels.partition_s(first_ones_alone)


def test_voxels_may_have_to_stay() -> None:
    start = ProbeScope(WHOLE.layers, 0.5, WHOLE.n_gammas)
    assert reduce_scope(start, 9, 1_000, COSTS, keep_voxels=True).voxel_share == 0.5


def test_costs_are_set_right_by_what_a_probe_took() -> None:
    scope = ProbeScope((0, 6, 12), 0.5, {1: 1, 2: 2, 3: 4})
    right = COSTS.corrected(scope, features_s=30.0, partition_s=500.0, layers_s=40.0)
    assert right.seconds(scope) == pytest.approx(570.0)
    again = right.corrected(scope, 30.0, 250.0, 40.0)
    assert again.partition_s(scope) == pytest.approx(250.0)
    assert again.layer_s(WHOLE) > again.layer_s(scope)


def test_the_pilot_finds_a_line() -> None:
    assert pilot(lambda n_voxels: 3.0 + 0.01 * n_voxels, 10_000) == pytest.approx((3.0, 0.01))
    assert pilot(lambda n_voxels: 3.0, 1) == pytest.approx((3.0, 0.0))
    assert pilot(lambda n_voxels: 5.0 - 0.001 * n_voxels, 100)[1] == 0.0


def test_every_region_keeps_voxels_and_dropped_ones_are_not_drawn() -> None:
    n_voxels = 4_000
    regions = {name: np.zeros(n_voxels, dtype=bool) for name in ("large", "small", "tiny")}
    regions["large"][:3000], regions["small"][2900:3100], regions["tiny"][3500:3508] = True, True, True
    usable = np.ones(n_voxels, dtype=bool)
    usable[::7] = False
    chosen = sample_voxels(regions, usable, 0.1, seed=3)
    assert usable[chosen].all()
    assert (np.diff(chosen) > 0).all()
    counts = {name: int(mask[chosen].sum()) for name, mask in regions.items()}
    assert counts["tiny"] == int((regions["tiny"] & usable).sum())
    assert counts["small"] == 40
    assert 240 < counts["large"] < 300
    gaps = np.diff(chosen[chosen < 2900])
    assert gaps.max() <= 14
    np.testing.assert_array_equal(chosen, sample_voxels(regions, usable, 0.1, seed=3))
    assert not np.array_equal(chosen, sample_voxels(regions, usable, 0.1, seed=4))
    np.testing.assert_array_equal(sample_voxels(regions, usable, 1.0, 3), np.flatnonzero(usable))


def test_layers_are_spread_evenly() -> None:
    assert [spread_layers(range(5), 4, n) for n in (1, 2, 3, 5)] == [(4,), (0, 4), (0, 3, 4), (0, 1, 2, 3, 4)]


def test_what_is_left_out_survives_json_and_is_said() -> None:
    scope = ProbeScope((0, 12), 0.125, {1: 1, 2: 2, 3: 4})
    assert ProbeScope.from_json(scope.json()) == scope
    assert scope.left_out_words(WHOLE).startswith(
        "2 of 13 layers, 12.5 % of the voxels, mixtures per number of bands {1: 1, 2: 2"
    )
    assert WHOLE.left_out_words(WHOLE) == ""
