"""Labels with times as transcripts of all forms give them: read from cells, put in order, those without a time counted.

A word that an aligner did not find has no time. It cannot be a feature, and nobody should have to take it out by hand:
it is dropped, and counted, so that reports can say how many there were.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.readers.tables import MISSING, decimal_comma, float_or_nan

WORD_TIERS = ("word", "words")
PHONE_TIERS = ("phone", "phones", "phoneme", "phonemes")
UNITS_S = {"s": 1.0, "ms": 1e-3, "clock": 1.0}
"""Seconds of one unit; what is written as hours:minutes:seconds is in seconds."""
# What aligners and annotators write where nobody says a word: silence, breath, lip smack, laughter, noise.
NOT_WORDS = frozenset(
    {"", "sp", "sil", "sp_s", "spn", "pau", "br", "ls", "lg", "ns", "cg", "n/a", "#", "<unk>"}
    | {"{sl}", "{br}", "{ls}", "{lg}", "{ns}", "{cg}", "<p:>", "<sil>", "<eps>", "[silence]", "[noise]"}
)

_CLOCK = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)")
_ROLES = {
    **dict.fromkeys(("onset", "start", "begin", "from", "xmin", "tmin"), "start"),
    **dict.fromkeys(("offset", "end", "stop", "finish", "to", "xmax", "tmax"), "end"),
    **dict.fromkeys(("duration", "dur"), "duration"),
}
_SAYS_NOTHING = frozenset({"t", "time", "times", "word", "phone", "phoneme"})
_IS_MS = frozenset({"ms", "msec", "msecs", "millis", "millisecond", "milliseconds"})
_IS_S = frozenset({"s", "ss", "sec", "secs", "second", "seconds"})
_IS_CLOCK = frozenset({"hh", "mm"})


class TranscriptError(SourceError):
    """A transcript that cannot be read; the message names file, place, cause and cure."""


@dataclass(frozen=True)
class TimeName:
    """What a column or key says of a label's time.

    Parameters
    ----------
    role : 'start', 'end' or 'duration'
    unit : 's', 'ms' or 'clock'
        Seconds, unless the name says another.
    written : str
        The name itself, for messages.
    """

    role: str
    unit: str = "s"
    written: str = field(default="", compare=False, repr=False)


def time_name(name: str) -> TimeName | None:
    """What the name of a column or key says of times; None if it names something else, or another unit.

    >>> time_name("onset"), time_name("end_ms"), time_name("Begin Time - hh:mm:ss.ms")
    (TimeName(role='start', unit='s'), TimeName(role='end', unit='ms'), TimeName(role='start', unit='clock'))
    >>> time_name("start_sample") is None
    True
    """
    split = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[a-z])(?=time)", " ", name).lower()
    parts = re.findall(r"[a-z]+", split)
    rest = [part for part in parts if part not in _SAYS_NOTHING | _IS_MS | _IS_S | _IS_CLOCK]
    if len(rest) != 1 or rest[0] not in _ROLES:
        return None
    is_s, is_ms = not _IS_S.isdisjoint(parts), not _IS_MS.isdisjoint(parts)
    unit = "clock" if not _IS_CLOCK.isdisjoint(parts) else "ms" if is_ms and not is_s else "s"
    return TimeName(_ROLES[rest[0]], unit, name)


class Label(NamedTuple):
    """A label, its start and its duration in seconds; the start is None where no time is known."""

    text: str
    start_s: float | None
    duration_s: float


def label(where: str, text: str, times: Mapping[TimeName, Any]) -> Label:
    """A label with the times that a row (or a record) gives: its start, and its end or its duration.

    Without a start it has no time. Without end and duration it has a moment: BIDS writes n/a for a duration that is
    not known.

    Parameters
    ----------
    where : str
        File and place, for messages.

    Raises
    ------
    TranscriptError
        If a time is no number, or the label ends before it starts.
    """
    known = {name.role: _seconds(where, name, cell) for name, cell in times.items() if not is_missing(cell)}
    if "start" not in known:
        return Label(text, None, 0.0)
    start_s = known["start"]
    if "duration" in known:
        return Label(text, start_s, known["duration"])
    duration_s = known.get("end", start_s) - start_s
    if duration_s < 0:
        raise TranscriptError(f"{where}: {text!r} ends at {known['end']:g} s, before it starts at {start_s:g} s.")
    return Label(text, start_s, duration_s)


def is_missing(cell: Any) -> bool:
    """Whether a cell, or a value, says that nothing is known."""
    return cell is None or str(cell).strip().lower() in MISSING


def _seconds(where: str, name: TimeName, cell: Any) -> float:
    text = "" if isinstance(cell, bool) else str(cell).strip()
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3].replace(",", "."))
    value = float("nan") if "_" in text else float_or_nan(text) * UNITS_S[name.unit]
    if not np.isfinite(value) or (name.role == "duration" and value < 0):
        what = "milliseconds" if name.unit == "ms" else "seconds"
        raise TranscriptError(
            f"{where}: {name.written or name.role} is {cell!r}; need a number of {what}.{decimal_comma(text)}"
        )
    return value


@dataclass(frozen=True)
class Transcript:
    """What a transcript holds.

    Parameters
    ----------
    intervals : Intervals
        The labels in the order of their onsets.
    untimed : tuple of str
        The labels of which no time is known.
    """

    intervals: Intervals
    untimed: tuple[str, ...] = ()

    @classmethod
    def of(cls, labels: Iterable[Label]) -> Transcript:
        """Labels in any order; those that begin together stay in theirs."""
        every = list(labels)
        timed = sorted(
            ((one.start_s, one.duration_s, one.text) for one in every if one.start_s is not None),
            key=lambda one: one[0],
        )
        start_s, duration_s = (np.array([one[k] for one in timed], dtype=np.float64) for k in (0, 1))
        texts = tuple(one[2] for one in timed)
        return cls(Intervals(texts, start_s, duration_s), tuple(one.text for one in every if one.start_s is None))

    def without(self, marks: Collection[str]) -> Transcript:
        """Without the labels that are among the marks, in lower case, and without blanks around the others."""
        found = self.intervals
        kept = [k for k, text in enumerate(found.labels) if text.strip().lower() not in marks]
        texts = tuple(found.labels[k].strip() for k in kept)
        untimed = tuple(text.strip() for text in self.untimed if text.strip().lower() not in marks)
        return Transcript(Intervals(texts, found.start_s[kept], found.duration_s[kept]), untimed)

    @property
    def untimed_words(self) -> str:
        """How many labels have no time, in words; empty if all have one."""
        n = len(self.untimed)
        return f"{n} of {n + len(self.intervals)} without a time ({self.untimed[0]!r} first)" if n else ""
