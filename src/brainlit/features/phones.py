"""What the labels of a phone tier stand for, and which phones, diphones and triphones get a column.

Labels are pauses, classes of phones, and the 39 phones of ARPAbet; columns are counted once, over all stories of a data
set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from brainlit.stories import Intervals
from brainlit.stories.base import FloatArray

PHONE_CLASSES = ("vowel", "stop", "fricative", "affricate", "nasal", "approximant")

ARPABET = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY"),
    *("JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y"),
    *("Z", "ZH"),
)
"""The 39 phones of American English as the CMU pronouncing dictionary and its aligners write them, without stress."""

_MAX_GAP_S = 0.005
"""Phones that are further apart have a pause between them, also where the tier no longer holds its label."""


# --- Labels ---

_FOLDED = {
    **{"AX": "AH", "AXR": "ER", "IX": "IH", "UX": "UW", "DX": "D", "HV": "HH", "WH": "W"},
    **{"EL": "L", "EM": "M", "EN": "N", "NX": "N", "ENG": "NG"},
}
_MIN_ARPABET = 0.8
"""espeak-ng's mnemonics share most consonants of ARPAbet but few vowels: about 0.6 of its labels are in both."""

_ARPABET = {
    "vowel": "AA AE AH AO AW AX AXR AY EH ER EY IH IX IY OW OY UH UW UX",
    "stop": "B D DX G K P Q T",
    "fricative": "DH F HH HV S SH TH V Z ZH",
    "affricate": "CH JH",
    "nasal": "EM EN ENG M N NG NX",
    "approximant": "EL L R W WH Y",
}
_ESPEAK_CONSONANTS = {
    "stop": "b d g k p t ? *",
    "fricative": "D f v h H s S T x z Z C Q",
    "affricate": "tS dZ ts dz",
    "nasal": "m n N n^",
    "approximant": "j l r w ; l^ R",
}
_ARPABET_CLASS = {phone: name for name, phones in _ARPABET.items() for phone in phones.split()}
_ESPEAK_CLASS = {phone: name for name, phones in _ESPEAK_CONSONANTS.items() for phone in phones.split()}
_ESPEAK_VOWEL = re.compile(r"[aAeEiIoOuUV03@&]")
_PAUSES = frozenset(
    {"", "sil", "sp", "spn", "pau", "h#", "epi", "ns", "br", "lg", "ls", "cg", "#", "eps"}
    | {"sentence_start", "sentence_end"}
)


def is_pause(label: str) -> bool:
    """Whether a label of a phone tier stands for silence or noise: '', 'sil', 'sp', '{BR}', '_:' and the like."""
    return label.startswith("_") or label.strip("{}[]<> ").lower() in _PAUSES or label.lower() in _PAUSES


def classify_phones(labels: Sequence[str]) -> FloatArray:
    """One row per label and one column per class of `PHONE_CLASSES`; a row is 0 for pauses and unknown labels.

    Labels are read as ARPAbet ('AH0', 'DH') when most of them are in it, and as espeak-ng mnemonics otherwise: 'D' is
    a stop in the first and a fricative in the second. Stress digits and stress marks are ignored.

    Raises
    ------
    ValueError
        If fewer than half of the labels that are not pauses are known.

    >>> classify_phones(["k", "'a", "t"]).argmax(axis=1).tolist()
    [1, 0, 1]
    """
    spoken = [label for label in labels if not is_pause(label)]
    n_arpabet = sum(label.isupper() and _arpabet_class(label) is not None for label in spoken)
    espeak_first = 2 * n_arpabet <= len(spoken)
    names = [
        None if is_pause(label) else (espeak_first and _espeak_class(label)) or _arpabet_class(label)
        for label in labels
    ]
    n_known = sum(name is not None for name in names)
    if 2 * n_known < len(spoken):
        unknown = sorted({label for label, name in zip(labels, names, strict=True) if not name and not is_pause(label)})
        raise ValueError(
            f"{len(spoken) - n_known} of {len(spoken)} phones are neither ARPAbet nor espeak-ng mnemonics, such as"
            f" {', '.join(map(repr, unknown[:5]))}; convert the phone tier or leave phone classes out."
        )
    return one_hot(names, PHONE_CLASSES)


def one_hot(names: Sequence[str | None], columns: Sequence[str]) -> FloatArray:
    """One row per name with a 1 in its column; a row of zeros for a name without one."""
    column_of: dict[str | None, int] = {name: column for column, name in enumerate(columns)}
    places = np.asarray([column_of.get(name, -1) for name in names], dtype=np.int64)
    rows = np.flatnonzero(places >= 0)
    table = np.zeros((len(names), len(columns)))
    table[rows, places[rows]] = 1
    return table


def is_arpabet(labels: Sequence[str]) -> bool:
    """Whether phone labels, pauses aside, are ARPAbet (in either case) but for a few odd ones.

    >>> is_arpabet(["dh", "ah0", "sp", "CH"]), is_arpabet(["D", "@", "tS"])
    (True, False)
    """
    spoken = [label for label in labels if not is_pause(label)]
    return sum(_arpabet_class(label) is not None for label in spoken) > _MIN_ARPABET * len(spoken)


def arpabet_phone(label: str) -> str | None:
    """One of the 39 phones, or None for pauses and other labels; stress is dropped, finer symbols are folded.

    The finer symbols are those of TIMIT: reduced vowels become their full ones, syllabic consonants plain ones, the
    flap DX a D, WH a W. The glottal stop has no counterpart.

    >>> [arpabet_phone(label) for label in ("AH0", "axr", "DX", "sp", "Q")]
    ['AH', 'ER', 'D', None, None]
    """
    bare = label.strip().upper().rstrip("012")
    bare = _FOLDED.get(bare, bare)
    return bare if bare in ARPABET else None


def plain_phone(label: str) -> str | None:
    """A label of another alphabet without its stress marks; None for pauses.

    >>> [plain_phone(label) for label in ("'aI", "t#", "_:")]
    ['aI', 't#', None]
    """
    return None if is_pause(label) else label.lstrip("',%=|ˈˌ") or label


def _arpabet_class(label: str) -> str | None:
    return _ARPABET_CLASS.get(label.upper().rstrip("012"))


def _espeak_class(label: str) -> str | None:
    """Class of a mnemonic such as 't#', 'n-', 'aI3': variants follow the base letters."""
    bare = label.lstrip("',%=|")
    if bare in _ESPEAK_CLASS:
        return _ESPEAK_CLASS[bare]
    if _ESPEAK_VOWEL.match(bare):
        return "vowel"
    return _ESPEAK_CLASS.get(bare.rstrip('#-^2:"!;'))


# --- Inventory ---


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
    follows = phones.start_s[1:] - phones.end_s[:-1] <= _MAX_GAP_S
    whole = np.ones(n_places, dtype=bool)  # runs that begin at each place: all phones named, no gap between them
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
