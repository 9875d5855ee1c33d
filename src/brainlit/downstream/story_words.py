"""The words of a store's stories, ready to be heard by any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from brainlit.backbones import SpeechBackbone
from brainlit.demo import DemoSource
from brainlit.demo.lexicon import category_of
from brainlit.downstream.clip import Clip
from brainlit.downstream.features import clip_features
from brainlit.downstream.pairs import DEMO_MEANING, WORDNET_MEANING, english_pairs
from brainlit.downstream.run_files import WordStates
from brainlit.downstream.word_lists import cmudict_phones
from brainlit.downstream.word_sounds import WordSounds, stored_stories, word_sounds
from brainlit.encoding.roles import Span
from brainlit.store import StoryStore
from brainlit.stories import Intervals, Story

MAX_PER_WORD = 2
"""Tokens of one word in one story: some 500 in the demo's four stories to score, of 96 words."""


class StoryWords(NamedTuple):
    """Words with the sound of each token; `states` has no layers yet."""

    states: WordStates
    clips: tuple[Clip, ...]


def story_words(store: StoryStore, spans: Sequence[Span], tuned: Sequence[Span] = (), *, seed: int = 0) -> StoryWords:
    """The words of some stretches of stories that can be paired; the same for every model that hears this store.

    Of the demo the words of its lexicon, with their categories; else those that WordNet and their phones put into a
    pair, without a category. A story's name stands for its voice.

    Parameters
    ----------
    spans : sequence of Span
        What is listened to: the stories to score.
    tuned : sequence of Span
        What a model was tuned on; a word that reaches into these is left out.
    seed : int
        Of the draw of tokens.

    Raises
    ------
    WordListMissingError
        If the stories are not the demo's, and WordNet (or, where the store has no phones, the CMU dictionary) is not
        installed.
    ValueError
        If too few words can be paired.
    """
    demo = store.name == DemoSource.name
    sounds = word_sounds(
        _heard(store, spans, tuned), only=category_of() if demo else None, max_per_word=MAX_PER_WORD, seed=seed
    )
    if not demo:
        sounds = _only_paired(sounds)
    stories = [str(span) for span in spans]
    states = WordStates(
        words=tuple(sounds.words),
        speakers=tuple(sounds.speakers),
        categories=tuple(category_of()[word] if demo else "" for word in sounds.words),
        phones=sounds.phones,
        meaning=DEMO_MEANING if demo else WORDNET_MEANING,
        layers={},
        facts={"stories": stories, "clips": [clip.name for clip in sounds.clips], "left_out": dict(sounds.left_out)},
    )
    states.token_pairs()
    return StoryWords(states, sounds.clips)


def hear(
    backbone: SpeechBackbone,
    words: StoryWords,
    *,
    batch_s: float = 60.0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> WordStates:
    """What each layer of a backbone makes of the words, each heard by itself; parameters as in `clip_features`."""
    layers = clip_features(backbone, words.clips, batch_s=batch_s, device=device, progress=progress)
    return replace(words.states, layers=layers)


def _heard(store: StoryStore, spans: Sequence[Span], tuned: Sequence[Span]) -> Iterator[Story]:
    """The stories of the spans, each with the words that lie in its spans and outside of all that was tuned on."""
    for story in stored_stories(store, list(dict.fromkeys(span.story for span in spans))):
        start_s, end_s = story.words.start_s, story.words.end_s
        kept = np.zeros(len(story.words), dtype=bool)
        for first_s, last_s in _times_s(story, spans):
            kept |= (start_s >= first_s) & (end_s <= last_s)
        for first_s, last_s in _times_s(story, tuned):
            kept &= (end_s <= first_s) | (start_s >= last_s)
        labels = tuple(label for label, keep in zip(story.words.labels, kept, strict=True) if keep)
        yield replace(story, words=Intervals(labels, start_s[kept], story.words.duration_s[kept]))


def _times_s(story: Story, spans: Sequence[Span]) -> list[tuple[float, float]]:
    """When each span of this story begins and ends, in seconds of sound."""
    edges = [
        story.timebase.tr_edges_s(span.start_tr, span.n_trs)[[0, -1]] for span in spans if span.story == story.name
    ]
    return [(float(first_s), float(last_s)) for first_s, last_s in edges]


def _only_paired(sounds: WordSounds) -> WordSounds:
    """The words that belong to a pair of English words; the others would be heard for nothing."""
    phones = sounds.phones or cmudict_phones(set(sounds.words))
    paired = set(english_pairs(set(sounds.words), phones).words)
    clips = tuple(clip for clip in sounds.clips if clip.text in paired)
    left_out = {**sounds.left_out, "in no pair": len(sounds.clips) - len(clips)}
    return WordSounds(clips, {word: spoken for word, spoken in phones.items() if word in paired}, left_out)
