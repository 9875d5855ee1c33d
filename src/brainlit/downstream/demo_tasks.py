"""Tasks on the demo's speech, whose labels are exact: what offline runs show, and what they do not generalise to.

Clips are words cut out of sentences, and whole sentences, in voices that training has and has not. Tasks on words share
their clips, and so do those on sentences, so that a model hears each clip once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from brainlit.demo.source import PITCH, RATE_WPM
from brainlit.demo.speech import VOICES, Speech, speak
from brainlit.demo.text import CATEGORIES, FILLERS, TEMPLATES, category_of, random_stream
from brainlit.downstream.clip import Clip, cut_clips
from brainlit.downstream.task import CHOOSE, TEST, TRAIN, Example, Task, make_task
from brainlit.stories import Intervals

_UNSEEN_WORDS_PART, _UNSEEN_VOICES_PART = "test_unseen_words", "test_unseen_voices"
_UNSEEN_TEMPLATES_PART = "test_unseen_templates"

_FACTS = {
    "source": "the demo's grammar, spoken by espeak-ng; texts are none of the stories', the eight voices of training"
    " are theirs",
    "licence": "synthetic; no rights are claimed",
}
_UNSEEN_WORDS_NOTE = (
    "unseen words are unseen by the probe; a model that was tuned on the demo's stories has heard them there"
)
_UNSEEN_TEMPLATES_NOTE = (
    "train and test share their templates; only the part of unseen templates asks for the type itself"
)

UNSEEN_VOICES = ("en-us+m2", "en-us+m6", "en-us+m8", "en-us+Andy", "en-us+steph", "en-us+linda")
"""Voices that no story of the demo and no probe's training has."""

_SENTENCES_PER_TEXT = 12
_SLOT = re.compile(r"\{([NVA])\}")
_PREDICATE = re.compile(r"\b(was|too|as) \{A\}(?! \{N\})")


@dataclass(frozen=True)
class DemoSize:
    """How much is said.

    Parameters
    ----------
    train, choose, test, unseen_words, unseen_voices : int
        How often each word is said in a part. 72 of the 96 words are in train, choose, test and the part of unseen
        voices, the other 24 in the part of unseen words.
    sentences_train, sentences_choose, sentences_test, sentences_unseen : int
        Sentences of each of the four types in a part; `sentences_unseen` in each of the two parts of unseen templates
        and unseen voices.
    """

    train: int = 8
    choose: int = 3
    test: int = 8
    unseen_words: int = 12
    unseen_voices: int = 4
    sentences_train: int = 40
    sentences_choose: int = 15
    sentences_test: int = 20
    sentences_unseen: int = 15

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"demo size {name} is {value}; every part needs some clips: give at least 1.")


class SpokenWord(NamedTuple):
    """A content word cut out of a sentence, with the phones it is made of."""

    clip: Clip
    phones: frozenset[str]


class SpokenSentence(NamedTuple):
    """A sentence and the template or filler that it was made from."""

    clip: Clip
    template: str


@dataclass(frozen=True)
class DemoSpeech:
    """What the tasks are made of: said when a task first asks for it. The same seed gives the same sound.

    Parameters
    ----------
    seed : int
    size : DemoSize

    Raises
    ------
    EspeakMissingError
        On use, if espeak-ng is not installed.
    """

    seed: int = 0
    size: DemoSize = field(default_factory=DemoSize)

    @cached_property
    def words(self) -> dict[str, list[SpokenWord]]:
        """Words cut out of sentences, by part."""
        return _words(self.seed, self.size)

    @cached_property
    def sentences(self) -> dict[str, list[SpokenSentence]]:
        """Whole sentences, by part."""
        return _sentences(self.seed, self.size)


# --- The tasks ---


def phones(speech: DemoSpeech) -> Task:
    """Which phones a word has; several labels per clip."""
    examples: dict[str, list[Example]] = {
        part: [(word.clip, sorted(word.phones)) for word in spoken] for part, spoken in speech.words.items()
    }
    facts = {**_FACTS, "note": _UNSEEN_WORDS_NOTE}
    return make_task("demo/phones", "multi", examples, facts=facts, drop_unknown=True, same_sound="drop")


def word_identity(speech: DemoSpeech) -> Task:
    """Which word is said; unseen words have no label, and so no part."""
    examples: dict[str, list[Example]] = {
        part: [(word.clip, word.clip.text) for word in spoken]
        for part, spoken in speech.words.items()
        if part != _UNSEEN_WORDS_PART
    }
    return _single("demo/word_identity", examples)


def word_category(speech: DemoSpeech) -> Task:
    """Which of eight categories of meaning a word has."""
    category = category_of()
    examples: dict[str, list[Example]] = {
        part: [(word.clip, category[word.clip.text]) for word in spoken] for part, spoken in speech.words.items()
    }
    return _single("demo/word_category", examples, _UNSEEN_WORDS_NOTE)


def sentence_type(speech: DemoSpeech) -> Task:
    """Which of four kinds of sentence is said: see `type_of_template`."""
    examples: dict[str, list[Example]] = {
        part: [(sentence.clip, type_of_template(sentence.template)) for sentence in spoken]
        for part, spoken in speech.sentences.items()
    }
    return _single("demo/sentence_type", examples, _UNSEEN_TEMPLATES_NOTE)


def speaker(speech: DemoSpeech) -> Task:
    """Which voice speaks; unseen voices have no label, and so no part."""
    examples: dict[str, list[Example]] = {
        part: [(sentence.clip, sentence.clip.speaker) for sentence in spoken]
        for part, spoken in speech.sentences.items()
        if part != _UNSEEN_VOICES_PART
    }
    return _single("demo/speaker", examples)


def _single(name: str, examples: Mapping[str, Sequence[Example]], note: str = "") -> Task:
    facts = {**_FACTS, **({"note": note} if note else {})}
    return make_task(name, "single", examples, metric="accuracy", facts=facts, same_sound="drop")


# --- The speech ---


def _words(seed: int, size: DemoSize) -> dict[str, list[SpokenWord]]:
    new = sorted(unseen_words(seed))
    old = [word for word in category_of() if word not in new]
    return {
        TRAIN: say_words(seed, TRAIN, old, size.train),
        CHOOSE: say_words(seed, CHOOSE, old, size.choose),
        TEST: say_words(seed, TEST, old, size.test),
        _UNSEEN_WORDS_PART: say_words(seed, _UNSEEN_WORDS_PART, new, size.unseen_words),
        _UNSEEN_VOICES_PART: say_words(seed, _UNSEEN_VOICES_PART, old, size.unseen_voices, UNSEEN_VOICES),
    }


def _sentences(seed: int, size: DemoSize) -> dict[str, list[SpokenSentence]]:
    new = sorted(unseen_templates(seed))
    old = [template for template in (*TEMPLATES, *FILLERS) if template not in new]
    return {
        TRAIN: say_sentences(seed, TRAIN, old, size.sentences_train),
        CHOOSE: say_sentences(seed, CHOOSE, old, size.sentences_choose),
        TEST: say_sentences(seed, TEST, old, size.sentences_test),
        _UNSEEN_TEMPLATES_PART: say_sentences(seed, _UNSEEN_TEMPLATES_PART, new, size.sentences_unseen),
        _UNSEEN_VOICES_PART: say_sentences(seed, _UNSEEN_VOICES_PART, old, size.sentences_unseen, UNSEEN_VOICES),
    }


def unseen_words(seed: int) -> frozenset[str]:
    """A quarter of each category's words: two of its nouns, and one of its verbs and adjectives."""
    rng = random_stream(seed, "downstream unseen words")
    chosen: set[str] = set()
    for category in CATEGORIES.values():
        chosen |= {str(word) for word in rng.choice(category.nouns, size=2, replace=False)}
        chosen.add(str(rng.choice(category.verbs + category.adjectives)))
    return frozenset(chosen)


def type_of_template(template: str) -> str:
    """What kind of sentence a template of the grammar makes.

    filler: no content word. action: somebody does something (it has a verb slot). quality: somebody or something is
    said to be some way (it ends in an adjective slot). naming: it only names things.

    >>> type_of_template("This {N} was {A}, but that {N} was {A}.")
    'quality'
    """
    if not _SLOT.search(template):
        return "filler"
    if "{V}" in template:
        return "action"
    return "quality" if _PREDICATE.search(template) else "naming"


def unseen_templates(seed: int) -> frozenset[str]:
    """A quarter of the templates and fillers of each type, at least one."""
    rng = random_stream(seed, "downstream unseen templates")
    everything = (*TEMPLATES, *FILLERS)
    chosen: set[str] = set()
    for kind in sorted({type_of_template(template) for template in everything}):
        own = [template for template in everything if type_of_template(template) == kind]
        chosen |= {str(template) for template in rng.choice(own, size=max(1, len(own) // 4), replace=False)}
    return frozenset(chosen)


def say_words(
    seed: int, part: str, words: Sequence[str], n_tokens: int, voices: Sequence[str] = VOICES
) -> list[SpokenWord]:
    """Every word n_tokens times, each time in another sentence, cut at its own times.

    The sentences are those of the grammar, but no scene has a topic: neighbours say nothing about a word's category.
    No other content words than these are said. Voices take turns, each text with its own rate and pitch.
    """
    rng = random_stream(seed, "downstream words", part)
    missing = Counter(dict.fromkeys(words, n_tokens))
    found: list[SpokenWord] = []
    for k, text in enumerate(_texts(rng, missing)):
        voice = voices[k % len(voices)]
        speech = _say(rng, text, voice)
        for clip, start_s, end_s in _cut(f"{part}/{k:03d}", speech, voice):
            if missing[clip.text] > 0:
                missing[clip.text] -= 1
                found.append(SpokenWord(clip, _phones_between(speech.phones, start_s, end_s)))
    return found


def say_sentences(
    seed: int, part: str, templates: Sequence[str], n_of_each_type: int, voices: Sequence[str] = VOICES
) -> list[SpokenSentence]:
    """As many sentences of each type, their templates and the voices taking turns."""
    rng = random_stream(seed, "downstream sentences", part)
    everything = [word for category in CATEGORIES.values() for word in category.words]
    kinds = sorted({type_of_template(template) for template in templates})
    found = []
    for kind in kinds:
        own = [template for template in templates if type_of_template(template) == kind]
        for k in range(n_of_each_type):
            template, voice = own[k % len(own)], voices[int(rng.integers(len(voices)))]
            text = _fill(rng, template, Counter(everything))
            clip = Clip(f"{part}/{kind}/{k:03d}", _say(rng, text, voice).audio, speaker=voice, text=text.rstrip(".?"))
            found.append(SpokenSentence(clip, template))
    return found


def _texts(rng: np.random.Generator, missing: Counter[str]) -> Iterator[str]:
    """Texts of some sentences until no word is missing; whoever says them counts the words."""
    while +missing:
        left = missing.copy()
        yield " ".join(_fill(rng, str(rng.choice(TEMPLATES)), left) for _ in range(_SENTENCES_PER_TEXT))


def _fill(rng: np.random.Generator, template: str, left: Counter[str]) -> str:
    """The template with the words of which most are left, ties by lot; counts them down."""

    def word(slot: re.Match[str]) -> str:
        fitting = [name for name in _of_slot(slot.group(1)) if name in left]
        most = max(left[name] for name in fitting)
        chosen = str(rng.choice([name for name in fitting if left[name] == most]))
        left[chosen] -= 1
        return chosen

    return _SLOT.sub(word, template)


def _of_slot(slot: str) -> list[str]:
    kind = {"N": "nouns", "V": "verbs", "A": "adjectives"}[slot]
    return [word for category in CATEGORIES.values() for word in getattr(category, kind)]


def _say(rng: np.random.Generator, text: str, voice: str) -> Speech:
    rate_wpm = int(rng.integers(RATE_WPM[0], RATE_WPM[1] + 1))
    pitch, pitch_range = (int(value) for value in rng.integers(PITCH[0], PITCH[1] + 1, size=2))
    return speak(text, voice, rate_wpm, pitch, pitch_range)


def _cut(name: str, speech: Speech, voice: str) -> Iterator[tuple[Clip, float, float]]:
    """Every word as a clip that holds its own samples, so that the text's sound need not be kept."""
    for clip in cut_clips(name, speech.audio, speech.words, voice):
        start_s, end_s = clip.start_s or 0.0, clip.stop_s or 0.0
        yield Clip(clip.name, clip.sound().copy(), speaker=voice, text=clip.text), start_s, end_s


def _phones_between(phones: Intervals, start_s: float, end_s: float) -> frozenset[str]:
    inside = (phones.middle_s >= start_s) & (phones.middle_s < end_s)
    return frozenset(phones.labels[k] for k in np.flatnonzero(inside))
