from dataclasses import replace

import numpy as np
import pytest

from brainlit.features.articulation import ARTICULATIONS, articulation, articulation_of
from brainlit.features.phonemic import PhoneError
from brainlit.features.phones import ARPABET, PHONE_CLASSES, classify_phones
from tests.features.tone import spoken, tone_story

SAME = {("IH", "IY"), ("UH", "UW")}
PLACES, MANNERS, HEIGHTS = ARTICULATIONS[:8], ARTICULATIONS[8:14], ("low", "mid", "high")


def features_of(phone):
    return {name for name, value in zip(ARTICULATIONS, articulation_of(phone), strict=True) if value}


def test_there_are_22_features_and_each_is_used():
    assert len(set(ARTICULATIONS)) == 22
    assert set.union(*map(features_of, ARPABET)) == set(ARTICULATIONS)


def test_only_the_documented_phones_share_a_row():
    shared = {
        (one, other)
        for k, one in enumerate(ARPABET)
        for other in ARPABET[k + 1 :]
        if features_of(one) == features_of(other)
    }
    assert shared == SAME


@pytest.mark.parametrize(
    ("phone", "expected"),
    [
        ("M", {"bilabial", "nasal", "voiced"}),
        ("T", {"alveolar", "plosive", "unvoiced"}),
        ("NG", {"velar", "nasal", "voiced"}),
        ("DH", {"dental", "fricative", "voiced"}),
        ("CH", {"postalveolar", "affricate", "unvoiced"}),
        ("F", {"labiodental", "fricative", "unvoiced"}),
        ("HH", {"glottal", "fricative", "unvoiced"}),
        ("Y", {"palatal", "approximant", "voiced"}),
        ("IY1", {"high", "front", "voiced"}),
        ("AA0", {"low", "back", "voiced"}),
        ("AY2", {"low", "central", "high", "front", "voiced"}),
        ("sp", set()),
    ],
)
def test_facts_of_phonetics(phone, expected):
    assert features_of(phone) == expected


def test_every_phone_is_either_voiced_or_unvoiced_and_pairs_differ_in_nothing_else():
    assert all(len(features_of(phone) & {"voiced", "unvoiced"}) == 1 for phone in ARPABET)
    for pair in ("B P", "D T", "G K", "JH CH", "V F", "DH TH", "Z S", "ZH SH"):
        voiced, unvoiced = map(features_of, pair.split())
        assert voiced ^ unvoiced == {"voiced", "unvoiced"}, pair
        assert "voiced" in voiced, pair


def test_manner_agrees_with_the_phone_classes():
    named = {"stop": "plosive", "vowel": "high low mid"}
    for phone, row in zip(ARPABET, classify_phones(ARPABET), strict=True):
        name = PHONE_CLASSES[row.argmax()]
        assert features_of(phone) & set(named.get(name, name).split()), phone
        is_consonant = bool(features_of(phone) & set(PLACES))
        assert is_consonant == (name != "vowel"), phone
        assert is_consonant != bool(features_of(phone) & set(HEIGHTS)), phone


def test_features_are_counted_per_row():
    space = articulation(replace(tone_story(0, 1), phones=spoken("M IY sp N OW", 0.9)))
    counts = dict(zip(space.columns, space.values.T.tolist(), strict=True))
    assert counts["nasal"][:3] == [1, 1, 0]
    assert counts["voiced"][:3] == [2, 1, 1]
    assert counts["unvoiced"] == [0] * 6


def test_other_alphabets_are_refused_by_name():
    with pytest.raises(PhoneError, match=r"story 'tone'.*'@', 'D', 'aI'.*not ARPAbet"):
        articulation(replace(tone_story(0, 1), phones=spoken("D @ tS aI")))


def test_every_row_is_binary():
    table = np.stack([articulation_of(phone) for phone in ARPABET])
    assert set(np.unique(table)) == {0, 1}
