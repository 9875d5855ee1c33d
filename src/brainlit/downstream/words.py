"""The words of stories as clips of their own, with their phones, and what each layer of a model makes of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainlit.demo import DemoSource
from brainlit.demo.text import category_of
from brainlit.downstream.clip import Clip
from brainlit.downstream.pairs import (
    DEMO_MEANING,
    WORDNET_MEANING,
    TokenPairs,
    WordPairs,
    demo_pairs,
    english_pairs,
    pair_tokens,
)
from brainlit.downstream.result import load_npz, save_npz, task_path
from brainlit.downstream.tasks import WORDS
from brainlit.downstream.word_lists import cmudict_phones
from brainlit.encoding.arrays import Float32Array, FloatArray
from brainlit.features.phones import arpabet_phone, is_arpabet, plain_phone
from brainlit.splits import Span
from brainlit.store import StoryStore
from brainlit.stories import Intervals, Story

_SHORTEST_S = 0.1
"""A shorter word is hardly a word, and less than most models need."""
_NOT_LETTERS = re.compile(r"^[\W\d_]+|[\W\d_]+$")


@dataclass(frozen=True, eq=False)
class WordSounds:
    """Spoken words, cut out of the sound.

    Parameters
    ----------
    clips : tuple of Clip
        text is the word in lower case, speaker the voice.
    phones : mapping of word to its phones
        Its most frequent pronunciation in the stories; of words whose story has a phone tier.
    left_out : mapping of reason to number of words
    """

    clips: tuple[Clip, ...]
    phones: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, int]

    @property
    def words(self) -> list[str]:
        """What each clip says."""
        return [clip.text for clip in self.clips]

    @property
    def speakers(self) -> list[str]:
        """Who says it."""
        return [clip.speaker for clip in self.clips]


def word_sounds(
    stories: Iterable[Story],
    voices: Mapping[str, str] | None = None,
    *,
    only: Collection[str] | None = None,
    max_per_word: int = 4,
    seed: int = 0,
) -> WordSounds:
    """Cut words out of stories: the sound and not its features, which would know the neighbours.

    Parameters
    ----------
    stories : iterable of Story
        One at a time; `stored_stories` reads them from a store.
    voices : mapping of story to its voice, optional
        Else a story's name stands for its voice.
    only : collection of str, optional
        Words in lower case; all others are passed over.
    max_per_word : int
        Of a word that a story says more often, this many are drawn.

    Raises
    ------
    ValueError
        If no word is left.
    """
    rng = np.random.default_rng(seed)
    wanted = None if only is None else frozenset(only)
    clips: list[Clip] = []
    said: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    left_out: Counter[str] = Counter()
    for story in stories:
        places = _places(story, wanted, left_out)
        spoken = _phones_inside(story.words, story.phones)
        for word, tokens in places.items():
            said[word].update(spoken[token] for token in tokens if spoken[token])
            left_out["more of one word"] += max(len(tokens) - max_per_word, 0)
            drawn = sorted(rng.permutation(tokens)[:max_per_word].tolist())
            clips += [_clip(story, token, word, (voices or {}).get(story.name, story.name)) for token in drawn]
    if not clips:
        raise ValueError(f"the stories hold none of the words wanted; left out: {dict(left_out)}.")
    phones = {word: counts.most_common(1)[0][0] for word, counts in said.items() if counts}
    return WordSounds(tuple(clips), phones, dict(left_out))


def stored_stories(store: StoryStore, names: Sequence[str] | None = None) -> Iterator[Story]:
    """Stories of a store, one at a time; all of them where no names are given."""
    for name in store.story_names if names is None else names:
        audio = store.audio(name, 0, store.n_samples(name))
        yield Story(name, audio, store.words(name), store.phones(name), store.timebase(name))


def _places(story: Story, wanted: frozenset[str] | None, left_out: Counter[str]) -> dict[str, list[int]]:
    """Where a story says each word that is wanted, long enough and within the sound."""
    places: dict[str, list[int]] = defaultdict(list)
    end_s = len(story.audio) / story.timebase.sample_rate_hz
    for token, label in enumerate(story.words.labels):
        word = _NOT_LETTERS.sub("", label).lower()
        if not word or (wanted is not None and word not in wanted):
            continue
        if story.words.start_s[token] < 0 or story.words.end_s[token] > end_s:
            left_out["outside the sound"] += 1
        elif story.words.duration_s[token] < _SHORTEST_S:
            left_out[f"shorter than {_SHORTEST_S:g} s"] += 1
        else:
            places[word].append(token)
    return places


def _phones_inside(words: Intervals, phones: Intervals | None) -> list[tuple[str, ...]]:
    """The phones of each word: those whose middle lies in it, without stress and pauses."""
    if phones is None:
        return [()] * len(words)
    reader = arpabet_phone if is_arpabet(phones.labels) else plain_phone
    order = np.argsort(phones.middle_s, kind="stable")
    first, last = (np.searchsorted(phones.middle_s[order], edges) for edges in (words.start_s, words.end_s))
    names = [reader(phones.labels[k]) for k in order]
    return [tuple(filter(None, names[a:b])) for a, b in zip(first, last, strict=True)]


def _clip(story: Story, token: int, word: str, voice: str) -> Clip:
    """A copy of the sound, so that the story's can be let go."""
    edges_s = story.words.start_s[token], story.words.end_s[token]
    start, stop = (round(float(edge_s) * story.timebase.sample_rate_hz) for edge_s in edges_s)
    return Clip(f"{story.name}/{token}", story.audio[start:stop].copy(), speaker=voice, text=word)


# --- The words of a store's stories, ready to be heard by any model ---

MAX_PER_WORD = 2
"""Tokens of one word in one story: some 500 in the demo's four stories to score, of 96 words."""


class StoryWords(NamedTuple):
    """Words with the sound of each token; `states` has no layers yet (`features.word_states` gives them)."""

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
        _stories_of(store, spans, tuned), only=category_of() if demo else None, max_per_word=MAX_PER_WORD, seed=seed
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


def _stories_of(store: StoryStore, spans: Sequence[Span], tuned: Sequence[Span]) -> Iterator[Story]:
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


def _times_s(story: Story, spans: Sequence[Span]) -> Iterator[FloatArray]:
    """When each span of this story begins and ends, in seconds of sound."""
    own = (span for span in spans if span.story == story.name)
    return (story.timebase.tr_edges_s(span.start_tr, span.n_trs)[[0, -1]] for span in own)


def _only_paired(sounds: WordSounds) -> WordSounds:
    """The words that belong to a pair of English words; the others would be heard for nothing."""
    phones = sounds.phones or cmudict_phones(set(sounds.words))
    paired = set(english_pairs(set(sounds.words), phones).words)
    clips = tuple(clip for clip in sounds.clips if clip.text in paired)
    left_out = {**sounds.left_out, "in no pair": len(sounds.clips) - len(clips)}
    return WordSounds(clips, {word: spoken for word, spoken in phones.items() if word in paired}, left_out)


# --- What each layer of a model makes of them ---


@dataclass(frozen=True, eq=False)
class WordStates:
    """Spoken words and what each layer of a model makes of them.

    Parameters
    ----------
    words, speakers, categories : tuples of str, length n_tokens
        Of each token; its category is '' where there is none.
    phones : mapping of word to its phones
    meaning : str
        What words have to do with each other in a semantic pair: DEMO_MEANING, or else WordNet is asked.
    layers : mapping of layer to float32 array of shape (n_tokens, n_features)
        States averaged over the frames of the word, each word heard by itself.
    facts : mapping
        Plain JSON: stories, model, how many were left out.
    """

    words: tuple[str, ...]
    speakers: tuple[str, ...]
    categories: tuple[str, ...]
    phones: Mapping[str, tuple[str, ...]]
    meaning: str
    layers: Mapping[int, Float32Array]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def pairs(self, seed: int = 0) -> WordPairs:
        """Semantic, near-homophone and random pairs of these words."""
        if self.meaning == DEMO_MEANING:
            return demo_pairs(self.phones, seed=seed)
        return english_pairs(set(self.words), self.phones, seed=seed)

    def token_pairs(self, seed: int = 0) -> TokenPairs:
        """Which tokens are compared; the same for every model that heard the same tokens."""
        return pair_tokens(self.words, self.speakers, self.pairs(seed), seed=seed)

    def same_tokens(self, other: WordStates) -> bool:
        """Whether the other model heard the same words, so that the two can be paired."""
        one, two = ((states.words, states.speakers, states.facts.get("clips")) for states in (self, other))
        return one == two

    def save(self, path: Path) -> Path:
        """Write everything into one .npz file, without pickle; `load_words` reads it."""
        plain = ("words", "speakers", "categories", "phones", "meaning", "facts")
        arrays = {f"layer-{layer}": values.astype(np.float16) for layer, values in self.layers.items()}
        return save_npz(path, {name: getattr(self, name) for name in plain}, arrays)


def load_words(path: Path) -> WordStates:
    """What `WordStates.save` wrote.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    record, arrays = load_npz(path, "states of words")
    for name in ("words", "speakers", "categories"):
        record[name] = tuple(record[name])
    record["phones"] = {word: tuple(phones) for word, phones in record["phones"].items()}
    layers = {int(name.removeprefix("layer-")): values.astype(np.float32) for name, values in arrays.items()}
    return WordStates(**record, layers=layers)


def find_words(folder: Path) -> WordStates | None:
    """The words that a model heard, or None."""
    path = task_path(folder, WORDS)
    return load_words(path) if path.is_file() else None
