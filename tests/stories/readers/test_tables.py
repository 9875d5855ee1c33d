"""The same table from every format, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from brainlit.stories.readers.tables import TableError, read_table, table_shape

VALUES = np.array([[1.5, -2.0, 3e2], [0.25, np.nan, 5.0]])


def _write(path: Path) -> Path:
    if path.suffix == ".npy":
        np.save(path, VALUES)
    elif path.suffix == ".hf5":
        with h5py.File(path, "w") as file:
            file["group/data"] = VALUES
    else:
        separator = {".txt": "   ", ".csv": ",", ".tsv": "\t"}[path.suffix]
        path.write_text("\n".join(separator.join("n/a" if np.isnan(v) else str(v) for v in row) for row in VALUES))
    return path


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".npy", ".hf5"])
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    table = read_table(_write(tmp_path / f"a{suffix}"))
    assert np.array_equal(table.values, VALUES, equal_nan=True)
    assert table.columns is None


def test_a_header_names_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"left IFG",right\n1,2\n\n3,\n')
    table = read_table(path)
    assert table.columns == ("left IFG", "right")
    assert np.array_equal(table.values, [[1, 2], [3, np.nan]], equal_nan=True)


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ";"), (".csv", "\t"), (".tsv", ","), (".tsv", "  ")])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_separators_are_seen(tmp_path: Path, suffix: str, separator: str, encoding: str) -> None:
    rows = [["left", "middle", "right"], *([str(value) for value in row] for row in VALUES)]
    path = tmp_path / f"a{suffix}"
    path.write_bytes("\r\n".join(separator.join(row) for row in rows).encode(encoding))
    table = read_table(path)
    assert table.columns == ("left", "middle", "right")
    assert np.array_equal(table.values, VALUES, equal_nan=True)
    path.write_bytes("\r\n".join(separator.join(row) for row in rows[1:]).encode(encoding))
    assert np.array_equal(read_table(path).values, VALUES, equal_nan=True)


def test_empty_cells_between_tabs_stay_missing(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\tc\n1\t\t3\n\t\t\n")
    missing = np.array([[1, np.nan, 3], [np.nan] * 3])
    assert np.array_equal(read_table(tmp_path / "a.tsv").values, missing[:1], equal_nan=True)


def test_one_column_is_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(4))
    assert read_table(tmp_path / "a.npy").values.shape == (4, 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1 2\n3\n", r"line 2: 1 columns, but 2"),
        ("a.csv", "1,2\n3,x\n", r"line 2: 'x' is no number"),
        ("a.csv", "", r"has shape \(0,\)"),
        ("a.csv", "A1;IFG\n1,5;2,0\n", r"line 2: '1,5' is no number\. Is that a decimal comma\? Write a point: 1\.5"),
        ("a.csv", "1,5;2,0\n", r"line 1: '5;2' is no number\. Are columns separated by ';'\?"),
        ("a.txt", "1,5 2,0\n1,5 2,0\n", r"line 2: '1,5' is no number\. Is that a decimal comma"),
        (
            "a.txt",
            "1.5,2.0,3\n1.5,2,3\n",
            r"line 2: .* is no number\. Are columns separated by ','\? Save the table with",
        ),
        ("a.xlsx", "", r"of type '\.xlsx' are not read; known: \.txt"),
        ("a.npy", "", r"not a readable \.npy"),
        ("a.h5", "broken", "not a readable HDF5 file: .* Was it cut off"),
    ],
)
def test_a_broken_table_is_refused_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError, match=message):
        read_table(tmp_path / name)


def test_a_dataset_is_named_where_there_are_several(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["mask"] = VALUES, np.zeros(3)
    with pytest.raises(TableError, match=r"holds 2 datasets \(data, mask\); name one"):
        read_table(tmp_path / "a.h5")
    with pytest.raises(TableError, match=r"no dataset 'dota'\. Did you mean 'data'"):
        read_table(tmp_path / "a.h5", "dota")
    assert read_table(tmp_path / "a.h5", "data").values.shape == (2, 3)


def test_no_pickle_is_ever_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TableError, match=r"holds Python objects \(pickled\), which are never read"):
        read_table(tmp_path / "a.npy")


def test_a_header_that_python_cannot_split_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.npy")
    path.write_bytes(path.read_bytes().replace(b"} ", b"\0 ", 1))
    with pytest.raises(TableError, match=r"not a readable \.npy array"):
        read_table(path)


def test_rows_are_counted_from_headers(tmp_path: Path) -> None:
    for suffix in (".npy", ".hf5", ".csv"):
        assert table_shape(_write(tmp_path / f"a{suffix}"))[0] == 2
    np.save(tmp_path / "a.npy", np.empty((0, 3)))
    with pytest.raises(TableError, match=r"has shape \(0, 3\)"):
        table_shape(tmp_path / "a.npy")[0]
    with pytest.raises(FileNotFoundError):
        table_shape(tmp_path / "none.npy")[0]


def test_an_hdf5_header_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", shape=(10**6, 10**5), dtype="f8", chunks=(10, 10))
    with pytest.raises(TableError, match=r"dataset 'data' of shape \(1000000, 100000\) holds less data"):
        read_table(tmp_path / "a.h5")


def test_no_file_has_a_cure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Check the path in the manifest"):
        read_table(tmp_path / "none.csv")
