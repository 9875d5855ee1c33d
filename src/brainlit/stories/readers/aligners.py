"""What speech recognisers and forced aligners write: JSON with the time of every word, and subtitles of one word each.

Read are the forms of WhisperX, OpenAI's Whisper (word_timestamps) and API, faster-whisper, stable-ts,
whisper-timestamped, Vosk, gentle and the Montreal Forced Aligner: all of them lists of words, below other things.
Times are in seconds. A word that was not found has none: WhisperX leaves its start out, gentle says its case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.guard import MAX_JSON_BYTES
from brainlit.stories.readers.tables import damage_as, read_lines, require_file
from brainlit.stories.readers.textgrid import Tier
from brainlit.stories.readers.timed_labels import (
    PHONE_TIERS,
    Label,
    TimeName,
    Transcript,
    TranscriptError,
    label,
    time_name,
)

_TEXT_KEYS = ("word", "text", "alignedWord")
_WORD_LISTS = ("word_segments", "words", "result")
_NO_PHONES = frozenset({"OOV", "SIL"})
"""Of gentle: a word that is not in its dictionary, and silence."""
_CURE = (
    "Words need times of their own: let the recogniser write them (openai-whisper: --word_timestamps True), or align"
    " the text with the sound (WhisperX, gentle, the Montreal Forced Aligner)"
)
_START, _END, _DURATION = (TimeName(role) for role in ("start", "end", "duration"))
_CUE = re.compile(r"((?:\d+:)?\d+:\d+[.,]\d+)\s+-->\s+((?:\d+:)?\d+:\d+[.,]\d+)")
_MARKUP = re.compile(r"<[^>]*>|\{[^}]*\}")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises
    ------
    TranscriptError
        If it is none, or larger than the limit.
    """
    require_file(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise TranscriptError(f"{path} has {path.stat().st_size:,} bytes; a transcript has at most {MAX_JSON_BYTES:,}.")
    text = "\n".join(read_lines(path, TranscriptError))
    with damage_as(TranscriptError, f"{path} is no JSON", "Was it cut off while copying?"):
        return json.loads(text)


def tiers_of(path: Path, content: Any) -> list[Tier] | None:
    """The tiers of the Montreal Forced Aligner's JSON; None of another form.

    Raises
    ------
    TranscriptError
        If an entry is not [start, end, label].
    """
    tiers = content.get("tiers") if isinstance(content, Mapping) else None
    if not isinstance(tiers, Mapping):
        return None
    found = []
    for name, tier in tiers.items():
        entries = tier.get("entries") if isinstance(tier, Mapping) else None
        if not isinstance(entries, list) or not all(isinstance(one, list) and len(one) == 3 for one in entries):
            raise TranscriptError(f"{path}: tier {name!r} needs 'entries', each [start, end, label].")
        labels = [
            label(f"{path}, tier {name!r}, entry {k}", str(one[2]), {_START: one[0], _END: one[1]})
            for k, one in enumerate(entries)
        ]
        found.append(Tier(name, Transcript.of(labels).intervals))
    return found


def words_or_phones(path: Path, content: Any, usual_tiers: Sequence[str]) -> Transcript:
    """The words of a JSON file with a list of them; their phones, where gentle has them.

    Raises
    ------
    TranscriptError
        If there is no list of words, a record has no text, a time is no number, or phones are not there.
    """
    records = list(_records(path, content))
    if tuple(usual_tiers) == PHONE_TIERS:
        return Transcript.of(phone for k, one in enumerate(records) for phone in _phones(f"{path}, word {k}", one))
    return Transcript.of(_label(f"{path}, word {k}", one) for k, one in enumerate(records))


def _records(path: Path, content: Any) -> Iterator[Mapping[str, Any]]:
    """One record per word; those of a segment that was not aligned have nothing but their text."""
    segments = content.get("segments") if isinstance(content, Mapping) else content
    parts = [one for one in segments if isinstance(one, Mapping)] if isinstance(segments, list) else []
    if any(one.get("words") for one in parts):
        for part in parts:
            words = part.get("words")
            yield from words if words else ({"word": word} for word in str(part.get("text") or "").split())
        return
    lists = [content.get(key) for key in _WORD_LISTS] if isinstance(content, Mapping) else [content]
    words = next((found for found in lists if isinstance(found, list) and found), None)
    if words is None or (words is content and not any("word" in one for one in parts)):
        there = ", ".join(map(str, content)) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        only = "only its segments have times. " if parts else ""
        raise TranscriptError(f"{path}: {only}no list of words with times is in it ({there[:200]}). {_CURE}.")
    yield from words


def _label(where: str, record: Any) -> Label:
    said = record if isinstance(record, Mapping) else {}
    text = next((said[key] for key in _TEXT_KEYS if isinstance(said.get(key), str)), None)
    if text is None:
        raise TranscriptError(f"{where} is {str(record)[:80]}; need a record with word, start and end.")
    named = {time_name(key): value for key, value in said.items() if isinstance(value, (int, float, str))}
    return label(where, text, {name: value for name, value in named.items() if name is not None})


def _phones(where: str, record: Any) -> Iterator[Label]:
    """Phones of one word as gentle has them ('ah_I' is AH): they follow each other from the start of the word."""
    word = _label(where, record)
    if word.start_s is None:
        return
    phones = record.get("phones")
    if not isinstance(phones, list) or not all(isinstance(one, Mapping) and "phone" in one for one in phones):
        raise TranscriptError(
            f"{where}: {word.text!r} has no phones. Take 'phones' out of the manifest, or name a file."
        )
    lasting = [label(where, str(one["phone"]), {_START: 0, _DURATION: one.get("duration")}) for one in phones]
    ends_s = word.start_s + np.cumsum([0.0, *(one.duration_s for one in lasting)])
    for one, start_s, end_s in zip(phones, ends_s[:-1].tolist(), ends_s[1:].tolist(), strict=True):
        name = str(one["phone"]).split("_")[0].upper()
        if name not in _NO_PHONES:
            yield Label(name, start_s, end_s - start_s)


# --- Subtitles ---


def read_subtitles(path: Path) -> Transcript:
    """SubRip (.srt) and WebVTT (.vtt) where each cue holds one word.

    Raises
    ------
    TranscriptError
        If a cue holds several words, or there is none.
    """
    labels: list[Label] = []
    times: tuple[str, str] | None = None
    for line, text in enumerate([*read_lines(path, TranscriptError), ""], 1):
        cue = _CUE.search(text)
        if cue is not None:
            times = cue[1], cue[2]
        elif not text.strip():
            times = None
        elif times is not None:
            words = _MARKUP.sub(" ", text).split()
            if len(words) > 1:
                shown = " ".join(words)[:60]
                raise TranscriptError(f"{path}, line {line}: the cue {shown!r} holds {len(words)} words. {_CURE}.")
            start_s, end_s = map(_clock_s, times)
            if end_s < start_s:
                raise TranscriptError(f"{path}, line {line}: the cue ends at {end_s:g} s, before {start_s:g} s.")
            labels += [Label(word, start_s, end_s - start_s) for word in words]
    if not labels:
        raise TranscriptError(f"{path} holds no cue (00:00:01.000 --> 00:00:01.500, and a word below it).")
    return Transcript.of(labels)


def _clock_s(text: str) -> float:
    """Seconds of [hours:]minutes:seconds.

    >>> _clock_s("01:00:02,5")
    3602.5
    """
    seconds = 0.0
    for part in text.replace(",", ".").split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
