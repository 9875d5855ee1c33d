"""Praat TextGrids, in the long, the short and the chronological text format.

Long and short format hold the same values in the same order. Praat reads only what stands free (numbers, texts in
double quotes, flags in angle brackets) and takes everything else, and what follows an exclamation mark, for a comment;
so does this parser, and one parser serves both. The chronological format lists all tiers first and then the intervals
of all of them, each with the number of its tier. LeBel et al. (2023) publish files in all three.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from brainlit.stories.base import Intervals, SourceError
from brainlit.stories.readers.tables import read_lines, require_file

log = logging.getLogger(__name__)

_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|<(?P<flag>\w+)>|(?<!\S)!(?P<comment>[^\n]*)|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)'
)
_OVERLAP_S = 0.001
_CHRONOLOGICAL = "Praat chronological TextGrid text file"
_BINARY = b"ooBinaryFile"
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
    TextGridError
        If it is not a TextGrid in one of Praat's text formats, encoded as UTF-8 or UTF-16, or breaks off.
    """
    stat = path.stat() if path.is_file() else None
    return list(_parsed(path, stat and (stat.st_size, stat.st_mtime_ns)))


@lru_cache(maxsize=96)
def _parsed(path: Path, version: tuple[int, int] | None) -> tuple[Tier, ...]:
    """The tiers of a file; kept while size and time stay.

    Words and phones of a story are asked for apart, and phones of all stories before any story is read.
    """
    _refuse_binary(path)
    reader = _Reader(path, _tokens("\n".join(read_lines(path, TextGridError, _ENCODING_CURE))))
    file_type = reader.text("the file type").strip()
    if file_type == _CHRONOLOGICAL:
        return tuple(_read_chronological(reader))
    reader.header(file_type)
    tiers = [_read_tier(reader) for _ in range(reader.count("the number of tiers"))]
    reader.finish()
    return tuple(tiers)


def _refuse_binary(path: Path) -> None:
    """Praat has a binary form, which nothing but Praat needs."""
    with require_file(path).open("rb") as file:
        if file.read(len(_BINARY)) == _BINARY:
            raise TextGridError(
                f"{path} is in Praat's binary form, which is not read. Open it in Praat and save it as text (Save,"
                " 'Save as text file' or 'Save as short text file')."
            )


def _tokens(text: str) -> Iterator[_Token]:
    line, position = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        kind = str(match.lastgroup)
        if kind != "comment":
            yield _Token(kind, match.group(kind).replace('""', '"'), line)


def _read_tier(reader: _Reader) -> Tier:
    gathered = _Gathered(reader)
    for _ in range(reader.count(f"the size of tier {gathered.name!r}")):
        gathered.take_one()
    return gathered.tier()


def _read_chronological(reader: _Reader) -> list[Tier]:
    """Tiers first, then the intervals (and points) of all in the order of time, each after the number of its tier."""
    reader.number("the start of the recording")
    reader.number("the end of the recording")
    tiers = [_Gathered(reader) for _ in range(reader.count("the number of tiers"))]
    while reader.has_more():
        number = reader.count("the number of a tier")
        if not 1 <= number <= len(tiers):
            raise reader.error(f"there is no tier {number}, but {len(tiers)} tiers")
        tiers[number - 1].take_one()
    for gathered in tiers:
        gathered.require_whole()
    return [gathered.tier() for gathered in tiers]


class _Gathered:
    """One tier while its intervals are read; takes its class, name and span from the reader at once."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader
        self.kind = reader.text("the class of a tier")
        if self.kind not in ("IntervalTier", "TextTier"):
            raise reader.error(f"a tier is of class {self.kind!r}; known: IntervalTier, TextTier")
        self.name = reader.text("the name of a tier")
        reader.number("the start of a tier")
        self.end_s = reader.number("the end of a tier")
        self.labels: list[str] = []
        self.start_s: list[float] = []
        self.duration_s: list[float] = []
        self.overlapping: list[int] = []

    def take_one(self) -> None:
        """The next interval, or point, of this tier."""
        reader, name = self.reader, self.name
        start = reader.number(f"a time in tier {name!r}")
        line = reader.line
        end = reader.number(f"the end of an interval in tier {name!r}") if self.kind == "IntervalTier" else start
        if end < start or (self.start_s and start < self.start_s[-1]):
            raise reader.error(f"tier {name!r}: an interval from {start} to {end} s is out of order")
        if self.start_s and start < self.start_s[-1] + self.duration_s[-1] - _OVERLAP_S:
            self.overlapping.append(line)
        self.labels.append(reader.text(f"a label in tier {name!r}"))
        self.start_s.append(start)
        self.duration_s.append(end - start)

    def require_whole(self) -> None:
        """No size says where a chronological file should end, but Praat's intervals fill their tier."""
        last_s = self.start_s[-1] + self.duration_s[-1] if self.start_s else 0.0
        if self.kind == "IntervalTier" and last_s < self.end_s - _OVERLAP_S:
            raise self.reader.error(
                f"tier {self.name!r} ends at {self.end_s:g} s, but its last interval at {last_s:g} s; the file was cut"
                " off, or is not from Praat: save it there with 'Save as text file'"
            )

    def tier(self) -> Tier:
        """What was taken."""
        if self.overlapping:
            log.warning("%s, line %d: tier %r: %d intervals begin before the one before them ends; taken as they are.",
                        self.reader.path, self.overlapping[0], self.name, len(self.overlapping))  # fmt: skip
        return Tier(self.name, Intervals(tuple(self.labels), np.array(self.start_s), np.array(self.duration_s)))


class _Reader:
    """Takes the tokens of one file one by one and says what it expected where one is missing."""

    def __init__(self, path: Path, tokens: Iterator[_Token]) -> None:
        self.path = path
        self._tokens = tokens
        self._ahead: _Token | None = None
        self.line = 1

    def header(self, file_type: str) -> None:
        """Check that the file says that it is a TextGrid, up to the flag before the number of tiers."""
        cure = "Save it in Praat with 'Save as text file' or 'Save as short text file'"
        if file_type not in ("ooTextFile", "ooTextFile short"):
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

    def has_more(self) -> bool:
        """Whether anything but comments follows."""
        self._ahead = self._ahead or next(self._tokens, None)
        return self._ahead is not None

    def finish(self) -> None:
        extra = next(self._tokens, None)
        if extra is not None:
            self.line = extra.line
            raise self.error(f"{extra.value!r} follows the last tier: a size does not match its content")

    def error(self, message: str) -> TextGridError:
        return TextGridError(f"{self.path}, line {self.line}: {message}.")

    def _take(self, kind: str, what: str) -> _Token:
        token, self._ahead = self._ahead or next(self._tokens, None), None
        if token is None:
            raise self.error(f"the file ends where {what} should follow; it was cut off, or a quote is missing")
        self.line = token.line
        if token.kind != kind:
            raise self.error(f"expected {what} (a {kind}), found {token.value!r}")
        return token
