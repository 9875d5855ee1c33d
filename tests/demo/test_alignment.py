import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlit.demo.alignment import PhoneEvent, align_words, phone_intervals


def spans_of(text):
    return [match.span() for match in re.finditer(r"\w+", text)]


def events_of(*rows):
    return [PhoneEvent(label, position, start_s) for label, position, start_s in rows]


def test_a_word_lasts_from_its_first_phone_to_the_end_of_its_last():
    text = "a cat. so"
    events = events_of(
        ("@", 0, 0.0), ("k", 2, 0.1), ("'a", 2, 0.2), ("t", 2, 0.4), ("_:", 6, 0.5), ("s", 7, 0.8), ("oU", 7, 0.9)
    )
    words = align_words(text, spans_of(text), events, 1.2)
    assert words.labels == ("a", "cat", "so")
    np.testing.assert_allclose(words.start_s, [0.0, 0.1, 0.8])
    np.testing.assert_allclose(words.end_s, [0.1, 0.5, 1.2])
    phones = phone_intervals(events, 1.2)
    assert phones.labels == ("@", "k", "a", "t", "s", "oU")
    np.testing.assert_allclose(phones.end_s, [0.1, 0.2, 0.4, 0.5, 0.9, 1.2])


def test_merged_words_share_the_phones_by_letters_and_get_at_least_one_each():
    text = "in the garden"
    events = events_of(("I", 0, 0.0), ("n", 0, 0.1), ("D", 0, 0.2), ("@", 0, 0.25), ("g", 7, 0.4))
    words = align_words(text, spans_of(text), events, 0.9)
    np.testing.assert_allclose(words.start_s, [0.0, 0.2, 0.4])
    text = "of everything"
    words = align_words(text, spans_of(text), events_of(("v", 0, 0.0), ("E", 0, 0.1)), 0.9)
    np.testing.assert_allclose(words.start_s, [0.0, 0.1])


def test_fewer_phones_than_words_share_the_time():
    text = "of a"
    words = align_words(text, spans_of(text), events_of(("@", 0, 0.3)), 0.6)
    np.testing.assert_allclose(words.start_s, [0.3, 0.5])
    np.testing.assert_allclose(words.duration_s, [0.2, 0.1])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 2**31))
def test_every_word_has_a_duration_and_words_tile_the_sound(counts, seed):
    rng = np.random.default_rng(seed)
    counts[0] = max(counts[0], 1)
    words = ["x" * int(rng.integers(1, 9)) for _ in counts]
    text = " ".join(words)
    spans = spans_of(text)
    times_s = np.sort(rng.choice(10_000, sum(counts), replace=False)) / 1000
    positions = np.repeat([start for start, _ in spans], counts)
    events = [PhoneEvent("a", int(p), float(t)) for p, t in zip(positions, times_s, strict=True)]
    aligned = align_words(text, spans, events, 10.0)
    assert aligned.labels == tuple(words)
    assert (aligned.duration_s > 0).all()
    assert aligned.start_s[0] == times_s[0]
    np.testing.assert_allclose(aligned.end_s, [*aligned.start_s[1:], 10.0])


def test_events_without_phones_for_the_first_word_are_refused():
    with pytest.raises(RuntimeError, match="no phones for the first word"):
        align_words("a b", spans_of("a b"), events_of(("b", 2, 0.1)), 1.0)
