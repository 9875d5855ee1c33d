"""A folder of fMRIPrep derivatives with few voxels, named as fMRIPrep 23 names its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE, N_TRS, TR_S = (3, 3, 2), 40, 1.5
AFFINE = np.array([[-3.0, 0, 0, 90], [0, 3.0, 0, -126], [0, 0, 4.0, -72], [0, 0, 0, 1]])
Array = np.ndarray[Any, Any]


def write_fmriprep_run(
    root: Path,
    subject: str,
    task: str,
    entities: str = "",
    space: str = "MNI152NLin2009cAsym",
    outside: tuple[int, ...] = (),
    seed: int = 0,
) -> Array:
    """Write one run with mask, confounds and side-car; returns all its values, (n_trs, n_voxels or n_vertices).

    Parameters
    ----------
    entities : str
        'ses-1', 'run-2', 'ses-1_run-2' or nothing.
    space : str
        Volumes, except for 'fsaverage5' (two GIFTI files).
    outside : tuple of int
        Voxels (in C order) that the brain mask of this run leaves out.
    """
    names = [part for part in entities.split("_") if part]
    sessions = [part for part in names if part.startswith("ses-")]
    folder = root.joinpath(subject, *sessions, "func")
    folder.mkdir(parents=True, exist_ok=True)
    stem = "_".join([subject, *sessions, f"task-{task}", *(part for part in names if part not in sessions)])
    rng = np.random.default_rng(seed)
    write_confounds(folder / f"{stem}_desc-confounds_timeseries.tsv", rng)
    if space == "fsaverage5":
        return _write_surfaces(folder, f"{stem}", rng)
    values = 1000 + rng.normal(size=(N_TRS, int(np.prod(SHAPE))))
    bold = folder / f"{stem}_space-{space}_desc-preproc_bold.nii.gz"
    _save(bold, values.T.reshape(*SHAPE, N_TRS).astype(np.float32))
    inside = np.ones(int(np.prod(SHAPE)), dtype=np.uint8)
    inside[list(outside)] = 0
    _save(folder / f"{stem}_space-{space}_desc-brain_mask.nii.gz", inside.reshape(SHAPE))
    write_sidecar(folder / f"{stem}_space-{space}_desc-preproc_bold.json")
    return values


def write_sidecar(path: Path, tr_s: float = TR_S) -> None:
    """The JSON beside a run."""
    path.write_text(json.dumps({"RepetitionTime": tr_s, "SkullStripped": False}))


def write_confounds(path: Path, rng: np.random.Generator) -> None:
    """A table of confounds; derivatives have no value in the first row."""
    names = ["csf", "white_matter", "trans_x", "trans_x_derivative1", "rot_x", "cosine00"]
    rows = rng.normal(size=(N_TRS, len(names)))
    lines = ["\t".join(names), *("\t".join(str(value) for value in row) for row in rows)]
    first = lines[1].split("\t")
    lines[1] = "\t".join([*first[:3], "n/a", *first[4:]])
    path.write_text("\n".join(lines) + "\n")


def _save(path: Path, values: Array) -> None:
    image = nib.Nifti1Image(values, AFFINE)
    if values.ndim == 4:
        image.header.set_zooms((3.0, 3.0, 4.0, TR_S))
        image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def _write_surfaces(folder: Path, stem: str, rng: np.random.Generator) -> Array:
    sides = []
    for hemi in ("L", "R"):
        values = rng.normal(size=(N_TRS, 10242)).astype(np.float32)
        arrays = [nib.gifti.GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES") for row in values]
        nib.save(nib.gifti.GiftiImage(darrays=arrays), folder / f"{stem}_hemi-{hemi}_space-fsaverage5_bold.func.gii")
        write_sidecar(folder / f"{stem}_hemi-{hemi}_space-fsaverage5_bold.json")
        sides.append(values)
    return np.hstack(sides)
