"""Files of named regions: surface labels, volumes, arrays, tables. Each becomes masks over the response columns."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from brainlit.guard import DAMAGE, npz_headers
from brainlit.stories.base import BoolArray, IntArray, SourceError
from brainlit.stories.readers.images import (
    VoxelMask,
    read_image,
    read_values,
    readable,
    require_one_grid,
    surface_structures,
)
from brainlit.stories.readers.tables import read_cells, require_file

Side = Literal["left", "right"]


_FSAVERAGE = {642: "fsaverage3", 2562: "fsaverage4", 10242: "fsaverage5", 40962: "fsaverage6", 163842: "fsaverage"}
_MESHES = {**_FSAVERAGE, 32492: "fs_LR 32k", 59292: "fs_LR 59k"}
"""Vertices per hemisphere of the usual meshes. fs_LR 164k has as many as fsaverage."""


class Region(NamedTuple):
    """A region as the file has it: its name there, the hemisphere if the file is of one, mask (n_voxels,)."""

    name: str
    side: Side | None
    mask: BoolArray


def read_region_files(
    files: Sequence[Path],
    n_voxels: int,
    mask: Path | None = None,
    mask_order: str = "auto",
    names: Path | None = None,
    downsample: bool = False,
    places: Any = None,
) -> list[Region]:
    """All regions of one file, or of one file per hemisphere (left, right).

    Parameters
    ----------
    mask, mask_order, names, downsample
        As in `brainlit.stories.regions.config.RegionConfig`.
    places : VoxelMask, BrainModelAxis or None
        What the columns are; None where only their number is known.

    Raises
    ------
    SourceError
        If a file is of an unknown kind, damaged, or does not fit n_voxels.
    """
    for path in (*files, *(extra for extra in (mask, names) if extra is not None)):
        require_file(path, "Regions ask for it.")
    if isinstance(places, VoxelMask):
        if mask_order == "F":
            raise SourceError(
                "regions: mask_order is F, but the columns of NIfTI volumes are in C order. Leave it out."
            )
        mask_order = "C"
    kind = "".join(files[0].suffixes[-2:]).lower()
    if kind.endswith((".annot", ".gii")):
        return _surface(files, n_voxels, downsample, places)
    if len(files) > 1:
        raise SourceError(f"{files[0]}: '{{hemi}}' is for .annot and .label.gii; this is one file for all columns.")
    path = files[0]
    if kind == ".dlabel.nii":
        return _cifti(path, n_voxels, places)
    if kind.endswith((".nii", ".nii.gz")):
        return _volume(path, n_voxels, mask, mask_order, names, places)
    if kind.endswith(".npy"):
        return _array(path, n_voxels, mask, mask_order, names)
    if kind.endswith(".npz"):
        return _arrays(path, n_voxels, mask, mask_order)
    if kind.endswith((".csv", ".tsv")):
        return [Region(name, None, found) for name, found in _read_region_table(path, n_voxels).items()]
    known = ".annot, .label.gii, .dlabel.nii, .nii, .nii.gz, .npy, .npz, .csv, .tsv"
    raise SourceError(f"{path}: regions are not read from {kind or 'such a file'!r}; known: {known}.")


# --- Surfaces ---


def _surface(files: Sequence[Path], n_voxels: int, downsample: bool, places: Any) -> list[Region]:
    """Labels of the hemispheres, side by side; a region of one hemisphere is False in the other."""
    images = [None if path.suffix.lower() == ".annot" else read_image(path) for path in files]
    parts = [
        _read_annot(path) if image is None else _labels_of_gifti(path, image)
        for path, image in zip(files, images, strict=True)
    ]
    structures = surface_structures(files, images)
    if isinstance(places, VoxelMask):
        raise SourceError(
            f"{files[0]}: labels of vertices, but the columns are the voxels of {places.file}. Give a label .nii.gz on"
            " its grid."
        )
    if places is not None and not _stand_alike(places, [len(labels) for labels, _ in parts], structures):
        return _at_vertices(files, parts, structures, places)
    n_vertices = [len(labels) for labels, _ in parts]
    n_kept = _fit(files[0], n_vertices, n_voxels, downsample)
    sides: tuple[Side | None, ...] = ("left", "right") if len(files) == 2 else (None,)
    regions, start = [], 0
    for (labels, names), side, n in zip(parts, sides, n_kept, strict=True):
        for number, name in names.items():
            mask = np.zeros(n_voxels, dtype=np.bool_)
            mask[start : start + n] = labels[:n] == number
            regions.append(Region(name, side, mask))
        start += n
    return regions


def _fit(path: Path, n_vertices: list[int], n_voxels: int, downsample: bool) -> list[int]:
    """Vertices to keep of each hemisphere, so that they are the columns of the responses."""
    if sum(n_vertices) == n_voxels:
        return n_vertices
    wanted = n_voxels // 2
    nested = set(n_vertices) <= {40962, 163842} and wanted in (10242, 40962) and 2 * wanted == n_voxels
    if nested and len(n_vertices) == 2 and downsample and wanted < min(n_vertices):
        return [wanted, wanted]
    theirs = f"{' + '.join(map(str, n_vertices))} vertices"
    if len(n_vertices) == 2 and n_vertices[0] in _MESHES and 2 * wanted == n_voxels and wanted in _MESHES:
        theirs = f"the labels are on {_MESHES[n_vertices[0]]} ({theirs})"
        cure = f"the responses on {_MESHES[wanted]} ({n_voxels} columns): give labels of that mesh"
        cure += ", or set regions.downsample: true" if nested and wanted < n_vertices[0] else ""
        raise SourceError(f"{path}: {theirs}, {cure}.")
    one = " Give both hemispheres: write '{hemi}' in the name." if 2 * n_vertices[0] == n_voxels else ""
    cifti = " CIFTI files leave out the medial wall: give a .dlabel.nii." if n_voxels in (59412, 91282) else ""
    raise SourceError(
        f"{path}: the labels have {theirs}, but the responses have {n_voxels} columns.{one}{cifti} Labels of vertices"
        " fit responses on the same surface only; for voxels give a label .nii.gz with a mask."
    )


def _read_annot(path: Path) -> tuple[IntArray, dict[int, str]]:
    from nibabel.freesurfer.io import read_annot

    with readable(path):
        _require_whole_annot(path)
        labels, _, names = read_annot(path)  # type: ignore[no-untyped-call]
    return np.asarray(labels, dtype=np.int64), {k: name.decode("utf-8", "replace") for k, name in enumerate(names)}


def _require_whole_annot(path: Path) -> None:
    """Refuse an annotation file that ends before its own counts say so (FreeSurfer's format, old and new).

    nibabel takes one that was cut off inside a colour for whole, with numbers that nobody wrote.
    """
    with path.open("rb") as file:

        def number() -> int:
            return int(struct.unpack(">i", file.read(4))[0])

        def skip(n_bytes: int) -> None:
            if n_bytes < 0 or len(file.read(n_bytes)) < n_bytes:
                raise EOFError("the file ends too early")

        skip(8 * number())  # vertex and colour of each vertex
        if not number():
            return
        n_entries = number()  # negative: the new format, whose version this is
        if n_entries < 0:
            number()
        skip(number())
        for _ in range(number() if n_entries < 0 else n_entries):
            if n_entries < 0:
                number()
            skip(number())  # the name
            skip(16)  # the colour


def _labels_of_gifti(path: Path, image: Any) -> tuple[IntArray, dict[int, str]]:
    names = image.labeltable.get_labels_as_dict()
    if len(image.darrays) != 1 or not names:
        raise SourceError(
            f"{path} holds {len(image.darrays)} arrays and {len(names)} label names; need one array with a label table"
            " (a .label.gii of one map)."
        )
    return np.asarray(image.darrays[0].data, dtype=np.int64), dict(names)


def _cifti(path: Path, n_voxels: int, places: Any) -> list[Region]:
    image, values = read_image(path), read_values(path)
    if isinstance(places, VoxelMask):
        raise SourceError(f"{path}: labels of grayordinates, but the columns are the voxels of {places.file}.")
    if places is not None:
        with readable(path):
            labels, axis = image.header.get_axis(0).label[0], image.header.get_axis(1)
        columns = _at_places(path, np.asarray(values[0]), axis, places)
        return _labelled(columns, {number: name for number, (name, _) in labels.items()})
    if values.ndim != 2 or values.shape[1] != n_voxels:
        raise SourceError(
            f"{path} has shape {values.shape}, but the responses have {n_voxels} columns; need (1, n_columns) with the"
            " same grayordinates (91282 with, 59412 without the subcortex)."
        )
    return _labelled(values[0], {number: name for number, (name, _) in image.header.get_axis(0).label[0].items()})


def _stand_alike(places: Any, n_vertices: list[int], structures: list[str | None]) -> bool:
    """Whether the columns are all vertices of the hemispheres, in the order of the labels.

    Also where the meshes have other sizes in all, which `_fit` tells or cures.
    """
    there = list(places.nvertices.values())
    order = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(n) for n in there)])
    one_mesh = n_vertices == there or sum(n_vertices) != sum(there)
    return list(places.nvertices) == structures and one_mesh and np.array_equal(order, places.vertex)


def _at_vertices(
    files: Sequence[Path], parts: list[tuple[IntArray, dict[int, str]]], structures: list[str | None], places: Any
) -> list[Region]:
    """Labels of whole hemispheres at the vertices that the columns are."""
    regions = []
    for path, (labels, names), said in zip(files, parts, structures, strict=True):
        structure = next(iter(places.nvertices)) if said is None and len(places.nvertices) == 1 else said
        if structure is None:
            raise SourceError(
                f"{path} does not say of which hemisphere it is. Give both: write '{{hemi}}' in its name."
            )
        _require_one_mesh(path, structure, len(labels), places)
        here = np.flatnonzero(places.name == structure)
        columns = np.full(len(places), -1, dtype=np.int64)
        columns[here] = labels[places.vertex[here]]
        side: Side = "left" if structure.endswith("LEFT") else "right"
        regions += [Region(name, side, columns == number) for number, name in names.items() if number >= 0]
    return regions


def _at_places(path: Path, labels: npt.NDArray[Any], axis: Any, places: Any) -> npt.NDArray[Any]:
    """Labels of CIFTI at the vertices and voxels that the columns are; 0, no label, where the labels have none."""
    shared = set(axis.name) & set(places.name)
    for structure in shared & axis.nvertices.keys():
        _require_one_mesh(path, str(structure), axis.nvertices[structure], places)
    in_voxels = axis.volume_mask.any() and places.volume_mask.any()
    if in_voxels and (
        axis.volume_shape != places.volume_shape or not np.allclose(axis.affine, places.affine, atol=1e-3)
    ):
        raise SourceError(f"{path}: its voxels lie on another grid than those of the responses. Resample the labels.")
    of_place = dict(zip(_keys(axis), labels, strict=True))
    columns = np.array([of_place.get(key, 0) for key in _keys(places)])
    if not any(key in of_place for key in _keys(places)):
        mine, theirs = sorted(set(axis.name)), sorted(set(places.name))
        raise SourceError(f"{path} labels {', '.join(mine)}, but the responses are of {', '.join(theirs)}.")
    return columns


def _keys(axis: Any) -> list[tuple[Any, ...]]:
    """What each grayordinate is: structure and vertex, or voxel."""
    places = zip(axis.name, axis.vertex.tolist(), axis.voxel.tolist(), strict=True)
    return [(name, vertex) if vertex >= 0 else tuple(voxel) for name, vertex, voxel in places]


def _require_one_mesh(path: Path, structure: str, n_vertices: int, places: Any) -> None:
    theirs = places.nvertices.get(structure)
    if theirs != n_vertices:
        here = "none" if theirs is None else f"a mesh of {theirs} vertices"
        raise SourceError(
            f"{path}: its labels of {structure} are on a mesh of {n_vertices} vertices, the responses on {here}. Give"
            " labels of that mesh."
        )


# --- Volumes and arrays ---


def _volume(
    path: Path, n_voxels: int, mask: Path | None, mask_order: str, names: Path | None, places: Any
) -> list[Region]:
    image, values = read_image(path), read_values(path)
    if isinstance(places, VoxelMask):
        labels = _only_volume(values)
        require_one_grid(path, labels.shape, np.asarray(image.affine, dtype=np.float64), places)
        if mask is not None and not np.array_equal(_only_volume(read_values(mask)) != 0, places.inside):
            raise SourceError(
                f"{mask} holds other voxels than {places.file}, whose voxels the columns are. Leave regions.mask out."
            )
        return _labelled(labels[places.inside], _names_of(path, names))
    if mask is not None:
        grid = read_image(mask)
        if grid.shape[:3] == image.shape[:3] and not np.allclose(grid.affine, image.affine, atol=1e-3):
            raise SourceError(f"{path} and {mask} have the same shape {grid.shape}, but lie at different places.")
    columns = _in_columns(path, values, n_voxels, mask, mask_order)
    return _labelled(columns, _names_of(path, names))


def _array(path: Path, n_voxels: int, mask: Path | None, mask_order: str, names: Path | None) -> list[Region]:
    columns = _in_columns(path, _load_numpy(path), n_voxels, mask, mask_order)
    if columns.dtype == np.bool_:
        return [Region(path.stem, None, columns)]
    return _labelled(columns, _names_of(path, names))


def _arrays(path: Path, n_voxels: int, mask: Path | None, mask_order: str) -> list[Region]:
    """One region per array: a mask (bool, or 0 and 1), or the numbers of its columns."""
    with readable(path):
        headers = npz_headers(path, "an npz file of plain arrays", _PLAIN)
    most = _MANY_VALUES + 2 * max(n_voxels, 0 if mask is None else math.prod(read_image(mask).shape))
    with readable(path), np.load(path, allow_pickle=False) as file:
        regions = []
        for name, (shape, _) in headers.items():
            where = Path(f"{path}[{name}]")
            if math.prod(shape) > most:
                raise SourceError(f"{where} has shape {shape}, but the responses have {n_voxels} columns.")
            values = file[name]
            if values.dtype != np.bool_ and values.ndim == 1 and not _is_mask(values, n_voxels):
                found = _from_indices(where, values, n_voxels)
            else:
                columns = _in_columns(where, values, n_voxels, mask, mask_order)
                if not np.isin(columns, (0, 1)).all():
                    raise SourceError(f"{where}: a mask holds 0 and 1 only; its largest value is {columns.max()}.")
                found = columns.astype(np.bool_)
            regions.append(Region(name, None, found))
    return regions


def _is_mask(values: npt.NDArray[Any], n_voxels: int) -> bool:
    return len(values) == n_voxels and bool(np.isin(values, (0, 1)).all())


def _from_indices(where: Path, values: npt.NDArray[Any], n_voxels: int) -> BoolArray:
    if values.size and (values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= n_voxels):
        raise SourceError(
            f"{where} has shape {values.shape}, {values.dtype}, values {values.min()}..{values.max()}; need a mask of"
            f" shape ({n_voxels},), or whole column numbers in 0..{n_voxels - 1}. Was it made for another mask?"
        )
    mask = np.zeros(n_voxels, dtype=np.bool_)
    mask[values.astype(np.int64)] = True
    return mask


def _in_columns(
    path: Path, values: npt.NDArray[Any], n_voxels: int, mask: Path | None, mask_order: str
) -> npt.NDArray[Any]:
    """One value per column of the responses, from an array that has that shape or that of the mask's volume."""
    if values.ndim == 1 and len(values) == n_voxels:
        return values
    values = _only_volume(values)
    if values.ndim != 3:
        raise SourceError(
            f"{path} has shape {values.shape}, but the responses have {n_voxels} columns; need ({n_voxels},), or a"
            " volume and its mask (regions.mask)."
        )
    if mask is None:
        raise SourceError(
            f"{path} is a volume of shape {values.shape}, but the responses have {n_voxels} columns. Name the mask"
            " whose voxels they are (regions.mask); for pycortex data that is the transform's mask_thick.nii.gz."
        )
    return _in_mask(path, values, mask, mask_order, n_voxels)


def _only_volume(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values


def _in_mask(path: Path, values: npt.NDArray[Any], mask: Path, mask_order: str, n_voxels: int) -> npt.NDArray[Any]:
    """Values of a volume at the True voxels of a mask, in the order of the response columns, shape (n_voxels,).

    Pycortex turns the volumes that it reads to (z, y, x) and counts voxels in C order there, which is F order in the
    NIfTI file; arrays that it saved are (z, y, x) themselves.
    """
    inside = read_values(mask) != 0
    if mask_order == "auto":
        mask_order = "F" if mask.parent.parent.name == "transforms" else "C"
    saved_turned = mask_order == "F" and ".nii" not in path.name
    is_image = ".nii" in path.name  # the grid of an image is what its file says; an array may have been turned
    if (saved_turned and values.shape == inside.shape[::-1]) or (not is_image and values.shape != inside.shape):
        values = values.T
    if values.shape != inside.shape:
        raise SourceError(f"{path} has shape {values.shape}, but {mask} has {inside.shape}; need the same grid.")
    if inside.sum() != n_voxels:
        raise SourceError(
            f"{mask} has {inside.sum()} voxels, but the responses have {n_voxels} columns; it is not their mask."
        )
    return np.asarray(values.T[inside.T] if mask_order == "F" else values[inside])


def _labelled(columns: npt.NDArray[Any], names: Mapping[int, str]) -> list[Region]:
    return [Region(name, None, columns == number) for number, name in names.items()]


def _names_of(path: Path, names: Path | None) -> dict[int, str]:
    table = names or names_beside(path)
    if table is None:
        raise SourceError(
            f"{path} holds numbers, and nothing says which regions they are. Put a table with the columns index and"
            f" name beside it ({path.name.removesuffix('.gz').rsplit('.', 1)[0]}.tsv), or name one (regions.names)."
        )
    return {number: name for number, name in _read_names(table).items() if number != 0}


_MANY_VALUES = 1_000_000
_PLAIN = "Pickled objects are not read; save masks with np.savez(file, A1=mask, ...)."


def _load_numpy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r")  # a header that promises too much is found before
    except DAMAGE as error:
        raise SourceError(f"{path} is no plain array: {error}. {_PLAIN}") from error


# --- Tables ---

_REGION_COLUMNS = ("region", "roi", "name", "label")
_VOXEL_COLUMNS = ("voxel", "vertex", "column", "index")
"""Headings of the two columns of a long table, and of a table of names (index, name)."""


def names_beside(path: Path) -> Path | None:
    """The table of names beside a file of numbers: same name, .tsv or .csv; None if there is none."""
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    tables = [path.with_name(stem + suffix) for suffix in (".tsv", ".csv")]
    return next((table for table in tables if table != path and table.is_file()), None)


def _read_names(path: Path) -> dict[int, str]:
    """Names of label numbers from a table with the columns index and name (as BIDS writes beside a segmentation)."""
    header, rows = _read(path)
    lower = [column.lower() for column in header]
    if "index" not in lower or "name" not in lower:
        raise SourceError(f"{path}, line 1: columns {', '.join(header)}; a table of names needs 'index' and 'name'.")
    index, name = lower.index("index"), lower.index("name")
    return {_whole(path, line, row[index]): row[name] for line, row in rows}


def _read_region_table(path: Path, n_voxels: int) -> dict[str, BoolArray]:
    """Regions of a table: rows of (region, voxel), voxels counted from 0, or one column of 0 and 1 per region."""
    header, rows = _read(path)
    lower = [column.lower() for column in header]
    region = next((lower.index(name) for name in _REGION_COLUMNS if name in lower), None)
    voxel = next((lower.index(name) for name in _VOXEL_COLUMNS if name in lower), None)
    if region is not None and voxel is not None and region != voxel:
        return _long(path, rows, region, voxel, n_voxels)
    return _wide(path, header, rows, voxel, n_voxels)


def _long(
    path: Path, rows: list[tuple[int, list[str]]], region: int, voxel: int, n_voxels: int
) -> dict[str, BoolArray]:
    regions: dict[str, BoolArray] = {}
    for line, row in rows:
        index = _whole(path, line, row[voxel])
        if not 0 <= index < n_voxels:
            raise SourceError(
                f"{path}, line {line}: voxel {index}, but the responses have {n_voxels} columns (0..{n_voxels - 1})."
                " Columns are counted from 0; was the table made for another mask or subject?"
            )
        regions.setdefault(row[region], np.zeros(n_voxels, dtype=np.bool_))[index] = True
    return regions


def _wide(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], voxel: int | None, n_voxels: int
) -> dict[str, BoolArray]:
    if len(rows) != n_voxels:
        raise SourceError(
            f"{path} has {len(rows)} rows, but the responses have {n_voxels} columns. Give one row of 0 and 1 per"
            " column and one table column per region, or rows with the columns region,voxel."
        )
    for line, row in rows:
        bad = [cell for k, cell in enumerate(row) if k != voxel and cell not in ("0", "1", "0.0", "1.0")]
        if bad:
            raise SourceError(f"{path}, line {line}: {bad[0]!r}; a region's column holds 0 and 1 only.")
    if voxel is not None and [_whole(path, line, row[voxel]) for line, row in rows] != list(range(n_voxels)):
        raise SourceError(f"{path}: column {header[voxel]!r} does not count 0..{n_voxels - 1}; sort the rows.")
    return {
        name: np.array([row[k][0] == "1" for _, row in rows], dtype=np.bool_)
        for k, name in enumerate(header)
        if k != voxel
    }


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Heading, and the rows with their line numbers."""
    rows = read_cells(path, "\t" if path.suffix.lower() == ".tsv" else ",", SourceError)
    if len(rows) < 2:
        raise SourceError(f"{path} has {len(rows)} lines; need a heading and at least one row.")
    return rows[0][1], rows[1:]


def _whole(path: Path, line: int, cell: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise SourceError(f"{path}, line {line}: {cell!r} is no whole number.") from None
