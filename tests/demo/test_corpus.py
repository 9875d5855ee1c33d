import numpy as np
import pytest

from brainlit.demo import speech_corpus
from brainlit.demo.corpus import tell_story
from brainlit.demo.lexicon import category_of
from brainlit.demo.streams import random_stream
from brainlit.features.phones import classify_phones, is_pause


@pytest.mark.parametrize("tr_s", [1.5, 2.0, 2.0045])
def test_the_sound_fills_the_volumes_exactly(tr_s):
    story = tell_story("s", np.random.default_rng(0), 0.5, tr_s)
    assert story.timebase.tr_starts_s[0] == 0
    assert len(story.audio) == story.timebase.samples_at(story.timebase.end_s)
    assert story.words.end_s[-1] <= story.timebase.end_s
    assert (story.timebase.trs_at(story.words.middle_s) >= 0).all()
    assert story.audio.dtype == np.int16
    assert story.timebase.tr_s == tr_s


@pytest.mark.parametrize("minutes", [0.5, 2.0])
def test_stories_are_about_as_long_as_asked(minutes):
    lengths_s = [tell_story("s", random_stream(k, "length"), minutes, 2.0).timebase.end_s for k in range(3)]
    assert abs(np.mean(lengths_s) / 60 - minutes) < 0.15 * minutes + 0.03


def test_a_story_too_short_for_its_clock_is_refused():
    with pytest.raises(ValueError, match=r"make it at least 0.27 minutes"):
        tell_story("s", np.random.default_rng(0), 0.2, 2.0)


def test_the_corpus_has_words_phones_and_content():
    corpus = speech_corpus(seed=0, minutes=1.5, story_minutes=0.5)
    assert [story.name for story in corpus] == ["speech_001", "speech_002", "speech_003"]
    assert sum(story.timebase.end_s for story in corpus) == pytest.approx(90, abs=20)
    words = [word.lower() for story in corpus for word in story.words.labels]
    assert sum(word in category_of() for word in words) > 0.15 * len(words)
    assert all(story.phones is not None for story in corpus)


def test_every_phone_of_the_voices_has_a_class():
    labels = [label for story in speech_corpus(seed=3, minutes=1.0, story_minutes=0.5) for label in story.phones.labels]
    assert not any(is_pause(label) for label in labels)
    assert (classify_phones(labels).sum(axis=1) == 1).all()


def test_seeds_give_other_texts_and_the_demo_tells_other_stories(source):
    one, again, other = (speech_corpus(seed, 0.5)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.audio, again.audio)
    assert one.words.labels != other.words.labels
    assert one.words.labels != source.story("story_001").words.labels


def test_no_minutes_are_refused():
    with pytest.raises(ValueError, match="minutes is 0"):
        speech_corpus(0, 0)
