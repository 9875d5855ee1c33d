"""The numbers of a figure where they are drawn: what a page shows under pointer and finger, and by arrow keys.

A drawing function returns its marks in the coordinates of their axes. `placed` finds where they came to lie in the
picture, which the page needs, for it shows the picture as a whole and knows nothing of what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from brainlit.results.tables import count_said

MOST_OF_A_LINE = 60
"""Of a line of many steps so many are marked; its CSV has all."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height in percent of the picture, from its upper left corner."""


@dataclass(frozen=True)
class Mark:
    """One number of a figure.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    x, y : pair of float
        Its ends in the coordinates of the axes; those of a point are alike.
    what : str
        What it is the number of: 'semantic, after tuning'.
    numbers : str
        The value with its interval; empty where a place has a name alone.
    n : str
        Of how many it is.
    """

    axes: Any
    x: tuple[float, float]
    y: tuple[float, float]
    what: str
    numbers: str = ""
    n: str = ""


@dataclass(frozen=True)
class PlacedMark:
    """A mark where it lies in the picture."""

    box: Box
    what: str
    numbers: str
    n: str


def point(axes: Any, x: float, y: float, what: str, numbers: str = "", n: str = "") -> Mark:
    """A mark of one place."""
    return Mark(axes, (x, x), (y, y), what, numbers, n)


def placed(figure: Any, marks: Iterable[Mark]) -> tuple[PlacedMark, ...]:
    """The marks of a figure that has been laid out, from left to right in each of its axes."""
    width, height = figure.bbox.width, figure.bbox.height
    order = {axes: k for k, axes in enumerate(figure.axes)}
    found = []
    for mark in sorted(marks, key=lambda one: (order[one.axes], one.x)):
        ends = mark.axes.transData.transform(list(zip(mark.x, mark.y, strict=True)))
        (left, right), (bottom, top) = sorted(ends[:, 0]), sorted(ends[:, 1])
        shares = (left / width, 1 - top / height, (right - left) / width, (top - bottom) / height)
        box: Any = tuple(round(100 * float(share), 2) for share in shares)
        found.append(PlacedMark(box, mark.what, mark.numbers, mark.n))
    return tuple(found)


def marks_json(marks: Sequence[PlacedMark]) -> str:
    """The marks for the script of a page, in which no '<' ends it early.

    >>> marks_json([PlacedMark((1.0, 2.0, 3.5, 4.0), "semantic, after", "r 0.312 (no interval)", "9 voxels")])
    '[[1.0,2.0,3.5,4.0,"semantic, after","r 0.312 (no interval)","9 voxels"]]'
    """
    rows = [[*mark.box, mark.what, mark.numbers, mark.n] for mark in marks]
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def score_in_words(name: str, score: Mapping[str, Any], digits: str = ".3f") -> str:
    """A value by its name, where it has one, with the interval or that there is none.

    >>> score_in_words("r", {"value": 0.25, "low": 0.1, "high": 0.4})
    'r 0.250, 95 % interval 0.100 to 0.400'
    """
    value, low, high = (score.get(key) for key in ("value", "low", "high"))
    interval = "no interval" if low is None else f"95 % interval {low:{digits}} to {high:{digits}}"
    return f"{name} {value:{digits}}, {interval}".lstrip()


def counts_in_words(row: Mapping[str, Any]) -> str:
    """Voxels and subjects of a row of scores; nothing where they are not known.

    >>> counts_in_words({"n_voxels": 120, "n_subjects": 1})
    '120 voxels, 1 subject'
    """
    counts = {"voxel": row.get("n_voxels"), "subject": row.get("n_subjects")}
    return ", ".join(count_said(n, one) for one, n in counts.items() if n is not None)


def thinned(points: Sequence[Any]) -> list[Any]:
    """At most MOST_OF_A_LINE of the points, evenly, with the last one.

    >>> thinned([1, 2, 3])
    [1, 2, 3]
    """
    step = -(-len(points) // MOST_OF_A_LINE)
    return list(points[::-1][:: step or 1][::-1])
