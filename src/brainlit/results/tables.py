"""Tables as text: Markdown to print, and a number with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brainlit.encoding.statistics import Score

SIMULATED = "The listeners are simulated: this shows that the method recovers what was planted, not a brain."


def simulated_said(flags: Iterable[bool]) -> str:
    """That the listeners of all runs, or of some, are simulated; nothing where none are.

    >>> simulated_said([True, False])
    'The listeners of 1 of 2 runs are simulated: no brain was measured there.'
    """
    known = list(flags)
    if not any(known):
        return ""
    return (
        SIMULATED
        if all(known)
        else f"The listeners of {sum(known)} of {len(known)} runs are simulated: no brain was measured there."
    )


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table.

    >>> print("\\n".join(markdown_table(["", "r"], [["semantic", "0.31"]])))
    | | r |
    |---|---|
    | semantic | 0.31 |
    """
    return [_line(heads), "|---" * len(heads) + "|", *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def count_said(n: int, one: str, many: str | None = None) -> str:
    """'1 voxel', '3 voxels'."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def score_said(score: Mapping[str, Any] | None, digits: str = ".3f", undefined: str = "-") -> str:
    """A score of a summary with its interval in brackets, where it has one.

    >>> score_said({"value": 0.25, "low": 0.1, "high": 0.4}, "+.2f")
    '+0.25 [+0.10, +0.40]'
    """
    if not score or score.get("value") is None:
        return undefined
    value, low, high = (score[key] for key in ("value", "low", "high"))
    return f"{value:{digits}}" + ("" if low is None else f" [{low:{digits}}, {high:{digits}}]")


def number_said(value: float | None) -> str:
    """With three digits; a hyphen where there is none."""
    return "-" if value is None else f"{value:.3f}"


def change_said(score: Score) -> str:
    """A difference with its sign, and its interval where it has one.

    >>> change_said(Score(0.1, bounds=(-0.05, 0.25)))
    '+0.100 (-0.050 to +0.250)'
    """
    interval = "" if score.interval is None else " ({:+.3f} to {:+.3f})".format(*score.interval)
    return f"{score.value:+.3f}{interval}"


def change_in_words(score: Score, of: str = "") -> str:
    """A difference for a sentence, which says what its interval is, or that it has none.

    Parameters
    ----------
    of : str
        What the missing interval would be over: ' over seeds'.

    >>> change_in_words(Score(0.1, bounds=(-0.05, 0.25)))
    '+0.100 (95 % interval -0.050 to +0.250)'
    """
    if score.interval is None:
        return f"{score.value:+.3f} (no interval{of})"
    return "{:+.3f} (95 % interval {:+.3f} to {:+.3f})".format(score.value, *score.interval)
