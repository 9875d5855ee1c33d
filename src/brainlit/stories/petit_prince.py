"""Le Petit Prince, English listeners: OpenNeuro ds003643, Li et al. (2022), doi:10.1038/s41597-022-01625-7.

Forty-nine people hear *The Little Prince* once, in nine runs of about ten minutes.

Verified in the data set's README (2.0.6): volumes per run before and after preprocessing, duration of each section, raw
runs start 8 s before the sound, and the preprocessed ones with it. In a public table of the raw files' headers: the
same volumes in every subject. In public code that reads the files: their names, the columns of the word table, and the
trap that run numbers differ from subject to subject (sub-EN057 has runs 15 to 23). Which section a run holds is
therefore read off its number of volumes, which is different for each of the nine. Assumed: word times count from the
start of each section's sound file. data/petit_prince.md says more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainlit.stories.base import Remote, Responses, SourceError, Story, Subject, SubjectLeftOut
from brainlit.stories.published import PUBLISHED_CHANNEL, PublishedSource, chosen
from brainlit.stories.readers.audio import read_sound
from brainlit.stories.readers.images import count_volumes
from brainlit.stories.readers.tables import require_file
from brainlit.stories.readers.transcripts import read_word_table
from brainlit.stories.readers.volumes import VolumeReader, check_pattern
from brainlit.stories.regions.config import RegionConfig
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import TimeBase

TR_S = 2.0
RAW_VOLUMES = (286, 302, 344, 307, 269, 347, 329, 296, 372)
"""Volumes of the raw runs of sections 1 to 9, in every subject."""
DROPPED_VOLUMES = 4
"""Volumes that the published preprocessing dropped from the start of each run: the 8 s before the sound."""
LEAD_IN_S = 8.0
"""Seconds from the start of a raw run to the start of its sound."""
SOUND_S = (554.7, 587.8, 671.4, 598.2, 522.2, 678.1, 642.0, 575.8, 727.1)
"""Duration of the sound of each section."""
SUBJECTS = tuple(
    f"sub-EN{n:03d}" for n in range(57, 116) if n not in {60, 66, 71, 80, 85, 90, 102, 107, 111, 112}
)  # fmt: skip
"""The 49 English listeners."""
STORIES = tuple(f"lpp{k}" for k in range(1, 10))
PUBLISHED_RUNS = "derivatives/{subject}/func/{subject}_task-lppEN_run-*_space-MNIColin27_desc-preproc_bold.nii.gz"
WORDS = "annotation/EN/lppEN_word_information.csv"
SOUND = "stimuli/task-lppEN_section-{section}.wav"

_SOUND_TOLERANCE_S = TR_S


class PetitPrinceSource(PublishedSource):
    """Nine sections of The Little Prince ('lpp1' to 'lpp9') and up to 49 listeners ('sub-EN057' and on).

    Parameters
    ----------
    root : str
        Folder that mirrors s3://openneuro.org/ds003643.
    subjects : list of str, optional
        Listeners to take; None takes all.
    stories : list of str, optional
        Sections to take; None takes all.
    runs : str
        Pattern below root of a subject's runs, one NIfTI each, with {subject} in it. The default is the published
        preprocessing, in MNI space and denoised by ME-ICA.
    n_dropped_volumes : int
        Volumes that the preprocessing dropped from the start of each raw run: 4 in the published one, 0 in what
        fMRIPrep makes of the raw runs. Decides how many volumes each section must have, and the clock.
    mask : str, optional
        Brain mask, a NIfTI on the grid of the runs, '{subject}' in its name; None makes one per subject from the runs
        (`brainlit.stories.readers.volumes.VolumeReader`, as for what follows).
    high_pass_s : float or None
        Drift slower than this period, in seconds, is removed; None takes out the mean only.
    confounds : str, optional
        fMRIPrep table below root; '{run}' stands for the number in the name of the run's file.
    confound_names : list of str, optional
        Columns of it to regress out; '*' matches as in file names.
    regions : RegionConfig, optional
        Named regions; an atlas (label NIfTI) is read within the brain mask.

    Raises
    ------
    SourceError
        If a subject or story is unknown, n_dropped_volumes is negative or more than a run has, only one of confounds
        and confound_names is given, or a pattern holds another placeholder.
    """

    name = "petit_prince"

    def __init__(
        self,
        root: str,
        subjects: list[str] | None = None,
        stories: list[str] | None = None,
        runs: str = PUBLISHED_RUNS,
        n_dropped_volumes: int = DROPPED_VOLUMES,
        mask: str | None = None,
        high_pass_s: float | None = 128.0,
        confounds: str | None = None,
        confound_names: list[str] | None = None,
        regions: RegionConfig | None = None,
    ) -> None:
        super().__init__(root, chosen("story", stories, STORIES), chosen("subject", subjects, SUBJECTS))
        if not 0 <= n_dropped_volumes < min(RAW_VOLUMES):
            raise SourceError(f"n_dropped_volumes is {n_dropped_volumes}; 4 were dropped by the published ones, or 0.")
        check_pattern("runs", runs, ("subject",), required=("subject",))
        self._runs_pattern = runs
        self._n_dropped = n_dropped_volumes
        self._reader = VolumeReader(self.root, mask, high_pass_s, confounds, confound_names, regions)
        self._runs_of: dict[str, list[Path]] = {}

    def settings(self) -> dict[str, Any]:
        """What decides how stories and subjects look in the store."""
        return {
            "source": type(self).__name__,
            "stories": list(self._stories),
            "runs": self._runs_pattern,
            "n_dropped_volumes": self._n_dropped,
            **self._reader.settings(),
        }

    def story(self, name: str) -> Story:
        """Sound, words and clock of one section.

        Raises
        ------
        SourceError
            If the sound is not as long as published, or words go on after its end.
        """
        section = self._section(name)
        path = require_file(self.root / SOUND.format(section=section), "Download the section, or check the root.")
        timebase, sound = self._timebase(section), read_sound(path, PUBLISHED_CHANNEL)
        sound_s = len(sound.samples) / timebase.sample_rate_hz
        if abs(sound_s - SOUND_S[section - 1]) > _SOUND_TOLERANCE_S:
            raise SourceError(
                f"{path} lasts {sound_s:.1f} s, but section {section} lasts {SOUND_S[section - 1]} s. Is it that of"
                " another section, or cut off? Fetch it again."
            )
        words = read_word_table(self.root / WORDS, "word", "onset", "offset", part=("section", section))
        if words.end_s.max() > sound_s + _SOUND_TOLERANCE_S:
            raise SourceError(
                f"{self.root / WORDS}: the last word of section {section} ends at {words.end_s.max():.1f} s, after its"
                f" {sound_s:.1f} s of sound. Times must be in seconds from the start of each section."
            )
        return Story(name, sound.samples, words, None, timebase, sound.notes)

    def subject(self, name: str) -> Subject:
        """Voxels of the brain mask with their places, and regions.

        Raises
        ------
        SubjectLeftOut
            If a run has a number of volumes that no section has, or two runs have the same.
        """
        return self._reader.subject(name, self._asked_runs(name))

    def responses(self, subject: str, story: str) -> Responses | None:
        """One run within the subject's mask, without drift (and confounds), z-scored over time."""
        n_trs = self._timebase(self._section(story)).n_trs
        runs = self._asked_runs(subject)
        return self._reader.responses(subject, runs[self._stories.index(story)], runs, n_trs, TR_S)

    def default_roles(self) -> dict[str, list[str]]:
        """Sections 1-4 tune (pictures were shown in the first one), 5-7 fit, 8 chooses, 9 scores, if asked for."""
        roles = {"tune": STORIES[:4], "fit": STORIES[4:7], "choose": STORIES[7:8], "score": STORIES[8:]}
        asked = {role: [name for name in names if name in self._stories] for role, names in roles.items()}
        return {role: names for role, names in asked.items() if names}

    def story_files(self, name: str) -> Sequence[Path]:
        """The sound of a section, and the table with the words of all."""
        return [self.root / SOUND.format(section=self._section(name)), self.root / WORDS]

    def subject_files(self, name: str) -> Sequence[Path]:
        """The runs of the asked sections that are there, and the mask, confounds and regions where these are named."""
        runs = self._found_runs(name)
        if self._stories != STORIES:
            wanted = {self._timebase(self._section(story)).n_trs for story in self._stories}
            runs = [run for run in runs if count_volumes([run]) in wanted]
        return self._reader.files(name, runs)

    def response_filter(self) -> ResponseFilter | None:
        """Drift that is removed here; None without, for what the preprocessing before it removed is not known."""
        return self._reader.response_filter()

    def facts(self) -> dict[str, str]:
        """What reports say of the data."""
        published = self._runs_pattern == PUBLISHED_RUNS
        return {
            "clock": f"TR {TR_S:g} s; row 0 starts at {self._onset_s:g} s of each section's sound, and rows go on for"
            " about 8 s after it (README of ds003643)",
            "noise ceiling": "none: every section was heard once, so scores are not relative to a ceiling",
            "preprocessing": "published: AFNI, ME-ICA, MNI (Colin 27) at 2 mm" if published else self._runs_pattern,
            **self._reader.facts(),
            "pictures": "three drawings were shown in lpp1, at 10, 35 and 60 s, for 15, 20 and 15 s",
            "phones": "none published, so no phone features",
            "licence": "CC0",
            "citation": "Li et al. (2022), Le Petit Prince multilingual naturalistic fMRI corpus, Scientific Data 9,"
            " 530, doi:10.1038/s41597-022-01625-7; data doi:10.18112/openneuro.ds003643",
        }

    def remote(self) -> Remote:
        """The asked sections, and of each asked subject all nine runs, for their names do not tell the section.

        Runs of one's own preprocessing are not published, so they are not among the paths.
        """
        sections = [self._section(story) for story in self._stories]
        paths = [WORDS, *(SOUND.format(section=section) for section in sections)]
        if self._runs_pattern == PUBLISHED_RUNS:
            paths += [PUBLISHED_RUNS.format(subject=subject) for subject in self._subjects]
        return Remote("s3://openneuro.org/ds003643", self.root, tuple(paths), "CC0")

    @property
    def _onset_s(self) -> float:
        return self._n_dropped * TR_S - LEAD_IN_S

    def _timebase(self, section: int) -> TimeBase:
        return TimeBase.regular(RAW_VOLUMES[section - 1] - self._n_dropped, TR_S, self._onset_s)

    def _section(self, story: str) -> int:
        self._require_story(story)
        return STORIES.index(story) + 1

    def _found_runs(self, subject: str) -> list[Path]:
        self._require_subject(subject)
        return sorted(self.root.glob(self._runs_pattern.format(subject=subject)))

    def _asked_runs(self, subject: str) -> list[Path]:
        """The runs of the asked sections, in their order; told by the number of volumes."""
        if subject not in self._runs_of:
            runs = self._by_length(subject, self._found_runs(subject))
            missing = [story for story in self._stories if story not in runs]
            if missing:
                n_trs = self._timebase(self._section(missing[0])).n_trs
                raise FileNotFoundError(
                    f"{self.root / self._runs_pattern.format(subject=subject)}: {len(runs)} of 9 runs are there; that"
                    f" of {missing[0]} ({n_trs} volumes) is missing. Download it, or check the root."
                )
            self._runs_of[subject] = [runs[story] for story in self._stories]
        return self._runs_of[subject]

    def _by_length(self, subject: str, files: Sequence[Path]) -> dict[str, Path]:
        story_of = {n_raw - self._n_dropped: story for n_raw, story in zip(RAW_VOLUMES, STORIES, strict=True)}
        runs: dict[str, Path] = {}
        for path in files:
            n_volumes = count_volumes([path])
            story = story_of.get(n_volumes)
            if story is None:
                known = ", ".join(map(str, story_of))
                raise SubjectLeftOut(
                    f"{subject}: {path} has {n_volumes} volumes; the nine sections have {known}. Is n_dropped_volumes"
                    f" ({self._n_dropped}) right, and the file whole?"
                )
            if story in runs:
                raise SubjectLeftOut(
                    f"{subject}: {runs[story]} and {path} both have the {n_volumes} volumes of {story}."
                )
            runs[story] = path
        return runs
