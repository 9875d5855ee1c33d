"""Draw house.svg from the layers of the import contract in pyproject.toml: `python docs/images/house.py`."""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

from brainlit.results.style import FAINT, INK, PAPER, ROOM_COLOURS

HERE = Path(__file__).parent
GROUND, STATISTICS, DATA, MODELS, RESULTS, COMMANDS = ROOM_COLOURS
ROOMS = {
    "timebase": ("one clock", GROUND),
    "checksums": ("what was written", GROUND),
    "shipped": ("what travels along", GROUND),
    "hdf5": ("finds its damage", GROUND),
    "files": ("whole or absent", GROUND),
    "paths": ("where caches go", GROUND),
    "guard": ("what text may do", GROUND),
    "hints": ("nearest known name", GROUND),
    "entries": ("what runs share in the cache", GROUND),
    "weight_files": ("what a download broke", GROUND),
    "doctor": ("what is missing", GROUND),
    "stories": ("what was heard and what the brain did, as each data set ships it", DATA),
    "splits": ("which spans of which stories tune, fit, choose and score", STATISTICS),
    "features": ("stimulus feature spaces per TR, low-level and semantic", STATISTICS),
    "encoding": ("delays, banded ridge, partition, ceilings, statistics", STATISTICS),
    "demo": ("stories from a grammar, heard by simulated listeners", DATA),
    "store": ("HDF5: sound, words, features, responses; checked, atomic", DATA),
    "backbones": ("speech families behind one interface", MODELS),
    "tuning": ("BrainTuning: head, loss, objective", MODELS),
    "datamodules": ("TR-aligned windows and targets", MODELS),
    "downstream": ("tasks without a brain, with controls", RESULTS),
    "results": ("run directory, figures, report, export", RESULTS),
    "comparison": ("runs side by side, claims and verdicts", RESULTS),
    "probing": ("the probe of all layers and subjects", RESULTS),
    "callbacks": ("what runs during training: probes, drift, report, exact resuming", COMMANDS),
    "cli": ("brainlit fit, data, probe, report, compare, reproduce, ...", COMMANDS),
}
"""Room or module -> what it holds, and the colour of its kind; the name in the box says the same without it."""
LEFT, WIDTH, TOP, HEIGHT, GAP = 60, 860, 56, 46, 10


def layers() -> list[list[str]]:
    """Rooms of each layer of the import contract, those that everybody may import first."""
    contracts = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = [[name.strip().removeprefix("brainlit.") for name in row.split("|")] for row in contracts[0]["layers"]]
    return rows[::-1]


def picture() -> str:
    """The SVG: one row per layer, side by side what does not import each other."""
    rows = layers()
    bottom = TOP + len(rows) * (HEIGHT + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {bottom + 12}" role="img"'
        ' font-family="Helvetica, Arial, sans-serif" aria-label="The rooms of brainlit and what may import what">',
        '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 10 5 0 10z" fill="{FAINT}"/></marker></defs>',
        f'<rect width="960" height="{bottom + 12}" fill="{PAPER}"/>',
        _text(LEFT, 34, 18, "From what was heard to the report: a room imports only from the rows above it", bold=True),
        f'<line x1="30" y1="{TOP}" x2="30" y2="{bottom - GAP}" stroke="{FAINT}" stroke-width="1.6"'
        ' marker-end="url(#a)"/>',
    ]
    for k, row in enumerate(rows):
        width = (WIDTH - GAP * (len(row) - 1)) / len(row)
        for n, room in enumerate(row):
            lines += _box(room, LEFT + n * (width + GAP), TOP + k * (HEIGHT + GAP), width)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _box(room: str, x: float, y: float, width: float) -> list[str]:
    holds, colour = ROOMS[room]
    is_package = (HERE.parents[1] / "src" / "brainlit" / room).is_dir()
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="5" fill="{PAPER}" stroke="{FAINT}"/>',
        f'<rect x="{x:g}" y="{y:g}" width="7" height="{HEIGHT}" rx="2" fill="{colour}"/>',
        _text(x + 12, y + 19, 14, room + ("/" if is_package else ".py"), bold=True),
        _text(x + 12, y + 36, 12, holds),
    ]


def _text(x: float, y: float, size: int, words: str, *, bold: bool = False) -> str:
    look = f'font-weight="bold" fill="{INK}"' if bold else f'fill="{FAINT}"'
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {look}>{escape(words)}</text>'


if __name__ == "__main__":
    (HERE / "house.svg").write_text(picture(), encoding="utf-8")
