from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brainlit.results.figures import summary_figures
from brainlit.results.marks import MOST_OF_A_LINE, Mark, PlacedMark, marks_json, point, thinned
from brainlit.results.metrics import read_metrics
from brainlit.results.run_directory import RunDirectory
from brainlit.results.style import Figure, draw_figure, part_label
from brainlit.results.summary import build_summary

METRICS = {"r_backbone": "r", "r_together": "r of all voxels together", "r_over_ceiling": "r / ceiling"}


@pytest.fixture(scope="module")
def figures(run: RunDirectory) -> dict[str, Figure]:
    drawn = (job() for _, job in summary_figures(build_summary(run), read_metrics(run.path / "metrics.csv")))
    return {figure.name: figure for figure in drawn if figure is not None}


def rows(figure: Figure) -> list[dict[str, str]]:
    return [row for row in csv.DictReader(io.StringIO(figure.csv)) if row.get("value", row.get("r")) not in ("", None)]


def words(row: dict[str, str], digits: int = 3) -> str:
    if not row["low"]:
        return f"{float(row['value']):.{digits}f}, no interval"
    ends = " to ".join(f"{float(row[end]):.{digits}f}" for end in ("low", "high"))
    return f"{float(row['value']):.{digits}f}, 95 % interval {ends}"


def scored(row: dict[str, str]) -> str:
    voxels, subjects = int(row["n_voxels"]), int(row["n_subjects"])
    return f"{voxels} voxel{'s' * (voxels != 1)}, {subjects} subject{'s' * (subjects != 1)}"


def epochs(number: str) -> str:
    return "1 epoch" if number == "1" else f"{number} epochs"


def expected(name: str, row: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """What a page must say of a row of the figure's CSV; nothing of differences, which no figure draws."""
    region = row["region"].replace("_", " ") if "region" in row else ""
    if name == "layer_epochs":
        yield f"{region}, layer {row['layer']}, {epochs(row['epoch'])}", f"r {float(row['r']):.3f}", ""
    elif name == "learning" and row["what"] != "r_backbone":
        yield f"{row['what']}, step {float(row['step']):g}", f"{float(row['value']):.4g}", ""
    elif name == "learning":
        yield f"{region}, {epochs(row['epoch'])}", f"r {words(row)}", "counts"
    elif row["stage"] == "difference":
        return
    elif row["metric"] == "ceiling":
        if row["stage"] == "after":  # before it is the same
            what = f"{region}, noise ceiling" if name == "alignment" else region
            yield what, f"{'r' if name == 'alignment' else 'ceiling'} {words(row)}", scored(row)
    elif name == "partition":
        part = part_label(row["metric"].removeprefix("partition_"))
        yield f"{region}, {row['stage']} tuning, {part}", f"R² {words(row, 4)}", scored(row)
    else:
        layer = f"layer {row['layer']}, " if name == "layers" else ""
        yield f"{region}, {layer}{row['stage']} tuning", f"{METRICS[row['metric']]} {words(row)}", scored(row)


@pytest.mark.parametrize("name", ["alignment", "ceilings", "partition", "layers", "layer_epochs", "learning"])
def test_what_a_figure_says_under_the_pointer_is_what_its_csv_has(figures: dict[str, Figure], name: str) -> None:
    figure = figures[name]
    from_csv = sorted(said for row in rows(figure) for said in expected(name, row))
    shown = sorted((mark.what, mark.numbers, mark.n) for mark in figure.marks)
    if name == "learning":  # its CSV has no counts
        shown = sorted((what, numbers, "counts" if n else "") for what, numbers, n in shown)
    assert len(shown) >= 6
    assert shown == from_csv


def test_a_mark_lies_where_its_bar_is_drawn() -> None:
    colour = "#123456"

    def draw(figure: Any) -> list[Mark]:
        _, axes = figure.subplots(1, 2)
        axes.bar(1.0, 0.5, 0.4, color=colour)
        axes.set(xlim=(0, 3), ylim=(-0.2, 1))
        return [Mark(axes, (0.8, 1.2), (0.0, 0.5), "bar", "0.5"), point(axes, 1.0, 0.5, "its end")]

    figure = draw_figure("test", draw, (7, 3), "alt", "caption")
    seen = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    ys, xs = np.nonzero((seen == [0x12, 0x34, 0x56]).all(axis=2))
    height, width = seen.shape[:2]
    end, bar = sorted(figure.marks, key=lambda mark: mark.box[2])
    left, top, across, down = bar.box
    drawn = (xs.min() / width, ys.min() / height, np.ptp(xs) / width, np.ptp(ys) / height)
    assert (left, top, across, down) == pytest.approx([100 * share for share in drawn], abs=0.6)
    assert end.box == pytest.approx((left + across / 2, top, 0, 0), abs=0.02)


def test_no_word_of_a_mark_ends_the_script_of_the_page() -> None:
    text = marks_json([PlacedMark((0, 0, 1, 1), "</script><b>", "r 0.1", "")])
    assert "<" not in text
    assert json.loads(text) == [[0, 0, 1, 1, "</script><b>", "r 0.1", ""]]


@pytest.mark.parametrize("n", [0, 1, MOST_OF_A_LINE, MOST_OF_A_LINE + 1, 1000])
def test_a_long_line_has_few_marks_and_its_last_point(n: int) -> None:
    kept = thinned(range(n))
    assert len(kept) <= MOST_OF_A_LINE
    assert kept[-1:] == list(range(n))[-1:]
    assert len(set(np.diff(kept))) <= 1
