"""Voxels of a volume are drawn where they lie, with the values that they have, left on the left."""

from __future__ import annotations

import csv
import io
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.spatial import cKDTree

from brainlit.results import volume_map
from brainlit.results.brain_figures import brain_figures
from brainlit.results.brainmap import brain_figure
from brainlit.results.map_places import Grid
from brainlit.results.record import ProbeRecord
from brainlit.results.scores import ScoreTable
from brainlit.results.style import DIVERGING, FAINT, INK, NO_NUMBER, SEQUENTIAL, house_style, new_figure
from brainlit.results.volume_map import Volume, slice_heights_mm, volume_figure
from tests.results.test_map_places import rotation
from tests.results.test_style import colours_of, on_dark

STEP_MM = 6.0
LEFT_MM, RIGHT_MM = np.array([-44.0, -22.0, 12.0]), np.array([40.0, 26.0, 12.0])
"""Where r is high before tuning, and where it rises."""
TURNED = {
    "as space": np.diag([STEP_MM] * 3),
    "right first": np.diag([-STEP_MM, STEP_MM, STEP_MM]),
    "tilted": rotation(9, -6, 4) @ np.diag([-STEP_MM, STEP_MM, STEP_MM]),
}


def ball(turned: str = "as space", low_x_mm: float = -60.0) -> np.ndarray:
    """Centres of the voxels of a ball around the middle of a brain, shape (n_voxels, 3)."""
    affine = np.eye(4)
    affine[:3, :3] = TURNED[turned]
    affine[:3, 3] = np.array([2.0, -20.0, 10.0]) - TURNED[turned] @ np.full(3, 12)
    centres_mm = nib.affines.apply_affine(affine, np.argwhere(np.ones((25, 25, 25), dtype=bool)))
    inside = np.linalg.norm(centres_mm - [2, -20, 10], axis=1) < 60
    return np.asarray(centres_mm[inside & (centres_mm[:, 0] > low_x_mm)])


def planted(centres_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """r before and after: noise, one place on the left that is high, one on the right that rises; one voxel dropped."""
    before = np.random.default_rng(0).uniform(-0.05, 0.05, len(centres_mm))
    before[np.linalg.norm(centres_mm - LEFT_MM, axis=1) < 12] = 0.5
    after = before + 0.4 * (np.linalg.norm(centres_mm - RIGHT_MM, axis=1) < 12)
    before[7] = after[7] = np.nan
    before[8] = 0.0
    return before, after


def volume_of(centres_mm: np.ndarray, space: str = "") -> Volume:
    grid = Grid.of(centres_mm)
    assert grid is not None
    return Volume(grid, space)


def drawn_views(volume: Volume, kind: Any, values: np.ndarray, signed: bool = False) -> list[tuple[str, Any]]:
    """The views of a row of maps, as they were drawn: the title of each, and its axes."""
    with house_style():
        figure = new_figure(11, 2.2, layout=None)
        volume_map._draw(figure, kind, volume, [volume_map._Row("before", values, 0.5, signed)])
    views = [axes for axes in figure.axes if axes.images]
    return [(next((text.get_text() for text in axes.texts if "=" in text.get_text()), ""), axes) for axes in views]


def pixels(axes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Places in the plane, shape (n_drawn, 2), and values of the drawn pixels of the topmost image."""
    image = axes.images[-1]
    values, (left, right, bottom, top) = np.ma.masked_invalid(image.get_array()), image.get_extent()
    assert image.origin == "upper"
    rows, columns = np.nonzero(~np.ma.getmaskarray(values))
    x = left + (columns + 0.5) / values.shape[1] * (right - left)
    y = top + (rows + 0.5) / values.shape[0] * (bottom - top)
    return np.column_stack([x, y]), np.asarray(values[rows, columns])


@pytest.mark.parametrize("turned", ["as space", "right first"])
def test_each_pixel_of_a_slice_has_the_value_of_the_voxel_there(turned: str) -> None:
    centres_mm = ball(turned)
    before, _ = planted(centres_mm)
    volume = volume_of(centres_mm)
    views = drawn_views(volume, "slices", before)
    heights_mm = slice_heights_mm(volume.grid)
    assert [title for title, _ in views] == [f"z={int(z)}" for z in heights_mm]
    planes = np.unique(centres_mm[:, 2].round(3))
    n_seen = 0
    for z_mm, (_, axes) in zip(heights_mm, views, strict=True):
        places, values = pixels(axes)
        plane = planes[np.abs(planes - z_mm).argmin()]
        there = np.column_stack([places, np.full(len(places), plane)])
        away, nearest = cKDTree(centres_mm).query(there, p=np.inf)
        assert away.max() < 0.5 * STEP_MM, "nilearn draws pixels up to half a voxel further in"
        np.testing.assert_allclose(values, np.clip(before[nearest], 2e-6, 0.5), atol=1e-5)
        assert len(values) == int((np.isfinite(before) & (np.abs(centres_mm[:, 2] - plane) < 1)).sum())
        left, right = axes.get_xlim()
        assert left < 0 < right, "left is left"
        n_seen += len(values)
    assert n_seen > 500


def test_a_dropped_voxel_is_grey_and_one_that_is_0_is_pale() -> None:
    centres_mm = ball()
    before, _ = planted(centres_mm)
    before[:] = np.nan
    before[centres_mm[:, 0] > 0] = 0.0
    figure = volume_figure("slices", volume_of(centres_mm), before, None, "S1")
    shown = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))[:, :1250].astype(int)

    def columns(colour: str) -> np.ndarray:
        rgb = np.round(255 * np.array(to_rgb(colour)))
        return np.flatnonzero((np.abs(shown - rgb) <= 1).all(axis=2).sum(axis=0) > 10)

    grey, pale = columns(NO_NUMBER), columns(SEQUENTIAL[0])
    assert len(grey) > 200
    assert len(pale) > 200
    middle = (grey.min() + pale.max()) / 2
    first_slice = grey[grey < middle / 3]
    assert first_slice.max() < pale.min() + 5, "the left half has no number"


def test_a_tilted_volume_lies_where_it_was() -> None:
    centres_mm = ball("tilted")
    before, _ = planted(centres_mm)
    for _, axes in drawn_views(volume_of(centres_mm), "slices", before):
        places, values = pixels(axes)
        if (values > 0.4).any():
            high = places[values > 0.4]
            assert np.linalg.norm(high.mean(axis=0) - LEFT_MM[:2]) < STEP_MM
            break
    else:
        pytest.fail("no slice goes through the place")


def test_a_glass_brain_shows_a_place_on_its_own_side_only() -> None:
    centres_mm = ball()
    before, _ = planted(centres_mm)
    views = drawn_views(volume_of(centres_mm, "MNI152NLin6Asym"), "glass", before)
    flat = {"left": [1, 2], "back": [0, 2], "top": [0, 1]}
    for (name, (_, axes)), expected in zip(
        zip(("left", "back", "right", "top"), views, strict=True), (True, True, False, True), strict=True
    ):
        places, values = pixels(axes)
        assert len(values) > 100
        assert (values > 0.4).any() == expected, name
        if expected:
            middle = places[values > 0.4].mean(axis=0)
            assert np.linalg.norm(middle - LEFT_MM[flat[name]]) < STEP_MM, name
        runs = axes.get_xlim()
        assert (runs[0] > runs[1]) == (name == "left"), "seen from the left, the front is on the left"
        assert {line.get_edgecolor()[:3] for line in axes.patches} == {to_rgb(INK), to_rgb(FAINT)}


def test_voxels_of_one_side_are_not_seen_on_the_other() -> None:
    centres_mm = ball(low_x_mm=20.0)
    views = drawn_views(volume_of(centres_mm, "MNI152NLin6Asym"), "glass", np.full(len(centres_mm), 0.3))
    assert [len(pixels(axes)[1]) > 50 for _, axes in views] == [False, True, True, True]


def test_seen_through_the_highest_r_and_the_change_furthest_from_0_are_in_front() -> None:
    centres_mm = ball()
    column = np.flatnonzero((centres_mm[:, :2] == [2, -20]).all(axis=1))
    values = np.full(len(centres_mm), 0.02)
    values[column[:2]] = -0.4, 0.3
    volume = volume_of(centres_mm, "MNI152NLin6Asym")
    for signed, expected in ((False, 0.3), (True, -0.4)):
        places, shown = pixels(drawn_views(volume, "glass", values, signed)[3][1])
        here = np.linalg.norm(places - [2, -20], axis=1).argmin()
        assert shown[here] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["glass", "slices"])
def test_words_and_numbers_stand_beside_the_maps_which_have_one_scale(kind: Any) -> None:
    centres_mm = ball()
    before, after = planted(centres_mm)
    volume = volume_of(centres_mm, "MNI152NLin6Asym")
    figure = volume_figure(kind, volume, before, after, "S1", simulated=True)
    known = np.isfinite(before)
    at = int(np.nanargmax(after - before))
    x, y, z = (f"{mm:.0f}" for mm in centres_mm[at])
    assert f"before: mean {before[known].mean():.3f}, highest 0.500 at x " in figure.alt
    assert (
        f"after - before: mean {(after - before)[known].mean():.3f}, highest 0.400 at x {x}, y {y}, z {z} mm"
        in figure.alt
    )
    assert f"{known.sum()} voxels of 6 x 6 x 6 mm" in figure.caption
    assert "MNI152NLin6Asym" in figure.caption
    assert "All maps have one scale" in figure.caption
    assert (figure.alt + figure.caption).count("Simulated listeners.") == 2
    rows = list(csv.DictReader(io.StringIO(figure.csv)))
    assert [float(rows[at][key]) for key in ("x_mm", "y_mm", "z_mm")] == pytest.approx(centres_mm[at], abs=1e-6)
    assert float(rows[at]["r_after"]) == pytest.approx(after[at])
    assert figure.svg is not None
    assert len(figure.svg) < 600_000
    assert colours_of(figure) <= on_dark()
    ends = [(row.look["vmin"], row.look["vmax"]) for row in rows_of(before, after)]
    assert ends == [(0.0, 0.5), (0.0, 0.5), (-0.5, 0.5)]


def rows_of(before: np.ndarray, after: np.ndarray) -> list[Any]:
    return volume_map._rows(before, after)


def test_nothing_is_cut_off_in_the_width_of_a_column() -> None:
    centres_mm = ball()
    before, after = planted(centres_mm)
    vertices = np.arange(0, 20_000, 10)[: len(centres_mm)]
    maps = (
        volume_figure("slices", volume_of(centres_mm), before, after, "S1"),
        brain_figure(vertices, before[: len(vertices)], after[: len(vertices)], "S1"),
    )
    for figure in maps:
        assert figure.print_as is not None
        shown = np.asarray(Image.open(io.BytesIO(figure.print_as("png", 88))).convert("L"))
        edges = shown[:, :2], shown[:, -2:], shown[:2], shown[-2:]
        assert [edge.min() for edge in edges] == [255] * 4, figure.name
        wide = np.asarray(Image.open(io.BytesIO(figure.print_as("png", 88))).convert("RGB"))[:, 80:800]
        drawn = (wide.min(axis=2) < 245).any(axis=0)
        assert drawn.mean() > 0.8, "maps have the room that there is"


def test_0_is_the_palest_colour() -> None:
    for row in rows_of(np.array([0.1, 0.2]), np.array([0.2, 0.1])):
        look = row.look
        share = (0 - look["vmin"]) / (look["vmax"] - look["vmin"])
        light = look["cmap"](np.linspace(0, 1, 101))[:, :3].sum(axis=1)
        assert light.argmax() == round(100 * share)
        assert DIVERGING[2] != SEQUENTIAL[0]


def test_a_record_says_which_pictures_there_are() -> None:
    vertices, centres_mm = np.arange(27), STEP_MM * np.argwhere(np.ones((3, 3, 3), dtype=bool))

    def named(**more: Any) -> tuple[list[str], str]:
        record = ProbeRecord("sub-1", "before", 0, 0, 2, "print", ScoreTable([]), np.zeros(27), **more)
        jobs, lacking = brain_figures([record])
        return [name for name, _ in jobs], lacking

    assert named() == ([], "No map for sub-1: nothing says where its voxels lie, on fsaverage5 or in a volume.")
    assert named(vertices=vertices) == (["brain-sub-1"], "")
    assert named(coordinates_mm=centres_mm) == (["brain-sub-1-slices"], "")
    in_mni = {"space": "MNI152NLin6Asym"}
    assert named(coordinates_mm=centres_mm, facts=in_mni) == (["brain-sub-1-glass", "brain-sub-1-slices"], "")
    scattered = np.random.default_rng(0).uniform(-50, 50, (27, 3))
    assert "on no regular grid" in named(coordinates_mm=scattered)[1]
