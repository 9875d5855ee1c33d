"""Alignment of every layer at several epochs: the table of the callback LayerCurve, and its figure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.results.look import Figure, house_style, new_figure, render
from brainlit.results.record import ProbeRecord
from brainlit.results.region_scores import mean_score
from brainlit.store.atomic import atomic_path

TABLE_FILE = "layer_curve.csv"
MAX_PANELS = 4
FEWEST_EPOCHS = 3
"""With fewer, the figure of layers before and after says it all."""


@dataclass(frozen=True)
class CurveRow:
    """Alignment (mean r over voxels and subjects) of one layer alone in one region after some epochs."""

    epoch: int
    step: int
    layer: int
    region: str
    r: float
    low: float | None
    high: float | None
    n_voxels: int


def write_curve(path: Path, rows: Iterable[CurveRow]) -> Path:
    """Write the rows as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[field.name for field in fields(CurveRow)])
        writer.writeheader()
        writer.writerows(vars(row) for row in rows)
    return path


def read_curve(path: Path) -> list[CurveRow]:
    """The rows again; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            CurveRow(
                epoch=int(row["epoch"]),
                step=int(row["step"]),
                layer=int(row["layer"]),
                region=row["region"],
                r=float(row["r"]),
                low=float(row["low"]) if row["low"] else None,
                high=float(row["high"]) if row["high"] else None,
                n_voxels=int(row["n_voxels"]),
            )
            for row in csv.DictReader(file)
        ]


def curve_of(path: Path, records: Sequence[ProbeRecord]) -> list[dict[str, Any]]:
    """Layers and epochs of a run for its summary: those of its table, else those that its probes measured."""
    rows = read_curve(path)
    if rows:
        return [{"epoch": row.epoch, "layer": row.layer, "region": row.region, "r": _known(row.r)} for row in rows]
    keys = {(record.epoch, *key[:2]): None for record in records for key in record.table.keys if key[2] == "r_backbone"}
    found = []
    for epoch, region, layer in sorted(keys):
        own = [record.table.get(region, layer, "r_backbone") for record in records if record.epoch == epoch]
        value = mean_score([row.score for row in own if row is not None]).value
        found.append({"epoch": epoch, "layer": layer, "region": region, "r": _known(value)})
    return found


def layer_epochs_figure(summary: Mapping[str, Any], regions: Sequence[str]) -> Figure | None:
    """Alignment of layers (up) over epochs (to the right), a panel per region; None below FEWEST_EPOCHS epochs."""
    rows = summary.get("layer_epochs", [])
    epochs, layers = sorted({row["epoch"] for row in rows}), sorted({row["layer"] for row in rows})
    shown = [name for name in regions if any(row["region"] == name for row in rows)][:MAX_PANELS]
    if len(epochs) < FEWEST_EPOCHS or len(layers) < 2 or not shown:
        return None
    tables = {region: _table(rows, region, layers, epochs) for region in shown}
    top = float(np.nanmax([np.nanmax(np.abs(table)) for table in tables.values()])) or 1.0

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (region, table) in zip(panels, tables.items(), strict=True):
            image = axes.imshow(table, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-top, vmax=top)
            axes.set_title(region.replace("_", " "))
            axes.set_xticks(range(len(epochs)), [str(epoch) for epoch in epochs])
            axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
            axes.set_xlabel("epochs trained")
            axes.grid(visible=False)
        panels[0].set_ylabel("layer (0 = input)")
        figure.colorbar(image, ax=list(panels), label="held-out correlation r")

    with house_style():
        figure = new_figure(2.6 * len(shown) + 1.6, 3.6)
        draw(figure)
        first, table = next(iter(tables.items()))
        best = [layers[int(np.nanargmax(table[:, k]))] for k in range(len(epochs))]
        said = ", ".join(f"epoch {epoch}: layer {layer}" for epoch, layer in zip(epochs, best, strict=True))
        alt = f"Alignment of each layer over epochs. Best layer in {first}: {said}."
        caption = "Each layer alone, mean over subjects, on the scored stories. White is 0."
        return Figure("layer_epochs", render(figure, "png"), render(figure, "svg"), alt, caption)


def _table(rows: Sequence[Mapping[str, Any]], region: str, layers: list[int], epochs: list[int]) -> Any:
    table = np.full((len(layers), len(epochs)), np.nan)
    for row in rows:
        if row["region"] == region and row["r"] is not None:
            table[layers.index(row["layer"]), epochs.index(row["epoch"])] = row["r"]
    return table


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
