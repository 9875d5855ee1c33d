"""Alphabets and edit distance."""

from __future__ import annotations

import pytest
import torchaudio.functional
from hypothesis import given
from hypothesis import strategies as st

from brainlit.tuning.objectives import inventory_of
from brainlit.tuning.objectives.characters import edit_distance, frames_needed, plain

WORDS = st.lists(st.integers(0, 3), max_size=7)


@given(WORDS, WORDS)
def test_edit_distance_is_torchaudios(first: list[int], second: list[int]) -> None:
    assert edit_distance(first, second) == torchaudio.functional.edit_distance(first, second)


@pytest.mark.parametrize(("labels", "frames"), [([], 0), ([1], 1), ([1, 2], 2), ([1, 1, 1], 5)])
def test_repeats_need_a_frame_between_them(labels: list[int], frames: int) -> None:
    assert frames_needed(labels) == frames


def test_letters_of_any_script_are_in_the_alphabet() -> None:
    assert inventory_of(["Où est l\u2019œuf?", "e\u0301te\u0301 2024"]) == " 'eflostuéùœ"
    assert inventory_of(["小王子", "हिन्दी"])[1:] == "".join(sorted("小王子हिन्दी"))


def test_the_alphabet_does_not_depend_on_order() -> None:
    assert inventory_of(["b", "a c"]) == inventory_of(["c a", "b"]) == " abc"


@pytest.mark.parametrize("texts", [[], ["", " "], ["42!", "'"]])
def test_texts_without_letters_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no letters, .* give --model.objective.ctc 0"):
        inventory_of(texts)


def test_plain_text_has_single_spaces() -> None:
    assert plain("  A\t B\n") == "a b"
