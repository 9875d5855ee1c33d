"""Forced alignments by gentle: every word with a time, phones one after the other, damage by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.stories.base import SourceError
from brainlit.stories.narratives.gentle import read_gentle

FOUND = {"case": "success", "word": "Ram", "alignedWord": "ram", "start": 2.0, "end": 2.5,
         "phones": [{"phone": "r_B", "duration": 0.1}, {"phone": "ae_I", "duration": 0.25},
                    {"phone": "m_E", "duration": 0.15}]}  # fmt: skip
MISSED = {"case": "not-found-in-audio", "word": "The"}
UNKNOWN = {"case": "success", "word": "Fordham", "alignedWord": "<unk>", "start": 1.0, "end": 1.4,
           "phones": [{"phone": "oov_S", "duration": 0.4}]}  # fmt: skip


def _write(folder: Path, *words: object) -> Path:
    path = folder / "align.json"
    path.write_text(json.dumps({"transcript": "", "words": words}))
    return path


def test_words_with_a_time_and_their_phones(tmp_path: Path) -> None:
    words, phones = read_gentle(_write(tmp_path, MISSED, FOUND, UNKNOWN))
    assert words.labels == ("Fordham", "Ram")
    assert words.start_s.tolist() == [1.0, 2.0]
    assert words.end_s.tolist() == pytest.approx([1.4, 2.5])
    assert phones.labels == ("R", "AE", "M")
    assert phones.start_s.tolist() == pytest.approx([2.0, 2.1, 2.35])
    assert phones.end_s[-1] == pytest.approx(2.5)


def test_an_alignment_without_any_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"align\.json: no word has a time"):
        read_gentle(_write(tmp_path, MISSED))


@pytest.mark.parametrize("left_out", ["case", "word", "start", "end", "phones"])
def test_a_word_without_a_part_is_refused(tmp_path: Path, left_out: str) -> None:
    damaged = {key: value for key, value in FOUND.items() if key != left_out}
    with pytest.raises(SourceError, match=rf"no alignment by gentle: KeyError: '{left_out}'"):
        read_gentle(_write(tmp_path, damaged))


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '{"words": 3}', '{"text": []}', '{"words": [3]}', '{"words": null}']
)
def test_what_is_no_alignment_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "align.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"align\.json"):
        read_gentle(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cut=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, cut: int, byte: int
) -> None:
    path = _write(tmp_path_factory.mktemp("gentle"), FOUND, MISSED, UNKNOWN)
    raw = bytearray(path.read_bytes())
    raw[cut % len(raw)] = byte
    path.write_bytes(bytes(raw))
    try:
        n_words = len(read_gentle(path)[0])
    except SourceError:
        n_words = 0
    assert n_words <= 2
