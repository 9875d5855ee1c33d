"""Preprocessed runs in a folder of fMRIPrep derivatives, found by their names alone.

Names follow BIDS derivatives (https://fmriprep.org/en/stable/outputs.html, https://bids.neuroimaging.io):
sub-01/[ses-1/]func/sub-01[_ses-1]_task-frog[_run-1]_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz, beside it
_desc-brain_mask.nii.gz in the same space, _desc-confounds_timeseries.tsv without one, and a .json with the TR.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import SourceError

_SIDES = {"L": 0, "R": 1}
_ENDINGS = ("_bold.nii.gz", "_bold.nii", "_bold.func.gii", "_bold.dtseries.nii")
# What tells files of one run from each other; all other entities tell runs.
_OF_THE_FILE = ("space", "res", "den", "hemi", "desc")
_OF_THE_TASK = ("sub", "task")
_CONFOUNDS = ("desc-confounds_timeseries.tsv", "desc-confounds_regressors.tsv")


class BidsError(SourceError):
    """A derivatives folder that lacks a run, or holds several that could be meant; the message lists what is there."""


@dataclass(frozen=True)
class BoldRun:
    """One preprocessed run of one subject in one space.

    Parameters
    ----------
    files : tuple of Path
        The image; left and right hemisphere for surfaces.
    entities : mapping of str to str
        What tells the run from others of the task: ses, run, acq, ...
    mask, confounds, sidecar : Path or None
        Brain mask of a volume, table of confounds, JSON with the repetition time; None where there is no such file.
    """

    files: tuple[Path, ...]
    entities: Mapping[str, str]
    mask: Path | None
    confounds: Path | None
    sidecar: Path | None

    @property
    def label(self) -> str:
        """Name of the run within the task: 'ses-1_run-2'; 'the only run' where nothing tells it from others."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items()) or "the only run"

    def is_meant_by(self, name: str) -> bool:
        """Whether a name as users write it ('run-2', 'ses-1_run-2', or '2' for the run) describes this run."""
        wanted = entities_of(name) if "-" in name else {"run": name}
        return bool(wanted) and all(_same(value, self.entities.get(key)) for key, value in wanted.items())


def subject_folders(root: Path) -> list[str]:
    """Names of the subjects, sub-*, in alphabetical order; empty where the folder is not there."""
    return sorted(path.name for path in root.glob("sub-*") if path.is_dir()) if root.is_dir() else []


def find_runs(root: Path, subject: str, task: str, space: str) -> list[BoldRun]:
    """Runs of one task, in the order of their names; empty where the subject has none.

    Parameters
    ----------
    subject : str
        With or without 'sub-'.
    space : str
        As in fMRIPrep's --output-spaces: 'MNI152NLin2009cAsym', 'MNI152NLin6Asym:res-2', 'fsaverage5',
        'fsLR:den-91k'; 'func' for runs in their own space.

    Raises
    ------
    BidsError
        If a run is there at several resolutions, or one hemisphere is missing.
    """
    name, *details = space.split(":")
    wanted = {"task": task, **entities_of("_".join(details))}
    by_run: dict[str, list[Path]] = {}
    for path in _images(root, subject):
        entities = entities_of(path.name)
        if entities.get("space", "func") == name and all(entities.get(k) == v for k, v in wanted.items()):
            by_run.setdefault(_stem(path.name), []).append(path)
    return [_run(files, space) for _, files in sorted(by_run.items())]


def require_runs(root: Path, subject: str, task: str, space: str) -> list[BoldRun]:
    """As `find_runs`, but no folder, subject or run is an error that says what there is."""
    runs = find_runs(root, subject, task, space)
    if runs:
        return runs
    known = subject_folders(root)
    if not known:
        raise FileNotFoundError(f"{root} holds no folders sub-*. Name the folder that fMRIPrep wrote: 'fmriprep'.")
    if _folder(subject) not in known:
        raise FileNotFoundError(f"{root} holds no {_folder(subject)}. {did_you_mean(_folder(subject), known)}")
    found = [entities_of(path.name) for path in _images(root, subject)]
    tasks = {one["task"] for one in found if "task" in one}
    if task in tasks:
        spaces = {one.get("space", "func") for one in found if one.get("task") == task}
        problem = f"no run of task {task!r} in space {space!r}. {did_you_mean(space, spaces)}"
    else:
        problem = f"no run of task {task!r}. {did_you_mean(task, tasks)}"
    raise BidsError(f"{root}: {_folder(subject)} has {problem}")


def repetition_time_s(sidecar: Path) -> float:
    """RepetitionTime of the JSON beside a run, in seconds."""
    value = _sidecar(sidecar).get("RepetitionTime")
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < np.inf:
        raise BidsError(f"{sidecar}: RepetitionTime is {value!r}; need seconds. Add it, or give tr_s in the manifest.")
    return float(value)


def slice_reference(sidecar: Path) -> float | None:
    """Part of the TR that the values of a volume belong to; None where the JSON beside a run does not say it.

    StartTime is the moment to which slice timing correction took all slices (fMRIPrep's --slice-time-ref). Slices that
    were not corrected were acquired at the times in SliceTiming: then it is their mean.

    Raises
    ------
    BidsError
        If these are no seconds within a volume.
    """
    said, tr_s = _sidecar(sidecar), repetition_time_s(sidecar)
    corrected = said.get("SliceTimingCorrected", "StartTime" in said)
    key = "StartTime" if corrected else "SliceTiming"
    if said.get(key) is None:
        return None
    try:
        times_s = np.asarray(said[key], dtype=np.float64)
        fits = times_s.size > 0 and bool(((times_s >= 0) & (times_s <= tr_s)).all())
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise BidsError(
            f"{sidecar}: {key} is no time within a volume of {tr_s:g} s, in seconds. Correct it, or give"
            " slice_reference in the manifest."
        )
    return float(times_s.mean()) / tr_s


def _sidecar(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BidsError(f"{path} is no readable JSON: {error}. Fetch it again.") from error
    return said if isinstance(said, dict) else {}


def entities_of(name: str) -> dict[str, str]:
    """The key-value pairs of a BIDS name.

    >>> entities_of("sub-01_ses-2_task-frog_bold.nii.gz")
    {'sub': '01', 'ses': '2', 'task': 'frog'}
    """
    return {key: value for key, dash, value in (part.partition("-") for part in name.split("_")) if dash and key}


def _images(root: Path, subject: str) -> Iterator[Path]:
    """Preprocessed images of all runs; single echoes and other parts are no runs."""
    for pattern in ("func", "ses-*/func"):
        for path in sorted((root / _folder(subject)).glob(f"{pattern}/*_bold.*")):
            entities = entities_of(path.name)
            preprocessed = entities.get("desc", "preproc") == "preproc" and ("space" in entities or "desc" in entities)
            if path.name.endswith(_ENDINGS) and preprocessed and not {"echo", "part"} & entities.keys():
                yield path


def _run(files: list[Path], space: str) -> BoldRun:
    is_surface = files[0].name.endswith(".gii")
    ordered = sorted(files, key=lambda path: _SIDES.get(entities_of(path.name).get("hemi", ""), 2))
    if is_surface and [entities_of(path.name).get("hemi") for path in ordered] != list(_SIDES):
        raise BidsError(f"{files[0].parent}: need one file hemi-L and one hemi-R, found {_listed(files)}.")
    if not is_surface and len(files) > 1:
        raise BidsError(
            f"{files[0].parent}: space {space!r} could be any of {_listed(files)}. Add the resolution:"
            f" '{space}:res-2', or '{space}:den-91k'."
        )
    first = ordered[0]
    entities = entities_of(first.name)
    own = {key: value for key, value in entities.items() if key not in (*_OF_THE_FILE, *_OF_THE_TASK)}
    mask = first.with_name(first.name.replace("_desc-preproc_bold.", "_desc-brain_mask."))
    return BoldRun(
        files=tuple(ordered),
        entities=own,
        mask=mask if mask.is_file() and mask != first else None,
        confounds=_first([first.with_name(f"{_stem(first.name)}_{ending}") for ending in _CONFOUNDS]),
        sidecar=_first([path.with_name(path.name.partition(".")[0] + ".json") for path in ordered]),
    )


def _stem(name: str) -> str:
    """The name of the run that a file belongs to: without space, resolution, hemisphere, description and ending."""
    parts = name.split("_")[:-1]
    return "_".join(part for part in parts if part.partition("-")[0] not in _OF_THE_FILE)


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _folder(subject: str) -> str:
    return f"sub-{subject.removeprefix('sub-')}"


def _same(left: str, right: str | None) -> bool:
    """Whether two labels agree; '01' is '1'."""
    return right is not None and (left == right or (left.isdigit() and right.isdigit() and int(left) == int(right)))


def _listed(files: list[Path]) -> str:
    return ", ".join(path.name for path in files)
