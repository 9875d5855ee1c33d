from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import (
    BlockDraws,
    block_bootstrap,
    block_bootstrap_difference,
    block_difference_test,
    block_weights,
    correlation_within,
    hierarchical_bootstrap,
    r2_within,
    region_replicates,
)
from brainlit.encoding.arrays import NotFiniteError
from brainlit.encoding.bootstrap import time_blocks
from brainlit.encoding.hierarchical import _replicates, mean_variance
from brainlit.encoding.statistics import lost_between_blocks, percentile_interval, small_sample_factor

GROUPS = np.repeat([0, 1, 2], [70, 60, 75])


def scored(seed: int, quality: float, n_voxels: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((GROUPS.size, n_voxels))
    return y, quality * y + rng.standard_normal(y.shape)


def test_draws_and_replicates_are_those_of_reports() -> None:
    """Written down because reports depend on them: another stream of draws would move every interval."""
    groups, rng = np.repeat([0, 1], [47, 33]), np.random.default_rng(0)
    y = rng.standard_normal((80, 5))
    p = 0.5 * y + rng.standard_normal((80, 5))
    block_of_row, weights = block_weights(groups, 10, 3, seed=0)
    assert np.bincount(block_of_row).tolist() == [10, 9, 10, 9, 9, 11, 11, 11]
    assert weights.tolist() == [[1, 0, 0, 0, 4, 2, 0, 1], [2, 2, 0, 1, 0, 1, 0, 2], [1, 2, 1, 0, 1, 2, 1, 0]]
    r, r2 = region_replicates(y, p, groups, {"": np.ones(5, dtype=bool)}, (block_of_row, weights))[""]
    np.testing.assert_allclose(r, [0.5386478867430355, 0.4674779884469061, 0.4137315161551062], rtol=1e-12)
    np.testing.assert_allclose(r2, [-0.16704632788329216, -0.4157283351853415, -0.4310901225832775], rtol=1e-11)


@pytest.mark.parametrize("over", ["time", "stories"])
def test_replicates_equal_rows_copied_one_by_one(over: str) -> None:
    y, p = scored(6, 0.5, 4)
    y, p = y + 3.0, p - 2.0
    block_of_row, weights = block_weights(GROUPS, 10, 6, 0, over)
    everywhere = {"": np.ones(4, dtype=bool)}
    fast_r, fast_r2 = region_replicates(y, p, GROUPS, everywhere, (block_of_row, weights))[""]
    for k, draw in enumerate(weights):
        rows = np.repeat(np.arange(GROUPS.size), draw[block_of_row].astype(int))
        a, b = (np.concatenate([part - part.mean(axis=0) for part in _by_story(v[rows], GROUPS[rows])]) for v in (y, p))
        r = (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
        assert fast_r[k] == pytest.approx(r.mean())
        assert fast_r2[k] == pytest.approx((1 - np.square(a - b).sum(axis=0) / np.square(a).sum(axis=0)).mean())


def _by_story(values: np.ndarray, stories: np.ndarray) -> list[np.ndarray]:
    return [values[stories == story] for story in np.unique(stories)]


def test_blocks_grow_with_the_rows_and_no_story_is_left_with_less_than_three() -> None:
    def lengths(*stories: int) -> list[int]:
        return np.bincount(time_blocks(np.repeat(np.arange(len(stories)), stories), 20)).tolist()

    assert lengths(100) == [20] * 5
    assert lengths(200) == [20] * 10
    assert lengths(1500) == [150] * 10
    assert lengths(1400, 70, 30) == [156, 156, 155, 156, 155, 156, 155, 156, 155, 24, 23, 23, 15, 15]
    assert np.bincount(time_blocks(np.zeros(600), 20, up_to_trs=300)).tolist() == [40] * 15
    assert np.bincount(time_blocks(np.zeros(600), 100)).tolist() == [200] * 3


def test_whole_stories_are_drawn_and_one_cannot_be() -> None:
    story_of_row, weights = block_weights(GROUPS, 10, 400, 0, "stories")
    np.testing.assert_array_equal(story_of_row, GROUPS)
    assert (weights.sum(axis=1) == 3).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.15)
    with pytest.raises(ValueError, match="one story cannot be drawn"):
        block_weights(np.zeros(50, dtype=np.int64), 10, 5, 0, "stories")
    with pytest.raises(ValueError, match=r"'storiez'.*stories"):
        block_weights(GROUPS, 10, 5, 0, "storiez")  # type: ignore[arg-type]


def test_intervals_are_stretched_percentiles_of_the_replicates() -> None:
    y, p = scored(9, 0.5)
    region = np.arange(20) < 10
    y[:, 12], p[0, 2] = np.nan, np.nan
    keep = region & (np.arange(20) != 2)
    blocks = block_weights(GROUPS, 10, 300, 4)
    drawn = region_replicates(y[:, keep], p[:, keep], GROUPS, {"": np.ones(9, dtype=bool)}, blocks)[""]
    factor = np.sqrt(20 / 17) * 1.739607 / 1.644854  # Student's t with 20 - 3 degrees of freedom
    factor /= np.sqrt(1 - lost_between_blocks(y[:, keep], p[:, keep], GROUPS, 20))
    truth = {"r": correlation_within, "r2": r2_within}
    for k, score in enumerate(("r", "r2")):
        draws = BlockDraws(block_trs=10, n_bootstraps=300, seed=4, level=0.9)
        found = block_bootstrap(y, p, GROUPS, score=score, voxels=region, draws=draws)  # type: ignore[arg-type]
        assert found.value == pytest.approx(truth[score](y[:, keep], p[:, keep], GROUPS).mean())
        ends = found.value + factor * (np.quantile(drawn[k], [0.05, 0.95]) - found.value)
        np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-5)
        assert (found.level, dict(found.n_units), found.not_resampled) == (0.9, {"blocks": 20}, ("stories",))
    with pytest.raises(ValueError, match="no voxel"):
        block_bootstrap(y, p, GROUPS, voxels=np.arange(20) == 2)


def test_rows_that_remember_more_than_blocks_hold_are_refused() -> None:
    slow = np.cumsum(np.random.default_rng(0).standard_normal((300, 3)), axis=0)
    groups = np.zeros(300)
    with pytest.raises(ValueError, match=r"10 blocks of 300 rows hide \d+% .* blocks of \d+ rows .* instead of 20"):
        block_bootstrap(slow, slow[::-1], groups)
    with pytest.raises(ValueError, match=r"15 blocks of 300 rows hide .* at least \d+ rows \(six blocks\)"):
        block_difference_test(slow, slow[::-1], -slow, groups)


def test_few_stories_give_wide_intervals() -> None:
    y, p = scored(3, 0.5)
    found = block_bootstrap(y, p, GROUPS, draws=BlockDraws(over="stories"))
    r = region_replicates(y, p, GROUPS, {"": np.ones(20, dtype=bool)}, block_weights(GROUPS, 10, 2000, 0, "stories"))
    low, high = np.quantile(r[""][0], [0.025, 0.975])
    assert dict(found.n_units) == {"stories": 3}
    assert found.high - found.low == pytest.approx(small_sample_factor(3) * (high - low))
    assert small_sample_factor(3) == pytest.approx(np.sqrt(1.5) * 4.302653 / 1.959964, rel=1e-5)
    assert percentile_interval(0.0, np.linspace(-1, 1, 101), 0.9, stretch=2.0) == pytest.approx((-1.8, 1.8))


def test_paired_differences_are_narrow_and_centred() -> None:
    y, a = scored(7, 0.6)
    b = a + 0.3 * np.random.default_rng(8).standard_normal(a.shape)
    alone, paired = block_bootstrap(y, a, GROUPS), block_bootstrap_difference(y, a, b, GROUPS)
    assert paired.value == pytest.approx((correlation_within(y, a, GROUPS) - correlation_within(y, b, GROUPS)).mean())
    assert paired.low < paired.value < paired.high
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    same = block_bootstrap_difference(y, a, a, GROUPS, score="r2")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_draws_are_seeded_and_checked() -> None:
    y, p = scored(11, 0.5)
    first, again, other = (block_bootstrap(y, p, GROUPS, draws=BlockDraws(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.low != other.low
    with pytest.raises(ValueError, match="over is 'space'"):
        BlockDraws(over="space")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="block_trs 0"):
        BlockDraws(block_trs=0)
    with pytest.raises(ValueError, match="lower block_trs"):
        block_bootstrap(y, p, GROUPS, draws=BlockDraws(block_trs=200))
    with pytest.raises(ValueError, match="same rows"):
        block_bootstrap(y, p[1:], GROUPS)
    with pytest.raises(ValueError, match="at least 1 row"):
        time_blocks(GROUPS, 0)


NESTED = {"seeds": "subjects"}


def table(shape: tuple[int, ...], sds: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """Scatter of every level and, last, of the cells."""
    rng = np.random.default_rng(seed)
    scores = sds[-1] * rng.standard_normal(shape)
    for axis, sd in enumerate(sds[:-1]):
        scores = scores + sd * rng.standard_normal([n if k == axis else 1 for k, n in enumerate(shape)])
    return scores


def slow_replicate(scores: np.ndarray, nested: bool, rng: np.random.Generator) -> float:
    """Upper levels first, unit by unit."""
    n_stories, n_subjects, n_seeds = scores.shape
    stories, subjects = rng.integers(0, n_stories, n_stories), rng.integers(0, n_subjects, n_subjects)
    seeds = [rng.integers(0, n_seeds, n_seeds) for _ in subjects]
    return float(np.mean([scores[a, b, c] for a in stories for b, own in zip(subjects, seeds, strict=True)
                          for c in (own if nested else seeds[0])]))  # fmt: skip


@pytest.mark.parametrize("nested", [False, True])
def test_replicates_are_distributed_as_by_loops(nested: bool) -> None:
    scores = table((4, 3, 3), (0.5, 1.0, 0.5, 1.0))
    rng = np.random.default_rng(1)
    fast = _replicates(scores, ["stories", "subjects", "seeds"], NESTED if nested else {}, 10_000, rng)
    slow = np.array([slow_replicate(scores, nested, rng) for _ in range(1500)])
    assert fast.mean() == pytest.approx(scores.mean(), abs=0.02)
    assert fast.std() == pytest.approx(slow.std(), rel=0.08)
    np.testing.assert_allclose(np.quantile(fast, [0.05, 0.95]), np.quantile(slow, [0.05, 0.95]), atol=0.08)


def test_the_variance_of_the_mean_is_unbiased() -> None:
    sds = (0.7, 1.0, 0.5, 0.8)
    planted = 0.49 / 5 + 1.0 / 4 + 0.25 / 3 + 0.64 / 60
    found = np.array([mean_variance(table((5, 4, 3), sds, seed)) for seed in range(500)])
    assert found[:, 0].mean() == pytest.approx(planted, rel=0.08)
    assert (found[:, 1] >= 2).all()


def test_one_level_is_the_t_interval() -> None:
    from scipy.stats import ttest_1samp

    scores = np.random.default_rng(2).standard_normal(9)
    found = hierarchical_bootstrap(scores[None, :, None], n_bootstraps=40_000)
    wanted = ttest_1samp(scores, 0).confidence_interval(0.95)
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.05)
    assert found.not_resampled == ("stories", "seeds")
    assert dict(found.n_units) == {"subjects": 9}
    assert found.value == pytest.approx(scores.mean())


def test_crossed_levels_drawn_as_if_they_were_cells_are_far_too_sure() -> None:
    scores = table((6, 8, 3), (1.0, 0.2, 0.1, 0.2), seed=3)
    crossed = hierarchical_bootstrap(scores)
    cells = hierarchical_bootstrap(scores.ravel(), ("cells",))
    assert crossed.high - crossed.low > 4 * (cells.high - cells.low)


def test_seeds_of_their_own_are_no_shared_ones() -> None:
    """A seed that helps all subjects adds uncertainty where seeds are crossed, and scatter where they are nested."""
    scores = table((1, 12, 3), (0.0, 0.1, 1.0, 0.1), seed=4)
    crossed, nested = hierarchical_bootstrap(scores), hierarchical_bootstrap(scores, nested=NESTED)
    assert crossed.high - crossed.low > 5 * (nested.high - nested.low)
    alone = hierarchical_bootstrap(scores[:, :1], nested=NESTED)
    assert dict(alone.n_units) == {"seeds": 3}
    assert alone.not_resampled == ("stories", "subjects")


def test_it_is_seeded_and_batches_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = table((4, 5, 2), (1.0, 1.0, 1.0, 1.0))
    assert hierarchical_bootstrap(scores) == hierarchical_bootstrap(scores)
    assert hierarchical_bootstrap(scores).low != hierarchical_bootstrap(scores, seed=1).low
    whole = hierarchical_bootstrap(scores)
    monkeypatch.setattr("brainlit.encoding.hierarchical.N_VALUES_AT_ONCE", 40 * 700)
    assert hierarchical_bootstrap(scores).low == pytest.approx(whole.low, abs=0.1 * (whole.high - whole.low))
    same = hierarchical_bootstrap(np.full((3, 2, 2), 0.4))
    assert (same.low, same.high) == pytest.approx((0.4, 0.4))


def test_tables_that_make_no_sense_are_refused() -> None:
    scores = np.zeros((3, 2, 2))
    with pytest.raises(ValueError, match="one axis per level"):
        hierarchical_bootstrap(scores, ("stories", "subjects"))
    with pytest.raises(ValueError, match="the upper one first"):
        hierarchical_bootstrap(scores, nested={"subjects": "seeds"})
    with pytest.raises(ValueError, match="nested in the same one"):
        hierarchical_bootstrap(scores, nested={"seeds": "stories", "subjects": "stories"})
    with pytest.raises(ValueError, match="every level has size 1"):
        hierarchical_bootstrap(scores[:1, :1, :1])
    scores[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="missing or not finite"):
        hierarchical_bootstrap(scores)


def test_a_region_with_a_dropped_voxel_is_refused_and_does_not_score_0() -> None:
    rng = np.random.default_rng(0)
    observed, predicted = rng.standard_normal((2, 80, 3))
    groups = np.repeat([0, 1], 40)
    blocks = block_weights(groups, 10, 5, seed=0)
    predicted[:, 2] = np.nan
    two, all_of_them = np.array([True, True, False]), np.ones(3, dtype=bool)
    assert np.isfinite(region_replicates(observed, predicted, groups, {"two": two}, blocks)["two"][0]).all()
    with pytest.raises(NotFiniteError, match=r"predictions .*1 of 3 targets; leave voxels"):
        region_replicates(observed, predicted, groups, {"all": all_of_them}, blocks)
