"""Words are those of the stretches to score, and never of what was tuned on."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainlit.demo import speak
from brainlit.demo.text import CATEGORIES, category_of, homophone_pairs, word_vectors
from brainlit.downstream import words as module
from brainlit.downstream.features import clip_features, word_states
from brainlit.downstream.pairs import DEMO_MEANING, WORDNET_MEANING, demo_pairs, pair_tokens, planted_pairs
from brainlit.downstream.preference import preference
from brainlit.downstream.result import model_folder
from brainlit.downstream.scores import BootstrapConfig
from brainlit.downstream.word_lists import WordListMissingError
from brainlit.downstream.words import (
    MAX_PER_WORD,
    WordSounds,
    WordStates,
    find_words,
    load_words,
    stored_stories,
    story_words,
    word_sounds,
)
from brainlit.splits import Span
from brainlit.store import StoryStore
from brainlit.stories import Intervals, Story
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
        story_words(Store(words=("donkey", "rabbit")), [Span("a", 0, N_TRS)])


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
    states = word_states(backbone, words, progress=False)
    assert list(states.layers) == list(range(backbone.n_layers + 1))
    assert {values.shape for values in states.layers.values()} == {(len(words.clips), backbone.hidden_size)}
    assert states.words == words.states.words
    few = words._replace(clips=words.clips[5:6])
    np.testing.assert_allclose(word_states(backbone, few, progress=False).layers[1][0], states.layers[1][5], atol=1e-5)


def story(name: str, words: list[tuple[str, float, float]], phones: Intervals | None = None) -> Story:
    audio = np.arange(2 * SAMPLE_RATE_HZ, dtype=np.int16)
    tier = Intervals(
        tuple(w for w, _, _ in words), np.array([a for _, a, _ in words]), np.array([d for *_, d in words])
    )
    return Story(name, audio, tier, phones, TimeBase.regular(1, 2.0))


def test_the_sound_of_a_word_and_no_more_is_cut() -> None:
    said = story("s", [('"River,', 0.25, 0.5), ("RIVER", 1.0, 0.3), ("a", 1.3, 0.05), ("stone", 1.6, 0.5)])
    sounds = word_sounds([said], {"s": "anna"})
    assert [(clip.name, clip.text, clip.speaker) for clip in sounds.clips] == [
        ("s/0", "river", "anna"),
        ("s/1", "river", "anna"),
    ]
    assert sounds.clips[0].sound().tolist() == said.audio[4000:12000].tolist()
    assert not np.shares_memory(sounds.clips[0].sound(), said.audio)
    assert sounds.left_out == {"shorter than 0.1 s": 1, "outside the sound": 1, "more of one word": 0}
    assert sounds.phones == {}
    with pytest.raises(ValueError, match="none of the words wanted"):
        word_sounds([said], only=["lake"])


def test_phones_are_those_said_most_often() -> None:
    labels = ("R", "IH1", "sp", "R", "IH0", "R", "AH0", "S")
    phones = Intervals(labels, np.array([0.0, 0.1, 0.2, 0.5, 0.6, 1.0, 1.1, 1.45]), np.full(8, 0.1))
    said = story("s", [("rih", 0.0, 0.4), ("rih", 0.5, 0.4), ("rih", 1.0, 0.45)], phones)
    assert word_sounds([said]).phones == {"rih": ("R", "IH")}


def test_many_tokens_are_drawn_by_the_seed() -> None:
    said = story("s", [("river", 0.1 * k, 0.1) for k in range(19)])
    drawn = [[clip.name for clip in word_sounds([said], seed=seed).clips] for seed in (0, 0, 1)]
    assert len(drawn[0]) == 4
    assert drawn[0] == drawn[1] != drawn[2]
    assert word_sounds([said]).left_out["more of one word"] == 15


def test_stories_of_a_store_are_those_that_were_stored(toy_store: StoryStore) -> None:
    stored = next(stored_stories(toy_store, ["toy2"]))
    assert stored.name == "toy2"
    assert len(stored.audio) == toy_store.n_samples("toy2")
    assert stored.words.labels == toy_store.words("toy2").labels
    assert [told.name for told in stored_stories(toy_store)] == toy_store.story_names


@pytest.fixture(scope="module")
def demo() -> WordSounds:
    """All words of the demo, said once in each of four voices."""
    text = " ".join(f"{word.capitalize()}." for category in CATEGORIES.values() for word in category.words)
    spoken = {voice: speak(text, voice, rate_wpm=180) for voice in ("en-us", "en-us+f1", "en-us+m3", "en-us+m7")}
    told = [
        Story(voice, speech.audio, speech.words, speech.phones, TimeBase.regular(1, 2.0))
        for voice, speech in spoken.items()
    ]
    return word_sounds(told)


def test_the_demo_has_pairs_of_both_kinds(demo: WordSounds) -> None:
    pairs = demo_pairs(demo.phones)
    counts = pairs.counts()
    assert counts["semantic"] > 200
    assert counts["near_homophone"] > 25
    assert ("cloud", "loud") in pairs.of_kind("near_homophone")
    assert ("donkey", "wolf") in pairs.of_kind("semantic")
    distance = pairs.mean_phone_distance()
    assert distance["near_homophone"] <= 0.5
    assert distance["semantic"] == pytest.approx(distance["random"], abs=0.02)
    assert demo_pairs(demo.phones, most_phone_distance=0.4).counts()["near_homophone"] < 15


def test_the_planted_pairs_are_told_apart_by_meaning_and_by_sound_as_planted(demo: WordSounds) -> None:
    """A model of the true vectors prefers meaning in every pair; one of the phones that are said prefers sound."""
    pairs = planted_pairs(demo.phones)
    assert pairs.counts() | {"random": 0} == {"semantic": 8, "near_homophone": 8, "random": 0}
    assert {tuple(sorted(pair)) for pair in homophone_pairs()} == set(pairs.of_kind("near_homophone"))
    tokens = pair_tokens(demo.words, demo.speakers, pairs)
    inventory = sorted({phone for said in demo.phones.values() for phone in said})
    by_sound = np.array([[demo.phones[word].count(phone) for phone in inventory] for word in demo.words])
    by_meaning = np.stack([word_vectors()[word] for word in demo.words])
    found = preference({0: by_sound.astype(np.float32), 1: by_meaning.astype(np.float32)}, tokens)
    assert found[0].difference.high < -0.5
    assert found[1].difference.low > 0.5


def test_a_model_that_was_taught_nothing_prefers_sound(demo: WordSounds, tmp_path: Path) -> None:
    pairs = planted_pairs(demo.phones)
    some = set(pairs.words)
    clips = [clip for clip in demo.clips if clip.text in some]
    save_mini(tmp_path)
    features = clip_features(load(tmp_path), clips, progress=False)
    tokens = pair_tokens([clip.text for clip in clips], [clip.speaker for clip in clips], pairs)
    assert tokens.voices == "both"
    found = preference(features, tokens, bootstrap=BootstrapConfig(n_boot=200))
    assert [layer.layer for layer in found] == [0, 1, 2]
    assert found[0].phonetic.low > 0
    assert found[0].difference.high < 0


# --- What each layer makes of them, kept in a file ---

PHONES = {"donkey": ("d", "O", "n", "k", "i"), "rabbit": ("r", "a", "b", "i", "t")}


def states(meaning=DEMO_MEANING, clips=("a/0", "a/1", "b/0")):
    rng = np.random.default_rng(0)
    return WordStates(
        words=("donkey", "rabbit", "donkey"),
        speakers=("a", "a", "b"),
        categories=("animals", "animals", "animals"),
        phones=PHONES,
        meaning=meaning,
        layers={layer: rng.standard_normal((3, 5)).astype(np.float32) for layer in (0, 2, 10)},
        facts={"clips": list(clips), "stories": ["a[0:4]", "b[0:4]"]},
    )


def test_words_come_back_as_they_were(tmp_path: Path):
    kept = states()
    folder = model_folder(tmp_path, "tuned")
    assert find_words(folder) is None
    kept.save(folder / "words.npz")
    found = find_words(folder)
    assert (found.words, found.speakers, found.categories) == (kept.words, kept.speakers, kept.categories)
    assert (found.phones, found.meaning, found.facts) == (PHONES, DEMO_MEANING, kept.facts)
    assert list(found.layers) == [0, 2, 10]
    for layer, values in kept.layers.items():
        np.testing.assert_allclose(found.layers[layer], values, rtol=1e-3)
        assert found.layers[layer].dtype == np.float32
    assert found.same_tokens(kept)
    assert not found.same_tokens(states(clips=("a/0", "a/1", "b/7")))


def test_pairs_are_of_the_kind_that_meaning_says(monkeypatch):
    asked = []
    monkeypatch.setattr("brainlit.downstream.words.english_pairs", lambda *given, **_: asked.append(given))
    assert states().pairs().of_kind("semantic") == [("donkey", "rabbit")]
    assert not asked
    states(WORDNET_MEANING).pairs()
    assert asked == [({"donkey", "rabbit"}, PHONES)]


def test_other_files_are_refused(tmp_path: Path):
    np.savez(tmp_path / "words.npz", values=np.zeros(3))
    with pytest.raises(ValueError, match=r"words\.npz holds no states of words of this version"):
        load_words(tmp_path / "words.npz")
