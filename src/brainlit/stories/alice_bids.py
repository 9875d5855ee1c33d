"""Alice in Wonderland, whole brains: OpenNeuro ds002322, Bhattasali et al. (2020), LREC; Brennan et al. (2016).

People hear the first chapter once, in one run of twelve minutes. The same recordings as the plain files of six regions
(data/alice.md), here as the volumes that the authors preprocessed.

Verified in a public mirror of the data set: the names of runs, events and sound, the onsets in the events, TR 2 s. In
public code that reads the files: 372 volumes, and the place and the columns of the table of words. Assumed: row 0
starts with the sound file. The plain files have 362 rows, their first ten volumes were discarded, and their row 0 is
known to start 20 s into the sound, which fits 372 rows from 0 s on; raw runs have 374. data/alice_bids.md says more.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainlit.hints import did_you_mean
from brainlit.stories.base import Intervals, Remote, Responses, SourceError, Story, Subject, SubjectLeftOut
from brainlit.stories.published import PUBLISHED_CHANNEL, PublishedSource, chosen
from brainlit.stories.readers.audio import read_sound
from brainlit.stories.readers.images import count_volumes
from brainlit.stories.readers.tables import require_file
from brainlit.stories.readers.transcripts import WORD_TIERS, read_intervals, read_word_table
from brainlit.stories.readers.volumes import VolumeReader, check_pattern
from brainlit.stories.regions.config import RegionConfig
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import TimeBase

log = logging.getLogger(__name__)

STORY = "alice"
TR_S = 2.0
N_VOLUMES = 372
"""Volumes of a preprocessed run; the plain files are these without the first ten."""
SUBJECTS = tuple(
    f"sub-{n}" for n in (18, 22, 23, 24, 26, 28, 30, 31, 35, 36, 37, 39, 41, 42, 43, 44, 45, 47, 48, 49, 50, 51, 53)
)
"""The 23 listeners with a preprocessed run."""
NOT_PREPROCESSED = ("sub-38", "sub-46", "sub-52")
RUN = "derivatives/{subject}/{subject}_task-alice_bold_preprocessed.nii.gz"
EVENTS = "{subject}/{subject}_task-alice_events.tsv"
SOUND = "stimuli/DownTheRabbitHoleFinal_mono_exp120_NR16_pad.wav"
WORDS = "code/annotations.tsv"

_SOUND_TOLERANCE_S = TR_S


class AliceSource(PublishedSource):
    """One story, 'alice', and up to 23 listeners ('sub-18' and on).

    Parameters
    ----------
    root : str
        Folder that mirrors s3://openneuro.org/ds002322.
    subjects : list of str, optional
        None takes all that have a preprocessed run.
    run : str
        A subject's run below root, one NIfTI, with {subject} in it.
    words : str
        Word times below root: a table with the columns 'Words', 'Word Onset' and 'Word Offset', or a TextGrid.
    onset_s : float
        Second of the sound at which row 0 of the responses starts.
    n_trs : int
        Rows that are used of each run; volumes after them are left out.
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
        If a subject is unknown or was never preprocessed, n_trs is too small, only one of confounds and
        confound_names is given, or a pattern holds another placeholder.
    """

    name = "alice_bids"

    def __init__(
        self,
        root: str,
        subjects: list[str] | None = None,
        run: str = RUN,
        words: str = WORDS,
        onset_s: float = 0.0,
        n_trs: int = N_VOLUMES,
        mask: str | None = None,
        high_pass_s: float | None = 128.0,
        confounds: str | None = None,
        confound_names: list[str] | None = None,
        regions: RegionConfig | None = None,
    ) -> None:
        known = SUBJECTS if run == RUN else tuple(sorted((*SUBJECTS, *NOT_PREPROCESSED)))
        for name in subjects or ():
            if name in NOT_PREPROCESSED and name not in known:
                raise SourceError(f"{name!r} was not preprocessed by the authors. {did_you_mean(name, known)}")
        if n_trs < 2:
            raise SourceError(f"n_trs is {n_trs}; the published runs have {N_VOLUMES}.")
        super().__init__(root, [STORY], chosen("subject", subjects, known))
        check_pattern("run", run, ("subject",), required=("subject",))
        self._run_pattern = run
        self._words = words
        self._timebase = TimeBase.regular(n_trs, TR_S, onset_s)
        self._onset_s = onset_s
        self._reader = VolumeReader(self.root, mask, high_pass_s, confounds, confound_names, regions)

    def settings(self) -> dict[str, Any]:
        """What decides how the story and the subjects look in the store."""
        return {
            "source": type(self).__name__,
            "run": self._run_pattern,
            "words": self._words,
            "onset_s": self._onset_s,
            "n_trs": self._timebase.n_trs,
            **self._reader.settings(),
        }

    def story(self, name: str) -> Story:
        """Sound, words and clock.

        Raises
        ------
        SourceError
            If the sound ends before the scanner does, or words go on after its end.
        """
        self._require_story(name)
        path = require_file(self.root / SOUND, "It is the sound of the story: download it, or check the root.")
        sound = read_sound(path, PUBLISHED_CHANNEL)
        sound_s = len(sound.samples) / self._timebase.sample_rate_hz
        if sound_s < self._timebase.end_s - _SOUND_TOLERANCE_S:
            raise SourceError(
                f"{path} lasts {sound_s:.1f} s, but the rows end at {self._timebase.end_s:.1f} s. Is it cut off? If it"
                f" is whole, check onset_s ({self._onset_s}) and n_trs ({self._timebase.n_trs})."
            )
        words = self._read_words()
        if words.end_s.max() > sound_s + _SOUND_TOLERANCE_S:
            raise SourceError(
                f"{self.root / self._words}: the last word ends at {words.end_s.max():.1f} s, after the {sound_s:.1f} s"
                " of sound. Times must be in seconds of the sound file."
            )
        return Story(name, sound.samples, words, None, self._timebase, sound.notes)

    def subject(self, name: str) -> Subject:
        """Voxels of the brain mask with their places, and regions.

        Raises
        ------
        SubjectLeftOut
            If the run is too short, or the sound started more than half a TR off the story's clock.
        """
        run = self._run(name)
        n_volumes = count_volumes([run])
        if n_volumes < self._timebase.n_trs:
            raise SubjectLeftOut(f"{name}: {run} has {n_volumes} volumes; the story needs {self._timebase.n_trs}.")
        self._require_clock(name)
        return self._reader.subject(name, [run])

    def responses(self, subject: str, story: str) -> Responses | None:
        """The run within the subject's mask, without drift (and confounds), z-scored over time."""
        self._require_story(story)
        run = self._run(subject)
        return self._reader.responses(subject, run, [run], self._timebase.n_trs, TR_S)

    def default_roles(self) -> dict[str, list[str]]:
        """Stretches with gaps that nobody uses: the same seconds of the story as for the plain files.

        Empty on another clock: then the config has to say them.
        """
        if self._onset_s != 0 or self._timebase.n_trs < N_VOLUMES:
            return {}
        return {"tune": ["alice[10:134]"], "choose": ["alice[148:172]"], "fit": ["alice[186:284]"],
                "score": ["alice[298:372]"]}  # fmt: skip

    def story_files(self, name: str) -> Sequence[Path]:
        """The sound and the words."""
        self._require_story(name)
        return [self.root / SOUND, self.root / self._words]

    def subject_files(self, name: str) -> Sequence[Path]:
        """The run, and events, mask, confounds and regions where these are there or named."""
        events = self.root / EVENTS.format(subject=name)
        runs = [self.root / self._run_pattern.format(subject=name)]
        return self._reader.files(name, runs) + [events] * events.is_file()

    def left_out(self) -> dict[str, str]:
        """Listeners of whom the authors published no preprocessed run."""
        if self._run_pattern != RUN:
            return {}
        return dict.fromkeys(NOT_PREPROCESSED, "published raw only, without a preprocessed run")

    def response_filter(self) -> ResponseFilter | None:
        """Drift that is removed here; None without, for what the preprocessing before it removed is not known."""
        return self._reader.response_filter()

    def facts(self) -> dict[str, str]:
        """What reports say of the data."""
        return {
            "clock": f"TR {TR_S} s; row 0 starts at {self._onset_s:g} s of the sound for everyone; the sound started"
            " 0.005 to 0.66 s into the scan, which is not corrected (less than half a TR)",
            "noise ceiling": "none: the story was heard once, so scores are not relative to a ceiling",
            "preprocessing": "published by the authors, normalised to MNI space"
            if self._run_pattern == RUN
            else self._run_pattern,
            **self._reader.facts(),
            "roles": "one story, so roles are stretches of it; rows 0-9 were discarded by the authors and are not used",
            "phones": "none published, so no phone features",
            "licence": "CC0",
            "citation": "Bhattasali, Brennan, Luh, Franzluebbers & Hale (2020), The Alice Datasets, LREC, 120-125;"
            " Brennan et al. (2016), Brain and Language 157-158, 81-94; data doi:10.18112/openneuro.ds002322",
        }

    def remote(self) -> Remote:
        """The sound, the words, and the run and events of the asked subjects."""
        wanted = [EVENTS] if self._run_pattern != RUN else [RUN, EVENTS]
        paths = [pattern.format(subject=subject) for subject in self._subjects for pattern in wanted]
        words = [WORDS] if self._words == WORDS else []
        return Remote("s3://openneuro.org/ds002322", self.root, (SOUND, *words, *paths), "CC0")

    def _run(self, subject: str) -> Path:
        self._require_subject(subject)
        path = self.root / self._run_pattern.format(subject=subject)
        return require_file(path, f"It is the run of {subject}: download it, or check the root.")

    def _read_words(self) -> Intervals:
        path = self.root / self._words
        if path.suffix.lower() == ".textgrid":
            require_file(path, "It holds the words of the story: check 'words' and the root.")
            return read_intervals(path, None, WORD_TIERS)
        return read_word_table(path, "Words", "Word Onset", "Word Offset", delimiter="\t")

    def _require_clock(self, subject: str) -> None:
        """The events, if there are any, say when in the scan the sound started: at most half a TR off the clock."""
        path = self.root / EVENTS.format(subject=subject)
        if not path.is_file():
            log.warning("%s does not exist: when the sound of %s started is taken for granted.", path, subject)
            return
        started_s = _first_onset_s(path)
        if abs(started_s + self._onset_s) > TR_S / 2:
            raise SubjectLeftOut(
                f"{subject}: {path} says that the sound started {started_s:g} s into the scan; on the story's clock it"
                f" started at {-self._onset_s:g} s. More than half a TR apart: set onset_s for this subject alone."
            )


def _first_onset_s(path: Path) -> float:
    """Onset of the first event in seconds of the scan; BIDS events: a header, then a row per event."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return float(next(csv.DictReader(file, delimiter="\t"))["onset"])
    except (StopIteration, KeyError, TypeError, ValueError, csv.Error) as error:
        raise SourceError(
            f"{path}, line 2: there is no column 'onset' with a number of seconds. Fetch it again."
        ) from error
