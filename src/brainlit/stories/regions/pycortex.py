"""Regions drawn by hand on a pycortex flat map: <filestore>/<subject>/overlays.svg, without pycortex.

The drawing's pixels are the flat map's coordinates: with the hemispheres side by side (the left one ends and the right
one begins at x = 0), x runs from 0 to the drawing's width and y from its height to 0 over all vertices. A vertex is in
a region if any of the region's outlines holds it; vertices that were cut away from the flat map belong to the regions
of their neighbours. A voxel is in the regions of the vertex of the mid-surface that is nearest to it.

This is what cortex.utils.get_roi_masks(subject, transform, gm_sampler='thick', allow_overlap=True) does
(https://gallantlab.org/pycortex/generated/cortex.utils.get_roi_masks.html). Pycortex is not called even where it is
installed: it may rewrite overlays.svg, and results must not depend on what is installed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from brainlit.stories.base import BoolArray, FloatArray, IntArray, SourceError
from brainlit.stories.readers.images import read_image, read_values
from brainlit.stories.readers.tables import require_file
from brainlit.stories.regions.files import Region

if TYPE_CHECKING:
    from matplotlib.path import Path as Outline

log = logging.getLogger(__name__)

_SVG = "{http://www.w3.org/2000/svg}"
_LABEL = "{http://www.inkscape.org/namespaces/inkscape}label"
_IDENTITY = re.compile(r"\s*(translate\(\s*0[.0]*\s*([, ]\s*0[.0]*\s*)?\))?\s*")
HEMISPHERES = ("lh", "rh")


def overlay_files(filestore: Path, subject: str, transform: str, mask: Path | None = None) -> list[Path]:
    """Files of a filestore that decide a subject's regions (fiducial surfaces only where they exist)."""
    folder = filestore / subject
    has_fiducial = all(_surface(folder, "fiducial", hemi).is_file() for hemi in HEMISPHERES)
    middle = ["fiducial"] if has_fiducial else ["pia", "wm"]
    surfaces = [_surface(folder, name, hemi) for name in ("flat", *middle) for hemi in HEMISPHERES]
    space = folder / "transforms" / transform
    return [folder / "overlays.svg", *surfaces, space / "matrices.xfm", mask or space / "mask_thick.nii.gz"]


def read_overlays(
    filestore: Path, subject: str, transform: str, n_voxels: int, mask: Path | None = None
) -> list[Region]:
    """Hand-drawn regions over the voxels of a mask, one entry per region and hemisphere.

    Parameters
    ----------
    transform : str
        Name of a folder in <filestore>/<subject>/transforms.
    mask : Path, optional
        The mask whose voxels are the columns of the responses; mask_thick.nii.gz of the transform by default.

    Raises
    ------
    SourceError
        If a file is damaged, the mask has another number of voxels than the responses, or nothing is drawn.
    """
    files = overlay_files(filestore, subject, transform, mask)
    for path in files:
        require_file(path, "Regions drawn in overlays.svg need it.")
    folder, svg, matrix, mask = filestore / subject, files[0], files[-2], files[-1]
    flat, flat_faces, n_left = _both(folder, "flat")
    middle, faces = _mid_surface(folder, len(files) == 7)
    if len(middle) != len(flat):
        raise SourceError(f"{folder}: the flat surfaces have {len(flat)} vertices, the others {len(middle)}.")
    vertex = _nearest_vertex(middle, matrix, mask, n_voxels)
    in_flat = np.zeros(len(flat), dtype=np.bool_)
    in_flat[flat_faces] = True
    regions = []
    for name, inside in _drawn(svg, flat, n_left):
        inside = _with_cut_neighbours(inside & in_flat, in_flat, faces)
        regions.append(Region(name, "left", inside[vertex] & (vertex < n_left)))
        regions.append(Region(name, "right", inside[vertex] & (vertex >= n_left)))
    return regions


def _drawn(svg: Path, flat: FloatArray, n_left: int) -> Iterator[tuple[str, BoolArray]]:
    """Every region of the drawing with its vertices; regions without an outline that can be read are left out."""
    root = _parse(svg)
    pixels = _to_pixels(flat, n_left, _size(svg, root))
    rois = _layer(svg, root, "rois")
    shapes = _layer(svg, rois, "shapes")
    n_read = 0
    for group in shapes.findall(f"{_SVG}g"):
        name, inside = group.get(_LABEL, ""), np.zeros(len(flat), dtype=np.bool_)
        outlines = group.findall(f"{_SVG}path")
        if not name or not outlines:
            continue
        try:
            for path in outlines:
                _refuse_transforms(path, group, shapes, rois)
                inside |= read_outline(path.get("d", "")).contains_points(pixels)
        except ValueError as error:
            log.warning("%s: region %s is left out: an outline cannot be read: %s.", svg, name, error)
            continue
        n_read += 1
        yield name, inside
    if not n_read:
        raise SourceError(f"{svg}: no region is drawn in its layer 'rois' > 'shapes'.")


def _to_pixels(flat: FloatArray, n_left: int, size: tuple[float, float]) -> FloatArray:
    """Flat-map coordinates to pixels of the drawing, shape (n_vertices, 2)."""
    xy = flat[:, :2].copy()
    xy[:n_left, 0] -= xy[:n_left, 0].max()  # the left hemisphere ends at x = 0, where the right one begins
    xy[n_left:, 0] -= xy[n_left:, 0].min()
    xy = (xy - xy.min(axis=0)) / np.ptp(xy, axis=0) * size
    xy[:, 1] = size[1] - xy[:, 1]
    return np.asarray(xy)


def _with_cut_neighbours(inside: BoolArray, in_flat: BoolArray, faces: IntArray) -> BoolArray:
    """Add the vertices that the flat map lacks and that share a triangle with a vertex of the region."""
    touched = faces[inside[faces].any(axis=1)]
    grown = inside.copy()
    grown[touched[~in_flat[touched]]] = True
    return grown


def _nearest_vertex(middle: FloatArray, matrix: Path, mask: Path, n_voxels: int) -> IntArray:
    """The mid-surface vertex nearest to each column's voxel, shape (n_voxels,).

    Pycortex counts the voxels of a mask in C order over (z, y, x); a NIfTI file holds (x, y, z).
    """
    from scipy.spatial import cKDTree

    voxels = np.argwhere(read_values(mask).T != 0)[:, ::-1]
    if len(voxels) != n_voxels:
        raise SourceError(
            f"{mask} has {len(voxels)} voxels, but the responses have {n_voxels} columns. Check the transform"
            " (regions.transform); name the mask that the responses were cut out with (regions.mask) if it is another."
        )
    try:
        coord = np.array(json.loads(matrix.read_text(encoding="utf-8"))["coord"], dtype=np.float64).reshape(4, 4)
        to_mm = np.linalg.inv(coord)
    except (ValueError, KeyError, TypeError, np.linalg.LinAlgError) as error:
        raise SourceError(
            f"{matrix} holds no transform 'coord' of 4 x 4 numbers that can be inverted: {error}."
        ) from error
    _, nearest = cKDTree(middle).query(voxels @ to_mm[:3, :3].T + to_mm[:3, 3])
    return np.asarray(nearest, dtype=np.int64)


def _mid_surface(folder: Path, fiducial: bool) -> tuple[FloatArray, IntArray]:
    if fiducial:
        points, faces, _ = _both(folder, "fiducial")
        return points, faces
    (pia, faces, _), (wm, _, _) = _both(folder, "pia"), _both(folder, "wm")
    if pia.shape != wm.shape:
        raise SourceError(f"{folder}: the pia surfaces have {len(pia)} vertices, the wm surfaces {len(wm)}.")
    return (pia + wm) / 2, faces


def _both(folder: Path, name: str) -> tuple[FloatArray, IntArray, int]:
    """Vertices (n, 3) and triangles (m, 3) of both hemispheres, left first, and the vertices of the left one."""
    (left, left_faces), (right, right_faces) = (_read_surface(_surface(folder, name, hemi)) for hemi in HEMISPHERES)
    return np.concatenate([left, right]), np.concatenate([left_faces, right_faces + len(left)]), len(left)


def _surface(folder: Path, name: str, hemi: str) -> Path:
    return folder / "surfaces" / f"{name}_{hemi}.gii"


def _read_surface(path: Path) -> tuple[FloatArray, IntArray]:
    found = read_image(path).agg_data(("pointset", "triangle"))
    points, faces = (np.asarray(array) for array in found)
    if points.ndim != 2 or faces.ndim != 2 or points.shape[1] != 3 or faces.shape[1] != 3 or not faces.size:
        raise SourceError(f"{path} is no surface of vertices (n, 3) and triangles (m, 3).")
    return points.astype(np.float64), faces.astype(np.int64)


def _parse(svg: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(svg).getroot()
    except ElementTree.ParseError as error:
        raise SourceError(f"{svg} is no readable drawing: {error}. Was it cut off while copying?") from error


def _layer(svg: Path, parent: ElementTree.Element, name: str) -> ElementTree.Element:
    for group in parent.findall(f"{_SVG}g"):
        if group.get(_LABEL) == name:
            return group
    raise SourceError(f"{svg} has no layer {name!r}; regions are drawn in the layer 'rois' > 'shapes' of overlays.svg.")


def _size(svg: Path, root: ElementTree.Element) -> tuple[float, float]:
    try:
        width, height = (float(root.get(key, "").removesuffix("px")) for key in ("width", "height"))
        box = [float(number) for number in re.split(r"[,\s]+", root.get("viewBox", f"0 0 {width} {height}").strip())]
    except ValueError as error:
        raise SourceError(f"{svg}: width and height must be numbers of pixels: {error}.") from error
    if not np.allclose(box, (0, 0, width, height), atol=0.5):
        raise SourceError(f"{svg}: its viewBox {box} is not its size 0 0 {width} {height}; pixels would be stretched.")
    return width, height


def _refuse_transforms(*elements: ElementTree.Element) -> None:
    """Pycortex does not apply the transforms of a drawing, so nobody can say where the region was meant to be."""
    for element in elements:
        transform = element.get("transform", "")
        if not _IDENTITY.fullmatch(transform):
            raise ValueError(f"it is moved by transform={transform!r}; apply it in Inkscape")


# --- Outlines in an SVG drawing (https://www.w3.org/TR/SVG11/paths.html) as matplotlib paths ---

_TOKEN = re.compile(r"([A-Za-z])|([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_N_NUMBERS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "Z": 0}
_CUBIC, _QUADRATIC = "CS", "QT"
_MOVE, _LINE, _CURVE3, _CURVE4, _CLOSE = 1, 2, 3, 4, 79
"""Codes of matplotlib.path.Path."""


def read_outline(d: str) -> Outline:
    """The outline of a <path> from its 'd': lines and Bezier curves, absolute and relative, closed where it says so.

    Raises
    ------
    ValueError
        If a command is no path command or an arc (A), or has too few numbers.

    >>> read_outline("m 1,1 h 2 v 2 h -2 z").contains_points([[2, 2], [4, 2]]).tolist()
    [True, False]
    """
    from matplotlib.path import Path as Outline

    pen = _Pen()
    for command, numbers in _commands(d):
        pen.draw(command, numbers)
    if not pen.vertices:
        raise ValueError("it is empty")
    return Outline(np.array(pen.vertices), pen.codes)


def _commands(d: str) -> list[tuple[str, list[float]]]:
    """Every command with the numbers of one use: 'L 1 2 3 4' is two lines; after 'M 1 2' further pairs are lines."""
    rest = _TOKEN.sub("", d).replace(",", "").strip()
    if rest:
        raise ValueError(f"{rest[:9]!r} is neither a command nor a number")
    found: list[tuple[str, list[float]]] = []
    for letter, number in _TOKEN.findall(d):
        if letter:
            if letter.upper() not in _N_NUMBERS:
                raise ValueError(f"command {letter!r} is not read (arcs are not, turn them into curves)")
            found.append((letter, []))
            continue
        if not found or found[-1][0] in "Zz":
            raise ValueError(f"number {number} belongs to no command")
        command, numbers = found[-1]
        if len(numbers) == _N_NUMBERS[command.upper()]:
            found.append(({"M": "L", "m": "l"}.get(command, command), []))
        found[-1][1].append(float(number))
    for command, numbers in found:
        if len(numbers) != _N_NUMBERS[command.upper()]:
            raise ValueError(f"command {command!r} has {len(numbers)} numbers, needs {_N_NUMBERS[command.upper()]}")
    if found and found[0][0] not in "Mm":
        raise ValueError(f"it begins with {found[0][0]!r}, not with 'M'")
    return found


class _Pen:
    """Where the pen is, where the outline began, and the control point that S and T mirror."""

    def __init__(self) -> None:
        self.at = np.zeros(2)
        self.began = np.zeros(2)
        self.control: tuple[str, FloatArray] | None = None
        self.vertices: list[FloatArray] = []
        self.codes: list[int] = []

    def draw(self, command: str, numbers: list[float]) -> None:
        """One command with its numbers; small letters count from where the pen is."""
        kind, origin = command.upper(), self.at if command.islower() else np.zeros(2)
        if kind == "Z":
            self._add(_CLOSE, [self.began])
        elif kind in "HV":
            target = self.at.copy()
            target["HV".index(kind)] = origin["HV".index(kind)] + numbers[0]
            self._add(_LINE, [target])
        else:
            points = list(np.reshape(numbers, (-1, 2)) + origin)
            if kind in "ST":
                points.insert(0, self._mirrored(_CUBIC if kind == "S" else _QUADRATIC))
            self._add({"M": _MOVE, "L": _LINE, "T": _CURVE3, "Q": _CURVE3}.get(kind, _CURVE4), points)
            self.began = points[0] if kind == "M" else self.began
            self.control = (_CUBIC if kind in _CUBIC else _QUADRATIC, points[-2]) if kind in "CSQT" else None
            return
        self.control = None

    def _add(self, code: int, points: list[FloatArray]) -> None:
        self.vertices += points
        self.codes += [code] * len(points)
        self.at = np.asarray(points[-1])

    def _mirrored(self, family: str) -> FloatArray:
        if self.control is None or self.control[0] != family:
            return self.at
        return np.asarray(2 * self.at - self.control[1])
