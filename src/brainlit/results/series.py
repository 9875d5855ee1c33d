"""Time series of voxels as files of other tools: GIFTI on fsaverage5, and NIfTI where voxels lie on a grid."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.encoding.arrays import Float32Array, FloatArray, IntArray
from brainlit.files import write_bytes
from brainlit.results.brainmap import surface_values
from brainlit.results.map_files import SIDES, STRUCTURES
from brainlit.results.map_places import Grid
from brainlit.stories.base import Subject

_FEWEST = 8
"""Any four places lie on a grid of their own."""


def write_series(
    folder: Path, subject: Subject, voxels: IntArray, rows: Float32Array, tr_s: float, about: str
) -> list[Path]:
    """Write what a subject's places allow; nothing where a subject has neither vertices nor voxels on a grid.

    Parameters
    ----------
    voxels : int array of shape (n_voxels,)
        Columns of the responses that `rows` have.
    rows : float32 array of shape (n_trs, n_voxels)
    about : str
        What the numbers are; goes into the files.

    Returns
    -------
    list of Path
        <subject>_hemi-L_space-fsaverage5.func.gii and that of R, NaN at vertices without a voxel within 4 mm;
        <subject>.nii.gz, NaN outside these voxels.
    """
    written = []
    if subject.vertices is not None:
        places = np.asarray(subject.vertices, dtype=np.int64)[voxels]
        for letter, side in SIDES.items():
            path = folder / f"{subject.name}_hemi-{letter}_space-fsaverage5.func.gii"
            values = surface_values(side, places, np.asarray(rows, dtype=np.float64))
            written.append(write_bytes(path, _gifti(values, STRUCTURES[letter], tr_s, about).to_bytes()))
    elif (grid := _grid_of(subject)) is not None:
        image = _nifti(rows, grid.index[voxels], grid, tr_s, about)
        written.append(write_bytes(folder / f"{subject.name}.nii.gz", gzip.compress(image.to_bytes(), mtime=0)))
    return written


def _gifti(values: FloatArray, structure: str, tr_s: float, about: str) -> Any:
    """One data array per row, as functional GIFTI has them."""
    import nibabel

    gifti: Any = nibabel.gifti
    said = {
        "AnatomicalStructurePrimary": structure,
        "TimeStep": f"{tr_s:g}",
        "TimeUnit": "s",
        "Description": about,
    }
    arrays = [
        gifti.GiftiDataArray(
            row.astype(np.float32),
            intent="NIFTI_INTENT_TIME_SERIES",
            datatype="NIFTI_TYPE_FLOAT32",
            meta=gifti.GiftiMetaData({"Name": f"{k * tr_s:g} s"}),
        )
        for k, row in enumerate(values)
    ]
    return gifti.GiftiImage(meta=gifti.GiftiMetaData(said), darrays=arrays)


def _grid_of(subject: Subject) -> Grid | None:
    places = subject.coordinates_mm
    return None if places is None or len(places) < _FEWEST else Grid.of(np.asarray(places))


def _nifti(rows: Float32Array, index: IntArray, grid: Grid, tr_s: float, about: str) -> Any:
    import nibabel

    values = np.full((*grid.shape, len(rows)), np.nan, dtype=np.float32)
    values[tuple(index.T)] = rows.T
    new_image: Any = nibabel.Nifti1Image
    image = new_image(values, grid.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = tr_s
    image.header["descrip"] = about[:79].encode("ascii", errors="replace")
    return image
