"""Tables of numbers as laboratories hand them over: one row per volume, one column per voxel or region."""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from xml.parsers.expat import ExpatError
from zipfile import BadZipFile

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import Float32Array, FloatArray, SourceError

_SEPARATORS = {".txt": None, ".dat": None, ".1d": None, ".csv": ",", ".tsv": "\t"}
_HDF5 = (".h5", ".hdf5", ".hf5", ".hdf")
_MOST_COMPRESSED = 1032  # deflate reaches no more, so a header that says more is damaged
# What numpy, h5py, nibabel and their parsers raise on damaged bytes, besides errors of their own.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, SyntaxError,
           ArithmeticError, MemoryError, RuntimeError, BadZipFile, TokenError, ExpatError, zlib.error,
           struct.error)  # fmt: skip
_MISSING = {"", "na", "n/a", "nan", "null", "none"}


class TableError(SourceError):
    """A table that cannot be read; the message names file, place, cause and cure."""


@dataclass(frozen=True)
class Table:
    """Values (n_rows, n_columns), NaN where a cell is empty, and the names of the columns if the file has them."""

    values: FloatArray | Float32Array
    columns: tuple[str, ...] | None


def read_table(path: Path, dataset: str | None = None) -> Table:
    """Read .txt (spaces), .csv, .tsv, .npy or HDF5; text files may have one header line.

    Parameters
    ----------
    dataset : str, optional
        Name inside an HDF5 file; may be left out where the file holds only one.

    Raises
    ------
    TableError
        If the format is unknown, a cell is no number, or the table is not two-dimensional.
    """
    require_file(path)
    suffix = path.suffix.lower()
    columns: tuple[str, ...] | None = None
    if suffix in _SEPARATORS:
        values, columns = _read_text(path, _SEPARATORS[suffix])
    elif suffix == ".npy":
        with _readable(path, "a readable .npy array of numbers"):
            values = _as_float(path, np.load(path, allow_pickle=False))
    elif suffix in _HDF5:
        with _readable(path, "a readable HDF5 file"), _opened(path, dataset) as found:
            values = _as_float(path, found[()])
    else:
        known = ", ".join([*_SEPARATORS, ".npy", *_HDF5])
        raise TableError(f"{path}: tables of type {suffix!r} are not read; known: {known}.")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or 0 in values.shape:
        raise TableError(f"{path} has shape {values.shape}; need (n_rows, n_columns), one row per volume.")
    return Table(values, columns)


def count_rows(path: Path, dataset: str | None = None) -> int:
    """Number of rows of a table; of binary files only the header is read."""
    suffix = path.suffix.lower()
    if suffix not in (".npy", *_HDF5):
        return len(read_table(path).values)
    require_file(path)
    if suffix == ".npy":
        with _readable(path, "a readable .npy array of numbers"):
            shape = np.load(path, allow_pickle=False, mmap_mode="r").shape
    else:
        with _readable(path, "a readable HDF5 file"), _opened(path, dataset) as found:
            shape = found.shape
    if not shape or 0 in shape:
        raise TableError(f"{path} has shape {shape}; need (n_rows, n_columns), one row per volume.")
    return int(shape[0])


def _read_text(path: Path, separator: str | None) -> tuple[FloatArray, tuple[str, ...] | None]:
    cells = _split(path) if separator is None else read_cells(path, separator, TableError)
    columns: tuple[str, ...] | None = None
    if cells and not any(_is_number(cell) for cell in cells[0][1]):
        columns = tuple(cells.pop(0)[1])
    return np.array([_numbers(path, n, row) for n, row in cells], dtype=np.float64), columns


def _split(path: Path) -> list[tuple[int, list[str]]]:
    """Rows of a table that is separated by spaces or tabs."""
    lines = enumerate(read_lines(path, TableError), 1)
    rows = [(n, [cell.strip('"') for cell in line.split()]) for n, line in lines if line.strip()]
    for n, row in rows:
        if len(row) != len(rows[0][1]):
            raise TableError(f"{path}, line {n}: {len(row)} columns, but {len(rows[0][1])} in the lines before.")
    return rows


def _is_number(cell: str) -> bool:
    if cell.lower() in _MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def float_or_nan(cell: Any) -> float:
    """The number that a cell holds; NaN where it holds none."""
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _numbers(path: Path, line: int, row: list[str]) -> list[float]:
    bad = [cell for cell in row if not _is_number(cell)]
    if bad:
        raise TableError(f"{path}, line {line}: {bad[0]!r} is no number. Empty, nan and n/a mark missing values.")
    return [float("nan") if cell.lower() in _MISSING else float(cell) for cell in row]


@contextmanager
def _opened(path: Path, dataset: str | None) -> Iterator[Any]:
    """One dataset of an HDF5 file: the named one, or the only one."""
    import h5py

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        if dataset is None and len(names) != 1:
            raise TableError(f"{path} holds {len(names)} datasets ({', '.join(names[:9])}); name one: 'dataset'.")
        chosen = names[0] if dataset is None else dataset.strip("/")
        if chosen not in names:
            raise TableError(f"{path} holds no dataset {chosen!r}. {did_you_mean(chosen, names)}")
        found = file[chosen]
        if found.size is None or found.nbytes > _MOST_COMPRESSED * found.id.get_storage_size():
            raise TableError(f"{path}: dataset {chosen!r} of shape {found.shape} holds less data than that.")
        yield found


@contextmanager
def damage_as(error: type[SourceError], problem: str, cure: str, *also: type[Exception]) -> Iterator[None]:
    """Whatever a library stumbles over in a damaged file becomes one error: the problem, its cause and the cure."""
    damage: tuple[type[Exception], ...] = (*_DAMAGE, *also)
    try:
        yield
    except SourceError:
        raise
    except damage as cause:
        raise error(f"{problem}: {type(cause).__name__}: {cause}. {cure}") from cause


def _readable(path: Path, what: str) -> AbstractContextManager[None]:
    return damage_as(TableError, f"{path} is not {what}", "Was it cut off while copying?")


def _as_float(path: Path, values: Any) -> FloatArray:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise TableError(f"{path} holds {getattr(values, 'dtype', type(values).__name__)}; need an array of numbers.")
    return np.asarray(values, dtype=np.float64)


# --- Text files in one of the usual encodings, with any line ends ---

_BYTE_ORDER_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def require_file(path: Path, cure: str = "Check the path in the manifest, and its root.") -> Path:
    """The path, if it is a file that can be reached; else a FileNotFoundError with path and cure."""
    try:
        there = path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        there = False
    if not there:
        raise FileNotFoundError(f"{path} does not exist. {cure}")
    return path


def read_lines(path: Path, error: type[SourceError], cure: str = "Save it as UTF-8 text.") -> list[str]:
    """Lines of a text file in UTF-8, or in UTF-16 with its byte order mark; any line ends, none of them kept."""
    require_file(path)
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}.") from problem
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not {encoding.upper()} at byte {problem.start}. {cure}") from problem
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_cells(path: Path, separator: str, error: type[SourceError]) -> list[tuple[int, list[str]]]:
    """Rows of a table with their line numbers, blank lines left out; cells may stand in double quotes.

    Raises
    ------
    SourceError
        Of the given class, if a quotation mark is not closed, or a row has another number of cells than the first.
    """
    reader = csv.reader(read_lines(path, error), delimiter=separator, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 0
    try:
        for row in reader:
            if reader.line_num > line + 1:
                raise error(f"{path}, line {line + 1}: a cell goes on in the next line. Is a quotation mark missing?")
            line = reader.line_num
            if any(cell.strip() for cell in row):
                rows.append((line, [cell.strip() for cell in row]))
    except csv.Error as problem:
        raise error(f"{path}, line {line + 1}: {problem}. Is a quotation mark missing?") from problem
    for line, row in rows:
        if len(row) != len(rows[0][1]):
            raise error(f"{path}, line {line}: {len(row)} columns, but {len(rows[0][1])} in the lines before.")
    return rows
