"""Response matrices in HDF5 files of hundreds of megabytes: read in blocks of rows, as float32.

One story of one subject of LeBel et al. 2023 is 271 MB of float64, the ten repeats of the test story 2.4 GB. Reading
takes half of a matrix's float64 bytes for the result, and a block more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import Float32Array, FloatArray, LazyRepeats, SourceError
from brainlit.stories.readers.arrays import require_stored
from brainlit.stories.readers.tables import damage_as

log = logging.getLogger(__name__)

BLOCK_BYTES = 32 * 2**20
_ZSCORED_WITHIN = 1e-2
"""A column counts as z-scored if its mean is within this of 0 and its standard deviation within this of 1."""


class ResponseFileError(SourceError):
    """A response file that cannot be used; the message names file, cause and cure."""


def read_shape(path: Path, dataset: str) -> tuple[int, ...]:
    """Shape of a dataset of real numbers, from the file's header.

    Raises
    ------
    ResponseFileError
        If it is no HDF5 file, lacks the dataset, or the dataset does not hold (all of) its numbers.
    """
    with _opened(path, dataset) as values:
        return tuple(int(n) for n in values.shape)


def read_rows(path: Path, dataset: str) -> Float32Array:
    """A matrix (n_trs, n_voxels) as published; columns that are not z-scored over time yet are z-scored.

    NaN stays NaN, and a column that never changes stays what it is.

    Raises
    ------
    ResponseFileError
        As `read_shape`; and if a value is infinite.
    """
    with _opened(path, dataset) as values:
        rows, mean, std = _read(path, values, ())
    off = _varies(std) & ((np.abs(mean) > _ZSCORED_WITHIN) | (np.abs(std - 1) > _ZSCORED_WITHIN))
    if off.any():
        log.info("%s: %d of %d columns were not z-scored over time; they are now.", path, off.sum(), off.size)
    return _zscored(rows, mean, std, off)


def repeated_rows(path: Path, dataset: str) -> LazyRepeats:
    """Repeats of a story in a dataset (n_repeats, n_trs, n_voxels): repeat k is read, and z-scored, when asked for."""
    shape = read_shape(path, dataset)
    if len(shape) != 3 or 0 in shape:
        raise ResponseFileError(f"{path}: {dataset!r} has shape {shape}; need (n_repeats, n_trs, n_voxels).")

    def repeat(k: int) -> Float32Array:
        with _opened(path, dataset) as values:
            rows, mean, std = _read(path, values, (k,))
        return _zscored(rows, mean, std, _varies(std))

    return LazyRepeats(shape[0], repeat)


def _read(path: Path, values: Any, index: tuple[int, ...]) -> tuple[Float32Array, FloatArray, FloatArray]:
    """Rows of a matrix, and mean and standard deviation of its columns, gathered block by block."""
    n_rows, n_columns = (int(n) for n in values.shape[-2:])
    step = max(1, BLOCK_BYTES // (8 * n_columns))
    rows = np.empty((n_rows, n_columns), dtype=np.float32)
    # Moments about the first row: exact for columns that never change, where sums of raw squares would cancel.
    first = np.asarray(values[(*index, 0)], dtype=np.float64)
    total, squares = np.zeros(n_columns), np.zeros(n_columns)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, n_rows, step):
            block = np.asarray(values[(*index, slice(start, start + step))], dtype=np.float64)
            rows[start : start + step] = block
            _refuse_infinite(path, rows[start : start + step], start)
            block -= first
            total += block.sum(axis=0)
            squares += np.einsum("ij,ij->j", block, block)
        shift = total / n_rows
        return rows, first + shift, np.sqrt(np.maximum(squares / n_rows - shift**2, 0))


def _refuse_infinite(path: Path, rows: Float32Array, first_row: int) -> None:
    if np.isinf(rows).any():
        row, column = np.argwhere(np.isinf(rows))[0]
        raise ResponseFileError(
            f"{path}: the value in row {first_row + row}, column {column} is infinite or beyond float32; responses are"
            " z-scored, and voxels without data are NaN. The file is damaged: fetch it again."
        )


def _varies(std: FloatArray) -> Any:
    return np.isfinite(std) & (std > 0)


def _zscored(rows: Float32Array, mean: FloatArray, std: FloatArray, which: Any) -> Float32Array:
    """Standardise some columns in place; the others keep every bit."""
    if which.any():
        rows -= np.where(which, mean, 0).astype(np.float32)
        rows /= np.where(which, std, 1).astype(np.float32)
    return rows


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file, open for reading; whatever h5py stumbles over, there or in the block, is told with its name."""
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    cure = "A file of a few hundred bytes is a pointer of git-annex: fetch its content; a larger one was cut off while"
    cure += " copying: fetch it again."
    problem = f"{path} cannot be read as HDF5"
    with damage_as(ResponseFileError, problem, cure), h5py.File(path, "r", locking=False) as file:
        yield file


@contextmanager
def _opened(path: Path, dataset: str) -> Iterator[Any]:
    """One dataset of real numbers, whose bytes are all there."""
    import h5py

    with open_hdf5(path) as file:
        if dataset not in file:
            raise ResponseFileError(f"{path} holds no dataset {dataset!r}. {did_you_mean(dataset, list(file))}")
        values = file[dataset]
        if not isinstance(values, h5py.Dataset) or values.dtype.kind != "f":
            kind = getattr(values, "dtype", "group")
            raise ResponseFileError(f"{path}: {dataset!r} is of type {kind}; need a matrix of float64. Fetch it again.")
        if values.chunks is None and not values.is_virtual and values.id.get_storage_size() < values.nbytes:
            raise ResponseFileError(
                f"{path}: {dataset!r} has shape {values.shape}, but only {values.id.get_storage_size()} of its"
                f" {values.nbytes} bytes are in the file. Fetch it again."
            )
        require_stored(path, values)
        yield values
