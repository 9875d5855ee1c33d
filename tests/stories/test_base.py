"""What values at their own times, and the spaces that carry them, refuse."""

import numpy as np
import pytest

from brainlit.stories import FeatureSpace, TimedValues


def test_values_at_their_own_times_are_float32_and_their_times_float64():
    timed = TimedValues([[1, 2], [3, 4]], [0, 1])
    assert timed.values.dtype == np.float32
    assert timed.times_s.dtype == np.float64
    assert timed.duration_s is None
    assert TimedValues(np.zeros((0, 3)), []).values.shape == (0, 3)


@pytest.mark.parametrize(
    ("values", "times_s", "duration_s", "message"),
    [
        (np.zeros(3), np.arange(3), None, r"shape \(3,\) and their times \(3,\)"),
        (np.zeros((3, 1)), np.arange(2), None, r"shape \(3, 1\) and their times \(2,\)"),
        (np.full((2, 1), np.nan), np.arange(2), None, "NaN"),
        (np.zeros((2, 1)), [0, np.inf], None, "infinite"),
        (np.zeros((3, 1)), [0, 2, 1.5], None, r"time 2 is 1.5000 s and time 1 2.0000 s; times must increase"),
        (np.zeros((2, 1)), [1, 1], 0.1, "times must increase"),
        (np.zeros((2, 1)), [1, 2], 0.0, "duration_s is 0.0"),
    ],
)
def test_what_is_no_series_is_refused(values, times_s, duration_s, message):
    with pytest.raises(ValueError, match=message):
        TimedValues(values, times_s, duration_s)


def test_events_may_coincide():
    assert TimedValues(np.zeros((2, 1)), [1, 1]).times_s.tolist() == [1, 1]


def test_a_space_has_the_same_columns_at_both_rates():
    timed = TimedValues(np.zeros((5, 2)), np.arange(5))
    with pytest.raises(ValueError, match="'pitch' has 1 columns and 2 at its own rate"):
        FeatureSpace("pitch", "low_level", ("hz",), "mine", np.zeros((3, 1)), timed=timed)
    space = FeatureSpace("pitch", "low_level", ("hz", "dB"), "mine", np.zeros((3, 2)), timed=timed)
    assert space.timed is timed
