from __future__ import annotations

import inspect

import numpy as np
import pytest

import brainlit.encoding.permutation as permutation
from brainlit.encoding import block_difference_test, block_permutation_test, correlation, correlation_within, r2_within
from brainlit.encoding.arrays import demean_within
from brainlit.encoding.bootstrap import time_blocks

GROUPS = np.repeat([0, 1, 2], [70, 60, 75])
WHOLE = np.r_[0:200]  # the last five rows are no whole block


def scored(seed: int, quality: float, n_voxels: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((GROUPS.size, n_voxels))
    return y, quality * y + rng.standard_normal(y.shape)


def test_it_equals_moving_the_blocks_of_rows() -> None:
    y, p = scored(0, 0.1, 6)
    found = block_permutation_test(y, p, GROUPS, block_trs=10, n_permutations=150, seed=3)
    a, b = (demean_within(values[WHOLE], GROUPS[WHOLE]) for values in (y, p))
    a, b = a / np.linalg.norm(a, axis=0), b / np.linalg.norm(b, axis=0)
    orders = np.tile(np.arange(20), (151, 1))
    np.random.default_rng(3).permuted(orders[1:], axis=1, out=orders[1:])
    null = np.array([(a * b.reshape(20, 10, 6)[order].reshape(200, 6)).sum(axis=0) for order in orders])
    np.testing.assert_allclose(found.statistic, correlation_within(y[WHOLE], p[WHOLE], GROUPS[WHOLE]))
    np.testing.assert_allclose(found.p, ((null[1:] >= null[0]).sum(axis=0) + 1) / 151)
    highest = null[1:].max(axis=1)
    np.testing.assert_allclose(found.p_family, [((highest >= r).sum() + 1) / 151 for r in null[0]])
    assert (found.n_blocks, found.n_permutations, found.smallest_p) == (20, 150, 1 / 151)


def test_each_permutation_holds_every_block_once() -> None:
    """Blocks drawn with replacement, a published error, would give a null of another variance."""
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(7), (50, 1)), axis=1)
    moved = permutation._gather(orders).toarray().reshape(50, 7, 7)
    assert (moved.sum(axis=1) == 1).all()
    assert (moved.sum(axis=2) == 1).all()
    np.testing.assert_array_equal(moved.argmax(axis=2), orders)


def test_signal_is_found_noise_spared_and_p_is_never_zero() -> None:
    y, p = scored(2, 0.7)
    p[:, 10:] = scored(3, 0.0)[1][:, 10:]
    p[:, 19] = 1.0
    found = block_permutation_test(y, p, GROUPS, n_permutations=199)
    assert (found.p[:10] == 1 / 200).all()
    assert (found.p_family[:10] < 0.02).all()
    assert 0.2 < found.p[10:19].mean() < 0.8
    assert (found.p_family[:19] >= found.p[:19]).all()
    assert np.isnan([found.statistic[19], found.p[19], found.p_family[19]]).all()
    again, other = (block_permutation_test(y, p, GROUPS, n_permutations=199, seed=seed).p for seed in (0, 1))
    np.testing.assert_array_equal(found.p, again)
    assert not np.array_equal(found.p, other)


def test_differences_are_exchanges_of_predictions_by_block() -> None:
    """Sign flips of the blocks' contributions, against correlations of predictions that are really exchanged."""
    y, a = scored(4, 0.8, 5)
    b = scored(4, 0.75, 5)[1] + 0.4 * np.random.default_rng(1).standard_normal(a.shape)
    found = block_difference_test(y, a, b, GROUPS, block_trs=10, n_permutations=400, seed=2)
    y, a, b = (demean_within(values, GROUPS) for values in (y, a, b))
    a, b = a / a.std(axis=0), b / b.std(axis=0)
    np.testing.assert_allclose(found.statistic, correlation(y, a) - correlation(y, b))
    signs = np.random.default_rng(2).choice([-1.0, 1.0], size=(401, found.n_blocks))
    kept = (signs > 0)[1:, time_blocks(GROUPS, 10), None]
    null = np.array([correlation(y, np.where(k, a, b)) - correlation(y, np.where(k, b, a)) for k in kept])
    slow = ((np.abs(null) >= np.abs(found.statistic)).sum(axis=0) + 1) / 401
    np.testing.assert_allclose(found.p, slow, atol=0.02)


def test_difference_of_r2_is_exact_and_signs_are_symmetric() -> None:
    y, a = scored(5, 0.5, 6)
    b = scored(6, 0.5, 6)[1]
    found = block_difference_test(y, a, b, GROUPS, score="r2", n_permutations=99)
    np.testing.assert_allclose(found.statistic, r2_within(y, a, GROUPS) - r2_within(y, b, GROUPS))
    turned = block_difference_test(y, b, a, GROUPS, score="r2", n_permutations=99)
    np.testing.assert_allclose(turned.statistic, -found.statistic)
    np.testing.assert_array_equal(turned.p, found.p)
    better = block_difference_test(y, a, b, GROUPS, alternative="greater", n_permutations=99)
    worse = block_difference_test(y, b, a, GROUPS, alternative="greater", n_permutations=99)
    assert (better.p < 0.05).all()
    assert (worse.p > 0.95).all()
    assert (block_difference_test(y, a, a, GROUPS, n_permutations=99).p == 1).all()


def test_regions_are_means_over_their_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p = scored(7, 0.2, 12)
    p[:, 3] = 1.0
    regions = {"left": np.arange(12) < 6, "right": np.arange(12) > 5, "none": np.arange(12) == 3}
    found = block_permutation_test(y[WHOLE], p[WHOLE], GROUPS[WHOLE], regions=regions, block_trs=10, n_permutations=99)
    r = correlation_within(y[WHOLE], p[WHOLE], GROUPS[WHOLE])
    np.testing.assert_allclose(found.statistic, [np.nanmean(r[:6]), r[6:].mean(), np.nan])
    assert found.names == ("left", "right", "none")
    assert np.isnan(found.p).tolist() == [False, False, True]
    single = {str(k): np.arange(12) == k for k in range(12)}
    difference = block_difference_test(y, p, -p, GROUPS, n_permutations=99)
    by_region = block_difference_test(y, p, -p, GROUPS, regions=single, n_permutations=99)
    np.testing.assert_allclose(by_region.p_family, difference.p_family)
    monkeypatch.setattr(permutation, "MAX_VOXELS_AT_ONCE", 5)
    in_parts = block_difference_test(y, p, -p, GROUPS, n_permutations=99)
    np.testing.assert_array_equal(in_parts.p_family, difference.p_family)
    again = block_permutation_test(y[WHOLE], p[WHOLE], GROUPS[WHOLE], regions=regions, block_trs=10, n_permutations=99)
    np.testing.assert_allclose(again.p, found.p)


def test_few_blocks_say_how_small_p_can_be() -> None:
    y, p = scored(8, 3.0, 3)
    rows = slice(0, 50)
    test = block_difference_test(y[rows], p[rows], -p[rows], GROUPS[rows], block_trs=10)
    assert (test.n_blocks, test.smallest_p) == (5, 2 / 32)
    assert (test.p > 0.04).all()
    assert block_permutation_test(y[:40], p[:40], GROUPS[:40], block_trs=10).smallest_p == 1 / 24


def test_bad_calls_are_refused() -> None:
    y, p = scored(9, 0.5, 3)
    with pytest.raises(ValueError, match="need the same"):
        block_permutation_test(y, p[1:], GROUPS)
    with pytest.raises(ValueError, match="1 whole blocks of 70; lower"):
        block_permutation_test(y[:70], p[:70], GROUPS[:70], block_trs=70)
    with pytest.raises(ValueError, match="1 block of 70; lower"):
        block_difference_test(y[:70], p[:70], p[:70], GROUPS[:70], block_trs=70)


def test_options_go_by_name_and_the_global_random_state_is_left_alone() -> None:
    """A positional argument that lands in the wrong option is a published error, and so is an unseeded shuffle."""
    for function in (block_permutation_test, block_difference_test):
        options = list(inspect.signature(function).parameters.values())
        assert all(option.kind is option.KEYWORD_ONLY for option in options if option.default is not option.empty)
    y, p = scored(10, 0.5, 3)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - that nobody touches it is what is tested
    block_permutation_test(y, p, GROUPS, n_permutations=9)
    block_difference_test(y, p, p, GROUPS, n_permutations=9)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
