"""Regions in tables (.csv, .tsv), and the tables that name the numbers of a label file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from brainlit.stories.base import BoolArray, SourceError

REGION_COLUMNS = ("region", "roi", "name", "label")
VOXEL_COLUMNS = ("voxel", "vertex", "column", "index")
"""Headings of the two columns of a long table, and of a table of names (index, name)."""


def names_beside(path: Path) -> Path | None:
    """The table of names beside a file of numbers: same name, .tsv or .csv; None if there is none."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    tables = [path.with_name(stem + suffix) for suffix in (".tsv", ".csv")]
    return next((table for table in tables if table != path and table.is_file()), None)


def read_names(path: Path) -> dict[int, str]:
    """Names of label numbers from a table with the columns index and name (as BIDS writes beside a segmentation).

    Raises
    ------
    SourceError
        If the columns are missing or an index is no whole number.
    """
    header, rows = _read(path)
    lower = [column.lower() for column in header]
    if "index" not in lower or "name" not in lower:
        raise SourceError(f"{path}, line 1: columns {', '.join(header)}; a table of names needs 'index' and 'name'.")
    index, name = lower.index("index"), lower.index("name")
    return {_whole(path, line, row[index]): row[name] for line, row in rows}


def read_region_table(path: Path, n_voxels: int) -> dict[str, BoolArray]:
    """Regions of a table: rows of (region, voxel), voxels counted from 0, or one column of 0 and 1 per region.

    Raises
    ------
    SourceError
        If a row is damaged, or the voxels do not fit the responses.
    """
    header, rows = _read(path)
    lower = [column.lower() for column in header]
    region = next((lower.index(name) for name in REGION_COLUMNS if name in lower), None)
    voxel = next((lower.index(name) for name in VOXEL_COLUMNS if name in lower), None)
    if region is not None and voxel is not None and region != voxel:
        return _long(path, rows, region, voxel, n_voxels)
    return _wide(path, header, rows, voxel, n_voxels)


def _long(
    path: Path, rows: list[tuple[int, list[str]]], region: int, voxel: int, n_voxels: int
) -> dict[str, BoolArray]:
    regions: dict[str, BoolArray] = {}
    for line, row in rows:
        index = _whole(path, line, row[voxel])
        if not 0 <= index < n_voxels:
            raise SourceError(
                f"{path}, line {line}: voxel {index}, but the responses have {n_voxels} columns (0..{n_voxels - 1})."
                " Columns are counted from 0; was the table made for another mask or subject?"
            )
        regions.setdefault(row[region], np.zeros(n_voxels, dtype=np.bool_))[index] = True
    return regions


def _wide(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], voxel: int | None, n_voxels: int
) -> dict[str, BoolArray]:
    if len(rows) != n_voxels:
        raise SourceError(
            f"{path} has {len(rows)} rows, but the responses have {n_voxels} columns. Give one row of 0 and 1 per"
            " column and one table column per region, or rows with the columns region,voxel."
        )
    for line, row in rows:
        bad = [cell for k, cell in enumerate(row) if k != voxel and cell not in ("0", "1", "0.0", "1.0")]
        if bad:
            raise SourceError(f"{path}, line {line}: {bad[0]!r}; a region's column holds 0 and 1 only.")
    if voxel is not None and [_whole(path, line, row[voxel]) for line, row in rows] != list(range(n_voxels)):
        raise SourceError(f"{path}: column {header[voxel]!r} does not count 0..{n_voxels - 1}; sort the rows.")
    return {
        name: np.array([row[k][0] == "1" for _, row in rows], dtype=np.bool_)
        for k, name in enumerate(header)
        if k != voxel
    }


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Heading, and the rows with their line numbers."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter=separator))
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is no UTF-8 text: {error}.") from error
    rows = [(n, [cell.strip() for cell in cells]) for n, cells in enumerate(lines, 1) if any(map(str.strip, cells))]
    if len(rows) < 2:
        raise SourceError(f"{path} has {len(rows)} lines; need a heading and at least one row.")
    header = rows.pop(0)[1]
    for line, row in rows:
        if len(row) != len(header):
            raise SourceError(f"{path}, line {line}: {len(row)} cells, but the heading has {len(header)}.")
    return header, rows


def _whole(path: Path, line: int, cell: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise SourceError(f"{path}, line {line}: {cell!r} is no whole number.") from None
