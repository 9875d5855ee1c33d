"""Arrays of numbers in .npy, .npz, HDF5 and MATLAB files: judged by their headers, then read by blocks, once.

An array is (rows, columns), one row per volume, or (repeats, rows, columns) of a story that was heard several times.
MATLAB stores the first axis fastest, so that its version 7.3, which is HDF5, holds all axes in the other order; they
are turned back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from brainlit.hints import did_you_mean, few
from brainlit.stories.base import SourceError

HDF5 = (".h5", ".hdf5", ".hf5", ".hdf")
NAMED = (*HDF5, ".npz", ".mat")
"""Files that may hold several arrays."""
ARRAYS = (".npy", *NAMED)
BLOCK_BYTES = 16 * 2**20
MOST_COMPRESSED = 1032  # deflate reaches no more, so a header that says more is damaged
_AXES = "(rows, columns), one row per volume, or (repeats, rows, columns)"


class TableError(SourceError):
    """A table that cannot be read; the message names file, place, cause and cure."""


@dataclass(frozen=True)
class StoredArray:
    """An array of numbers in an open file.

    Parameters
    ----------
    shape : tuple of int
        As it is stored, the last axis fastest.
    order : tuple of int
        The stored axis of each axis that the file means; reversed where the first axis is stored fastest.
    values : array or HDF5 dataset, or None
        What gives blocks for an index; None where `stream` is read from front to back.
    stream : file, optional
        At its first value.
    """

    shape: tuple[int, ...]
    dtype: Any
    order: tuple[int, ...]
    values: Any = None
    stream: IO[bytes] | None = None

    def meant(self, transposed: bool) -> tuple[int, ...]:
        """The stored axes in the order (repeats,) rows, columns."""
        return (*self.order[:-2], *self.order[:-3:-1]) if transposed and len(self.order) > 1 else self.order


def array_shape(path: Path, name: str | None = None, transposed: bool = False) -> tuple[int, ...]:
    """Shape (n_rows, n_columns) or (n_repeats, n_rows, n_columns) of an array, from headers alone.

    Parameters
    ----------
    name : str, optional
        Of the array in a file that may hold several; may be left out where there is only one.
    transposed : bool
        Whether the file has columns before rows.

    Raises
    ------
    TableError
        If the array does not hold numbers, has other axes, or is not all there.
    """
    with _opened(path, name) as array:
        shape = tuple(array.shape[axis] for axis in array.meant(transposed))
        return shape if len(shape) > 1 else (*shape, 1)


def read_array(
    path: Path, name: str | None = None, transposed: bool = False, repeat: int | None = None, dtype: Any = np.float64
) -> npt.NDArray[Any]:
    """Values (n_rows, n_columns) of an array, or of one of its repeats; takes the memory of the result and a block.

    Raises
    ------
    TableError
        As `array_shape`; and if the array has repeats and `repeat` does not say which, or the file was damaged.
    """
    with _opened(path, name) as array:
        axes = array.meant(transposed)
        if (len(axes) == 3) != (repeat is not None):
            raise TableError(f"{path} has shape {tuple(array.shape[axis] for axis in axes)}; need (rows, columns).")
        if len(axes) == 1:
            return _read(array, None, 0, dtype)[:, None]
        values = _read(array, axes[0] if len(axes) == 3 else None, repeat or 0, dtype)
        return values.T if axes[-2] > axes[-1] else values


def _read(array: StoredArray, repeats: int | None, repeat: int, dtype: Any) -> npt.NDArray[Any]:
    """The array without its axis of repeats, as it is stored."""
    kept = [axis for axis in range(len(array.shape)) if axis != repeats]
    values = np.empty([array.shape[axis] for axis in kept], dtype=dtype)
    if array.stream is not None:
        _fill_from_stream(values, array, repeats, repeat)
        return values
    along = _cheapest_axis(array, kept)
    n_bytes = array.dtype.itemsize * values.size // values.shape[kept.index(along)]
    chunks = getattr(array.values, "chunks", None)
    chunk = chunks[along] if chunks else 1
    step = max(1, BLOCK_BYTES // max(1, n_bytes) // chunk) * chunk
    for start in range(0, array.shape[along], step):
        index: list[Any] = [slice(None)] * len(array.shape)
        index[along] = slice(start, start + step)
        into = tuple(index[axis] for axis in kept)
        if repeats is not None:
            index[repeats] = repeat
        values[into] = array.values[tuple(index)]
    return values


def _cheapest_axis(array: StoredArray, kept: Sequence[int]) -> int:
    """The axis to go along, so that compressed chunks are unpacked once."""
    chunks = getattr(array.values, "chunks", None)
    if chunks is None:
        return kept[0]
    return max(kept, key=lambda axis: (array.shape[axis] / chunks[axis], -axis))


def _fill_from_stream(values: npt.NDArray[Any], array: StoredArray, repeats: int | None, repeat: int) -> None:
    """Read all bytes in their order, so that the checksum of a compressed member is met; keep those of the repeat."""
    assert array.stream is not None
    whole = np.zeros(0, dtype=array.dtype)
    n_values, start = math.prod(array.shape), 0
    # Value i of the stream has the index (i // inner) % n_repeats in the axis of repeats.
    inner = n_values if repeats is None else math.prod(array.shape[repeats + 1 :])
    n_repeats = 1 if repeats is None else array.shape[repeats]
    flat, done = values.reshape(-1), 0
    step = max(1, BLOCK_BYTES // array.dtype.itemsize)
    while start < n_values:
        n = min(step, n_values - start)
        whole = np.frombuffer(_exactly(array.stream, n * array.dtype.itemsize), dtype=array.dtype)
        if n_repeats > 1:
            whole = whole[(np.arange(start, start + n) // inner) % n_repeats == repeat]
        flat[done : done + len(whole)] = whole
        start, done = start + n, done + len(whole)
    if array.stream.read(1):
        raise EOFError("it goes on after the values of its header")


def _exactly(stream: IO[bytes], n_bytes: int) -> bytes:
    raw = stream.read(n_bytes)
    if len(raw) < n_bytes:
        raise EOFError("it ends before the values of its header do")
    return raw


# --- Opening ---


@contextmanager
def _opened(path: Path, name: str | None) -> Iterator[StoredArray]:
    suffix = path.suffix.lower()
    is_hdf5 = suffix in HDF5 or (suffix == ".mat" and _is_hdf5(path))
    how = _hdf5 if is_hdf5 else {".npy": _npy, ".npz": _npz, ".mat": _matlab}[suffix]
    with how(path, name) as array:
        if array.dtype.kind not in "biuf":
            kind = "Python objects (pickled), which are never read" if array.dtype.hasobject else str(array.dtype)
            raise TableError(f"{path} holds {kind}; need an array of numbers.")
        if len(array.shape) not in (1, 2, 3) or 0 in array.shape:
            raise TableError(f"{path} has shape {array.shape}; need {_AXES}.")
        yield array


@contextmanager
def _npy(path: Path, name: str | None) -> Iterator[StoredArray]:
    with path.open("rb") as file:
        array = _from_header(file)
        there, needed = path.stat().st_size - file.tell(), array.dtype.itemsize * math.prod(array.shape)
        if not array.dtype.hasobject and there != needed:
            raise EOFError(f"its header says {array.shape} values, {needed} bytes, but the file has {there} for them")
        yield array


@contextmanager
def _npz(path: Path, name: str | None) -> Iterator[StoredArray]:
    with ZipFile(path) as file:
        members = {one.filename.removesuffix(".npy"): one for one in file.infolist() if not one.is_dir()}
        member = members[_chosen(path, name, list(members))]
        with file.open(member) as stream:
            array = _from_header(stream)
            needed = array.dtype.itemsize * math.prod(array.shape)
            if not array.dtype.hasobject and member.file_size != stream.tell() + needed:
                raise EOFError(f"its header says {array.shape} values, {needed} bytes, but it has {member.file_size}")
            yield array


def _from_header(stream: Any) -> StoredArray:
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"it is a .npy of version {version}")
    shape, first_axis_fastest, dtype = read(stream)
    order = tuple(range(len(shape)))
    if first_axis_fastest:
        return StoredArray(tuple(shape[::-1]), dtype, order[::-1], stream=stream)
    return StoredArray(tuple(shape), dtype, order, stream=stream)


@contextmanager
def _matlab(path: Path, name: str | None) -> Iterator[StoredArray]:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        kinds = {key: (shape, kind) for key, shape, kind in whosmat(path)}
        chosen = _chosen(path, name, list(kinds))
        shape, kind = kinds[chosen]
        if kind in ("cell", "struct", "char", "sparse", "object", "opaque", "function"):
            raise TableError(
                f"{path}: {chosen!r} is a {kind} of MATLAB; need a full matrix of numbers. Save it as one."
            )
        if math.prod(shape) > MOST_COMPRESSED * path.stat().st_size:
            raise EOFError(f"its header says {shape} values, but it has {path.stat().st_size} bytes")
        values = loadmat(path, variable_names=[chosen])[chosen]
    except MatReadError as error:
        raise ValueError(str(error)) from error
    yield StoredArray(values.shape, values.dtype, tuple(range(values.ndim)), values)


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


@contextmanager
def _hdf5(path: Path, name: str | None) -> Iterator[StoredArray]:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        names: list[str] = []
        file.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
        # Links to other files are not visited; what MATLAB keeps for itself is no array of the user's.
        links = [key for key in file if isinstance(file.get(key, getlink=True), (h5py.ExternalLink, h5py.SoftLink))]
        names = [key for key in [*names, *links] if not key.startswith("#")]
        found = file[_chosen(path, name, names)]
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise TableError(f"{path}: {found.name[1:]!r} is no array of numbers.")
        order = tuple(range(found.ndim))
        first_axis_fastest = "MATLAB_class" in found.attrs or path.suffix.lower() == ".mat"
        require_stored(path, found)
        yield StoredArray(found.shape, found.dtype, order[::-1] if first_axis_fastest else order, found)


def require_stored(path: Path, dataset: Any) -> None:
    """Refuse an HDF5 dataset of which a part is in no file: reading would give its fill value, which nobody measured.

    Raises
    ------
    TableError
        If it promises more than its file can hold, or is made of (virtual) parts that are missing.
    """
    name = dataset.name[1:]
    if not dataset.is_virtual:
        if dataset.nbytes > MOST_COMPRESSED * dataset.id.get_storage_size():
            raise TableError(f"{path}: dataset {name!r} of shape {dataset.shape} holds less data than that.")
        if dataset.chunks is not None:
            n_chunks = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
            n_there = dataset.id.get_num_chunks()
            if n_there < n_chunks:
                raise TableError(
                    f"{path}: only {n_there} of the {n_chunks} chunks of {name!r} were ever written. Was its writer"
                    " interrupted? Make the file anew."
                )
        return
    n_values = 0
    for part in dataset.virtual_sources():
        _require_part(path, dataset, part)
        n_values += part.vspace.get_select_npoints()
    if n_values < dataset.size:
        raise TableError(f"{path}: {name!r} has {dataset.size} values, its virtual parts only {n_values}.")


def _require_part(path: Path, dataset: Any, part: Any) -> None:
    import h5py

    file = path if part.file_name == "." else path.parent / part.file_name
    where = f"{path}: {dataset.name[1:]!r} is virtual, and its part {part.dset_name!r} of {file}"
    if not file.is_file():
        raise TableError(f"{where} is missing. Put that file where it was, or save the data as one dataset.")
    with h5py.File(file, "r", locking=False) as source:
        found = source.get(part.dset_name)
        if not isinstance(found, h5py.Dataset) or not _reaches(found.shape, part):
            raise TableError(f"{where} is not there, or smaller than it was. Make the file anew.")
        require_stored(file, found)


def _reaches(shape: tuple[int, ...], part: Any) -> bool:
    """Whether a dataset of this shape has the values that a virtual dataset takes of it."""
    import h5py

    if part.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        return math.prod(shape) >= int(part.vspace.get_select_npoints())
    last = part.src_space.get_select_bounds()[1]
    return len(last) == len(shape) and all(k < n for n, k in zip(shape, last, strict=True))


def virtual_parts(path: Path, name: str | None) -> list[Path]:
    """The files that an HDF5 file takes its (virtual) values from; none where it cannot be opened."""
    import h5py

    if path.suffix.lower() not in HDF5 or not path.is_file():
        return []
    try:
        with h5py.File(path, "r", locking=False) as file:
            found: list[Any] = []
            file.visititems(lambda key, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
            wanted = [one for one in found if one.is_virtual and name in (None, one.name.strip("/"))]
            names = {part.file_name for one in wanted for part in one.virtual_sources()} - {"."}
    except (OSError, RuntimeError):
        return []
    return sorted(path.parent / name for name in names)


def _chosen(path: Path, name: str | None, names: Sequence[str]) -> str:
    if name is None:
        if len(names) != 1:
            listed = few(sorted(names), 9)
            raise TableError(f"{path} holds {len(names)} datasets ({listed}); name one: 'dataset'.")
        return names[0]
    wanted = name.strip("/")
    if wanted not in names:
        raise TableError(f"{path} holds no dataset {wanted!r}. {did_you_mean(wanted, names)}")
    return wanted
