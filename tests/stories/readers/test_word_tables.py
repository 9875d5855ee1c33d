"""Tables of words as laboratories, annotators and aligners name their columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainlit.stories.readers.transcripts import PHONE_TIERS, WORD_TIERS, TranscriptError, read_intervals

SPOKEN = [("the", 0.5, 0.7), ("frog", 0.75, 1.25), ("hops", 2.0, 2.5)]


def _clock(seconds: float) -> str:
    return f"00:00:{seconds:06.3f}"


def _table(path: Path, header: list[str], rows: list[list[object]], separator: str = ",") -> Path:
    path.write_text("\n".join(separator.join(map(str, row)) for row in [header, *rows]) + "\n")
    return path


HEADERS = [
    ("word", "start", "end"),
    ("word", "begin", "end"),
    ("word", "onset", "offset"),
    ("Word", "Start Time", "End Time"),
    ("text", "start_time", "stop_time"),
    ("text", "tmin", "tmax"),
    ("Label", "Begin", "End"),
    ("token", "word_onset_s", "word_offset_s"),
    ("WORD", "ONSET", "OFFSET"),
    ("word", "t_start", "t_finish"),
    ("annotation", "startTime", "endTime"),
    ("annotation", "Begin Time - ss.msec", "End Time - ss.msec"),
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: " ".join(header[1:]))
@pytest.mark.parametrize("unit", ["end", "duration"])
def test_times_have_many_names(tmp_path: Path, header: tuple[str, ...], unit: str) -> None:
    text, start, end = header
    last = end if unit == "end" else "duration"
    rows = [[word, a, b if unit == "end" else b - a] for word, a, b in SPOKEN]
    words = read_intervals(_table(tmp_path / "a.csv", [text, start, last], rows), None, WORD_TIERS)
    assert words.labels == ("the", "frog", "hops")
    assert words.start_s.tolist() == [a for _, a, _ in SPOKEN]
    assert np.allclose(words.end_s, [b for _, _, b in SPOKEN])


@pytest.mark.parametrize("header", ["start_ms,end_ms", "onset (ms),offset (ms)", "Begin Time - msec,End Time - msec"])
def test_milliseconds_are_read_where_the_names_say_so(tmp_path: Path, header: str) -> None:
    rows = [[round(1000 * a), round(1000 * b), word] for word, a, b in SPOKEN]
    words = read_intervals(_table(tmp_path / "a.csv", [*header.split(","), "word"], rows), None, WORD_TIERS)
    assert np.allclose(words.start_s, [0.5, 0.75, 2.0])
    assert np.allclose(words.end_s, [0.7, 1.25, 2.5])


def test_elan_says_every_time_three_times(tmp_path: Path) -> None:
    names = ["Begin Time - hh:mm:ss.ms", "Begin Time - msec", "Begin Time - ss.msec", "End Time - hh:mm:ss.ms",
             "End Time - ss.msec", "words"]  # fmt: skip
    rows: list[list[object]] = [[_clock(a), round(1000 * a), a, _clock(b), b, word] for word, a, b in SPOKEN]
    whole = read_intervals(_table(tmp_path / "a.tsv", names, rows, "\t"), None, WORD_TIERS)
    assert whole.end_s.tolist() == [0.7, 1.25, 2.5]
    only_clock = [[row[0], row[3], row[5]] for row in rows]
    header = [names[0], names[3], names[5]]
    words = read_intervals(_table(tmp_path / "b.tsv", header, only_clock, "\t"), None, WORD_TIERS)
    assert np.allclose(words.start_s, whole.start_s)
    assert np.allclose(words.end_s, whole.end_s)


def _of_mfa(path: Path) -> Path:
    """Two speakers, words and phones in one table, as `mfa align --output_format csv` writes them."""
    rows: list[list[object]] = []
    for k, (word, a, b) in enumerate(SPOKEN):
        speaker = f"speaker{k % 2}"
        rows += [[a, b, word, "words", speaker], [a, (a + b) / 2, "AH0", "phones", speaker]]
        rows += [[(a + b) / 2, b, "spn", "phones", speaker]]
    return _table(path, ["Begin", "End", "Label", "Type", "Speaker"], rows)


def test_words_and_phones_in_one_table_are_told_apart(tmp_path: Path) -> None:
    path = _of_mfa(tmp_path / "a.csv")
    assert read_intervals(path, None, WORD_TIERS).labels == ("the", "frog", "hops")
    assert read_intervals(path, None, PHONE_TIERS).labels == ("AH0",) * 3
    assert read_intervals(path, None, WORD_TIERS, where={"Type": ["words"], "Speaker": ["speaker1"]}).labels == (
        "frog",
    )
    only_words = [line for line in path.read_text().splitlines() if ",phones," not in line]
    path.write_text("\n".join(only_words))
    with pytest.raises(TranscriptError, match=r"no row has Type phone or phones .*, but words\. Choose rows"):
        read_intervals(path, None, PHONE_TIERS)


def test_phones_stand_in_their_own_column(tmp_path: Path) -> None:
    path = _table(tmp_path / "a.csv", ["onset", "duration", "word", "phone"], [[1, 0.1, "frog", "F"]])
    assert read_intervals(path, None, PHONE_TIERS).labels == ("F",)
    assert read_intervals(path, None, WORD_TIERS).labels == ("frog",)


@pytest.mark.parametrize("missing", ["n/a", "", "NaN", "NA", "null"])
def test_rows_without_a_time_are_dropped_and_counted(
    tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [["1", "0.5", "the"], [missing, missing, "lost"], ["n/a", "n/a", "sil"], ["2", missing, "frog"]]
    words = read_intervals(_table(tmp_path / "a.csv", ["onset", "duration", "word"], rows), None, WORD_TIERS)
    assert words.labels == ("the", "frog")
    assert words.duration_s.tolist() == [0.5, 0.0]
    assert "a.csv: 1 of 3 without a time ('lost' first); dropped" in caplog.text
    with pytest.raises(TranscriptError, match=r"no label remains .* 1 of 1 without a time \('lost' first\)"):
        read_intervals(_table(tmp_path / "b.csv", ["onset", "duration", "word"], rows[1:3]), None, WORD_TIERS)


@pytest.mark.parametrize(
    ("suffix", "separator"), [(".csv", ";"), (".csv", "\t"), (".tsv", ";"), (".tsv", ","), (".tsv", "  ")]
)
def test_other_separators_are_seen(tmp_path: Path, suffix: str, separator: str) -> None:
    rows = [[a, b - a, word] for word, a, b in SPOKEN]
    path = _table(tmp_path / f"a{suffix}", ["onset", "duration", "word"], rows, separator)
    assert read_intervals(path, None, WORD_TIERS).start_s.tolist() == [0.5, 0.75, 2.0]


def test_tabs_and_spaces_may_be_mixed_where_it_is_clear(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("onset\tduration\tword\n0.5 0.2\tthe\n0.75   0.5 frog\n")
    assert read_intervals(tmp_path / "a.tsv", None, WORD_TIERS).labels == ("the", "frog")
    (tmp_path / "b.tsv").write_text("onset\tduration\tword\n0.5\t0.2\tthe frog\n0.75\t0.5\thops\n0.8\t0.1\tx\n")
    assert read_intervals(tmp_path / "b.tsv", None, WORD_TIERS).labels[0] == "the frog"
    (tmp_path / "c.tsv").write_text("onset\tduration\tword\n0.5 0.2 the frog\n")
    with pytest.raises(TranscriptError, match="line 2: 1 columns, but 3"):
        read_intervals(tmp_path / "c.tsv", None, WORD_TIERS)


def test_a_column_that_counts_rows_changes_nothing(tmp_path: Path) -> None:
    rows = [[k, a, b - a, word] for k, (word, a, b) in enumerate(SPOKEN)]
    path = _table(tmp_path / "a.csv", ["", "onset", "duration", "word"], rows)
    assert read_intervals(path, None, WORD_TIERS).labels == ("the", "frog", "hops")
    _table(path, ["onset", "duration", "word"], rows)
    with pytest.raises(TranscriptError, match=r"line 2: 4 columns, but 3 .* Has the first column no name \(R's row"):
        read_intervals(path, None, WORD_TIERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start;end;word\n0,5;0,7;the\n", r"line 2: start is '0,5'; .* decimal comma\? Write a point: 0\.5"),
        ("start,end,word\n0.7,0.5,the\n", r"line 2: 'the' ends at 0\.5 s, before it starts at 0\.7 s"),
        ("start,begin,end,word\n1,1,2,a\n", r"start, begin could each be the start\. Leave one of them out"),
        ("0.5,0.7,the\n0.8,0.9,frog\n", "The first line has to hold the names of the columns"),
        ("the,the,0.5,0.7\nagain,,,\n", "The first line has to hold the names of the columns"),
        ("start_sample,end_sample,word\n100,200,a\n", "columns are start_sample, end_sample, word; need onset"),
        ("start,word\n1,a\n", "columns are start, word; need onset, duration"),
        ("start_ms,end_ms,word\nlate,2,a\n", "start_ms is 'late'; need a number of milliseconds"),
        ("start,end,text\n0,2,The frog hops.\n2,4,It swims away.\n", "2 of 2 labels hold several words"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(TranscriptError, match=message):
        read_intervals(tmp_path / "a.csv", None, WORD_TIERS)


def test_a_table_has_no_tiers(tmp_path: Path) -> None:
    path = _of_mfa(tmp_path / "a.csv")
    with pytest.raises(TranscriptError, match=r"has no tiers, but tier is words\. Leave it out; where chooses rows"):
        read_intervals(path, "words", WORD_TIERS)
