"""Series that other tools open: on the surface, and in the volume that the places of voxels tell."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainlit.results.series import write_series
from brainlit.stories.base import Subject

RNG = np.random.default_rng(0)
TURNED = np.array([[2.0, 0.3, 0.0], [-0.29, 1.95, 0.2], [0.05, -0.2, 2.4]])


def _voxels_in_a_brain() -> np.ndarray:
    inside = np.linalg.norm((np.indices((12, 10, 9)).T - (6, 5, 4)) / (6, 5, 4), axis=-1) < 1
    return np.argwhere(inside.T)


def test_a_volume_has_the_rows_at_the_places_of_the_predicted_voxels(tmp_path: Path) -> None:
    cells, affine = _voxels_in_a_brain(), np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURNED, (-70.5, 12.0, 3.25)
    places = nibabel.affines.apply_affine(affine, cells)
    voxels = np.arange(3, len(cells), 2)
    rows = RNG.standard_normal((5, len(voxels))).astype(np.float32)
    subject = Subject("p1", len(cells), coordinates_mm=places)
    (path,) = write_series(tmp_path, subject, voxels, rows, 1.5, "what it is")
    assert path.name == "p1.nii.gz"
    image = nibabel.load(path)
    assert image.header.get_zooms()[3] == pytest.approx(1.5)
    values = image.get_fdata()
    there = np.rint(nibabel.affines.apply_affine(np.linalg.inv(image.affine), places[voxels])).astype(int)
    np.testing.assert_allclose(values[tuple(there.T)], rows.T, atol=1e-6)
    assert np.isfinite(values).all(axis=3).sum() == len(voxels)


def test_a_surface_has_the_rows_at_the_vertices_of_the_predicted_voxels(tmp_path: Path) -> None:
    vertices = np.array([5, 4000, 10_242 + 7, 9])
    voxels = np.array([0, 2, 3])
    rows = RNG.standard_normal((4, 3)).astype(np.float32)
    subject = Subject("p1", 4, vertices=vertices, coordinates_mm=np.zeros((4, 3)))
    left, right = write_series(tmp_path, subject, voxels, rows, 2.0045, "what it is")
    assert [left.name, right.name] == [f"p1_hemi-{side}_space-fsaverage5.func.gii" for side in "LR"]
    for path, expected, structure in ((left, {5: 0, 9: 2}, "CortexLeft"), (right, {7: 1}, "CortexRight")):
        image = nibabel.load(path)
        assert len(image.darrays) == 4
        assert image.meta["TimeStep"] == "2.0045"
        assert image.meta["AnatomicalStructurePrimary"] == structure
        assert image.meta["Description"] == "what it is"
        assert image.darrays[0].intent == nibabel.nifti1.intent_codes["NIFTI_INTENT_TIME_SERIES"]
        values = np.stack([array.data for array in image.darrays])
        assert values.shape == (4, 10_242)
        for vertex, column in expected.items():
            np.testing.assert_allclose(values[:, vertex], rows[:, column], atol=1e-6)
        assert np.isnan(values[:, 4000]).all(), "its voxel is not predicted"


def test_without_places_nothing_is_written(tmp_path: Path) -> None:
    rows = np.zeros((2, 4), dtype=np.float32)
    assert write_series(tmp_path, Subject("p1", 4), np.arange(4), rows, 2.0, "") == []
    scattered = Subject("p1", 4, coordinates_mm=RNG.standard_normal((4, 3)))
    assert write_series(tmp_path, scattered, np.arange(4), rows, 2.0, "") == []
    assert list(tmp_path.iterdir()) == []
