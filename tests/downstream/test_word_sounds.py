from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainlit.demo import speak
from brainlit.demo.lexicon import CATEGORIES
from brainlit.downstream.features import clip_features
from brainlit.downstream.pairs import demo_pairs
from brainlit.downstream.preference import preference
from brainlit.downstream.scores import Draws
from brainlit.downstream.token_pairs import pair_tokens
from brainlit.downstream.word_sounds import WordSounds, stored_stories, word_sounds
from brainlit.store import StoryStore
from brainlit.stories import Intervals, Story
from brainlit.timebase import SAMPLE_RATE_HZ, TimeBase
from tests.backbones.conftest import load, save_mini


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
    """All words of the demo, said once in each of two voices."""
    text = " ".join(f"{word.capitalize()}." for category in CATEGORIES.values() for word in category.words)
    spoken = {voice: speak(text, voice, rate_wpm=180) for voice in ("en-us", "en-us+f1")}
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
    assert ("goat", "horse") in pairs.of_kind("semantic")
    distance = pairs.mean_phone_distance()
    assert distance["near_homophone"] <= 0.5
    assert distance["semantic"] == pytest.approx(distance["random"], abs=0.02)
    assert demo_pairs(demo.phones, most_phone_distance=0.4).counts()["near_homophone"] < 12


def test_a_model_that_was_taught_nothing_prefers_sound(demo: WordSounds, tmp_path: Path) -> None:
    pairs = demo_pairs(demo.phones)
    some = {word for pair in pairs.of_kind("near_homophone") for word in pair}
    clips = [clip for clip in demo.clips if clip.text in some]
    save_mini(tmp_path)
    features = clip_features(load(tmp_path), clips, progress=False)
    tokens = pair_tokens([clip.text for clip in clips], [clip.speaker for clip in clips], pairs)
    assert tokens.voices == "both"
    found = preference(features, tokens, draws=Draws(n_boot=200))
    assert [layer.layer for layer in found] == [0, 1, 2]
    assert found[0].phonetic.low > 0
    assert found[0].difference.high < 0
