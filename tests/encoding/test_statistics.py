from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from brainlit.encoding import (
    Score,
    correlation,
    correlation_within,
    fdr,
    mean_score,
    percentiles,
    permutation_p,
    r2_within,
)
from brainlit.encoding.statistics import lost_between_blocks

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


def test_fdr_is_benjamini_hochberg() -> None:
    p = np.random.default_rng(5).uniform(0, 1, 50) ** 2
    order = np.argsort(p)
    raw = p[order] * p.size / np.arange(1, p.size + 1)
    by_hand = np.empty_like(p)
    by_hand[order] = np.minimum(1.0, np.minimum.accumulate(raw[::-1])[::-1])
    np.testing.assert_allclose(fdr(p), by_hand, rtol=1e-14)
    np.testing.assert_allclose(fdr(p.reshape(5, 10)), by_hand.reshape(5, 10), rtol=1e-14)
    assert fdr([]).size == 0
    assert np.isnan(fdr([np.nan])).all()
    with_gap = fdr(np.r_[p, np.nan])
    np.testing.assert_allclose(with_gap[:-1], fdr(p))
    assert np.isnan(with_gap[-1])


def test_scores_without_replicates_have_no_interval() -> None:
    assert Score(1.0).interval is None
    assert (Score(1.0) - Score(0.25, np.zeros(3))).json() == {"value": 0.75, "low": None, "high": None}
    assert Score(1.0).over(Score(0.0)).json()["value"] is None
    assert mean_score([Score(1.0, np.ones(2)), Score(3.0, np.zeros(2))]).json()["value"] == 2.0
    assert mean_score([Score(1.0, np.ones(2)), Score(3.0)]).replicates is None
    with pytest.raises(ValueError, match="no scores"):
        mean_score([])


def test_given_bounds_are_the_interval_and_their_ends_average() -> None:
    one, other = Score(0.3, bounds=(0.2, 0.4)), Score(0.5, bounds=(0.1, 0.7))
    assert (one.low, one.high, one.interval) == (0.2, 0.4, (0.2, 0.4))
    assert np.isnan([Score(1.0).low, Score(1.0).high]).all()
    mean = mean_score([one, other])
    assert (mean.value, mean.interval) == (pytest.approx(0.4), pytest.approx((0.15, 0.55)))
    assert mean_score([one, Score(0.5)]).interval is None
    assert mean_score([one, Score(0.5, np.ones(3))]).interval is None
    assert (one - other).interval is None, "numbers that were not drawn together cannot be paired"


def test_percentiles_are_numpys_and_leave_nan_out() -> None:
    drawn = np.random.default_rng(3).standard_normal((500, 4))
    np.testing.assert_array_equal(percentiles(drawn, 0.9), np.quantile(drawn, [(1 - 0.9) / 2, (1 + 0.9) / 2], axis=0))
    np.testing.assert_array_equal(percentiles(np.r_[drawn[:, 0], np.nan]), percentiles(drawn[:, 0]))
    assert Score(0.0, np.r_[drawn[:, 0], np.nan]).interval is None
    for n, level in ((1, 0.95), (2, 0.9), (7, 0.5), (40, 0.95), (41, 0.0), (1000, 1.0), (999, 0.95)):
        some, tails = np.tile(drawn[:, 0], 2)[:n], [(1 - level) / 2, (1 + level) / 2]
        np.testing.assert_array_equal(percentiles(some, level), np.quantile(some, tails))
    some[3] = np.inf
    np.testing.assert_array_equal(percentiles(some), np.quantile(some, [0.025, 0.975]))


def test_blocks_hide_what_sums_of_neighbouring_blocks_share() -> None:
    """Against the variance of sums over blocks and over the whole, of noise that remembers."""
    rng, n_trs, block_trs = np.random.default_rng(0), 1000, 20
    o, p = (lfilter([1.0], [1.0, -0.8], rng.standard_normal((n_trs, 1000)), axis=0) for _ in range(2))
    sums = (o * p).reshape(n_trs // block_trs, block_trs, -1).sum(axis=1)
    seen = np.square(sums).sum(axis=0).mean() / np.square(sums.sum(axis=0)).mean()
    groups = np.zeros(n_trs)
    assert lost_between_blocks(o, p, groups, n_trs // block_trs) == pytest.approx(1 - seen, abs=0.05)
    assert lost_between_blocks(o, p, groups, 50) == pytest.approx(49 / 1000 * 2 * 0.64 / (1 - 0.64**2), rel=0.03)
    assert lost_between_blocks(o, p, np.arange(n_trs) // block_trs, 50) == 0
    o[:, 0], o[:, 1] = 1.0, np.nan
    assert lost_between_blocks(o[:, :2], p[:, :2], groups, 100) == 0
