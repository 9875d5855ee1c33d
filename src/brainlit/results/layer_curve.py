"""Alignment of every layer at several epochs: the table of the callback LayerCurve, and what a summary says of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.encoding.statistics import mean_score
from brainlit.files import write_csv
from brainlit.guard import file_guard, read_csv
from brainlit.results.record import ProbeRecord

TABLE_FILE = "layer_curve.csv"


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
    return write_csv(path, [field.name for field in fields(CurveRow)], map(vars, rows))


def read_curve(path: Path) -> list[CurveRow]:
    """The rows again; none where there is no file."""
    if not path.exists():
        return []
    what, cure = "a curve of layers", "Move it away; the layers that were probed are then shown."
    rows = read_csv(path, what, cure, "epoch")
    with file_guard(path, what, cure):
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
            for row in rows
        ]


def curve_of(path: Path, records: Sequence[ProbeRecord]) -> list[dict[str, Any]]:
    """Layers and epochs of a run for its summary: those of its table, else those that its probes measured."""
    rows = read_curve(path)
    if rows:
        return [{"epoch": row.epoch, "layer": row.layer, "region": row.region, "r": _known(row.r)} for row in rows]
    keys = {(record.epoch, *key[:2]): None for record in records for key in record.table.keys if key[2] == "r_backbone"}
    found = []
    for epoch, region, layer in sorted(keys):
        own = [record for record in records if record.epoch == epoch]
        alone = [row for record in own if (row := record.table.get(region, layer, "r_backbone")) is not None]
        value = mean_score([row.score for row in alone]).value
        found.append({"epoch": epoch, "layer": layer, "region": region, "r": _known(value)})
    return found


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
