"""A probe's result as one HDF5 file: plain arrays and JSON, no pickle, written under a temporary name and renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from brainlit.encoding.result import ProbeResult

FORMAT = "brainlit-probe"
VERSION = 1
SLASH = ":"
"""For the slash in names of sub-bands, which would make groups in a file."""
_ARRAYS = ("r", "r2", "observed", "score_groups", "used")
_SAVED_PREDICTIONS = ("backbone", "low_level", "backbone+low_level")
"""Models whose predictions are saved besides the joint one: those that bootstraps of the low-level share need."""
_TABLES = ("r_by_model", "r2_by_model", "split", "partition", "impact", "r_rest", "predictions")
_LATER_TABLES = ("rest_predictions", "gamma_ranking", "alpha_index", "sub_split", "sub_unique")
"""Tables that files of earlier versions of brainlit do not have; they are empty then."""


def save_probe(result: ProbeResult, path: str | Path) -> Path:
    """Write the result; an existing file is replaced at once and never left half written.

    Returns
    -------
    Path
        The file.
    """
    import h5py

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            _write(result, file)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def load_probe(path: str | Path) -> ProbeResult:
    """Read what `save_probe` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file is something else, or of a later version.
    """
    import h5py

    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no probe at {source}; it is written when a run's probe has finished.")
    with h5py.File(source, "r") as file:
        form, version = file.attrs.get("format"), int(file.attrs.get("version", 0))
        if form != FORMAT or version > VERSION:
            raise ValueError(
                f"{source} is {form!r} version {version}; this brainlit reads {FORMAT!r} up to version {VERSION}."
            )
        return _read(file)


def _write(result: ProbeResult, file: Any) -> None:
    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    file.attrs["meta"] = json.dumps(dict(result.meta))
    file.attrs["alpha_at_edge"] = json.dumps(dict(result.alpha_at_edge))
    file.attrs["n_dropped"] = result.n_dropped
    for name in _ARRAYS:
        file.create_dataset(name, data=getattr(result, name))
    if result.ceiling is not None:
        file.create_dataset("ceiling", data=result.ceiling)
    for name in (*_TABLES, *_LATER_TABLES):
        table = file.create_group(name, track_order=True)
        for key, values in getattr(result, name).items():
            if name != "predictions" or key in (*_SAVED_PREDICTIONS, result.joint):
                table.create_dataset(key.replace("/", SLASH), data=values)


def _read(file: Any) -> ProbeResult:
    fields: dict[str, Any] = {name: np.asarray(file[name]) for name in _ARRAYS}
    for name in (*_TABLES, *_LATER_TABLES):
        fields[name] = _read_table(file[name]) if name in file else {}
    return ProbeResult(
        **fields,
        ceiling=np.asarray(file["ceiling"]) if "ceiling" in file else None,
        alpha_at_edge=json.loads(file.attrs["alpha_at_edge"]),
        n_dropped=int(file.attrs["n_dropped"]),
        meta=json.loads(file.attrs["meta"]),
    )


def _read_table(group: Any) -> dict[str, Any]:
    return {key.replace(SLASH, "/"): np.asarray(values) for key, values in group.items()}
