"""Grids are found from the centres of voxels, whatever their axes; what is none, or another's, is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brainlit.results.map_numbers import MapsError
from brainlit.results.map_places import Grid, PycortexPlaces, mni_space, places_of
from brainlit.stories.alice_bids import AliceSource
from brainlit.stories.petit_prince import PetitPrinceSource


def rotation(*degrees: float) -> np.ndarray:
    """About x, then y, then z."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        own = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        own[i, i] = own[j, j] = np.cos(angle)
        own[i, j], own[j, i] = -np.sin(angle), np.sin(angle)
        turned = own @ turned
    return turned


AFFINES = {
    "plain": np.diag([2.0, 2.0, 2.0]),
    "left first": np.diag([-3.0, 3.0, 3.5]),
    "tilted": rotation(12, -5, 3) @ np.diag([-2.0, 2.0, 2.4]),
    "thick slices": rotation(20, 0, 8) @ np.diag([1.5, 1.5, 5.0]),
    "slices first": np.array([[0.0, 0.0, 2.0], [-2.5, 0.0, 0.0], [0.0, 3.0, 0.0]]),
    "sheared": np.array([[2.0, 0.4, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 2.5]]),
}


def voxels(name: str, shape: tuple[int, int, int] = (9, 8, 7)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inside of a ball with holes, the affine, and the centres in C order."""
    at = np.indices(shape) - (np.array(shape) / 2)[:, None, None, None]
    inside = ((at**2).sum(axis=0) < 14) & (np.random.default_rng(3).random(shape) < 0.8)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = AFFINES[name], (-31.2, 14.7, 8.05)
    return inside, affine, nib.affines.apply_affine(affine, np.argwhere(inside))


@pytest.mark.parametrize("name", AFFINES)
def test_the_grid_of_centres_has_each_of_them_where_it_was(name: str) -> None:
    _, affine, centres_mm = voxels(name)
    grid = Grid.of(centres_mm)
    assert grid is not None
    np.testing.assert_allclose(nib.affines.apply_affine(grid.affine, grid.index), centres_mm, atol=1e-6)
    assert abs(np.linalg.det(grid.affine[:3, :3])) == pytest.approx(abs(np.linalg.det(affine[:3, :3])))
    assert tuple(grid.index.min(axis=0)) == (0, 0, 0)
    assert tuple(grid.index.max(axis=0) + 1) == grid.shape
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")


def test_centres_that_were_rounded_are_still_on_their_grid() -> None:
    centres_mm = voxels("tilted")[2].astype(np.float32)
    grid = Grid.of(centres_mm)
    assert grid is not None
    np.testing.assert_allclose(nib.affines.apply_affine(grid.affine, grid.index), centres_mm, atol=1e-4)


def test_what_lies_on_no_grid_has_none() -> None:
    rng = np.random.default_rng(0)
    centres_mm = voxels("plain")[2]
    assert Grid.of(rng.standard_normal((50, 3))) is None, "vertices of a surface"
    assert Grid.of(centres_mm[:1]) is None, "one voxel"
    assert Grid.of(centres_mm * (1, 1, 0)) is None, "a plane"
    assert Grid.of(np.concatenate([centres_mm, centres_mm[:1]])) is None, "two voxels in one place"
    assert Grid.of(np.concatenate([centres_mm, [[np.nan] * 3]])) is None, "a place that is not known"
    assert Grid.of(np.concatenate([centres_mm, centres_mm[:1] + 0.3])) is None, "one beside the grid"


def test_the_grid_of_an_image_is_taken_where_all_centres_are_its_voxels(tmp_path: Path) -> None:
    inside, affine, centres_mm = voxels("tilted")
    file = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), affine), file)
    grid = Grid.like(centres_mm, file)
    assert grid.shape == inside.shape
    np.testing.assert_array_equal(grid.index, np.argwhere(inside))
    np.testing.assert_allclose(grid.affine, affine, atol=1e-5)
    with pytest.raises(MapsError, match=r"mask.nii.gz: the voxels of the responses lie up to 0.\d+ of a voxel beside"):
        Grid.like(centres_mm + 0.4, file)
    with pytest.raises(MapsError, match=r"lie outside its \(9, 8, 7\) voxels. Give an image of their own grid"):
        Grid.like(centres_mm - 5 * affine[:3, 0], file)


def store_of(settings: dict[str, Any], **person: Any) -> Any:
    subject = SimpleNamespace(**{"n_voxels": 12, "vertices": None, "coordinates_mm": None, **person})
    return SimpleNamespace(settings=settings, subject=lambda _: subject, path=Path("store"))


RECORD: Any = SimpleNamespace(subject="S1", vertices=None, r=np.zeros(12))
DRAWN = {
    "pycortex": "db",
    "transform": "{subject}_full",
    "mask": "db/{subject}/transforms/{subject}_full/mask_thin.nii.gz",
}


@pytest.mark.parametrize(
    ("settings", "has_centres", "expected"),
    [
        ({"source": "lebel2023", "regions": None}, False, PycortexPlaces("S1", "S1_auto", "thick")),
        (
            {"source": "lebel2023", "regions": {"file": "a.npz", "pycortex": None}},
            True,
            PycortexPlaces("S1", "S1_auto"),
        ),
        ({"source": "deniz2019", "regions": DRAWN}, False, PycortexPlaces("S1", "S1_full", "thin")),
        ({"responses": {"region_files": DRAWN}}, False, PycortexPlaces("S1", "S1_full", "thin")),
        ({"responses": {"region_files": DRAWN}}, True, None),
        ({"responses": {"region_files": {**DRAWN, "mask": "brain.nii.gz"}}}, False, None),
        ({"source": "toy"}, False, None),
    ],
)
def test_columns_are_pycortexs_where_nothing_else_has_ordered_them(
    settings: dict[str, Any], has_centres: bool, expected: PycortexPlaces | None
) -> None:
    centres_mm = voxels("plain")[2][:12] if has_centres else None
    places = places_of(RECORD, store_of(settings, coordinates_mm=centres_mm))
    assert places.pycortex == expected
    assert ("pycortex" in places.formats) == (expected is not None)
    assert ("nifti" in places.formats) == has_centres


def test_a_store_with_other_voxels_is_refused() -> None:
    with pytest.raises(MapsError, match=r"S1 has 13 voxels in the store store, 12 in the probe. .* --store"):
        places_of(RECORD, store_of({}, n_voxels=13))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"source": "ManifestSource", "responses": {"space": "MNI152NLin2009cAsym", "file": None}},
            "MNI152NLin2009cAsym",
        ),
        ({"responses": {"space": "MNI152NLin6Asym:res-2"}}, "MNI152NLin6Asym"),
        ({"responses": {"file": "d/{subject}_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"}}, "MNI152NLin6Asym"),
        ({"responses": {"space": "func", "file": None}}, None),
        ({"responses": {"space": "T1w"}}, None),
        ({"source": "lebel2023", "regions": None}, None),
        ({"source": "AliceSource", "run": "mine/{subject}.nii.gz"}, None),
        ({"source": "GroupSource", "of": {"responses": {"space": "MNI152NLin6Asym"}}}, "MNI152NLin6Asym"),
    ],
)
def test_the_space_is_the_one_that_the_source_names(settings: dict[str, Any], expected: str | None) -> None:
    assert mni_space(settings) == expected


def test_published_volumes_in_mni_space_say_so(tmp_path: Path) -> None:
    alice, prince = AliceSource(tmp_path), PetitPrinceSource(tmp_path)
    assert mni_space(alice.settings()) == "MNI"
    assert mni_space(prince.settings()) == "MNIColin27"
