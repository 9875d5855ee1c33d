"""Which weights are meant, for the keys of what was computed from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def stamp_of_weights(weights: str) -> dict[str, Any]:
    """A hub id as it is; of a folder its name with the names, sizes and times of its files, which change with them.

    A folder elsewhere with other times is taken for other weights: computed twice rather than mistaken.
    """
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        return {"name": weights}
    files = sorted(path for path in folder.iterdir() if path.is_file())
    stats = [(path.name, path.stat()) for path in files]
    return {"name": folder.resolve().name, "files": [[name, s.st_size, s.st_mtime_ns] for name, s in stats]}
