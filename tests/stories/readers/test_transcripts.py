"""Words and phones from TextGrids and tables, without the marks for silence."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.readers.transcripts import (
    PHONE_TIERS,
    WORD_TIERS,
    TranscriptError,
    read_intervals,
    read_word_table,
    refuse_swapped,
)

HEADER = 'File type = "ooTextFile"\nObject class = "TextGrid"\n0\n2\n<exists>\n'


def _tier(name: str, *labels: str) -> str:
    rows = "".join(f'{k}\n{k + 1}\n"{label}"\n' for k, label in enumerate(labels))
    return f'"IntervalTier"\n"{name}"\n0\n{len(labels)}\n{len(labels)}\n{rows}'


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "story.TextGrid"
    path.write_text(
        HEADER + "2\n" + _tier("Words", "sp", " hello ", "{LG}", "Frog") + _tier("phone", "AH0", "sil", "F")
    )
    return path


def test_words_and_phones_are_found_by_usual_names_and_silence_is_dropped(grid: Path) -> None:
    words = read_intervals(grid, None, WORD_TIERS)
    assert words.labels == ("hello", "Frog")
    assert words.start_s.tolist() == [1.0, 3.0]
    assert read_intervals(grid, None, PHONE_TIERS).labels == ("AH0", "F")
    assert read_intervals(grid, "phone", WORD_TIERS, not_words={"f"}).labels == ("AH0", "sil")


def test_a_missing_tier_is_said_with_those_there(grid: Path) -> None:
    with pytest.raises(TranscriptError, match=r"no tier 'word'\. Did you mean 'Words'\? Known: Words, phone"):
        read_intervals(grid, "word", WORD_TIERS)
    with pytest.raises(TranscriptError, match=r"none of its tiers is called syllable: Words, phone\. Name one"):
        read_intervals(grid, None, ("syllable",))


def test_two_tiers_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(HEADER + "2\n" + _tier("word", "a") + _tier("word", "b"))
    with pytest.raises(TranscriptError, match="2 tiers could be meant"):
        read_intervals(path, "word", WORD_TIERS)


def test_tiers_of_several_speakers_are_joined_in_time(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    two = _tier("one - words", "the", "sp", "hops") + _tier("two - words", "a", "frog", "now")
    path.write_text(HEADER + "3\n" + two + _tier("one - phones", "DH"))
    words = read_intervals(path, ["two - words", "one - words"], WORD_TIERS)
    assert words.labels == ("a", "the", "frog", "now", "hops"), "who begin together stay in the order that is asked for"
    assert words.start_s.tolist() == [0.0, 0.0, 1.0, 2.0, 2.0]
    with pytest.raises(TranscriptError, match=r"Several speakers: tier: \[one - words, two - words\]"):
        read_intervals(path, None, WORD_TIERS)
    with pytest.raises(TranscriptError, match=r"no tier 'three - words'\. Did you mean"):
        read_intervals(path, ["one - words", "three - words"], WORD_TIERS)


def test_channels_of_one_recording_are_joined_and_recordings_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.ctm"
    path.write_text("frog A 1 0.5 the\nfrog B 0.5 1 hello\nbear A 0 1 roar\n")
    assert read_intervals(path, ["frog A", "frog B"], WORD_TIERS).labels == ("hello", "the")
    with pytest.raises(TranscriptError, match="frog A, bear A are recordings with clocks of their own"):
        read_intervals(path, ["frog A", "bear"], WORD_TIERS)


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_tables_of_events_are_sorted_and_cleaned(tmp_path: Path, suffix: str, separator: str) -> None:
    path = tmp_path / f"words{suffix}"
    rows = [("onset", "duration", "trial_type", "word"), ("1.5", "0.2", "x", "frog"), ("0.5", "0.3", "x", "the"),
            ("0.9", "0.1", "x", "n/a")]  # fmt: skip
    path.write_text("\n".join(separator.join(row) for row in rows))
    words = read_intervals(path, None, WORD_TIERS)
    assert words.labels == ("the", "frog")
    assert words.end_s.tolist() == [0.8, 1.7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset,length,text\n", "columns are onset, length, text; need onset, duration and one of text, word"),
        ("onset,duration,text\n1,0.2,a\nlater,1,b\n", r"line 3: onset is 'later'; need a number of seconds"),
        ("onset,duration,text\n1,-0.2,a\n", r"line 2: duration is '-0.2'"),
        ("onset,duration,text\n1\n", r"line 2: 1 columns, but 3 in the lines before"),
        ("onset,duration,text,text\n1,2,a,b\n", "there are 2 columns 'text'; need one"),
        ('onset,duration,text\n1,2,"a\n2,3,b\n', "line 2: .* Is a quotation mark missing"),
        ('onset,duration,text\n1,2,"a\n2,3,b"\n', "line 2: a cell goes on in the next line"),
        ("onset,duration,text\n1,2,sil\n", "no label remains"),
        ("", "the columns are none"),
    ],
)
def test_a_wrong_table_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "words.csv"
    path.write_text(text)
    with pytest.raises(TranscriptError, match=message):
        read_intervals(path, None, WORD_TIERS)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TranscriptError, match=r"is a \.TextGrid, \.csv, \.tsv, \.ctm, \.json, \.srt or \.vtt file, not '\.docx'"
    ):
        read_intervals(tmp_path / "words.docx", None, WORD_TIERS)


EVENTS = "onset\tduration\ttrial_type\tstim\n2\tn/a\tword\tthe\n1\t0.5\tpause\tx\n3\t0.5\tword\tfrog\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_events_are_filtered_and_their_column_is_found(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "frog_events.tsv"
    path.write_bytes(EVENTS.replace("\n", line_end).encode(encoding))
    words = read_intervals(path, None, WORD_TIERS, where={"trial_type": ["word"]})
    assert words.labels == ("the", "frog")
    assert words.duration_s.tolist() == [0.0, 0.5]
    assert read_intervals(path, None, WORD_TIERS, column="trial_type").labels == ("pause", "word", "word")


def test_a_filter_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frog_events.tsv"
    path.write_text(EVENTS)
    with pytest.raises(TranscriptError, match=r"no row has trial_type words\. Did you mean 'word'"):
        read_intervals(path, None, WORD_TIERS, where={"trial_type": ["words"]})
    with pytest.raises(TranscriptError, match=r"no column 'type'\."):
        read_intervals(path, None, WORD_TIERS, where={"type": ["word"]})
    with pytest.raises(TranscriptError, match="need onset, duration and one of lemma"):
        read_intervals(path, None, WORD_TIERS, column="lemma")
    with pytest.raises(TranscriptError, match=r"choose from a table .* not from '\.ctm'"):
        read_intervals(tmp_path / "a.ctm", None, WORD_TIERS, column="lemma")


CTM = ";; comment\nfrog 1 1.5 0.25 hops 0.97\nfrog 1 0.5 0.5 The\n\nfrog 1 1 .5 <eps> 1\n"


def test_ctm_lines_become_words(tmp_path: Path) -> None:
    path = tmp_path / "frog.ctm"
    path.write_text(CTM)
    words = read_intervals(path, None, WORD_TIERS)
    assert words.labels == ("The", "hops")
    assert words.start_s.tolist() == [0.5, 1.5]
    assert words.end_s.tolist() == [1.0, 1.75]
    path.write_text(CTM + "bear A 0 1 roar\n")
    assert read_intervals(path, "bear", WORD_TIERS).labels == ("roar",)
    assert read_intervals(path, "frog 1", WORD_TIERS).labels == ("The", "hops")
    with pytest.raises(TranscriptError, match=r"2 recordings could be meant: frog 1, bear A\. Name one"):
        read_intervals(path, None, WORD_TIERS)
    with pytest.raises(TranscriptError, match=r"no recording 'beer'\."):
        read_intervals(path, "beer", WORD_TIERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frog 1 0.5 the\n", r"line 1: 4 columns; need recording, channel, start, duration and word"),
        (";;\nfrog 1 * 1 the\n", r"line 2: start is '\*'; need a number"),
        (";; nothing\n", "holds no words"),
    ],
)
def test_a_wrong_ctm_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.ctm").write_text(text)
    with pytest.raises(TranscriptError, match=message):
        read_intervals(tmp_path / "a.ctm", None, WORD_TIERS)


def _spoken(*labels: str) -> Intervals:
    return Intervals(labels, np.arange(len(labels)), np.ones(len(labels)))


def test_swapped_tiers_are_noticed() -> None:
    words, phones = _spoken("the", "frog", "hops"), _spoken("DH", "AH0", "F", "R", "AO1", "G", "HH", "AA1", "P", "S")
    refuse_swapped(words, phones, "a")
    refuse_swapped(_spoken(*["A", "I"] * 30), None, "words of one letter")
    with pytest.raises(TranscriptError, match=r"a: 10 words, but 3 phones\. Are the two tiers swapped"):
        refuse_swapped(phones, words, "a")
    with pytest.raises(TranscriptError, match=r"the words are phones \(DH, AH0, F, R, AO1, G"):
        refuse_swapped(_spoken(*phones.labels * 3), None, "a")


def test_an_empty_tier_holds_no_words(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(HEADER + "2\n" + _tier("word") + _tier("phone", "F"))
    with pytest.raises(TranscriptError, match="no label remains"):
        read_intervals(path, None, WORD_TIERS)


# --- word_table
# Tables of words: columns by their names, one part of a table, and no other error than one in words.


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
