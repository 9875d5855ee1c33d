from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import (
    BlockDraws,
    block_bootstrap,
    block_bootstrap_difference,
    block_bootstrap_share,
    block_bootstrap_share_difference,
    block_weights,
    correlation_within,
    r2_within,
    region_replicates,
)
from brainlit.encoding.bootstrap import time_blocks
from brainlit.encoding.intervals import percentile_interval, small_sample_factor

GROUPS = np.repeat([0, 1, 2], [70, 60, 75])


def scored(seed: int, quality: float, n_voxels: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((GROUPS.size, n_voxels))
    return y, quality * y + rng.standard_normal(y.shape)


def test_draws_and_replicates_are_those_of_earlier_reports() -> None:
    """Written down when reports began to depend on them: another stream of draws would move every interval."""
    groups, rng = np.repeat([0, 1], [47, 33]), np.random.default_rng(0)
    y = rng.standard_normal((80, 5))
    p = 0.5 * y + rng.standard_normal((80, 5))
    block_of_row, weights = block_weights(groups, 10, 3, seed=0)
    assert np.bincount(block_of_row).tolist() == [10, 10, 10, 10, 7, 10, 10, 13]
    assert weights.tolist() == [[1, 0, 0, 0, 4, 2, 0, 1], [2, 2, 0, 1, 0, 1, 0, 2], [1, 2, 1, 0, 1, 2, 1, 0]]
    r, r2 = region_replicates(y, p, groups, {"": np.ones(5, dtype=bool)}, (block_of_row, weights))[""]
    np.testing.assert_allclose(r, [0.5067123507245211, 0.4865564414510769, 0.3958952798425152], rtol=1e-12)
    np.testing.assert_allclose(r2, [-0.19803657799951263, -0.35329668277158827, -0.43863156133874037], rtol=1e-11)


@pytest.mark.parametrize("over", ["time", "stories"])
def test_replicates_equal_rows_copied_one_by_one(over: str) -> None:
    y, p = scored(6, 0.5, 4)
    block_of_row, weights = block_weights(GROUPS, 10, 6, 0, over)
    everywhere = {"": np.ones(4, dtype=bool)}
    fast_r, fast_r2 = region_replicates(y, p, GROUPS, everywhere, (block_of_row, weights))[""]
    for group in range(3):
        rows = group == GROUPS
        y[rows] -= y[rows].mean(axis=0)
        p[rows] -= p[rows].mean(axis=0)
    for k, draw in enumerate(weights):
        rows = np.repeat(np.arange(GROUPS.size), draw[block_of_row].astype(int))
        a, b = y[rows], p[rows]
        r = (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
        assert fast_r[k] == pytest.approx(r.mean())
        assert fast_r2[k] == pytest.approx((1 - np.square(a - b).sum(axis=0) / np.square(a).sum(axis=0)).mean())


def test_whole_stories_are_drawn_and_one_cannot_be() -> None:
    story_of_row, weights = block_weights(GROUPS, 10, 400, 0, "stories")
    np.testing.assert_array_equal(story_of_row, GROUPS)
    assert (weights.sum(axis=1) == 3).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.15)
    with pytest.raises(ValueError, match="one story cannot be drawn"):
        block_weights(np.zeros(50, dtype=np.int64), 10, 5, 0, "stories")
    with pytest.raises(ValueError, match=r"'storys'.*stories"):
        block_weights(GROUPS, 10, 5, 0, "storys")  # type: ignore[arg-type]


def test_intervals_are_percentiles_of_the_replicates() -> None:
    y, p = scored(9, 0.5)
    region = np.arange(20) < 10
    y[:, 12], p[0, 2] = np.nan, np.nan
    keep = region & (np.arange(20) != 2)
    blocks = block_weights(GROUPS, 10, 300, 4)
    drawn = region_replicates(y[:, keep], p[:, keep], GROUPS, {"": np.ones(9, dtype=bool)}, blocks)[""]
    truth = {"r": correlation_within, "r2": r2_within}
    for k, score in enumerate(("r", "r2")):
        draws = BlockDraws(n_bootstraps=300, seed=4, level=0.9)
        found = block_bootstrap(y, p, GROUPS, score=score, voxels=region, draws=draws)  # type: ignore[arg-type]
        assert found.estimate == pytest.approx(truth[score](y[:, keep], p[:, keep], GROUPS).mean())
        np.testing.assert_allclose([found.low, found.high], np.quantile(drawn[k], [0.05, 0.95]))
        assert (found.level, dict(found.n_units)) == (0.9, {"blocks": 21})
    with pytest.raises(ValueError, match="no voxel"):
        block_bootstrap(y, p, GROUPS, voxels=np.arange(20) == 2)


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
    assert paired.estimate == pytest.approx(
        (correlation_within(y, a, GROUPS) - correlation_within(y, b, GROUPS)).mean()
    )
    assert paired.low < paired.estimate < paired.high
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    same = block_bootstrap_difference(y, a, a, GROUPS, score="r2")
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_share_is_that_of_the_region_and_differences_pair() -> None:
    rng = np.random.default_rng(10)
    low, own = rng.standard_normal((2, GROUPS.size, 15))
    y = low + own + rng.standard_normal(low.shape)
    both = {"backbone": low + own, "low_level": low, "backbone+low_level": low + own}
    share = block_bootstrap_share(y, both, GROUPS)
    r2 = {model: r2_within(y, p, GROUPS).mean() for model, p in both.items()}
    assert share.estimate == pytest.approx(r2["low_level"] / r2["backbone"])
    assert share.low < 0.5 < share.high
    assert block_bootstrap_share_difference(y, both, {**both, "backbone": own}, GROUPS).low > 0.3
    with pytest.raises(ValueError, match="no predictions of low_level"):
        block_bootstrap_share(y, {"backbone": low, "backbone+low_level": low}, GROUPS)


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
