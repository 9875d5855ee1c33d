"""Arrays and a record of plain values in one .npz file, without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from brainlit.store.atomic import atomic_path

FORMAT = 1

Arrays = Mapping[str, npt.NDArray[Any]]


def save_npz(path: Path, record: Mapping[str, Any], arrays: Arrays) -> Path:
    """Write both, atomically; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **record})
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, record=np.asarray(text), **cast(Any, arrays))
    return path


def load_npz(path: Path, what: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The record and the arrays of a file that `save_npz` wrote.

    Parameters
    ----------
    what : str
        What the file should hold, for the error.

    Raises
    ------
    ValueError
        If it holds something else.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    record = json.loads(str(arrays.pop("record", "{}")))
    if record.pop("format", None) != FORMAT:
        raise ValueError(f"{path} holds no {what} of this version; run `brainlit downstream` again.")
    return record, arrays
