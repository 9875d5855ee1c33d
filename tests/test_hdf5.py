"""HDF5 files that find their own damage, and files that lead out of themselves."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainlit.hdf5 import (
    OutsideError,
    new_file,
    read_json_text,
    read_text,
    refuse_outside,
    row_chunks,
    write_array,
    write_json_text,
    write_text,
)
from tests.flips import flip_each


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Every kind of thing that is written: many and few links, compressed, boolean, text, empty, long attributes."""
    rng = np.random.default_rng(0)
    with new_file(tmp_path / "own.h5") as file:
        write_text(file, "name", "été")
        file.attrs["tr_s"] = 2.0
        write_array(file, "rows", rng.standard_normal((11, 7)).astype(np.float32), chunks=(3, 7))
        write_array(file, "mask", rng.random(50) > 0.5)
        write_array(file, "labels", np.array([b"ab", b"cde"]))
        write_array(file, "empty", np.zeros((0, 4)))
        group = file.create_group("spaces", track_order=True)
        for k in range(10):
            dataset = write_array(group, f"space-{k}", rng.integers(0, 9, 12))
            write_json_text(dataset, "columns", ["x"] * 12)
        write_array(group, "zipped", np.zeros((40, 9), np.float32), compression="gzip", shuffle=True)
    return tmp_path / "own.h5"


def content(path: Path) -> object:
    with h5py.File(path, "r", locking=False) as file:
        refuse_outside(file)
        found: list[object] = [read_text(file, "name"), float(file.attrs["tr_s"]), list(file), list(file["spaces"])]
        datasets = [file[name] for name in ("rows", "mask", "labels", "empty")] + list(file["spaces"].values())
        found += [(one.dtype.str, one.shape, one[()].tobytes()) for one in datasets]
        return [*found, *(read_json_text(one, "columns") for one in datasets if "columns" in one.attrs)]


def test_no_flipped_bit_is_used(path: Path) -> None:
    outcome = flip_each(path, lambda: content(path), n=150)
    assert outcome.silent == []
    assert len(outcome.refused) > 75


def test_arrays_in_the_plain_way_are_not_checked(path: Path) -> None:
    """What the check above would find if nothing was done: it finds silence."""
    values = np.random.default_rng(1).standard_normal(500)
    with h5py.File(path, "w") as file:
        file["values"] = values

    def read() -> bytes:
        with h5py.File(path, "r") as file:
            return bytes(file["values"][()].tobytes())

    assert flip_each(path, read, n=40).silent


def test_rows_lie_together_and_no_chunk_is_larger_than_a_row_needs() -> None:
    assert row_chunks((400, 12), 4, n_rows=8) == (8, 12)
    assert row_chunks((400, 10_000), 4, n_rows=8) == (6, 10_000)
    assert row_chunks((400, 95_556), 4, n_rows=8) == (1, 95_556)
    assert row_chunks((3, 12), 4) == (3, 12)


def test_texts_of_earlier_files_are_read(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["name"] = "toy"
        file["facts"] = "{}"
        assert read_text(file, "name") == "toy"
        assert read_text(file, "facts") == "{}"
        with pytest.raises(KeyError):
            read_text(file, "nothing")


def test_another_text_is_found(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["name"] = "ete"
        with pytest.raises(OSError, match="the text 'name' of / is not what its checksum says"):
            read_text(file, "name")


def _external_storage(file: Any, secret: Path) -> None:
    file.create_dataset("deep/inside", (4,), np.uint8, external=[(str(secret), 0, 4)])


def _virtual(file: Any, secret: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype=np.float64)
    layout[:] = h5py.VirtualSource(secret, "values", shape=(4,))
    file.create_virtual_dataset("deep/inside", layout)


LEADS_OUT: dict[str, Callable[[Any, Path], None]] = {
    "external storage": _external_storage,
    "virtual": _virtual,
    "external link": lambda file, secret: file.__setitem__("deep/inside", h5py.ExternalLink(str(secret), "/values")),
    "soft link": lambda file, secret: file.__setitem__("deep/inside", h5py.SoftLink("/elsewhere")),
    "petabytes": lambda file, secret: file.create_dataset("deep/inside", (10**15,), np.uint8, chunks=(100,)),
}


@pytest.mark.parametrize("way", LEADS_OUT)
def test_what_leads_out_of_a_file_is_refused(path: Path, tmp_path: Path, way: str) -> None:
    with h5py.File(tmp_path / "secret", "w") as file:
        file["values"] = np.arange(4.0)
    with h5py.File(path, "r+") as file:
        refuse_outside(file)
        LEADS_OUT[way](file, tmp_path / "secret")
        with pytest.raises(OutsideError, match="its 'deep/inside'"):
            refuse_outside(file)


def test_a_file_that_was_cut_is_refused(path: Path) -> None:
    whole, expected = path.read_bytes(), content(path)
    for n_bytes in random.Random(0).sample(range(len(whole)), 20):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises((OSError, KeyError, RuntimeError, ValueError)):
            content(path)
    path.write_bytes(whole)
    assert content(path) == expected
