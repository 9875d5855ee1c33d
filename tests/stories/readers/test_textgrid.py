"""TextGrids in every form that Praat writes, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.stories.readers.textgrid import TextGridError, read_textgrid

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "word"
        xmin = 0
        xmax = 2.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = "say ""hi"" 7 <now>"
        intervals [3]:
            xmin = 1.25
            xmax = 2.5
            text = "größe"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1.5
            mark = "x"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"word"
0
2.5
3
0
0.5
""
0.5
1.25
"say ""hi"" 7 <now>"
1.25
2.5
"größe"
"TextTier"
"clicks"
0
2.5
1
1.5
"x"
"""


CHRONOLOGICAL = """"Praat chronological TextGrid text file"
0 2.5   ! Time domain.
2   ! Number of tiers.
"IntervalTier" "word" 0 2.5
"TextTier" "clicks" 0 2.5

! word: 1 "2" 3
1 0 0.5
""

! word:
1 0.5 1.25
"say ""hi"" 7 <now>"

! word:
1 1.25 2.5
"größe"

! clicks:
2 1.5
"x"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [LONG, SHORT, CHRONOLOGICAL], ids=["long", "short", "chronological"])
def test_all_formats_in_all_encodings_say_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(text, encoding=encoding)
    words, clicks = read_textgrid(path)
    assert words.name == "word"
    assert words.intervals.labels == ("", 'say "hi" 7 <now>', "größe")
    assert words.intervals.start_s.tolist() == [0, 0.5, 1.25]
    assert words.intervals.duration_s.tolist() == [0.5, 0.75, 1.25]
    assert clicks.name == "clicks"
    assert (clicks.intervals.start_s[0], clicks.intervals.duration_s[0]) == (1.5, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"TextGrid"', '"Pitch 1"', r"line 2: it holds a 'Pitch 1', not a TextGrid"),
        ("ooTextFile", "something", r"line 1: it is not a Praat text file"),
        ("size = 3", "size = 4", r"line 28: expected a time in tier 'word' \(a number\), found 'TextTier'"),
        ("size = 3", "size = 2", r"line 24: expected the class of a tier \(a text\), found '1.25'"),
        ("points: size = 1", "points: size = 0", r"line 34: '1.5' follows the last tier"),
        ("xmax = 1.25", "xmax = 0.25", r"line 21: tier 'word': an interval from 0.5 to 0.25 s is out of order"),
        ('mark = "x"', 'mark = "x', r"the file ends where a label in tier 'clicks' should follow"),
        ('class = "TextTier"', 'class = "Thing"', r"of class 'Thing'; known: IntervalTier, TextTier"),
        ("<exists>", "<absent>", r"line 6: it has no tiers"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TextGridError, match=message):
        read_textgrid(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2 1.5", "3 1.5", r"line 20: there is no tier 3, but 2 tiers"),
        ("2 1.5", "2 1.5 1.6", r"line 20: expected a label in tier 'clicks' \(a text\), found '1.6'"),
        ("1 0.5 1.25", "1 0.5 0.25", r"line 12: tier 'word': an interval from 0.5 to 0.25 s is out of order"),
        ('1 1.25 2.5\n"größe"', "", r"tier 'word' ends at 2.5 s, but its last interval at 1.25 s; the file"),
        ('"x"', "", r"the file ends where a label in tier 'clicks' should follow"),
    ],
)
def test_a_broken_chronological_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(CHRONOLOGICAL.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TextGridError, match=message):
        read_textgrid(path)


def test_another_encoding_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG, encoding="latin-1")
    with pytest.raises(TextGridError, match=r"not UTF-8 at byte .* Save it in Praat as UTF-8"):
        read_textgrid(path)


def test_the_file_cut_anywhere_is_never_read_as_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    whole = SHORT.rstrip()
    for cut in range(0, len(whole) - 1, 7):
        path.write_text(whole[:cut], encoding="utf-8")
        with pytest.raises(TextGridError):
            read_textgrid(path)


def test_line_ends_of_all_systems_count_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    for line_end in ("\n", "\r\n", "\r"):
        path.write_bytes(LONG.replace("xmax = 1.25", "xmax = 0.25", 1).replace("\n", line_end).encode("utf-16"))
        with pytest.raises(TextGridError, match="line 21"):
            read_textgrid(path)


def test_overlapping_intervals_are_kept_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(SHORT.replace("0.5\n1.25", "0.4\n1.25", 1), encoding="utf-8")
    assert read_textgrid(path)[0].intervals.start_s.tolist() == [0, 0.4, 1.25]
    assert "a.TextGrid, line 16: tier 'word': 1 intervals begin before" in caplog.text


def test_a_number_beyond_all_floats_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG.replace("size = 3", "size = 1e999"), encoding="utf-8")
    with pytest.raises(TextGridError, match="too large"):
        read_textgrid(path)


def test_the_binary_form_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(b"ooBinaryFile\x08TextGrid" + bytes(16) + b"\x01\x00\x00\x00\x01\x0cIntervalTier\x04word")
    with pytest.raises(TextGridError, match=r"a\.TextGrid is in Praat's binary form.* 'Save as text file'"):
        read_textgrid(path)
