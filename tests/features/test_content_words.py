from __future__ import annotations

import numpy as np
import pytest

from brainlit.features.content_words import FUNCTION_WORDS, content_mask, is_function_word, word_form


@pytest.mark.parametrize(
    ("label", "form"),
    [
        ("DOG", "dog"),
        (" Dogs,", "dogs"),
        ("it\N{RIGHT SINGLE QUOTATION MARK}s", "it's"),
        ("'tis", "tis"),
        ("Straße", "strasse"),
        ("co-op.", "co-op"),
    ],
)
def test_forms_have_no_case_and_no_punctuation_around_them(label: str, form: str) -> None:
    assert word_form(label) == form


@pytest.mark.parametrize("label", ["", " ", "...", "[laughter]", "<unk>", "{NS}", "(noise)"])
def test_marks_and_noises_are_no_words(label: str) -> None:
    assert word_form(label) == ""
    assert not content_mask([label])[0]


def test_closed_classes_and_their_contractions_are_function_words() -> None:
    for form in ("the", "she", "don't", "won't", "can't", "ain't", "they've", "i'm", "who'd", "there's", "couldn't"):
        assert is_function_word(form), form
    for form in ("dog", "dog's", "o'clock", "said", "three", "mother", "mother's"):
        assert not is_function_word(form), form
    assert all(form == word_form(form) and form.isascii() for form in FUNCTION_WORDS)


def test_with_vectors_a_word_needs_one_and_function_words_do_not_count() -> None:
    labels = ["The", "ox", "and", "flumph", "ran"]
    assert content_mask(labels, np.array([True, True, True, False, True])).tolist() == [False, True, False, False, True]


def test_without_vectors_short_words_do_not_count_but_in_scripts_without_case() -> None:
    assert content_mask(["The", "ox", "with", "Thunder", "dog", "狗", "小王子"]).tolist() == [
        *(False, False, False, True, False),
        *(True, True),
    ]


def test_no_words() -> None:
    assert content_mask([]).shape == (0,)
