from dataclasses import replace

import numpy as np
import pytest

from brainlit.features import word_length, word_rate
from brainlit.features.rates import MIN_PAUSE_S, gaps, pauses
from brainlit.timebase import TimeBase
from tests.features.tone import intervals, tone_story


def test_words_are_counted_by_their_middle():
    story = tone_story(0, 1)
    assert word_rate(story).values[:, 0].tolist() == [1, 2, 0, 0, 0, 0]
    assert word_length(story).values[:, 0].tolist() == [1, 4, 0, 0, 0, 0]
    at_edge = replace(story, words=intervals(["x", "y"], [1.9, 1.97], duration_s=0.1))
    assert word_rate(at_edge).values[:2, 0].tolist() == [1, 1]


def test_pauses_are_shared_out_between_rows_and_begin_in_one():
    words = intervals(["one", "two", "three", "four"], [0.5, 3.0, 3.6, 9.0], [0.5, 0.5, 0.4, 1.0])
    space = pauses(replace(tone_story(0, 1), words=words))
    assert space.columns == ("seconds_without_word", "pauses_begun")
    np.testing.assert_allclose(space.values[:, 0], [1.0, 1.0 + 0.1, 2.0, 2.0, 1.0, 0.0], atol=1e-6)
    assert space.values[:, 1].tolist() == [1, 0, 1, 0, 0, 0]


def test_pauses_equal_an_explicit_loop_on_an_irregular_clock():
    rng = np.random.default_rng(0)
    start_s = np.sort(rng.uniform(0, 20, 40))
    words = intervals(["w"] * 40, start_s, rng.uniform(0.1, 0.9, 40))
    clock = TimeBase(np.cumsum(rng.uniform(1.3, 1.7, 12)), 1.5)
    silent_s, begun, heard_until = np.zeros(12), np.zeros(12), words.end_s[0]
    for start, end in zip(words.start_s[1:], words.end_s[1:], strict=True):
        if start > heard_until:
            silent_s += np.maximum(np.minimum(start, clock.tr_ends_s) - np.maximum(heard_until, clock.tr_starts_s), 0)
            begun += (
                (clock.tr_starts_s <= heard_until)
                & (heard_until < clock.tr_ends_s)
                & (start - heard_until >= MIN_PAUSE_S)
            )
        heard_until = max(heard_until, end)
    space = pauses(replace(tone_story(0, 1), words=words, timebase=clock))
    assert silent_s.sum() > 1
    np.testing.assert_allclose(space.values, np.column_stack([silent_s, begun]), atol=1e-5)


@pytest.mark.parametrize("n_words", [0, 1])
def test_without_two_words_there_is_no_pause(n_words):
    story = replace(tone_story(0, 1), words=intervals(["x"] * n_words, [1.0] * n_words))
    assert not pauses(story).values.any()
    assert not pauses(story, per_tr="lanczos").values.any()


def test_overlapping_words_leave_no_gap():
    words = intervals(["long", "short", "next"], [0.0, 0.1, 1.0], [1.0, 0.2, 0.5])
    assert gaps(words)[0].tolist() == []
