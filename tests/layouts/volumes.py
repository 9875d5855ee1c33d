"""Small volumes with a bright brain in the dark, for the data sets that publish volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import soundfile

SHAPE = (9, 10, 9)
AFFINE = np.array([[2.0, 0, 0, -8], [0, 2, 0, -10], [0, 0, 2, -6], [0, 0, 0, 1]])
PLANTED = (4, 5, 4)
SOUND_HZ = 1000


def brain() -> npt.NDArray[np.bool_]:
    """A ball in the middle of the grid."""
    place = np.indices(SHAPE) - (np.array(SHAPE)[:, None, None, None] - 1) / 2
    return np.asarray((place**2).sum(axis=0) <= 3.6**2)


def write_run(path: Path, n_volumes: int, planted_volume: int, seed: int, header_tr_s: float = 2.0) -> None:
    """Noise and drift in the brain, nearly nothing outside; voxel PLANTED responds in one volume only."""
    rng = np.random.default_rng(seed)
    values = np.where(brain()[..., None], 1000 + rng.normal(0, 20, (*SHAPE, n_volumes)), 5.0)
    values += np.where(brain()[..., None], np.linspace(0, 100, n_volumes), 0.0)
    values[(*PLANTED, planted_volume)] += 400
    image: Any = nib.Nifti1Image(np.rint(values).astype(np.int16), AFFINE)  # type: ignore[no-untyped-call]
    image.header.set_zooms((2.0, 2.0, 2.0, header_tr_s))
    image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_sound(path: Path, duration_s: float, click_s: float, seed: int) -> None:
    """Faint noise with a tenth of a second of loud noise from click_s on."""
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, 0.01, round(duration_s * SOUND_HZ))
    first = round(click_s * SOUND_HZ)
    sound[first : first + SOUND_HZ // 10] *= 60
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(sound, -0.99, 0.99), SOUND_HZ, subtype="PCM_16")


def column_of_planted(coordinates_mm: npt.NDArray[np.float64]) -> int:
    """Column of voxel PLANTED among voxels with these places."""
    place_mm = AFFINE[:3, :3] @ np.array(PLANTED) + AFFINE[:3, 3]
    return int(np.flatnonzero((np.abs(coordinates_mm - place_mm) < 1e-6).all(axis=1))[0])
