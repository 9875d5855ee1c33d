"""Scanner logs: when each volume was triggered and when the sound began, as LeBel et al. 2023 kept them.

A log is text, one event per line: seconds since the first trigger, a space, a label. 'init-trigger' is the first
volume, 'trigger' each further one, 'sound-start' and 'sound-stop' frame the story. Lines are in order of time, except
for 'sound-stop', which is written last. A log decides when every response happened, so nothing in it is guessed: what
is not understood is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import FloatArray, SourceError
from brainlit.stories.readers.tables import require_file

LABELS = ("init-trigger", "trigger", "sound-start", "sound-stop")

_LINE = re.compile(r"(?P<seconds>\d{1,9}(?:\.\d+)?)[ \t]+(?P<label>\S.*)")
_MOST_JITTER = 0.1
"""Largest deviation of an interval from a whole number of median intervals, in median intervals."""


class ScannerLogError(SourceError):
    """A scanner log that cannot be trusted; the message names file, line, cause and cure."""


@dataclass(frozen=True)
class ScannerLog:
    """One run: when its volumes began and when its sound was played, all on the log's own clock.

    Parameters
    ----------
    triggers_s : array of shape (n_triggers,)
        Start of each volume, increasing; the first is the init-trigger. A trigger may be missing, which leaves an
        interval of a whole number of repetition times (see `brainlit.timebase.fill_missed_triggers`).
    sound_start_s, sound_stop_s : float
        When the sound began and ended.
    labels : tuple of str
        The labels of all lines, in the order of the file.
    """

    triggers_s: FloatArray
    sound_start_s: float
    sound_stop_s: float
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Event:
    line: int
    seconds: float
    label: str


def read_scanner_log(path: Path) -> ScannerLog:
    """Read a log (`.report`) and check that it is whole.

    Raises
    ------
    ScannerLogError
        If a line is not understood, times decrease, an interval between triggers is no whole number of repetition
        times, or init-trigger, trigger, sound-start or sound-stop is missing or doubled.
    """
    require_file(path, "Check the folder of the scanner logs.")
    events = [_event(path, number, line) for number, line in _lines(path) if line.strip()]
    _require_order(path, events)
    start, stop = (_only(path, events, label) for label in ("sound-start", "sound-stop"))
    triggers = _triggers(path, events)
    if not triggers[0].seconds <= start.seconds <= triggers[-1].seconds or stop.seconds <= start.seconds:
        raise _error(
            path, start.line, f"the sound lasts from {start.seconds} to {stop.seconds} s, the volumes from"
            f" {triggers[0].seconds} to {triggers[-1].seconds} s; it must begin among them"
        )  # fmt: skip
    times_s = np.array([event.seconds for event in triggers])
    return ScannerLog(times_s, start.seconds, stop.seconds, tuple(event.label for event in events))


def _error(path: Path, line: int, problem: str) -> ScannerLogError:
    return ScannerLogError(f"{path}, line {line}: {problem}. Fetch the log again, or use the nominal clock.")


def _lines(path: Path) -> list[tuple[int, str]]:
    raw = path.read_bytes()
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _error(path, line, f"byte {raw[error.start]:#04x} is no text") from error
    return [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1)]


def _event(path: Path, number: int, line: str) -> _Event:
    match = _LINE.fullmatch(line.strip(" \t"))
    if match is None:
        raise _error(path, number, f"{line[:60]!r} is not 'seconds label', as in '2.008255 trigger'")
    if match["label"] not in LABELS:
        raise _error(path, number, f"unknown label {match['label'][:60]!r}. {did_you_mean(match['label'], LABELS)}")
    return _Event(number, float(match["seconds"]), match["label"])


def _require_order(path: Path, events: list[_Event]) -> None:
    in_time = [event for event in events if event.label != "sound-stop"]
    for before, after in pairwise(in_time):
        both_triggers = "trigger" in before.label and "trigger" in after.label
        if after.seconds < before.seconds or (both_triggers and after.seconds == before.seconds):
            raise _error(path, after.line, f"{after.seconds} s follows {before.seconds} s of line {before.line}")


def _only(path: Path, events: list[_Event], label: str) -> _Event:
    found = [event for event in events if event.label == label]
    if not found:
        last = events[-1].line if events else 1
        raise _error(path, last, f"the log ends without {label}; was it cut off?")
    if len(found) > 1:
        raise _error(path, found[1].line, f"{label} for the second time; the first is in line {found[0].line}")
    return found[0]


def _triggers(path: Path, events: list[_Event]) -> list[_Event]:
    first = _only(path, events, "init-trigger")
    triggers = [event for event in events if event.label in ("init-trigger", "trigger")]
    if triggers[0] is not first:
        raise _error(path, first.line, f"init-trigger comes after the trigger of line {triggers[0].line}")
    if len(triggers) < 2:
        raise _error(path, events[-1].line, "the log ends without a trigger after the init-trigger; was it cut off?")
    intervals_s = np.diff([event.seconds for event in triggers])
    steps = intervals_s / np.median(intervals_s)
    odd = np.flatnonzero((np.abs(steps - np.rint(steps)) > _MOST_JITTER) | (np.rint(steps) < 1))
    if odd.size:
        before, after = triggers[odd[0]], triggers[odd[0] + 1]
        raise _error(
            path, after.line, f"{intervals_s[odd[0]]:.3f} s after the trigger of line {before.line}, which is no whole"
            f" number of repetition times ({np.median(intervals_s):.3f} s)"
        )  # fmt: skip
    return triggers
