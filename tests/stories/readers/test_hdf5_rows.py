"""Response files: read as published in little memory, and a damaged one is named."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlit.stories import SourceError
from brainlit.stories.readers import hdf5_rows as rows


def test_columns_that_are_not_zscored_are_and_the_others_keep_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(157, 6))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    values[:, 1] = 1000 + 30 * values[:, 1]
    values[:, 2], values[:, 3], values[5, 4] = np.nan, 1000.1, np.nan
    with h5py.File(tmp_path / "x.hf5", "w") as file:
        file["data"] = values
    found = rows.read_rows(tmp_path / "x.hf5", "data")
    np.testing.assert_array_equal(found[:, [0, 2, 3, 4, 5]], values[:, [0, 2, 3, 4, 5]].astype(np.float32))
    np.testing.assert_allclose(found[:, 1], (values[:, 1] - 1000) / 30, atol=1e-4)


def test_reading_takes_less_memory_than_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK_BYTES", 2**18)
    values = np.random.default_rng(0).normal(size=(3, 355, 2000)) * 7 + 3
    with h5py.File(tmp_path / "x.hf5", "w") as file:
        file["data"], file["individual_repeats"] = values[0], values
    tracemalloc.start()
    try:
        found = rows.read_rows(tmp_path / "x.hf5", "data")
        repeat = rows.repeated_rows(tmp_path / "x.hf5", "individual_repeats")[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * values[0].nbytes
    np.testing.assert_allclose(repeat.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "story.hf5"
    values = np.random.default_rng(0).normal(size=(60, 9))
    with h5py.File(path, "w") as file:
        file["data"] = (values - values.mean(axis=0)) / values.std(axis=0)
    return path


@given(data=st.data())
@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_read_right_or_named(data: st.DataObject, whole_file: Path, tmp_path: Path) -> None:
    raw, clean = whole_file.read_bytes(), rows.read_rows(whole_file, "data")
    header_bytes = len(raw) - clean.size * 8
    place = data.draw(st.one_of(st.integers(0, header_bytes - 1), st.integers(header_bytes, len(raw) - 1)))
    flipped = bytes([raw[place] ^ (1 << data.draw(st.integers(0, 7)))])
    path = tmp_path / "damaged.hf5"
    path.write_bytes(raw[:place] if data.draw(st.booleans()) else raw[:place] + flipped + raw[place + 1 :])
    try:
        shape, found = rows.read_shape(path, "data"), rows.read_rows(path, "data")
    except SourceError as error:
        problem = str(error)
    else:
        problem = None
    if problem is not None:
        assert str(path) in problem
        return
    assert found.shape == shape
    assert found.dtype == np.float32
    if place >= header_bytes:  # a flipped bit of a number changes its column and no other; no checksum says so
        assert (np.nan_to_num(found) != clean).any(axis=0).sum() <= 1


def test_a_file_without_its_numbers_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hf5", "w") as file:
        file.create_dataset("data", shape=(60, 9), dtype="f8")
        file.create_group("individual_repeats")
    with pytest.raises(SourceError, match=r"shape \(60, 9\), but only 0 of its 4320 bytes"):
        rows.read_rows(tmp_path / "x.hf5", "data")
    with pytest.raises(SourceError, match="of type group"):
        rows.repeated_rows(tmp_path / "x.hf5", "individual_repeats")
    (tmp_path / "x.hf5").write_text("<html>404</html>")
    with pytest.raises(SourceError, match="cannot be read as HDF5"):
        rows.read_shape(tmp_path / "x.hf5", "data")
    with pytest.raises(FileNotFoundError, match=r"y\.hf5"):
        rows.read_shape(tmp_path / "y.hf5", "data")
