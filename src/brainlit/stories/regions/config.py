"""Named regions of a subject, from the files in which laboratories keep them. docs/regions.md describes them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import BoolArray, SourceError
from brainlit.stories.readers.images import VoxelMask, read_values
from brainlit.stories.regions.files import Region, names_beside, read_region_files
from brainlit.stories.regions.hcp_mmp1 import check_variant, grouped
from brainlit.stories.regions.pycortex import overlay_files, read_overlays

log = logging.getLogger(__name__)

HEMISPHERES = (("L", "R"), ("lh", "rh"), ("left", "right"))
_NO_REGION = {"", "???", "unknown", "undefined", "medial wall", "medialwall", "background", "none"}

_SIDED = re.compile(
    r"(?:ctx[-_.])?(?P<before>L|R|lh|rh|LH|RH|left|right|Left|Right)[-_. ](?P<name>.+)"
    r"|(?P<name2>.+)[-_. ](?P<after>L|R|lh|rh|LH|RH|left|right|Left|Right)"
)


@dataclass(frozen=True)
class RegionConfig:
    """Where the regions of the subjects are; one of `file` and `pycortex`.

    Paths are relative to the data set's folder; '{subject}' stands for the subject's name.

    Parameters
    ----------
    file : str, optional
        '.annot' or '.label.gii' ('{hemi}' stands for L and R, lh and rh or left and right), '.dlabel.nii', label
        '.nii.gz', '.npy', '.npz', '.csv', '.tsv'.
    pycortex : str, optional
        Filestore ('derivative/pycortex-db') with hand-drawn regions in <subject>/overlays.svg.
    transform : str
        Name of the filestore's transform from surface to volume.
    groups : str, optional
        'paper' or 'code': the groups of `brainlit.stories.regions.hcp_mmp1` instead of the single areas of HCP-MMP1.
    mask : str, optional
        NIfTI mask whose True voxels are the columns of the responses; needed where regions come as volumes.
    mask_order : 'auto', 'C' or 'F'
        Order of the columns over the mask's array as NIfTI stores it: C is that of nilearn, F that of pycortex (which
        turns volumes to z, y, x). 'auto' is F for a mask inside a pycortex transform and C for all others.
    names : str, optional
        Table (.tsv, .csv) with the columns index and name, for files of numbers; found by itself beside the file.
    sides : bool
        Give 'A1 left' and 'A1 right' besides 'A1' where the hemisphere is known.
    downsample : bool
        Take labels on a finer fsaverage mesh at the vertices of the responses' mesh (fsaverage to fsaverage5, say).

    Raises
    ------
    SourceError
        If not exactly one of file and pycortex is given, or groups or mask_order is unknown.
    """

    file: str | None = None
    pycortex: str | None = None
    transform: str = "{subject}_auto"
    groups: str | None = None
    mask: str | None = None
    mask_order: Literal["auto", "C", "F"] = "auto"
    names: str | None = None
    sides: bool = True
    downsample: bool = False

    def __post_init__(self) -> None:
        if (self.file is None) == (self.pycortex is None):
            raise SourceError(
                f"regions: file is {self.file!r} and pycortex is {self.pycortex!r}; give one of them, or no regions."
            )
        if self.groups is not None:
            check_variant(self.groups)
        if self.mask_order not in ("auto", "C", "F"):
            raise SourceError(f"regions: mask_order is {self.mask_order!r}; known: auto, C, F.")


def read_subject_regions(
    config: RegionConfig | None, subject: str, n_voxels: int, root: Path, places: Any = None
) -> dict[str, BoolArray]:
    """Masks of all named regions of a subject, by name; regions without a voxel are left out.

    Parameters
    ----------
    config : RegionConfig or None
        None gives no regions.
    n_voxels : int
        Columns of the subject's responses; the regions must fit them.
    root : Path
        Folder to which the paths of the config are relative.
    places : VoxelMask, BrainModelAxis or None
        What the columns are, as in `brainlit.stories.readers.images.Series`: labels of vertices and voxels then meet
        them there, and not by their count.

    Returns
    -------
    dict of name to bool array of shape (n_voxels,)
        Names without hemisphere and suffix ('L_A1_ROI' is 'A1'); 'A1 left' and 'A1 right' where the side is known.

    Raises
    ------
    SourceError
        If a file does not fit the responses, or no region is left.
    """
    if config is None:
        return {}
    if config.pycortex is not None:
        transform = _filled(config.transform, subject)
        filestore, mask = root / _filled(config.pycortex, subject), _optional(config.mask, subject, root)
        found = read_overlays(filestore, subject, transform, n_voxels, mask)
        if places is not None:
            found = _of_pycortex(found, overlay_files(filestore, subject, transform, mask)[-1], places)
    else:
        found = read_region_files(
            _files(config, subject, root),
            n_voxels,
            mask=_optional(config.mask, subject, root),
            mask_order=config.mask_order,
            names=_optional(config.names, subject, root),
            downsample=config.downsample,
            places=places,
        )
    regions = _merged(found, config.sides)
    if config.groups is not None:
        regions = grouped(regions, config.groups)
    empty = [name for name, mask in regions.items() if not mask.any()]
    if len(empty) == len(regions):
        raise SourceError(f"{config.file or config.pycortex}: no region of {subject} has a voxel of the responses.")
    whole = [name for name in empty if not name.endswith((" left", " right"))]
    if whole:
        log.warning("%s: %d regions have no voxel and are left out: %s.", subject, len(whole), ", ".join(whole[:9]))
    return {name: mask for name, mask in regions.items() if name not in empty}


def _of_pycortex(found: Iterable[Region], mask: Path, places: Any) -> list[Region]:
    """Regions over the voxels of a NIfTI run, whose order (C) is not that of pycortex (F over the same array)."""
    inside = read_values(mask) != 0
    if not isinstance(places, VoxelMask) or not np.array_equal(inside, places.inside):
        raise SourceError(f"{mask}: its voxels are not the columns of the responses. Read them within this mask.")
    regions, volume = [], np.zeros(inside.shape, dtype=np.bool_)
    for region in found:
        volume.T[inside.T] = region.mask
        regions.append(region._replace(mask=volume[inside]))
    return regions


def region_files(config: RegionConfig | None, subject: str, root: Path) -> list[Path]:
    """Files that a subject's regions are made from (for `StorySource.subject_files`); reads none of them."""
    if config is None:
        return []
    if config.pycortex is not None:
        filestore, transform = root / _filled(config.pycortex, subject), _filled(config.transform, subject)
        return overlay_files(filestore, subject, transform, _optional(config.mask, subject, root))
    files = _files(config, subject, root)
    names = _optional(config.names, subject, root) or names_beside(files[0])
    return [*files, *(path for path in (_optional(config.mask, subject, root), names) if path is not None)]


def clean_name(raw: str) -> tuple[str, str | None]:
    """Name and side of a region: every file writes them differently.

    >>> clean_name("L_A1_ROI"), clean_name("ctx-rh-insula"), clean_name("Heschl_L"), clean_name("FFA")
    (('A1', 'left'), ('insula', 'right'), ('Heschl', 'left'), ('FFA', None))
    """
    name = raw.strip().removesuffix("_ROI").replace("/", "-")
    match = _SIDED.fullmatch(name)
    if match is None:
        return name, None
    side = (match["before"] or match["after"])[0].lower()
    return match["name"] or match["name2"], {"l": "left", "r": "right"}[side]


def _merged(found: Iterable[Region], sides: bool) -> dict[str, BoolArray]:
    """Masks of the same name united, in the order of the file; then, if asked, each side's own."""
    whole: dict[str, BoolArray] = {}
    sided: dict[str, BoolArray] = {}
    for region in found:
        name, side = clean_name(region.name)
        side = region.side or side
        if name.lower().replace("_", " ") in _NO_REGION:
            continue
        whole[name] = whole[name] | region.mask if name in whole else region.mask
        if sides and side is not None:
            key = f"{name} {side}"
            sided[key] = sided[key] | region.mask if key in sided else region.mask
    return {**whole, **sided}


def _files(config: RegionConfig, subject: str, root: Path) -> tuple[Path, ...]:
    """The file, or the pair of a pattern with '{hemi}': the first spelling of which a file exists."""
    assert config.file is not None
    if "{hemi}" not in config.file:
        return (root / _filled(config.file, subject),)
    pattern = config.file
    pairs = [tuple(root / _filled(pattern, subject, hemi=hemi) for hemi in pair) for pair in HEMISPHERES]
    return next((pair for pair in pairs if any(path.is_file() for path in pair)), pairs[0])


def _optional(pattern: str | None, subject: str, root: Path) -> Path | None:
    return None if pattern is None else root / _filled(pattern, subject)


def _filled(pattern: str, subject: str, **more: str) -> str:
    names = {"subject": subject, **more}
    try:
        return pattern.format(**names)
    except (KeyError, IndexError, ValueError) as error:
        unknown = str(error.args[0]) if error.args else ""
        hint = did_you_mean(unknown, ["subject", "hemi"])
        raise SourceError(f"regions: {pattern!r}: {error} is no placeholder that can be filled here. {hint}") from error
