"""The offline tasks: labels that are true, words and voices and templates that train does not have."""

from collections import Counter

import numpy as np
import pytest

from brainlit.demo.speech import VOICES
from brainlit.demo.text import CATEGORIES, FILLERS, TEMPLATES, category_of, homophone_pairs
from brainlit.downstream.demo_tasks import (
    UNSEEN_VOICES,
    DemoSize,
    DemoSpeech,
    say_words,
    type_of_template,
    unseen_templates,
    unseen_words,
)
from brainlit.downstream.tasks import DEMO, TASKS

SMALL = DemoSize(1, 1, 1, 1, 1, 10, 2, 2, 2)


@pytest.fixture(scope="module")
def tasks():
    speech = DemoSpeech(size=SMALL)
    return {entry.name: entry.load(speech) for entry in TASKS if entry.data_set == DEMO}


def test_all_tasks_are_made_and_those_on_words_share_their_clips(tasks):
    assert {name: task.name for name, task in tasks.items()} == {name: name for name in tasks}
    assert len(tasks) == 5
    category, phones = tasks["demo/word_category"], tasks["demo/phones"]
    assert category.clips["test"] == phones.clips["test"]
    assert len(category.clips["train"]) == 56
    assert category.labels == tuple(sorted(CATEGORIES))
    assert len(tasks["demo/word_identity"].labels) == 56


def test_every_word_is_heard_as_often_with_its_own_category(tasks):
    task = tasks["demo/word_category"]
    for part in task.parts:
        words = [clip.text for clip in task.clips[part]]
        assert set(Counter(words).values()) == {1}
        assert [task.labels[k] for k in task.targets[part]] == [category_of()[word] for word in words]
        assert set(Counter(task.targets[part].tolist()).values()) == {3 if part == "test_unseen_words" else 7}


def test_unseen_words_voices_and_templates_are_unseen(tasks):
    task = tasks["demo/word_category"]
    words = {part: {clip.text for clip in task.clips[part]} for part in task.parts}
    assert words["test_unseen_words"] == unseen_words(0)
    assert not words["test_unseen_words"] & (words["train"] | words["choose"] | words["test"])
    for name in ("demo/word_category", "demo/sentence_type"):
        voices = {part: {clip.speaker for clip in tasks[name].clips[part]} for part in tasks[name].parts}
        assert voices["train"] <= set(VOICES)
        assert voices["test_unseen_voices"] <= set(UNSEEN_VOICES)
    assert not set(VOICES) & set(UNSEEN_VOICES)
    assert len(unseen_templates(0)) == 7
    assert {type_of_template(template) for template in unseen_templates(0)} == {"action", "filler", "naming", "quality"}
    assert unseen_words(0) != unseen_words(1)


def test_unseen_words_are_balanced_over_categories_and_kinds():
    for category in CATEGORIES.values():
        assert len(unseen_words(3) & set(category.nouns)) == 2
        assert len(unseen_words(3) & {*category.verbs, *category.adjectives}) == 1


def test_words_that_sound_like_another_are_in_no_task(tasks):
    homophones = {word for pair in homophone_pairs() for word in pair}
    said = {clip.text for task in tasks.values() for part in task.parts for clip in task.clips[part]}
    assert said & set(category_of()) == set(category_of()) - homophones


def test_clips_hold_their_word_and_its_phones(tasks):
    task = tasks["demo/phones"]
    phones = {
        clip.text: {task.labels[k] for k in np.flatnonzero(row)}
        for part in ("train", "test_unseen_words")
        for clip, row in zip(task.clips[part], task.targets[part], strict=True)
    }
    for word, first in (("butter", "b"), ("tractor", "t"), ("melody", "m"), ("salty", "s"), ("penny", "p")):
        assert first in phones[word]
    lengths_s = [len(clip.sound()) / 16_000 for clip in task.clips["train"]]
    assert min(lengths_s) > 0.1
    assert max(lengths_s) < 1.2


def test_each_kind_of_sentence_has_templates_and_labels_its_sentences(tasks):
    kinds = Counter(map(type_of_template, (*TEMPLATES, *FILLERS)))
    assert kinds == {"action": 8, "filler": 10, "naming": 8, "quality": 4}
    task = tasks["demo/sentence_type"]
    content = set(category_of())
    for clip, target in zip(task.clips["test"], task.targets["test"], strict=True):
        words = set(clip.text.lower().replace(",", "").split())
        assert (task.labels[target] == "filler") == (not words & content)


def test_the_speaker_is_the_voice(tasks):
    task = tasks["demo/speaker"]
    assert task.labels == tuple(sorted(VOICES))
    assert [task.labels[k] for k in task.targets["test"]] == [clip.speaker for clip in task.clips["test"]]


def test_the_same_seed_says_the_same_and_another_something_else():
    def first(seed, part="test"):
        return say_words(seed, part, ["wolf", "chased", "furry"], 1)[0].clip

    one, again = first(0), first(0)
    np.testing.assert_array_equal(one.sound(), again.sound())
    for other in (first(1), first(0, "train")):
        assert len(one.sound()) != len(other.sound()) or (one.sound() != other.sound()).any()


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="demo size test is 0"):
        DemoSize(test=0)
