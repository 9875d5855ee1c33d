"""Tidy tables: one row per subject, region, layer and metric."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from brainlit.results.record import ProbeRecord
from brainlit.store.atomic import atomic_path

COLUMNS = (
    "stage", "epoch", "step", "subject", "region", "layer", "metric", "value", "low", "high", "n_voxels",
    "n_trs", "n_stories",
)  # fmt: skip


def table_rows(records: Iterable[ProbeRecord]) -> list[dict[str, Any]]:
    """The scores of the records as plain rows; `low` and `high` bound the 95 % interval, empty where there is none."""
    rows = []
    for record in records:
        common = {"stage": record.stage, "epoch": record.epoch, "step": record.step, "subject": record.subject}
        stimulus = {"n_trs": record.facts.get("n_score_trs"), "n_stories": len(record.facts.get("score_stories", []))}
        for row in record.table.rows:
            where = {"region": row.region, "layer": row.layer, "metric": row.metric, "n_voxels": row.n_voxels}
            rows.append({**common, **where, **row.score.json(), **stimulus})
    return rows


def write_table(records: Iterable[ProbeRecord], path: Path) -> Path:
    """Write the rows as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(table_rows(records))
    return path


def read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Columns of metrics.csv as (step, value) pairs; empty where the file is absent."""
    curves: dict[str, list[tuple[float, float]]] = {}
    if not path.exists():
        return curves
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name != "step" and text and row.get("step"):
                    curves.setdefault(name, []).append((float(row["step"]), float(text)))
    return curves
