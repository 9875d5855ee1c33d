"""One look for all figures: colours that mean the same thing everywhere, and no global plotting state."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from brainlit.files import atomic_path

STAGE_COLOURS = {"before": "#A3A9B3", "after": "#C8385A"}
BAND_COLOURS = {
    "backbone": "#2F6DB5",
    "low_level": "#E8A33D",
    "semantic": "#3E9B6E",
    "backbone&low_level": "#8E8870",
    "backbone&semantic": "#33879A",
    "low_level&semantic": "#A9A545",
    "backbone&low_level&semantic": "#77688F",
}
REGION_COLOURS = {"semantic": "#3E9B6E", "auditory": "#E8A33D", "null": "#A3A9B3", "all voxels": "#1F2733"}
REGIME_COLOURS = {
    "brain": "#C8385A",
    "permuted": "#8E8870",
    "language_model": "#3E9B6E",
    "large_speech_model": "#2F6DB5",
    "stimulus": "#E8A33D",
}
OTHER_COLOURS = ("#2F6DB5", "#77688F", "#33879A", "#C8385A", "#8E8870")
MORE_BAND_COLOURS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Of bands with names of their own, by their order: those of Okabe & Ito's palette that are none of the above."""
BAND_LABELS = {"backbone": "speech model", "low_level": "low-level", "semantic": "semantic"}
INK, FAINT, RULE = "#1F2733", "#667080", "#D9DDE3"
PAGE_COLOURS = {
    "ink": INK,
    "faint": FAINT,
    "rule": "#E3E6EB",
    "paper": "#FFFFFF",
    "ground": "#F5F6F8",
    "night": "#2C3A52",
    "pale": "#B9C2D0",
    "paler": "#D4DAE4",
    "warning": "#F4C95D",
    "on-warning": "#3B2F05",
    "focus": "#FBF1F3",
}
"""Colours of pages, by the name that the style sheet gives them."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": FAINT,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "grid.color": "#ECEEF2",
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "brainlit",
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its name, its pictures and the words for who cannot see it.

    Parameters
    ----------
    svg : bytes or None
        None for figures of many thousand polygons.
    png : bytes
    alt : str
        What the figure shows, with its main numbers.
    caption : str
        Formula, stories, n and uncertainty.
    """

    name: str
    png: bytes
    svg: bytes | None
    alt: str
    caption: str

    @property
    def address(self) -> str:
        """The picture as a data address, for pages that need nothing from outside."""
        kind, data = ("svg+xml", self.svg) if self.svg is not None else ("png", self.png)
        return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"

    def save(self, folder: Path) -> None:
        """Write <name>.png, and <name>.svg where there is one."""
        for suffix, data in ((".png", self.png), (".svg", self.svg)):
            if data is not None:
                with atomic_path(folder / f"{self.name}{suffix}") as temporary:
                    temporary.write_bytes(data)


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib settings for the block; what was set before comes back. Imports no pyplot and opens no window."""
    import logging

    import matplotlib

    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    fonts.setLevel(logging.ERROR)
    try:
        with matplotlib.rc_context(_STYLE):
            yield
    finally:
        fonts.setLevel(level)


def new_figure(width_in: float, height_in: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """A figure with an Agg canvas that no global registry knows of; freed with its last reference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width_in, height_in), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def render(figure: Any, format: str, dpi: int = 160) -> bytes:
    """The figure as bytes of a PNG or SVG without a date in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=dpi, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()


def draw_figure(name: str, draw: Callable[[Any], None], size_in: tuple[float, float], alt: str, caption: str) -> Figure:
    """Draw onto a new figure in the house style, as PNG and SVG."""
    with house_style():
        figure = new_figure(*size_in)
        draw(figure)
        png = render(figure, "png")
        figure.set_layout_engine("none")  # the places that were found stay; finding them again takes as long as drawing
        return Figure(name, png, render(figure, "svg"), alt, caption)


def part_colours(parts: Iterable[str]) -> dict[str, str]:
    """A colour for each part of a partition; what bands of other names share has the mean of their colours.

    >>> part_colours(["backbone", "context", "backbone&context"])
    {'backbone': '#2F6DB5', 'context': '#CC79A7', 'backbone&context': '#7E73AE'}
    """
    wanted = list(parts)
    others = dict.fromkeys(band for part in wanted for band in part.split("&") if band not in BAND_COLOURS)
    known = BAND_COLOURS | dict(zip(others, itertools.cycle(MORE_BAND_COLOURS)))
    return {part: known.get(part) or _mean_colour([known[band] for band in part.split("&")]) for part in wanted}


def _mean_colour(colours: Sequence[str]) -> str:
    channels = [[int(colour[start : start + 2], 16) for colour in colours] for start in (1, 3, 5)]
    return "#" + "".join(f"{round(sum(values) / len(values)):02X}" for values in channels)


def band_label(band: str) -> str:
    """A band in words."""
    return BAND_LABELS.get(band, band.replace("_", " "))


def part_label(part: str) -> str:
    """'only speech model', 'speech model + low-level', …"""
    bands = part.split("&")
    words = " + ".join(map(band_label, bands))
    return f"only {words}" if len(bands) == 1 else words
