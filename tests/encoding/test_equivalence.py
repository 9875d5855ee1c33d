from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from brainlit.encoding import equivalence_from_replicates, equivalence_paired

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
