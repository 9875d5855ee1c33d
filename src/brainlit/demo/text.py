"""What the demo's stories say: 96 content words with their meaning, and a grammar that puts them into sentences.

A story is a sequence of scenes of a few sentences about one of eight categories, made from templates with slots for
content words. The text is nonsense with the statistics that matter: meaning changes slowly (a scene lasts some 20 s,
longer than the haemodynamic response), any word form occurs in many sentences, and about three words in ten carry
meaning. Which words a scene is made of can be limited, so that some words are never heard in some stories. All of the
demo draws from `random_stream`, so that its parts do not disturb each other's numbers.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from brainlit.stories.base import FloatArray


def random_stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the names only, not on what was drawn before or elsewhere.

    >>> int(random_stream(0, "text", 3).integers(1000)) == int(random_stream(0, "text", 3).integers(1000))
    True
    """
    keys = [zlib.crc32(name.encode()) if isinstance(name, str) else int(name) for name in names]
    return np.random.default_rng(np.random.SeedSequence([int(seed), *keys]))


# --- Lexicon ---

N_DIMENSIONS = 24
"""Length of a word vector."""

WORD_SPREAD = 0.4
"""Standard deviation of a word around the centroid of its category, per dimension; centroids have 1."""

SYNONYM_SPREAD = 0.05
"""The same of a word around its synonym."""

VECTOR_SEED = 77
"""Meaning is one fixed geometry: common to all seeds of the demo, so that seeds differ in text, voices and brains."""


class Category(NamedTuple):
    """The words of one semantic category, by the slot of a sentence that they fill."""

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]

    @classmethod
    def of(cls, nouns: str, verbs: str, adjectives: str) -> Category:
        """From words with spaces between them."""
        return cls(tuple(nouns.split()), tuple(verbs.split()), tuple(adjectives.split()))

    @property
    def words(self) -> tuple[str, ...]:
        """All words of the category: nouns, verbs, adjectives."""
        return self.nouns + self.verbs + self.adjectives


CATEGORIES: MappingProxyType[str, Category] = MappingProxyType(
    {
        "animals": Category.of("hare rein rabbit bunny wolf donkey spider pigeon", "chased hunted", "furry wild"),
        "food": Category.of("beet mussel soup broth cheese butter pepper potato", "cooked tasted", "sweet salty"),
        "music": Category.of("beat lute violin fiddle piano trumpet melody opera", "sang hummed", "loud musical"),
        "body": Category.of(
            "hair muscle stomach belly finger shoulder kidney ankle", "injured bandaged", "painful swollen"
        ),
        "weather": Category.of("rain tide fog mist thunder cloud snow lightning", "drenched froze", "windy icy"),
        "vehicles": Category.of("sail plane truck lorry tractor bicycle ferry rocket", "drove parked", "speedy rusty"),
        "clothing": Category.of(
            "trousers pants jacket sweater glove scarf button slipper", "tied ironed", "plain striped"
        ),
        "money": Category.of("loot sale salary wage wallet coin penny invoice", "paid borrowed", "rich costly"),
    }
)

_HOMOPHONES = "hare hair, rein rain, beet beat, mussel muscle, lute loot, sail sale, plane plain, tide tied"
_SYNONYMS = "rabbit bunny, soup broth, violin fiddle, stomach belly, fog mist, truck lorry, trousers pants, salary wage"


def homophone_pairs() -> tuple[tuple[str, str], ...]:
    """Pairs of words of different categories that sound alike: only what is said around them tells which is meant."""
    return _pairs(_HOMOPHONES)


def synonym_pairs() -> tuple[tuple[str, str], ...]:
    """Pairs of words that mean nearly the same (see `word_vectors`) and sound different."""
    return _pairs(_SYNONYMS)


def _pairs(listed: str) -> tuple[tuple[str, str], ...]:
    both = [pair.split() for pair in listed.split(", ")]
    return tuple((one, other) for one, other in both)


@lru_cache(maxsize=1)
def category_of() -> MappingProxyType[str, str]:
    """The category of each of the 96 words."""
    return MappingProxyType({word: name for name, category in CATEGORIES.items() for word in category.words})


@lru_cache(maxsize=1)
def word_vectors() -> MappingProxyType[str, FloatArray]:
    """The meaning of each of the 96 words: an array of shape (24,).

    A word is the centroid of its category, N(0, I), plus 0.4 N(0, I); of two synonyms, the second is the first plus
    0.05 N(0, I). The mean over the lexicon is taken off, so that the sum over the words of a stretch of speech says
    what was talked about and not how fast.
    """
    rng = np.random.default_rng(VECTOR_SEED)
    centroids = rng.standard_normal((len(CATEGORIES), N_DIMENSIONS))
    n_words = len(category_of())
    table = np.repeat(centroids, n_words // len(CATEGORIES), axis=0)
    table = table + WORD_SPREAD * rng.standard_normal((n_words, N_DIMENSIONS))
    place = {word: k for k, word in enumerate(category_of())}
    for one, other in synonym_pairs():
        table[place[other]] = table[place[one]] + SYNONYM_SPREAD * rng.standard_normal(N_DIMENSIONS)
    table -= table.mean(axis=0)
    table.setflags(write=False)
    return MappingProxyType(dict(zip(category_of(), table, strict=True)))


# --- Grammar ---

STRAY_WORD_SHARE = 0.1
"""Share of slots filled from a random category and not from that of the scene."""

FILLER_SHARE = 0.2
"""Share of sentences without any content word."""

SENTENCES_PER_SCENE = (4, 7)

TEMPLATES = (
    "The {A} {N} and the {N} were not far from the {A} {N}.",
    "She {V} the {A} {N} before anyone had seen the {N}.",
    "In the end it was the {A} {N} that they {V}.",
    "He said that the {N} was as {A} as the {N} of his {N}.",
    "There was one more {N} next to the {A} {N}.",
    "Nobody {V} the {N}, and so the {A} {N} was left.",
    "We talked about the {N}, about the {N}, and then the {N}.",
    "My mother remembered the {A} {N} and how they {V} it.",
    "If you ask me, that {A} {N} was too {A}.",
    "They {V} some {N} while others {V} the {N}.",
    "The {A} {N} was like a kind of {A} {N}.",
    "Every morning the {N}, and every evening the {A} {N}.",
    "You could tell by the {N} that the {N} was {A}.",
    "First came the {N}, the {A} one, then the {A} {N}.",
    "My brother {V} the {N} because of the {A} {N}.",
    "From the road we saw the {N} and the {A} {N}.",
    "So they {V} the {N}, the {N}, and then the {N}.",
    "This {N} was {A}, but that {N} was {A}.",
    "Between the {N} and the {N} there was the {A} {N}.",
    "Have you ever {V} the {A} {N} with the {N}?",
)

FILLERS = (
    "And then for quite a while nobody said anything at all.",
    "I did not know what to do about it, and neither did she.",
    "Well, that is how it was in those years.",
    "He looked at me as if I should have known.",
    "It was late, and we were all very tired by then.",
    "You may think what you like, but this is how I remember it.",
    "She asked me to wait for her, so I waited.",
    "After that, things were never quite the same again.",
    "To be honest, I could not believe it myself.",
    "But let me go back to where it all began.",
)

_SLOT = re.compile(r"\{([NVA])\}")


class Scenes(NamedTuple):
    """Scenes of one sort.

    Parameters
    ----------
    words : frozenset of str
        The content words that these scenes are made of; at least a noun of every category.
    share : float
        How often, among the sorts of a story.
    """

    words: frozenset[str]
    share: float


def write_story(rng: np.random.Generator, n_words: int, scenes: Sequence[Scenes] = ()) -> str:
    """Scene after scene until the story has at least n_words words; one line of text, sentences end in '.' or '?'.

    Parameters
    ----------
    scenes : sequence of Scenes
        What scenes there are; each scene draws its sort. By default all are made of all 96 words.
    """
    if n_words < 1:
        raise ValueError(f"n_words is {n_words}; a story needs at least one word.")
    sorts = scenes or (Scenes(frozenset(category_of()), 1.0),)
    shares = np.asarray([sort.share for sort in sorts]) / sum(sort.share for sort in sorts)
    sentences: list[str] = []
    total = 0
    topic = ""
    while total < n_words:
        topic = str(rng.choice([name for name in CATEGORIES if name != topic]))
        words = sorts[int(rng.choice(len(sorts), p=shares))].words
        for _ in range(int(rng.integers(SENTENCES_PER_SCENE[0], SENTENCES_PER_SCENE[1] + 1))):
            if total < n_words:
                sentences.append(write_sentence(rng, topic, words))
                total += len(sentences[-1].split())
    return " ".join(sentences)


def write_sentence(rng: np.random.Generator, topic: str, words: Collection[str] = ()) -> str:
    """One sentence of a scene about a category, or a filler; of some content words only, where they are given."""
    if rng.random() < FILLER_SHARE:
        return str(rng.choice(FILLERS))
    said = frozenset(words or category_of())
    templates = [template for template in TEMPLATES if set(_SLOT.findall(template)) <= _slots(said)]
    return _SLOT.sub(lambda slot: _content_word(rng, topic, slot.group(1), said), str(rng.choice(templates)))


def _content_word(rng: np.random.Generator, topic: str, slot: str, said: frozenset[str]) -> str:
    name = str(rng.choice(list(CATEGORIES))) if rng.random() < STRAY_WORD_SHARE else topic
    return str(rng.choice([word for word in _words_of(name, slot) if word in said]))


@lru_cache
def _slots(said: frozenset[str]) -> frozenset[str]:
    """The slots that these words can fill in a scene about any category."""
    return frozenset(slot for slot in "NVA" if all(not said.isdisjoint(_words_of(name, slot)) for name in CATEGORIES))


def _words_of(name: str, slot: str) -> tuple[str, ...]:
    category = CATEGORIES[name]
    return {"N": category.nouns, "V": category.verbs, "A": category.adjectives}[slot]


# --- Words that some stories never have ---


@lru_cache
def unheard_words(seed: int) -> MappingProxyType[str, tuple[str, ...]]:
    """Content words that no story of a role has, sorted: a quarter of them for 'tune', another quarter for 'fit'.

    Of every category two nouns and an adjective are kept from tuning, and two other nouns and a verb from fitting. No
    homophone is among them: its sound is heard in the other word.
    """
    rng = random_stream(seed, "unheard words")
    homophones = {word for pair in homophone_pairs() for word in pair}
    found: dict[str, list[str]] = {"tune": [], "fit": []}
    for category in CATEGORIES.values():
        nouns, verbs, adjectives = ([word for word in slot if word not in homophones] for slot in category)
        drawn = [str(word) for word in rng.choice(nouns, size=4, replace=False)]
        found["tune"] += [*drawn[:2], str(rng.choice(adjectives))]
        found["fit"] += [*drawn[2:], str(rng.choice(verbs))]
    return MappingProxyType({role: tuple(sorted(words)) for role, words in found.items()})


NEW_TO_TUNING, NEW_TO_FITTING = 0.3, 0.15
"""Share of the scenes that are made of words unheard in tuning only, and in fitting only, in stories that score."""


def scenes_of(role: str, seed: int) -> tuple[Scenes, ...]:
    """The sorts of scenes in stories of a role.

    Words unheard in tuning have scenes of their own, so that whole stretches rest on them and others on none of them:
    in 'tune' there are none. Stories to 'choose' and 'score' have all words.
    """
    new_to_tuning, new_to_fitting = (frozenset(unheard_words(seed)[name]) for name in ("tune", "fit"))
    heard = frozenset(category_of()) - new_to_tuning
    if role == "tune":
        return (Scenes(heard, 1.0),)
    if role == "fit":
        return Scenes(heard - new_to_fitting, 1 - NEW_TO_TUNING), Scenes(new_to_tuning, NEW_TO_TUNING)
    rest = 1 - NEW_TO_TUNING - NEW_TO_FITTING
    return Scenes(heard, rest), Scenes(new_to_tuning, NEW_TO_TUNING), Scenes(new_to_fitting, NEW_TO_FITTING)
