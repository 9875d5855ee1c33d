"""Features pass what the responses passed: against explicit least squares and scipy's smoother."""

import json

import numpy as np
import pytest
from scipy.signal import savgol_filter

from brainlit.stories.readers.cleaning import clean_series, zscore
from brainlit.stories.response_filter import ResponseFilter, slow_cosines


def noise(n_rows: int, n_columns: int = 3, seed: int = 0) -> np.ndarray:
    """Columns that wander, with a level of their own."""
    rng = np.random.default_rng(seed)
    return 5 + np.cumsum(rng.standard_normal((n_rows, n_columns)), axis=0)


def slow_reference(rows, tr_s, order, high_pass_s, first=0, n_whole=None):
    """Powers of time and cosines, written out one by one over the whole recording; least squares where rows are."""
    n_whole = len(rows) if n_whole is None else n_whole
    regressors = [[((k + 0.5) / n_whole) ** power for k in range(n_whole)] for power in range(order + 1)]
    number = 1
    while high_pass_s is not None and 2 * n_whole * tr_s / number >= high_pass_s and number <= n_whole - 2:
        regressors.append([np.cos(np.pi * number * (k + 0.5) / n_whole) for k in range(n_whole)])
        number += 1
    there = np.array(regressors).T[first : first + len(rows)]
    return rows - there @ np.linalg.lstsq(there, rows, rcond=None)[0]


@pytest.mark.parametrize(("order", "high_pass_s"), [(0, None), (1, None), (2, 128.0), (0, 128.0), (3, 60.0)])
@pytest.mark.parametrize(("n_rows", "tr_s"), [(300, 2.0), (431, 0.7), (40, 2.0045), (12, 1.5)])
def test_trend_and_cosines_go_as_by_explicit_least_squares(order, high_pass_s, n_rows, tr_s):
    rows = noise(n_rows)
    passed = ResponseFilter(order, high_pass_s).apply(rows, tr_s)
    np.testing.assert_allclose(passed, slow_reference(rows, tr_s, order, high_pass_s), atol=1e-8)
    np.testing.assert_allclose(passed.mean(axis=0), 0, atol=1e-10)


@pytest.mark.parametrize("n_rows", [300, 62, 61])
@pytest.mark.parametrize("tr_s", [2.0, 2.0045])
def test_a_smoother_goes_as_scipy_has_it(n_rows, tr_s):
    rows = noise(n_rows)
    expected = rows - savgol_filter(rows, 61, 2, axis=0)
    passed = ResponseFilter(savgol=(120.0, 2)).apply(rows, tr_s)
    np.testing.assert_allclose(passed, expected - expected.mean(axis=0), atol=1e-10)


@pytest.mark.parametrize(("window_s", "n_window"), [(120.0, 61), (122.0, 61), (123.0, 63), (10.0, 5), (1.0, 1)])
def test_the_window_is_the_next_odd_number_of_rows(window_s, n_window):
    rows = noise(100)
    expected = rows - savgol_filter(rows, n_window, min(2, n_window - 1), axis=0)
    passed = ResponseFilter(savgol=(window_s, 2)).apply(rows, 2.0)
    np.testing.assert_allclose(passed, expected - expected.mean(axis=0), atol=1e-10)


@pytest.mark.parametrize("n_rows", [60, 20, 4])
def test_a_story_shorter_than_the_window_loses_one_polynomial(n_rows):
    rows = noise(n_rows)
    passed = ResponseFilter(savgol=(120.0, 2)).apply(rows, 2.0)
    np.testing.assert_allclose(passed, slow_reference(rows, 2.0, 2, None), atol=1e-9)


def test_trimmed_rows_belong_to_the_basis():
    rows = noise(285)
    passed = ResponseFilter(2, 128.0, trimmed_trs=(10, 5)).apply(rows, 2.0)
    np.testing.assert_allclose(passed, slow_reference(rows, 2.0, 2, 128.0, first=10, n_whole=300), atol=1e-8)


def test_a_stretch_loses_the_basis_of_its_story():
    rows = noise(120)
    passed = ResponseFilter(2, 128.0, trimmed_trs=(10, 5)).apply(rows, 2.0, first_tr=40, n_trs=285)
    expected = slow_reference(rows, 2.0, 2, 128.0, first=50, n_whole=300)
    # the slowest directions nearly repeat each other in a stretch, so the two solvers differ by rounding
    np.testing.assert_allclose(passed, expected, atol=1e-5)
    np.testing.assert_allclose(passed.mean(axis=0), 0, atol=1e-10)


def test_it_is_what_cleaning_does_to_responses():
    rows = noise(300)
    passed = ResponseFilter(1, 128.0).apply(rows, 2.0)
    np.testing.assert_allclose(zscore(passed), clean_series(rows, 2.0, 128.0), atol=1e-5)


def test_it_is_what_detrending_does_to_simulated_responses():
    from brainlit.demo.listeners import slow_drift_basis
    from brainlit.timebase import TimeBase

    rows, drifts = noise(150), slow_drift_basis(TimeBase.regular(150, 2.0))
    np.testing.assert_allclose(ResponseFilter(2, 128.0).apply(rows, 2.0), rows - drifts @ (drifts.T @ rows), atol=1e-8)


def test_it_is_a_projection_and_changes_nothing_twice():
    passed = ResponseFilter(2, 128.0, trimmed_trs=(3, 4))
    once = passed.apply(noise(200), 2.0)
    np.testing.assert_allclose(passed.apply(once, 2.0), once, atol=1e-9)


def test_rows_stay_as_they_were():
    rows = noise(100)
    before = rows.copy()
    ResponseFilter(1, 128.0, (60.0, 2)).apply(rows, 2.0)
    np.testing.assert_array_equal(rows, before)


def test_a_story_too_short_for_its_filter_is_refused():
    with pytest.raises(ValueError, match=r"3 rows of 2 s are as few as the 3 .* nothing is left"):
        ResponseFilter(2).apply(noise(3), 2.0)
    with pytest.raises(ValueError, match="nothing is left"):
        ResponseFilter(2, 20.0).apply(noise(10), 2.0, first_tr=5, n_trs=300)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    rows = noise(50)
    rows[3, 1] = value
    with pytest.raises(ValueError, match="1 of 3 columns hold NaN or infinite values, such as column 1"):
        ResponseFilter().apply(rows, 2.0)


@pytest.mark.parametrize(
    ("rows", "tr_s", "first_tr", "n_trs", "message"),
    [
        (np.zeros(5), 2.0, 0, None, "shape"),
        (np.zeros((0, 2)), 2.0, 0, None, "a row or more"),
        (noise(5), 0.0, 0, None, "tr_s is 0.0"),
        (noise(5), 2.0, 3, 7, "rows 3 to 7 are not all inside a story of 7 rows"),
        (noise(5), 2.0, -1, 7, "not all inside"),
    ],
)
def test_what_is_no_stretch_of_a_story_is_refused(rows, tr_s, first_tr, n_trs, message):
    with pytest.raises(ValueError, match=message):
        ResponseFilter().apply(rows, tr_s, first_tr, n_trs)


def test_it_survives_json():
    passed = ResponseFilter(2, 128.0, (120.0, 2), (10, 5), False, "the authors")
    assert ResponseFilter.from_json(json.loads(json.dumps(passed.to_json()))) == passed
    assert ResponseFilter.from_json({}) == ResponseFilter()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"polynomal": 2}, "'polynomal' is no part of a response filter.*polynomial"),
        ({"polynomial": -1}, "polynomial is -1"),
        ({"polynomial": 1.5}, "polynomial is 1.5"),
        ({"polynomial": "two"}, "polynomial is 'two'"),
        ({"high_pass_s": 0}, "high_pass_s is 0"),
        ({"high_pass_s": "slow"}, "is no response filter"),
        ({"savgol": [120.0]}, "savgol is"),
        ({"savgol": [0, 2]}, "savgol is"),
        ({"trimmed_trs": [-1, 0]}, "trimmed_trs is"),
        ({"trimmed_trs": 10}, "trimmed_trs is"),
    ],
)
def test_what_is_no_filter_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        ResponseFilter.from_json(content)


def test_words_say_what_was_taken_out():
    assert ResponseFilter().in_words == "without their mean; z-scored per story"
    words = ResponseFilter(savgol=(120.0, 2), trimmed_trs=(10, 5), standardised=False).in_words
    assert words == (
        "without what a Savitzky-Golay smoother of order 2 over 120 s follows; then 10 rows cut off at the start and 5"
        " at the end"
    )


def test_cosines_never_outnumber_the_rows():
    assert slow_cosines(1, 2.0, 1.0).shape == (1, 1)
    assert slow_cosines(10, 2.0, 1.0).shape == (10, 9)
