"""Words are those of the stretches to score, and never of what was tuned on."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from brainlit.demo.lexicon import CATEGORIES, category_of
from brainlit.downstream import story_words as module
from brainlit.downstream.pairs import DEMO_MEANING, WORDNET_MEANING
from brainlit.downstream.story_words import MAX_PER_WORD, hear, story_words
from brainlit.downstream.word_lists import WordListMissingError
from brainlit.encoding.roles import Span
from brainlit.stories import Intervals
from brainlit.timebase import SAMPLE_RATE_HZ, TimeBase
from tests.backbones.conftest import load, save_mini

NOUNS = sorted(noun for category in CATEGORIES.values() for noun in category.nouns[:2])
N_TRS, TR_S, WORD_S = 40, 2.0, 0.5


class Store:
    """Stories in which a word is said every half second, all with one phone string of their own."""

    def __init__(self, name="demo", words=(*NOUNS, "the")):
        self.name, self.said = name, words

    def n_samples(self, story):
        return int(N_TRS * TR_S * SAMPLE_RATE_HZ)

    def audio(self, story, start, stop):
        return np.random.default_rng(len(story)).integers(-999, 999, stop - start).astype(np.int16)

    def words(self, story):
        start_s = np.arange(0, N_TRS * TR_S, WORD_S)
        return Intervals(tuple(self.said[k % len(self.said)] for k in range(len(start_s))), start_s, 0 * start_s + 0.4)

    def phones(self, story):
        words = self.words(story)
        said = zip(words.labels, words.start_s, strict=True)
        letters = [(letter, start + 0.1 * k) for label, start in said for k, letter in enumerate(label[:4])]
        names, starts = zip(*letters, strict=True)
        return Intervals(names, np.asarray(starts), np.full(len(names), 0.1))

    def timebase(self, story):
        return TimeBase.regular(N_TRS, TR_S)


@pytest.fixture
def any_pairs(monkeypatch):
    """As if all pairs could be compared: what they are is tested with them."""
    monkeypatch.setattr(module.WordStates, "token_pairs", lambda *_: None)


def test_the_demos_words_have_their_categories(any_pairs):
    found = story_words(Store(), [Span("a", 0, N_TRS), Span("bb", 0, N_TRS)])
    assert set(found.states.words) == set(NOUNS), "'the' is not in the lexicon"
    assert found.states.categories == tuple(category_of()[word] for word in found.states.words)
    assert found.states.meaning == DEMO_MEANING
    counts = {(word, who): 0 for word in NOUNS for who in ("a", "bb")}
    for token in zip(found.states.words, found.states.speakers, strict=True):
        counts[token] += 1
    assert set(counts.values()) == {MAX_PER_WORD}
    assert found.states.facts["stories"] == ["a[0:40]", "bb[0:40]"]
    assert found.states.facts["clips"] == [clip.name for clip in found.clips]


def test_words_are_of_the_rows_to_score_without_those_that_were_tuned_on(any_pairs):
    store = Store()
    whole = story_words(store, [Span("a", 10, 20)])
    sounds = {clip.sound().tobytes() for clip in whole.clips}
    audio, words = store.audio("a", 0, store.n_samples("a")), store.words("a")

    def inside(first_s, last_s):
        kept = (words.start_s >= first_s) & (words.end_s <= last_s)
        edges = np.round(np.stack([words.start_s, words.end_s], axis=1)[kept] * SAMPLE_RATE_HZ).astype(int)
        return {audio[start:stop].tobytes() for start, stop in edges}

    assert sounds <= inside(20, 40)
    assert len(sounds) > 10
    part = story_words(store, [Span("a", 10, 20)], [Span("a", 12, 30), Span("b", 0, 40)])
    kept = {clip.sound().tobytes() for clip in part.clips}
    assert kept <= inside(20, 24)
    assert kept
    with pytest.raises(ValueError, match="hold none of the words wanted"):
        story_words(store, [Span("a", 10, 20)], [Span("a", 0, 40)])


def test_too_few_pairs_are_refused_before_a_model_is_asked():
    with pytest.raises(ValueError, match="pairs that can be compared"):
        story_words(Store(words=("horse", "rabbit")), [Span("a", 0, N_TRS)])


def test_other_data_need_wordnet_and_keep_words_that_are_in_a_pair(any_pairs, monkeypatch):
    store = Store("lebel2023", ("big", "large", "cat", "bat", "alone"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(WordListMissingError, match="pip install nltk"):
        story_words(store, [Span("a", 0, N_TRS)])
    pairs = SimpleNamespace(words=("bat", "big", "cat", "large"))
    monkeypatch.setattr(module, "english_pairs", lambda words, phones: pairs)
    found = story_words(store, [Span("a", 0, N_TRS)])
    assert set(found.states.words) == set(found.states.phones) == {"bat", "big", "cat", "large"}
    assert len(found.clips) == len(found.states.words) == 4 * MAX_PER_WORD
    assert found.states.facts["left_out"]["in no pair"] == MAX_PER_WORD
    assert set(found.states.categories) == {""}
    assert found.states.meaning == WORDNET_MEANING


def test_a_model_hears_each_word_by_itself(any_pairs, tmp_path):
    save_mini(tmp_path)
    backbone = load(tmp_path)
    words = story_words(Store(), [Span("a", 0, N_TRS)])
    states = hear(backbone, words, progress=False)
    assert list(states.layers) == list(range(backbone.n_layers + 1))
    assert {values.shape for values in states.layers.values()} == {(len(words.clips), backbone.hidden_size)}
    assert states.words == words.states.words
    few = words._replace(clips=words.clips[5:6])
    np.testing.assert_allclose(hear(backbone, few, progress=False).layers[1][0], states.layers[1][5], atol=1e-5)
