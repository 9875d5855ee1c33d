"""Response series in the formats of neuroimaging: NIfTI volumes within a mask, GIFTI surfaces, CIFTI grayordinates.

Columns keep the order of the file: voxels of a mask in C order (last axis fastest), vertices of the left hemisphere
before those of the right, grayordinates as CIFTI lists them. Rows are volumes.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import BoolArray, Float32Array, FloatArray, SourceError
from brainlit.stories.readers.arrays import MOST_COMPRESSED
from brainlit.stories.readers.tables import damage_as, float_or_nan, require_file
from brainlit.timebase import unlikely_tr

Layout = Literal["volume", "surface", "cifti"]

SERIES_SUFFIXES = (".nii", ".nii.gz", ".gii", ".dtseries.nii")
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_SAME_GRID_MM = 1e-3
_STRUCTURE = "AnatomicalStructurePrimary"
_OF_FREESURFER = {"lh.": "CortexLeft", "rh.": "CortexRight"}
BLOCK_BYTES = 16 * 2**20
"""What is read of an image at a time, at least one volume."""


class ImageError(SourceError):
    """An image that cannot be read, or does not fit its mask; the message names file, cause and cure."""


@dataclass(frozen=True)
class Series:
    """Responses over time as a file holds them, in the scanner's units.

    Parameters
    ----------
    values : float32 array of shape (n_trs, n_columns)
        NaN where the file holds NaN or an infinite value.
    tr_s : float or None
        As `header_tr` has it.
    places : VoxelMask, BrainModelAxis or None
        What the columns are: the voxels of a mask, or vertices and voxels by structure. None for a single surface that
        does not say which hemisphere it is.
    layout : 'volume', 'surface' or 'cifti'
    sides : tuple of int or None
        Surfaces: the number of columns of each file, left first. CIFTI: the columns of left and right cortex, which
        come first; the rest is subcortical. None for volumes.
    """

    values: Float32Array
    tr_s: float | None
    places: Any
    layout: Layout
    sides: tuple[int, ...] | None = None


@dataclass(frozen=True)
class VoxelMask:
    """Voxels that are columns: `inside` (n_x, n_y, n_z), the affine (4, 4) to mm, and the file that it came from."""

    inside: BoolArray
    affine: FloatArray
    file: Path

    @property
    def coordinates_mm(self) -> FloatArray:
        """Centres of the voxels in mm, shape (n_voxels, 3), in C order: that of the columns of `read_series`."""
        return np.asarray(np.argwhere(self.inside) @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)


def read_series(files: Sequence[Path], mask: Path | VoxelMask | None = None) -> Series:
    """Read one run: a 4-D NIfTI with its mask, one or two GIFTI files (left, right), or one CIFTI dtseries.

    Raises
    ------
    ImageError
        If a file is of another kind, the mask is missing, empty or on another grid, or hemispheres differ in length.
    """
    kind = layout_of(files)
    if kind == "volume":
        if mask is None:
            raise ImageError(f"{files[0]} is a volume, and no mask says which voxels are columns. Name one: 'mask'.")
        return _read_volume(files[0], mask if isinstance(mask, VoxelMask) else read_mask(mask))
    if mask is not None:
        raise ImageError(f"{files[0]}: a mask belongs to NIfTI volumes; leave it out for a {kind} file.")
    return _read_surface(files) if kind == "surface" else _read_cifti(files[0])


def layout_of(files: Sequence[Path]) -> Layout:
    """What kind of series the files are, by their endings and their number; ImageError for any other."""
    names = [path.name.lower() for path in files]
    if names and len(names) <= 2 and all(name.endswith(".gii") for name in names):
        return "surface"
    if len(names) == 1 and names[0].endswith(".dtseries.nii"):
        return "cifti"
    if len(names) == 1 and names[0].endswith((".nii", ".nii.gz")):
        return "volume"
    raise ImageError(
        f"{', '.join(map(str, files)) or 'no file'}: need one 4-D NIfTI (.nii, .nii.gz), one or two GIFTI (.gii, left"
        " then right) or one CIFTI (.dtseries.nii)."
    )


def count_volumes(files: Sequence[Path]) -> int:
    """Number of volumes of a run; reads headers only, except for GIFTI, which has none."""
    kind = layout_of(files)
    if kind == "surface":
        return len(_vertices_over_time(files[0], read_image(files[0])))
    shape = read_image(files[0]).shape
    if len(shape) != (4 if kind == "volume" else 2):
        raise ImageError(f"{files[0]} has shape {shape}; need {'x, y, z, time' if kind == 'volume' else '2 axes'}.")
    return int(shape[3] if kind == "volume" else shape[0])


class HeaderTr(NamedTuple):
    """Seconds from volume to volume that a header can be believed to say, else None; and what it says, in words."""

    tr_s: float | None
    says: str


def header_tr(files: Sequence[Path]) -> HeaderTr:
    """The repetition time of a run, from its header; GIFTI files may have a TimeStep.

    Software that does not know it writes 1 s, 0 or no unit, so that these are no evidence.
    """
    kind, image = layout_of(files), read_image(files[0])
    with readable(files[0]):
        if kind == "volume":
            return _volume_tr(image.header)
        return _surface_tr(image) if kind == "surface" else _believed(*_axes(files[0], image)[0])


def _volume_tr(header: Any) -> HeaderTr:
    return _believed(float(header.get_zooms()[3]), str(header.get_xyzt_units()[1]))


def _surface_tr(image: Any) -> HeaderTr:
    places = [image.meta, *(array.meta for array in image.darrays[:1])]
    said = next((dict(meta)["TimeStep"] for meta in places if "TimeStep" in dict(meta)), None)
    return HeaderTr(None, "has no TimeStep") if said is None else _believed(float_or_nan(said), "sec")


def _believed(step: float, unit: str) -> HeaderTr:
    step = round(step, 6)  # headers hold float32
    if not np.isfinite(step) or step <= 0:
        return HeaderTr(None, f"says {step:g}")
    if unit not in _SECONDS:
        return HeaderTr(None, f"says {step:g} and no unit of time")
    tr_s = step * _SECONDS[unit]
    question = unlikely_tr(tr_s)
    if question is not None:
        return HeaderTr(None, f"says {tr_s:g} s: {question}")
    if (step, unit) == (1, "sec"):
        return HeaderTr(None, "says 1 s, which is what a header says when nobody set it")
    return HeaderTr(tr_s, f"says {tr_s:g} s")


def read_mask(mask: Path) -> VoxelMask:
    """The voxels of a mask image that are not zero; refuses one that is not three-dimensional, or all zeros."""
    image = read_image(mask)
    shape = image.shape[:3] if len(image.shape) == 4 and image.shape[3] == 1 else image.shape
    if len(shape) != 3:
        raise ImageError(f"{mask} has shape {image.shape}; a mask has three axes.")
    inside = np.zeros(shape, dtype=np.bool_)
    for first, values in forward(mask, image):
        if len(image.shape) == 4:
            inside = (np.nan_to_num(values) != 0)[..., 0]
        else:
            inside[..., first : first + values.shape[-1]] = np.nan_to_num(values) != 0
    if not inside.any():
        raise ImageError(f"{mask} has shape {inside.shape} and 0 voxels; a mask has three axes and some.")
    return VoxelMask(inside, np.asarray(image.affine, dtype=np.float64), mask)


def shared_mask(masks: Sequence[Path]) -> VoxelMask:
    """The voxels that all masks (of the runs of one subject) share.

    Raises
    ------
    ImageError
        If a mask lies on another grid, or no voxel is in all.
    """
    shared = read_mask(masks[0])
    for path in masks[1:]:
        one = read_mask(path)
        require_one_grid(path, one.inside.shape, one.affine, shared)
        shared = replace(shared, inside=shared.inside & one.inside)
        if not shared.inside.any():
            raise ImageError(f"{path} shares no voxel with the masks of the other runs, such as {masks[0]}.")
    return shared


def require_one_grid(path: Path, shape: tuple[int, ...], affine: FloatArray, mask: VoxelMask) -> None:
    """Refuse an image whose voxels are not those of the mask's volume; ImageError says where they differ."""
    if shape != mask.inside.shape:
        raise ImageError(f"{mask.file} has shape {mask.inside.shape}, {path} {shape}. Resample the mask to its grid.")
    if not np.allclose(affine, mask.affine, rtol=0, atol=_SAME_GRID_MM):
        raise ImageError(
            f"{mask.file} and {path} both have shape {shape}, but lie elsewhere in space: their affines differ by up"
            f" to {np.abs(affine - mask.affine).max():.3g}. Take the mask of this run, or resample it."
        )


def _read_volume(path: Path, mask: VoxelMask) -> Series:
    image = read_image(path)
    if len(image.shape) != 4:
        raise ImageError(f"{path} has shape {image.shape}; a series has four axes: x, y, z, time.")
    require_one_grid(path, image.shape[:3], image.affine, mask)
    values = np.empty((image.shape[3], int(mask.inside.sum())), dtype=np.float32)
    for first, volumes in forward(path, image):
        block = values[first : first + volumes.shape[3]]
        block[:] = volumes[mask.inside].T
        _finite(block)
    with readable(path):
        tr_s = _volume_tr(image.header).tr_s
    return Series(values, tr_s, mask, "volume")


def _read_surface(files: Sequence[Path]) -> Series:
    from nibabel.cifti2.cifti2_axes import BrainModelAxis

    images = [read_image(path) for path in files]
    parts = [_vertices_over_time(path, image) for path, image in zip(files, images, strict=True)]
    structures = surface_structures(files, images)
    if len({len(part) for part in parts}) > 1:
        raise ImageError(f"{files[0]} has {len(parts[0])} volumes, {files[1]} {len(parts[1])}; they must be one run.")
    sides = tuple(part.shape[1] for part in parts)
    places: Any = None
    new_axis: Any = BrainModelAxis
    for structure, n in zip(structures, sides, strict=True):
        if structure is not None:
            axis = new_axis.from_surface(np.arange(n), n, structure)
            places = axis if places is None else places + axis
    tr_s = _surface_tr(images[0]).tr_s
    return Series(_finite(np.concatenate(parts, axis=1)), tr_s, places, "surface", sides)


def surface_structures(files: Sequence[Path], images: Sequence[Any]) -> list[str | None]:
    """CIFTI's name of the cortex that each GIFTI image is of: what it says, or else left before right.

    An image that is None says it by FreeSurfer's names of files, or not at all.

    Raises
    ------
    ImageError
        If the first of two says that it is the right hemisphere, or the second that it is the left.
    """
    by_order: list[str | None] = ["CortexLeft", "CortexRight"] if len(files) == 2 else [None]
    found: list[str | None] = []
    for path, image, expected in zip(files, images, by_order, strict=True):
        places = [] if image is None else [image.meta, *(array.meta for array in image.darrays[:1])]
        said = next((dict(meta)[_STRUCTURE] for meta in places if _STRUCTURE in dict(meta)), None)
        said = said or _OF_FREESURFER.get(path.name[:3])
        if expected is not None and said in ("CortexLeft", "CortexRight") and said != expected:
            raise ImageError(f"{path} says that it is {said}, but stands for {expected}. Give left before right.")
        structure = expected or (said if said in ("CortexLeft", "CortexRight") else None)
        found.append(None if structure is None else f"CIFTI_STRUCTURE_CORTEX_{structure[6:].upper()}")
    return found


def _vertices_over_time(path: Path, image: Any) -> Float32Array:
    """One hemisphere (n_trs, n_vertices): an array per volume, or one array with a column per volume."""
    import nibabel as nib

    if not isinstance(image, nib.GiftiImage) or not image.darrays:
        raise ImageError(f"{path} is no GIFTI file with data arrays.")
    arrays = [np.asarray(array.data) for array in image.darrays]
    for array in arrays:
        _require_numbers(path, array.dtype)
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return np.asarray(arrays[0].T, dtype=np.float32)
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        shapes = ", ".join(sorted({str(array.shape) for array in arrays})[:4])
        raise ImageError(f"{path} holds arrays of shape {shapes}; need one value per vertex and volume (.func.gii).")
    return np.stack(arrays).astype(np.float32)


def _read_cifti(path: Path) -> Series:
    image = read_image(path)
    tr, space = _axes(path, image)
    values = np.empty(image.shape, dtype=np.float32)
    for first, columns in forward(path, image):
        block = values[:, first : first + columns.shape[1]]
        block[:] = columns
        _finite(block)
    structures = [str(name) for name in space.name]
    sides = tuple(structures.count(f"CIFTI_STRUCTURE_CORTEX_{side}") for side in ("LEFT", "RIGHT"))
    return Series(values, _believed(*tr).tr_s, space, "cifti", sides)


def _axes(path: Path, image: Any) -> tuple[tuple[float, str], Any]:
    """Step from row to row with its unit, and the axis of what the columns are."""
    from nibabel.cifti2.cifti2 import Cifti2Image
    from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis

    if not isinstance(image, Cifti2Image):
        raise ImageError(f"{path} is named .dtseries.nii, but holds no CIFTI-2 header.")
    with readable(path):
        header: Any = image.header
        time, space = header.get_axis(0), header.get_axis(1)
        if not isinstance(time, SeriesAxis) or not isinstance(space, BrainModelAxis):
            raise ImageError(f"{path} is CIFTI of {type(time).__name__} and {type(space).__name__}; need a dtseries.")
        if (len(time), len(space)) != image.shape:
            raise ImageError(f"{path} has shape {image.shape}, but its axes {len(time)} and {len(space)} entries.")
        return (float(time.step), "sec" if time.unit == "SECOND" else str(time.unit).lower()), space


def read_image(path: Path) -> Any:
    """An image as nibabel opens it, its values still on the disk."""
    import nibabel as nib

    require_file(path, "Check its name, and the root of the data set.")
    with readable(path):
        image = nib.load(path)
        if image is None:  # of XML that is something else
            raise ValueError("it holds no image")
        return image


def read_values(path: Path) -> npt.NDArray[Any]:
    """All values of an image, in the type of the file where it is not scaled; refused as `forward` says."""
    image, parts = read_image(path), []
    for _, values in forward(path, image):
        parts.append(values)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def forward(path: Path, image: Any) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Values of an image by blocks of its last axis, with the place of their first, read once from front to back.

    nibabel stops behind the last value, so that it never meets the checksum at the end of a compressed file, and a
    damaged bit goes by. Here a file is read to its end.

    Raises
    ------
    ImageError
        If the values are no numbers, or the file holds less or more than its header says, or was damaged.
    """
    proxy, shape = image.dataobj, tuple(int(n) for n in image.shape)
    _require_numbers(path, proxy.dtype)
    n_bytes = proxy.dtype.itemsize * math.prod(shape[:-1])
    step = max(1, BLOCK_BYTES // max(1, n_bytes))
    with readable(path):
        _require_whole(path, proxy.offset, n_bytes * shape[-1], shape)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            file.seek(proxy.offset)
            for first in range(0, shape[-1], step):
                n = min(step, shape[-1] - first)
                raw = np.frombuffer(file.read(n * n_bytes), dtype=proxy.dtype)
                values = raw.reshape((*shape[:-1], n), order="F")
                is_scaled = (proxy.slope, proxy.inter) != (1, 0)
                yield first, values * proxy.slope + proxy.inter if is_scaled else values
            if file.read(1):
                raise EOFError(f"it goes on after the {shape} values of its header")


def _require_whole(path: Path, offset: int, n_bytes: int, shape: tuple[int, ...]) -> None:
    """Refuse a size that cannot be that of the header, before there is memory for the values."""
    there, needed = path.stat().st_size, offset + n_bytes
    if 0 in shape or (there * MOST_COMPRESSED < needed if path.suffix == ".gz" else there < needed):
        raise EOFError(f"its header says {shape} values, {needed} bytes, but the file has {there}")


def readable(path: Path) -> AbstractContextManager[None]:
    """Whatever nibabel stumbles over in a damaged file becomes one error with the file's name."""
    from nibabel.cifti2.cifti2 import Cifti2HeaderError
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, ImageDataError

    own = (Cifti2HeaderError, ImageFileError, HeaderDataError, ImageDataError)
    return damage_as(ImageError, f"{path} cannot be read", "Was it cut off while copying? Fetch it again.", *own)


def _require_numbers(path: Path, dtype: Any) -> None:
    if dtype.kind not in "iuf":
        raise ImageError(f"{path} holds values of type {dtype}; need integers or real numbers.")


def _finite(values: Float32Array) -> Float32Array:
    """Infinite values become NaN, in place."""
    values[~np.isfinite(values)] = np.nan
    return values
