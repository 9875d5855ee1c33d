from __future__ import annotations

import inspect

import numpy as np
import pytest

import brainlit.encoding.permutation as permutation
from brainlit.encoding import block_difference_test, circular_shift_test, correlation, correlation_within, r2_within
from brainlit.encoding.arrays import demean_within
from brainlit.encoding.bootstrap import time_blocks

GROUPS = np.repeat([0, 1, 2], [70, 60, 75])


def scored(seed: int, quality: float, n_voxels: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((GROUPS.size, n_voxels))
    return y, quality * y + rng.standard_normal(y.shape)


@pytest.mark.parametrize(("part_trs", "lengths"), [(100, [70, 60, 75]), (30, [35, 35, 30, 30, 37, 38])])
def test_it_equals_moving_rows_round_the_end_of_their_part(part_trs: int, lengths: list[int]) -> None:
    y, p = scored(0, 0.1, 6)
    found = circular_shift_test(y, p, GROUPS, part_trs=part_trs, n_permutations=150, seed=3)
    a, b = (demean_within(values, GROUPS) for values in (y, p))
    a, b = a / np.linalg.norm(a, axis=0), b / np.linalg.norm(b, axis=0)
    lags = np.random.default_rng(3).integers(0, lengths, size=(151, len(lengths)))[1:]
    parts = np.split(b, np.cumsum(lengths)[:-1])
    moved = [np.concatenate([np.roll(*pair, axis=0) for pair in zip(parts, row, strict=True)]) for row in lags]
    null = np.array([(a * one).sum(axis=0) for one in moved])
    statistic = correlation_within(y, p, GROUPS)
    np.testing.assert_allclose(found.statistic, statistic)
    np.testing.assert_allclose(found.p, ((null >= statistic).sum(axis=0) + 1) / 151)
    highest = null.max(axis=1)
    np.testing.assert_allclose(found.p_family, [((highest >= r).sum() + 1) / 151 for r in statistic])
    assert (found.n_blocks, found.n_permutations, found.smallest_p) == (len(lengths), 150, 1 / 151)


def test_of_one_short_story_all_shifts_are_tried() -> None:
    y, p = scored(1, 1.0, 4)
    y, p, groups = y[:40], p[:40], np.zeros(40)
    a, b = y - y.mean(axis=0), p - p.mean(axis=0)
    null = np.array([(a * np.roll(b, lag, axis=0)).sum(axis=0) for lag in range(40)])
    for seed in (0, 1):
        found = circular_shift_test(y, p, groups, seed=seed)
        np.testing.assert_allclose(found.p, (null >= null[0]).mean(axis=0))
        assert (found.smallest_p, found.n_permutations, found.n_blocks) == (1 / 40, 39, 1)


def test_signal_is_found_noise_spared_and_p_is_never_zero() -> None:
    y, p = scored(2, 0.7)
    p[:, 10:] = scored(3, 0.0)[1][:, 10:]
    p[:, 19] = 1.0
    found = circular_shift_test(y, p, GROUPS, n_permutations=199)
    assert (found.p[:10] == 1 / 200).all()
    assert (found.p_family[:10] < 0.02).all()
    assert 0.2 < found.p[10:19].mean() < 0.8
    assert (found.p_family[:19] >= found.p[:19]).all()
    assert np.isnan([found.statistic[19], found.p[19], found.p_family[19]]).all()
    again, other = (circular_shift_test(y, p, GROUPS, n_permutations=199, seed=seed).p for seed in (0, 1))
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
    kept = (signs > 0)[1:, time_blocks(GROUPS, 10, 300), None]
    null = np.array([correlation(y, np.where(k, a, b)) - correlation(y, np.where(k, b, a)) for k in kept])
    slow = ((np.abs(null) >= np.abs(found.statistic)).sum(axis=0) + 1) / 401
    np.testing.assert_allclose(found.p, slow, atol=0.02)


@pytest.mark.parametrize("score", ["r", "r2"])
def test_contributions_are_what_deleted_rows_take_away(score: str) -> None:
    """Against scores of the rows that are left, demeaned anew; the stories are blocks of 20, or one and a half."""
    groups = np.repeat([0, 1, 2], [50, 29, 41])
    rng = np.random.default_rng(7)
    y = rng.standard_normal((120, 3)) + 5.0
    a, b = 0.6 * y + rng.standard_normal(y.shape), 0.4 * y + rng.standard_normal(y.shape)
    block_of_row = time_blocks(groups, 20, 300)
    assert np.bincount(block_of_row).tolist() == [17, 17, 16, 29, 21, 20]
    starts = np.flatnonzero(np.diff(block_of_row, prepend=-1))
    centred = [demean_within(values, groups) for values in (y, a, b)]
    found = permutation._contributions(centred, groups, starts, score)  # type: ignore[arg-type]
    of = correlation_within if score == "r" else r2_within
    whole = of(y, a, groups) - of(y, b, groups)
    np.testing.assert_allclose(found.sum(axis=0), whole)
    loss = []
    for k in range(6):
        left = block_of_row != k
        rest = of(y[left], a[left], groups[left]) - of(y[left], b[left], groups[left])
        loss.append(np.mean(left) * (whole - rest))
    share = np.bincount(block_of_row)[:, None] / 120
    np.testing.assert_allclose(found, loss + share * (whole - np.sum(loss, axis=0)))


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
    found = circular_shift_test(y, p, GROUPS, regions=regions, n_permutations=99)
    r = correlation_within(y, p, GROUPS)
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
    again = circular_shift_test(y, p, GROUPS, regions=regions, n_permutations=99)
    np.testing.assert_allclose(again.p, found.p)


def test_few_blocks_say_how_small_p_can_be() -> None:
    y, p = scored(8, 3.0, 3)
    rows = slice(0, 50)
    test = block_difference_test(y[rows], p[rows], -p[rows], GROUPS[rows], block_trs=10)
    assert (test.n_blocks, test.smallest_p) == (5, 2 / 32)
    assert (test.p > 0.04).all()


def test_bad_calls_are_refused() -> None:
    y, p = scored(9, 0.5, 3)
    with pytest.raises(ValueError, match="need the same"):
        circular_shift_test(y, p[1:], GROUPS)
    with pytest.raises(ValueError, match="stories of 1 rows cannot be shifted"):
        circular_shift_test(y[:2], p[:2], np.arange(2))
    slow = np.cumsum(y, axis=0)
    with pytest.raises(ValueError, match=r"3 shifted parts of 205 rows hide .* parts of \d+ rows or more"):
        circular_shift_test(slow, slow[::-1], GROUPS)
    with pytest.raises(ValueError, match="part_trs is 0"):
        circular_shift_test(y, p, GROUPS, part_trs=0)
    with pytest.raises(ValueError, match="1 block of 70; lower"):
        block_difference_test(y[:70], p[:70], p[:70], GROUPS[:70], block_trs=70)


def test_options_go_by_name_and_the_global_random_state_is_left_alone() -> None:
    """A positional argument that lands in the wrong option is a published error, and so is an unseeded shuffle."""
    for function in (circular_shift_test, block_difference_test):
        options = list(inspect.signature(function).parameters.values())
        assert all(option.kind is option.KEYWORD_ONLY for option in options if option.default is not option.empty)
    y, p = scored(10, 0.5, 3)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - that nobody touches it is what is tested
    circular_shift_test(y, p, GROUPS, n_permutations=9)
    block_difference_test(y, p, p, GROUPS, n_permutations=9)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
