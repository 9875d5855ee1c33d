from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import (
    BlockDraws,
    block_bootstrap_r,
    block_bootstrap_r_difference,
    block_bootstrap_share,
    block_bootstrap_share_difference,
    block_permutation_p,
    correlation,
    correlation_within,
    fdr,
    permutation_p,
    r2_within,
)

GROUPS = np.repeat([0, 1, 2], [70, 60, 75])


def scored(seed: int, quality: float, n_voxels: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((GROUPS.size, n_voxels))
    return y, quality * y + rng.standard_normal(y.shape)


def test_correlation_equals_numpy_and_constants_have_none() -> None:
    y, p = scored(0, 0.5)
    slow = [np.corrcoef(y[:, v], p[:, v])[0, 1] for v in range(20)]
    np.testing.assert_allclose(correlation(y, p), slow)
    p[:, 3] = 1.0
    assert np.isnan(correlation(y, p)[3])
    with pytest.raises(ValueError, match="need the same"):
        correlation(y, p[:, 1:])


def test_levels_of_groups_do_not_count() -> None:
    y, p = scored(1, 0.0)
    level = 50.0 * GROUPS[:, None]
    assert correlation(y + level, p + level).min() > 0.99
    np.testing.assert_allclose(correlation_within(y + level, p + level, GROUPS), correlation_within(y, p, GROUPS))
    np.testing.assert_allclose(r2_within(y + level, p - level, GROUPS), r2_within(y, p, GROUPS), atol=1e-9)
    np.testing.assert_allclose(r2_within(y, y, GROUPS), 1.0)
    np.testing.assert_allclose(r2_within(y, np.zeros_like(y), GROUPS), 0.0)


def test_p_values_are_never_zero() -> None:
    assert permutation_p(9.0, np.zeros(99)) == pytest.approx(0.01)
    np.testing.assert_allclose(permutation_p([0.5, 2.0], np.array([[0.0, 2.0], [1.0, 3.0], [0.5, 0.0]])), [0.75, 0.75])
    assert np.isnan(permutation_p(np.nan, [0.0]))
    with pytest.raises(ValueError, match="at least one permutation"):
        permutation_p(1.0, [])


def test_block_permutation_finds_signal_and_spares_noise() -> None:
    y, p = scored(2, 0.7)
    _, noise = scored(3, 0.0)
    p[:, 10:] = noise[:, 10:]
    values = block_permutation_p(y, p, GROUPS, n_permutations=199)
    assert (values[:10] == 1 / 200).all()
    assert 0.2 < values[10:].mean() < 0.8
    np.testing.assert_array_equal(values, block_permutation_p(y, p, GROUPS, n_permutations=199))
    assert not np.array_equal(values, block_permutation_p(y, p, GROUPS, n_permutations=199, seed=1))


def test_permutation_p_is_uniform_under_autocorrelated_noise() -> None:
    from scipy.signal import lfilter

    rng = np.random.default_rng(4)
    y, p = (lfilter([1.0], [1.0, -0.7], rng.standard_normal((205, 400)), axis=0) for _ in range(2))
    values = block_permutation_p(y, p, GROUPS, block_trs=15, n_permutations=99)
    assert (values <= 0.05).mean() < 0.09


def test_fdr_is_benjamini_hochberg() -> None:
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(5).uniform(0, 1, 50) ** 2
    np.testing.assert_allclose(fdr(p), false_discovery_control(p))
    with_gap = fdr(np.r_[p, np.nan])
    np.testing.assert_allclose(with_gap[:-1], fdr(p))
    assert np.isnan(with_gap[-1])


@pytest.mark.parametrize("kind", ["moving", "fixed"])
def test_bootstrap_equals_resampling_the_rows(kind: str) -> None:
    """Each replicate, from block sums, is the mean correlation of the rows that were drawn."""
    from brainlit.encoding.bootstrap import _draw, _replicates
    from brainlit.encoding.groups import demean_within

    y, p = (demean_within(values, GROUPS) for values in scored(6, 0.5, 4))
    counts, blocks, _ = _draw(GROUPS, BlockDraws(n_boot=5, kind=kind), seed=0)
    fast = {score: _replicates(y, p, blocks, counts, score) for score in ("r", "r2")}
    for k, count in enumerate(counts.astype(int)):
        rows = np.concatenate([np.arange(*block) for block, n in zip(blocks, count, strict=True) for _ in range(n)])
        assert fast["r"][k] == pytest.approx(correlation(y[rows], p[rows]).mean())
        sse, sst = np.square(y[rows] - p[rows]).sum(axis=0), np.square(y[rows] - y[rows].mean(axis=0)).sum(axis=0)
        assert fast["r2"][k] == pytest.approx((1 - sse / sst).mean())
    assert all(GROUPS[a] == GROUPS[b - 1] for a, b in blocks)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    truth = 0.5 / np.sqrt(1.25)
    draws = BlockDraws(n_boot=300, level=0.9)
    intervals = [block_bootstrap_r(*scored(seed, 0.5, 2), GROUPS, draws=draws) for seed in range(60)]
    assert 0.75 < np.mean([one.low < truth < one.high for one in intervals]) < 0.99
    assert intervals[0].n_blocks in (20, 21)


def test_paired_differences_are_narrower_and_centred() -> None:
    y, a = scored(7, 0.6)
    rng = np.random.default_rng(8)
    b = a + 0.3 * rng.standard_normal(a.shape)
    paired, unpaired = (block_bootstrap_r_difference(y, a, b, GROUPS, paired=pair) for pair in (True, False))
    assert paired.estimate == unpaired.estimate
    assert paired.estimate == pytest.approx(
        (correlation_within(y, a, GROUPS) - correlation_within(y, b, GROUPS)).mean()
    )
    assert paired.low < paired.estimate < paired.high
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)
    same = block_bootstrap_r_difference(y, a, a, GROUPS)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_regions_and_missing_voxels_are_left_out() -> None:
    y, p = scored(9, 0.5)
    region = np.arange(20) < 10
    y[:, 12], p[0, 2] = np.nan, np.nan
    found = block_bootstrap_r(y, p, GROUPS, voxels=region)
    keep = np.flatnonzero(region & (np.arange(20) != 2))
    assert found.estimate == pytest.approx(correlation_within(y[:, keep], p[:, keep], GROUPS).mean())
    with pytest.raises(ValueError, match="no voxel"):
        block_bootstrap_r(y, p, GROUPS, voxels=np.arange(20) == 2)


def test_share_is_that_of_the_region_and_differences_pair() -> None:
    rng = np.random.default_rng(10)
    low, own = rng.standard_normal((2, GROUPS.size, 15))
    y = low + own + rng.standard_normal(low.shape)
    both = {"backbone": low + own, "low_level": low, "backbone+low_level": low + own}
    mostly_own = {**both, "backbone": own}
    share = block_bootstrap_share(y, both, GROUPS)
    r2 = {model: r2_within(y, p - 0, GROUPS).mean() for model, p in both.items()}
    assert share.estimate == pytest.approx(r2["low_level"] / r2["backbone"])
    assert share.low < 0.5 < share.high
    difference = block_bootstrap_share_difference(y, both, mostly_own, GROUPS)
    assert difference.low > 0.3
    with pytest.raises(ValueError, match="no predictions of low_level"):
        block_bootstrap_share(y, {"backbone": low, "backbone+low_level": low}, GROUPS)


def test_draws_are_seeded_and_checked() -> None:
    y, p = scored(11, 0.5)
    first, again, other = (block_bootstrap_r(y, p, GROUPS, draws=BlockDraws(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.low != other.low
    with pytest.raises(ValueError, match="'moving' or 'fixed'"):
        BlockDraws(kind="stationary")
    with pytest.raises(ValueError, match="block_trs 0"):
        BlockDraws(block_trs=0)
    with pytest.raises(ValueError, match="lower block_trs"):
        block_bootstrap_r(y, p, np.zeros(len(y)), draws=BlockDraws(block_trs=200))
