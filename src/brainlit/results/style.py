"""One look for all figures: colours that mean the same thing everywhere, and no global plotting state."""

from __future__ import annotations

import base64
import io
import itertools
import logging
import string
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from brainlit.files import write_bytes
from brainlit.results.marks import Mark, PlacedMark, marks_json, placed

PAPER, NIGHT = "#FFFFFF", "#090B0E"
"""What figures are drawn on: as they are written, and on a page whose reader asked for a dark one."""
INK, FAINT, RULE, _GRID = "#1F2733", "#667080", "#D9DDE3", "#ECEEF2"
NO_NUMBER = "#C6CBD2"
"""Of a cell of a map that has no number, and of spans of an axis."""
_BLACK, _NAVY, _BROWN, _CRIMSON, _AMBER = "#030302", "#0F2945", "#594727", "#B94569", "#BD8C3A"
_GREEN, _PURPLE, _GREY, _BLUE = "#047D63", "#9355AA", "#90959C", "#284C70"
_OLIVE, _CYAN, _PLUM, _VIOLET = "#544A00", "#03A2C5", "#500E1F", "#7160BE"
ON_DARK = {
    **{PAPER: NIGHT, INK: "#E8EBF0", FAINT: "#9AA4B2", RULE: "#2E3640", _GRID: "#1C2128", NO_NUMBER: "#4A525D"},
    **{_BLACK: "#FFFFFF", _NAVY: "#91ACD7", _BROWN: "#725A24", _CRIMSON: "#CB6273", _AMBER: "#F9CE7D"},
    **{_GREEN: "#2A9466", _PURPLE: "#9370D6", _GREY: "#D1D4DA", _BLUE: "#275F9C"},
    **{_OLIVE: "#665F03", _CYAN: "#66E5F9", _PLUM: "#84487D", _VIOLET: "#8376D6"},
    **{"#CB8362": "#FFCFC5", "#111C70": "#5B83E3", "#BA436F": "#FB8CBB", "#245331": "#176D3D"},
    **{"#07A2C3": "#A5E3FF", "#51013E": "#B2767B", "#4A6BBC": "#A2AAF1", "#514B00": "#914E0F"},
}
"""Each colour of a figure -> what stands for it at night.

Lightness carries what hue cannot: between 3:1 on paper and black there is room for five that are 15 (CIE76) apart in
grey, and so there is between NIGHT and white. Legends of up to five take one of each; of longer ones neighbours are
that far apart, and hatches, marks or names tell the others. tests/results/test_style.py simulates the three kinds of
colour blindness, and grey, on both grounds.
"""
STAGE_COLOURS = {"before": _GREY, "after": _CRIMSON}
CEILING_COLOUR = _NAVY
BAND_COLOURS = {
    "backbone": _BLUE,
    "low_level": _AMBER,
    "semantic": _GREEN,
    "backbone&low_level": _OLIVE,
    "backbone&semantic": _CYAN,
    "low_level&semantic": _PLUM,
    "backbone&low_level&semantic": _VIOLET,
}
MORE_BAND_COLOURS = (_NAVY, _BLACK, _PURPLE, _CYAN)
"""Of bands with names of their own, by their order; purple is as light as the semantic band, and not beside it."""
_SHARED_COLOURS = (_OLIVE, _CYAN, _PLUM, _VIOLET)
_SHARED_HATCHES = ("///", "\\\\\\", "...", "xxx", "|||", "---", "ooo", "+++", "**")
"""Of what bands share, by its order; that of a band alone is plain."""
REGION_COLOURS = {"semantic": _GREEN, "auditory": _AMBER, "null": _BROWN, "all voxels": _BLACK}
OTHER_COLOURS = (_GREEN, _AMBER, _BROWN, _BLACK, _NAVY)
"""Of lines without a colour of their own; those that a named region has are passed over."""
MARKS = ("o", "s", "^", "D", "v")
REGIME_COLOURS = {
    "pretrained": _BLACK,
    "brain": _CRIMSON,
    "permuted": _BROWN,
    "stimulus": _AMBER,
    "language_model": _NAVY,
    "large_speech_model": _PURPLE,
}
OTHER_REGIME = _VIOLET
REGIME_MARKS = {
    "pretrained": "o",
    "brain": "s",
    "permuted": "X",
    "stimulus": "^",
    "language_model": "D",
    "large_speech_model": "v",
}
LOSS_LOOKS = {"train/loss": (_NAVY, ":"), "train/loss_step": (_GREY, "-"), "val/loss": (_BLACK, "--")}
"""Colour and kind of line."""
CATEGORY_COLOURS = ("#CB8362", "#111C70", "#BA436F", "#245331", "#07A2C3", "#51013E", "#4A6BBC", "#514B00")
"""Of categories of words, in their order: each far from the one before it, and from all others but in grey."""
ROOM_COLOURS = (_BLACK, _AMBER, _BLUE, _GREEN, _PLUM, _CRIMSON)
"""Of the picture of the house, in the order in which its kinds of rooms meet."""
DIVERGING = ("#16324F", "#5B8DBE", "#F4F2EE", "#E08A3C", "#9C3D10")
"""Below 0, 0, above 0: 0 is the palest, and the darker end is below it, so that grey tells the ends apart too."""
SEQUENTIAL = ("#F6EFE3", "#EDB463", "#C9543F", "#7B2357", "#25093A")
"""From 0 upwards: 0 is the palest."""
BAND_LABELS = {"backbone": "speech model", "low_level": "low-level", "semantic": "semantic"}
PAGE_COLOURS = {
    "ink": INK,
    "faint": "#5D6674",
    "rule": "#E3E6EB",
    "paper": PAPER,
    "ground": "#F5F6F8",
    "head": INK,
    "on-head": "#FFFFFF",
    "night": "#2C3A52",
    "pale": "#B9C2D0",
    "paler": "#D4DAE4",
    "warning": "#F4C95D",
    "on-warning": "#3B2F05",
    "focus": "#FBF1F3",
    "link": "#1F5A99",
}
"""Colours of pages, by the name that the style sheet gives them."""
PAGE_COLOURS_AT_NIGHT = PAGE_COLOURS | {
    "ink": ON_DARK[INK],
    "faint": ON_DARK[FAINT],
    "rule": ON_DARK[RULE],
    "paper": NIGHT,
    "ground": "#000000",
    "head": "#141A24",
    "night": "#26334A",
    "focus": "#2A1820",
    "link": "#8FB4E3",
}

PRINT_PT, MM_PER_INCH = 7.0, 25.4
"""Text of figures for print, as journals ask for."""
CHART_DPI, MAPS_DPI, PRINT_DPI = 160, 130, 300
"""Dots per inch of PNGs of charts and of maps, and of what is made of dots in figures for print."""
MAPS_IN, BESIDE_MAPS_IN, LOWEST_MAP_IN = 11.0, (0.33, 1.12), 1.3
"""Width of a figure of maps, what is left of it on both sides for names and scales, and the height that names need."""

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
    "grid.color": _GRID,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "hatch.linewidth": 1.1,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType: letters stay letters where journals set them anew
    "svg.hashsalt": "brainlit",
    "figure.facecolor": PAPER,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
}


_SAFE = frozenset(f"{string.ascii_letters}{string.digits} !*,-./;=@_~+".encode())
"""What an address in quotation marks may hold as it is; line ends must not, for browsers leave them out."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its name, its pictures and the words for who cannot see it.

    Parameters
    ----------
    svg : bytes or None
        None where there is a PNG alone.
    png : bytes
    alt : str
        What the figure shows, with its main numbers.
    caption : str
        Formula, stories, n and uncertainty.
    csv : str
        The numbers that it shows, with a head; empty where they are elsewhere.
    marks : tuple of PlacedMark
        Those of its numbers that the page shows where they are drawn.
    print_as : callable (format, width_mm) -> bytes, or None
        Draws it anew for a paper: 'pdf', 'svg' or 'png', as wide as is asked.
    """

    name: str
    png: bytes
    svg: bytes | None
    alt: str
    caption: str
    csv: str = ""
    marks: tuple[PlacedMark, ...] = ()
    print_as: Callable[[str, float], bytes] | None = field(default=None, compare=False, repr=False)

    @property
    def address(self) -> str:
        """The picture as a data address, for pages that need nothing from outside."""
        if self.svg is not None:  # as text: base64 would make pictures within it larger by a third once more
            return f"data:image/svg+xml,{_quoted(self.svg)}"
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"

    @property
    def csv_address(self) -> str:
        """The numbers as a data address, which downloads from a page without network or server."""
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.csv.encode()).decode('ascii')}"

    @property
    def marks_json(self) -> str:
        """The marks for the script of a page."""
        return marks_json(self.marks)

    def save(self, folder: Path) -> None:
        """Write <name>.png, and <name>.svg and <name>.csv where there are such."""
        for suffix, data in ((".png", self.png), (".svg", self.svg), (".csv", self.csv.encode())):
            if data:
                write_bytes(folder / f"{self.name}{suffix}", data)


def _quoted(text: bytes) -> str:
    """As urllib.parse.quote has it, which takes a hundred times as long for a megabyte."""
    text = text.replace(b"%", b"%25")
    for byte in set(text) - _SAFE - {ord("%")}:
        text = text.replace(bytes([byte]), b"%%%02X" % byte)
    return text.decode("ascii")


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib settings for the block; what was set before comes back. Imports no pyplot and opens no window."""
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


def render(figure: Any, format: str, dpi: int = CHART_DPI) -> bytes:
    """The figure as bytes of a PNG, SVG or PDF without a date in it."""
    buffer = io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    quick: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if format == "png" else {}
    figure.savefig(buffer, format=format, dpi=dpi, metadata=undated.get(format), **quick)
    return buffer.getvalue()


def printed(figure: Any, format: str, width_mm: float) -> bytes:
    """A figure in the width of a paper: text of PRINT_PT points, lines and marks as much thinner as text is smaller.

    Height follows the width, but leaves text its room. Names below bars stand upright where they would overlap; a title
    of the whole is left to the caption. Fonts are embedded (PDF) or outlines (SVG); what is made of many thousand
    triangles is a picture of 300 dots per inch in both. Where text still overlaps, a warning says so.
    """
    width_in, height_in = figure.get_size_inches()
    by_width, by_text = width_mm / MM_PER_INCH / width_in, PRINT_PT / _STYLE["font.size"]
    figure.set_size_inches(width_in * by_width, height_in * max(by_width, by_text))
    for artist in figure.findobj():
        for what, power in (("fontsize", 1), ("linewidth", 1), ("markersize", 1), ("sizes", 2)):
            if hasattr(artist, f"set_{what}") and (given := getattr(artist, f"get_{what}")()) is not None:
                getattr(artist, f"set_{what}")(_times(given, by_text**power))
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    if len(panels) == 1:
        panels[0].set_title("", loc="left")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # text overlaps then, which is said
        return _with_names_apart(figure, format, width_mm)


def _with_names_apart(figure: Any, format: str, width_mm: float) -> bytes:
    from matplotlib.text import Text

    for axes in figure.axes:
        if not axes.axison:  # its ticks are not drawn, but would count as overlapping text
            axes.set(xticks=[], yticks=[])
    figure.draw_without_rendering()
    for axes in figure.axes:
        names = [name for name in axes.get_xticklabels() if name.get_text()]
        if _overlapping(names):
            for name in names:
                name.set(rotation=90, text=name.get_text().replace("\n", " "))
            axes.set_xticks(axes.get_xticks(), [name.get_text() for name in axes.get_xticklabels()])
    figure.draw_without_rendering()
    if _overlapping([text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]):
        _log.warning("Text of this figure overlaps at %g mm: show fewer regions, or make it wider.", width_mm)
    return render(figure, format, dpi=PRINT_DPI)


def _overlapping(texts: Sequence[Any]) -> bool:
    boxes = [text.get_window_extent() for text in texts]
    return any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])


def _times(given: Any, factor: float) -> Any:
    return given * factor if isinstance(given, (int, float)) else [one * factor for one in given]


def drawn_for_print_in(width_mm: float) -> float:
    """How wide a figure of maps is drawn, so that `printed` shrinks its margins no more than their text.

    >>> round(drawn_for_print_in(88), 2), drawn_for_print_in(500)
    (5.2, 11.0)
    """
    return min(MAPS_IN, width_mm / MM_PER_INCH * float(_STYLE["font.size"]) / PRINT_PT)


def draw_figure(
    name: str,
    draw: Callable[[Any], Iterable[Mark] | None],
    size_in: tuple[float, float],
    alt: str,
    caption: str,
    *,
    simulated: bool = False,
    csv: str = "",
) -> Figure:
    """Draw onto a new figure in the house style, as PNG and as SVG that has ON_DARK's colours on dark pages.

    Parameters
    ----------
    draw : callable (figure) -> marks, or None
        Draws, and returns the numbers that the page shows where they are drawn.
    simulated : bool
        Whether the listeners are: then picture, alt and caption say so.
    csv : str
        The numbers that it shows.
    """

    def drawn() -> tuple[Any, Iterable[Mark]]:
        figure = new_figure(*size_in)
        marks = draw(figure) or ()
        if simulated:
            sign(figure)
        return figure, marks

    def print_as(format: str, width_mm: float) -> bytes:
        with house_style():
            return printed(drawn()[0], format, width_mm)

    with house_style():
        figure, marks = drawn()
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)  # places stay as found; with any engine, 'none' too, each format is drawn twice
        shown = placed(figure, marks)
        png, svg = render(figure, "png"), render(figure, "svg")
    made = Figure(name, png, adapted(svg), alt, caption, csv, shown, print_as)
    return told(made, simulated=simulated)


def draw_maps(
    name: str,
    draw: Callable[[Any], None],
    row_in: float,
    n_rows: int,
    alt: str,
    caption: str,
    *,
    simulated: bool = False,
    csv: str = "",
    svg_dpi: int = CHART_DPI,
) -> Figure:
    """Draw rows of maps of the brain, of row_in inches each, as PNG and as SVG that shows the ground of the page.

    What `draw` paints as dots itself has those of the figure's dpi.
    Words turn light on dark pages, whose ground shows between the maps. For a paper maps are drawn anew in its width.
    """

    def drawn(width_in: float = MAPS_IN, dpi: float = MAPS_DPI) -> Any:
        figure = new_figure(width_in, max(row_in * width_in / MAPS_IN, LOWEST_MAP_IN) * n_rows + 0.3, layout=None)
        figure.set_dpi(dpi)
        draw(figure)
        if simulated:
            sign(figure)
        return figure

    def print_as(format: str, width_mm: float) -> bytes:
        with house_style():
            width_in = drawn_for_print_in(width_mm)
            dpi = PRINT_DPI * width_mm / MM_PER_INCH / width_in  # as many dots as there will be
            return printed(drawn(width_in, dpi), format, width_mm)

    with house_style():
        figure = drawn()
        png = render(figure, "png", dpi=MAPS_DPI)
        figure.patch.set_alpha(0)
        svg = adapted(render(figure, "svg", dpi=svg_dpi))
    return told(Figure(name, png, svg, alt, caption, csv, print_as=print_as), simulated=simulated)


def told(figure: Figure, *, simulated: bool) -> Figure:
    """The figure, with words that begin with what its listeners are, where these are simulated."""
    words = "Simulated listeners. " if simulated else ""
    return replace(figure, alt=f"{words}{figure.alt}", caption=f"{words}{figure.caption}")


def sign(figure: Any) -> None:
    """'simulated listeners' in the lower right corner, below everything else."""
    share = 0.2 / figure.get_size_inches()[1]
    if (engine := figure.get_layout_engine()) is not None:
        engine.set(rect=(0, share, 1, 1 - share))
    figure.text(0.995, 0.01, "simulated listeners", ha="right", va="bottom", fontsize=8, color=FAINT, style="italic")


def adapted(svg: bytes) -> bytes:
    """The SVG with rules that put ON_DARK in place of its colours where the reader asked for dark pages."""
    text = svg.decode("utf-8")
    rules = []
    for light, dark in ((one.lower(), other.lower()) for one, other in ON_DARK.items()):
        if light in text:
            for what in ("fill", "stroke"):  # as matplotlib writes them: in style, and in patterns as attributes
                rules.append(
                    f'[style*="{what}: {light}"]{{{what}:{dark}!important}}[{what}="{light}"]{{{what}:{dark}}}'
                )
    night = "@media screen and (prefers-color-scheme: dark){" + "".join(rules) + "}"
    return text.replace("</style>", f"{night}</style>", 1).encode("utf-8")


def colour_map(colours: Sequence[str]) -> Any:
    """DIVERGING or SEQUENTIAL as a map of matplotlib; what has no number is NO_NUMBER."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("brainlit", list(colours)).with_extremes(bad=NO_NUMBER)


def region_looks(regions: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and mark of each of up to five regions: its own, or the first that none of the others has."""
    names = list(regions)
    own = {name: REGION_COLOURS[name] for name in names if name in REGION_COLOURS}
    free = itertools.cycle([colour for colour in OTHER_COLOURS if colour not in own.values()])
    return {name: (own.get(name) or next(free), mark) for name, mark in zip(names, itertools.cycle(MARKS))}


def part_colours(parts: Iterable[str]) -> dict[str, str]:
    """A colour for each part of a partition: of a band by its name, of what bands share by its place among these.

    >>> part_colours(["backbone", "context", "backbone&context"])
    {'backbone': '#284C70', 'context': '#0F2945', 'backbone&context': '#544A00'}
    """
    wanted, shared = list(parts), itertools.cycle(_SHARED_COLOURS)
    others = itertools.cycle([c for c in MORE_BAND_COLOURS if not (c == _PURPLE and "semantic" in wanted)])
    return {part: next(shared) if "&" in part else BAND_COLOURS.get(part) or next(others) for part in wanted}


def part_hatches(parts: Iterable[str]) -> dict[str, str]:
    """A hatch for each part that bands share, so that colours may come twice; none for a band alone."""
    shared = itertools.cycle(_SHARED_HATCHES)
    return {part: next(shared) if "&" in part else "" for part in parts}


def band_label(band: str) -> str:
    """A band in words."""
    return BAND_LABELS.get(band, band.replace("_", " "))


def part_label(part: str) -> str:
    """'only speech model', 'speech model + low-level', …"""
    bands = part.split("&")
    words = " + ".join(map(band_label, bands))
    return f"only {words}" if len(bands) == 1 else words
