"""Words and phones from TextGrids and tables, without the marks for silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.stories.transcripts import PHONE_TIERS, WORD_TIERS, TranscriptError, read_intervals

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
        ("onset,duration,text\n1\n", r"line 2: duration is None"),
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
    with pytest.raises(TranscriptError, match=r"is a \.TextGrid, \.csv or \.tsv file, not '\.docx'"):
        read_intervals(tmp_path / "words.docx", None, WORD_TIERS)
