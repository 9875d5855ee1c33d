"""The words of stories as clips of their own, with their phones."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brainlit.downstream.clip import Clip
from brainlit.features.phones import arpabet_phone, is_arpabet, plain_phone
from brainlit.store import StoryStore
from brainlit.stories import Intervals, Story

SHORTEST_S = 0.1
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
        elif story.words.duration_s[token] < SHORTEST_S:
            left_out[f"shorter than {SHORTEST_S:g} s"] += 1
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
