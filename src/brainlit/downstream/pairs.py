"""Pairs of words that mean alike, that sound alike, or neither: what a preference for meaning is measured on."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from brainlit.demo.lexicon import CATEGORIES
from brainlit.features.phones import arpabet_phone

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Pair: TypeAlias = tuple[str, str]

KINDS = ("semantic", "near_homophone", "random")
SEMANTIC, NEAR_HOMOPHONE, RANDOM = range(3)

MOST_PHONE_DISTANCE = 0.4
"""Words that are this near or nearer are near-homophones (Choi et al. 2024, arXiv 2406.08619)."""

DEMO_MOST_PHONE_DISTANCE = 0.5
"""For the demo's 96 words, which are few and not chosen to sound alike: 7 pairs lie within 0.4, and 32 within 0.5."""

DEMO_MEANING = "category mates of one part of speech ('horse' and 'rabbit'): semantic neighbours, not synonyms"
WORDNET_MEANING = "synonyms: words that share a synset of WordNet"

_SUFFIXES = ("'s", "ies", "ing", "ed", "es", "s", "d", "er", "est", "en", "ly", "y", "al", "ful", "less", "ness")
_SHORTEST_STEM = 3


class WordListMissingError(RuntimeError):
    """A word list that nltk reads is not on this machine; the message says how to get it."""


@dataclass(frozen=True, eq=False)
class WordPairs:
    """Pairs of different words, each of one kind.

    Parameters
    ----------
    words : tuple of str
        All words of the pairs, sorted.
    first, second : int arrays of shape (n_pairs,)
        Indices into `words`, first < second.
    kind : int array of shape (n_pairs,)
        Index into KINDS.
    phone_distance : array of shape (n_pairs,)
        Edits from one phone string to the other over the length of the longer one. That of the semantic pairs should
        be that of the random ones; where it is less, part of what looks like meaning may be sound.
    meaning : str
        What the semantic pairs have in common, in words.
    left_out : mapping of reason to number of pairs (or of words, where the reason says so)
    """

    words: tuple[str, ...]
    first: IntArray
    second: IntArray
    kind: IntArray
    phone_distance: FloatArray
    meaning: str
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.first)

    def of_kind(self, name: str) -> list[Pair]:
        """The pairs of 'semantic', 'near_homophone' or 'random', as words."""
        mine = np.flatnonzero(self.kind == KINDS.index(name))
        return [(self.words[self.first[k]], self.words[self.second[k]]) for k in mine]

    def counts(self) -> dict[str, int]:
        """Number of pairs of each kind."""
        return {name: int((self.kind == k).sum()) for k, name in enumerate(KINDS)}

    def mean_phone_distance(self) -> dict[str, float]:
        """Mean phone distance of each kind; NaN where there is no pair."""
        parts = {name: self.phone_distance[self.kind == k] for k, name in enumerate(KINDS)}
        return {name: float(part.mean()) if len(part) else float("nan") for name, part in parts.items()}


def find_pairs(
    phones: Mapping[str, Sequence[str]],
    related: Collection[Pair],
    meaning: str,
    *,
    lemmas: Mapping[str, Collection[str]] | None = None,
    most_phone_distance: float = MOST_PHONE_DISTANCE,
    max_per_kind: int = 5000,
    seed: int = 0,
) -> WordPairs:
    """Semantic pairs, near-homophones and random pairs of these words.

    A pair of one stem or lemma ('horse', 'horses') is left out, and so is one that is both related and a
    near-homophone; both are counted. Random pairs are neither, and are made of the words of the other two kinds, so
    that what is peculiar to a word is in the baseline too.

    Parameters
    ----------
    phones : mapping of word to its phones
        The words to look at; those without phones are left out and counted.
    related : pairs of words, in either order
        Such as `demo_category_mates` or `wordnet_synonyms`; words that have no phones are ignored.
    meaning : str
        What related words have in common: DEMO_MEANING, WORDNET_MEANING or your own words.
    lemmas : mapping of word to its base forms, optional
        Such as `wordnet_lemmas`. Without it only regular endings tell that two words are one.
    most_phone_distance : float
        Largest phone distance of near-homophones.
    max_per_kind : int
        Of more pairs of a kind, this many are drawn.

    Raises
    ------
    ValueError
        If fewer than two words have phones.
    """
    words = sorted(word for word, spoken in phones.items() if len(spoken))
    if len(words) < 2:
        raise ValueError(f"{len(words)} of {len(phones)} words have phones; pairs need two. Give a pronouncing list.")
    index = {word: k for k, word in enumerate(words)}
    distance = phone_distances([phones[word] for word in words])
    apart = np.triu(~_symmetric(_one_stem(words, lemmas or {}), index), k=1)
    means_alike, sounds_alike = _symmetric(related, index), distance <= most_phone_distance
    either, both = (means_alike | sounds_alike) & apart, means_alike & sounds_alike & apart
    used = (either & ~both).any(axis=0) | (either & ~both).any(axis=1)
    masks = (means_alike & apart & ~both, sounds_alike & apart & ~both, apart & ~either & np.outer(used, used))
    rng = np.random.default_rng(seed)
    cells = [_drawn(np.argwhere(mask), max_per_kind, rng) for mask in masks]
    places = np.concatenate(cells)
    kind = np.repeat(np.arange(len(cells)), [len(found) for found in cells])
    one_stem = np.triu(means_alike | sounds_alike, k=1) & ~apart
    left_out = {
        "words without phones": len(phones) - len(words),
        "one stem or lemma": int(one_stem.sum()),
        "related and near-homophones": int(both.sum()),
    }
    return _renumbered(words, places, kind, distance, meaning, left_out)


def phone_distances(phones: Sequence[Sequence[str]]) -> FloatArray:
    """Levenshtein distance of every two phone strings over the length of the longer one, shape (n, n); 0 to 1.

    >>> phone_distances([["K", "AE", "T"], ["B", "AE", "T"], ["B", "AE", "D", "Z"]]).round(2).tolist()
    [[0.0, 0.33, 0.75], [0.33, 0.0, 0.5], [0.75, 0.5, 0.0]]
    """
    codes = {name: k for k, name in enumerate(sorted({name for spoken in phones for name in spoken}))}
    lengths = np.asarray([len(spoken) for spoken in phones])
    table = np.full((len(phones), int(lengths.max(initial=0))), -1)
    for row, spoken in enumerate(phones):
        table[row, : len(spoken)] = [codes[name] for name in spoken]
    result = np.zeros((len(phones), len(phones)))
    for row in range(len(phones) - 1):
        edits = _edits(table[row, : lengths[row]], table[row + 1 :], lengths[row + 1 :])
        result[row, row + 1 :] = edits / np.maximum(np.maximum(lengths[row + 1 :], lengths[row]), 1)
    return result + result.T


def share_stem(one: str, other: str) -> bool:
    """Whether two words are one but for a regular English ending.

    >>> share_stem("wind", "windy"), share_stem("injured", "injuring"), share_stem("bank", "tank")
    (True, True, False)
    """
    return not _stems(one).isdisjoint(_stems(other))


def demo_category_mates(words: Iterable[str]) -> set[Pair]:
    """Pairs of words of the demo's lexicon that have one category and one part of speech; see DEMO_MEANING.

    >>> demo_category_mates(["horse", "rabbit", "furry", "bread"])
    {('horse', 'rabbit')}
    """
    said = set(words)
    slots = [slot for category in CATEGORIES.values() for slot in category]
    return {_pair(a, b) for slot in slots for a, b in combinations([word for word in slot if word in said], 2)}


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
    return {_pair(a, b) for found in members.values() for a, b in combinations(sorted(found), 2)}


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


def _edits(one: IntArray, others: IntArray, lengths: IntArray) -> IntArray:
    """Levenshtein distance of one string of codes to many, shape (n,); a row of the usual table for all at once."""
    steps = np.arange(others.shape[1] + 1)
    row = np.broadcast_to(steps, (len(others), len(steps)))
    for k, code in enumerate(one):
        changed = np.minimum(row[:, 1:] + 1, row[:, :-1] + (others != code))
        row = np.column_stack([np.full(len(others), k + 1), changed])
        row = np.minimum.accumulate(row - steps, axis=1) + steps  # insertions, from left to right
    return np.asarray(row[np.arange(len(others)), lengths])


def _stems(word: str) -> set[str]:
    """The word and what regular endings leave of it: 'injured' -> injured, injur, injure; 'hummed' -> hum, ..."""
    lower = word.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    cut = {lower[: -len(suffix)] for suffix in _SUFFIXES if lower.endswith(suffix)}
    stems = {stem for stem in cut if len(stem) >= _SHORTEST_STEM}
    doubled = {stem[:-1] for stem in stems if len(stem) > _SHORTEST_STEM and stem[-1] == stem[-2]}
    return {lower} | stems | doubled | {stem + letter for stem in stems for letter in "ey"}


def _one_stem(words: Sequence[str], lemmas: Mapping[str, Collection[str]]) -> set[Pair]:
    owners: dict[str, set[str]] = defaultdict(set)
    for word in words:
        for stem in _stems(word).union(lemmas.get(word, ())):
            owners[stem].add(word)
    return {_pair(a, b) for found in owners.values() for a, b in combinations(sorted(found), 2)}


def _pair(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def _symmetric(pairs: Iterable[Pair], index: Mapping[str, int]) -> BoolArray:
    mask = np.zeros((len(index), len(index)), dtype=bool)
    for one, other in pairs:
        if one in index and other in index:
            mask[index[one], index[other]] = mask[index[other], index[one]] = True
    return mask


def _drawn(cells: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    return cells if len(cells) <= most else cells[np.sort(rng.choice(len(cells), most, replace=False))]


def _renumbered(
    words: Sequence[str], places: IntArray, kind: IntArray, distance: FloatArray, meaning: str, left_out: dict[str, int]
) -> WordPairs:
    used, numbers = np.unique(places, return_inverse=True)
    first, second = numbers.reshape(-1, 2).T
    names = tuple(words[k] for k in used)
    return WordPairs(names, first, second, kind, distance[places[:, 0], places[:, 1]], meaning, left_out)
