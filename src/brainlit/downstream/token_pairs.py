"""Which spoken tokens are compared for each pair of words, so that no kind of pair has an advantage by its voices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from brainlit.downstream.pairs import KINDS, NEAR_HOMOPHONE, SEMANTIC, WordPairs

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Voices = Literal["both", "same", "different"]

FEWEST_PAIRS = 5
"""Semantic pairs and near-homophones that there must be of each to say anything."""


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
    spoken, index = _tokens_of(words), {word: k for k, word in enumerate(pairs.words)}
    voice = np.unique(np.asarray(speakers, dtype=np.str_), return_inverse=True)[1]
    asked: Voices = "same" if voices == "both" and voice.max(initial=0) == 0 else voices
    rng = np.random.default_rng(seed)
    chosen = [
        _chosen(spoken.get(pairs.words[a]), spoken.get(pairs.words[b]), voice, asked, n_each, rng)
        for a, b in zip(pairs.first, pairs.second, strict=True)
    ]
    kept = np.flatnonzero([found is not None for found in chosen])
    comparable = _only(pairs, kept)
    left_out = {f"{name}: not said as asked": n - comparable.counts()[name] for name, n in pairs.counts().items()}
    _check_enough(comparable, asked, left_out)
    parts = [found for found in chosen if found is not None]
    table = np.concatenate([tokens for tokens, _ in parts])
    pair = np.repeat(np.arange(len(parts)), [len(tokens) for tokens, _ in parts])
    weight = np.concatenate([shares for _, shares in parts])
    word = np.asarray([index.get(said, -1) for said in words], dtype=np.int64)
    return TokenPairs(comparable, table[:, 0], table[:, 1], pair, weight, len(words), word, asked, left_out)


def _tokens_of(words: Sequence[str]) -> dict[str, IntArray]:
    places: dict[str, list[int]] = defaultdict(list)
    for token, word in enumerate(words):
        places[word].append(token)
    return {word: np.asarray(tokens) for word, tokens in places.items()}


def _chosen(
    one: IntArray | None, other: IntArray | None, voice: IntArray, voices: Voices, n_each: int, rng: np.random.Generator
) -> tuple[IntArray, FloatArray] | None:
    """Tokens (n, 2) and their weights for one pair of words; None where they were not said as asked."""
    if one is None or other is None:
        return None
    same = voice[one][:, None] == voice[other]
    masks = {"same": [same], "different": [~same], "both": [same, ~same]}[voices]
    found = [np.argwhere(mask) for mask in masks]
    if not all(len(cells) for cells in found):
        return None
    drawn = [cells[rng.permutation(len(cells))[:n_each]] for cells in found]
    cells = np.concatenate(drawn)
    shares = np.concatenate([np.full(len(part), 1.0 / (len(drawn) * len(part))) for part in drawn])
    return np.stack([one[cells[:, 0]], other[cells[:, 1]]], axis=1), shares


def _only(pairs: WordPairs, kept: IntArray) -> WordPairs:
    """Some of the pairs; words stay numbered as they are."""
    return replace(
        pairs,
        first=pairs.first[kept],
        second=pairs.second[kept],
        kind=pairs.kind[kept],
        phone_distance=pairs.phone_distance[kept],
    )


def _check_enough(pairs: WordPairs, voices: Voices, left_out: Mapping[str, int]) -> None:
    counts = pairs.counts()
    few = [KINDS[kind] for kind in (SEMANTIC, NEAR_HOMOPHONE) if counts[KINDS[kind]] < FEWEST_PAIRS]
    if few or not counts["random"]:
        lost = ", ".join(f"{reason} {n}" for reason, n in left_out.items())
        raise ValueError(
            f"pairs that can be compared with voices={voices!r}: {counts}; need {FEWEST_PAIRS} of each and a random"
            f" one. Left out: {lost}. Give more speech, voices='different' or 'same', or a larger phone distance."
        )
