"""The 96 content words of the demo and what they mean: eight categories, and one vector of meaning for each word."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

N_DIMENSIONS = 24
"""Length of a word vector."""

WORD_SPREAD = 0.4
"""Standard deviation of a word around the centroid of its category, per dimension; centroids have 1."""

VECTOR_SEED = 77
"""Meaning is one fixed geometry: common to all seeds of the demo, so that seeds differ in text, voices and brains."""


class Category(NamedTuple):
    """The words of one semantic category, by the slot of a sentence that they fill."""

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """All words of the category: nouns, verbs, adjectives."""
        return self.nouns + self.verbs + self.adjectives


CATEGORIES: MappingProxyType[str, Category] = MappingProxyType(
    {
        "animals": Category(
            ("horse", "rabbit", "wolf", "donkey", "spider", "tiger", "pigeon", "goat"),
            ("chased", "hunted"),
            ("furry", "wild"),
        ),
        "food": Category(
            ("bread", "cheese", "butter", "soup", "apple", "pepper", "sugar", "potato"),
            ("cooked", "tasted"),
            ("sweet", "salty"),
        ),
        "music": Category(
            ("piano", "guitar", "violin", "trumpet", "drum", "melody", "choir", "opera"),
            ("sang", "hummed"),
            ("loud", "musical"),
        ),
        "body": Category(
            ("finger", "shoulder", "stomach", "elbow", "muscle", "tongue", "kidney", "ankle"),
            ("injured", "bandaged"),
            ("painful", "swollen"),
        ),
        "weather": Category(
            ("thunder", "cloud", "snow", "storm", "rainbow", "breeze", "lightning", "fog"),
            ("drenched", "froze"),
            ("windy", "icy"),
        ),
        "vehicles": Category(
            ("tractor", "bicycle", "train", "airplane", "lorry", "ferry", "truck", "rocket"),
            ("drove", "parked"),
            ("speedy", "rusty"),
        ),
        "clothing": Category(
            ("jacket", "sweater", "trousers", "glove", "scarf", "button", "shirt", "slipper"),
            ("wore", "ironed"),
            ("woolen", "striped"),
        ),
        "money": Category(
            ("wallet", "coin", "bank", "salary", "loan", "tax", "penny", "invoice"),
            ("paid", "borrowed"),
            ("rich", "costly"),
        ),
    }
)


@lru_cache(maxsize=1)
def category_of() -> MappingProxyType[str, str]:
    """The category of each of the 96 words."""
    return MappingProxyType({word: name for name, category in CATEGORIES.items() for word in category.words})


@lru_cache(maxsize=1)
def word_vectors() -> MappingProxyType[str, npt.NDArray[np.float64]]:
    """The meaning of each of the 96 words: an array of shape (24,).

    A word is the centroid of its category, N(0, I), plus 0.4 N(0, I). The mean over the lexicon is taken off, so that
    the sum over the words of a stretch of speech says what was talked about and not how fast.
    """
    rng = np.random.default_rng(VECTOR_SEED)
    centroids = rng.standard_normal((len(CATEGORIES), N_DIMENSIONS))
    n_words = len(category_of())
    table = np.repeat(centroids, n_words // len(CATEGORIES), axis=0)
    table = table + WORD_SPREAD * rng.standard_normal((n_words, N_DIMENSIONS))
    table -= table.mean(axis=0)
    table.setflags(write=False)
    return MappingProxyType(dict(zip(category_of(), table, strict=True)))
