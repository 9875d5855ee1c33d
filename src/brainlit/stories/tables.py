"""Tables of numbers as laboratories hand them over: one row per volume, one column per voxel or region."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.hints import did_you_mean

FloatArray = npt.NDArray[np.float64]

_SEPARATORS = {".txt": None, ".dat": None, ".1d": None, ".csv": ",", ".tsv": "\t"}
_HDF5 = (".h5", ".hdf5", ".hf5", ".hdf")
_MISSING = {"", "na", "n/a", "nan", "null", "none"}


class TableError(ValueError):
    """A table that cannot be read; the message names file, place, cause and cure."""


@dataclass(frozen=True)
class Table:
    """Values (n_rows, n_columns), NaN where a cell is empty, and the names of the columns if the file has them."""

    values: FloatArray
    columns: tuple[str, ...] | None


def read_table(path: Path, dataset: str | None = None) -> Table:
    """Read .txt (spaces), .csv, .tsv, .npy or HDF5; text files may have one header line.

    Parameters
    ----------
    dataset : str, optional
        Name inside an HDF5 file; may be left out where the file holds only one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TableError
        If the format is unknown, a cell is no number, or the table is not two-dimensional.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Check the path in the manifest, and its root.")
    suffix = path.suffix.lower()
    columns: tuple[str, ...] | None = None
    if suffix in _SEPARATORS:
        values, columns = _read_text(path, _SEPARATORS[suffix])
    elif suffix == ".npy":
        values = _read_npy(path)
    elif suffix in _HDF5:
        values = _read_hdf5(path, dataset)
    else:
        known = ", ".join([*_SEPARATORS, ".npy", *_HDF5])
        raise TableError(f"{path}: tables of type {suffix!r} are not read; known: {known}.")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or 0 in values.shape:
        raise TableError(f"{path} has shape {values.shape}; need (n_rows, n_columns), one row per volume.")
    return Table(values, columns)


def _read_text(path: Path, separator: str | None) -> tuple[FloatArray, tuple[str, ...] | None]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    cells = [(n, _cells(line, separator)) for n, line in enumerate(lines, 1) if line.strip()]
    columns: tuple[str, ...] | None = None
    if cells and not any(_is_number(cell) for cell in cells[0][1]):
        columns = tuple(cells.pop(0)[1])
    n_columns = len(columns) if columns else (len(cells[0][1]) if cells else 0)
    for n, row in cells:
        if len(row) != n_columns:
            raise TableError(f"{path}, line {n}: {len(row)} columns, but {n_columns} in the lines before.")
    return np.array([_numbers(path, n, row) for n, row in cells], dtype=np.float64), columns


def _cells(line: str, separator: str | None) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(separator)]


def _is_number(cell: str) -> bool:
    if cell.lower() in _MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, line: int, row: list[str]) -> list[float]:
    bad = [cell for cell in row if not _is_number(cell)]
    if bad:
        raise TableError(f"{path}, line {line}: {bad[0]!r} is no number. Empty, nan and n/a mark missing values.")
    return [float("nan") if cell.lower() in _MISSING else float(cell) for cell in row]


def _read_npy(path: Path) -> FloatArray:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (ValueError, EOFError) as error:
        raise TableError(f"{path} is not a readable .npy array of numbers: {error}.") from error


def _read_hdf5(path: Path, dataset: str | None) -> FloatArray:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            if dataset is None and len(names) != 1:
                raise TableError(f"{path} holds {len(names)} datasets ({', '.join(names[:9])}); name one: 'dataset'.")
            chosen = dataset or names[0]
            if chosen not in names:
                raise TableError(f"{path} holds no dataset {chosen!r}. {did_you_mean(chosen, names)}")
            return np.asarray(file[chosen][()], dtype=np.float64)
    except OSError as error:
        raise TableError(f"{path} is not a readable HDF5 file: {error}. Was it cut off while copying?") from error
