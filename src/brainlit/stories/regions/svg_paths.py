"""The outlines in an SVG drawing (https://www.w3.org/TR/SVG11/paths.html), as matplotlib paths."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from brainlit.stories.base import FloatArray

if TYPE_CHECKING:
    from matplotlib.path import Path as Outline

_TOKEN = re.compile(r"([A-Za-z])|([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_N_NUMBERS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "Z": 0}
_CUBIC, _QUADRATIC = "CS", "QT"
_MOVE, _LINE, _CURVE3, _CURVE4, _CLOSE = 1, 2, 3, 4, 79
"""Codes of matplotlib.path.Path."""


def read_outline(d: str) -> Outline:
    """The outline of a <path> from its 'd': lines and Bezier curves, absolute and relative, closed where it says so.

    Raises
    ------
    ValueError
        If a command is no path command or an arc (A), or has too few numbers.

    >>> read_outline("m 1,1 h 2 v 2 h -2 z").contains_points([[2, 2], [4, 2]]).tolist()
    [True, False]
    """
    from matplotlib.path import Path as Outline

    pen = _Pen()
    for command, numbers in _commands(d):
        pen.draw(command, numbers)
    if not pen.vertices:
        raise ValueError("it is empty")
    return Outline(np.array(pen.vertices), pen.codes)


def _commands(d: str) -> list[tuple[str, list[float]]]:
    """Every command with the numbers of one use: 'L 1 2 3 4' is two lines; after 'M 1 2' further pairs are lines."""
    rest = _TOKEN.sub("", d).replace(",", "").strip()
    if rest:
        raise ValueError(f"{rest[:9]!r} is neither a command nor a number")
    found: list[tuple[str, list[float]]] = []
    for letter, number in _TOKEN.findall(d):
        if letter:
            if letter.upper() not in _N_NUMBERS:
                raise ValueError(f"command {letter!r} is not read (arcs are not, turn them into curves)")
            found.append((letter, []))
            continue
        if not found or found[-1][0] in "Zz":
            raise ValueError(f"number {number} belongs to no command")
        command, numbers = found[-1]
        if len(numbers) == _N_NUMBERS[command.upper()]:
            found.append(({"M": "L", "m": "l"}.get(command, command), []))
        found[-1][1].append(float(number))
    for command, numbers in found:
        if len(numbers) != _N_NUMBERS[command.upper()]:
            raise ValueError(f"command {command!r} has {len(numbers)} numbers, needs {_N_NUMBERS[command.upper()]}")
    if found and found[0][0] not in "Mm":
        raise ValueError(f"it begins with {found[0][0]!r}, not with 'M'")
    return found


class _Pen:
    """Where the pen is, where the outline began, and the control point that S and T mirror."""

    def __init__(self) -> None:
        self.at = np.zeros(2)
        self.began = np.zeros(2)
        self.control: tuple[str, FloatArray] | None = None
        self.vertices: list[FloatArray] = []
        self.codes: list[int] = []

    def draw(self, command: str, numbers: list[float]) -> None:
        """One command with its numbers; small letters count from where the pen is."""
        kind, origin = command.upper(), self.at if command.islower() else np.zeros(2)
        if kind == "Z":
            self._add(_CLOSE, [self.began])
        elif kind in "HV":
            target = self.at.copy()
            target["HV".index(kind)] = origin["HV".index(kind)] + numbers[0]
            self._add(_LINE, [target])
        else:
            points = list(np.reshape(numbers, (-1, 2)) + origin)
            if kind in "ST":
                points.insert(0, self._mirrored(_CUBIC if kind == "S" else _QUADRATIC))
            self._add({"M": _MOVE, "L": _LINE, "T": _CURVE3, "Q": _CURVE3}.get(kind, _CURVE4), points)
            self.began = points[0] if kind == "M" else self.began
            self.control = (_CUBIC if kind in _CUBIC else _QUADRATIC, points[-2]) if kind in "CSQT" else None
            return
        self.control = None

    def _add(self, code: int, points: list[FloatArray]) -> None:
        self.vertices += points
        self.codes += [code] * len(points)
        self.at = np.asarray(points[-1])

    def _mirrored(self, family: str) -> FloatArray:
        if self.control is None or self.control[0] != family:
            return self.at
        return np.asarray(2 * self.at - self.control[1])
