"""Some voxels at a time: a probe's result for a share of them, put back in place, and carried between processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from brainlit.store.atomic import atomic_path

if TYPE_CHECKING:
    from brainlit.encoding.probe import ProbeResult
    from brainlit.encoding.warm import WarmStart

IntArray = npt.NDArray[np.int64]

PER_VOXEL = ("r", "r2", "observed", "used", "ceiling")
PER_VOXEL_TABLES = (
    *("r_by_model", "r2_by_model", "split", "partition", "impact", "r_rest", "predictions", "rest_predictions"),
    *("gamma_ranking", "alpha_index", "sub_split", "sub_unique"),
)


def usable_voxels(responses: npt.NDArray[np.floating], fit: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Voxels that are finite and change on the rows that are fitted on, (n_voxels,); scored rows are not looked at."""
    rows = responses[fit]
    return np.asarray(np.isfinite(rows).all(axis=0) & (rows != rows[:1]).any(axis=0))


def share_of(columns: IntArray, rank: int, n_ranks: int) -> IntArray:
    """The voxels of one process: neighbours, as many as those of the others but for one."""
    return np.asarray(np.array_split(columns, n_ranks)[rank])


def spread_result(result: ProbeResult, columns: IntArray, n_voxels: int, n_left_out: int = 0) -> ProbeResult:
    """The result of some voxels on the full set: NaN (False, -1) for the others.

    Parameters
    ----------
    columns : int array of shape (n_probed,)
        Which voxels the result is about.
    n_left_out : int
        How many of the others were left out to save time; the rest counts as dropped.
    """

    def place(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        fill: Any = {"b": False, "i": -1}.get(values.dtype.kind, np.nan)
        whole = np.full((*values.shape[:-1], n_voxels), fill, dtype=values.dtype)
        whole[..., columns] = values
        return whole

    arrays: dict[str, Any] = {
        name: None if (own := getattr(result, name)) is None else place(own) for name in PER_VOXEL
    }
    tables: dict[str, Any] = {
        name: {key: place(v) for key, v in getattr(result, name).items()} for name in PER_VOXEL_TABLES
    }
    n_dropped = n_voxels - int(result.used.sum()) - n_left_out
    return replace(result, **arrays, **tables, n_dropped=n_dropped)


def narrow_start(start: WarmStart, columns: IntArray) -> WarmStart:
    """The warm start of some of its voxels."""
    return replace(start, ranking={model: best[:, columns] for model, best in start.ranking.items()})


def save_part(result: ProbeResult, path: Path) -> None:
    """Write a result with all its predictions, for another process to read; atomically."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    plain: dict[str, Any] = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif field.name in PER_VOXEL_TABLES:
            arrays |= {f"{field.name}/{key}": array for key, array in value.items()}
        else:
            plain[field.name] = dict(value) if isinstance(value, Mapping) else value
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, plain=np.array(json.dumps(plain)), **arrays)  # type: ignore[arg-type]


def load_part(path: Path) -> ProbeResult:
    """Read what `save_part` wrote."""
    from brainlit.encoding.probe import ProbeResult

    with np.load(path, allow_pickle=False) as stored:
        values: dict[str, Any] = {name: {} for name in PER_VOXEL_TABLES}
        values |= json.loads(str(stored["plain"]))
        for name in stored.files:
            table, _, key = name.partition("/")
            if key:
                values[table][key] = stored[name]
            elif name != "plain":
                values[name] = stored[name]
    return ProbeResult(**values)
