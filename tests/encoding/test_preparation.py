"""Groups, delays, standardising, bands, the borrowed backend."""

from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import delay_within, himalaya_backend, standardise
from brainlit.encoding.arrays import demean_within, group_slices
from brainlit.encoding.bands import prepare_band, rotate_band


def loop_delay(X: np.ndarray, groups: np.ndarray, delays: tuple[int, ...]) -> np.ndarray:
    out = np.zeros((len(X), len(delays) * X.shape[1]))
    for t in range(len(X)):
        for k, delay in enumerate(delays):
            source = t - delay
            if 0 <= source < len(X) and groups[source] == groups[t]:
                out[t, k * X.shape[1] : (k + 1) * X.shape[1]] = X[source]
    return out


@pytest.mark.parametrize("delays", [(1, 2, 3, 4), (0,), (-2, 0, 3), (9,)])
def test_delays_equal_the_loop_and_stop_at_borders(delays: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).standard_normal((20, 3))
    groups = np.repeat([4, 1, 2], [8, 5, 7])
    np.testing.assert_array_equal(delay_within(X, groups, delays), loop_delay(X, groups, delays))


def test_a_planted_impulse_is_found_at_its_delay_only() -> None:
    X = np.zeros((10, 1))
    X[4] = 1
    delayed = delay_within(X, np.zeros(10, dtype=int), (1, 2))
    assert np.argwhere(delayed).tolist() == [[5, 0], [6, 1]]


def test_mistakes_in_delays_and_groups_are_named() -> None:
    X = np.ones((4, 2))
    with pytest.raises(ValueError, match="each of them once"):
        delay_within(X, np.zeros(4), (1, 1))
    with pytest.raises(ValueError, match="at least one delay"):
        delay_within(X, np.zeros(4), ())
    with pytest.raises(ValueError, match=r"groups \(3,\)"):
        delay_within(X, np.zeros(3), (1,))
    with pytest.raises(ValueError, match="2 separate stretches"):
        group_slices([0, 0, 1, 0])
    with pytest.raises(ValueError, match="one label per row"):
        demean_within(X, [0, 0])


def test_standardise_centres_each_group_and_scales_by_fitted_rows() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2], 40)
    X = rng.standard_normal((120, 2)) * [2.0, 5.0] + groups[:, None] * 100
    X[groups == 2] *= 3
    fit = groups < 2
    scaled = standardise(X, groups, fit)
    for group in range(3):
        assert np.abs(scaled[groups == group].mean(axis=0)).max() < 1e-5
    np.testing.assert_allclose(np.square(scaled[fit]).mean(axis=0), 1.0, rtol=1e-5)
    assert (scaled[groups == 2].std(axis=0) > 2).all()
    X[~fit] = 7.0
    np.testing.assert_array_equal(standardise(X, groups, fit)[fit], scaled[fit])


def test_constant_columns_become_zero_and_nan_is_named() -> None:
    X = np.c_[np.full(10, 0.1), np.arange(10.0)]
    groups, fit = np.zeros(10), np.ones(10, dtype=bool)
    assert not standardise(X, groups, fit)[:, 0].any()
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3, column 1 is nan"):
        standardise(X, groups, fit)
    with pytest.raises(ValueError, match="selects no row"):
        standardise(X, groups, ~fit)


def test_a_band_has_unit_rows_and_no_group_means() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1, 2, 3], 30)
    used = np.tile(np.arange(30) >= 5, 4)
    fit = used & (groups < 3)
    band = prepare_band(rng.standard_normal((120, 5)), groups, fit, used, (1, 2))
    assert band.shape == (100, 10)
    assert np.abs(demean_within(band, groups[used]) - band).max() < 1e-6
    assert np.square(band[fit[used]]).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    assert not prepare_band(np.ones((120, 2)), groups, fit, used, (1,)).any()


def test_rotation_keeps_the_kernel_up_to_the_variance_dropped() -> None:
    rng = np.random.default_rng(3)
    X = (rng.standard_normal((80, 12)) * np.logspace(0, -3, 12)).astype(np.float32)
    rows = np.arange(80) < 60
    full, less = rotate_band(X, rows, 1.0), rotate_band(X, rows, 0.99)
    assert full is X
    assert less.shape[1] < 12
    kernel = X @ X.T
    assert np.trace(kernel - less @ less.T) <= 0.02 * np.trace(kernel)
    assert np.trace(kernel - less @ less.T) > 0


def test_the_backend_is_given_back_also_after_an_error() -> None:
    from himalaya.backend import get_backend

    before = get_backend().name
    with himalaya_backend("torch") as backend:
        assert backend.name == "torch"
        assert get_backend().name == "torch"
    assert get_backend().name == before
    with pytest.raises(KeyError, match="inside"), himalaya_backend("torch"):
        raise KeyError("inside")
    assert get_backend().name == before
    with pytest.raises(ValueError, match="Unknown backend"), himalaya_backend("abacus"):
        pass
    assert get_backend().name == before
