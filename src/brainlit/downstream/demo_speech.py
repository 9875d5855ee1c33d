"""Labelled speech of the demo: words cut out of sentences, and sentences, in voices that training has and has not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from brainlit.demo.corpus import PITCH, RATE_WPM
from brainlit.demo.grammar import FILLERS, TEMPLATES
from brainlit.demo.lexicon import CATEGORIES
from brainlit.demo.speech import VOICES, Speech, speak
from brainlit.demo.streams import random_stream
from brainlit.downstream.clip import Clip, cut_clips
from brainlit.stories import Intervals

UNSEEN_VOICES = ("en-us+m2", "en-us+m6", "en-us+m8", "en-us+Andy", "en-us+steph", "en-us+linda")
"""Voices that no story of the demo and no probe's training has."""

SENTENCES_PER_TEXT = 12
_SLOT = re.compile(r"\{([NVA])\}")
_PREDICATE = re.compile(r"\b(was|too|as) \{A\}(?! \{N\})")


class SpokenWord(NamedTuple):
    """A content word cut out of a sentence, with the phones it is made of."""

    clip: Clip
    phones: frozenset[str]


class SpokenSentence(NamedTuple):
    """A sentence and the template or filler that it was made from."""

    clip: Clip
    template: str


def unseen_words(seed: int) -> frozenset[str]:
    """A quarter of each category's words: two of its nouns, and one of its verbs and adjectives."""
    rng = random_stream(seed, "downstream unseen words")
    chosen: set[str] = set()
    for category in CATEGORIES.values():
        chosen |= {str(word) for word in rng.choice(category.nouns, size=2, replace=False)}
        chosen.add(str(rng.choice(category.verbs + category.adjectives)))
    return frozenset(chosen)


def sentence_type(template: str) -> str:
    """What kind of sentence a template of the grammar makes.

    filler: no content word. action: somebody does something (it has a verb slot). quality: somebody or something is
    said to be some way (it ends in an adjective slot). naming: it only names things.

    >>> sentence_type("This {N} was {A}, but that {N} was {A}.")
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
    for kind in sorted({sentence_type(template) for template in everything}):
        own = [template for template in everything if sentence_type(template) == kind]
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
    kinds = sorted({sentence_type(template) for template in templates})
    found = []
    for kind in kinds:
        own = [template for template in templates if sentence_type(template) == kind]
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
        yield " ".join(_fill(rng, str(rng.choice(TEMPLATES)), left) for _ in range(SENTENCES_PER_TEXT))


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
