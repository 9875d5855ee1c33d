"""Tables of words: columns by their names, one part of a table, and no other error than one in words."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.stories.base import SourceError
from brainlit.stories.readers.word_table import read_word_table

TABLE = "text;from;to;chapter\nonce;2.0;2.5;1\n#;0.0;1.0;1\nsheep;1.0;1.5;1.0\nrose;0.5;1.0;2\nlost;;;1\nfox;3;3;none\n"


def _read(text: str | bytes, **more: object) -> list[tuple[str, float, float]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "words.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        words = read_word_table(path, "text", "from", "to", delimiter=";", **more)  # type: ignore[arg-type]
    return list(zip(words.labels, words.start_s.tolist(), words.duration_s.tolist(), strict=True))


def test_words_of_one_part_come_in_the_order_of_their_onsets() -> None:
    assert _read(TABLE, part=("chapter", 1)) == [("sheep", 1.0, 0.5), ("once", 2.0, 0.5)]
    assert _read(TABLE, part=("chapter", 2)) == [("rose", 0.5, 0.5)]
    assert [word for word, _, _ in _read(TABLE)] == ["rose", "sheep", "once", "fox"]


def test_a_byte_order_mark_and_quotes_change_nothing() -> None:
    assert _read(b"\xef\xbb\xbf" + TABLE.replace("sheep", '"sheep"').encode()) == _read(TABLE)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.integers(0, len(TABLE)))
def test_damaged_tables_give_one_error_in_words(junk: bytes, place: int) -> None:
    damaged = TABLE.encode()[:place] + junk + TABLE.encode()[place:]
    try:
        words, message = _read(damaged), ""
    except SourceError as error:
        words, message = [], str(error)
    assert bool(words) != ("words.csv" in message)
    assert np.isfinite([times for _, *times in words]).all()


@pytest.mark.parametrize("cell", ["nan;1", "1;inf", "1;", "2;1", "one;two"])
def test_a_time_that_is_none_is_named_with_its_line(cell: str) -> None:
    with pytest.raises(SourceError, match=r"words\.csv, line 3: 'fox'"):
        _read(f"text;from;to\nsheep;1;2\nfox;{cell}\n")
