"""Tables of words or phones with their times: BIDS events, those of aligners and annotators, those of one data set."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from brainlit.hints import did_you_mean
from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.readers.tables import float_or_nan, read_cells, require_file
from brainlit.stories.readers.timed_labels import (
    NOT_WORDS,
    PHONE_TIERS,
    WORD_TIERS,
    Label,
    TimeName,
    Transcript,
    TranscriptError,
    is_missing,
    label,
    time_name,
)

Row = tuple[int, list[str]]

_TEXT_COLUMNS = ("text", "word", "label", "value", "stim", "words", "token", "annotation", "trial_type")
_TIER_COLUMNS = ("type", "tier", "tier_name", "tier name")
_BIDS = {"start": "onset", "duration": "duration"}
_UNITS = ("s", "ms", "clock")


def read_label_table(
    path: Path, usual_tiers: Sequence[str], column: str | None, where: Mapping[str, Sequence[str]]
) -> Transcript:
    """The rows of a table with a header; columns that say the times are known by their names (`time_name`).

    Of tables that hold words and phones in one column and which of both in another (type, tier), as the Montreal
    Forced Aligner and Praat write them, the rows of the usual tiers are taken, of whichever speaker.

    Raises
    ------
    TranscriptError
        If columns are missing or could be meant twice, no row is left, or a time is no number.
    """
    rows = read_cells(path, "\t" if path.suffix.lower() == ".tsv" else ",", TranscriptError)
    header = rows.pop(0)[1] if rows else []
    text = _text_column(header, usual_tiers, column, where)
    times = _time_columns(path, header)
    if text is None or times is None:
        candidates = _TEXT_COLUMNS if column is None else (column,)
        numbers = any(abs(float_or_nan(cell)) < float("inf") for cell in header)
        hint = " The first line has to hold the names of the columns." if numbers else ""
        raise TranscriptError(
            f"{path}: the columns are {', '.join(header) or 'none'}; need onset, duration and one of"
            f" {', '.join(candidates)}. Times may also be start and end, or begin and end, in seconds; onset_ms and"
            f" the like are milliseconds.{hint}"
        )
    for name in (header[text], *(header[k] for k in times.values()), *where):
        if name not in header:
            raise TranscriptError(f"{path}: there is no column {name!r}. {did_you_mean(name, header)}")
        if header.count(name) > 1:
            raise TranscriptError(f"{path}: there are {header.count(name)} columns {name!r}; need one.")
    chosen = _of_tiers(path, header, _matching(path, header, rows, where), usual_tiers, where)
    labels: list[Label] = []
    for line, row in chosen:
        known = {name: row[k] for name, k in times.items()}
        labels.append(label(f"{path}, line {line}", row[text], known))
    return Transcript.of(labels)


def _text_column(
    header: Sequence[str], usual_tiers: Sequence[str], column: str | None, where: Mapping[str, Sequence[str]]
) -> int | None:
    """Where the text stands: in the column that is named, or in the first there is of the usual ones."""
    if column is not None:
        return header.index(column) if column in header and column not in where else None
    own = usual_tiers if tuple(usual_tiers) == PHONE_TIERS else ()
    names = ["" if name in where else name.lower() for name in header]
    return next((names.index(name) for name in (*own, *_TEXT_COLUMNS) if name in names), None)


def _time_columns(path: Path, header: Sequence[str]) -> dict[TimeName, int] | None:
    """The columns with start and duration, or start and end; None if they are not there.

    Of columns that say the same in several units (ELAN), seconds go before milliseconds, and these before clock times.
    """
    if {"onset", "duration"} <= set(header):  # BIDS, whatever else there is
        return {TimeName(role, written=name): header.index(name) for role, name in _BIDS.items()}
    found: dict[str, TimeName] = {}
    columns: dict[TimeName, list[int]] = {}
    for k, heading in enumerate(header):
        name = time_name(heading)
        if name is not None:
            columns.setdefault(name, []).append(k)
            nearer = found.get(name.role, name)
            found[name.role] = min(nearer, name, key=lambda one: _UNITS.index(one.unit))
    if "start" not in found or found.keys() == {"start"}:
        return None
    chosen = [found["start"], found["duration"] if "duration" in found else found["end"]]
    for name in chosen:
        if len(columns[name]) > 1:
            both = ", ".join(header[k] for k in columns[name])
            raise TranscriptError(f"{path}: the columns {both} could each be the {name.role}. Leave one of them out.")
    return {name: columns[name][0] for name in chosen}


def _matching(path: Path, header: list[str], rows: list[Row], where: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows that are asked for."""
    chosen = [(n, row) for n, row in rows if all(row[header.index(name)] in said for name, said in where.items())]
    if rows and not chosen:
        name, values = next(iter(where.items()))
        there = {row[header.index(name)] for _, row in rows}
        raise TranscriptError(f"{path}: no row has {name} {' or '.join(values)}. {did_you_mean(values[0], there)}")
    return chosen


def _of_tiers(
    path: Path, header: Sequence[str], rows: list[Row], usual_tiers: Sequence[str], where: Mapping[str, Sequence[str]]
) -> list[Row]:
    """The rows of the words, or of the phones, where one column says which are which."""
    for k, name in enumerate(header):
        if name.lower() not in _TIER_COLUMNS or name in where:
            continue
        there = {row[k].lower() for _, row in rows}
        if there.isdisjoint((*WORD_TIERS, *PHONE_TIERS)):
            continue
        if there.isdisjoint(usual_tiers):
            raise TranscriptError(
                f"{path}: no row has {name} {' or '.join(usual_tiers)}, but {', '.join(sorted(there))}. Choose rows"
                f" with where: {{{name}: ...}}."
            )
        return [(line, row) for line, row in rows if row[k].lower() in usual_tiers]
    return rows


# --- Tables whose columns a data set names in its own way ---


def read_word_table(
    path: Path,
    word: str,
    onset: str,
    offset: str,
    delimiter: str = ",",
    part: tuple[str, int] | None = None,
) -> Intervals:
    """Words in the order of their onsets, without rows for silence and rows without a time.

    Parameters
    ----------
    word, onset, offset : str
        Names of the columns with the text and with start and end, both in seconds of the audio file.
    part : column and number, optional
        Takes the rows that have this number in this column, for tables that hold several stories.

    Raises
    ------
    SourceError
        If a column is missing, a time is no number, a word ends before it starts, or no word remains.
    """
    require_file(path, "It holds the words of the story: download it, or check the root.")
    labels: list[Label] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            _require_columns(path, list(rows.fieldnames or ()), [word, onset, offset, *(part or ())[:1]])
            for row in rows:
                text = (row[word] or "").strip()
                has_time = not (is_missing(row[onset]) and is_missing(row[offset]))
                is_part = part is None or float_or_nan(row[part[0]]) == part[1]  # the number may be written 3 or 3.0
                if text.lower() in NOT_WORDS or not has_time or not is_part:
                    continue
                labels.append(_label(path, rows.line_num, text, row[onset], row[offset]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is no table of UTF-8 text: {error}. Fetch it again.") from error
    if not labels:
        raise SourceError(f"{path}: no word remains for this story. Is it another release of the table?")
    return Transcript.of(labels).intervals


def _require_columns(path: Path, header: Sequence[str], wanted: Sequence[str | int]) -> None:
    for name in map(str, wanted):
        if name not in header:
            raise SourceError(f"{path}, line 1: there is no column {name!r}. {did_you_mean(name, header)}")


def _label(path: Path, line: int, text: str, start: str, stop: str) -> Label:
    start_s, stop_s = float_or_nan(start), float_or_nan(stop)
    if not (abs(start_s) < float("inf") and abs(stop_s) < float("inf") and start_s <= stop_s):
        raise SourceError(
            f"{path}, line {line}: {text!r} goes from {start!r} to {stop!r}; need two numbers of seconds."
        )
    return Label(text, start_s, stop_s - start_s)
