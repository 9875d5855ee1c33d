"""Alignment on the cortical surface: fsaverage5, both hemispheres, lateral and medial.

The surface is drawn as flat triangles sorted by depth, which takes a hundredth of a second per view where matplotlib's
3-D axes take many seconds. Vertices without a voxel nearby stay grey: nothing is smoothed or extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import FloatArray, IntArray
from brainlit.results.style import (
    BESIDE_MAPS_IN,
    DIVERGING,
    FAINT,
    SEQUENTIAL,
    Figure,
    colour_map,
    draw_maps,
)

N_VERTICES = 10_242
MAX_DISTANCE_MM = 4.0
ROW_IN = 1.95
SVG_DPI = 110
"""Of the maps within a vector picture: its page may have several."""
MARGIN = 0.05
"""Around a view, as a share of its size."""
VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))


_Map: TypeAlias = tuple[str, FloatArray, Sequence[str], float, float]
"""Name, value of each voxel, colours and their ends."""


@dataclass(frozen=True)
class Hemisphere:
    """One half of fsaverage5.

    Parameters
    ----------
    places_mm : array of shape (10242, 3)
        Pial surface, where distances are those of a brain.
    shape_mm : array of shape (10242, 3)
        Inflated surface, which is drawn.
    faces : int array of shape (n_faces, 3)
    depth : array of shape (10242,)
        Sulcal depth, for the grey of the folds.
    """

    places_mm: FloatArray
    shape_mm: FloatArray
    faces: IntArray
    depth: FloatArray


def brain_figure(
    vertices: IntArray,
    before: FloatArray,
    after: FloatArray | None,
    subject: str,
    max_distance_mm: float = MAX_DISTANCE_MM,
    *,
    simulated: bool = False,
) -> Figure:
    """Maps of r before, after and of their difference for one subject.

    Parameters
    ----------
    vertices : int array of shape (n_voxels,)
        0..10241 left, 10242..20483 right; from `Subject.vertices`.
    before, after : arrays of shape (n_voxels,)
        r per voxel, NaN where dropped; one row of maps where `after` is None.
    max_distance_mm : float
        A vertex shows the nearest voxel if that lies within this distance on the pial surface, else it stays grey.
    simulated : bool
        Whether the listener is: then picture, alt and caption say so.

    Raises
    ------
    ValueError
        If a vertex number does not exist on fsaverage5.
    """
    if len(vertices) and not 0 <= int(np.min(vertices)) <= int(np.max(vertices)) < 2 * N_VERTICES:
        raise ValueError(f"vertices of {subject} reach {np.max(vertices)}; fsaverage5 has 0..{2 * N_VERTICES - 1}.")
    top = max(float(np.nanquantile(np.abs(r), 0.99)) for r in (before, after) if r is not None)
    maps: list[_Map] = [("before", before, SEQUENTIAL, 0.0, top)]
    if after is not None:
        change = after - before
        limit = max(float(np.nanquantile(np.abs(change), 0.99)), 1e-6)
        maps += [("after", after, SEQUENTIAL, 0.0, top), ("after - before", change, DIVERGING, -limit, limit)]

    means = "; ".join(f"{name}: mean {np.nanmean(values):.3f}" for name, values, *_ in maps)
    caption = (
        f"Alignment r per voxel of subject {subject} on fsaverage5 (inflated). A vertex shows the nearest of"
        f" {int(np.isfinite(before).sum())} voxels within {max_distance_mm:g} mm; elsewhere grey. Colours end at the"
        " 99 % quantile and are palest at 0; single voxels carry no interval here."
    )
    alt = f"Cortical maps of alignment of subject {subject}. {means}."
    return draw_maps(
        f"brain-{subject}",
        lambda figure: _draw_maps(figure, vertices, maps, max_distance_mm),
        ROW_IN,
        len(maps),
        alt,
        caption,
        simulated=simulated,
        svg_dpi=SVG_DPI,
    )


def surface_values(
    hemisphere: str, vertices: IntArray, values: FloatArray, max_distance_mm: float = MAX_DISTANCE_MM
) -> FloatArray:
    """Values of the nearest voxel for each vertex of one hemisphere; NaN where none is near.

    Parameters
    ----------
    values : array of shape (n_maps, n_voxels)
        Voxels that are NaN in any map are left out of all. Voxels that share a vertex are averaged.

    Returns
    -------
    array of shape (n_maps, 10242)
    """
    from scipy.spatial import cKDTree

    first = 0 if hemisphere == "left" else N_VERTICES
    mine = (vertices >= first) & (vertices < first + N_VERTICES) & np.isfinite(values).all(axis=0)
    on_surface = np.full((len(values), N_VERTICES), np.nan)
    if not mine.any():
        return on_surface
    at, index = np.unique(vertices[mine] - first, return_inverse=True)
    mean = np.stack([np.bincount(index, weights=row[mine]) / np.bincount(index) for row in values])
    places = fsaverage5(hemisphere).places_mm
    distance, nearest = cKDTree(places[at]).query(places, distance_upper_bound=max_distance_mm)
    near = np.isfinite(distance)
    on_surface[:, near] = mean[:, nearest[near]]
    return on_surface


@lru_cache(maxsize=2)
def fsaverage5(hemisphere: str) -> Hemisphere:
    """One half of fsaverage5, from the files that nilearn's package carries; nothing is downloaded.

    The files are read without importing nilearn, which takes seconds.

    Raises
    ------
    FileNotFoundError
        If nilearn is not installed, or carries the surface elsewhere.
    """
    import nibabel

    load: Any = nibabel.load
    spec = find_spec("nilearn")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    if not folders:
        raise FileNotFoundError("nilearn is not installed, and carries the surface that maps are drawn on: install it.")
    folder = Path(folders[0]) / "datasets" / "data" / "fsaverage5"
    pial, inflated, sulci = (load(folder / f"{kind}_{hemisphere}.gii.gz").darrays for kind in ("pial", "infl", "sulc"))
    places, shape, depth = (np.asarray(part.data, dtype=np.float64) for part in (pial[0], inflated[0], sulci[0]))
    return Hemisphere(places, shape, np.asarray(inflated[1].data, dtype=np.int64), depth)


def _draw_maps(figure: Any, vertices: IntArray, maps: Sequence[_Map], max_distance_mm: float) -> None:
    """All views are painted once, in the dots of the figure, as one image; its words and scales stay beside it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    stacked = np.stack([values for _, values, *_ in maps])
    shown = {side: surface_values(side, vertices, stacked, max_distance_mm) for side in ("left", "right")}
    height, width_in = 0.93 / len(maps), figure.get_size_inches()[0]
    left, right = (inches / width_in for inches in BESIDE_MAPS_IN)
    width = (1 - left - right) / len(VIEWS)
    n_x, n_y = (round(float(size)) for size in figure.bbox.size)
    size = np.array([n_x, n_y, n_x, n_y])
    places = [np.array([left + v * width, 0.94 - height, width * 0.97, height * 0.97]) for v in range(len(VIEWS))]
    top_row = [_within(seen_from(*view)[1], place * size) for view, place in zip(VIEWS, places, strict=True)]
    triangles, colours_of = [], []
    for k, (name, _, colours, low, high) in enumerate(maps):
        painter = ScalarMappable(Normalize(low, high), colour_map(colours))
        bottom = 0.94 - (k + 1) * height
        for v, (hemisphere, view) in enumerate(VIEWS):
            faces, _ = seen_from(hemisphere, view)
            triangles.append(top_row[v] - (0, k * height * n_y))
            colours_of.append(_face_colours(fsaverage5(hemisphere), faces, shown[hemisphere][k], painter))
            if k == 0:
                y = top_row[v][..., 1]
                above = (y.max() + MARGIN * np.ptp(y)) / n_y + 6 / 72 / figure.get_figheight()
                words: Any = {"fontsize": 9, "color": FAINT, "ha": "center"}
                figure.text(left + (v + 0.485) * width, above, f"{hemisphere} {view}", **words)
        figure.text(0.4 * left, bottom + height / 2, name, rotation=90, va="center", ha="center", weight="bold")
        bar = figure.colorbar(
            painter, cax=figure.add_axes((1 - 0.9 * right, bottom + 0.14 * height, 0.12 / width_in, 0.7 * height))
        )
        bar.outline.set_visible(False)
        bar.solids.set_rasterized(True)
        bar.set_label("Δr" if low < 0 else "r")
    figure.add_artist(_behind(figure, painted(np.concatenate(triangles), np.concatenate(colours_of), n_x, n_y)))


def _behind(figure: Any, dots: npt.NDArray[np.uint8]) -> Any:
    """An artist that shows dots of shape (n_y, n_x, 4) on all of the figure, in as many as the format has there.

    An image of matplotlib's own does too, and takes five times as long.
    """
    from matplotlib.artist import Artist, allow_rasterization
    from PIL import Image

    class Dots(Artist):
        zorder = -1

        @allow_rasterization  # type: ignore[untyped-decorator]
        def draw(self, renderer: Any) -> None:
            size: Any = tuple(round(float(n) * renderer.get_image_magnification()) for n in figure.bbox.size)
            shown = dots
            if size != dots.shape[1::-1]:  # colours weigh as much as they cover: what is clear has none
                whole = Image.fromarray(dots).convert("RGBa").resize(size, Image.Resampling.BOX)
                shown = np.asarray(whole.convert("RGBA"))
            renderer.draw_image(renderer.new_gc(), 0, 0, shown[::-1])

    return Dots()


def painted(triangles: FloatArray, colours: FloatArray, n_x: int, n_y: int) -> npt.NDArray[np.uint8]:
    """Triangles on nothing, the later over the earlier.

    Parameters
    ----------
    triangles : array of shape (n, 3, 2)
        In pixels from the lower left corner.
    colours : array of shape (n, 4)

    Returns
    -------
    array of shape (n_y, n_x, 4)
    """
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.transforms import IdentityTransform

    new_canvas: Any = RendererAgg
    canvas = new_canvas(n_x, n_y, 72)
    # Shaded between the colours of its corners, which are alike: these are drawn from whole arrays, where polygons are
    # drawn one after the other, which takes three times as long.
    canvas.draw_gouraud_triangles(canvas.new_gc(), triangles, np.repeat(colours[:, None], 3, 1), IdentityTransform())
    return np.asarray(canvas.buffer_rgba())


def _within(corners: FloatArray, place: FloatArray) -> FloatArray:
    """Faces in the middle of a place (its left, lower, width and height), with a margin; shape (n, 3, 2)."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = (place[2:] / (high - low)).min() / (1 + 2 * MARGIN)
    return np.asarray((corners - (low + high) / 2) * scale + place[:2] + place[2:] / 2).reshape(-1, 3, 2)


@lru_cache(maxsize=len(VIEWS))
def seen_from(hemisphere: str, view: str) -> tuple[IntArray, FloatArray]:
    """Project along the left-right axis and keep the faces that look at the viewer, from far to near.

    Returns
    -------
    faces : int array of shape (n_seen, 3)
    corners : array of shape (3 * n_seen, 2)
        Of each face one after the other, in the picture.
    """
    half = fsaverage5(hemisphere)
    outward = (hemisphere == "left") == (view == "lateral")
    side = -1.0 if outward else 1.0
    toward = side * half.shape_mm[:, 0]
    flat = np.column_stack([half.shape_mm[:, 1] * side, half.shape_mm[:, 2]])
    corners = flat[half.faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # Corners run counter-clockwise in the picture (positive cross product) where a face looks at the viewer.
    seen = np.flatnonzero(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] > 0)
    seen = seen[np.argsort(toward[half.faces[seen]].mean(axis=1))]
    return half.faces[seen], corners[seen].reshape(-1, 2)


def _face_colours(half: Hemisphere, faces: IntArray, values: FloatArray, painter: Any) -> FloatArray:
    """Grey by sulcal depth, coloured where most corners of a face carry a value; shape (n_faces, 4)."""
    in_sulcus = half.depth[faces].mean(axis=1) > 0
    folds = 0.80 - 0.10 * in_sulcus
    colours = np.column_stack([folds, folds, folds, np.ones(len(faces))])
    corners = values[faces]
    known = np.isfinite(corners).sum(axis=1) >= 2
    colours[known] = painter.to_rgba(np.nanmean(corners[known], axis=1))
    shade = 1 - 0.12 * in_sulcus
    colours[known, :3] *= shade[known, None]
    return np.asarray(np.clip(colours, 0, 1))
