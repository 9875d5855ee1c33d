"""How each phone is made: the 22 articulatory features of published encoding models, for the 39 phones of ARPAbet.

The features are those of de Heer et al. (2017), J Neurosci 37:6539, in the order in which that laboratory's code lists
them: eight places, six manners, voicing, and height and backness of vowels. The table was written anew from the IPA
chart and Ladefoged & Johnson, A Course in Phonetics. Where English leaves a choice:

- vowels are voiced; a diphthong has the features of both its ends;
- R is postalveolar, W both bilabial and velar, L an approximant as well as a lateral;
- ER is a mid central vowel with the constriction of an approximant;
- neither tenseness nor rounding is among the 22, so IH equals IY and UH equals UW.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainlit.features.config import PerTr
from brainlit.features.per_tr import in_words, to_trs
from brainlit.features.phonemic import PhoneError, phones_of
from brainlit.features.phones import arpabet_phone, is_arpabet
from brainlit.stories import FeatureSpace, Story

ARTICULATIONS = (
    *("bilabial", "postalveolar", "alveolar", "dental", "labiodental", "velar", "glottal", "palatal"),
    *("plosive", "affricate", "fricative", "nasal", "lateral", "approximant"),
    *("voiced", "unvoiced", "low", "mid", "high", "front", "central", "back"),
)

_MADE_BY = {
    "P": "bilabial plosive unvoiced",
    "B": "bilabial plosive voiced",
    "T": "alveolar plosive unvoiced",
    "D": "alveolar plosive voiced",
    "K": "velar plosive unvoiced",
    "G": "velar plosive voiced",
    "CH": "postalveolar affricate unvoiced",
    "JH": "postalveolar affricate voiced",
    "F": "labiodental fricative unvoiced",
    "V": "labiodental fricative voiced",
    "TH": "dental fricative unvoiced",
    "DH": "dental fricative voiced",
    "S": "alveolar fricative unvoiced",
    "Z": "alveolar fricative voiced",
    "SH": "postalveolar fricative unvoiced",
    "ZH": "postalveolar fricative voiced",
    "HH": "glottal fricative unvoiced",
    "M": "bilabial nasal voiced",
    "N": "alveolar nasal voiced",
    "NG": "velar nasal voiced",
    "L": "alveolar lateral approximant voiced",
    "R": "postalveolar approximant voiced",
    "W": "bilabial velar approximant voiced",
    "Y": "palatal approximant voiced",
    "IY": "high front voiced",
    "IH": "high front voiced",
    "EH": "mid front voiced",
    "AE": "low front voiced",
    "AH": "mid central voiced",
    "ER": "mid central approximant voiced",
    "AA": "low back voiced",
    "AO": "mid back voiced",
    "UH": "high back voiced",
    "UW": "high back voiced",
    "EY": "mid high front voiced",
    "AY": "low central high front voiced",
    "AW": "low central high back voiced",
    "OY": "mid back high front voiced",
    "OW": "mid high back voiced",
}


def articulation(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of phones in each TR that are bilabial, nasal, voiced, ...: 22 columns.

    Raises
    ------
    PhoneError
        If the story has no phone times, or its phones are not ARPAbet.
    """
    phones = phones_of(story)
    if not is_arpabet(phones.labels):
        raise PhoneError(
            f"story {story.name!r}: its phones ({', '.join(map(repr, sorted(set(phones.labels))[:5]))}, ...) are not"
            " ARPAbet, for which articulation is defined. Convert the phone tiers, or choose phone_classes or phones."
        )
    table = np.stack([articulation_of(label) for label in phones.labels])
    return FeatureSpace(
        name="articulation",
        kind="low_level",
        columns=ARTICULATIONS,
        source=f"22 articulatory features of each phone (de Heer et al. 2017), {in_words('sum', per_tr)}",
        values=to_trs(table, phones.middle_s, story.timebase, "sum", per_tr),
    )


def articulation_of(label: str) -> npt.NDArray[np.float64]:
    """The features of one ARPAbet label, shape (22,): 1 where it has one; all 0 for pauses and unknown labels."""
    made_by = _MADE_BY.get(arpabet_phone(label) or "", "").split()
    return np.asarray([feature in made_by for feature in ARTICULATIONS], dtype=np.float64)
