"""Praat TextGrids, in the long and the short text format.

Both formats hold the same values in the same order. Praat reads only what stands free (numbers, texts in double quotes,
flags in angle brackets) and takes everything else for a comment; so does this parser, and one parser serves both.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.text_files import read_lines

log = logging.getLogger(__name__)

_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|<(?P<flag>\w+)>|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)'
)
_OVERLAP_S = 0.001
_ENCODING_CURE = "Save it in Praat as UTF-8 text (Preferences, Text writing settings)."


class TextGridError(SourceError):
    """A file that is not a readable TextGrid; the message names file, line, cause and cure."""


@dataclass(frozen=True)
class Tier:
    """One tier: its name and its intervals, empty labels included; points are intervals of no duration."""

    name: str
    intervals: Intervals


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str
    line: int


def read_textgrid(path: Path) -> list[Tier]:
    """All tiers of a TextGrid, in the order of the file; times in seconds of the recording.

    Intervals that overlap (Praat makes none, other programs do) are taken as they are, with a warning.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TextGridError
        If it is not a TextGrid in Praat's long or short text format, encoded as UTF-8 or UTF-16, or breaks off.
    """
    reader = _Reader(path, _tokens("\n".join(read_lines(path, TextGridError, _ENCODING_CURE))))
    reader.header()
    n_tiers = reader.count("the number of tiers")
    tiers = [_read_tier(reader) for _ in range(n_tiers)]
    reader.finish()
    return tiers


def _tokens(text: str) -> Iterator[_Token]:
    line, position = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        kind = str(match.lastgroup)
        yield _Token(kind, match.group(kind).replace('""', '"'), line)


def _read_tier(reader: _Reader) -> Tier:
    kind = reader.text("the class of a tier")
    if kind not in ("IntervalTier", "TextTier"):
        raise reader.error(f"a tier is of class {kind!r}; known: IntervalTier, TextTier")
    name = reader.text("the name of a tier")
    reader.number("the start of a tier")
    reader.number("the end of a tier")
    labels: list[str] = []
    start_s: list[float] = []
    duration_s: list[float] = []
    overlapping: list[int] = []
    for _ in range(reader.count(f"the size of tier {name!r}")):
        start = reader.number(f"a time in tier {name!r}")
        line = reader.line
        end = reader.number(f"the end of an interval in tier {name!r}") if kind == "IntervalTier" else start
        if end < start or (start_s and start < start_s[-1]):
            raise reader.error(f"tier {name!r}: an interval from {start} to {end} s is out of order")
        if start_s and start < start_s[-1] + duration_s[-1] - _OVERLAP_S:
            overlapping.append(line)
        labels.append(reader.text(f"a label in tier {name!r}"))
        start_s.append(start)
        duration_s.append(end - start)
    if overlapping:
        log.warning("%s, line %d: tier %r: %d intervals begin before the one before them ends; taken as they are.",
                    reader.path, overlapping[0], name, len(overlapping))  # fmt: skip
    return Tier(name, Intervals(tuple(labels), np.array(start_s), np.array(duration_s)))


class _Reader:
    """Takes the tokens of one file one by one and says what it expected where one is missing."""

    def __init__(self, path: Path, tokens: Iterator[_Token]) -> None:
        self.path = path
        self._tokens = tokens
        self.line = 1

    def header(self) -> None:
        """Check that the file says that it is a TextGrid, up to the flag before the number of tiers."""
        cure = "Save it in Praat with 'Save as text file' or 'Save as short text file'"
        if self.text("the file type").strip() not in ("ooTextFile", "ooTextFile short"):
            raise self.error(f"it is not a Praat text file. {cure}")
        kind = self.text("the object class")
        if not kind.startswith("TextGrid"):
            raise self.error(f"it holds a {kind!r}, not a TextGrid. {cure}")
        self.number("the start of the recording")
        self.number("the end of the recording")
        if self._take("flag", "whether there are tiers").value != "exists":
            raise self.error("it has no tiers")

    def text(self, what: str) -> str:
        return self._take("text", what).value

    def number(self, what: str) -> float:
        value = float(self._take("number", what).value)
        if not math.isfinite(value):
            raise self.error(f"{what} is too large for a number")
        return value

    def count(self, what: str) -> int:
        value = self.number(what)
        if value < 0 or value != int(value):
            raise self.error(f"{what} is {value}")
        return int(value)

    def finish(self) -> None:
        extra = next(self._tokens, None)
        if extra is not None:
            self.line = extra.line
            raise self.error(f"{extra.value!r} follows the last tier: a size does not match its content")

    def error(self, message: str) -> TextGridError:
        return TextGridError(f"{self.path}, line {self.line}: {message}.")

    def _take(self, kind: str, what: str) -> _Token:
        token = next(self._tokens, None)
        if token is None:
            raise self.error(f"the file ends where {what} should follow; it was cut off, or a quote is missing")
        self.line = token.line
        if token.kind != kind:
            raise self.error(f"expected {what} (a {kind}), found {token.value!r}")
        return token
