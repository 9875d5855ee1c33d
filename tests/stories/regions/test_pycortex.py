"""A filestore of two small folded sheets, where every vertex sits in the middle of a voxel of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.gifti import GiftiDataArray, GiftiImage

from brainlit.stories.base import SourceError
from brainlit.stories.readers.images import read_mask
from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files
from brainlit.stories.regions.pycortex import overlay_files, read_outline, read_overlays

N_X, N_Y = 6, 5
"""Vertices of a hemisphere: vertex x * N_Y + y lies at column x, row y of its flat map."""
PIXELS = 10
"""Per step of the flat map. The maps touch, so column x is at pixel 10 x on the left and 50 + 10 x on the right."""
SIZE = (10 * PIXELS, 4 * PIXELS)
GRID = (14, 7, 9)
COORD = np.array([[0.4, 0.1, 0, 2], [-0.1, 0.4, 0.05, 1], [0, 0.05, 0.3, -3], [0, 0, 0, 1]])
"""Surface millimetres to voxels: turned, squeezed and moved."""
CUT = (5, 4)
"""A vertex of the left hemisphere that the flat map lacks."""

RECTANGLE = "M 15,5 L 35,5 L 35,25 L 15,25 Z"
"""Around columns 2 and 3 of the left map, and rows 2 and 3 (row 4 is the top edge, pixel 0)."""
IN_RECTANGLE = {(0, x, y) for x in (2, 3) for y in (2, 3)}


def voxel(side: int, x: int, y: int) -> tuple[int, int, int]:
    """Voxel of a vertex: a sheet that bends in depth; the right one lies beside the left one."""
    return 7 * side + x, y + 1, (x - 2) ** 2 // 2 + y


ALL = [(side, x, y) for side in (0, 1) for x in range(N_X) for y in range(N_Y)]
COLUMNS = sorted(ALL, key=lambda vertex: voxel(*vertex)[::-1])
"""The vertex of each response column: voxels counted with z slowest and x fastest."""


def columns(vertices: set[tuple[int, int, int]]) -> list[int]:
    return [k for k, vertex in enumerate(COLUMNS) if vertex in vertices]


def surface(path: Path, points: np.ndarray, faces: np.ndarray) -> None:
    arrays = [
        GiftiDataArray(points.astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
        GiftiDataArray(faces.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nibabel.save(GiftiImage(darrays=arrays), path)


def drawing(shapes: str, size: tuple[int, int] = SIZE, extra: str = "") -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape"'
        f' width="{size[0]}.0" height="{size[1]}.0" {extra}><g inkscape:label="data"/><g inkscape:label="rois">'
        f'<g inkscape:label="shapes">{shapes}</g><g inkscape:label="labels" transform="translate(3,4)"/></g></svg>'
    )


def region(name: str, *paths: str, extra: str = "") -> str:
    inner = "".join(f'<path d="{d}"/>' for d in paths)
    return f'<g inkscape:label="{name}" {extra}>{inner}</g>'


def write_filestore(root: Path, shapes: str) -> Path:
    folder = root / "db" / "sub"
    space = folder / "transforms" / "sub_auto"
    (folder / "surfaces").mkdir(parents=True)
    space.mkdir(parents=True)
    to_mm = np.linalg.inv(COORD)
    corners = [(x * N_Y + y, (x + 1) * N_Y + y, x * N_Y + y + 1) for x in range(N_X - 1) for y in range(N_Y - 1)]
    corners += [(a + N_Y + 1, b, c) for a, b, c in corners]
    faces = np.array(corners)
    for side, hemi in enumerate(("lh", "rh")):
        xy = np.array([(x, y) for x in range(N_X) for y in range(N_Y)], dtype=float)
        flat = np.column_stack([3.0 * xy[:, 0] - 40 + 90 * side, 2.0 * xy[:, 1] - 7, np.zeros(len(xy))])
        middle = np.array([voxel(side, int(x), int(y)) for x, y in xy]) @ to_mm[:3, :3].T + to_mm[:3, 3]
        whole = (faces == CUT[0] * N_Y + CUT[1]).any(axis=1) if side == 0 else np.zeros(len(faces), dtype=bool)
        surface(folder / "surfaces" / f"flat_{hemi}.gii", flat, faces[~whole])
        for name, shift in (("pia", 1), ("wm", -1)):
            surface(folder / "surfaces" / f"{name}_{hemi}.gii", middle + shift * np.array([4, -3, 9]), faces)
    mask = np.zeros(GRID, dtype=np.uint8)
    for vertex in ALL:
        mask[voxel(*vertex)] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), space / "mask_thick.nii.gz")
    (space / "matrices.xfm").write_text(json.dumps({"coord": COORD.tolist(), "magnet": np.eye(4).tolist()}))
    (folder / "overlays.svg").write_text(drawing(shapes))
    return root / "db"


def read(root: Path, shapes: str) -> dict[str, list[int]]:
    write_filestore(root, shapes)
    config = RegionConfig(pycortex="db", transform="{subject}_auto")
    found = read_subject_regions(config, "sub", len(ALL), root)
    return {name: np.flatnonzero(mask).tolist() for name, mask in found.items()}


def test_voxels_of_a_nifti_run_are_in_another_order(tmp_path: Path) -> None:
    db = write_filestore(tmp_path, region("AC", RECTANGLE))
    config = RegionConfig(pycortex="db", transform="{subject}_auto")
    mask = read_mask(db / "sub" / "transforms" / "sub_auto" / "mask_thick.nii.gz")
    found = read_subject_regions(config, "sub", len(ALL), tmp_path, mask)["AC"]
    assert {tuple(one) for one in np.argwhere(mask.inside)[found].tolist()} == {voxel(*v) for v in IN_RECTANGLE}
    with pytest.raises(SourceError, match="its voxels are not the columns of the responses"):
        read_subject_regions(config, "sub", len(ALL), tmp_path, replace(mask, inside=mask.inside[::-1]))


def test_every_vertex_has_a_voxel_of_its_own() -> None:
    assert len({voxel(*vertex) for vertex in ALL}) == len(ALL) == 60


def test_a_drawn_rectangle_is_found_in_the_order_of_the_mask(tmp_path: Path) -> None:
    both = region("AC", RECTANGLE, "m 75,5 20,0 0,10 -20,0 z")
    found = read(tmp_path, both + region("V3A") + region("FFA", "M -5,35 h 110 v 10 h -110 z"))
    right = {(1, 3, 3), (1, 4, 3)}
    assert found["AC"] == columns(IN_RECTANGLE | right)
    assert found["AC left"] == columns(IN_RECTANGLE)
    assert found["AC right"] == columns(right)
    assert found["FFA"] == columns({vertex for vertex in ALL if vertex[2] == 0})
    assert "V3A" not in found


def test_vertices_cut_from_the_flat_map_follow_their_neighbours(tmp_path: Path) -> None:
    only_the_cut = region("cut", "M 46,-4 h 4.5 v 8 h -4.5 z")
    neighbour = region("beside", "M 36,-4 h 8 v 8 h -8 z")
    found = read(tmp_path, only_the_cut + neighbour)
    assert found["beside"] == columns({(0, 4, 4), (0, *CUT)})
    assert found["cut"] == columns({(1, 0, 4)}), "the maps touch, and only the right one has a vertex there"


def test_moved_or_unreadable_outlines_are_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    moved = region("moved", RECTANGLE, extra='transform="translate(0,3)"')
    still = region("still", RECTANGLE, extra='transform="translate(0,0.0)"')
    found = read(tmp_path, moved + still + region("round", "M 1 1 A 5 5 0 0 0 9 9 Z"))
    assert found["still"] == columns(IN_RECTANGLE)
    assert set(found) == {"still", "still left"}
    assert "region moved is left out" in caplog.text
    assert "region round is left out" in caplog.text


def test_a_fiducial_surface_goes_before_the_mean_of_the_others(tmp_path: Path) -> None:
    filestore = write_filestore(tmp_path, region("AC", RECTANGLE))
    surfaces = filestore / "sub" / "surfaces"
    for hemi in ("lh", "rh"):
        (pia, faces), (wm, _) = (
            nibabel.load(surfaces / f"{name}_{hemi}.gii").agg_data(("pointset", "triangle")) for name in ("pia", "wm")
        )
        surface(surfaces / f"fiducial_{hemi}.gii", (pia + wm)[::-1] / 2, faces)
    ac = read_overlays(filestore, "sub", "sub_auto", len(ALL))[0]
    turned = {(0, N_X - 1 - x, N_Y - 1 - y) for _, x, y in IN_RECTANGLE}
    assert np.flatnonzero(ac.mask).tolist() == columns(turned)
    files = [path.name for path in overlay_files(filestore, "sub", "sub_auto")]
    assert files[3:5] == ["fiducial_lh.gii", "fiducial_rh.gii"]


@pytest.mark.parametrize("name", ["overlays.svg", "flat_lh.gii", "wm_rh.gii", "matrices.xfm", "mask_thick.nii.gz"])
def test_each_file_is_asked_for_by_name(tmp_path: Path, name: str) -> None:
    write_filestore(tmp_path, region("AC", RECTANGLE))
    config = RegionConfig(pycortex="db")
    files = {path.name: path for path in region_files(config, "sub", tmp_path)}
    assert len(files) == 9
    files[name].unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_subject_regions(config, "sub", len(ALL), tmp_path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    filestore = write_filestore(tmp_path, region("AC", RECTANGLE))
    svg = filestore / "sub" / "overlays.svg"
    with pytest.raises(SourceError, match=r"mask_thick.nii.gz has 60 voxels, but the responses have 61 columns"):
        read_overlays(filestore, "sub", "sub_auto", 61)
    for text, message in (
        ("<svg", "no readable drawing"),
        (drawing("").replace("shapes", "forms"), "no layer 'shapes'"),
        (drawing(region("V1")), "no region is drawn"),
        (drawing(region("AC", RECTANGLE), extra='viewBox="0 0 50 20"'), "viewBox"),
        (drawing(region("AC", RECTANGLE)).replace('width="100.0"', 'width="100mm"'), "numbers of pixels"),
    ):
        svg.write_text(text)
        with pytest.raises(SourceError, match=message):
            read_overlays(filestore, "sub", "sub_auto", len(ALL))
    svg.write_text(drawing(region("AC", RECTANGLE)))
    (filestore / "sub" / "transforms" / "sub_auto" / "matrices.xfm").write_text('{"coord": [[1, 2]]}')
    with pytest.raises(SourceError, match="no transform 'coord'"):
        read_overlays(filestore, "sub", "sub_auto", len(ALL))


def bezier(points: np.ndarray, n: int = 120) -> np.ndarray:
    """De Casteljau's construction, point by point."""
    out = []
    for t in np.linspace(0, 1, n):
        left = points
        while len(left) > 1:
            left = (1 - t) * left[:-1] + t * left[1:]
        out.append(left[0])
    return np.array(out)


def crossings(polygon: np.ndarray, point: np.ndarray) -> bool:
    """Inside by counting the edges that a ray to the right crosses."""
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y1 > point[1]) != (y2 > point[1]) and point[0] < x1 + (point[1] - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside


coordinate = st.integers(-20, 20).map(float)


@given(numbers=st.lists(coordinate, min_size=12, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_curves_hold_the_points_that_a_fine_polygon_holds(numbers: list[float], seed: int) -> None:
    a, b, c, d, e, f = np.reshape(numbers, (6, 2))
    mirrored = 2 * d - c
    polygon = np.concatenate([bezier(np.array([a, b, c, d])), bezier(np.array([d, mirrored, e, f]))])
    pairs = ["{},{}".format(*p) for p in (a, b, c, d, e, f)]
    absolute = "M {} C {} {} {} S {} {} Z".format(*pairs)
    steps = ["{} {}".format(*p) for p in (a, b - a, c - a, d - a, e - d, f - d)]
    relative = "m{}c{} {} {}s{} {}z".format(*steps)
    points = np.random.default_rng(seed).uniform(-25, 25, (30, 2))
    far = [np.abs(np.linalg.norm(polygon - p, axis=1)).min() > 0.3 for p in points]
    simple = [crossings(polygon, p) for p in points]
    for text in (absolute, relative):
        found = read_outline(text).contains_points(points)
        winding = read_outline(absolute).contains_points(points)
        np.testing.assert_array_equal(found, winding)
        assert all(found[k] for k in range(30) if far[k] and simple[k])


@pytest.mark.parametrize(
    "d", ["M 0 0 4 0 4 4 0 4 Z", "m0,0h4v4h-4z", "M0 0H4V4H0z", "M 0 0 l 4 0 l 0 4 L 0 4", "M0 0Q2 0 4 0T4 4L0 4Z"]
)
def test_a_square_is_a_square_however_it_is_written(d: str) -> None:
    outline = read_outline(d)
    assert outline.contains_points([[1, 1], [2, 3], [3.5, 2]]).all()
    assert not outline.contains_points([[-1, 1], [1, 5], [2, -1.5]]).any()


@pytest.mark.parametrize(
    ("d", "message"),
    [("", "empty"), ("L 1 2", "begins with"), ("M 1", "1 numbers, needs 2"), ("M 1 2 C 3 4", "needs 6"),
     ("M 1 2 Z 3", "belongs to no command"), ("M 1 2 # 4", "neither"), ("M 0 0 B 1", "not read")],
)  # fmt: skip
def test_damaged_outlines_are_refused(d: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_outline(d)
