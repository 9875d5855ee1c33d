"""What is written is read back by nibabel and nilearn: the right number at the right place, left on the left."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from nilearn import datasets, image, masking, surface

from brainlit.results.map_files import on_fsaverage5, write_cifti, write_gifti, write_nifti, write_pycortex
from brainlit.results.map_numbers import MapsError
from brainlit.results.map_places import Grid, PycortexPlaces
from tests.results.test_map_places import voxels

N_LEFT = 10_242


def pial(side: str) -> np.ndarray:
    """Places of the vertices of one hemisphere in mm, as nilearn has them."""
    return np.asarray(surface.load_surf_mesh(datasets.fetch_surf_fsaverage("fsaverage5")[f"pial_{side}"]).coordinates)


def outermost() -> tuple[int, int]:
    """The vertex that lies farthest to the left, and that farthest to the right, of both hemispheres together."""
    both = np.concatenate([pial("left"), pial("right")])
    return int(both[:, 0].argmin()), int(both[:, 0].argmax())


def test_left_is_left_in_every_file(tmp_path: Path) -> None:
    left, right = outermost()
    assert left < N_LEFT <= right
    values = np.array([[0.25, -0.5], [1.0, np.nan]])
    halves = on_fsaverage5(np.array([left, right]), values)
    files = [write_gifti(tmp_path / f"hemi-{hemi}.func.gii", hemi, half, ["a", "b"]) for hemi, half in halves.items()]
    for file, structure, side, sign, planted in (
        (files[0], "CortexLeft", "left", -1, [0.25, 1.0]),
        (files[1], "CortexRight", "right", 1, [-0.5, np.nan]),
    ):
        gifti = nib.load(file)
        assert gifti.meta["AnatomicalStructurePrimary"] == structure
        assert [array.meta["Name"] for array in gifti.darrays] == ["a", "b"]
        read = surface.load_surf_data(file)
        assert read.shape == (N_LEFT, 2)
        (at,) = np.flatnonzero(np.isfinite(read[:, 0]))
        np.testing.assert_array_equal(read[at], planted)
        assert sign * pial(side)[at, 0] > 60, "mm to that side"
    cifti = nib.load(write_cifti(tmp_path / "x.dscalar.nii", halves, ["a", "b"]))
    scalars, brain = (cifti.header.get_axis(k) for k in (0, 1))
    assert cifti.nifti_header.get_intent()[0] == "ConnDenseScalar"
    assert list(scalars.name) == ["a", "b"]
    found = {structure: (columns, part) for structure, columns, part in brain.iter_structures()}
    assert list(found) == ["CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"]
    for (columns, part), vertex, planted in zip(found.values(), (left, right - N_LEFT), values.T, strict=True):
        read = np.asarray(cifti.dataobj)[:, columns]
        assert part.nvertices[part.name[0]] == N_LEFT
        np.testing.assert_array_equal(read[:, part.vertex == vertex][:, 0], planted)
        assert np.isnan(read[:, part.vertex != vertex]).all()


def test_voxels_at_one_vertex_are_averaged_and_those_without_a_number_left_out() -> None:
    vertices = np.array([7, 7, 7, N_LEFT + 7])
    halves = on_fsaverage5(vertices, np.array([[1.0, 2.0, np.nan, 5.0], [np.nan, np.nan, np.nan, 6.0]]))
    np.testing.assert_array_equal(halves["L"][:, 7], [1.5, np.nan])
    np.testing.assert_array_equal(halves["R"][:, 7], [5.0, 6.0])
    assert np.isfinite(halves["L"]).sum() == 1


def test_a_vertex_takes_the_nearest_voxel_where_that_is_asked_for() -> None:
    left, _ = outermost()
    vertices = np.array([left, 3])
    halves = on_fsaverage5(vertices, np.array([[0.5, np.nan], [0.5, 0.7]]), within_mm=4.0)
    distance_mm = np.linalg.norm(pial("left") - pial("left")[left], axis=1)
    np.testing.assert_array_equal(np.isfinite(halves["L"][0]), distance_mm < 4.0)
    assert set(np.unique(halves["L"][1][np.isfinite(halves["L"][1])])) == {0.5, 0.7}, "of each map for itself"
    assert np.isnan(halves["R"]).all()


def test_vertices_that_fsaverage5_does_not_have_are_refused() -> None:
    with pytest.raises(MapsError, match=r"vertices reach 20484; fsaverage5 has 0\.\.20483"):
        on_fsaverage5(np.array([1, 20_484]), np.zeros((1, 2)))


@pytest.mark.parametrize("name", ["tilted", "slices first"])
def test_a_volume_has_each_number_at_its_millimetres(name: str, tmp_path: Path) -> None:
    _, _, centres_mm = voxels(name)
    values = np.random.default_rng(0).standard_normal((2, len(centres_mm)))
    values[0, 5] = np.nan
    grid = Grid.of(centres_mm)
    assert grid is not None
    read = nib.load(write_nifti(tmp_path / "x.nii.gz", grid, values, "orig"))
    data = read.get_fdata()
    at = np.rint(nib.affines.apply_affine(np.linalg.inv(read.affine), centres_mm)).astype(int)
    np.testing.assert_allclose(nib.affines.apply_affine(read.affine, at), centres_mm, atol=1e-4)
    np.testing.assert_array_equal(data[tuple(at.T)], values.T.astype(np.float32))
    assert np.isfinite(data).sum() == np.isfinite(values).sum(), "NaN elsewhere"
    assert (read.header.get_xyzt_units()[0], int(read.header["sform_code"])) == ("mm", 2)


def test_nilearn_reads_the_columns_back_within_the_mask_of_the_responses(tmp_path: Path) -> None:
    inside, affine, centres_mm = voxels("tilted")
    mask = nib.Nifti1Image(inside.astype(np.uint8), affine)
    nib.save(mask, tmp_path / "mask.nii.gz")
    values = np.random.default_rng(0).standard_normal((1, len(centres_mm)))
    grid = Grid.like(centres_mm, tmp_path / "mask.nii.gz")
    file = write_nifti(tmp_path / "x.nii.gz", grid, values, "MNI152NLin2009cAsym")
    read = image.load_img(file)
    assert read.shape == inside.shape
    assert int(read.header["sform_code"]) == 4, "MNI"
    np.testing.assert_array_equal(masking.apply_mask(read, tmp_path / "mask.nii.gz"), values[0].astype(np.float32))


def test_the_same_numbers_make_the_same_bytes(tmp_path: Path) -> None:
    grid = Grid.of(voxels("plain")[2])
    assert grid is not None
    values = np.random.default_rng(0).standard_normal((1, len(grid.index)))
    halves = on_fsaverage5(np.arange(len(grid.index)), values)

    def written() -> dict[str, bytes]:
        files = [
            write_nifti(tmp_path / "a.nii.gz", grid, values, "orig"),
            write_gifti(tmp_path / "a.func.gii", "L", halves["L"], ["x"]),
            write_cifti(tmp_path / "a.dscalar.nii", halves, ["x"]),
            write_pycortex(tmp_path / "a.hdf", PycortexPlaces("S1", "S1_auto"), {"x": values[0]}, "words"),
        ]
        return {file.name: file.read_bytes() for file in files}

    assert written() == written()


def test_a_pycortex_data_set_has_what_pycortex_looks_for(tmp_path: Path) -> None:
    values = np.array([0.1, np.nan, 0.5, -0.2])
    places = PycortexPlaces("UTS03", "UTS03_auto")
    file = write_pycortex(
        tmp_path / "x.hdf", places, {"one": values, "two": values, "three": -values}, "r", signed=True
    )
    with h5py.File(file) as h5:
        assert set(h5["views"]) == {"one", "two", "three"}
        assert len(h5["data"]) == 2, "the same numbers once"
        view = [part.decode() for part in h5["views"]["one"][:]]
        data, cmap, low, high, state, attributes, transform = map(json.loads, [view[0], *view[2:]])
        assert (view[1], cmap, state, attributes, transform) == ("r", [None], None, {"priority": 1}, ["UTS03_auto"])
        assert low[0] == -high[0]
        assert 0.4 < high[0] <= 0.5
        stored = h5["data"][data[0]]
        np.testing.assert_array_equal(stored[:], values.astype(np.float32))
        assert dict(stored.attrs) == {"subject": "UTS03", "mask": "thick"}
