"""The Narratives collection (OpenNeuro ds002345): Nastase et al. (2021), doi:10.1038/s41597-021-01033-3.

345 people hear one to seven of 27 stories each. What is read: sound, forced alignments by gentle
(https://github.com/strob/gentle), and the responses that the authors cleaned of confounds and drift, on the cortical
surface fsaverage6. data/narratives.md says what is known about them, from which source, and what is assumed.

The clock: row k of a scan is acquired from 1.5 k seconds on. The sound does not begin with the scan in all tasks; when
it does is in the events of the data set (`Task.sound_start_s`). Where an events file lies beside the responses, it is
compared.

The tables below are copied as facts from the public metadata, so that nothing has to be downloaded to know them:
`participants.tsv` of ds002345 (who heard what), `staging/compile_events.py` (when the sound began),
`code/event_meta.json` (rows) and `code/scan_exclude.json` (exclusions) of https://github.com/snastase/narratives.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from brainlit.stories.published import PUBLISHED_CHANNEL, PublishedSource, chosen, paths_below, require_known
from brainlit.stories.readers.audio import read_sound
from brainlit.stories.readers.cleaning import clean_series
from brainlit.stories.readers.images import read_series
from brainlit.stories.readers.tables import require_file
from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import TimeBase

log = logging.getLogger(__name__)

TR_S = 1.5
"""Of all scans: "all studies used a repetition time of 1.5 seconds" (Nastase et al. 2021)."""

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
        Names as in `TASKS`. None takes the four that the same 47 people heard.
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
        everyone = sorted({subject for name in wanted for subject in listeners(name)})
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
        """Sound, words, phones and clock of one story; the rows are those in which it is told."""
        task = self._task(name)
        sound, timebase = read_sound(self._sound(task), PUBLISHED_CHANNEL), self._timebase(name)
        sound_s = len(sound.samples) / timebase.sample_rate_hz
        if timebase.end_s > sound_s + TR_S:
            raise SourceError(
                f"{self._sound(task)} lasts {sound_s:.2f} s, but {name!r} is told until {timebase.end_s:.2f} s of it."
                " Was it cut off while copying? Fetch it again."
            )
        words, phones = read_gentle(self._alignment(task))
        words, phones = _within(words, timebase), _within(phones, timebase)
        return Story(name, sound.samples, words, phones, timebase, sound.notes)

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
        regions = read_subject_regions(self._regions, name, n_voxels, self.root)
        on_fsaverage5 = self._space == "fsaverage5"
        return Subject(name, n_voxels, regions, np.arange(n_voxels, dtype=np.int64) if on_fsaverage5 else None)

    def responses(self, subject: str, story: str) -> Responses | None:
        """Rows in which the story is told, z-scored over them; None if it was not heard or its runs are excluded.

        Raises
        ------
        SourceError
            If a file is on another surface, shorter than the story, or its events disagree with the clock.
        """
        self._require_subject(subject)
        repeats = [self._run(subject, story, stem) for stem in runs(subject, story)]
        if len(repeats) < 2:
            return Responses(repeats[0]) if repeats else None
        every = np.stack(repeats)
        return Responses(every.mean(axis=0), every)

    def story_files(self, name: str) -> Sequence[Path]:
        """Sound, alignment, and the collection's table of events where it is there."""
        task, table = self._task(name), self.root / EVENT_META
        return [self._sound(task), self._alignment(task), *([table] if table.is_file() else [])]

    def subject_files(self, name: str) -> Sequence[Path]:
        """Both hemispheres of every run that is used, and the files of the regions."""
        stems = dict.fromkeys(stem for story in self._stories for stem in runs(name, story))
        regions = region_files(self._regions, name, self.root)
        return [*(path for stem in stems for path in self._hemispheres(name, stem)), *regions]

    def left_out(self) -> dict[str, str]:
        """Tasks that are not offered, and the excluded runs of the stories and subjects that were asked for."""
        heard = {stem for name in self._stories for subject in self._asked for stem in _all_runs(subject, name)}
        reason = "excluded by the authors (code/scan_exclude.json of the collection)"
        tasks = dict.fromkeys(TASKS[name].task for name in self._stories)
        return {**NOT_OFFERED, **{stem: reason for task in tasks for stem in excluded_runs(task) if stem in heard}}

    def response_filter(self) -> ResponseFilter:
        """What the authors took out besides motion and aCompCor, which are each subject's own."""
        return ResponseFilter(
            2,
            128.0,
            source="AFNI's 3dTproject by the authors, over whole scans with the music before the story; motion and"
            " aCompCor components are each subject's own and stay in features",
        )

    def facts(self) -> dict[str, str]:
        """What every report says of these data."""
        smoothed = "smoothed to 6 mm, " if self._derivative == "afni-smooth" else ""
        return {
            "clock": "TR 1.5 s; row 0 is the first in which the story is told, the music before it is left out; when"
            " the sound file begins in the scan is known to the second (events of the data set)"
            + (", for lucy to about one TR only" if "lucy" in self._stories else ""),
            "preprocessing": f"fMRIPrep, {smoothed}six motion parameters, ten aCompCor components, cosines (128 s) and"
            f" a quadratic trend regressed out by the authors ({self._derivative}); z-scored per story here",
            "surface": self._space + (", every vertex of it that fsaverage6 shares" * (self._space != PUBLISHED_SPACE)),
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
        paths = paths_below(self.root, wanted)
        return Remote("s3://fcp-indi/data/Projects/narratives", self.root, paths, "CC0; sound for research only")

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
        n_kept = VERTICES[self._space]  # the left hemisphere's vertices stand first, fsaverage5's own first in each
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
    return Intervals(tuple(intervals.labels[k] for k in kept), intervals.start_s[kept], intervals.duration_s[kept])


def _chosen_stories(stories: list[str] | None) -> tuple[str, ...]:
    for name in stories or ():
        if name in NOT_OFFERED:
            raise SourceError(f"narratives: {name!r} is not offered: {NOT_OFFERED[name]}.")
        require_known("story", name, TASKS)
    return SAME_FORTY_SEVEN if stories is None else tuple(dict.fromkeys(stories))


# --- Who heard what, when it began, and which runs the authors exclude ---


@dataclass(frozen=True)
class Task:
    """A story as the collection has it.

    Parameters
    ----------
    task : str
        The scan in which it was heard ('task-...' in file names); slumlord and reach share one.
    sound : str
        Name of its sound file and of its folder of gentle alignments.
    sound_start_s : float
        Seconds of scan at which the sound file begins: the first event of the scan that names the file.
    onset_trs, duration_trs : int
        Rows of the scan in which the story is told, without the music before it (`code/event_meta.json`).
    heard_by : str
        Numbers of the subjects.
    role : str
        Its role by default. Versions of one text have the same one.
    """

    task: str
    sound: str
    sound_start_s: float
    onset_trs: int
    duration_trs: int
    heard_by: str
    role: str


_PNI = "127 265 267 272-315"
_SHAPES = "49 58 95 115 127 181 186 190 191 200 201 206-253"
_SHERLOCK = "75 146-180"
_SLUMLORD = "16 84 106 111 132-145"
_INTACT = "16 34 65 66 84 89 95 96 106 111 132-137 139-145 195 199 268 316-345"
_MOUTH = "23 30 32 34 38 50 52 65 66 79 81 83-111"

TASKS = {
    "21styear": Task("21styear", "21styear", 0.0, 14, 2225, "75 131 190 201 235 244 249 254-271", "tune"),
    "black": Task("black", "black", 12.0, 8, 533, _PNI, "fit"),
    "bronx": Task("bronx", "bronx", 12.0, 8, 357, _PNI, "score"),
    "forgot": Task("forgot", "forgot", 12.0, 8, 558, _PNI, "tune"),
    "lucy": Task("lucy", "lucy", 2.0, 1, 361, "22 26 41 52 53 55 56 58-61 65 66 69 73 74", "score"),
    "merlin": Task("merlin", "merlin", 4.5, 22, 591, _SHERLOCK, "tune"),
    "milkywayoriginal": Task("milkyway", "milkywayoriginal", 0.0, 14, 269,
                             "34 81 83 91 93 95 96 99-101 104-106 108 111-114", "fit"),
    "milkywaysynonyms": Task("milkyway", "milkywaysynonyms", 0.0, 14, 269, "115-131", "fit"),
    "milkywayvodka": Task("milkyway", "milkywayvodka", 0.0, 14, 269,
                          "23 30 32 38 52 79 86-90 97 98 102 103 107 109 110", "fit"),
    "notthefallintact": Task("notthefallintact", "notthefallintact", 4.5, 20, 365, _INTACT, "score"),
    "pieman": Task("pieman", "pieman", 0.0, 10, 281, "1-82", "choose"),
    "piemanpni": Task("piemanpni", "piemanpni", 12.0, 8, 267, _PNI, "choose"),
    "prettymouth": Task("prettymouth", "prettymouth", 0.0, 14, 451, _MOUTH, "tune"),
    "reach": Task("slumlordreach", "slumlordreach", 4.5, 646, 550, _SLUMLORD, "fit"),
    "shapesphysical": Task("shapesphysical", "shapesphysical", 4.5, 33, 270, _SHAPES, "fit"),
    "shapessocial": Task("shapessocial", "shapessocial", 4.5, 33, 272, _SHAPES, "tune"),
    "sherlock": Task("sherlock", "sherlock", 4.5, 22, 701, _SHERLOCK, "fit"),
    "slumlord": Task("slumlordreach", "slumlordreach", 4.5, 20, 602, _SLUMLORD, "tune"),
    "tunnel": Task("tunnel", "tunnel", 3.0, 2, 1023,
                   "1 4 5 13 22 25 26 41 52 53 55-66 69", "tune"),
}  # fmt: skip

SAME_FORTY_SEVEN = ("black", "bronx", "forgot", "piemanpni")
"""The largest set of stories that the same people heard: 43 minutes, 47 people."""

NOT_OFFERED = {
    "schema": "its runs mix films with stories, in an order that differs from subject to subject; the collection's own"
    " code/event_meta.json leaves it out too",
    "notthefalllongscram": "scrambled version; its words are not aligned (no folder below stimuli/gentle)",
    "notthefallshortscram": "scrambled version; its words are not aligned (no folder below stimuli/gentle)",
}

TWO_RUNS = {"pieman": "1-6 8 10-16"}
"""Subjects who heard a story in two runs, 'run-1' and 'run-2'."""

EXCLUDED = {
    "lucy": ("sub-053", "sub-065"),
    "merlin": ("sub-158",),
    "milkyway": ("sub-038", "sub-105", "sub-123"),
    "notthefallintact": ("sub-317", "sub-335"),
    "pieman": ("sub-001 run-1", "sub-001 run-2", "sub-013 run-2", "sub-014 run-2", "sub-021", "sub-022", "sub-038",
               "sub-056", "sub-068", "sub-069"),
    "prettymouth": ("sub-038", "sub-105"),
    "shapessocial": ("sub-238",),
    "slumlordreach": ("sub-139",),
    "tunnel": ("sub-004", "sub-013"),
}  # fmt: skip
"""Runs that the authors exclude: wrong number of volumes, did not comply, or no response to the sound."""


def _numbers(text: str) -> list[int]:
    """Numbers and ranges of numbers, ends included.

    >>> _numbers("1 4-6")
    [1, 4, 5, 6]
    """
    ends = [part.split("-") for part in text.split()]
    return [k for one in ends for k in range(int(one[0]), int(one[-1]) + 1)]


def listeners(story: str) -> list[str]:
    """Everyone who heard a story, as 'sub-001'."""
    return [f"sub-{k:03d}" for k in _numbers(TASKS[story].heard_by)]


def runs(subject: str, story: str) -> list[str]:
    """File name stems of a subject's runs of a story, 'sub-002_task-pieman_run-1', excluded ones left out."""
    return [stem for stem in _all_runs(subject, story) if stem not in excluded_runs(TASKS[story].task)]


def _all_runs(subject: str, story: str) -> list[str]:
    """As `runs`, with the excluded ones."""
    if subject not in listeners(story):
        return []
    task = TASKS[story].task
    two = subject in [f"sub-{k:03d}" for k in _numbers(TWO_RUNS.get(task, ""))]
    return [f"{subject}_task-{task}{run}" for run in (("_run-1", "_run-2") if two else ("",))]


def excluded_runs(task: str) -> list[str]:
    """File name stems of the runs of a task that the authors exclude."""
    said = [one.split() for one in EXCLUDED.get(task, ())]
    return ["_".join([one[0], f"task-{task}", *one[1:]]) for one in said]


# --- Words and phones ---


def read_gentle(path: Path) -> tuple[Intervals, Intervals]:
    """Words and phones of an `align.json`; times in seconds of the sound.

    Words that were not found in the sound have no times and are dropped. Phones come as ARPAbet without stress
    ('ah_I' is 'AH'); a word that is not in gentle's dictionary has the phone 'oov', which is dropped.
    """
    said = read_json(path)
    try:
        found = sorted((one for one in said["words"] if one["case"] == "success"), key=lambda one: float(one["start"]))
        words = _intervals([(str(one["word"]), float(one["start"]), float(one["end"])) for one in found])
        phones = _intervals(sorted((phone for one in found for phone in _phones(one)), key=lambda phone: phone[1]))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path} is no alignment by gentle: {type(error).__name__}: {error}. Each of 'words' needs a 'case', and"
            " if that is 'success', word, start, end and phones."
        ) from error
    if not len(words):
        raise SourceError(f"{path}: no word has a time. Fetch it again.")
    return words, phones


def _phones(word: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Label, start and end of each phone: they follow each other from the start of the word."""
    ends_s = float(word["start"]) + np.cumsum([0.0, *(float(one["duration"]) for one in word["phones"])])
    labels = [str(one["phone"]).split("_")[0].upper() for one in word["phones"]]
    spans = zip(labels, ends_s[:-1].tolist(), ends_s[1:].tolist(), strict=True)
    return [span for span in spans if span[0] not in ("OOV", "SIL")]


def _intervals(spans: Sequence[tuple[str, float, float]]) -> Intervals:
    start_s, end_s = (np.array([span[k] for span in spans], dtype=np.float64) for k in (1, 2))
    if not (np.isfinite(start_s).all() and np.isfinite(end_s).all()):
        raise ValueError("a time is not finite")
    return Intervals(tuple(span[0] for span in spans), start_s, end_s - start_s)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a missing or damaged file is an error that names it."""
    require_file(path, "Check root, and that the story was downloaded.")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{path} is no JSON: {error}. Was it cut off while copying? Fetch it again.") from error
    if not isinstance(said, dict):
        raise SourceError(f"{path} holds a {type(said).__name__}; need an object. Fetch it again.")
    return said
