"""Volumes of one subject: one brain mask for all runs, so that columns agree, and one run in memory at a time."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from brainlit.stories.base import BoolArray, FloatArray, Responses, SourceError, Subject, SubjectLeftOut
from brainlit.stories.readers.cleaning import ConfoundPatterns, clean_series, cleaning_filter, read_run_confounds
from brainlit.stories.readers.images import ImageError, count_volumes, forward, read_image, read_mask, read_series
from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files
from brainlit.stories.response_filter import ResponseFilter

log = logging.getLogger(__name__)

_EPI_MASK_RULE = "voxels that nilearn's compute_epi_mask keeps in the mean volume of every run"
_TR_TOLERANCE_S = 0.01


@dataclass(frozen=True, eq=False)
class VolumeReader:
    """How the runs of a data set become responses; the part of a source that is about voxels.

    Parameters
    ----------
    root : Path
        Folder to which the patterns below are relative; '{subject}' stands for the subject's name in them.
    mask : str, optional
        Brain mask, a NIfTI on the grid of the runs. None makes one per subject (`_EPI_MASK_RULE`) from its runs of the
        stories asked for, kept in a temporary folder as long as this object lives.
    high_pass_s : float, optional
        Drift slower than this is removed; None takes out the mean only, where drift was removed before.
    confounds : str, optional
        fMRIPrep table; '{run}' stands for the number in the name of the run's file.
    confound_names : list of str, optional
        Columns of it to regress out; '*' matches as in file names.
    regions : RegionConfig, optional
        Named regions; an atlas (label NIfTI) is read within the brain mask.

    Raises
    ------
    SourceError
        If only one of confounds and confound_names is given, or a pattern holds another placeholder.
    """

    root: Path
    mask: str | None = None
    high_pass_s: float | None = 128.0
    confounds: str | None = None
    confound_names: list[str] | None = None
    regions: RegionConfig | None = None

    def __post_init__(self) -> None:
        if (self.confounds is None) != (not self.confound_names):
            raise SourceError(
                f"confounds is {self.confounds!r} and confound_names {self.confound_names!r}; give both or none."
            )
        if self.mask is not None:
            check_pattern("mask", self.mask, ("subject",))
        if self.confounds is not None:
            check_pattern("confounds", self.confounds, ("subject", "run"))

    def settings(self) -> dict[str, Any]:
        """The part of a source's settings that is about voxels."""
        return {
            "mask": self.mask or _EPI_MASK_RULE,
            "high_pass_s": self.high_pass_s,
            "confounds": self.confounds,
            "confound_names": self.confound_names or [],
            "regions": None if self.regions is None else asdict(self.regions),
        }

    def facts(self) -> dict[str, str]:
        """What reports say of voxels and cleaning."""
        drift = f"drift slower than {self.high_pass_s:g} s" if self.high_pass_s is not None else "the mean"
        names = f", and the confounds {', '.join(self.confound_names)}" if self.confound_names else ""
        return {"voxels": self.mask or _EPI_MASK_RULE, "cleaning": f"{drift} removed{names}; z-scored per run"}

    def response_filter(self) -> ResponseFilter | None:
        """What responses pass here, as far as features can pass it too."""
        return cleaning_filter(self.high_pass_s, self.confound_names or ())

    def files(self, subject: str, runs: Sequence[Path]) -> list[Path]:
        """The runs, and what else is named: tables of confounds, mask, regions."""
        files = [*runs, *(self._confounds_of(subject, run) for run in runs if self.confounds is not None)]
        if self.mask is not None:
            files.append(self._mask(subject, runs))
        return files + region_files(self.regions, subject, self.root)

    def subject(self, name: str, runs: Sequence[Path]) -> Subject:
        """Voxels of the mask with their places in mm, and regions.

        Raises
        ------
        SubjectLeftOut
            If a run holds nothing, or no voxel is in the brain in all runs.
        """
        mask = self._mask(name, runs)
        voxels = read_mask(mask)
        coordinates_mm = voxels.coordinates_mm
        named = read_subject_regions(self.regions, name, len(coordinates_mm), self.root, voxels)
        return Subject(name, len(coordinates_mm), named, coordinates_mm=coordinates_mm)

    def responses(self, subject: str, run: Path, runs: Sequence[Path], n_trs: int, tr_s: float) -> Responses:
        """The first n_trs volumes of one run within the mask of all runs, cleaned and z-scored over time.

        Raises
        ------
        FileNotFoundError, SourceError
            If the run is shorter, its header gives another repetition time, or the table of confounds does not fit.
        """
        series = read_series([run], self._mask(subject, runs))
        n_volumes = len(series.values)
        if n_volumes < n_trs:
            raise SourceError(f"{run} has {n_volumes} volumes; need {n_trs}. Was it cut off while copying?")
        if series.tr_s is not None and abs(series.tr_s - tr_s) > _TR_TOLERANCE_S:
            raise SourceError(f"{run}: its header says {series.tr_s:g} s per volume, but it is {tr_s:g} s. Wrong run?")
        confounds = None
        if self.confounds is not None:
            table, names = self._confounds_of(subject, run), self.confound_names or ()
            confounds = read_run_confounds(table, names, run, n_volumes, self._patterns)[:n_trs]
        return Responses(clean_series(series.values[:n_trs], tr_s, self.high_pass_s, confounds=confounds))

    def _confounds_of(self, subject: str, run: Path) -> Path:
        number = re.search(r"_run-([^_]+)_", run.name)
        return self.root / str(self.confounds).format(subject=subject, run=number[1] if number else "")

    @cached_property
    def _patterns(self) -> ConfoundPatterns:
        return ConfoundPatterns(lambda: sorted(self.root.glob(str(self.confounds).format(subject="*", run="*"))))

    @cached_property
    def _folder(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="brainlit-masks-")

    def _mask(self, subject: str, runs: Sequence[Path]) -> Path:
        if self.mask is not None:
            return self.root / self.mask.format(subject=subject)
        path = Path(self._folder.name) / f"{subject}.nii.gz"
        if not path.is_file():
            _write_epi_mask(runs, path)
        return path


def check_pattern(what: str, pattern: str, placeholders: Sequence[str], required: Sequence[str] = ()) -> None:
    """Refuse a pattern of a path that is not below the root or holds other placeholders, before it is used.

    Raises
    ------
    SourceError
        Naming the setting (`what`), the pattern and the placeholders that it may hold.
    """
    known = ", ".join(f"{{{name}}}" for name in placeholders)
    try:
        pattern.format(**dict.fromkeys(placeholders, ""))
    except (KeyError, IndexError, ValueError) as error:
        raise SourceError(f"{what} is {pattern!r}: {error} is no placeholder; known: {known}.") from error
    if Path(pattern).is_absolute():
        raise SourceError(f"{what} is {pattern!r}; need a path below root. Set root, and leave it out here.")
    for name in required:
        if f"{{{name}}}" not in pattern:
            raise SourceError(f"{what} is {pattern!r}, one file for all; put {{{name}}} into it.")


def _write_epi_mask(runs: Sequence[Path], path: Path) -> None:
    import nibabel as nib
    from tqdm import tqdm

    inside: BoolArray | None = None
    affine: FloatArray = np.eye(4)
    for run in tqdm(runs, desc=f"brain mask {path.name.split('.')[0]}", unit="run", leave=False):
        found, its_affine = _epi_mask(run)
        if inside is None:
            inside, affine = found, its_affine
        elif found.shape != inside.shape or not np.allclose(its_affine, affine, atol=1e-3):
            raise ImageError(f"{run} lies on another grid than {runs[0]}: {found.shape}, not {inside.shape}.")
        inside = inside & found
    if inside is None or not inside.any():
        names = " and ".join(map(str, runs))
        raise SubjectLeftOut(f"no voxel is in the brain in all runs ({names}). Look at them, or name a mask: 'mask'.")
    log.info("%s: %d voxels in the brain in all of %d runs.", path.stem, inside.sum(), len(runs))
    new_image: Any = nib.Nifti1Image
    nib.save(new_image(inside.astype(np.uint8), affine), path)


def _epi_mask(run: Path) -> tuple[BoolArray, FloatArray]:
    """Brain of one run by nilearn's rule for EPI: the darkest gap in the histogram of its mean volume."""
    import nibabel as nib
    from nilearn.masking import compute_epi_mask

    image = read_image(run)
    n_volumes = count_volumes([run])
    new_image: Any = nib.Nifti1Image
    try:
        mean = np.zeros(image.shape[:3])
        for _, volumes in forward(run, image):
            mean += volumes.sum(axis=3, dtype=np.float64) / n_volumes
        mean = np.nan_to_num(mean)
        if mean.min() == mean.max():
            raise SubjectLeftOut(f"{run} holds the same value everywhere; it was damaged. Fetch it again.")
        mask = compute_epi_mask(new_image(mean, image.affine))
    except SourceError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ImageError(
            f"{run}: no brain mask can be made from it: {error}. Was it cut off while copying? Or name a mask: 'mask'."
        ) from error
    return np.asarray(mask.dataobj) > 0, np.asarray(image.affine, dtype=np.float64)
