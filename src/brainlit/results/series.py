"""Time series of voxels as files of other tools: GIFTI on fsaverage5, and NIfTI where voxels lie on a grid."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Float32Array, FloatArray, IntArray
from brainlit.files import atomic_path
from brainlit.results.brainmap import surface_values
from brainlit.stories.base import Subject

HEMISPHERES: tuple[tuple[Literal["left", "right"], str, str], ...] = (
    ("left", "L", "CortexLeft"),
    ("right", "R", "CortexRight"),
)
"""Name, letter of file names, and word of GIFTI."""
_ON_GRID = 0.05
"""Part of a voxel by which coordinates may miss the grid."""
_FEWEST = 8
"""Any four places lie on a grid of their own."""
_MOST_CELLS = 20_000_000


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
        for side, letter, structure in HEMISPHERES:
            path = folder / f"{subject.name}_hemi-{letter}_space-fsaverage5.func.gii"
            values = surface_values(side, places, np.asarray(rows, dtype=np.float64))
            written.append(_write(path, _gifti(values, structure, tr_s, about).to_bytes()))
    elif subject.coordinates_mm is not None and (grid := grid_of(np.asarray(subject.coordinates_mm))) is not None:
        image = _nifti(rows, grid[0][voxels], grid[1], tr_s, about)
        written.append(_write(folder / f"{subject.name}.nii.gz", gzip.compress(image.to_bytes(), mtime=0)))
    return written


def _write(path: Path, content: bytes) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


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


def _nifti(rows: Float32Array, cells: IntArray, affine: FloatArray, tr_s: float, about: str) -> Any:
    import nibabel

    first = cells.min(axis=0)
    shape = tuple((cells.max(axis=0) - first + 1).tolist())
    values = np.full((*shape, len(rows)), np.nan, dtype=np.float32)
    values[tuple((cells - first).T)] = rows.T
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ first
    new_image: Any = nibabel.Nifti1Image
    image = new_image(values, moved)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = tr_s
    image.header["descrip"] = about[:79].encode("ascii", errors="replace")
    return image


def grid_of(coordinates_mm: npt.NDArray[Any]) -> tuple[IntArray, FloatArray] | None:
    """The grid that voxels lie on, straight or turned: a store keeps places in mm and no affine.

    The edges of a cell are the shortest steps from a voxel to another in three directions.

    Parameters
    ----------
    coordinates_mm : array of shape (n_voxels, 3)

    Returns
    -------
    (int array of shape (n_voxels, 3), array of shape (4, 4)) or None
        Place of each voxel in the volume, and the affine that makes these mm; None where there is no grid, or two
        voxels in one cell.
    """
    from scipy.spatial import cKDTree

    places = np.asarray(coordinates_mm, dtype=np.float64)
    if len(places) < _FEWEST or not np.isfinite(places).all():
        return None
    some = places[:: max(len(places) // 2000, 1)]
    _, near = cKDTree(places).query(some, k=min(27, len(places)))
    steps = (places[near] - some[:, None]).reshape(-1, 3)
    edges = _shortest(steps[np.linalg.norm(steps, axis=1) > 1e-3])
    if edges is None:
        return None
    exact = (places - places[0]) @ np.linalg.inv(edges)
    cells = np.rint(exact).astype(np.int64)
    if np.abs(exact - cells).max() > _ON_GRID or len(np.unique(cells, axis=0)) < len(cells):
        return None
    first = cells.min(axis=0)
    if np.prod(cells.max(axis=0) - first + 1.0) > _MOST_CELLS:
        return None
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = edges.T, places[0] + first @ edges
    return cells - first, affine


def _shortest(steps: FloatArray) -> FloatArray | None:
    """Three short steps in independent directions, as rows: the first goes most nearly along x, and so on."""
    found: list[FloatArray] = []
    for step in steps[np.argsort(np.linalg.norm(steps, axis=1), kind="stable")]:
        lengths = np.prod([np.linalg.norm(edge) for edge in (*found, step)])
        volume = np.sqrt(max(np.linalg.det(np.array([*found, step]) @ np.array([*found, step]).T), 0.0))
        if volume > 0.3 * lengths:
            found.append(step)
        if len(found) == 3:
            break
    else:
        return None
    edges, ordered = list(found), []
    for axis in range(3):
        k = int(np.argmax([abs(edge[axis]) / np.linalg.norm(edge) for edge in edges]))
        edge = edges.pop(k)
        ordered.append(edge if edge[axis] > 0 else -edge)
    return np.array(ordered)
