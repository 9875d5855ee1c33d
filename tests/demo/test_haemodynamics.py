import itertools
from dataclasses import replace

import numpy as np
import pytest

from brainlit.demo.haemodynamics import (
    GRID_S,
    LENGTH_S,
    PEAK_S,
    UNDERSHOOT,
    UNDERSHOOT_DELAY_S,
    WIDTH,
    ResponseBasis,
    VoxelResponses,
    bold_of_events,
    bold_of_frames,
    draw_responses,
    haemodynamic_response,
    response_basis,
    slow_drift_basis,
)
from brainlit.timebase import TimeBase


def of_parameters(peak_s, width, undershoot, undershoot_delay_s):
    return VoxelResponses(peak_s, width * peak_s, undershoot, undershoot_delay_s)


def drawn_by(seed, n_voxels=500):
    return draw_responses(np.random.default_rng(seed), n_voxels)


def test_peak_width_and_undershoot_are_seen_in_the_response():
    responses = drawn_by(0, 200)
    lags_s = np.arange(0, 40, 0.01)
    curves = responses.at(lags_s)
    np.testing.assert_allclose(lags_s[curves.argmax(axis=1)], responses.peak_s, atol=0.1)
    np.testing.assert_allclose(curves.max(axis=1), 1, atol=0.02)
    wide_s = (curves > curves.max(axis=1, keepdims=True) / 2).sum(axis=1) * 0.01
    assert (wide_s <= responses.width_s + 0.02).all()
    assert (wide_s >= 0.9 * responses.width_s).all(), "the undershoot takes a little"
    only_peaks = replace(responses, undershoot=np.zeros(200)).at(lags_s)
    np.testing.assert_allclose((only_peaks > 0.5).sum(axis=1) * 0.01, responses.width_s, atol=0.02)
    undershoots = only_peaks - curves
    np.testing.assert_allclose(undershoots.max(axis=1), responses.undershoot, atol=1e-4)
    deepest_s = np.where(responses.undershoot > 0, lags_s[undershoots.argmax(axis=1)] - responses.peak_s, 0)
    np.testing.assert_allclose(deepest_s, responses.undershoot_delay_s * (responses.undershoot > 0), atol=0.011)
    assert np.abs(curves[:, -1]).max() < 1e-3


def test_nothing_comes_before_the_event_or_after_the_end():
    assert not drawn_by(0, 5).at([-1.0, 0.0, LENGTH_S, 50.0]).any()


def test_it_is_no_double_gamma_in_disguise():
    """Not even the double gamma with the best parameters is the average response."""
    from scipy.optimize import least_squares
    from scipy.stats import gamma

    lags_s = np.arange(0, 40, 0.1)
    basis = response_basis("varied")
    average = basis.average @ basis.curves

    def miss(p):
        peak = gamma.pdf(lags_s, p[0] / p[1], scale=p[1])
        return p[4] * (peak - p[5] * gamma.pdf(lags_s, p[2] / p[3], scale=p[3])) - average

    best = least_squares(miss, [6.0, 1.0, 16.0, 1.0, 5.0, 0.2], bounds=(1e-3, 100))
    assert np.linalg.norm(best.fun) > 0.01 * np.linalg.norm(average)


def test_responses_differ_over_voxels_and_listeners_within_their_ranges():
    means_s = []
    for seed in range(40):
        responses = drawn_by(seed)
        assert PEAK_S[0] <= responses.peak_s.min() < responses.peak_s.max() <= PEAK_S[1]
        assert UNDERSHOOT[0] <= responses.undershoot.min() < responses.undershoot.max() <= UNDERSHOOT[1]
        width = responses.width_s / responses.peak_s
        assert WIDTH[0] - 1e-9 <= width.min() < width.max() <= WIDTH[1] + 1e-9
        delay_s = responses.undershoot_delay_s
        assert UNDERSHOOT_DELAY_S[0] <= delay_s.min() < delay_s.max() <= UNDERSHOOT_DELAY_S[1]
        assert responses.peak_s.std() > 0.7
        means_s.append(responses.peak_s.mean())
    assert 4.9 < min(means_s) < 5.2
    assert 5.8 < max(means_s) < 6.1


def test_draws_depend_on_the_generator_alone_and_the_first_voxels_stay():
    a, b = drawn_by(3), drawn_by(4)
    again, fewer = drawn_by(3), drawn_by(3, 7)
    for name, values in vars(a).items():
        assert (values != vars(b)[name]).any()
        np.testing.assert_array_equal(vars(again)[name], values)
        np.testing.assert_array_equal(vars(fewer)[name], values[:7])
        np.testing.assert_array_equal(vars(a.of(slice(2, 5)))[name], values[2:5])


def test_the_curves_mix_every_response_of_the_family():
    basis, lags_s = response_basis("varied"), np.arange(0, LENGTH_S, GRID_S)
    np.testing.assert_allclose(basis.curves @ basis.curves.T, np.eye(len(basis.curves)), atol=1e-10)
    rng = np.random.default_rng(11)
    ranges = PEAK_S, WIDTH, UNDERSHOOT, UNDERSHOOT_DELAY_S
    corners = np.array(list(itertools.product(*ranges))).T
    inside = np.stack([rng.uniform(*own, size=5000) for own in ranges])
    border = np.stack([rng.choice(own, size=5000) for own in ranges])
    mixed_border = np.where(rng.uniform(size=inside.shape) < 0.5, border, inside)
    drawn = [of_parameters(*parameters) for parameters in (corners, inside, mixed_border)]
    for responses in [*drawn, *map(drawn_by, range(10))]:
        exact = responses.at(lags_s)
        error = basis.coefficients(responses).T @ basis.curves - exact
        assert (np.linalg.norm(error, axis=1) / np.linalg.norm(exact, axis=1)).max() < 1e-3
    np.testing.assert_allclose(basis.average @ basis.curves, drawn[1].at(lags_s).mean(axis=0), atol=0.02)


def test_events_are_heard_through_each_curve():
    clock, rng = TimeBase.regular(40, 2.0), np.random.default_rng(0)
    times_s, values = rng.uniform(0, 80, 30), rng.standard_normal((30, 3))
    basis = response_basis("varied")
    together = bold_of_events(values, times_s, clock, basis)
    assert together.shape == (len(basis.curves), 40, 3)
    alone = bold_of_events(values, times_s, clock, ResponseBasis(basis.curves[2:3], np.ones(1)))
    np.testing.assert_array_equal(alone[0], together[2])


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
        bold = bold_of_events(np.ones((1, 1)), [middle_s], timebase)[0]
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
    np.testing.assert_allclose(
        bold_of_events(values, times_s, timebase)[0], expected, atol=2e-3 * np.abs(expected).max()
    )


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
