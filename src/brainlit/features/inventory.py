"""Which phones, diphones and triphones get a column: counted once, over all stories of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.features.phones import ARPABET, arpabet_phone, is_arpabet, plain_phone
from brainlit.stories import Intervals

FloatArray = npt.NDArray[np.float64]

MAX_GAP_S = 0.005
"""Phones that are further apart have a pause between them, also where the tier no longer holds its label."""


@dataclass(frozen=True)
class Ngrams:
    """The sequences of phones that have a column, most frequent first.

    Parameters
    ----------
    names : tuple of str
        Phones joined by '-': 'AH-N'.
    n_kinds : int
        How many different ones there are in all stories.
    share : float
        Share of all occurrences that have a column; 1 where nothing occurs.
    """

    names: tuple[str, ...]
    n_kinds: int
    share: float


@dataclass(frozen=True)
class PhoneInventory:
    """The phones of a set of stories.

    Parameters
    ----------
    arpabet : bool
        Whether labels are read as ARPAbet; else they are taken as they are, without stress marks.
    phones : tuple of str
        The 39 phones of ARPAbet, or all labels that occur, sorted.
    diphones, triphones : Ngrams
    """

    arpabet: bool
    phones: tuple[str, ...]
    diphones: Ngrams
    triphones: Ngrams

    def name(self, label: str) -> str | None:
        """The phone that a label stands for; None for pauses and labels outside the alphabet."""
        return arpabet_phone(label) if self.arpabet else plain_phone(label)


def count_phones(stories: Iterable[Intervals], max_diphones: int, max_triphones: int) -> PhoneInventory:
    """The inventory of these stories.

    Parameters
    ----------
    stories : iterable of Intervals
        Phones of each story.
    max_diphones, max_triphones : int
        Columns at most; of equally frequent ones the first in the alphabet.
    """
    tiers = list(stories)
    arpabet = is_arpabet([label for tier in tiers for label in tier.labels])
    reader = arpabet_phone if arpabet else plain_phone
    name_of = {label: reader(label) for tier in tiers for label in set(tier.labels)}
    named = [(tier, [name_of[label] for label in tier.labels]) for tier in tiers]
    found = sorted({name for name in name_of.values() if name is not None})
    counts = [Counter(run for tier, names in named for run in ngrams(tier, names, size)[0]) for size in (2, 3)]
    return PhoneInventory(
        arpabet=arpabet,
        phones=ARPABET if arpabet else tuple(found),
        diphones=_most_frequent(counts[0], max_diphones),
        triphones=_most_frequent(counts[1], max_triphones),
    )


def ngrams(phones: Intervals, names: Sequence[str | None], size: int) -> tuple[list[str], FloatArray]:
    """Every run of `size` phones without a pause, a gap or an unknown label in it, and the middle of each run.

    Parameters
    ----------
    names : sequence of str or None, length len(phones)
        What each label stands for; None breaks the run.

    Returns
    -------
    runs : list of str, length n
    middles_s : array of shape (n,)
        Half-way from the start of the first phone to the end of the last.
    """
    n_places = max(len(phones) - size + 1, 0)
    named = np.asarray([name is not None for name in names], dtype=bool)
    follows = phones.start_s[1:] - phones.end_s[:-1] <= MAX_GAP_S
    whole = np.ones(n_places, dtype=bool)
    for shift in range(size):
        whole &= named[shift : shift + n_places]
    for shift in range(size - 1):
        whole &= follows[shift : shift + n_places]
    firsts = np.flatnonzero(whole)
    runs = ["-".join(str(name) for name in names[first : first + size]) for first in firsts.tolist()]
    return runs, (phones.start_s[firsts] + phones.end_s[firsts + size - 1]) / 2


def _most_frequent(counts: Counter[str], n_most: int) -> Ngrams:
    ranked = sorted(counts, key=lambda name: (-counts[name], name))[:n_most]
    total = counts.total()
    return Ngrams(tuple(ranked), len(counts), sum(counts[name] for name in ranked) / total if total else 1.0)
