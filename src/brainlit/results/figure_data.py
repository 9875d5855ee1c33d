"""The numbers behind each figure of a run as CSV, for whoever draws it again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from brainlit.results.summary import ALL_SUBJECTS

STAGES = ("before", "after", "difference")
SCORE_COLUMNS = ("region", "layer", "metric", "stage", "value", "low", "high", "n_voxels", "n_subjects")
MOST_VOXELS = 20_000
"""More than these are in the records of the probe alone: the page would grow by a megabyte for each map."""

Rows = Iterable[Mapping[str, Any]]


def csv_text(columns: Sequence[str], rows: Rows) -> str:
    """Rows as CSV with a head; what is None stays empty.

    >>> csv_text(["region", "r"], [{"region": "semantic", "r": 0.5}, {"region": "null", "r": None}])
    'region,r\\nsemantic,0.5\\nnull,\\n'
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def scores_csv(summary: Mapping[str, Any], metrics: Sequence[str], *, all_layers: bool = False) -> str:
    """Scores of all subjects together, a row for each region, layer, metric and stage, with 95 % intervals.

    Parameters
    ----------
    metrics : sequence of str
        Names, or beginnings that end in an underscore.
    all_layers : bool
        Of the compared layer alone where this is false.
    """
    layer, starts = summary["probe"].get("layer"), tuple(name for name in metrics if name.endswith("_"))
    return csv_text(
        SCORE_COLUMNS,
        (
            {**row, "stage": stage, **row[stage]}
            for row in summary["scores"]
            if row["subject"] == ALL_SUBJECTS and (all_layers or row["layer"] == layer)
            if row["metric"] in metrics or (starts and row["metric"].startswith(starts))
            for stage in STAGES
            if stage in row
        ),
    )


def learning_csv(summary: Mapping[str, Any], metrics: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Losses by optimiser step, and alignment by epoch, in one table."""
    return csv_text(("what", "region", "step", "epoch", "value", "low", "high"), _learning_rows(summary, metrics))


def _learning_rows(
    summary: Mapping[str, Any], metrics: Mapping[str, Sequence[tuple[float, float]]]
) -> Iterator[Mapping[str, Any]]:
    for name, points in metrics.items():
        yield from ({"what": name, "step": step, "value": value} for step, value in points)
    for row in summary["learning"]:
        if row["metric"] == "r_backbone":
            yield {**row, "what": row["metric"]}


def voxels_csv(columns: Mapping[str, Any]) -> str:
    """A row for each voxel of a map; nothing where there are more than MOST_VOXELS.

    Parameters
    ----------
    columns : mapping of name to array of shape (n_voxels,)
    """
    arrays = {name: values.tolist() for name, values in columns.items()}
    if len(next(iter(arrays.values()))) > MOST_VOXELS:
        return ""
    rows = zip(*arrays.values(), strict=True)
    return csv_text(list(arrays), (dict(zip(arrays, row, strict=True)) for row in rows))
