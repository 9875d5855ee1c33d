"""What one probe of one subject leaves on disk: runs/<experiment>/<id>/probes/<subject>/epoch-<n>.h5.

The file is that of `ProbeResult.save` (per-voxel arrays and predictions) with one more group, `record`: the
score table with its bootstrap replicates, where the voxels lie, and the facts that a reader needs to check a number.
Several records make a tidy table: one row per subject, region, layer and metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, Float32Array, FloatArray
from brainlit.encoding.statistics import Score
from brainlit.files import atomic_path, write_csv
from brainlit.guard import UnreadableFileError, file_guard
from brainlit.hdf5 import (
    new_file,
    read_json_text,
    read_text,
    refuse_outside,
    write_array,
    write_json_text,
    write_text,
)
from brainlit.results.scores import ScoreRow, ScoreTable

if TYPE_CHECKING:
    from brainlit.encoding.result import ProbeResult
    from brainlit.splits import Span

PROBES_BEFORE = "probes_before"
"""Entry of run.json: where the probes before training came from, by the name of their data."""
READ_FROM = "read from "
"""How it begins where another run made the probe."""
GROUP = "record"
_CURE = "Probe again (`brainlit probe RUN`), or fetch the file again from where it is whole."
ATTRIBUTES: dict[str, Any] = {"subject": str, "stage": str, "epoch": int, "step": int, "layer": int, "fingerprint": str}
COLUMNS = (
    "stage", "epoch", "step", "subject", "region", "layer", "metric", "value", "low", "high", "n_voxels",
    "n_trs", "n_stories",
)  # fmt: skip


@dataclass(frozen=True)
class ProbeRecord:
    """One probe of one subject, without the predictions.

    Parameters
    ----------
    stage : str
        'before', 'during' or 'after'.
    epoch, step : int
        Epochs and optimiser steps trained before the probe.
    layer : int
        The layer that the bands were compared on, fixed before training.
    fingerprint : str
        Hash of everything that decides the numbers besides the weights; two records can be compared where it agrees.
    r : array of shape (n_voxels,)
        Alignment of `layer`, NaN where dropped.
    ceiling : array of shape (n_voxels,) or None
    regions : mapping of name to bool array of shape (n_voxels,)
        As scored: without dropped voxels, with all voxels.
    vertices : int array of shape (n_voxels,) or None
        On fsaverage5.
    coordinates_mm : array of shape (n_voxels, 3) or None
        Centres of voxels in a volume; None in files of before it was kept, and where there are vertices. `facts` has
        the `space` of the millimetres where it is known to be a standard one.
    r_by_layer : mapping of layer to float32 array of shape (n_voxels,)
        Alignment of every layer of the curve; empty in files of before it was kept.
    facts : mapping
        Plain JSON: stories, rows, delays, alphas, solver, seed, repeats, warnings.
    """

    subject: str
    stage: str
    epoch: int
    step: int
    layer: int
    fingerprint: str
    table: ScoreTable
    r: FloatArray
    ceiling: FloatArray | None = None
    regions: Mapping[str, BoolArray] = field(default_factory=dict)
    vertices: npt.NDArray[np.int64] | None = None
    coordinates_mm: FloatArray | None = None
    r_by_layer: Mapping[int, Float32Array] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def record_path(probes: Path, subject: str, epoch: int) -> Path:
    """Where the record of a subject and an epoch lies."""
    return probes / subject / f"epoch-{epoch:03d}.h5"


def save_record(record: ProbeRecord, result: ProbeResult, probes: Path) -> Path:
    """Write result and record as one file, atomically."""
    path = record_path(probes, record.subject, record.epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        result.save(temporary)
        with new_file(temporary, "a") as file:
            _write_group(file.create_group(GROUP), record)
    return path


def load_record(path: Path) -> ProbeRecord:
    """Read what `save_record` wrote.

    Raises
    ------
    UnreadableFileError
        If the file holds no record, or is not what was written.
    """
    import h5py

    with file_guard(path, "the record of a probe", _CURE), h5py.File(path, "r") as file:
        refuse_outside(file)
        if GROUP not in file:
            raise UnreadableFileError(
                f"{path} holds no probe record; it was not written by the probe callback. {_CURE}"
            )
        return _read_group(file[GROUP])


def record_files(probes: Path) -> list[Path]:
    """The files of all subjects, by epoch and subject."""
    return sorted(sorted(probes.glob("*/epoch-*.h5")), key=lambda file: int(file.stem.removeprefix("epoch-")))


def find_records(probes: Path) -> list[ProbeRecord]:
    """All records of a run, by epoch and subject; those of held-out data sets, in folders of their own, are not."""
    return [load_record(path) for path in record_files(probes)]


def find_held_out(probes: Path) -> dict[str, list[ProbeRecord]]:
    """The records of each held-out data set, probes/<name>/<subject>/epoch-<n>.h5, by its name."""
    names = sorted({path.parent.parent.name for path in probes.glob("*/*/epoch-*.h5")})
    return {name: find_records(probes / name) for name in names}


def tuned_facts(fit: Sequence[Span], tune: Sequence[Span]) -> dict[str, Any]:
    """What a record's facts say where encoding models are fitted on rows that the model is tuned on; else nothing."""
    both = [one.story for one in fit if any(one.story == other.story and one.gap_trs(other) < 0 for other in tune)]
    n_fit = len(dict.fromkeys(span.story for span in fit))
    return {"fitted_on_tuned": list(dict.fromkeys(both)), "n_fit_stories": n_fit} if both else {}


def fitted_on_tuned_said(facts: Mapping[str, Any]) -> str:
    """The same in a sentence, for whoever reads the numbers; empty where no such story was fitted on."""
    both = facts.get("fitted_on_tuned") or []
    if not both:
        return ""
    n, n_all = len(both), facts.get("n_fit_stories", len(both))
    return (
        f"Encoding models were fitted on stories that the model was tuned on ({n} of {n_all}): their weights were"
        " learned where the tuned model knows what comes, and are scored where it does not."
    )


def folds_said(facts: Mapping[str, Any]) -> str:
    """What was scored fold by fold, in words; empty where fixed rows were.

    >>> folds = {"n": 5, "within_stories": True, "purge_trs": 14}
    >>> folds_said({"folds": folds, "n_score_trs": 357, "n_fit_trs_by_fold": [262, 276, 262]})
    '5 folds, every row scored once, 357 TRs; each fitted on the others (262 to 276 TRs), 14 TRs purged on both sides'
    """
    folds = facts.get("folds")
    if not folds:
        return ""
    n_fit = facts.get("n_fit_trs_by_fold") or [facts.get("n_fit_trs")]
    fitted = f"{min(n_fit)} to {max(n_fit)}" if min(n_fit) != max(n_fit) else str(n_fit[0])
    apart = f"{folds['purge_trs']} TRs purged on both sides" if folds["within_stories"] else "whole stories held out"
    return (
        f"{folds['n']} folds, every row scored once, {facts.get('n_score_trs')} TRs; each fitted on the others"
        f" ({fitted} TRs), {apart}"
    )


def table_rows(records: Iterable[ProbeRecord]) -> list[dict[str, Any]]:
    """The scores of the records as plain rows; `low` and `high` bound the 95 % interval, empty where there is none."""
    rows = []
    for record in records:
        common = {"stage": record.stage, "epoch": record.epoch, "step": record.step, "subject": record.subject}
        n_stories, n_trs = len(record.facts.get("score_stories", [])), record.facts.get("n_score_trs")
        of_some = record.facts.get("words", {}).get("n_trs", {})
        for row in record.table.rows:
            stimulus = {"n_trs": of_some.get(row.metric, n_trs), "n_stories": n_stories}
            where = {"region": row.region, "layer": row.layer, "metric": row.metric, "n_voxels": row.n_voxels}
            rows.append({**common, **where, **row.score.json(), **stimulus})
    return rows


def write_table(records: Iterable[ProbeRecord], path: Path) -> Path:
    """Write the rows as CSV, atomically."""
    return write_csv(path, COLUMNS, table_rows(records))


def _write_group(group: Any, record: ProbeRecord) -> None:
    rows = record.table.rows
    n_bootstraps = max((len(row.score.replicates) for row in rows if row.score.replicates is not None), default=0)
    replicates = np.full((len(rows), n_bootstraps), np.nan, dtype=np.float32)
    known = np.array([row.score.replicates is not None for row in rows])
    for k in np.flatnonzero(known):
        replicates[k] = rows[k].score.replicates
    write_json_text(group, "rows", [[row.region, row.layer, row.metric, row.n_voxels] for row in rows])
    write_array(group, "values", np.array([row.score.value for row in rows], dtype=np.float64))
    write_array(group, "has_replicates", known)
    write_array(group, "replicates", replicates, compression="gzip")
    write_array(group, "r", record.r)
    for name in ("ceiling", "vertices"):
        if getattr(record, name) is not None:
            write_array(group, name, getattr(record, name))
    if record.coordinates_mm is not None:
        write_array(group, "coordinates_mm", record.coordinates_mm, compression="gzip", shuffle=True)
    if record.r_by_layer:
        write_json_text(group, "layers", list(record.r_by_layer))
        write_array(group, "r_by_layer", np.stack([*record.r_by_layer.values()]).astype(np.float32))
    write_json_text(group, "region_names", list(record.regions))
    regions = np.array(list(record.regions.values()), dtype=np.bool_).reshape(-1, len(record.r))
    write_array(group, "regions", regions)
    for name, kind in ATTRIBUTES.items():
        if kind is str:
            write_text(group, name, getattr(record, name))
        else:
            group.attrs[name] = getattr(record, name)
    write_json_text(group, "facts", dict(record.facts))


def _read_group(group: Any) -> ProbeRecord:
    values, replicates, has = group["values"][:], group["replicates"][:], group["has_replicates"][:]
    rows = [
        ScoreRow(region, layer, metric, n_voxels, Score(float(value), rep.astype(np.float64) if known else None))
        for (region, layer, metric, n_voxels), value, rep, known in zip(
            read_json_text(group, "rows"), values, replicates, has, strict=True
        )
    ]
    attributes: dict[str, Any] = {
        name: read_text(group, name) if kind is str else kind(group.attrs[name]) for name, kind in ATTRIBUTES.items()
    }
    return ProbeRecord(
        **attributes,
        table=ScoreTable(rows),
        r=group["r"][:],
        ceiling=group["ceiling"][:] if "ceiling" in group else None,
        regions=dict(zip(read_json_text(group, "region_names"), group["regions"][:], strict=True)),
        vertices=group["vertices"][:] if "vertices" in group else None,
        coordinates_mm=group["coordinates_mm"][:] if "coordinates_mm" in group else None,
        r_by_layer=dict(zip(read_json_text(group, "layers"), group["r_by_layer"][:], strict=True))
        if "r_by_layer" in group
        else {},
        facts=read_json_text(group, "facts"),
    )
