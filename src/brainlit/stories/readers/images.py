"""Response series in the formats of neuroimaging: NIfTI volumes within a mask, GIFTI surfaces, CIFTI grayordinates.

Columns keep the order of the file: voxels of a mask in C order (last axis fastest), vertices of the left hemisphere
before those of the right, grayordinates as CIFTI lists them. Rows are volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import BoolArray, Float32Array, FloatArray, SourceError
from brainlit.stories.readers.tables import damage_as, require_file

Layout = Literal["volume", "surface", "cifti"]

SERIES_SUFFIXES = (".nii", ".nii.gz", ".gii", ".dtseries.nii")
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_SAME_GRID_MM = 1e-3


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
        Seconds from volume to volume, as the header says; None where it does not (GIFTI has no field for it).
    coordinates_mm : array of shape (n_columns, 3) or None
        Voxel centres in the space of the mask's affine; None for surfaces and CIFTI.
    layout : 'volume', 'surface' or 'cifti'
    sides : tuple of int or None
        Surfaces: the number of columns of each file, left first. CIFTI: the columns of left and right cortex, which
        come first; the rest is subcortical. None for volumes.
    """

    values: Float32Array
    tr_s: float | None
    coordinates_mm: FloatArray | None
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
        return len(_vertices_over_time(files[0]))
    shape = read_image(files[0]).shape
    if len(shape) != (4 if kind == "volume" else 2):
        raise ImageError(f"{files[0]} has shape {shape}; need {'x, y, z, time' if kind == 'volume' else '2 axes'}.")
    return int(shape[3] if kind == "volume" else shape[0])


def header_tr_s(files: Sequence[Path]) -> float | None:
    """Seconds from volume to volume as the header says; None where it does not."""
    kind = layout_of(files)
    if kind == "surface":
        return None
    image = read_image(files[0])
    with readable(files[0]):
        return _volume_tr_s(image.header) if kind == "volume" else _axes(files[0], image)[0]


def read_mask(mask: Path) -> VoxelMask:
    """The voxels of a mask image that are not zero; refuses one that is not three-dimensional, or all zeros."""
    image = read_image(mask)
    with readable(mask):
        values = np.asarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
        inside: BoolArray = (np.nan_to_num(values) != 0).astype(np.bool_)
    if inside.ndim == 4 and inside.shape[3] == 1:
        inside = inside[..., 0]
    if inside.ndim != 3 or not inside.any():
        raise ImageError(f"{mask} has shape {inside.shape} and {inside.sum()} voxels; a mask has three axes and some.")
    return VoxelMask(inside, affine, mask)


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
        _require_one_grid(path, one.inside.shape, one.affine, shared)
        shared = replace(shared, inside=shared.inside & one.inside)
        if not shared.inside.any():
            raise ImageError(f"{path} shares no voxel with the masks of the other runs, such as {masks[0]}.")
    return shared


def _require_one_grid(path: Path, shape: tuple[int, ...], affine: FloatArray, mask: VoxelMask) -> None:
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
    _require_one_grid(path, image.shape[:3], image.affine, mask)
    with readable(path):
        raw = image.dataobj.get_unscaled()  # stays in the file's type: masked before it grows to float32
        _require_numbers(path, raw)
        values = raw[mask.inside].T.astype(np.float32) * np.float32(image.dataobj.slope) + np.float32(
            image.dataobj.inter
        )
        tr_s = _volume_tr_s(image.header)
    return Series(_finite(values), tr_s, mask.coordinates_mm, "volume")


def _volume_tr_s(header: Any) -> float | None:
    per_unit = _SECONDS.get(header.get_xyzt_units()[1])
    step = float(header.get_zooms()[3])
    return step * per_unit if per_unit is not None and np.isfinite(step) and step > 0 else None


def _read_surface(files: Sequence[Path]) -> Series:
    parts = [_vertices_over_time(path) for path in files]
    if len({len(part) for part in parts}) > 1:
        raise ImageError(f"{files[0]} has {len(parts[0])} volumes, {files[1]} {len(parts[1])}; they must be one run.")
    sides = tuple(part.shape[1] for part in parts)
    return Series(_finite(np.concatenate(parts, axis=1)), None, None, "surface", sides)


def _vertices_over_time(path: Path) -> Float32Array:
    """One hemisphere (n_trs, n_vertices): an array per volume, or one array with a column per volume."""
    import nibabel as nib

    image = read_image(path)
    if not isinstance(image, nib.GiftiImage) or not image.darrays:
        raise ImageError(f"{path} is no GIFTI file with data arrays.")
    arrays = [np.asarray(array.data) for array in image.darrays]
    for array in arrays:
        _require_numbers(path, array)
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return np.asarray(arrays[0].T, dtype=np.float32)
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        shapes = ", ".join(sorted({str(array.shape) for array in arrays})[:4])
        raise ImageError(f"{path} holds arrays of shape {shapes}; need one value per vertex and volume (.func.gii).")
    return np.stack(arrays).astype(np.float32)


def _read_cifti(path: Path) -> Series:
    image = read_image(path)
    tr_s, structures = _axes(path, image)
    with readable(path):
        raw = np.asarray(image.dataobj)
    _require_numbers(path, raw)
    sides = tuple(structures.count(f"CIFTI_STRUCTURE_CORTEX_{side}") for side in ("LEFT", "RIGHT"))
    return Series(_finite(raw.astype(np.float32)), tr_s, None, "cifti", sides)


def _axes(path: Path, image: Any) -> tuple[float | None, list[str]]:
    """Seconds from row to row, and the structure to which each column belongs."""
    from nibabel.cifti2.cifti2 import Cifti2Image
    from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis

    if not isinstance(image, Cifti2Image):
        raise ImageError(f"{path} is named .dtseries.nii, but holds no CIFTI-2 header.")
    with readable(path):
        header: Any = image.header
        time, space = header.get_axis(0), header.get_axis(1)
        if not isinstance(time, SeriesAxis) or not isinstance(space, BrainModelAxis):
            raise ImageError(f"{path} is CIFTI of {type(time).__name__} and {type(space).__name__}; need a dtseries.")
        return (float(time.step) if time.unit == "SECOND" and time.step > 0 else None), [str(n) for n in space.name]


def read_image(path: Path) -> Any:
    """An image as nibabel opens it, its values still on the disk."""
    import nibabel as nib

    require_file(path, "Check its name, and the root of the data set.")
    with readable(path):
        return nib.load(path)


def read_values(path: Path) -> npt.NDArray[Any]:
    """All values of an image; a file that ends too early becomes an ImageError."""
    image = read_image(path)
    with readable(path):
        return np.asarray(image.dataobj)


def readable(path: Path) -> AbstractContextManager[None]:
    """Whatever nibabel stumbles over in a damaged file becomes one error with the file's name."""
    from nibabel.cifti2.cifti2 import Cifti2HeaderError
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, ImageDataError

    own = (Cifti2HeaderError, ImageFileError, HeaderDataError, ImageDataError)
    return damage_as(ImageError, f"{path} cannot be read", "Was it cut off while copying? Fetch it again.", *own)


def _require_numbers(path: Path, values: npt.NDArray[Any]) -> None:
    if values.dtype.kind not in "iuf":
        raise ImageError(f"{path} holds values of type {values.dtype}; need integers or real numbers.")


def _finite(values: Float32Array) -> Float32Array:
    values[~np.isfinite(values)] = np.nan
    return values
