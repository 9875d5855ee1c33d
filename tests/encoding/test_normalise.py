from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import mean_of_ratios, normalise, ratio_of_means

R = np.array([0.1, 0.3, 0.5, 0.2, 0.4, np.nan])
CEILING = np.array([0.05, 0.6, 0.5, np.nan, 0.8, 0.9])


def test_both_ratios_with_raw_and_ceiling_and_what_was_dropped() -> None:
    found = normalise(R, CEILING, min_ceiling=0.1)
    assert (found.n_used, found.n_dropped) == (3, 3)
    assert found.raw == pytest.approx(0.4)
    assert found.ceiling == pytest.approx(1.9 / 3)
    assert found.mean_of_ratios == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert found.ratio_of_means == pytest.approx(1.2 / 1.9)
    assert found.mean_of_ratios == mean_of_ratios(R[[1, 2, 4]], CEILING[[1, 2, 4]])
    assert found.ratio_of_means == ratio_of_means(R[[1, 2, 4]], CEILING[[1, 2, 4]])


def test_only_voxels_of_the_region_count_and_nothing_is_clipped() -> None:
    found = normalise(R + 0.4, CEILING, np.array([True, False, True, False, False, False]))
    assert (found.n_used, found.n_dropped) == (1, 1)
    assert found.mean_of_ratios == pytest.approx(1.8)
    empty = normalise(R, CEILING, np.zeros(6, dtype=bool))
    assert (empty.n_used, empty.n_dropped) == (0, 0)
    assert np.isnan([empty.raw, empty.ceiling, empty.mean_of_ratios, empty.ratio_of_means]).all()


def test_a_threshold_of_zero_and_wrong_shapes_are_refused() -> None:
    """Ceilings of 0 that are divided by are a published error."""
    with pytest.raises(ValueError, match="divides by 0"):
        normalise(R, CEILING, min_ceiling=0.0)
    with pytest.raises(ValueError, match="one per voxel"):
        normalise(R, CEILING[1:])
