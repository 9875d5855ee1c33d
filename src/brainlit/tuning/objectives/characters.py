"""The letters of a transcript, for CTC."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

import numpy as np

APOSTROPHE = "'"


def plain(text: str) -> str:
    """Lower case, composed accents, straight apostrophes, one space between words.

    >>> plain(" She\u2019s  HERE ")
    "she's here"
    """
    composed = unicodedata.normalize("NFC", text).lower().replace("\u2019", APOSTROPHE)
    return " ".join(composed.split())


def inventory_of(texts: Iterable[str]) -> str:
    """The alphabet of texts: a space, then their letters and apostrophe in order.

    Digits and other signs are not in it, for they do not say how they were spoken.

    Raises
    ------
    ValueError
        If the texts have no letters.

    >>> inventory_of(["The cat's mat", "No. 7"])
    " 'acehmnost"
    """
    found = {character for text in texts for character in plain(text) if _is_spoken(character)}
    if not found - {APOSTROPHE}:
        raise ValueError(
            "the words of the training stories have no letters, so there is nothing for CTC to learn; CTC needs stories"
            " with a transcript: give --model.objective.ctc 0, or other stories."
        )
    return " " + "".join(sorted(found))


def _is_spoken(character: str) -> bool:
    """Letters, the marks that go with letters in some scripts, and the apostrophe."""
    return character == APOSTROPHE or unicodedata.category(character)[0] in "LM"


def collapse(path: Iterable[int], blank: int = 0) -> list[int]:
    """What a CTC path spells: repeats count once, blanks not at all.

    >>> collapse([0, 3, 3, 0, 3, 1])
    [3, 3, 1]
    """
    return [label for label, _ in groupby(path) if label != blank]


def frames_needed(labels: Sequence[int]) -> int:
    """Frames that a CTC path for these labels takes at least: one each, and a blank between two of the same.

    >>> frames_needed([3, 3, 1])
    4
    """
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions from one to the other (Levenshtein).

    >>> edit_distance([1, 2, 3], [2, 3, 4])
    2
    """
    there = np.asarray(second)
    steps = np.arange(len(there) + 1)
    row = steps
    for k, label in enumerate(first, start=1):
        diagonal = row[:-1] + (there != label)
        above = np.concatenate([[k], np.minimum(diagonal, row[1:] + 1)])
        row = np.minimum.accumulate(above - steps) + steps
    return int(row[-1])
