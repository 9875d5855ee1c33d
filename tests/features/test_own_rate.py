"""Every computed space keeps its own rate, which says the same as its values per TR."""

import numpy as np
import pytest

from brainlit.features import LOW_LEVEL, word_vectors
from brainlit.features.per_tr import BIN_S, binned_frames
from brainlit.features.phones import count_phones
from brainlit.stories import Story
from brainlit.timebase import TimeBase
from tests.features.tone import RATE_HZ, intervals, spoken

FRAMES = ("log_mel", "envelope", "power_spectrum", "mfcc")


@pytest.fixture(scope="module")
def story():
    """Half a minute of noise whose loudness wanders, with words that overlap and pauses between them."""
    rng = np.random.default_rng(3)
    loud = np.repeat(rng.uniform(10, 3000, 300), RATE_HZ // 10)
    audio = (loud * rng.standard_normal(len(loud))).clip(-32768, 32767).astype(np.int16)
    start_s = np.sort(rng.uniform(0.1, 28, 40))
    words = intervals([f"w{'o' * (k % 7)}rd" for k in range(40)], start_s, rng.uniform(0.05, 0.9, 40))
    phones = spoken(" ".join(["M AA sp B IY T"] * 40), 0.12)
    return Story("noise", audio, words, phones, TimeBase.regular(14, 2.0045, 0.4))


@pytest.fixture(scope="module")
def spaces(story):
    inventory = count_phones([story.phones], 20, 20)
    computed = [LOW_LEVEL[name].compute(story, inventory) for name in LOW_LEVEL]
    vectors = {label: np.arange(3) + len(label) for label in story.words.labels[::2]}
    return {space.name: space for space in [*computed, word_vectors(story, vectors, "made up")]}


def test_every_space_has_its_own_rate_with_the_same_columns(spaces):
    for name, space in spaces.items():
        assert space.timed.values.shape[1] == len(space.columns), name
        assert space.timed.duration_s == (BIN_S if name in FRAMES else None), name


def test_events_summed_per_tr_are_the_values_per_tr(story, spaces):
    for name, space in spaces.items():
        if name in FRAMES:
            continue
        rows = story.timebase.sum_per_tr(space.timed.values, space.timed.times_s)
        if name == "word_length":
            rows /= np.maximum(story.timebase.count_per_tr(space.timed.times_s), 1)[:, None]
        np.testing.assert_allclose(rows, space.values, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_means_of_bins_over_the_whole_sound(story, spaces, name):
    space = spaces[name]
    assert space.timed.times_s[0] == pytest.approx(0.045)
    assert len(space.timed.times_s) == 301
    rows = story.timebase.average_per_tr(space.timed.values, space.timed.times_s)
    for column in range(len(space.columns)):
        if space.values[:, column].std() > 1e-3:
            assert np.corrcoef(rows[:, column], space.values[:, column])[0, 1] > 0.95


def test_words_stand_at_their_middles_with_their_letters(story, spaces):
    order = np.argsort(story.words.middle_s, kind="stable")
    assert (np.diff(story.words.middle_s) < 0).any(), "words that overlap are wanted here"
    timed = spaces["word_length"].timed
    np.testing.assert_array_equal(timed.times_s, story.words.middle_s[order])
    letters = np.array([sum(map(str.isalpha, word)) for word in story.words.labels])
    np.testing.assert_array_equal(timed.values[:, 0], letters[order])


def test_pauses_add_up_to_their_seconds_and_begin_once(story, spaces):
    timed = spaces["pauses"].timed
    ends_s = np.maximum.accumulate(story.words.end_s)[:-1]
    gaps_s = np.maximum(story.words.start_s[1:] - ends_s, 0)
    assert timed.values[:, 0].sum() == pytest.approx(gaps_s.sum(), abs=1e-4)
    begun_s = timed.times_s[timed.values[:, 1] == 1]
    np.testing.assert_allclose(begun_s, ends_s[gaps_s >= 0.25])
    assert timed.values[:, 0].max() <= BIN_S + 1e-6


def test_the_own_rate_does_not_depend_on_how_rows_are_made(story, spaces):
    for name in ("log_mel", "word_rate"):
        other = LOW_LEVEL[name].compute(story, None, "lanczos").timed
        np.testing.assert_array_equal(other.values, spaces[name].timed.values)


def test_what_precedes_the_first_volume_is_kept():
    story = Story("late", np.ones(16_000, np.int16), intervals(["a"], [0.1]), None, TimeBase.regular(1, 2.0, 5.0))
    assert not LOW_LEVEL["word_rate"].compute(story).values.any()
    assert LOW_LEVEL["word_rate"].compute(story).timed.times_s.tolist() == [pytest.approx(0.15)]


def test_a_story_without_words_has_no_events():
    story = Story("mute", np.zeros(16_000, np.int16), intervals([], []), None, TimeBase.regular(1, 2.0))
    for name in ("word_rate", "word_length", "pauses"):
        timed = LOW_LEVEL[name].compute(story).timed
        assert timed.values.shape == (0, len(LOW_LEVEL[name].compute(story).columns))


def test_bins_need_no_copy_of_all_frames():
    import tracemalloc

    frames = np.zeros((60_000, 64), dtype=np.float32)
    times_s = np.arange(60_000) * 0.01
    tracemalloc.start()
    binned_frames(frames, times_s)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames.nbytes
