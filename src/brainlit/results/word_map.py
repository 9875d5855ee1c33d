"""Words in the plane, before and after tuning, coloured by category."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.downstream.representation import Separation, WordMap
from brainlit.results.look import FAINT, Figure, house_style, new_figure, render

FloatArray = npt.NDArray[np.float64]

CATEGORY_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#B8860B", "#3A9BDC", "#4B3F9E", "#5B6470")
"""The palette of Okabe and Ito for all kinds of colour vision, with its yellow and black made readable."""
CATEGORY_MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")
MAX_NAMED_WORDS = 24
NAME_SIZE = np.asarray((0.16, 0.04))
"""Width and height of a category's name, as a share of the map's."""


def word_map_figure(words: WordMap, name: str = "word-map") -> Figure:
    """Two panels, before and after; a colour and a mark per category, its name at the middle of its words.

    Categories beyond the eighth repeat colours with other marks. Words are named too where they are few.
    """
    kinds = sorted(set(words.categories))
    sides = (("before", words.before, words.separation[0]), ("after", words.after, words.separation[1]))

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 2)
        for axes, (stage, places, apart), share in zip(panels, sides, words.explained, strict=True):
            _draw_panel(axes, words, kinds, places)
            axes.set_title(f"{stage}: {_said(apart)}")
            shown = f"; the plane holds {100 * share:.0f} % of the variance" if np.isfinite(share) else ""
            axes.set_xlabel(f"{_axes_name(words)}{shown}", color=FAINT, fontsize=9)

    with house_style():
        figure = new_figure(10.4, 5.2)
        draw(figure)
        png, svg = render(figure, "png"), render(figure, "svg")
    return Figure(name, png, svg, _alt(words, kinds, sides), _caption(words))


def _draw_panel(axes: Any, words: WordMap, kinds: list[str], places: FloatArray) -> None:
    from matplotlib.patheffects import withStroke

    mine_of = np.asarray(words.categories)
    halo = withStroke(linewidth=3, foreground="white")
    bold: Any = {"weight": "bold", "ha": "center", "va": "center", "path_effects": [halo], "zorder": 4}
    middles = np.stack([np.median(places[mine_of == kind], axis=0) for kind in kinds])
    named_at = apart_from_each_other(middles, NAME_SIZE * np.ptp(places, axis=0))
    for k, kind in enumerate(kinds):
        colour = CATEGORY_COLOURS[k % len(CATEGORY_COLOURS)]
        mark = CATEGORY_MARKS[(k + k // len(CATEGORY_COLOURS)) % len(CATEGORY_MARKS)]
        mine = places[mine_of == kind]
        axes.scatter(*mine.T, s=30, color=colour, marker=mark, linewidths=0.4, edgecolors="white", alpha=0.85)
        axes.text(*named_at[k], kind, color=colour, **bold)
    if len(words.words) <= MAX_NAMED_WORDS:
        for word, place in zip(words.words, places, strict=True):
            axes.annotate(word, place, (4, 3), textcoords="offset points", fontsize=7, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_aspect("equal", adjustable="datalim")


def apart_from_each_other(places: FloatArray, size: FloatArray, n_steps: int = 200) -> FloatArray:
    """Places of names of one size (width, height), moved up and down until none lies on another, if that can be.

    Parameters
    ----------
    places : array of shape (n, 2)
        Middles of the names.
    """
    moved = np.array(places, dtype=np.float64)
    for _ in range(n_steps):
        gaps = moved[:, None] - moved
        on_each_other = (np.abs(gaps) < size).all(axis=2) & ~np.eye(len(moved), dtype=bool)
        if not on_each_other.any():
            break
        above = np.where(gaps[:, :, 1] == 0, np.tri(len(moved)) - 0.5, gaps[:, :, 1])
        push = np.sign(above) * (1.01 * size[1] - np.abs(gaps[:, :, 1])) / 2
        moved[:, 1] += np.where(on_each_other, push, 0).sum(axis=1) / on_each_other.sum(axis=1).clip(1)
    return moved


def _said(apart: Separation) -> str:
    return f"{100 * apart.accuracy:.0f} % of words nearest to their own category"


def _axes_name(words: WordMap) -> str:
    return (
        "first two principal components" if words.method == "pca" else "t-SNE (distances between groups mean nothing)"
    )


def _alt(words: WordMap, kinds: list[str], sides: tuple[tuple[str, Any, Separation], ...]) -> str:
    said = "; ".join(
        f"{stage} {_said(apart)} (chance {100 * apart.chance:.0f} %), silhouette {apart.silhouette:.3f}"
        for stage, _, apart in sides
    )
    return f"Map of {len(words.words)} words of {len(kinds)} categories ({', '.join(kinds)}): {said}."


def _caption(words: WordMap) -> str:
    p_before, p_after = (apart.p for apart in words.separation)
    return (
        f"Each mark is a word: the mean over its spoken tokens; {_axes_name(words)}, each stage by its own, the second"
        " turned or mirrored onto the first. In the titles, in all dimensions: share of words whose nearest category"
        " centroid, made without the word itself, is that of their category; chance"
        f" {100 * words.separation[1].chance:.0f} % by permuting categories over words (p before {p_before:.3f}, after"
        f" {p_after:.3f})."
    )
