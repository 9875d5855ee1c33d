"""What is known of English words elsewhere: WordNet, the CMU pronouncing dictionary, and regular endings."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

from brainlit.features.phones import arpabet_phone

Pair: TypeAlias = tuple[str, str]

_SUFFIXES = ("'s", "ies", "ing", "ed", "es", "s", "d", "er", "est", "en", "ly", "y", "al", "ful", "less", "ness")
_SHORTEST_STEM = 3


class WordListMissingError(RuntimeError):
    """A word list that nltk reads is not on this machine; the message says how to get it."""


def ordered_pair(one: str, other: str) -> Pair:
    """A pair in the order of the alphabet."""
    return (one, other) if one < other else (other, one)


def wordnet_synonyms(words: Iterable[str]) -> set[Pair]:
    """Pairs of these words that share a synset of WordNet, in whatever sense and inflection.

    Raises
    ------
    WordListMissingError
        If nltk or its corpus 'wordnet' is not installed.
    """
    wordnet = _nltk_corpus("wordnet")
    members: dict[str, set[str]] = defaultdict(set)
    for word in words:
        for synset in wordnet.synsets(word):
            members[synset.name()].add(word)
    return {ordered_pair(a, b) for found in members.values() for a, b in combinations(sorted(found), 2)}


def wordnet_lemmas(words: Iterable[str]) -> dict[str, frozenset[str]]:
    """The base forms of each word, over all parts of speech: 'sang' is 'sing'. Raises as `wordnet_synonyms`."""
    wordnet = _nltk_corpus("wordnet")
    return {word: frozenset(filter(None, (wordnet.morphy(word, pos) for pos in "nvar"))) for word in words}


def cmudict_phones(words: Iterable[str], file: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Phones of these words, without stress, by the CMU pronouncing dictionary; the first pronunciation of each.

    Parameters
    ----------
    file : Path, optional
        The dictionary as it is published (cmudict-0.7b, cmudict.dict): a word and its phones per line. Else nltk's.

    Returns
    -------
    dict
        Without the words that the dictionary lacks.

    Raises
    ------
    WordListMissingError
        If no file is given and nltk or its corpus 'cmudict' is not installed.
    FileNotFoundError
        If the file is not there.
    """
    listed = _nltk_corpus("cmudict").dict() if file is None else _read_cmudict(file)
    found = {word: listed[word.lower()][0] for word in words if word.lower() in listed}
    return {word: tuple(filter(None, map(arpabet_phone, spoken))) for word, spoken in found.items()}


def _read_cmudict(file: Path) -> dict[str, list[list[str]]]:
    """Pronunciations of each word in lower case; 'word(1)' or 'word(2)' is another one of 'word'."""
    listed: dict[str, list[list[str]]] = defaultdict(list)
    for line in file.read_text(encoding="latin-1").splitlines():
        parts = line.split("#")[0].split()
        if len(parts) > 1 and not line.startswith(";;;"):
            listed[parts[0].split("(")[0].lower()].append(parts[1:])
    return listed


def _nltk_corpus(name: str) -> Any:
    """A corpus of nltk, which is no dependency of brainlit."""
    cure = f"pip install nltk && python -m nltk.downloader {name}"
    try:
        corpus = getattr(importlib.import_module("nltk.corpus"), name)
        corpus.ensure_loaded()
    except ImportError as error:
        raise WordListMissingError(
            f"the word list {name!r} is read by nltk, which is not installed; cure: {cure}"
        ) from error
    except LookupError as error:
        raise WordListMissingError(f"nltk is installed, its word list {name!r} is not; cure: {cure}") from error
    return corpus


def stems(word: str) -> set[str]:
    """The word and what regular endings leave of it: 'injured' -> injured, injur, injure; 'hummed' -> hum, ...

    >>> [not stems(a).isdisjoint(stems(b)) for a, b in (("wind", "windy"), ("injured", "injuring"), ("bank", "tank"))]
    [True, True, False]
    """
    lower = word.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    cut = {lower[: -len(suffix)] for suffix in _SUFFIXES if lower.endswith(suffix)}
    stems = {stem for stem in cut if len(stem) >= _SHORTEST_STEM}
    doubled = {stem[:-1] for stem in stems if len(stem) > _SHORTEST_STEM and stem[-1] == stem[-2]}
    return {lower} | stems | doubled | {stem + letter for stem in stems for letter in "ey"}
