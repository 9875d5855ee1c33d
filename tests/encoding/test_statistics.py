from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import correlation, correlation_within, fdr, permutation_p, r2_within

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
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(5).uniform(0, 1, 50) ** 2
    np.testing.assert_allclose(fdr(p), false_discovery_control(p))
    with_gap = fdr(np.r_[p, np.nan])
    np.testing.assert_allclose(with_gap[:-1], fdr(p))
    assert np.isnan(with_gap[-1])
