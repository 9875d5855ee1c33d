from __future__ import annotations

import base64
import io
import re
import sys
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as MatplotlibFigure
from PIL import Image

from brainlit.results import brainmap
from brainlit.results.brainmap import N_VERTICES, brain_figure, fsaverage5, painted, seen_from, surface_values
from brainlit.results.figures import alignment_figure, learning_figure, partition_figure, summary_figures
from brainlit.results.metrics import read_metrics
from brainlit.results.run_directory import RunDirectory
from brainlit.results.style import BAND_COLOURS, STAGE_COLOURS, Figure, draw_figure, house_style, new_figure
from brainlit.results.summary import build_summary, find_score
from tests.results.test_style import colours_of, on_dark


@pytest.fixture(scope="module")
def summary(run: RunDirectory) -> dict[str, Any]:
    return build_summary(run)


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))


def count(figure: Figure, colour: str) -> int:
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(pixels(figure).astype(int) - rgb) <= 2).all(axis=2).sum())


def test_every_figure_is_drawn_with_words(summary: dict[str, Any], run: RunDirectory) -> None:
    for name, job in summary_figures(summary, read_metrics(run.path / "metrics.csv")):
        figure = job()
        assert figure is not None, name
        assert figure.name == name
        assert figure.svg is not None
        assert figure.svg.lstrip().startswith(b"<?xml")
        assert colours_of(figure) <= on_dark(), name
        assert pixels(figure).std() > 5
        assert figure.alt
        assert figure.caption[0].isupper(), "it may stand after 'Simulated listeners.'"


def test_bars_have_the_colours_of_their_stage(summary: dict[str, Any]) -> None:
    figure = alignment_figure(summary)
    assert figure is not None
    assert min(count(figure, colour) for colour in STAGE_COLOURS.values()) > 2000
    row = find_score(summary, "semantic", "r_backbone")
    assert row is not None
    assert f"semantic: before {row['before']['value']:.3f}, after {row['after']['value']:.3f}" in figure.alt


def test_the_area_of_a_part_follows_its_value(summary: dict[str, Any]) -> None:
    figure = partition_figure(summary)
    assert figure is not None
    assert count(figure, BAND_COLOURS["backbone&low_level"]) > 2 * count(figure, BAND_COLOURS["backbone"])


def test_nothing_to_show_is_no_figure(summary: dict[str, Any]) -> None:
    bare = {**summary, "scores": [], "learning": [], "layer_epochs": []}
    assert [job() for _, job in summary_figures(bare, {})] == [None] * 6
    only_loss = learning_figure(bare, {"train/loss_step": [(0.0, 1.0), (1.0, 0.5)]})
    assert only_loss is not None
    assert "from 1 to 0.5" in only_loss.alt


def test_plotting_leaves_no_global_state(summary: dict[str, Any]) -> None:
    before = dict(mpl.rcParams)
    alignment_figure(summary)
    assert dict(mpl.rcParams) == before
    with pytest.raises(RuntimeError), house_style():
        raise RuntimeError
    assert dict(mpl.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_same_summary_gives_the_same_bytes(summary: dict[str, Any]) -> None:
    one, two = alignment_figure(summary), alignment_figure(summary)
    assert one == two


def test_vertices_show_the_nearest_voxel_on_their_own_side_and_nothing_far_away() -> None:
    places = fsaverage5("left").places_mm
    near = int(np.argsort(np.linalg.norm(places - places[100], axis=1))[1])
    vertices = np.array([100, N_VERTICES + 100, 100, 5000])
    values = np.array([[1.0, 9.0, 3.0, np.nan]])
    left = surface_values("left", vertices, values, max_distance_mm=3.0)[0]
    assert left[100] == 2.0
    assert left[near] == 2.0
    assert np.isnan(left[5000])
    distance = np.linalg.norm(places - places[100], axis=1)
    assert np.array_equal(np.isfinite(left), distance < 3.0)
    assert surface_values("right", vertices, values)[0, 100] == 9.0


def test_brain_map_colours_where_the_voxels_are() -> None:
    rng = np.random.default_rng(0)
    vertices = rng.choice(2 * N_VERTICES, 300, replace=False)
    r = np.full(300, 0.4)
    with_change = brain_figure(vertices, r, r + 0.1, "sub-1")
    without = brain_figure(vertices, r, None, "sub-1")
    coloured = [float((np.ptp(pixels(figure).astype(int), axis=2) > 40).mean()) for figure in (with_change, without)]
    assert all(share > 0.01 for share in coloured)
    assert pixels(with_change).shape[0] > 2 * pixels(without).shape[0]
    assert "mean 0.400" in with_change.alt
    assert with_change.svg is not None
    assert with_change.svg.count(b"data:image/png;base64") == 1 + 3, "all maps, and the scales beside them"
    assert b"prefers-color-scheme: dark" in with_change.svg
    assert ground_of(with_change.svg) == "opacity: 0"


def ground_of(svg: bytes) -> str:
    """How the rectangle behind everything is painted."""
    (style,) = re.findall(r'<g id="patch_1">\s*<path [^>]*style="([^"]*)"', svg.decode(), re.DOTALL)
    return str(next(part for part in style.split("; ") if part.startswith("opacity")))


def test_a_map_looks_as_if_drawn_by_polygons() -> None:
    half = fsaverage5("left")
    values = np.where(half.shape_mm[:, 1] < 0, 0.5 + 0.5 * np.sin(half.shape_mm[:, 2] / 5), np.nan)
    painter = ScalarMappable(Normalize(0, 1), "magma")
    figure = new_figure(5, 3, layout=None)
    polygons(figure.add_axes((0, 0, 1, 1)), half, values, painter)
    figure.canvas.draw()
    expected = np.asarray(figure.canvas.buffer_rgba()).astype(int)
    faces, corners = seen_from("left", "lateral")
    place = np.array([0.0, 0.0, 500.0, 300.0])
    triangles, colours = brainmap._within(corners, place), brainmap._face_colours(half, faces, values, painter)
    drawn = Image.alpha_composite(
        Image.new("RGBA", (500, 300), "white"), Image.fromarray(painted(triangles, colours, 500, 300))
    )
    different = np.abs(np.asarray(drawn).astype(int) - expected).max(axis=2)
    moved = np.abs(expected - np.roll(expected, 1, axis=1)).max(axis=2)  # by one pixel
    assert (expected.min(axis=2) < 200).mean() > 0.3, "something is drawn"
    assert different.mean() < moved.mean()


def test_maps_lie_in_a_vector_picture_where_they_lie_in_the_other() -> None:
    vertices = np.arange(0, 2 * N_VERTICES, 40)
    drawn = brain_figure(vertices, np.full(len(vertices), 0.4), None, "sub-1")
    assert drawn.svg is not None
    picture = pixels(drawn)
    height, width = picture.shape[:2]
    (place, png) = max(pictures_in(drawn.svg), key=lambda one: len(one[1]))
    shown = np.asarray(Image.open(io.BytesIO(png)).transpose(Image.Transpose.FLIP_TOP_BOTTOM))[..., 3] > 127
    left, top, across, down = place
    rows, columns = (np.flatnonzero(shown.any(axis=axis))[[0, -1]] / shown.shape[1 - axis] for axis in (1, 0))
    inside = picture[:, : int(0.9 * width)].min(axis=2) < 250  # without the scale
    inside[: int(0.17 * height)] = inside[:, : int(0.03 * width)] = False  # without words
    for share, there, size in (
        (left + across * columns, inside.any(axis=0), width),
        (top + down * rows, inside.any(axis=1), height),
    ):
        assert share * size == pytest.approx(np.flatnonzero(there)[[0, -1]], abs=3)


def pictures_in(svg: bytes) -> list[tuple[tuple[float, float, float, float], bytes]]:
    """Left, top, width and height of each picture, as shares of the whole, and its PNG."""
    text = svg.decode()
    _, _, width, height = map(float, re.findall(r'viewBox="([^"]*)"', text)[0].split())
    found = []
    for tag in re.findall(r"<image [^>]*>", text, re.DOTALL):
        own = dict(re.findall(r'([\w:]+)="([^"]*)"', tag))
        x, y, w, h = (float(own[name]) for name in ("x", "y", "width", "height"))
        assert own["transform"].startswith("scale(1 -1) translate(0 -"), "turned upside down, about its lower end"
        raised = float(own["transform"].rpartition("-")[2].strip(")"))
        png = base64.b64decode(own["xlink:href"].partition(",")[2])
        found.append(((x / width, (raised - y - h) / height, w / width, h / height), png))
    return found


def test_each_format_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = MatplotlibFigure.draw
    monkeypatch.setattr(MatplotlibFigure, "draw", lambda self, renderer: drawn.append(renderer) or draw(self, renderer))
    draw_figure("one", lambda figure: figure.add_subplot(title="words").plot([0, 1]) and None, (3, 2), "alt", "caption")
    assert len(drawn) == 2
    brain_figure(np.array([3, 4]), np.array([0.1, 0.2]), None, "sub-1")
    assert len(drawn) == 4


def polygons(axes: Any, half: Any, values: Any, painter: Any) -> None:
    """The lateral view of the left half once more: every face, the nearest last, as a polygon of its own."""
    order = np.argsort(-half.shape_mm[half.faces, 0].mean(axis=1))
    corners = half.shape_mm[half.faces[order]]
    flat = np.stack([-corners[..., 1], corners[..., 2]], axis=-1)
    colours = brainmap._face_colours(half, half.faces[order], values, painter)
    axes.add_collection(PolyCollection(list(flat), facecolors=colours, edgecolors=colours, linewidths=0.25))
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_axis_off()


def test_a_vertex_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fsaverage5 has 0\.\.20483"):
        brain_figure(np.array([20_484]), np.array([0.1]), None, "sub-1")
