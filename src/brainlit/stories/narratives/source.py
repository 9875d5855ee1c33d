"""The Narratives collection (OpenNeuro ds002345): Nastase et al. (2021), doi:10.1038/s41597-021-01033-3.

345 people hear one to seven of 27 stories each. What is read: sound, forced alignments by gentle, and the responses
that the authors cleaned of confounds and drift, on the cortical surface fsaverage6. data/narratives.md says what is
known about them, from which source, and what is assumed.

The clock: row k of a scan is acquired from 1.5 k seconds on. The sound does not begin with the scan in all tasks; when
it does is in the events of the data set (`Task.sound_start_s`). Where an events file lies beside the responses, it is
compared.
"""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainlit.stories.base import (
    ROLES,
    Float32Array,
    Intervals,
    Remote,
    Responses,
    SourceError,
    Story,
    Subject,
    SubjectLeftOut,
)
from brainlit.stories.narratives.gentle import read_gentle, read_json
from brainlit.stories.narratives.tables import (
    NOT_OFFERED,
    SAME_FORTY_SEVEN,
    TASKS,
    TR_S,
    Task,
    all_runs,
    excluded_runs,
    listeners,
    runs,
)
from brainlit.stories.published import PublishedSource, chosen, require_known
from brainlit.stories.readers.audio import read_audio
from brainlit.stories.readers.cleaning import clean_series
from brainlit.stories.readers.images import read_series
from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files
from brainlit.timebase import TimeBase

log = logging.getLogger(__name__)

VERTICES = {"fsaverage5": 10242, "fsaverage6": 40962}
"""Vertices per hemisphere. Those of fsaverage5 are the first ones of fsaverage6."""
PUBLISHED_SPACE = "fsaverage6"
DERIVATIVES = ("afni-nosmooth", "afni-smooth")
EVENT_META = "code/event_meta.json"


class NarrativesSource(PublishedSource):
    """Stories of the Narratives collection with the cleaned surface responses of those who heard them.

    Parameters
    ----------
    root : str
        Folder that mirrors the collection, with `stimuli/` and `derivatives/`.
    stories : list of str, optional
        Names as in `narratives_tables.TASKS`. None takes the four that the same 47 people heard.
    subjects : list of str, optional
        'sub-001' and so on. None takes everyone who heard at least one of the stories in a run that is not excluded.
    space : 'fsaverage5' or 'fsaverage6'
        fsaverage5 keeps of each hemisphere the first 10,242 of the 40,962 published vertices, which are its own: a
        quarter of the size, and maps in the report. fsaverage6 is what is published.
    derivative : 'afni-nosmooth' or 'afni-smooth'
        Cleaned responses without spatial smoothing, or smoothed to 6 mm first.
    regions : RegionConfig, optional
        The collection ships the areas of HCP-MMP1 on fsaverage6 (`downsample: true` takes them to fsaverage5).

    Raises
    ------
    SourceError
        If a story, subject, space or derivative is unknown, or a subject heard none of the stories.
    """

    name = "narratives"

    def __init__(
        self,
        root: str,
        stories: list[str] | None = None,
        subjects: list[str] | None = None,
        space: Literal["fsaverage5", "fsaverage6"] = "fsaverage5",
        derivative: Literal["afni-nosmooth", "afni-smooth"] = "afni-nosmooth",
        regions: RegionConfig | None = None,
    ) -> None:
        wanted = _chosen_stories(stories)
        everyone = _heard_by_anyone(wanted)
        usable = [name for name in everyone if any(runs(name, story) for story in wanted)]
        listener = f"listener of {', '.join(wanted)} called"
        super().__init__(root, wanted, usable if subjects is None else chosen(listener, subjects, everyone))
        self._asked = everyone if subjects is None else list(self._subjects)
        require_known("space", space, VERTICES)
        require_known("derivative", derivative, DERIVATIVES)
        self._space, self._derivative, self._regions = space, derivative, regions

    def settings(self) -> dict[str, Any]:
        """What decides how stories and subjects look in the store."""
        return {
            "source": type(self).__name__,
            "stories": list(self._stories),
            "space": self._space,
            "derivative": self._derivative,
            "regions": None if self._regions is None else dataclasses.asdict(self._regions),
        }

    def default_roles(self) -> dict[str, list[str]]:
        """Each story in its role; pieman and piemanpni, and the versions of milkyway, never in two."""
        return {role: [name for name in self._stories if TASKS[name].role == role] for role in ROLES}

    def story(self, name: str) -> Story:
        """Sound, words, phones and clock of one story; the rows are those in which it is told.

        Raises
        ------
        FileNotFoundError
            If the sound or the alignment is missing.
        SourceError
            If the sound ends before the story does, or the alignment cannot be read.
        """
        task = self._task(name)
        audio, timebase = read_audio(self._sound(task)), self._timebase(name)
        sound_s = len(audio) / timebase.sample_rate_hz
        if timebase.end_s > sound_s + TR_S:
            raise SourceError(
                f"{self._sound(task)} lasts {sound_s:.2f} s, but {name!r} is told until {timebase.end_s:.2f} s of it."
                " Was it cut off while copying? Fetch it again."
            )
        words, phones = read_gentle(self._alignment(task))
        return Story(name, audio, _within(words, timebase), _within(phones, timebase), timebase)

    def phones(self, story: str) -> Intervals | None:
        """Phones of one story, without reading the sound."""
        task = self._task(story)
        return _within(read_gentle(self._alignment(task))[1], self._timebase(story))

    def subject(self, name: str) -> Subject:
        """Vertices and regions; on fsaverage5 with the vertex of each column.

        Raises
        ------
        SubjectLeftOut
            If every run of the stories that the subject heard is excluded.
        """
        self._require_subject(name)
        if not any(runs(name, story) for story in self._stories):
            raise SubjectLeftOut(f"{name}: the authors exclude every run of {', '.join(self._stories)}.")
        n_voxels = 2 * VERTICES[self._space]
        regions = {} if self._regions is None else read_subject_regions(self._regions, name, n_voxels, self.root)
        on_fsaverage5 = self._space == "fsaverage5"
        return Subject(name, n_voxels, regions, np.arange(n_voxels, dtype=np.int64) if on_fsaverage5 else None)

    def responses(self, subject: str, story: str) -> Responses | None:
        """Rows in which the story is told, z-scored over them; None if it was not heard or its runs are excluded.

        Raises
        ------
        FileNotFoundError
            If a file of a run is missing.
        SourceError
            If a run is on another surface, is shorter than the story, or its events disagree with the clock.
        """
        self._require_subject(subject)
        repeats = [self._run(subject, story, stem) for stem in runs(subject, story)]
        if len(repeats) < 2:
            return Responses(repeats[0]) if repeats else None
        every = np.stack(repeats)
        return Responses(clean_series(np.asarray(every.mean(axis=0)), TR_S, high_pass_s=None), every)

    def story_files(self, name: str) -> Sequence[Path]:
        """Sound, alignment, and the collection's table of events where it is there."""
        task, table = self._task(name), self.root / EVENT_META
        return [self._sound(task), self._alignment(task), *([table] if table.is_file() else [])]

    def subject_files(self, name: str) -> Sequence[Path]:
        """Both hemispheres of every run that is used, and the files of the regions."""
        stems = dict.fromkeys(stem for story in self._stories for stem in runs(name, story))
        regions = [] if self._regions is None else region_files(self._regions, name, self.root)
        return [*(path for stem in stems for path in self._hemispheres(name, stem)), *regions]

    def left_out(self) -> dict[str, str]:
        """Tasks that are not offered, and the excluded runs of the stories and subjects that were asked for."""
        tasks = dict.fromkeys(TASKS[name].task for name in self._stories)
        heard = {stem for name in self._stories for subject in self._asked for stem in all_runs(subject, name)}
        reason = "excluded by the authors (code/scan_exclude.json of the collection)"
        return {**NOT_OFFERED, **{stem: reason for task in tasks for stem in excluded_runs(task) if stem in heard}}

    def facts(self) -> dict[str, str]:
        """What every report says of these data."""
        smoothed = "smoothed to 6 mm, " if self._derivative == "afni-smooth" else ""
        return {
            "clock": "TR 1.5 s; row 0 is the first in which the story is told, the music before it is left out; when"
            " the sound file begins in the scan is known to the second (events of the data set)"
            + (", for lucy to about one TR only" if "lucy" in self._stories else ""),
            "preprocessing": f"fMRIPrep, {smoothed}six motion parameters, ten aCompCor components, cosines (128 s) and"
            f" a quadratic trend regressed out by the authors ({self._derivative}); z-scored per story here",
            "surface": f"{self._space}"
            + (", every vertex of it that fsaverage6 shares" if self._space != PUBLISHED_SPACE else ""),
            **self._groups(),
            "licence": "CC0; the sound is for non-commercial research only (stimuli/README)",
            "citation": "Nastase et al. (2021), Scientific Data 8, 250, doi:10.1038/s41597-021-01033-3",
        }

    def remote(self) -> Remote:
        """The bucket of the International Neuroimaging Data-sharing Initiative, which has the derivatives.

        OpenNeuro's copy of ds002345 has no derivatives. data/narratives.md says how this address is known.
        """
        wanted = [path for name in self._stories for path in self.story_files(name)[:2]]
        wanted += [path for name in self._subjects for path in self.subject_files(name)]
        paths = dict.fromkeys(p.relative_to(self.root).as_posix() for p in wanted if p.is_relative_to(self.root))
        return Remote("s3://fcp-indi/data/Projects/narratives", self.root, tuple(paths), "CC0; sound for research only")

    def _groups(self) -> dict[str, str]:
        """Listeners of one story who did not come to it alike; they are not kept apart."""
        said = {
            ("merlin", "sherlock"): "half of the listeners had seen the film",
            ("prettymouth",): "two groups of listeners were told different things beforehand",
        }
        asked = {name: what for names, what in said.items() for name in names if name in self._stories}
        return {"listeners": "; ".join(f"{name}: {what}" for name, what in asked.items())} if asked else {}

    def _task(self, story: str) -> Task:
        self._require_story(story)
        return TASKS[story]

    def _require_subject(self, name: str) -> None:
        require_known("subject", name, self._asked)

    def _sound(self, task: Task) -> Path:
        return self.root / "stimuli" / f"{task.sound}_audio.wav"

    def _alignment(self, task: Task) -> Path:
        return self.root / "stimuli" / "gentle" / task.sound / "align.json"

    def _hemispheres(self, subject: str, stem: str) -> list[Path]:
        folder = self.root / "derivatives" / self._derivative / subject / "func"
        return [folder / f"{stem}_space-{PUBLISHED_SPACE}_hemi-{hemi}_desc-clean.func.gii" for hemi in "LR"]

    def _timebase(self, story: str) -> TimeBase:
        """The rows of the story in seconds of the sound file."""
        onset_trs, n_trs = self._rows(story)
        return TimeBase.regular(n_trs, TR_S, onset_trs * TR_S - TASKS[story].sound_start_s)

    def _rows(self, story: str) -> tuple[int, int]:
        """First row of the story in its scan and number of rows: the collection's own table, or the copy of it."""
        path, task = self.root / EVENT_META, TASKS[story]
        if not path.is_file():
            return task.onset_trs, task.duration_trs
        events = read_json(path).get(task.task)
        known = events if isinstance(events, dict) else {}
        event = known.get(story, known.get(task.task))
        onset_trs, n_trs = (event.get(key) for key in ("onset", "duration")) if isinstance(event, dict) else (0, 0)
        if isinstance(onset_trs, int) and isinstance(n_trs, int) and onset_trs >= 0 and n_trs > 1:
            return onset_trs, n_trs
        raise SourceError(
            f"{path}: {task.task!r}, {story!r} has {event!r}; need onset and duration as whole numbers of TRs. Fetch"
            " the file again, or remove it: the published numbers are built in."
        )

    def _run(self, subject: str, story: str, stem: str) -> Float32Array:
        """One run in the rows of the story, (n_trs, n_voxels)."""
        task, files = TASKS[story], self._hemispheres(subject, stem)
        onset_trs, n_trs = self._rows(story)
        self._check_events(subject, stem, task)
        series = read_series(files)
        if series.sides != (VERTICES[PUBLISHED_SPACE],) * 2:
            raise SourceError(
                f"{files[0]} and {files[1].name} have {series.sides} vertices; {PUBLISHED_SPACE} has"
                f" {VERTICES[PUBLISHED_SPACE]} per hemisphere. Take the files as published."
            )
        if len(series.values) < onset_trs + n_trs:
            raise SourceError(
                f"{files[0]} has {len(series.values)} volumes, but {story!r} is told in volumes {onset_trs} to"
                f" {onset_trs + n_trs - 1}. Was it cut off? Fetch it again, or leave the subject out."
            )
        n_kept = VERTICES[self._space]
        kept = np.concatenate([side * VERTICES[PUBLISHED_SPACE] + np.arange(n_kept) for side in (0, 1)])
        cleaned = clean_series(series.values[onset_trs : onset_trs + n_trs, kept], TR_S, high_pass_s=None)
        log.info("%s: %d of %d vertices hold data.", stem, np.isfinite(cleaned[0]).sum(), len(kept))
        return cleaned

    def _check_events(self, subject: str, stem: str, task: Task) -> None:
        """Where the run's events file is there, the sound must begin when the clock says."""
        path = self.root / subject / "func" / f"{stem}_events.tsv"
        if not path.is_file():
            return
        sound = f"{task.sound}_audio.wav"
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t") if row.get("stim_file") == sound]
        try:
            start_s = min(float(row["onset"]) for row in rows)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{path}: no row with a number as onset names {sound}. Fetch it again.") from error
        if abs(start_s - task.sound_start_s) > TR_S / 2:
            raise SourceError(
                f"{path}: {sound} begins at {start_s} s of the scan, in all published runs at {task.sound_start_s} s."
                f" Is it the file of {stem}? If it is right, leave the subject out."
            )


def _within(intervals: Intervals, timebase: TimeBase) -> Intervals:
    """Those that overlap the rows: the sound of slumlord is that of reach too, and some words lie in the music."""
    kept = np.flatnonzero((intervals.end_s > timebase.tr_starts_s[0]) & (intervals.start_s < timebase.end_s))
    labels = tuple(intervals.labels[k] for k in kept)
    return Intervals(labels, intervals.start_s[kept], intervals.duration_s[kept])


def _chosen_stories(stories: list[str] | None) -> tuple[str, ...]:
    for name in stories or ():
        if name in NOT_OFFERED:
            raise SourceError(f"narratives: {name!r} is not offered: {NOT_OFFERED[name]}.")
        require_known("story", name, TASKS)
    return SAME_FORTY_SEVEN if stories is None else tuple(dict.fromkeys(stories))


def _heard_by_anyone(stories: Sequence[str]) -> list[str]:
    return sorted({subject for name in stories for subject in listeners(name)})
