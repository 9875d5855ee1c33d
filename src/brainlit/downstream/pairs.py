"""Pairs of words that mean alike, that sound alike, or neither: what a preference for meaning is measured on.

And for each pair, which spoken tokens of its words are compared: no kind of pair may have an advantage by its voices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from brainlit.demo.text import CATEGORIES, category_of, homophone_pairs, synonym_pairs
from brainlit.downstream.word_lists import Pair, cmudict_phones, ordered_pair, stems, wordnet_lemmas, wordnet_synonyms
from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray

KINDS = ("semantic", "near_homophone", "random")
SEMANTIC, NEAR_HOMOPHONE, RANDOM = range(3)

MOST_PHONE_DISTANCE = 0.4
"""Words that are this near or nearer are near-homophones (Choi et al. 2024, arXiv 2406.08619)."""

DEMO_MOST_PHONE_DISTANCE = 0.5
"""For the demo's 96 words, which are few: 12 pairs lie within 0.4, and 46 within 0.5, eight homophones among them."""

_FEWEST_PAIRS = 5
"""Semantic pairs and near-homophones that there must be of each to say anything."""

Voices = Literal["both", "same", "different"]

DEMO_MEANING = "category mates of one part of speech ('horse' and 'rabbit'): semantic neighbours, not synonyms"
PLANTED_MEANING = "the synonyms that were planted ('rabbit' and 'bunny'), beside homophones ('hare' and 'hair')"
WORDNET_MEANING = "synonyms: words that share a synset of WordNet"


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
    # Upper triangles: each pair once. `apart` are pairs of two words, not two forms of one.
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
    # Only words of a pair are kept, and pairs count among them.
    kept, numbers = np.unique(places, return_inverse=True)
    first, second = numbers.reshape(-1, 2).T
    names = tuple(words[k] for k in kept)
    return WordPairs(names, first, second, kind, distance[places[:, 0], places[:, 1]], meaning, left_out)


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


def demo_category_mates(words: Iterable[str]) -> set[Pair]:
    """Pairs of words of the demo's lexicon that have one category and one part of speech; see DEMO_MEANING.

    >>> demo_category_mates(["wolf", "rabbit", "furry", "soup"])
    {('rabbit', 'wolf')}
    """
    said = set(words)
    slots = [slot for category in CATEGORIES.values() for slot in category]
    return {ordered_pair(a, b) for slot in slots for a, b in combinations([word for word in slot if word in said], 2)}


def demo_pairs(
    phones: Mapping[str, Sequence[str]], *, most_phone_distance: float = DEMO_MOST_PHONE_DISTANCE, seed: int = 0
) -> WordPairs:
    """Pairs of the demo's content words: category mates, and near-homophones by the phones that were spoken.

    Parameters
    ----------
    phones : mapping of word to its phones
        Of `WordSounds`; words that are not in the lexicon are passed over.
    """
    content = {word: spoken for word, spoken in phones.items() if word in category_of()}
    mates = demo_category_mates(content)
    return find_pairs(content, mates, DEMO_MEANING, most_phone_distance=most_phone_distance, seed=seed)


def english_pairs(
    words: Collection[str],
    phones: Mapping[str, Sequence[str]] | None = None,
    *,
    most_phone_distance: float = MOST_PHONE_DISTANCE,
    cmudict: Path | None = None,
    seed: int = 0,
) -> WordPairs:
    """Synonyms by WordNet, and near-homophones by the CMU pronouncing dictionary or by phones of your own.

    Parameters
    ----------
    phones : mapping of word to its phones, optional
        Such as those of `WordSounds`. Without them the dictionary is asked.
    cmudict : Path, optional
        The dictionary's file; else nltk's.

    Raises
    ------
    WordListMissingError
        If WordNet is not installed, or the dictionary is needed and is not there.
    """
    spoken = phones or cmudict_phones(words, cmudict)
    return find_pairs(
        {word: spoken.get(word, ()) for word in words},
        wordnet_synonyms(words),
        WORDNET_MEANING,
        lemmas=wordnet_lemmas(words),
        most_phone_distance=most_phone_distance,
        seed=seed,
    )


def planted_pairs(phones: Mapping[str, Sequence[str]], *, seed: int = 0) -> WordPairs:
    """The demo's eight pairs of synonyms as semantic pairs, and its eight pairs of homophones as near-homophones.

    What is right is known: by the vectors that listeners follow, synonyms are nearly one point and homophones are of
    different categories; by sound it is the other way round. A model that hears each word alone cannot tell homophones
    apart whatever it has learned of meaning, so their cosine is that of two tokens of one word.

    Parameters
    ----------
    phones : mapping of word to its phones
        Of `WordSounds`.
    """
    words = {word for pair in (*synonym_pairs(), *homophone_pairs()) for word in pair}
    spoken = {word: phones[word] for word in words if word in phones}
    related = {ordered_pair(*pair) for pair in synonym_pairs()}
    return find_pairs(spoken, related, PLANTED_MEANING, most_phone_distance=0.0, seed=seed)


def _edits(one: IntArray, others: IntArray, lengths: IntArray) -> IntArray:
    """Levenshtein distance of one string of codes to many, shape (n,); a row of the usual table for all at once."""
    steps = np.arange(others.shape[1] + 1)
    row = np.broadcast_to(steps, (len(others), len(steps)))
    for k, code in enumerate(one):
        # The cheaper of a deletion (from above) and a substitution (from the diagonal); insertions run along the row,
        # and become a running minimum once each column's own number of insertions is taken off.
        changed = np.minimum(row[:, 1:] + 1, row[:, :-1] + (others != code))
        row = np.column_stack([np.full(len(others), k + 1), changed])
        row = np.minimum.accumulate(row - steps, axis=1) + steps
    return np.asarray(row[np.arange(len(others)), lengths])


def _one_stem(words: Sequence[str], lemmas: Mapping[str, Collection[str]]) -> set[Pair]:
    owners: dict[str, set[str]] = defaultdict(set)
    for word in words:
        for stem in stems(word).union(lemmas.get(word, ())):
            owners[stem].add(word)
    return {ordered_pair(a, b) for found in owners.values() for a, b in combinations(sorted(found), 2)}


def _symmetric(pairs: Iterable[Pair], index: Mapping[str, int]) -> BoolArray:
    """Which two of the words are a pair, (n_words, n_words)."""
    mask = np.zeros((len(index), len(index)), dtype=bool)
    for one, other in pairs:
        if one in index and other in index:
            mask[index[one], index[other]] = mask[index[other], index[one]] = True
    return mask


def _drawn(cells: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    return cells if len(cells) <= most else cells[np.sort(rng.choice(len(cells), most, replace=False))]


# --- Which tokens are compared for each pair of words ---


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """Tokens to compare, for each pair of words.

    Parameters
    ----------
    pairs : WordPairs
        Those that can be compared.
    first, second : int arrays of shape (n_compared,)
        Indices of tokens.
    pair : int array of shape (n_compared,)
        The pair of words that each comparison is of, ascending.
    weight : array of shape (n_compared,)
        Adds up to 1 within a pair of words: half for one voice and half for two voices where both are compared.
    n_tokens : int
        Of all tokens, compared or not.
    word : int array of shape (n_tokens,)
        Index into pairs.words; -1 for tokens of other words.
    voices : 'both', 'same' or 'different'
        What was compared.
    left_out : mapping of reason to number of pairs
    """

    pairs: WordPairs
    first: IntArray
    second: IntArray
    pair: IntArray
    weight: FloatArray
    n_tokens: int
    word: IntArray
    voices: Voices
    left_out: Mapping[str, int]


def pair_tokens(
    words: Sequence[str],
    speakers: Sequence[str],
    pairs: WordPairs,
    *,
    voices: Voices = "both",
    n_each: int = 4,
    seed: int = 0,
) -> TokenPairs:
    """Choose the tokens that are compared for each pair of words.

    With 'both', every pair of words is compared as often within one voice as across two voices, and pairs that lack
    one of these are left out and counted: two tokens of one voice are always more alike, so a kind of pair with more
    of them would win by that. Where all tokens have one voice (or no known one), 'both' becomes 'same'.

    Parameters
    ----------
    words : sequence of str, length n_tokens
        What each token says, as in pairs.words.
    speakers : sequence of str, length n_tokens
        Who says it. Where a story is told in a voice of its own, its name will do.
    n_each : int
        Comparisons within one voice, and as many across two, at most, for each pair of words.

    Raises
    ------
    ValueError
        If fewer than 5 semantic pairs or near-homophones can be compared.
    """
    if len(words) != len(speakers) or n_each < 1 or voices not in ("both", "same", "different"):
        raise ValueError(
            f"{len(words)} words, {len(speakers)} speakers, n_each {n_each}, voices {voices!r}; need one speaker for"
            " each word (empty where unknown), at least 1, and one of both, same, different."
        )
    index = {word: k for k, word in enumerate(pairs.words)}
    word = np.asarray([index.get(said, -1) for said in words], dtype=np.int64)
    # Tokens by word: sorted, and cut before word 0 (what comes first is of no pair), 1, ... and after the last one.
    order = np.argsort(word, kind="stable")
    tokens = np.split(order, np.searchsorted(word[order], np.arange(len(pairs.words) + 1)))[1:-1]
    voice = np.unique(np.asarray(speakers, dtype=np.str_), return_inverse=True)[1]
    compared: Voices = "same" if voices == "both" and voice.max(initial=0) == 0 else voices
    rng = np.random.default_rng(seed)
    chosen = [
        _chosen(tokens[a], tokens[b], voice, compared, n_each, rng)
        for a, b in zip(pairs.first, pairs.second, strict=True)
    ]
    kept = np.flatnonzero([found is not None for found in chosen])
    columns = {name: getattr(pairs, name)[kept] for name in ("first", "second", "kind", "phone_distance")}
    comparable = replace(pairs, **columns)
    left_out = {f"{name}: not said as asked": n - comparable.counts()[name] for name, n in pairs.counts().items()}
    _check_enough(comparable, compared, left_out)
    parts = [found for found in chosen if found is not None]
    table = np.concatenate([tokens for tokens, _ in parts])
    pair = np.repeat(np.arange(len(parts)), [len(tokens) for tokens, _ in parts])
    weight = np.concatenate([weights for _, weights in parts])
    return TokenPairs(comparable, table[:, 0], table[:, 1], pair, weight, len(words), word, compared, left_out)


def _chosen(
    one: IntArray, other: IntArray, voice: IntArray, voices: Voices, n_each: int, rng: np.random.Generator
) -> tuple[IntArray, FloatArray] | None:
    """Tokens (n, 2) and their weights for one pair of words; None where they were not said as asked."""
    same = voice[one][:, None] == voice[other]
    masks = {"same": [same], "different": [~same], "both": [same, ~same]}[voices]
    found = [np.argwhere(mask) for mask in masks]
    if not all(len(cells) for cells in found):
        return None
    drawn = [cells[rng.permutation(len(cells))[:n_each]] for cells in found]
    cells = np.concatenate(drawn)
    # Half the weight for one voice and half for two, however many of each were drawn.
    weights = np.concatenate([np.full(len(part), 1.0 / (len(drawn) * len(part))) for part in drawn])
    return np.stack([one[cells[:, 0]], other[cells[:, 1]]], axis=1), weights


def _check_enough(pairs: WordPairs, voices: Voices, left_out: Mapping[str, int]) -> None:
    counts = pairs.counts()
    few = [KINDS[kind] for kind in (SEMANTIC, NEAR_HOMOPHONE) if counts[KINDS[kind]] < _FEWEST_PAIRS]
    if few or not counts["random"]:
        lost = ", ".join(f"{reason} {n}" for reason, n in left_out.items())
        raise ValueError(
            f"pairs that can be compared with voices={voices!r}: {counts}; need {_FEWEST_PAIRS} of each and a random"
            f" one. Left out: {lost}. Give more speech, voices='different' or 'same', or a larger phone distance."
        )
