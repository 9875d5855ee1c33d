import numpy as np
import pytest

from brainlit.features.phones import PHONE_CLASSES, classify_phones, is_pause


def names_of(labels):
    return [PHONE_CLASSES[row.argmax()] if row.any() else None for row in classify_phones(labels)]


def test_arpabet_with_stress_digits():
    labels = ["HH", "AH0", "L", "OW1", "CH", "IY1", "Z", "NG", "D", "sp", "DH", "Y", "JH"]
    assert names_of(labels) == [
        *("fricative", "vowel", "approximant", "vowel", "affricate", "vowel", "fricative", "nasal", "stop"),
        *(None, "fricative", "approximant", "affricate"),
    ]


def test_arpabet_in_lower_case():
    expected = ["fricative", "vowel", "affricate", "stop", "nasal", "approximant"]
    assert names_of(["dh", "ah0", "ch", "d", "ng", "y"]) == expected


def test_espeak_mnemonics_with_variants_and_stress():
    labels = ["D", "@2", "k", "'a", "t#", "tS", "r-", "n-", "N", "S", "aI3", ";", "_:", "@L", "dZ", "j", "?", "0"]
    assert names_of(labels) == [
        *("fricative", "vowel", "stop", "vowel", "stop", "affricate", "approximant", "nasal", "nasal", "fricative"),
        *("vowel", "approximant", None, "vowel", "affricate", "approximant", "stop", "vowel"),
    ]


def test_capital_d_and_t_are_read_by_the_alphabet_of_the_whole_tier():
    assert names_of(["D", "AA1", "T"]) == ["stop", "vowel", "stop"]
    assert names_of(["D", "a", "T", "@", "i:"])[:3] == ["fricative", "vowel", "fricative"]


def test_a_few_odd_labels_do_not_change_the_alphabet():
    assert names_of(["D", "AA1", "T", "{LG}", "K", "B", "wat?!"])[:3] == ["stop", "vowel", "stop"]


def test_an_unknown_alphabet_is_refused_by_name():
    with pytest.raises(ValueError, match=r"3 of 3 phones are neither.*'θ'"):
        classify_phones(["θ", "ʃ", "ŋ"])


@pytest.mark.parametrize("label", ["", "sil", "SP", "{SP}", "{BR}", "br", "_", "_:", "sentence_start", "<eps>"])
def test_pauses(label):
    assert is_pause(label)
    assert not classify_phones([label, "AA1", "B"])[0].any()


def test_no_phones_give_an_empty_table():
    assert classify_phones([]).shape == (0, len(PHONE_CLASSES))
    assert np.array_equal(classify_phones(["sp"]), np.zeros((1, len(PHONE_CLASSES))))
