"""What the labels of a phone tier stand for: pauses, classes of phones, and the 39 phones of ARPAbet."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PHONE_CLASSES = ("vowel", "stop", "fricative", "affricate", "nasal", "approximant")

ARPABET = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY"),
    *("JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y"),
    *("Z", "ZH"),
)
"""The 39 phones of American English as the CMU pronouncing dictionary and its aligners write them, without stress."""

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
    {
        "",
        "sil",
        "sp",
        "spn",
        "pau",
        "h#",
        "epi",
        "ns",
        "br",
        "lg",
        "ls",
        "cg",
        "#",
        "eps",
        "sentence_start",
        "sentence_end",
    }
)


def is_pause(label: str) -> bool:
    """Whether a label of a phone tier stands for silence or noise: '', 'sil', 'sp', '{BR}', '_:' and the like."""
    return label.startswith("_") or label.strip("{}[]<> ").lower() in _PAUSES or label.lower() in _PAUSES


def classify_phones(labels: Sequence[str]) -> npt.NDArray[np.float64]:
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
    arpabet_first = 2 * n_arpabet > len(spoken)
    names = [None if is_pause(label) else _class_of(label, arpabet_first) for label in labels]
    n_known = sum(name is not None for name in names)
    if 2 * n_known < len(spoken):
        unknown = sorted({label for label, name in zip(labels, names, strict=True) if not name and not is_pause(label)})
        raise ValueError(
            f"{len(spoken) - n_known} of {len(spoken)} phones are neither ARPAbet nor espeak-ng mnemonics, such as"
            f" {', '.join(map(repr, unknown[:5]))}; convert the phone tier or leave phone classes out."
        )
    table = np.zeros((len(labels), len(PHONE_CLASSES)))
    for row, name in enumerate(names):
        if name is not None:
            table[row, PHONE_CLASSES.index(name)] = 1
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


def _class_of(label: str, arpabet_first: bool) -> str | None:
    if arpabet_first:
        return _arpabet_class(label)
    return _espeak_class(label) or _arpabet_class(label)


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
