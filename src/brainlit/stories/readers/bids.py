"""Preprocessed runs in a folder of fMRIPrep derivatives, found by their names alone.

Names follow BIDS derivatives (https://fmriprep.org/en/stable/outputs.html, https://bids.neuroimaging.io):
sub-01/[ses-1/]func/sub-01[_ses-1]_task-frog[_run-1]_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz, beside it
_desc-brain_mask.nii.gz in the same space, _desc-confounds_timeseries.tsv without one, and a .json with the TR.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import SourceError
from brainlit.timebase import unlikely_tr

_SIDES = {"L": 0, "R": 1}
_ENDINGS = ("_bold.nii.gz", "_bold.nii", "_bold.func.gii", "_bold.dtseries.nii")
_PREPROCESSED = "preproc"
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
    mask, confounds : Path or None
        Brain mask of a volume, table of confounds; None where there is no such file.
    sidecars : tuple of Path
        What `sidecars_of` finds.
    """

    files: tuple[Path, ...]
    entities: Mapping[str, str]
    mask: Path | None
    confounds: Path | None
    sidecars: tuple[Path, ...] = ()

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


def find_runs(root: Path, subject: str, task: str, space: str, desc: str = _PREPROCESSED) -> list[BoldRun]:
    """Runs of one task, in the order of their names; empty where the subject has none.

    Parameters
    ----------
    subject : str
        With or without 'sub-'.
    space : str
        As in fMRIPrep's --output-spaces: 'MNI152NLin2009cAsym', 'MNI152NLin6Asym:res-2', 'fsaverage5',
        'fsLR:den-91k'; 'func' for runs in their own space.
    desc : str
        What was done to the runs, as their names have it: 'preproc', or 'denoised' of XCP-D.

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
        here = _desc(entities) == desc and entities.get("space", "func") == name
        if here and all(entities.get(k) == v for k, v in wanted.items()):
            by_run.setdefault(_stem(path.name), []).append(path)
    return [_run(root, files, space) for _, files in sorted(by_run.items())]


def require_runs(root: Path, subject: str, task: str, space: str, desc: str = _PREPROCESSED) -> list[BoldRun]:
    """As `find_runs`, but no folder, subject or run is an error that says what there is."""
    runs = find_runs(root, subject, task, space, desc)
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
        in_space = [one for one in found if one.get("task") == task and one.get("space", "func") == space.split(":")[0]]
        if in_space and desc not in map(_desc, in_space):
            problem = f"no run of task {task!r} with desc {desc!r}. {did_you_mean(desc, set(map(_desc, in_space)))}"
    else:
        problem = f"no run of task {task!r}. {did_you_mean(task, tasks)}"
    raise BidsError(f"{root}: {_folder(subject)} has {problem}")


def descriptions(root: Path) -> list[str]:
    """What was done to the runs of a folder, as their names say it (desc), in alphabetical order."""
    return sorted({_desc(entities_of(path.name)) for name in subject_folders(root) for path in _images(root, name)})


def sidecars_of(file: Path, root: Path) -> tuple[Path, ...]:
    """The JSON files that describe an image, the nearest first: of its own name, then those that it inherits.

    A BIDS file inherits from those of the same suffix in its folder and above, up to the root, that name nothing which
    its own name does not (https://bids-specification.readthedocs.io/en/stable/common-principles.html).
    """
    name = file.name.removesuffix(".gz").rpartition(".")[0]
    stem = name.removesuffix(".dtseries").removesuffix(".func")
    found = [path for path in (file.with_name(f"{own}.json") for own in (name, stem)) if path.is_file()]
    suffix, own = stem.rpartition("_")[2], entities_of(stem)
    if "sub" in own and root in file.parents:
        for folder in file.parents[: file.parents.index(root) + 1]:
            near = {path: entities_of(path.stem) for path in folder.glob(f"*{suffix}.json")}
            known = [
                path
                for path, said in near.items()
                if path.stem.rpartition("_")[2] == suffix and said.items() <= own.items()
            ]
            found += sorted(known, key=lambda path: (-len(near[path]), path.name))
    return tuple(dict.fromkeys(found))


def repetition_time_s(sidecars: Sequence[Path]) -> float | None:
    """RepetitionTime of the nearest JSON that has one, in seconds; None where none has."""
    for path in sidecars:
        value = _sidecar(path).get("RepetitionTime")
        if value is not None:
            return _checked_tr_s(path, value)
    return None


def _checked_tr_s(path: Path, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < np.inf:
        raise BidsError(f"{path}: RepetitionTime is {value!r}; need seconds. Correct it.")
    question = unlikely_tr(value)
    if question is not None:
        raise BidsError(f"{path}: RepetitionTime is {value:g}; need seconds: {question}. Correct it.")
    return float(value)


def slice_reference(sidecars: Sequence[Path], tr_s: float) -> float | None:
    """Part of the TR that the values of a volume belong to; None where no JSON says it.

    StartTime is the moment to which slice timing correction took all slices (fMRIPrep's --slice-time-ref). Slices that
    were not corrected were acquired at the times in SliceTiming: then it is their mean.

    Raises
    ------
    BidsError
        If these are no seconds within a volume.
    """
    said: dict[str, Any] = {}
    for path in reversed(sidecars):
        said |= _sidecar(path)
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
            f"{sidecars[0]}: {key} is no time within a volume of {tr_s:g} s, in seconds. Correct it, or give"
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
    """Processed images of all runs; single echoes and other parts are no runs."""
    for pattern in ("func", "ses-*/func"):
        for path in sorted((root / _folder(subject)).glob(f"{pattern}/*_bold.*")):
            entities = entities_of(path.name)
            processed = "space" in entities or "desc" in entities
            if path.name.endswith(_ENDINGS) and processed and not {"echo", "part"} & entities.keys():
                yield path


def _desc(entities: Mapping[str, str]) -> str:
    """What was done to a run; surfaces of fMRIPrep do not say it."""
    return entities.get("desc", _PREPROCESSED)


def _run(root: Path, files: list[Path], space: str) -> BoldRun:
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
    mask = first.with_name(first.name.replace(f"_desc-{_desc(entities)}_bold.", "_desc-brain_mask."))
    return BoldRun(
        files=tuple(ordered),
        entities=own,
        mask=mask if mask.is_file() and mask != first else None,
        confounds=_first([first.with_name(f"{_stem(first.name)}_{ending}") for ending in _CONFOUNDS]),
        sidecars=tuple(dict.fromkeys(path for file in ordered for path in sidecars_of(file, root))),
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
