"""Tasks on the demo's speech, whose labels are exact: what offline runs show, and what they do not generalise to.

Clips are words cut out of sentences, and whole sentences, in voices that training has and has not. Tasks on words share
their clips, and so do those on sentences, so that a model hears each clip once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from brainlit.demo.source import PITCH, RATE_WPM
from brainlit.demo.speech import VOICES, Speech, speak
from brainlit.demo.text import CATEGORIES, FILLERS, TEMPLATES, category_of, homophone_pairs, random_stream
from brainlit.downstream.clip import Clip, cut_clips
from brainlit.downstream.task import CHOOSE, TEST, TRAIN, Kind, Metric, Task, make_task
from brainlit.stories import Intervals

_UNSEEN_WORDS_PART, _UNSEEN_VOICES_PART = "test_unseen_words", "test_unseen_voices"
_UNSEEN_TEMPLATES_PART = "test_unseen_templates"

_FACTS = {
    "source": "the demo's grammar, spoken by espeak-ng; texts are none of the stories', the eight voices of training"
    " are theirs",
    "licence": "synthetic; no rights are claimed",
}
_UNSEEN_WORDS_NOTE = (
    "unseen words are unseen by the probe; a model that was tuned on the demo's stories has heard most of them there;"
    " words that sound like another one are in no task, for a word alone does not say which of the two it is"
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
        How often each word is said in a part. Of the 80 words that sound like no other, 56 are in train, choose, test
        and the part of unseen voices, the other 24 in the part of unseen words.
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


_Spoken = TypeVar("_Spoken", SpokenWord, SpokenSentence)


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
        size, new = self.size, sorted(unseen_words(self.seed))
        old = [word for word in category_of() if word not in new and word not in _homophones()]
        said: dict[str, tuple[list[str], int, Sequence[str]]] = {
            TRAIN: (old, size.train, VOICES),
            CHOOSE: (old, size.choose, VOICES),
            TEST: (old, size.test, VOICES),
            _UNSEEN_WORDS_PART: (new, size.unseen_words, VOICES),
            _UNSEEN_VOICES_PART: (old, size.unseen_voices, UNSEEN_VOICES),
        }
        return {part: say_words(self.seed, part, *how) for part, how in said.items()}

    @cached_property
    def sentences(self) -> dict[str, list[SpokenSentence]]:
        """Whole sentences, by part."""
        size, new = self.size, sorted(unseen_templates(self.seed))
        old = [template for template in (*TEMPLATES, *FILLERS) if template not in new]
        said: dict[str, tuple[list[str], int, Sequence[str]]] = {
            TRAIN: (old, size.sentences_train, VOICES),
            CHOOSE: (old, size.sentences_choose, VOICES),
            TEST: (old, size.sentences_test, VOICES),
            _UNSEEN_TEMPLATES_PART: (new, size.sentences_unseen, VOICES),
            _UNSEEN_VOICES_PART: (old, size.sentences_unseen, UNSEEN_VOICES),
        }
        return {part: say_sentences(self.seed, part, *how) for part, how in said.items()}


# --- The tasks ---


def phones(speech: DemoSpeech) -> Task:
    """Which phones a word has; several labels per clip."""
    return _task("demo/phones", speech.words, lambda word: sorted(word.phones), _UNSEEN_WORDS_NOTE, kind="multi")


def word_identity(speech: DemoSpeech) -> Task:
    """Which word is said; unseen words have no label, and so no part."""
    return _task("demo/word_identity", speech.words, lambda word: word.clip.text, without=_UNSEEN_WORDS_PART)


def word_category(speech: DemoSpeech) -> Task:
    """Which of eight categories of meaning a word has."""
    category = category_of()
    return _task("demo/word_category", speech.words, lambda word: category[word.clip.text], _UNSEEN_WORDS_NOTE)


def sentence_type(speech: DemoSpeech) -> Task:
    """Which of four kinds of sentence is said: see `type_of_template`."""
    name, note = "demo/sentence_type", _UNSEEN_TEMPLATES_NOTE
    return _task(name, speech.sentences, lambda sentence: type_of_template(sentence.template), note)


def speaker(speech: DemoSpeech) -> Task:
    """Which voice speaks; unseen voices have no label, and so no part."""
    voices = _UNSEEN_VOICES_PART
    return _task("demo/speaker", speech.sentences, lambda sentence: sentence.clip.speaker, without=voices)


def _task(
    name: str,
    spoken: Mapping[str, Sequence[_Spoken]],
    answer: Callable[[_Spoken], str | list[str]],
    note: str = "",
    *,
    kind: Kind = "single",
    without: str = "",
) -> Task:
    """The same question about every clip of all parts but one."""
    examples = {part: [(one.clip, answer(one)) for one in found] for part, found in spoken.items() if part != without}
    several = kind == "multi"
    metric: Metric = "macro_f1" if several else "accuracy"
    facts = {**_FACTS, **({"note": note} if note else {})}
    return make_task(name, kind, examples, metric=metric, facts=facts, drop_unknown=several, same_sound="drop")


# --- The speech ---


def unseen_words(seed: int) -> frozenset[str]:
    """Two nouns of each category, and one of its verbs and adjectives; none that sounds like another word."""
    rng = random_stream(seed, "downstream unseen words")
    chosen: set[str] = set()
    for category in CATEGORIES.values():
        nouns, others = (
            [word for word in words if word not in _homophones()]
            for words in (category.nouns, category.verbs + category.adjectives)
        )
        chosen |= {str(word) for word in rng.choice(nouns, size=2, replace=False)}
        chosen.add(str(rng.choice(others)))
    return frozenset(chosen)


def _homophones() -> frozenset[str]:
    return frozenset(word for pair in homophone_pairs() for word in pair)


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
        for clip in cut_clips(f"{part}/{k:03d}", speech.audio, speech.words, voice):
            if missing[clip.text] > 0:
                missing[clip.text] -= 1
                # A clip that holds its own samples, so that the text's sound need not be kept.
                own = Clip(clip.name, clip.sound().copy(), speaker=voice, text=clip.text)
                found.append(SpokenWord(own, _phones_of(clip, speech.phones)))
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
        kind = {"N": "nouns", "V": "verbs", "A": "adjectives"}[slot.group(1)]
        fitting = [name for category in CATEGORIES.values() for name in getattr(category, kind) if name in left]
        most = max(left[name] for name in fitting)
        chosen = str(rng.choice([name for name in fitting if left[name] == most]))
        left[chosen] -= 1
        return chosen

    return _SLOT.sub(word, template)


def _say(rng: np.random.Generator, text: str, voice: str) -> Speech:
    rate_wpm = int(rng.integers(RATE_WPM[0], RATE_WPM[1] + 1))
    pitch, pitch_range = (int(value) for value in rng.integers(PITCH[0], PITCH[1] + 1, size=2))
    return speak(text, voice, rate_wpm, pitch, pitch_range)


def _phones_of(word: Clip, phones: Intervals) -> frozenset[str]:
    """Those whose middle lies in the word."""
    inside = (phones.middle_s >= (word.start_s or 0.0)) & (phones.middle_s < (word.stop_s or 0.0))
    return frozenset(phones.labels[k] for k in np.flatnonzero(inside))
