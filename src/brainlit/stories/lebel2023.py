"""LeBel et al. 2023: eight people who each listened to hours of spoken stories (OpenNeuro ds003020).

A natural language fMRI dataset for voxelwise encoding models, Scientific Data 10, 555,
doi:10.1038/s41597-023-02437-z. data/lebel2023.md is its card; `lebel2023_facts` holds what is known beforehand.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from brainlit.hints import few
from brainlit.stories import lebel2023_facts as known
from brainlit.stories.base import FloatArray, Intervals, Remote, Responses, SourceError, Story, Subject
from brainlit.stories.published import PUBLISHED_CHANNEL, PublishedSource, require_known
from brainlit.stories.readers.audio import read_sound
from brainlit.stories.readers.hdf5_rows import read_rows, read_shape, repeated_rows
from brainlit.stories.readers.images import read_mask
from brainlit.stories.readers.scanner_log import read_scanner_log
from brainlit.stories.readers.tables import require_file
from brainlit.stories.readers.transcripts import PHONE_TIERS, WORD_TIERS, read_intervals
from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import SAMPLE_RATE_HZ, TimeBase, fill_missed_triggers

log = logging.getLogger(__name__)

Clock = Literal["logged", "nominal"]

_DOWNLOAD = "Fetch it with 'brainlit data download lebel2023', or correct the data set's root."


class LebelSource(PublishedSource):
    """The data set of LeBel et al. 2023, as published on OpenNeuro.

    Row r of the responses is volume r + 10 of the scanner. It starts at trigger[r + 10] - sound_start of the
    scanner's log where there is a log, and at (10 + r) x tr_s - 10.023 s of sound elsewhere.

    Parameters
    ----------
    root : str
        Folder that mirrors ds003020 (with `derivative/` and `stimuli/`).
    subjects : list of str, optional
        'UTS01' to 'UTS08'; None takes these eight. 'UTS09' is not in the paper and must be asked for.
    stories : '27', '84' or list of str
        The 27 stories that everyone heard (UTS04 without `life`), all 84, or some by name.
    split : 'paper', 'held_out_ceiling' or 'disjoint'
        Roles by default. 'paper': tune and fit are the same stories (all but the next three), choose stagefright and
        life, score wheretheressmoke. 'held_out_ceiling': choose also has the first half of wheretheressmoke, whose
        repeats give a noise ceiling, and only its second half is scored. 'disjoint': every second story tunes, the
        others fit.
    clock : 'logged' or 'nominal'
        Use scanner logs where there are some, or never.
    tr_s : float
        Repetition time of the nominal clock: 2.0045 s by the logs; the BIDS side-cars say 2.0.
    tr_reports : str, optional
        Folder of the logs (<story>.report); None looks in <root>/derivative/tr_reports.
    sound_lead_s : float
        Seconds of the sound files before the zero of the TextGrids; they are cut off. The published files have none.
    regions : RegionConfig, optional
        Where the subjects' regions are, relative to root; None for no regions.

    Raises
    ------
    SourceError
        If a name is unknown, a number out of range, or the stories leave a role of a subject empty.
    """

    name = "lebel2023"

    def __init__(
        self,
        root: str,
        subjects: list[str] | None = None,
        stories: str | int | list[str] = "27",
        split: known.Split = "paper",
        clock: Clock = "logged",
        tr_s: float = known.NOMINAL_TR_S,
        tr_reports: str | None = None,
        sound_lead_s: float = 0.0,
        regions: RegionConfig | None = None,
    ) -> None:
        super().__init__(root, known.chosen_stories(stories), known.chosen_subjects(subjects))
        self.tr_reports = None if tr_reports is None else Path(tr_reports)
        self.regions, self.clock, self.split = regions, clock, split
        self.tr_s, self.sound_lead_s = float(tr_s), float(sound_lead_s)
        require_known("clock", clock, get_args(Clock))
        require_known("split", split, get_args(known.Split))
        _check_clock(self.tr_s, self.sound_lead_s)
        self._roles = known.roles_of(self._stories, split, self._subjects)

    def settings(self) -> dict[str, Any]:
        """Stories, clock, cut and regions; neither folders nor subjects, and not the split, which no file shows."""
        return {
            "source": self.name,
            "stories": list(self._stories),
            "clock": self.clock,
            "tr_s": self.tr_s,
            "sound_lead_s": self.sound_lead_s,
            "regions": None if self.regions is None else dataclasses.asdict(self.regions),
        }

    def default_roles(self) -> dict[str, list[str]]:
        """The roles of the split."""
        return {role: list(spans) for role, spans in self._roles.items()}

    def story(self, name: str) -> Story:
        """Sound, words, phones and clock of one story.

        Raises
        ------
        SourceError
            If words lie outside the sound, the volumes go on after it, or the log does not fit.
        """
        self._require_story(name)
        words, phones = self._words_and_phones(name)
        sound = read_sound(require_file(self._sound_file(name), _DOWNLOAD), PUBLISHED_CHANNEL)
        timebase = self.timebase(name)
        audio = sound.samples[round(self.sound_lead_s * SAMPLE_RATE_HZ) :]
        sound_s = len(audio) / SAMPLE_RATE_HZ
        latest_s = max(timebase.end_s, float(words.end_s.max()))
        if latest_s > sound_s + 1.5 * self.tr_s:
            raise SourceError(
                f"{self._sound_file(name)} lasts {sound_s:.2f} s after sound_lead_s ({self.sound_lead_s} s), but the"
                f" words of {name!r} end at {words.end_s.max():.2f} s and its {timebase.n_trs} rows at"
                f" {timebase.end_s:.2f} s. The file is cut off: fetch it again; or correct sound_lead_s."
            )
        return Story(name, audio, words, phones, timebase, sound.notes)

    def phones(self, story: str) -> Intervals:
        """Phones of one story, from its TextGrid alone."""
        self._require_story(story)
        return self._words_and_phones(story)[1]

    def timebase(self, story: str) -> TimeBase:
        """When each row of a story's responses happened; a log must have the volumes that respdict.json counts."""
        self._require_story(story)
        if self.clock == "logged" and self.tr_reports is not None and not self.tr_reports.is_dir():
            raise FileNotFoundError(f"{self.tr_reports} does not exist. Correct tr_reports, or leave it out.")
        return _story_clock(story, self._log_file(story), self.tr_s)

    def subject(self, name: str) -> Subject:
        """Number of voxels, regions and voxel centres, after comparing the columns of all files.

        Raises
        ------
        SourceError
            If the number of columns differs between stories, or from the voxels of pycortex's mask.
        """
        self._require_subject(name)
        n_voxels = self._n_voxels(name)
        published = known.N_VOXELS.get(name)
        if published is not None and n_voxels != published:
            log.warning("%s: %d voxels in the files; published are %d.", name, n_voxels, published)
        regions = read_subject_regions(self.regions, name, n_voxels, self.root)
        return Subject(name, n_voxels, regions, coordinates_mm=self._coordinates_mm(name, n_voxels))

    def responses(self, subject: str, story: str) -> Responses | None:
        """Responses as published, one row per volume; the repeats of the test story are read one by one."""
        self._require_subject(subject)
        self._require_story(story)
        if story not in self._heard(subject):
            return None
        expected, path = self._shape(subject, story), self._response_file(subject, story)
        if story != known.TEST_STORY:
            return Responses(read_rows(path, "data"))
        repeats, shape = repeated_rows(path, "individual_repeats"), read_shape(path, "individual_repeats")
        if shape[1:] != expected or len(repeats) < 2:
            raise SourceError(
                f"{path}: 'individual_repeats' has shape {shape}; for 'data' of shape {expected} it must be"
                f" (n_repeats, {expected[0]}, {expected[1]}) with two repeats or more. Fetch it again."
            )
        return Responses(read_rows(path, "data"), repeats)

    def story_files(self, name: str) -> list[Path]:
        """Sound, TextGrid and, where it is used, the scanner's log."""
        self._require_story(name)
        report = self._log_file(name)
        return [self._sound_file(name), self._textgrid_file(name), *([] if report is None else [report])]

    def subject_files(self, name: str) -> list[Path]:
        """Responses to the stories that the subject heard, pycortex's mask if it is there, and files of regions."""
        self._require_subject(name)
        mask = self._mask_file(name)
        regions = region_files(self.regions, name, self.root)
        responses = [self._response_file(name, story) for story in self._heard(name)]
        return list(dict.fromkeys([*responses, *([mask] if mask.is_file() else []), *regions]))

    def left_out(self) -> dict[str, str]:
        """Stories that a subject did not hear, by subject."""
        reasons = {}
        for subject in self._subjects:
            heard = known.HEARD[subject]
            missing = [] if heard is None else [story for story in self._stories if story not in heard]
            if missing:
                what = f"{subject}: {len(missing)} of {len(self._stories)} stories"
                reasons[what] = f"no responses to {few(missing)}"
        return reasons

    def response_filter(self) -> ResponseFilter:
        """The authors' detrending, over all volumes of a scan."""
        return ResponseFilter(
            savgol=known.SAVGOL,
            trimmed_trs=(known.FIRST_VOLUME, known.TRIMMED_VOLUMES - known.PADDING_VOLUMES - known.FIRST_VOLUME),
            source="LeBel et al. 2023",
        )

    def facts(self) -> dict[str, str]:
        """Clock, preprocessing, subjects, roles, licence and citation, in words."""
        remarks = [f"{name}: {known.REMARKS[name]}" for name in self._subjects if name in known.REMARKS]
        return {
            "clock": clock_in_words(
                self._stories, [s for s in self._stories if self._log_file(s)], self.clock, self.tr_s
            ),
            "preprocessing": "by the authors: motion-corrected, aligned, detrended, z-scored per story, cut to volumes"
            " 10 to n - 5 (LeBel et al. 2023); nothing is removed here",
            "sound": f"zero of the transcripts is {self.sound_lead_s:g} s after the start of the files",
            "subjects": "; ".join(remarks) or "nothing remarkable is known of the subjects asked for",
            "split": self.split,
            "licence": "CC0",
            "citation": "LeBel et al. (2023), Scientific Data 10, 555, doi:10.1038/s41597-023-02437-z",
        }

    def remote(self) -> Remote:
        """OpenNeuro's public bucket; of UTS09 all stories, since which ones there are is not known beforehand."""
        paths = ["derivative/respdict.json", "derivative/english1000sm.hf5"]
        for story in self._stories:
            paths += [f"stimuli/{story}.wav", f"derivative/TextGrids/{story}.TextGrid"]
        for subject in self._subjects:
            heard = known.HEARD[subject]
            stories = ("*",) if heard is None else (story for story in self._stories if story in heard)
            paths += [f"derivative/preprocessed_data/{subject}/{story}.hf5" for story in stories]
            paths.append(self._mask_file(subject).relative_to(self.root).as_posix())
            if self.regions is not None and self.regions.pycortex is not None:
                folder = f"{self.regions.pycortex.format(subject=subject)}/{subject}"
                transform = self.regions.transform.format(subject=subject)
                paths += [f"{folder}/overlays.svg", f"{folder}/surfaces/*", f"{folder}/transforms/{transform}/*"]
        return Remote("s3://openneuro.org/ds003020", self.root, tuple(dict.fromkeys(paths)), "CC0")

    # Files

    def _sound_file(self, story: str) -> Path:
        return self.root / "stimuli" / f"{story}.wav"

    def _textgrid_file(self, story: str) -> Path:
        return self.root / "derivative" / "TextGrids" / f"{story}.TextGrid"

    def _response_file(self, subject: str, story: str) -> Path:
        return self.root / "derivative" / "preprocessed_data" / subject / f"{story}.hf5"

    def _mask_file(self, subject: str) -> Path:
        transforms = self.root / "derivative" / "pycortex-db" / subject / "transforms"
        return transforms / f"{subject}_auto" / "mask_thick.nii.gz"

    def _log_file(self, story: str) -> Path | None:
        """The log of a story; None where there is none, or none is wanted."""
        folder = self.tr_reports or self.root / "derivative" / "tr_reports"
        path = folder / f"{story}.report"
        return path if self.clock == "logged" and path.is_file() else None

    # Parts

    def _heard(self, subject: str) -> list[str]:
        heard = known.HEARD[subject]
        if heard is not None:
            return [story for story in self._stories if story in heard]
        return [story for story in self._stories if self._response_file(subject, story).is_file()]

    def _words_and_phones(self, story: str) -> tuple[Intervals, Intervals]:
        return read_words_and_phones(require_file(self._textgrid_file(story), _DOWNLOAD))

    def _shape(self, subject: str, story: str) -> tuple[int, int]:
        """Rows and columns of a response file, once they fit the story."""
        path = require_file(self._response_file(subject, story), _DOWNLOAD)
        shape = read_shape(path, "data")
        if len(shape) != 2 or shape[0] != known.n_rows(story) or shape[1] == 0:
            raise SourceError(
                f"{path}: 'data' has shape {shape}, but {story!r} has {known.n_rows(story)} rows (respdict.json counts"
                f" {known.VOLUMES[story]} volumes, {known.TRIMMED_VOLUMES} more) of one column per voxel. Is it the"
                " file of another story, or of another preprocessing? Fetch it again."
            )
        return shape[0], shape[1]

    def _n_voxels(self, subject: str) -> int:
        heard = self._heard(subject)
        if not heard:
            folder = self._response_file(subject, "x").parent
            raise FileNotFoundError(f"{folder} holds none of the {len(self._stories)} stories asked for. {_DOWNLOAD}")
        columns = {story: self._shape(subject, story)[1] for story in heard}
        first = heard[0]
        for story, n_voxels in columns.items():
            if n_voxels != columns[first]:
                raise SourceError(
                    f"{self._response_file(subject, story)} has {n_voxels} columns,"
                    f" {self._response_file(subject, first)} has {columns[first]}; all stories of {subject} have the"
                    " same voxels. One of them is another subject's: fetch both again."
                )
        return columns[first]

    def _coordinates_mm(self, subject: str, n_voxels: int) -> FloatArray | None:
        """Voxel centres; pycortex turns a NIfTI array to z, y, x, and columns follow that array in C order."""
        path = self._mask_file(subject)
        if not path.is_file():
            return None
        mask = read_mask(path)
        if mask.inside.sum() != n_voxels:
            raise SourceError(
                f"{path} has {mask.inside.sum()} voxels, the responses of {subject} have {n_voxels} columns; they must"
                " agree. Mask and responses are of different subjects or versions: fetch both again."
            )
        x_y_z = np.argwhere(mask.inside.T)[:, ::-1]
        return np.asarray(x_y_z @ mask.affine[:3, :3].T + mask.affine[:3, 3], dtype=np.float64)


# --- The clock ---


def _story_clock(story: str, report: Path | None, tr_s: float) -> TimeBase:
    """Start of each row in seconds of sound, from a log or, without one, at (10 + r) x tr_s - 10.023."""
    if report is None:
        return TimeBase.regular(known.n_rows(story), tr_s, known.FIRST_VOLUME * tr_s - known.SOUND_START_S)
    logged = read_scanner_log(report)
    triggers_s, missed = fill_missed_triggers(logged.triggers_s, tr_s)
    n_volumes = known.VOLUMES[story] - known.PADDING_VOLUMES
    if len(triggers_s) != n_volumes:
        raise SourceError(
            f"{report}: {len(triggers_s)} triggers ({missed.size} of them filled in), but the scanner made {n_volumes}"
            f" volumes of {story!r} (respdict.json counts {known.VOLUMES[story]}, of which"
            f" {known.PADDING_VOLUMES} are padding). Is it the log of another story? Fetch it again, or use"
            " clock: nominal."
        )
    if missed.size:
        log.info("%s: the triggers of volumes %s were missed; filled in.", report, missed.tolist())
    return TimeBase(
        triggers_s[known.FIRST_VOLUME : known.FIRST_VOLUME + known.n_rows(story)] - logged.sound_start_s, tr_s
    )


def clock_in_words(stories: Sequence[str], logged: Sequence[str], clock: Clock, tr_s: float) -> str:
    """Which clock was used for how many stories, and how the three repetition times differ."""
    rest, drift_s = len(stories) - len(logged), 300 * abs(tr_s - known.MEASURED_TR_S)
    why = "as asked for" if clock == "nominal" else "no log found"
    by_log = f"the scanner's log for {len(logged)} of {len(stories)} stories; " if logged else ""
    nominal = (
        f"nominal for {rest} of {len(stories)} stories ({why}): row r starts at (10 + r) x {tr_s:g} -"
        f" {known.SOUND_START_S} s of sound; "
    )
    return (
        f"{by_log}{nominal if rest else ''}tr_s is {tr_s:g} s; the scanner's logs say {known.MEASURED_TR_S} s, the BIDS"
        f" side-cars {known.SIDECAR_TR_S} s; a clock of {tr_s:g} s is {drift_s:.2f} s off the logs after 300 volumes"
    )


def _check_clock(tr_s: float, sound_lead_s: float) -> None:
    """Refuse times that cannot be meant."""
    if not abs(tr_s - known.NOMINAL_TR_S) <= 0.1:
        raise SourceError(
            f"tr_s is {tr_s}; volumes took {known.NOMINAL_TR_S} s by the logs, {known.SIDECAR_TR_S} s by the side-cars."
        )
    if not 0 <= sound_lead_s < 60:
        raise SourceError(f"sound_lead_s is {sound_lead_s}; it is a number of seconds from 0 on, usually 0.")


# --- Words and phones ---


def read_words_and_phones(path: Path) -> tuple[Intervals, Intervals]:
    """Words and phones of a story without the marks for silence and noise; seconds of sound.

    The tiers are called word and phone, in either case. Whether they are what they are called is seen from their
    labels; they are not exchanged silently, for then something else in the file may be wrong too.

    Raises
    ------
    SourceError
        If the phone tier does not hold ARPAbet phones (the message says so if the word tier does).
    """
    words = read_intervals(path, None, WORD_TIERS, known.NOT_WORDS)
    phones = read_intervals(path, None, PHONE_TIERS, known.NOT_WORDS)
    in_phones, in_words = _arpabet_share(phones.labels), _arpabet_share(words.labels)
    if in_phones < 0.5:
        swapped = in_words > 0.5
        cure = "The two tiers have each other's name: exchange the names" if swapped else "Fetch the file again"
        raise SourceError(
            f"{path}: {in_phones:.0%} of the labels of the phone tier are ARPAbet phones, of the word tier"
            f" {in_words:.0%}; the first is {phones.labels[0]!r}, in the word tier {words.labels[0]!r}. {cure}."
        )
    return words, phones


def _arpabet_share(labels: Sequence[str]) -> float:
    return sum(label.rstrip("012").upper() in known.ARPABET for label in labels) / len(labels)
