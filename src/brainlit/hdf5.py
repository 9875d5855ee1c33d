"""HDF5 files that tell when a byte of them has changed, and that hold all they say they hold.

HDF5 keeps three kinds of bytes. Its own structures carry checksums in the format of version 1.10 (`new_file`), arrays
in chunks carry Fletcher-32 (`write_array`), and texts of any length carry none, so theirs lies beside them
(`write_text`). The library compares the first two whenever it reads. Files of earlier versions lack them and are read
all the same.

A file that a stranger sent can point out of itself: to another HDF5 file (external link, virtual dataset) or to the
raw bytes of any file (external storage). `refuse_outside` refuses them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = ("v110", "v110")
"""The oldest format in which every structure of a file has a checksum; HDF5 1.10 (2016) and later read it."""
CHUNK_BYTES = 2**18
"""As much is read and checked at least, wherever less is asked for."""
MAX_UNFOLDING = 2000
"""Bytes of a file's arrays per byte of the file; gzip reaches 1,030."""
_CHECKSUM = ".crc32"
_SPARE_BYTES = 10_000_000


class OutsideError(ValueError):
    """An HDF5 file whose content lies elsewhere, or that unfolds to more than a file of its size can hold."""


def new_file(path: Path, mode: str = "w") -> Any:
    """A new HDF5 file, or, with mode 'a', one of ours to write more into."""
    import h5py

    return h5py.File(path, mode, locking=False, libver=FORMAT)


def write_array(group: Any, name: str, values: Any, chunks: tuple[int, ...] | None = None, **options: Any) -> Any:
    """Write an array with checksums; by default in chunks of whole rows, about CHUNK_BYTES each.

    Parameters
    ----------
    options
        Of h5py's create_dataset: compression, shuffle.
    """
    import numpy as np

    values = np.asarray(values)
    if values.ndim == 0:
        values = values.reshape(1)
    if not values.size:
        return group.create_dataset(name, data=values)
    dataset = empty_array(group, name, values.shape, values.dtype, chunks, **options)
    dataset[...] = values
    return dataset


def empty_array(
    group: Any, name: str, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...] | None = None, **options: Any
) -> Any:
    """An array with checksums that is filled later; as `write_array`."""
    import numpy as np

    chunks = chunks or row_chunks(shape, np.dtype(dtype).itemsize)
    return group.create_dataset(name, shape, dtype, chunks=chunks, fletcher32=True, **options)


def row_chunks(shape: tuple[int, ...], item_bytes: int, n_rows: int | None = None) -> tuple[int, ...]:
    """Whole rows, as many as CHUNK_BYTES hold and at least one; at most n_rows, where that is given."""
    row_bytes = item_bytes
    for n in shape[1:]:
        row_bytes *= n
    return (max(1, min(shape[0], n_rows or shape[0], CHUNK_BYTES // row_bytes)), *shape[1:])


def write_text(holder: Any, name: str, text: str) -> None:
    """Write a text as an attribute of a file, group or dataset, its checksum beside it."""
    holder.attrs[name] = text
    holder.attrs[name + _CHECKSUM] = zlib.crc32(text.encode("utf-8"))


def read_text(holder: Any, name: str) -> str:
    """What `write_text` wrote; one without a checksum, or a dataset of one text, as earlier versions wrote it.

    Raises
    ------
    KeyError
        If there is none.
    OSError
        If it is not what was written.
    """
    if name not in holder.attrs and hasattr(holder, "keys") and name in holder:
        return str(holder[name].asstr()[()])
    text = holder.attrs[name]
    if not isinstance(text, str):
        raise OSError(f"{name!r} of {holder.name} is no text")
    checksum = holder.attrs.get(name + _CHECKSUM)
    if checksum is not None and zlib.crc32(text.encode("utf-8", errors="surrogateescape")) != int(checksum):
        raise OSError(f"the text {name!r} of {holder.name} is not what its checksum says")
    return text


def write_json_text(holder: Any, name: str, content: Mapping[str, Any] | list[Any]) -> None:
    """Write plain values as JSON, as `write_text`."""
    write_text(holder, name, json.dumps(content))


def read_json_text(holder: Any, name: str) -> Any:
    """What `write_json_text` wrote."""
    return json.loads(read_text(holder, name))


def members(group: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and members of a group. While h5py's own `items()` is gone through, no other thread can use HDF5; where
    reading fails half-way, that lasts as long as the error is kept.
    """
    return list(group.items())


def refuse_outside(file: Any) -> None:
    """Refuse an open file that points out of itself, or whose arrays are far larger than the file.

    Raises
    ------
    OutsideError
        With the name of the first link or dataset.
    """
    import h5py

    largest = MAX_UNFOLDING * file.id.get_filesize() + _SPARE_BYTES
    links: list[tuple[bytes, bool]] = []
    file.id.links.visit(lambda name, link: links.append((name, link.type == h5py.h5l.TYPE_HARD)), info=True)
    for name, is_inside in links:
        where = name.decode("utf-8", errors="replace")
        if not is_inside:
            raise OutsideError(f"its {where!r} is a link, which can lead to any file; a file of ours holds its content")
        found = h5py.h5o.open(file.id, name)
        if not isinstance(found, h5py.h5d.DatasetID):
            continue
        plan = found.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
            raise OutsideError(f"the numbers of its {where!r} lie in another file; a file of ours holds its content")
        n_bytes = found.get_type().get_size()
        for n in found.shape:
            n_bytes *= n
        if n_bytes > largest:
            raise OutsideError(f"its {where!r} would have {n_bytes:,} bytes; the file has {file.id.get_filesize():,}")
