"""Files that hold a number for each voxel, where other tools look for it: GIFTI, CIFTI, NIfTI and pycortex data sets.

Places on fsaverage5 make GIFTI (one hemisphere each) and CIFTI (both); centres in mm that lie on a grid make NIfTI.
Maps are float32, NaN where there is no number, and the same numbers make the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.encoding.arrays import Float32Array, FloatArray, IntArray
from brainlit.files import atomic_path, write_bytes
from brainlit.results.brainmap import N_VERTICES, surface_values
from brainlit.results.map_numbers import MapsError
from brainlit.results.map_places import Grid, PycortexPlaces

STRUCTURES = {"L": "CortexLeft", "R": "CortexRight"}
SIDES = {"L": "left", "R": "right"}
_CIFTI_STRUCTURES = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
_DENSE_SCALARS = 3006
"""NIfTI's code for a file of named maps over brain models."""


# --- fsaverage5 ---


def on_fsaverage5(vertices: IntArray, values: FloatArray, within_mm: float = 0.0) -> dict[str, FloatArray]:
    """Values of voxels at the vertices of each hemisphere; NaN where no voxel with a number lies.

    Parameters
    ----------
    vertices : int array of shape (n_voxels,)
        0..10241 left, 10242..20483 right.
    values : array of shape (n_maps, n_voxels)
        Voxels that share a vertex are averaged.
    within_mm : float
        0: numbers stay at the vertices of their voxels. Above: a vertex takes the nearest voxel within that distance on
        the pial surface, as in the report's pictures.

    Returns
    -------
    mapping of 'L', 'R' to array of shape (n_maps, 10242)

    Raises
    ------
    MapsError
        If a vertex number does not exist on fsaverage5.
    """
    if len(vertices) and not 0 <= int(np.min(vertices)) <= int(np.max(vertices)) < 2 * N_VERTICES:
        raise MapsError(f"vertices reach {np.max(vertices)}; fsaverage5 has 0..{2 * N_VERTICES - 1}.")
    if within_mm > 0:
        return {
            hemi: np.concatenate([surface_values(side, vertices, row[None], within_mm) for row in values])
            for hemi, side in SIDES.items()
        }
    both = np.full((len(values), 2 * N_VERTICES), np.nan)
    for row, there in zip(values, both, strict=True):
        known = np.isfinite(row)
        count = np.bincount(vertices[known], minlength=2 * N_VERTICES)
        total = np.bincount(vertices[known], weights=row[known], minlength=2 * N_VERTICES)
        there[count > 0] = total[count > 0] / count[count > 0]
    return {"L": both[:, :N_VERTICES], "R": both[:, N_VERTICES:]}


def write_gifti(path: Path, hemi: str, values: FloatArray, names: Sequence[str]) -> Path:
    """One hemisphere as .func.gii: an array for each map, with its name, and the structure that it lies on."""
    import nibabel

    gifti: Any = nibabel.gifti
    arrays = [
        gifti.GiftiDataArray(
            row.astype(np.float32),
            intent="NIFTI_INTENT_NONE",
            datatype="NIFTI_TYPE_FLOAT32",
            meta=gifti.GiftiMetaData({"Name": name}),
        )
        for row, name in zip(values, names, strict=True)
    ]
    about = gifti.GiftiMetaData({"AnatomicalStructurePrimary": STRUCTURES[hemi]})
    return write_bytes(path, gifti.GiftiImage(darrays=arrays, meta=about).to_bytes())


def write_cifti(path: Path, values: Mapping[str, FloatArray], names: Sequence[str]) -> Path:
    """Both hemispheres as .dscalar.nii: named maps over all vertices of fsaverage5, so that subjects line up."""
    import nibabel

    cifti: Any = nibabel.cifti2
    matrix = cifti.Cifti2Matrix()
    matrix.extend([cifti.ScalarAxis(list(names)).to_mapping(0), _both_hemispheres()])
    both = np.concatenate([values[hemi] for hemi in _CIFTI_STRUCTURES], axis=1).astype(np.float32)
    image = cifti.Cifti2Image(both, header=cifti.Cifti2Header(matrix))
    image.nifti_header.set_intent(_DENSE_SCALARS, name="ConnDenseScalar")
    return write_bytes(path, image.to_bytes())


@lru_cache(maxsize=1)
def _both_hemispheres() -> Any:
    """The vertices of fsaverage5 as the columns of a CIFTI file; nibabel takes a tenth of a second to list them."""
    import nibabel

    cifti: Any = nibabel.cifti2
    vertices = np.arange(N_VERTICES)
    left, right = (
        cifti.BrainModelAxis.from_surface(vertices, N_VERTICES, name=name) for name in _CIFTI_STRUCTURES.values()
    )
    return (left + right).to_mapping(1)


# --- A grid ---


def write_nifti(path: Path, grid: Grid, values: FloatArray, space: str) -> Path:
    """A volume (x, y, z), or (x, y, z, map) of several maps, as .nii.gz; NaN outside the voxels.

    Parameters
    ----------
    values : array of shape (n_maps, n_voxels)
    space : str
        What the millimetres mean; one of MNI is said so in the header, too.
    """
    import nibabel

    volume: Float32Array = np.full((*grid.shape, len(values)), np.nan, dtype=np.float32)
    volume[tuple(grid.index.T)] = values.T
    new_image: Any = nibabel.Nifti1Image
    image = new_image(volume[..., 0] if len(values) == 1 else volume, grid.affine)
    code = "mni" if space.startswith("MNI") else "aligned"
    image.set_sform(grid.affine, code)
    image.set_qform(grid.affine, code)
    image.header.set_xyzt_units("mm")
    return write_bytes(path, gzip.compress(image.to_bytes(), mtime=0))


# --- pycortex ---


def write_pycortex(
    path: Path, places: PycortexPlaces, maps: Mapping[str, FloatArray], description: str, *, signed: bool = False
) -> Path:
    """One HDF5 file that `cortex.load` reads where its filestore has the subject: a view for each map.

    The layout is that of `cortex.Dataset.save` (gallantlab.org/pycortex); pycortex is not needed.

    Parameters
    ----------
    maps : mapping of name to array of shape (n_voxels,)
    signed : bool
        Whether colours are to be symmetric about 0.
    """
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for priority, (name, values) in enumerate(maps.items(), start=1):
            array = np.ascontiguousarray(values, dtype=np.float32)
            data = f"__{hashlib.sha1(array.tobytes(), usedforsecurity=False).hexdigest()[:16]}"
            if f"data/{data}" not in file:
                stored = file.create_dataset(f"data/{data}", data=array)
                stored.attrs["subject"], stored.attrs["mask"] = places.subject, places.mask
            low, high = _colour_ends(array, signed=signed)
            colours, state, attributes = [None], None, {"priority": priority}
            told = map(json.dumps, ([data], colours, [low], [high], state, attributes, [places.transform]))
            first, *others = told
            view = file.create_dataset(f"views/{name}", (8,), h5py.string_dtype())
            view[...] = [first, description, *others]
    return path


def _colour_ends(values: Float32Array, *, signed: bool) -> tuple[float, float]:
    """From 0 (or minus the same) to the 99 % quantile, as the report's maps."""
    known = np.abs(values[np.isfinite(values)])
    top = max(float(np.quantile(known, 0.99)), 1e-6) if known.size else 1.0
    return (-top if signed else 0.0), top
