"""What states of one seed made of the same spoken words: preference, categories, likeness to the start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from brainlit.downstream.preference import CONTRASTS, preference, preference_change
from brainlit.downstream.representation import FloatArray, WordMap, category_separation, word_map, word_means
from brainlit.downstream.run_files import WordStates
from brainlit.downstream.scores import Draws
from brainlit.downstream.token_pairs import TokenPairs
from brainlit.downstream.word_lists import WordListMissingError
from brainlit.encoding.similarity import linear_cka
from brainlit.results.effects import BRAIN, PERMUTED, PRETRAINED, Change, Measured

RATIO, SEPARATION, CKA = "ratio", "separation", "cka"
WORD_DRAWS = Draws(n_boot=500)
"""Few, because the interval that decides is that over seeds."""
CHANGES = ((BRAIN, PRETRAINED), (BRAIN, PERMUTED))
N_PERMUTATIONS = 100
FEWEST_WORDS = 4

Heard: TypeAlias = Mapping[str, Sequence[WordStates | None]]
"""The words of each state, by regime."""
Name: TypeAlias = tuple[str, int | None]
"""What, and in which layer; None: the last."""


def word_numbers(
    heard: Heard, name: str
) -> tuple[dict[str, list[dict[Name, float]]], dict[Change, list[dict[Name, Measured]]], str]:
    """Numbers of each state, changes between them, and why there is no preference (empty where there is one).

    Numbers are the CONTRASTS and RATIO of `downstream.preference` per layer, SEPARATION (accuracy of the nearest
    category with each word left out; last layer) and CKA (debiased, of word means, with the same layer before tuning).

    Parameters
    ----------
    name : str
        Of the seed, for errors.

    Raises
    ------
    ValueError
        If two states heard other words.
    """
    first = next((words for several in heard.values() for words in several if words is not None), None)
    if first is None:
        return {}, {}, ""
    if any(words is not None and not words.same_tokens(first) for several in heard.values() for words in several):
        raise ValueError(f"the runs of {name} heard other words, so they cannot be paired; ask all of them again.")
    tokens, note = _tokens(first)
    start = next(iter(heard.get(PRETRAINED, ())), None)
    numbers = {regime: [_numbers(words, tokens, start) for words in several] for regime, several in heard.items()}
    return numbers, _changes(heard, tokens) if tokens else {}, note


def map_of(heard: Heard) -> WordMap | None:
    """Words before and after brain-tuning in the plane, where both are there and have categories."""
    before, after = (next(iter(heard.get(regime, ())), None) for regime in (PRETRAINED, BRAIN))
    if before is None or after is None:
        return None
    words, categories, vectors = _of_categories(before)
    if len(words) < FEWEST_WORDS:
        return None
    return word_map(vectors, _of_categories(after)[2], words, categories)


def _tokens(words: WordStates) -> tuple[TokenPairs | None, str]:
    """Which tokens are compared, or why none can be."""
    try:
        return words.token_pairs(), ""
    except (ValueError, WordListMissingError) as error:
        return None, f"no semantic-phonetic preference: {error}"


def _numbers(words: WordStates | None, tokens: TokenPairs | None, start: WordStates | None) -> dict[Name, float]:
    if words is None:
        return {}
    found: dict[Name, float] = {}
    for layer in preference(words.layers, tokens, draws=WORD_DRAWS) if tokens else ():
        found |= {(contrast, layer.layer): getattr(layer, contrast).value for contrast in CONTRASTS}
        if layer.ratio is not None:
            found[RATIO, layer.layer] = layer.ratio.value
    if start is not None and list(start.layers) == list(words.layers):
        found |= {(CKA, layer): _likeness(start, words, layer) for layer in words.layers}
    found = {name: value for name, value in found.items() if np.isfinite(value)}
    last = max(words.layers)
    found |= {(what, None): value for (what, layer), value in found.items() if layer == last}
    names, categories, vectors = _of_categories(words)
    if len(names) >= FEWEST_WORDS:
        found[SEPARATION, None] = category_separation(vectors, categories, n_permutations=N_PERMUTATIONS).accuracy
    return found


def _changes(heard: Heard, tokens: TokenPairs) -> dict[Change, list[dict[Name, Measured]]]:
    """Changes of preference in the last layer with their intervals over words, one for each pair of states."""
    changes: dict[Change, list[dict[Name, Measured]]] = {}
    for pair in CHANGES:
        ours, theirs = ([words for words in heard.get(regime, ()) if words is not None] for regime in pair)
        for one, other in ((one, other) for one in ours for other in theirs):
            changes.setdefault(pair, []).append(_change(other, one, tokens))
    return changes


def _change(before: WordStates, after: WordStates, tokens: TokenPairs) -> dict[Name, Measured]:
    """Of the last layer, which is what claims are about; comparing pairs of tokens takes the most time of all."""
    last = max(after.layers)
    (layer,) = preference_change({last: before.layers[last]}, {last: after.layers[last]}, tokens, draws=WORD_DRAWS)
    effects = {what: getattr(layer, what) for what in (*CONTRASTS, RATIO)}
    return {
        (what, None): Measured(effect.value, effect.low, effect.high)
        for what, effect in effects.items()
        if effect is not None
    }


def _likeness(one: WordStates, other: WordStates, layer: int) -> float:
    before, after = (word_means(words.layers[layer], words.words)[1] for words in (one, other))
    return linear_cka(before, after, debiased=True) if len(before) >= FEWEST_WORDS else float("nan")


def _of_categories(words: WordStates) -> tuple[tuple[str, ...], list[str], FloatArray]:
    """Words whose category has two or more of them (of two categories or more), and their means in the last layer."""
    names, vectors = word_means(words.layers[max(words.layers)], words.words)
    category = dict(zip(words.words, words.categories, strict=True))
    counts = Counter(category[name] for name in names)
    rows = [k for k, name in enumerate(names) if category[name] and counts[category[name]] > 1]
    if len({category[names[k]] for k in rows}) < 2:
        rows = []
    return tuple(names[k] for k in rows), [category[names[k]] for k in rows], vectors[rows]
