"""Where the responses of each presentation of a story to a subject are: named by a pattern, or found in fMRIPrep's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from brainlit.hints import did_you_mean
from brainlit.stories.manifest.schema import Manifest, ManifestError, filled, placeholders
from brainlit.stories.readers.bids import BoldRun, find_runs, repetition_time_s, require_runs, subject_folders
from brainlit.stories.readers.images import (
    SERIES_SUFFIXES,
    VoxelMask,
    count_volumes,
    header_tr_s,
    read_series,
    shared_mask,
)
from brainlit.stories.readers.tables import Table, count_rows, read_table, require_file


@dataclass(frozen=True)
class Run:
    """One presentation: image or table, and what lies beside it.

    Parameters
    ----------
    files : tuple of Path
        One file, or left and right hemisphere.
    mask, confounds, sidecar : Path or None
    dataset : str or None
        Name inside an HDF5 file.
    """

    files: tuple[Path, ...]
    mask: Path | None = None
    confounds: Path | None = None
    sidecar: Path | None = None
    dataset: str | None = None

    @property
    def is_image(self) -> bool:
        """NIfTI, GIFTI or CIFTI, and not a table."""
        return self.files[0].name.lower().endswith(SERIES_SUFFIXES)

    @property
    def all_files(self) -> list[Path]:
        """Everything that decides the responses."""
        beside = [path for path in (self.mask, self.confounds) if path is not None]
        return [*self.files, *beside]

    def n_rows(self) -> int:
        """Number of volumes; of most formats only the header is read."""
        self._require_files()
        return count_volumes(self.files) if self.is_image else count_rows(self.files[0], self.dataset)

    def tr_s(self) -> float | None:
        """Repetition time as JSON or header say it; None where neither does."""
        if self.sidecar is not None:
            return repetition_time_s(self.sidecar)
        self._require_files()
        return header_tr_s(self.files) if self.is_image else None

    def read(self, mask: VoxelMask | None) -> Table:
        """Values (n_rows, n_columns) in the units of the file, and the names of the columns where it has them."""
        self._require_files()
        if not self.is_image:
            return read_table(self.files[0], self.dataset)
        return Table(read_series(self.files, mask).values, None)

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
    def files(self, subject: str) -> list[Path]:
        """All files that a subject's responses are made from; those that are not there any more may be left out."""

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
        """One run per repeat."""
        repeats = self.manifest.stories[story].repeats or ("",)
        return [self._run({"subject": subject, "story": story, "repeat": repeat}) for repeat in repeats]

    def files(self, subject: str) -> list[Path]:
        """What the patterns name."""
        return [path for story in self.heard(subject) for run in self.runs(subject, story) for path in run.all_files]

    def _run(self, names: dict[str, str]) -> Run:
        said, root = self.manifest.responses, self.manifest.root
        file = str(said.file)
        sides = ("L", "R") if "hemi" in placeholders(file) else ("",)
        confounds = said.confounds.file if said.confounds is not None else None
        return Run(
            files=tuple(root / filled(file, **names, hemi=side) for side in sides),
            mask=root / filled(said.mask, **names) if said.mask is not None else None,
            confounds=root / filled(confounds, **names) if confounds is not None else None,
            dataset=filled(said.dataset, **names) if said.dataset is not None else None,
        )


class FmriprepRuns(RunFinder):
    """Runs found in a folder of fMRIPrep derivatives."""

    def __init__(self, manifest: Manifest, where: Path) -> None:
        super().__init__(manifest, where)
        self.root = manifest.root / str(manifest.responses.fmriprep)
        self.space = str(manifest.responses.space)
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
        found = self._find(subject, story) or require_runs(self.root, subject, self._task(story), self.space)
        runs = [self._run(one, subject, story) for one in self._chosen(found, subject, story)]
        for run in runs:
            self._require_whole(run)
        return runs

    def _chosen(self, found: list[BoldRun], subject: str, story: str) -> list[BoldRun]:
        repeats = self.manifest.stories[story].repeats
        there = ", ".join(run.label for run in found)
        if not repeats and len(found) > 1:
            raise ManifestError(
                f"{self.where}: {subject} has {len(found)} runs of {story!r}: {there}. If they are presentations of the"
                f" same story, say so: stories.{story}.repeats: all; or name those to use: [{found[0].label}]."
            )
        if not repeats or repeats == "all":
            return found
        chosen = []
        for name in repeats:
            meant = [run for run in found if run.is_meant_by(name)]
            if len(meant) != 1:
                raise ManifestError(
                    f"{self.where}: stories.{story}.repeats: {name!r} means {len(meant)} of the runs that {subject}"
                    f" has: {there}."
                )
            chosen += meant
        return chosen

    def files(self, subject: str) -> list[Path]:
        """All runs that are there of the stories that the subject heard."""
        if not self.root.is_dir():
            return []
        found = [(story, one) for story in self.heard(subject) for one in self._find(subject, story)]
        return [path for story, one in found for path in self._run(one, subject, story).all_files]

    def first_run(self, story: str) -> Run:
        """As for named files; says so where the folder holds nothing."""
        if not self.subjects():
            raise FileNotFoundError(
                f"{self.root} holds no run of any story in space {self.space!r}. Check fmriprep, task and space in"
                f" {self.where}, and its root. Subjects there: {', '.join(subject_folders(self.root)[:9]) or 'none'}."
            )
        return super().first_run(story)

    def _run(self, found: BoldRun, subject: str, story: str) -> Run:
        """A run with what the manifest names for it, or else what lies beside it."""
        said = self.manifest.responses

        def named(template: str | None) -> Path | None:
            names = {"subject": subject, "story": story, "repeat": found.label}
            return None if template is None else self.manifest.root / filled(template, **names)

        confounds = None if said.confounds is None else named(said.confounds.file) or found.confounds
        return Run(found.files, named(said.mask) or found.mask, confounds, found.sidecar)

    def _require_whole(self, run: Run) -> None:
        if self.manifest.responses.confounds is not None and run.confounds is None:
            raise FileNotFoundError(f"{run.files[0]} has no *_desc-confounds_timeseries.tsv beside it. Fetch it too.")
        if run.mask is None and run.files[0].name.endswith(("_bold.nii", "_bold.nii.gz")):
            raise FileNotFoundError(f"{run.files[0]} has no *_desc-brain_mask.nii.gz beside it. Fetch it too.")

    def _heard_by_files(self, subject: str) -> tuple[str, ...]:
        return tuple(story for story in self.manifest.stories if self._find(subject, story))

    def _find(self, subject: str, story: str) -> list[BoldRun]:
        key = subject, story
        if key not in self._found:
            self._found[key] = find_runs(self.root, subject, self._task(story), self.space)
        return self._found[key]

    def _task(self, story: str) -> str:
        return filled(self.manifest.responses.task, story=story)


def make_finder(manifest: Manifest, where: Path) -> RunFinder:
    """What finds the runs of a manifest; `where` is its file, for messages."""
    return NamedRuns(manifest, where) if manifest.responses.fmriprep is None else FmriprepRuns(manifest, where)
