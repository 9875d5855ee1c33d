import numpy as np
import pytest

from brainlit.demo.haemodynamics import bold_of_events, bold_of_frames, haemodynamic_response, slow_drift_basis
from brainlit.timebase import TimeBase


def test_the_response_is_a_double_gamma():
    times_s = np.arange(-5, 32, 0.01)
    response = haemodynamic_response(times_s)
    assert times_s[response.argmax()] == pytest.approx(5.0, abs=0.05)
    assert times_s[response.argmin()] == pytest.approx(15.5, abs=1.5)
    assert not response[times_s < 0].any()
    assert response.sum() * 0.01 == pytest.approx(1 - 1 / 6, abs=0.01)


@pytest.mark.parametrize(("tr_s", "lag"), [(1.2, 4), (1.5, 3), (2.0, 2), (2.0045, 2), (5.0, 1)])
def test_an_event_in_the_middle_of_row_j_peaks_at_the_row_that_ends_nearest_5_s_later(tr_s, lag):
    timebase = TimeBase.regular(430, tr_s)
    for row in (20, 400):
        middle_s = timebase.tr_edges_s(row, 1).mean()
        bold = bold_of_events(np.ones((1, 1)), [middle_s], timebase)
        assert bold[:, 0].argmax() == row + lag


def test_equals_an_explicit_sum_over_bins():
    rng = np.random.default_rng(0)
    timebase = TimeBase(np.array([-1.0, 1.0, 2.9, 5.0, 7.2, 9.1, 11.0, 13.0]), 2.0)
    times_s, values = np.sort(rng.uniform(-1, 15, 30)), rng.standard_normal((30, 2))
    n_bins = int(np.ceil(16.0 / 0.1)) + 1
    bins = np.zeros((n_bins, 2))
    for time_s, value in zip(times_s, values, strict=True):
        bins[int((time_s + 1.0) // 0.1)] += value
    bins -= bins.mean(axis=0)
    middles_s = -1.0 + (np.arange(n_bins) + 0.5) * 0.1
    expected = np.zeros((8, 2))
    for row, end_s in enumerate(timebase.tr_ends_s):
        for middle_s, value in zip(middles_s, bins, strict=True):
            expected[row] += 0.1 * value * haemodynamic_response(end_s - middle_s)
    np.testing.assert_allclose(bold_of_events(values, times_s, timebase), expected, atol=2e-3 * np.abs(expected).max())


def test_frames_and_events_of_the_same_thing_agree():
    timebase = TimeBase.regular(30, 2.0)
    times_s = np.arange(0.05, 60, 0.1)
    series = np.sin(times_s / 3)[:, None]
    np.testing.assert_allclose(
        bold_of_frames(series, times_s, timebase), bold_of_events(series, times_s, timebase), atol=1e-9
    )


def test_a_constant_sound_has_no_onset_response():
    timebase = TimeBase.regular(30, 2.0)
    times_s = np.arange(0.005, 60.1, 0.01)
    np.testing.assert_allclose(bold_of_frames(np.full((len(times_s), 1), 7.0), times_s, timebase), 0, atol=1e-9)


@pytest.mark.parametrize(("n_trs", "n_drifts"), [(8, 3), (64, 5), (105, 6)])
def test_the_drift_basis_is_orthonormal_and_holds_the_slow_shapes(n_trs, n_drifts):
    basis = slow_drift_basis(TimeBase.regular(n_trs, 2.0))
    assert basis.shape == (n_trs, n_drifts)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n_drifts), atol=1e-10)
    t = np.linspace(-1, 1, n_trs)
    for shape in (np.ones(n_trs), t, t**2):
        np.testing.assert_allclose(shape - basis @ (basis.T @ shape), 0, atol=1e-9)
    fast = np.cos(np.pi * np.arange(n_trs))
    assert np.linalg.norm(fast - basis @ (basis.T @ fast)) > 0.9 * np.linalg.norm(fast)
