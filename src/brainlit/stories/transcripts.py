"""Words and phones with their times, from TextGrids and from tables with onset, duration and text."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import Intervals
from brainlit.stories.textgrid import Tier, read_textgrid

WORD_TIERS = ("word", "words")
PHONE_TIERS = ("phone", "phones", "phoneme", "phonemes")
# What aligners and annotators write where nobody says a word: silence, breath, lip smack, laughter, noise.
NOT_WORDS = frozenset(
    {"", "sp", "sil", "sp_s", "spn", "pau", "br", "ls", "lg", "ns", "cg", "n/a", "#", "<unk>"}
    | {"{sl}", "{br}", "{ls}", "{lg}", "{ns}", "{cg}", "<p:>", "<sil>", "<eps>", "[silence]", "[noise]"}
)
TEXT_COLUMNS = ("text", "word", "label", "value")


class TranscriptError(ValueError):
    """A transcript that cannot be read; the message names file, place, cause and cure."""


def read_intervals(
    path: Path, tier: str | None, usual_tiers: Sequence[str], not_words: Collection[str] = NOT_WORDS
) -> Intervals:
    """Words (or phones) of a recording, without the marks for silence and noise.

    Parameters
    ----------
    path : Path
        A TextGrid (.TextGrid), or a table (.csv, .tsv) with the columns onset and duration, both in seconds of the
        audio file, and one of text, word, label, value.
    tier : str or None
        Tier of the TextGrid; None takes the only tier, or the one with a usual name.
    usual_tiers : sequence of str
        Names to look for where `tier` is None.
    not_words : collection of str
        Labels to drop, in lower case.

    Raises
    ------
    TranscriptError
        If tier or columns are not there, a time is no number, or nothing remains.
    TextGridError
        If a TextGrid is malformed.
    """
    if path.suffix.lower() == ".textgrid":
        everything = _chosen(path, read_textgrid(path), tier, usual_tiers)
    elif path.suffix.lower() in (".csv", ".tsv"):
        everything = _read_events(path)
    else:
        raise TranscriptError(f"{path}: a transcript is a .TextGrid, .csv or .tsv file, not {path.suffix!r}.")
    kept = [k for k, label in enumerate(everything.labels) if label.strip().lower() not in not_words]
    if not kept:
        raise TranscriptError(f"{path}: no label remains after dropping the marks for silence and noise.")
    labels = tuple(everything.labels[k].strip() for k in kept)
    return Intervals(labels, everything.start_s[kept], everything.duration_s[kept])


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


def _read_events(path: Path) -> Intervals:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        header = list(rows.fieldnames or ())
        text = next((name for name in TEXT_COLUMNS if name in header), None)
        if text is None or not {"onset", "duration"} <= set(header):
            raise TranscriptError(
                f"{path}: the columns are {', '.join(header) or 'none'}; need onset, duration and one of"
                f" {', '.join(TEXT_COLUMNS)}."
            )
        events = [(_seconds(path, rows.line_num, row, "onset"), _seconds(path, rows.line_num, row, "duration"),
                   row[text] or "") for row in rows]  # fmt: skip
    events.sort(key=lambda event: event[0])
    onset_s, duration_s = (np.array([event[k] for event in events], dtype=np.float64) for k in (0, 1))
    return Intervals(tuple(event[2] for event in events), onset_s, duration_s)


def _seconds(path: Path, line: int, row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value) or (column == "duration" and value < 0):
        raise TranscriptError(f"{path}, line {line}: {column} is {row[column]!r}; need a number of seconds.")
    return value
