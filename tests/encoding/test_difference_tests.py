from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_1samp, wilcoxon

from brainlit.encoding import equivalence_from_replicates, equivalence_paired, paired_sign_flip, paired_wilcoxon

BOUNDS = (-0.02, 0.03)


def test_paired_is_two_one_sided_t_tests() -> None:
    d = 0.01 + 0.02 * np.random.default_rng(0).standard_normal((6, 50))
    found = equivalence_paired(d, BOUNDS)
    above = ttest_1samp(d, BOUNDS[0], alternative="greater").pvalue
    below = ttest_1samp(d, BOUNDS[1], alternative="less").pvalue
    np.testing.assert_allclose(found.p, np.maximum(above, below))
    interval = ttest_1samp(d, 0).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], [interval.low, interval.high])
    inside = (found.low > BOUNDS[0]) & (found.high < BOUNDS[1])
    np.testing.assert_array_equal(found.equivalent, inside)
    assert 0.1 < inside.mean() < 0.9


def test_replicates_are_judged_by_interval_and_p_alike() -> None:
    rng = np.random.default_rng(1)
    estimate = rng.uniform(-0.03, 0.04, 300)
    replicates = estimate + 0.01 * rng.standard_normal((199, 300))
    found = equivalence_from_replicates(estimate, replicates, BOUNDS)
    inside = (found.low > BOUNDS[0]) & (found.high < BOUNDS[1])
    np.testing.assert_array_equal(found.equivalent, inside)
    np.testing.assert_array_equal(found.equivalent, found.p <= 0.05)
    assert 0.1 < inside.mean() < 0.9
    np.testing.assert_allclose(found.low, np.sort(replicates, axis=0)[9])
    assert found.bounds == BOUNDS
    wider = equivalence_from_replicates(estimate, replicates, BOUNDS, stretch=1.5)
    np.testing.assert_allclose(wider.high - estimate, 1.5 * (found.high - estimate))
    assert wider.equivalent.sum() < found.equivalent.sum()


def test_p_counts_replicates_beyond_the_bounds_not_beyond_the_estimate() -> None:
    """Bootstrap replicates scatter around the observed number; p from those above it (published) is always about .5."""
    replicates = 0.001 * np.random.default_rng(2).standard_normal(999)
    assert float(equivalence_from_replicates(0.0, replicates, BOUNDS).p) == 0.001
    changed = equivalence_from_replicates(0.1, replicates + 0.1, BOUNDS)
    assert float(changed.p) == 1.0
    assert not changed.equivalent
    wide = equivalence_from_replicates(0.0, 0.1 * np.random.default_rng(2).standard_normal(999), BOUNDS)
    assert not wide.equivalent, "not significant is not the same as equivalent"


def test_what_is_not_known_is_not_equivalent_and_bounds_must_be_given() -> None:
    assert not equivalence_paired([0.0, np.nan, 0.001], BOUNDS).equivalent
    assert not equivalence_from_replicates(0.0, np.full(99, np.nan), BOUNDS).equivalent
    assert equivalence_paired([0.001, 0.001], BOUNDS).equivalent
    with pytest.raises(ValueError, match="lower and the upper"):
        equivalence_paired([0.0, 0.1], (0.1, -0.1))
    with pytest.raises(ValueError, match=r"alpha is 0\.7"):
        equivalence_paired([0.0, 0.1], BOUNDS, alpha=0.7)
    with pytest.raises(ValueError, match="draw at least 20"):
        equivalence_from_replicates(0.0, np.zeros(10), BOUNDS)
    with pytest.raises(ValueError, match="at least 2 subjects"):
        equivalence_paired([0.1], BOUNDS)


def differences(n_subjects: int, n_items: int, shift: float = 0.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_subjects, n_items)) + shift


@pytest.mark.parametrize("n_subjects", [3, 8, 20])
def test_wilcoxon_is_scipys_for_every_item(n_subjects: int) -> None:
    d = differences(n_subjects, 7)
    found = paired_wilcoxon(d)
    for k in range(7):
        one = wilcoxon(d[:, k], method="exact")
        assert (found.statistic[k], found.p[k]) == pytest.approx((one.statistic, one.pvalue))
        alone = paired_wilcoxon(d[:, k])
        assert alone.p.shape == ()
        assert float(alone.p) == found.p[k]
        assert (float(alone.low), float(alone.high)) == (found.low[k], found.high[k])


@pytest.mark.parametrize("test", [paired_wilcoxon, paired_sign_flip])
@pytest.mark.parametrize("n_subjects", [3, 5, 8])
def test_the_smallest_p_is_reached_where_all_subjects_agree(test, n_subjects: int) -> None:  # type: ignore[no-untyped-def]
    found = test(np.arange(1.0, n_subjects + 1))
    assert float(found.p) == float(found.smallest_p) == 2 / 2**n_subjects
    assert int(found.n) == n_subjects
    assert found.low == 1 if n_subjects < 6 else found.low > 1


def test_sign_flips_equal_the_loop_over_all_patterns() -> None:
    d = differences(7, 4)
    d[0, 0] = d[1, 0] = 0.0
    found = paired_sign_flip(d)
    null = np.array([np.mean(np.array(signs)[:, None] * d, axis=0) for signs in product([1, -1], repeat=7)])
    np.testing.assert_allclose(found.p, (np.abs(null) >= np.abs(d.mean(axis=0)) - 1e-12).mean(axis=0))
    np.testing.assert_allclose(found.effect, d.mean(axis=0))


def test_random_flips_come_near_all_flips_and_are_seeded() -> None:
    d = differences(12, 30, 0.3)
    exact, drawn = paired_sign_flip(d), paired_sign_flip(d, n_flips=2000)
    other = paired_sign_flip(d, n_flips=2000, seed=1)
    np.testing.assert_allclose(drawn.p, exact.p, atol=0.04)
    np.testing.assert_allclose(drawn.low, exact.low, atol=0.1)
    assert drawn.smallest_p[0] == 1 / 2001
    assert not np.array_equal(drawn.p, other.p)
    np.testing.assert_array_equal(drawn.p, paired_sign_flip(d, n_flips=2000).p)


@pytest.mark.parametrize("test", [paired_wilcoxon, paired_sign_flip])
def test_intervals_hold_what_the_test_does_not_reject(test) -> None:  # type: ignore[no-untyped-def]
    """Shifting the differences to just inside or outside an end moves p across 1 - coverage."""
    d = differences(9, 1, 0.2)[:, 0]
    found = test(d)
    assert 0.95 <= found.coverage < 0.965
    for end, outwards in ((found.low, -1), (found.high, 1)):
        assert test(d - end - outwards * 1e-6).p <= 1 - found.coverage + 1e-9
        assert test(d - end + outwards * 1e-6).p > 1 - found.coverage


@pytest.mark.parametrize("test", [paired_wilcoxon, paired_sign_flip])
def test_intervals_cover_as_often_as_they_say(test) -> None:  # type: ignore[no-untyped-def]
    found = test(differences(8, 4000, 0.7, seed=3))
    assert np.mean((found.low <= 0.7) & (found.high >= 0.7)) == pytest.approx(found.coverage, abs=0.012)


def test_zeros_ties_and_missing_items() -> None:
    d = differences(8, 4)
    d[0, 0], d[:, 1], d[2, 2] = 0.0, 0.0, np.nan
    found = paired_wilcoxon(d)
    assert found.n.tolist()[:2] == [7, 0]
    assert found.smallest_p[0] == 2 / 2**7
    assert found.p[0] == wilcoxon(d[1:, 0], method="exact").pvalue
    assert (found.p[1], found.effect[1]) == (1.0, 0.0)
    assert np.isnan([found.p[2], found.effect[2], found.low[2], found.smallest_p[2]]).all()
    assert np.isfinite(found.p[3])
    assert np.isnan(paired_sign_flip(d).p).tolist() == [False, False, True, False]


def test_one_subject_is_no_test() -> None:
    for test in (paired_wilcoxon, paired_sign_flip):
        with pytest.raises(ValueError, match="nothing can be said about people from one"):
            test(np.ones((1, 4)))
