"""How fast a story is told, per TR: words, their length, and pauses. Words belong to the row of their middle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainlit.features.config import PerTr
from brainlit.features.per_tr import in_words, to_trs
from brainlit.stories import FeatureSpace, Intervals, Story
from brainlit.timebase import TimeBase

FloatArray = npt.NDArray[np.float64]

MIN_PAUSE_S = 0.25
"""Shorter gaps belong to articulation (Goldman-Eisler 1968) and are not counted as pauses."""

_PIECE_S = 0.010


def word_rate(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Number of words in each TR."""
    ones = np.ones((len(story.words), 1))
    values = to_trs(ones, story.words.middle_s, story.timebase, "sum", per_tr)
    return FeatureSpace("word_rate", "low_level", ("word_rate",), f"words, {in_words('sum', per_tr)}", values)


def word_length(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Mean number of letters of the words of each TR; 0 where there are none."""
    letters = np.asarray([sum(character.isalpha() for character in word) for word in story.words.labels])
    values = to_trs(letters.reshape(-1, 1), story.words.middle_s, story.timebase, "mean", per_tr)
    source = f"letters of each word, {in_words('mean', per_tr)}"
    return FeatureSpace("word_length", "low_level", ("word_length",), source, values)


def pauses(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Seconds without a word, and number of pauses (a quarter of a second or longer) that begin.

    The time before the first and after the last word is no pause, so rows outside the story are 0.
    """
    starts_s, ends_s = gaps(story.words)
    pieces_s, middles_s = _pieces(starts_s, ends_s, story.timebase)
    begun_s = starts_s[ends_s - starts_s >= MIN_PAUSE_S]
    seconds = to_trs(pieces_s[:, None], middles_s, story.timebase, "sum", per_tr)
    begun = to_trs(np.ones((len(begun_s), 1)), begun_s, story.timebase, "sum", per_tr)
    return FeatureSpace(
        name="pauses",
        kind="low_level",
        columns=("seconds_without_word", "pauses_begun"),
        source=f"seconds between words, and pauses of at least {MIN_PAUSE_S} s begun, {in_words('sum', per_tr)}",
        values=np.concatenate([seconds, begun], axis=1),
    )


def gaps(words: Intervals) -> tuple[FloatArray, FloatArray]:
    """Start and end of every stretch without a word between the first and the last word, shapes (n_gaps,)."""
    covered_s = np.maximum.accumulate(words.end_s)[:-1]
    empty = words.start_s[1:] > covered_s
    return covered_s[empty], words.start_s[1:][empty]


def _pieces(starts_s: FloatArray, ends_s: FloatArray, timebase: TimeBase) -> tuple[FloatArray, FloatArray]:
    """The gaps in pieces of at most 10 ms, none across the edge of a row: duration and middle, shapes (n_pieces,)."""
    if not len(starts_s):
        return np.zeros(0), np.zeros(0)
    grid_s = np.arange(starts_s[0], ends_s[-1], _PIECE_S)
    edges_s = np.unique(np.concatenate([starts_s, ends_s, timebase.tr_edges_s(0, timebase.n_trs), grid_s]))
    middles_s = (edges_s[1:] + edges_s[:-1]) / 2
    inside = np.searchsorted(starts_s, middles_s) > np.searchsorted(ends_s, middles_s)
    return np.diff(edges_s)[inside], middles_s[inside]
