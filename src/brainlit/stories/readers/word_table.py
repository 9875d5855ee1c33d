"""Words with their times from a table whose columns a data set names in its own way."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.published import existing
from brainlit.stories.readers.transcripts import NOT_WORDS

_NO_TIME = ("", "n/a", "na", "nan")


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
    FileNotFoundError
        If there is no such file.
    SourceError
        If a column is missing, a time is no number, a word ends before it starts, or no word remains.
    """
    existing(path, "the words of the story")
    events: list[tuple[float, float, str]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            _require_columns(path, list(rows.fieldnames or ()), [word, onset, offset, *(part or ())[:1]])
            for row in rows:
                text = (row[word] or "").strip()
                if text.lower() in NOT_WORDS or _no_time(row, onset, offset) or not _is_part(row, part):
                    continue
                events.append(_event(path, rows.line_num, text, row[onset], row[offset]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is no table of UTF-8 text: {error}. Fetch it again.") from error
    if not events:
        raise SourceError(f"{path}: no word remains for this story. Is it another release of the table?")
    events.sort(key=lambda event: event[0])
    start_s, stop_s = (np.array([event[k] for event in events]) for k in (0, 1))
    return Intervals(tuple(event[2] for event in events), start_s, stop_s - start_s)


def _require_columns(path: Path, header: Sequence[str], wanted: Sequence[str | int]) -> None:
    for name in map(str, wanted):
        if name not in header:
            raise SourceError(f"{path}, line 1: there is no column {name!r}. {did_you_mean(name, header)}")


def _is_part(row: Mapping[str, str], part: tuple[str, int] | None) -> bool:
    """Whether the cell is the number, however it is written (3, 3.0)."""
    if part is None:
        return True
    try:
        return float(row[part[0]]) == part[1]
    except (TypeError, ValueError):
        return False


def _no_time(row: Mapping[str, str], onset: str, offset: str) -> bool:
    return all((row[column] or "").strip().lower() in _NO_TIME for column in (onset, offset))


def _event(path: Path, line: int, text: str, start: str, stop: str) -> tuple[float, float, str]:
    try:
        start_s, stop_s = float(start), float(stop)
    except (TypeError, ValueError):
        start_s = stop_s = float("nan")
    if not (np.isfinite(start_s) and np.isfinite(stop_s) and start_s <= stop_s):
        raise SourceError(
            f"{path}, line {line}: {text!r} goes from {start!r} to {stop!r}; need two numbers of seconds."
        )
    return start_s, stop_s, text
