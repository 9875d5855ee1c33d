"""Where the responses of each presentation of a story to a subject are: named by a pattern, or found in fMRIPrep's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brainlit.hints import did_you_mean, few
from brainlit.stories.manifest.schema import Manifest, ManifestError, filled, placeholders
from brainlit.stories.readers.arrays import ARRAYS, virtual_parts
from brainlit.stories.readers.bids import (
    BoldRun,
    descriptions,
    find_runs,
    repetition_time_s,
    require_runs,
    sidecars_of,
    subject_folders,
)
from brainlit.stories.readers.images import (
    SERIES_SUFFIXES,
    HeaderTr,
    VoxelMask,
    count_volumes,
    header_tr,
    read_series,
    shared_mask,
)
from brainlit.stories.readers.tables import Table, read_table, require_file, table_shape


@dataclass(frozen=True)
class Run:
    """One presentation: image or table, and what lies beside it.

    Parameters
    ----------
    files : tuple of Path
        One file, or left and right hemisphere.
    mask, confounds : Path or None
    sidecars : tuple of Path
        JSON files that describe an image, the nearest first.
    dataset : str or None
        Name inside a file that may hold several arrays.
    transposed : bool
        Whether a table has columns before rows.
    repeat : int or None
        Which presentation of an array (n_repeats, n_rows, n_columns).
    """

    files: tuple[Path, ...]
    mask: Path | None = None
    confounds: Path | None = None
    sidecars: tuple[Path, ...] = ()
    dataset: str | None = None
    transposed: bool = False
    repeat: int | None = None

    @property
    def is_image(self) -> bool:
        """NIfTI, GIFTI or CIFTI, and not a table."""
        return self.files[0].name.lower().endswith(SERIES_SUFFIXES)

    @property
    def has_header(self) -> bool:
        """Whether `shape` reads headers alone."""
        return self.files[0].name.lower().endswith((".nii", ".nii.gz", *ARRAYS))

    @property
    def all_files(self) -> list[Path]:
        """Everything that decides the responses."""
        beside = [path for path in (self.mask, self.confounds) if path is not None]
        parts = [] if self.is_image else virtual_parts(self.files[0], self.dataset)
        return [*self.files, *parts, *beside]

    def shape(self) -> tuple[int, ...]:
        """Rows and columns of a table, (n_rows, n_columns); rows alone of an image. Mostly from headers.

        An array of several presentations, of which `repeat` says none, has (n_repeats, n_rows, n_columns).
        """
        self._require_files()
        if self.is_image:
            return (count_volumes(self.files),)
        return self.whole_shape()[-2:] if self.repeat is not None else self.whole_shape()

    def whole_shape(self) -> tuple[int, ...]:
        """Shape of a table with all presentations that its array holds."""
        return table_shape(self.files[0], self.dataset, self.transposed)

    def n_rows(self) -> int:
        """Number of volumes; of most formats only the header is read."""
        return self.shape()[0]

    def tr(self) -> HeaderTr:
        """Repetition time as JSON or header say it."""
        tr_s = repetition_time_s(self.sidecars)
        if tr_s is not None:
            return HeaderTr(tr_s, f"says {tr_s:g} s")
        self._require_files()
        return header_tr(self.files) if self.is_image else HeaderTr(None, "does not say it")

    def read(self, mask: VoxelMask | None) -> Table:
        """Values (n_rows, n_columns) in the units of the file, and the names of the columns where it has them."""
        self._require_files()
        if not self.is_image:
            return read_table(self.files[0], self.dataset, self.transposed, self.repeat, np.float32)
        series = read_series(self.files, mask)
        return Table(series.values, None, series.places)

    def presentations(self) -> list[Run]:
        """The run itself, or one for each presentation that its array holds."""
        if self.is_image or self.files[0].suffix.lower() not in ARRAYS or not self.files[0].is_file():
            return [self]
        shape = self.shape()
        return [self] if len(shape) < 3 else [replace(self, repeat=k) for k in range(shape[0])]

    def _require_files(self) -> None:
        for path in self.files:
            require_file(path)


class RunFinder(ABC):
    """Knows who heard what, and where the responses are."""

    def __init__(self, manifest: Manifest, where: Path) -> None:
        self.manifest, self.where = manifest, where
        self._mask: tuple[str, VoxelMask | None] | None = None

    @abstractmethod
    def subjects(self) -> list[str]:
        """All subjects."""

    @abstractmethod
    def heard(self, subject: str) -> tuple[str, ...]:
        """Stories that a subject heard."""

    @abstractmethod
    def runs(self, subject: str, story: str) -> list[Run]:
        """The presentations of a story that a subject heard; at least one."""

    @abstractmethod
    def named(self, subject: str) -> list[Run]:
        """The runs of a subject by their names alone; those that are not there any more may be left out."""

    def files(self, subject: str) -> list[Path]:
        """All files that a subject's responses are made from."""
        return [path for run in self.named(subject) for path in run.all_files]

    def confound_tables(self) -> Iterator[Path]:
        """The tables of confounds of all runs of all subjects."""
        for subject in self.subjects():
            yield from (run.confounds for run in self.named(subject) if run.confounds is not None)

    def mask(self, subject: str) -> VoxelMask | None:
        """The voxels of a subject: those in the masks of all runs; None where columns come from no mask."""
        if self._mask is None or self._mask[0] != subject:
            runs = [run for story in self.heard(subject) for run in self.runs(subject, story)]
            masks = list(dict.fromkeys(run.mask for run in runs if run.mask is not None))
            self._mask = subject, shared_mask(masks) if masks else None  # one subject is read at a time
        return self._mask[1]

    def first_run(self, story: str) -> Run:
        """The presentation that stands for the clock of a story; ManifestError if nobody heard it."""
        first = next((name for name in self.subjects() if story in self.heard(name)), None)
        if first is None:
            raise ManifestError(f"{self.where}: nobody heard {story!r}. Add it to a subject, or remove the story.")
        return self.runs(first, story)[0]

    def require_subject(self, subject: str) -> None:
        """Refuse a subject that is not there; the ManifestError gives the nearest name."""
        known = self.subjects()
        if subject not in known:
            raise ManifestError(f"{self.where}: there is no subject {subject!r}. {did_you_mean(subject, known)}")


class NamedRuns(RunFinder):
    """Files named by patterns with {subject}, {story}, {repeat} and {hemi}."""

    def subjects(self) -> list[str]:
        """The subjects of the manifest."""
        return list(self.manifest.subjects or {})

    def heard(self, subject: str) -> tuple[str, ...]:
        """What the manifest says."""
        self.require_subject(subject)
        return (self.manifest.subjects or {})[subject]

    def runs(self, subject: str, story: str) -> list[Run]:
        """One run per repeat; an array may hold several."""
        return [one for run in self._named(subject, story) for one in run.presentations()]

    def named(self, subject: str) -> list[Run]:
        """What the patterns name."""
        return [run for story in self.heard(subject) for run in self._named(subject, story)]

    def _named(self, subject: str, story: str) -> list[Run]:
        repeats, told = self.manifest.stories[story].repeats or ("",), self.manifest.told(story)
        return [self._run({"subject": subject, **told, "repeat": repeat}) for repeat in repeats]

    def _run(self, names: dict[str, str]) -> Run:
        said, root = self.manifest.responses, self.manifest.root
        file = str(said.file)
        sides = ("L", "R") if "hemi" in placeholders(file) else ("",)
        confounds = said.confounds.file if said.confounds is not None else None
        files = tuple(root / filled(file, **names, hemi=side) for side in sides)
        run = Run(
            files=files,
            mask=root / filled(said.mask, **names) if said.mask is not None else None,
            confounds=root / filled(confounds, **names) if confounds is not None else None,
            dataset=filled(said.dataset, **names) if said.dataset is not None else None,
            transposed=said.transposed,
        )
        return replace(run, sidecars=sidecars_of(files[0], root)) if run.is_image else run


class FmriprepRuns(RunFinder):
    """Runs found in a folder of fMRIPrep derivatives."""

    def __init__(self, manifest: Manifest, where: Path) -> None:
        super().__init__(manifest, where)
        self.root = manifest.root / str(manifest.responses.fmriprep)
        self.space, self.desc = str(manifest.responses.space), manifest.responses.desc
        self._found: dict[tuple[str, str], list[BoldRun]] = {}

    def subjects(self) -> list[str]:
        """The subjects of the manifest, or those with a run of at least one story."""
        if self.manifest.subjects is not None:
            return list(self.manifest.subjects)
        return [name for name in subject_folders(self.root) if self._heard_by_files(name)]

    def heard(self, subject: str) -> tuple[str, ...]:
        """What the manifest says, or the stories of which the subject has runs."""
        if self.manifest.subjects is None:
            heard = self._heard_by_files(subject)
            if heard:
                return heard
        self.require_subject(subject)
        return (self.manifest.subjects or {})[subject]

    def runs(self, subject: str, story: str) -> list[Run]:
        """The runs of the task, or those that the story's repeats name.

        Raises
        ------
        ManifestError
            If there are several and the manifest does not say that they are repeats.
        """
        found = self._find(subject, story) or self._required(subject, story)
        runs = [self._run(one, subject, story) for one in self._chosen(found, subject, story)]
        for run in runs:
            self._require_whole(run)
        return runs

    def _required(self, subject: str, story: str) -> list[BoldRun]:
        return require_runs(self.root, subject, self._task(story), self.space, self.desc)

    def _chosen(self, found: list[BoldRun], subject: str, story: str) -> list[BoldRun]:
        part = self._part(story)
        repeats = (part,) if part else self.manifest.stories[story].repeats
        there = ", ".join(run.label for run in found)
        if not repeats and len(found) > 1:
            raise ManifestError(
                f"{self.where}: {subject} has {len(found)} runs of {story!r}: {there}. If they are presentations of the"
                f" same story, say so: stories.{story}.repeats: all; or name those to use: [{found[0].label}]. If it"
                f" was told over them, one after the other, say stories.{story}.parts (docs/your_data.md)."
            )
        if not repeats or repeats == "all":
            return found
        chosen = []
        for name in repeats:
            meant = [run for run in found if run.is_meant_by(name)]
            if len(meant) != 1:
                which = "the part" if name == part else "repeats:"
                raise ManifestError(
                    f"{self.where}: stories.{story}: {which} {name!r} means {len(meant)} of the runs that {subject}"
                    f" has: {there}."
                )
            chosen += meant
        return chosen

    def named(self, subject: str) -> list[Run]:
        """All runs that are there of the stories that the subject heard."""
        if not self.root.is_dir():
            return []
        found = [(story, one) for story in self.heard(subject) for one in self._find(subject, story)]
        return [self._run(one, subject, story) for story, one in found]

    def first_run(self, story: str) -> Run:
        """As for named files; says so where the folder holds nothing."""
        if not self.subjects():
            there = descriptions(self.root)
            say = f"Say responses.desc: {there[0]}. " if there and self.desc not in there else ""
            raise FileNotFoundError(
                f"{self.root} holds no run of any story in space {self.space!r} with desc {self.desc!r}. {say}Check"
                f" fmriprep, task, space and desc in {self.where}, and its root. Subjects there:"
                f" {few(subject_folders(self.root), 9) or 'none'}; desc there: {few(there, 9) or 'none'}."
            )
        return super().first_run(story)

    def _run(self, found: BoldRun, subject: str, story: str) -> Run:
        """A run with what the manifest names for it, or else what lies beside it."""
        said = self.manifest.responses

        def named(template: str | None) -> Path | None:
            names = {"subject": subject, **self.manifest.told(story), "repeat": found.label}
            return None if template is None else self.manifest.root / filled(template, **names)

        confounds = None if said.confounds is None else named(said.confounds.file) or found.confounds
        return Run(found.files, named(said.mask) or found.mask, confounds, found.sidecars)

    def _require_whole(self, run: Run) -> None:
        if self.manifest.responses.confounds is not None and run.confounds is None:
            raise FileNotFoundError(f"{run.files[0]} has no *_desc-confounds_timeseries.tsv beside it. Fetch it too.")
        if run.mask is None and run.files[0].name.endswith(("_bold.nii", "_bold.nii.gz")):
            raise FileNotFoundError(
                f"{run.files[0]} has no *_desc-brain_mask.nii.gz beside it. Fetch it too, or name one: 'mask'."
            )

    def _heard_by_files(self, subject: str) -> tuple[str, ...]:
        def has(story: str) -> bool:
            found, part = self._find(subject, story), self._part(story)
            return any(run.is_meant_by(part) for run in found) if part else bool(found)

        return tuple(filter(has, self.manifest.stories))

    def _part(self, story: str) -> str:
        """The name of the run that is a part of a story; empty where the task, or its repeats, say the runs."""
        said_otherwise = self.manifest.stories[story].repeats or "part" in placeholders(self.manifest.responses.task)
        return "" if said_otherwise else self.manifest.told(story)["part"]

    def _find(self, subject: str, story: str) -> list[BoldRun]:
        key = subject, story
        if key not in self._found:
            self._found[key] = find_runs(self.root, subject, self._task(story), self.space, self.desc)
        return self._found[key]

    def _task(self, story: str) -> str:
        return filled(self.manifest.responses.task, **self.manifest.told(story))


def make_finder(manifest: Manifest, where: Path) -> RunFinder:
    """What finds the runs of a manifest; `where` is its file, for messages."""
    return NamedRuns(manifest, where) if manifest.responses.fmriprep is None else FmriprepRuns(manifest, where)
