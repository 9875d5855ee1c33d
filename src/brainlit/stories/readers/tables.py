"""Tables of numbers as laboratories hand them over: one row per volume, one column per voxel or region."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.guard import DAMAGE, UnreadableFileError
from brainlit.stories.base import Float32Array, FloatArray, SourceError
from brainlit.stories.readers.arrays import ARRAYS, HDF5, TableError, array_shape, read_array

_SEPARATORS = {".txt": None, ".dat": None, ".1d": None, ".csv": ",", ".tsv": "\t"}

__all__ = ["MISSING", "Table", "TableError", "damage_as", "decimal_comma", "float_or_nan", "read_cells", "read_lines",
           "read_table", "require_file", "table_shape"]  # fmt: skip

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Table:
    """Values (n_rows, n_columns), NaN where a cell is empty, and what the file says of the columns.

    Parameters
    ----------
    columns : tuple of str or None
        Their names.
    places : VoxelMask, BrainModelAxis or None
        What they are, where they come from an image (`brainlit.stories.readers.images.Series`).
    """

    values: FloatArray | Float32Array
    columns: tuple[str, ...] | None
    places: Any = None


def read_table(
    path: Path,
    dataset: str | None = None,
    transposed: bool = False,
    repeat: int | None = None,
    dtype: type[np.float64] | type[np.float32] = np.float64,
) -> Table:
    """Read .txt (spaces), .csv, .tsv, .npy, .npz, .mat or HDF5; text files may have one header line.

    Parameters
    ----------
    dataset : str, optional
        Name inside an HDF5, .npz or .mat file; may be left out where the file holds only one.
    transposed : bool
        Whether the file has columns before rows.
    repeat : int, optional
        Which of an array of several presentations, (n_repeats, n_rows, n_columns).
    dtype : float32 or float64
        Of the values of an array; those of text files are float64.

    Raises
    ------
    TableError
        If the format is unknown, a cell is no number, or the table is not two-dimensional.
    """
    require_file(path)
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        with _readable(path, _kind(suffix)):
            return Table(read_array(path, dataset, transposed, repeat, dtype), None)
    if suffix not in _SEPARATORS:
        known = ", ".join([*_SEPARATORS, *ARRAYS])
        raise TableError(f"{path}: tables of type {suffix!r} are not read; known: {known}.")
    values, columns = _read_text(path, _SEPARATORS[suffix])
    if values.ndim != 2 or 0 in values.shape:
        raise TableError(f"{path} has shape {values.shape}; need (n_rows, n_columns), one row per volume.")
    return Table(values.T, None) if transposed else Table(values, columns)


def table_shape(path: Path, dataset: str | None = None, transposed: bool = False) -> tuple[int, ...]:
    """Shape (n_rows, n_columns) or (n_repeats, n_rows, n_columns); of binary files only the header is read."""
    suffix = path.suffix.lower()
    if suffix not in ARRAYS:
        return read_table(path, transposed=transposed).values.shape
    require_file(path)
    with _readable(path, _kind(suffix)):
        return array_shape(path, dataset, transposed)


def _kind(suffix: str) -> str:
    return "a readable HDF5 file" if suffix in HDF5 else f"a readable {suffix} array of numbers"


def _read_text(path: Path, separator: str | None) -> tuple[FloatArray, tuple[str, ...] | None]:
    """Numbers row by row: the text of a whole table takes ten times their memory."""
    lines = read_lines(path, TableError)
    separator = None if separator is None else _separator_in(lines, separator)
    cells = _split(lines) if separator is None else _cells(path, lines, separator, TableError)
    columns: tuple[str, ...] | None = None
    numbers: list[FloatArray] = []
    for n, row in _alike(path, cells, TableError):
        if not numbers and columns is None and not any(_is_number(cell) for cell in row):
            columns = tuple(row)
        else:
            numbers.append(np.array(_numbers(path, n, row), dtype=np.float64))
    return np.array(numbers, dtype=np.float64), columns


def _split(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows of a table that is separated by spaces or tabs."""
    for n, line in enumerate(lines, 1):
        if line.strip():
            yield n, [cell.strip('"') for cell in line.split()]


def _is_number(cell: str) -> bool:
    if cell.lower() in MISSING:
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
        hint = decimal_comma(bad[0]) or " Empty, nan and n/a mark missing values."
        raise TableError(f"{path}, line {line}: {bad[0]!r} is no number.{hint}")
    return [float("nan") if cell.lower() in MISSING else float(cell) for cell in row]


def decimal_comma(cell: str) -> str:
    """The end of a message, where a cell that should be a number may be one with a decimal comma, or several."""
    if _DECIMAL_COMMA.fullmatch(cell.strip()):
        return f" Is that a decimal comma? Write a point: {cell.strip().replace(',', '.')}."
    found = next((separator for separator in ";,|" if separator in cell), None)
    return f" Are columns separated by {found!r}? Save the table with commas (.csv) or tabs (.tsv)." if found else ""


@contextmanager
def damage_as(error: type[SourceError], problem: str, cure: str, *also: type[Exception]) -> Iterator[None]:
    """Whatever a library stumbles over in a damaged file becomes one error: the problem, its cause and the cure."""
    damage: tuple[type[Exception], ...] = (*DAMAGE, *also)
    try:
        yield
    except SourceError:
        raise
    except UnreadableFileError as cause:  # in words already
        raise error(str(cause)) from cause
    except damage as cause:
        raise error(f"{problem}: {type(cause).__name__}: {cause}. {cure}") from cause


def _readable(path: Path, what: str) -> AbstractContextManager[None]:
    return damage_as(TableError, f"{path} is not {what}", "Was it cut off while copying?")


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

    Parameters
    ----------
    separator : str
        The usual one of such files. Tables that have another are read all the same: tabs, semicolons, commas, or
        spaces where all lines then have as many cells.

    Raises
    ------
    SourceError
        Of the given class, if a quotation mark is not closed, or a row has another number of cells than the first.
    """
    lines = read_lines(path, error)
    found = _separator_in(lines, separator)
    return list(_alike(path, _split(lines) if found is None else _cells(path, lines, found, error), error))


def _separator_in(lines: Sequence[str], usual: str) -> str | None:
    """What separates the cells of a table: the usual, or another that its first line holds; None for blanks."""
    said = [line for line in lines if line.strip()]
    first = said[0] if said else ""
    found = next((separator for separator in (usual, "\t", ";", ",") if separator in first), None)
    if found is None or (found == "\t" and any(line.count("\t") != first.count("\t") for line in said)):
        n_cells = len(first.split())
        if n_cells > 1 and all(len(line.split()) == n_cells for line in said):
            return None
    return found or usual


def _cells(
    path: Path, lines: Sequence[str], separator: str, error: type[SourceError]
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=separator, strict=True)
    line = 0
    try:
        for row in reader:
            if reader.line_num > line + 1:
                raise error(f"{path}, line {line + 1}: a cell goes on in the next line. Is a quotation mark missing?")
            line = reader.line_num
            if any(cell.strip() for cell in row):
                yield line, [cell.strip() for cell in row]
    except csv.Error as problem:
        raise error(f"{path}, line {line + 1}: {problem}. Is a quotation mark missing?") from problem


def _alike(
    path: Path, rows: Iterator[tuple[int, list[str]]], error: type[SourceError]
) -> Iterator[tuple[int, list[str]]]:
    """Rows that all have as many cells as the first."""
    n_cells: int | None = None
    for line, row in rows:
        n_cells = len(row) if n_cells is None else n_cells
        if len(row) != n_cells:
            unnamed = " Has the first column no name (R's row names)?" if len(row) == n_cells + 1 else ""
            raise error(f"{path}, line {line}: {len(row)} columns, but {n_cells} in the lines before.{unnamed}")
        yield line, row
