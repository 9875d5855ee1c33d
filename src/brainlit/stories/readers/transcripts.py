"""Words and phones with their times, from TextGrids, tables (CSV, TSV, BIDS events) and CTM files."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.readers.tables import float_or_nan, read_cells, read_lines, require_file
from brainlit.stories.readers.textgrid import Tier, read_textgrid

WORD_TIERS = ("word", "words")
PHONE_TIERS = ("phone", "phones", "phoneme", "phonemes")
# What aligners and annotators write where nobody says a word: silence, breath, lip smack, laughter, noise.
NOT_WORDS = frozenset(
    {"", "sp", "sil", "sp_s", "spn", "pau", "br", "ls", "lg", "ns", "cg", "n/a", "#", "<unk>"}
    | {"{sl}", "{br}", "{ls}", "{lg}", "{ns}", "{cg}", "<p:>", "<sil>", "<eps>", "[silence]", "[noise]"}
)
_TEXT_COLUMNS = ("text", "word", "label", "value", "stim", "trial_type")

_ARPABET = re.compile(
    r"(AA|AE|AH|AO|AW|AX|AXR|AY|EH|ER|EY|IH|IX|IY|OW|OY|UH|UW|UX)[0-3]?"
    r"|B|CH|D|DH|DX|EL|EM|EN|F|G|HH|JH|K|L|M|N|NG|P|R|S|SH|T|TH|V|W|Y|Z|ZH"
)
_ENOUGH_LABELS, _MOST_OF_THEM = 20, 0.9

_NO_TIME = ("", "n/a", "na", "nan")


class TranscriptError(SourceError):
    """A transcript that cannot be read; the message names file, place, cause and cure."""


def read_intervals(
    path: Path,
    tier: str | None,
    usual_tiers: Sequence[str],
    not_words: Collection[str] = NOT_WORDS,
    column: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
) -> Intervals:
    """Words (or phones) of a recording, without the marks for silence and noise.

    Parameters
    ----------
    path : Path
        A TextGrid (.TextGrid); a table (.csv, .tsv) with the columns onset and duration in seconds and one with the
        text; or a CTM file (.ctm: recording, channel, start, duration, word, confidence;
        https://github.com/usnistgov/SCTK).
    tier : str or None
        Tier of the TextGrid; None takes the only tier, or the one with a usual name. Recording of the CTM file; None
        takes the only one.
    usual_tiers : sequence of str
        Names to look for where `tier` is None.
    not_words : collection of str
        Labels to drop, in lower case.
    column : str or None
        Column of a table that holds the text; None takes the first there is of `_TEXT_COLUMNS`.
    where : mapping of column to texts, optional
        Only the rows of a table whose cell in that column is one of the texts.

    Raises
    ------
    TranscriptError, TextGridError
        If tier or columns are not there, a time is no number, or nothing remains.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv") and (column is not None or where):
        raise TranscriptError(f"{path}: 'column' and 'where' choose from a table (.csv, .tsv), not from {suffix!r}.")
    if suffix == ".textgrid":
        everything = _chosen(path, read_textgrid(path), tier, usual_tiers)
    elif suffix == ".ctm":
        everything = _read_ctm(path, tier)
    elif suffix in (".csv", ".tsv"):
        everything = _read_table(path, column, where or {})
    else:
        raise TranscriptError(f"{path}: a transcript is a .TextGrid, .csv, .tsv or .ctm file, not {path.suffix!r}.")
    kept = [k for k, label in enumerate(everything.labels) if label.strip().lower() not in not_words]
    if not kept:
        raise TranscriptError(f"{path}: no label remains after dropping the marks for silence and noise.")
    labels = tuple(everything.labels[k].strip() for k in kept)
    return Intervals(labels, everything.start_s[kept], everything.duration_s[kept])


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
    events: list[tuple[float, float, str]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            _require_columns(path, list(rows.fieldnames or ()), [word, onset, offset, *(part or ())[:1]])
            for row in rows:
                text = (row[word] or "").strip()
                has_time = any((row[column] or "").strip().lower() not in _NO_TIME for column in (onset, offset))
                is_part = part is None or float_or_nan(row[part[0]]) == part[1]  # the number may be written 3 or 3.0
                if text.lower() in NOT_WORDS or not has_time or not is_part:
                    continue
                events.append(_event(path, rows.line_num, text, row[onset], row[offset]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is no table of UTF-8 text: {error}. Fetch it again.") from error
    if not events:
        raise SourceError(f"{path}: no word remains for this story. Is it another release of the table?")
    return _sorted(events)


def refuse_swapped(words: Intervals, phones: Intervals | None, where: str) -> None:
    """Refuse phones where words should be; `where` names the file for the message.

    Raises
    ------
    TranscriptError
        If there are more words than phones, or nearly all words are ARPAbet phones.
    """
    if phones is not None and len(words) > len(phones):
        raise TranscriptError(f"{where}: {len(words)} words, but {len(phones)} phones. Are the two tiers swapped?")
    as_phones = [label for label in words.labels if _ARPABET.fullmatch(label)]
    if len(words) >= _ENOUGH_LABELS and len(as_phones) > _MOST_OF_THEM * len(words):
        shown = ", ".join(as_phones[:6])
        raise TranscriptError(f"{where}: the words are phones ({shown}, ...). Name the tier that holds the words.")


# --- Tiers, tables with usual columns, CTM files ---


def _chosen(path: Path, tiers: list[Tier], tier: str | None, usual_tiers: Sequence[str]) -> Intervals:
    names = [one.name for one in tiers]
    if tier is not None:
        wanted = [one for one in tiers if one.name == tier]
        problem = f"there is no tier {tier!r}. {did_you_mean(tier, names)}"
    else:
        usual = [one for one in tiers if one.name.strip().lower() in usual_tiers]
        wanted = usual or (tiers if len(tiers) == 1 else [])
        problem = f"none of its tiers is called {' or '.join(usual_tiers)}: {', '.join(names)}. Name one with 'tier'."
    if not wanted:
        raise TranscriptError(f"{path}: {problem}")
    if len(wanted) > 1:
        shared = ", ".join(one.name for one in wanted)
        raise TranscriptError(f"{path}: {len(wanted)} tiers could be meant: {shared}. Name one, and only once.")
    return wanted[0].intervals


def _read_table(path: Path, column: str | None, where: Mapping[str, Sequence[str]]) -> Intervals:
    rows = read_cells(path, "\t" if path.suffix.lower() == ".tsv" else ",", TranscriptError)
    header = rows.pop(0)[1] if rows else []
    candidates = _TEXT_COLUMNS if column is None else (column,)
    chosen = next((name for name in candidates if name in header and name not in where), None)
    if chosen is None or not {"onset", "duration"} <= set(header):
        raise TranscriptError(
            f"{path}: the columns are {', '.join(header) or 'none'}; need onset, duration and one of"
            f" {', '.join(candidates)}."
        )
    for name in where:
        if name not in header:
            raise TranscriptError(f"{path}: there is no column {name!r}. {did_you_mean(name, header)}")
    doubled = [name for name in (chosen, "onset", "duration", *where) if header.count(name) > 1]
    if doubled:
        raise TranscriptError(f"{path}: there are {header.count(doubled[0])} columns {doubled[0]!r}; need one.")
    onset, duration, text = (header.index(name) for name in ("onset", "duration", chosen))
    wanted = [
        (line, row) for line, row in rows if all(row[header.index(name)] in values for name, values in where.items())
    ]
    if rows and not wanted:
        name, values = next(iter(where.items()))
        there = {row[header.index(name)] for _, row in rows}
        raise TranscriptError(f"{path}: no row has {name} {' or '.join(values)}. {did_you_mean(values[0], there)}")
    return _sorted([
        (_seconds(path, line, "onset", row[onset]), _seconds(path, line, "duration", row[duration]), row[text])
        for line, row in wanted
    ])  # fmt: skip


def _read_ctm(path: Path, recording: str | None) -> Intervals:
    events: dict[str, list[tuple[float, float, str]]] = {}
    for line, text in enumerate(read_lines(path, TranscriptError), 1):
        cells = text.split()
        if not cells or cells[0].startswith(";;"):
            continue
        if len(cells) < 5:
            raise TranscriptError(
                f"{path}, line {line}: {len(cells)} columns; need recording, channel, start, duration and word."
            )
        name, channel, start, duration, word = cells[:5]
        event = (_seconds(path, line, "start", start), _seconds(path, line, "duration", duration), word)
        events.setdefault(f"{name} {channel}", []).append(event)
    names = [name for name in events if recording in (None, name, name.split()[0])]
    if not events:
        raise TranscriptError(f"{path} holds no words.")
    if not names:
        raise TranscriptError(f"{path}: there is no recording {recording!r}. {did_you_mean(str(recording), events)}")
    if len(names) > 1:
        shared = ", ".join(names[:9])
        raise TranscriptError(f"{path}: {len(names)} recordings could be meant: {shared}. Name one with 'tier'.")
    return _sorted(events[names[0]])


def _sorted(events: list[tuple[float, float, str]]) -> Intervals:
    events = sorted(events, key=lambda event: event[0])
    onset_s, duration_s = (np.array([event[k] for event in events], dtype=np.float64) for k in (0, 1))
    return Intervals(tuple(event[2] for event in events), onset_s, duration_s)


def _seconds(path: Path, line: int, what: str, cell: str) -> float:
    value = float_or_nan(cell)
    if what == "duration" and cell.lower() == "n/a":
        return 0.0  # BIDS: the duration is not known
    if not np.isfinite(value) or (what == "duration" and value < 0):
        raise TranscriptError(f"{path}, line {line}: {what} is {cell!r}; need a number of seconds.")
    return value


# --- Tables whose columns a data set names in its own way ---


def _require_columns(path: Path, header: Sequence[str], wanted: Sequence[str | int]) -> None:
    for name in map(str, wanted):
        if name not in header:
            raise SourceError(f"{path}, line 1: there is no column {name!r}. {did_you_mean(name, header)}")


def _event(path: Path, line: int, text: str, start: str, stop: str) -> tuple[float, float, str]:
    """Start, duration and text of a row."""
    start_s, stop_s = float_or_nan(start), float_or_nan(stop)
    if not (np.isfinite(start_s) and np.isfinite(stop_s) and start_s <= stop_s):
        raise SourceError(
            f"{path}, line {line}: {text!r} goes from {start!r} to {stop!r}; need two numbers of seconds."
        )
    return start_s, stop_s - start_s, text
