"""The same array from every container and layout; what is not all there is refused; memory is that of the result."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from brainlit.stories.readers import arrays
from brainlit.stories.readers.arrays import TableError
from brainlit.stories.readers.tables import read_table, table_shape

Array = np.ndarray[Any, Any]
ONE = np.arange(42, dtype=np.float64).reshape(7, 6) / 3
THREE = np.stack([ONE, -ONE, ONE**2])


def _npy(path: Path, values: Array) -> None:
    np.save(path, values)


def _npy_first_axis_fastest(path: Path, values: Array) -> None:
    np.save(path, np.asfortranarray(values))


def _npz(path: Path, values: Array) -> None:
    np.savez_compressed(path, values)


def _npz_first_axis_fastest(path: Path, values: Array) -> None:
    np.savez(path, data=np.asfortranarray(values.astype(np.float32)))


def _mat(path: Path, values: Array) -> None:
    savemat(path, {"data": values}, do_compression=True)


def _mat_hdf5(path: Path, values: Array) -> None:
    """Version 7.3: HDF5 behind 512 bytes of MATLAB's, all axes reversed, and a group of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["data"] = values.T
        file["data"].attrs["MATLAB_class"] = np.bytes_("double")
        file["#refs#/a"] = np.zeros(2)


def _h5(path: Path, values: Array) -> None:
    with h5py.File(path, "w") as file:
        file["group/data"] = values.astype(">f4")


def _h5_chunks_of_columns(path: Path, values: Array) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=values, chunks=(*values.shape[:-1], 4), compression="gzip")


def _h5_virtual(path: Path, values: Array) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    for k, rows in enumerate((slice(0, 3), slice(3, 7))):
        part = values[..., rows, :]
        with h5py.File(path.with_name(f"part{k}.h5"), "w") as file:
            file["x"] = part
        layout[(..., rows, slice(None))] = h5py.VirtualSource(f"part{k}.h5", "x", part.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)


def _h5_link(path: Path, values: Array) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["x"] = values
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink("other.h5", "x")


WRITERS: list[tuple[Callable[[Path, Array], None], str]] = [
    (_npy, ".npy"), (_npy_first_axis_fastest, ".npy"), (_npz, ".npz"), (_npz_first_axis_fastest, ".npz"),
    (_mat, ".mat"), (_mat_hdf5, ".mat"), (_h5, ".h5"), (_h5_chunks_of_columns, ".hf5"), (_h5_virtual, ".hdf5"),
    (_h5_link, ".h5"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "suffix"), WRITERS)
@pytest.mark.parametrize("block_bytes", [16, 2**20])
def test_every_container_gives_the_same_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None], suffix: str, block_bytes: int
) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", block_bytes)
    path = tmp_path / f"a{suffix}"
    write(path, ONE)
    assert table_shape(path) == (7, 6)
    read = read_table(path, dtype=np.float32).values
    assert read.dtype == np.float32
    assert np.allclose(read, ONE)
    assert np.allclose(read_table(path, transposed=True).values, ONE.T)
    write(path, THREE)
    assert table_shape(path) == (3, 7, 6)
    assert table_shape(path, transposed=True) == (3, 6, 7)
    for k, one in enumerate(THREE):
        assert np.allclose(read_table(path, repeat=k).values, one)
        assert np.allclose(read_table(path, repeat=k, transposed=True).values, one.T)
    with pytest.raises(TableError, match=r"has shape \(3, 7, 6\); need \(rows, columns\)"):
        read_table(path)


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".h5"])
def test_one_of_several_arrays_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, data=ONE, mask=np.ones(3))
    elif suffix == ".mat":
        savemat(path, {"data": ONE, "mask": np.ones(3), "names": np.array(["x"], dtype=object)})
    else:
        with h5py.File(path, "w") as file:
            file["data"], file["mask"] = ONE, np.ones(3)
    with pytest.raises(TableError, match=r"datasets \(data, mask.*\); name one: 'dataset'"):
        read_table(path)
    with pytest.raises(TableError, match=r"holds no dataset 'dota'\. Did you mean 'data'"):
        read_table(path, "dota")
    assert np.array_equal(read_table(path, "data").values, ONE)
    if suffix == ".mat":
        with pytest.raises(TableError, match="'names' is a cell of MATLAB"):
            read_table(path, "names")


def test_a_virtual_array_needs_all_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    _h5_virtual(path, ONE)
    assert arrays.virtual_parts(path, None) == [tmp_path / "part0.h5", tmp_path / "part1.h5"]
    with h5py.File(tmp_path / "part1.h5", "w") as file:
        file["x"] = ONE[:1]
    with pytest.raises(TableError, match=r"a\.h5: 'data' is virtual, and its part 'x' of .*part1\.h5 is not there, or"):
        read_table(path)
    (tmp_path / "part1.h5").unlink()
    for ask in (read_table, table_shape):
        with pytest.raises(TableError, match=r"a\.h5: 'data' is virtual, and its part 'x' of .*part1\.h5 is missing"):
            ask(path)
    layout = h5py.VirtualLayout(ONE.shape, ONE.dtype)
    layout[:3] = h5py.VirtualSource("part0.h5", "x", (3, 6))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)
    with pytest.raises(TableError, match="'data' has 42 values, its virtual parts only 18"):
        read_table(path)


def test_an_array_that_was_written_in_part_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", shape=(40, 6), chunks=(10, 6), dtype="f8")[:10] = 1
    with pytest.raises(TableError, match="only 1 of the 4 chunks of 'data' were ever written"):
        read_table(tmp_path / "a.h5")


def test_a_shape_is_judged_before_anything_is_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", np.zeros((2, 2, 500, 500)))
    tracemalloc.start()
    with pytest.raises(TableError, match=r"has shape \(2, 2, 500, 500\); need \(rows, columns\)"):
        read_table(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6, "the array takes 8 MB"


@pytest.mark.parametrize("write", [_npy, _npz, _npz_first_axis_fastest, _h5, _h5_chunks_of_columns])
def test_reading_takes_the_memory_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None]
) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 2**16)
    path = tmp_path / f"a{dict(WRITERS)[write]}"
    write(path, np.zeros((500, 1000)))
    read_table(path, dtype=np.float32)  # imports
    tracemalloc.start()
    result = read_table(path, dtype=np.float32).values
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.nbytes == 2_000_000
    assert peak < 1.3 * result.nbytes


def test_a_matlab_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """Flipped bits are not tried: on some of them scipy ends the process."""
    path = tmp_path / "a.mat"
    _mat(path, ONE)
    whole = path.read_bytes()
    for n in (0, 3, 100, 130, len(whole) - 9):
        path.write_bytes(whole[:n])
        with pytest.raises(TableError, match=f"{path} "):
            read_table(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_no_damaged_bit_goes_by(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    _npz(path, ONE) if suffix == ".npz" else _npy(path, ONE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(TableError, match=f"{path} is not a readable"):
        read_table(path)
    if suffix == ".npy":
        path.write_bytes(whole + b"more")
        with pytest.raises(TableError, match="336 bytes, but the file has 340 for them"):
            table_shape(path)
        return
    for place in range(200, len(whole) - 150, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(TableError, match=f"{path} "):
            read_table(path)
