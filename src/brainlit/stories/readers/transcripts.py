"""Words and phones with their times, from the files that laboratories, annotators and aligners write."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from brainlit.hints import did_you_mean
from brainlit.stories.base import Intervals
from brainlit.stories.readers.aligners import read_json, read_subtitles, tiers_of, words_or_phones
from brainlit.stories.readers.tables import read_lines
from brainlit.stories.readers.textgrid import Tier, read_textgrid
from brainlit.stories.readers.timed_labels import (
    NOT_WORDS,
    PHONE_TIERS,
    WORD_TIERS,
    Label,
    TimeName,
    Transcript,
    TranscriptError,
    label,
)
from brainlit.stories.readers.word_tables import read_label_table, read_word_table

__all__ = ["NOT_WORDS", "PHONE_TIERS", "WORD_TIERS", "Transcript", "TranscriptError", "read_intervals",
           "read_transcript", "read_word_table", "refuse_swapped"]  # fmt: skip

log = logging.getLogger(__name__)

_TABLES, _SUBTITLES = (".csv", ".tsv"), (".srt", ".vtt")
_KNOWN = (".textgrid", *_TABLES, ".ctm", ".json", *_SUBTITLES)
_START, _DURATION = TimeName("start"), TimeName("duration")

_ARPABET = re.compile(
    r"(AA|AE|AH|AO|AW|AX|AXR|AY|EH|ER|EY|IH|IX|IY|OW|OY|UH|UW|UX)[0-3]?"
    r"|B|CH|D|DH|DX|EL|EM|EN|F|G|HH|JH|K|L|M|N|NG|P|R|S|SH|T|TH|V|W|Y|Z|ZH"
)
_ENOUGH_LABELS, _MOST_OF_THEM = 20, 0.9
_MOST_PHRASES = 0.5


def read_intervals(
    path: Path,
    tier: str | Sequence[str] | None,
    usual_tiers: Sequence[str],
    not_words: Collection[str] = NOT_WORDS,
    column: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
) -> Intervals:
    """As `read_transcript`, the labels that have a time alone; how many have none is logged."""
    found = read_transcript(path, tier, usual_tiers, not_words, column, where)
    if found.untimed:
        log.warning("%s: %s; dropped.", path, found.untimed_words)
    return found.intervals


def read_transcript(
    path: Path,
    tier: str | Sequence[str] | None,
    usual_tiers: Sequence[str],
    not_words: Collection[str] = NOT_WORDS,
    column: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
) -> Transcript:
    """Words (or phones) of a recording, without the marks for silence and noise.

    Parameters
    ----------
    path : Path
        A TextGrid (.TextGrid); a table (.csv, .tsv) with columns for start and duration (or end) and one with the
        text; a CTM file (.ctm: recording, channel, start, duration, word, confidence;
        https://github.com/usnistgov/SCTK); JSON of a recogniser or aligner (.json); subtitles of one word each.
    tier : str, sequence of str, or None
        Tier of the TextGrid; None takes the only tier, or the one with a usual name. Recording of the CTM file; None
        takes the only one. Several (one for each speaker) are joined in time.
    usual_tiers : sequence of str
        Names to look for where `tier` is None.
    not_words : collection of str
        Labels to drop, in lower case.
    column : str or None
        Column of a table that holds the text; None takes the first there is of the usual ones.
    where : mapping of column to texts, optional
        Only the rows of a table whose cell in that column is one of the texts.

    Raises
    ------
    TranscriptError, TextGridError
        If tier or columns are not there, a time is no number, nothing remains, or most words are phrases.
    """
    suffix = path.suffix.lower()
    if suffix not in _KNOWN:
        known = ", ".join([".TextGrid", *_KNOWN[1:-1]])
        raise TranscriptError(f"{path}: a transcript is a {known} or {_KNOWN[-1]} file, not {path.suffix!r}.")
    if suffix not in _TABLES and (column is not None or where):
        raise TranscriptError(f"{path}: 'column' and 'where' choose from a table (.csv, .tsv), not from {suffix!r}.")
    found = _read(path, suffix, (tier,) if isinstance(tier, str) else tier, usual_tiers, column, where or {})
    found = found.without(not_words)
    if not len(found.intervals):
        untimed = f" {found.untimed_words}." if found.untimed else ""
        raise TranscriptError(f"{path}: no label remains after dropping the marks for silence and noise.{untimed}")
    _refuse_phrases(path, found.intervals)
    return found


def _read(
    path: Path,
    suffix: str,
    tiers: Sequence[str] | None,
    usual_tiers: Sequence[str],
    column: str | None,
    where: Mapping[str, Sequence[str]],
) -> Transcript:
    if suffix == ".textgrid":
        return _chosen(path, read_textgrid(path), tiers, usual_tiers)
    if suffix == ".ctm":
        return _read_ctm(path, tiers)
    if suffix == ".json":
        content = read_json(path)
        of_mfa = tiers_of(path, content)
        if of_mfa is not None:
            return _chosen(path, of_mfa, tiers, usual_tiers)
    if tiers is not None:
        raise TranscriptError(f"{path} has no tiers, but tier is {', '.join(tiers)}. Leave it out; where chooses rows.")
    if suffix == ".json":
        return words_or_phones(path, content, usual_tiers)
    return read_subtitles(path) if suffix in _SUBTITLES else read_label_table(path, usual_tiers, column, where)


def _refuse_phrases(path: Path, found: Intervals) -> None:
    """A sentence is no word: when its words were said nobody knows."""
    phrases = [text for text in found.labels if len(text.split()) > 1]
    if len(phrases) > _MOST_PHRASES * len(found):
        raise TranscriptError(
            f"{path}: {len(phrases)} of {len(found)} labels hold several words ({phrases[0][:60]!r}). Words need times"
            " of their own: name the tier (or column) that has them, or align the text with the sound."
        )


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


# --- Tiers and CTM files ---


def _chosen(path: Path, tiers: list[Tier], asked: Sequence[str] | None, usual_tiers: Sequence[str]) -> Transcript:
    """The tiers that are asked for, joined in time, or the one with a usual name, or the only one."""
    names = [one.name for one in tiers]
    if asked is not None:
        wanted = [_only_tier(path, tiers, name) for name in asked]
    else:
        usual = [one for one in tiers if one.name.strip().lower() in usual_tiers]
        wanted = usual or (tiers if len(tiers) == 1 else [])
    if not wanted:
        ends = [one for one in names if one.rpartition(" - ")[2].strip().lower() in usual_tiers]
        several = f" Several speakers: tier: [{', '.join(ends)}]." if len(ends) > 1 else ""
        problem = f"none of its tiers is called {' or '.join(usual_tiers)}: {', '.join(names)}. Name one with 'tier'."
        raise TranscriptError(f"{path}: {problem}{several}")
    if asked is None and len(wanted) > 1:
        shared = ", ".join(one.name for one in wanted)
        raise TranscriptError(f"{path}: {len(wanted)} tiers could be meant: {shared}. Name one, and only once.")
    every = [one.intervals for one in wanted]
    return Transcript.of(
        Label(*one)
        for found in every
        for one in zip(found.labels, found.start_s.tolist(), found.duration_s.tolist(), strict=True)
    )


def _only_tier(path: Path, tiers: list[Tier], name: str) -> Tier:
    wanted = [one for one in tiers if one.name == name]
    if not wanted:
        raise TranscriptError(f"{path}: there is no tier {name!r}. {did_you_mean(name, [one.name for one in tiers])}")
    if len(wanted) > 1:
        shared = ", ".join(one.name for one in wanted)
        raise TranscriptError(f"{path}: {len(wanted)} tiers could be meant: {shared}. Name one, and only once.")
    return wanted[0]


def _read_ctm(path: Path, recordings: Sequence[str] | None) -> Transcript:
    labels: dict[str, list[Label]] = {}
    for line, text in enumerate(read_lines(path, TranscriptError), 1):
        cells = text.split()
        if not cells or cells[0].startswith(";;"):
            continue
        if len(cells) < 5:
            raise TranscriptError(
                f"{path}, line {line}: {len(cells)} columns; need recording, channel, start, duration and word."
            )
        name, channel, start, duration, word = cells[:5]
        times = {_START: start, _DURATION: duration}
        labels.setdefault(f"{name} {channel}", []).append(label(f"{path}, line {line}", word, times))
    if not labels:
        raise TranscriptError(f"{path} holds no words.")
    wanted = [_only_recording(path, list(labels), name) for name in recordings or (None,)]
    if len({name.split()[0] for name in wanted}) > 1:
        raise TranscriptError(f"{path}: {', '.join(wanted)} are recordings with clocks of their own. Name one.")
    return Transcript.of(one for name in dict.fromkeys(wanted) for one in labels[name])


def _only_recording(path: Path, there: Sequence[str], asked: str | None) -> str:
    names = [name for name in there if asked in (None, name, name.split()[0])]
    if not names:
        raise TranscriptError(f"{path}: there is no recording {asked!r}. {did_you_mean(str(asked), there)}")
    if len(names) > 1:
        shared = ", ".join(names[:9])
        raise TranscriptError(f"{path}: {len(names)} recordings could be meant: {shared}. Name one with 'tier'.")
    return names[0]
