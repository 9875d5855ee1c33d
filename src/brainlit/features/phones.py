"""Which phones are vowels, and how consonants are made; for espeak-ng's mnemonics and for ARPAbet."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PHONE_CLASSES = ("vowel", "stop", "fricative", "affricate", "nasal", "approximant")

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
