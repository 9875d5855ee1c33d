"""The files of a sound that nobody heard: what is in them, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from brainlit.guard import read_csv
from brainlit.hdf5 import read_json_text, read_text
from brainlit.results.predictions import (
    PredictedListener,
    PredictedSound,
    history_said,
    units_said,
    write_predicted,
)
from brainlit.stories.base import Subject

ROWS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
REGIONS = {"ear": [1, 1, 0, 0, 0], "eye": [0, 0, 0, 1, 1], "toe": [0, 0, 1, 0, 0]}


def _sound() -> PredictedSound:
    masks = {name: np.array(mask, dtype=bool) for name, mask in REGIONS.items()}
    listener = PredictedListener(Subject("p1", 5, masks), np.array([0, 1, 3, 4]), ROWS)
    return PredictedSound("bell", 2.0, [listener], ["First.", "Second."], {"sound": "bell.wav"})


def test_a_table_has_the_mean_of_every_region_that_is_predicted(tmp_path: Path) -> None:
    paths = write_predicted(tmp_path, _sound())
    assert [path.name for path in paths] == ["predictions.h5", "p1_regions.csv"]
    rows = read_csv(paths[1], "a table", "")
    assert [row["time_s"] for row in rows] == [time for time in ("0", "2", "4") for _ in range(3)]
    assert [row["region"] for row in rows[:3]] == ["ear", "eye", "all voxels"], "toe has no predicted voxel"
    assert [row["n_voxels"] for row in rows[:3]] == ["2", "2", "4"]
    means = [values for row in ROWS for values in (row[:2].mean(), row[2:].mean(), row.mean())]
    np.testing.assert_allclose([float(row["mean_predicted_z"]) for row in rows], means, atol=1e-6)


def test_every_voxel_is_in_the_array_file(tmp_path: Path) -> None:
    with h5py.File(write_predicted(tmp_path, _sound())[0]) as file:
        assert np.array_equal(file["p1/predicted"][()], ROWS)
        assert file["p1/voxels"][()].tolist() == [0, 1, 3, 4]
        assert file["times_s"][()].tolist() == [0.0, 2.0, 4.0]
        assert file.attrs["tr_s"] == 2.0
        assert read_text(file, "about") == "First. Second."
        assert read_json_text(file, "facts") == {"sound": "bell.wav"}


def test_units_and_history_are_said() -> None:
    assert "z-scored within each story, after their filter (without x). 0 is" in units_said("without x")
    assert "z-scored within each story. 0 is" in units_said(None)
    assert history_said(8.0, 2.0, 2.0).startswith("Rows in the first 8 s have less sound before them")
    assert "at the TR of the run, 2 s, and read at 1.5 s" in history_said(8.0, 2.0, 1.5)
