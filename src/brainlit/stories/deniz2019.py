"""Reading and listening to the same stories: Deniz et al. (2019), doi:10.1523/JNEUROSCI.0675-19.2019.

Nine people hear and, in another session, read eleven stories of The Moth Radio Hour; while they read, the words appear
one by one at the times at which they are spoken. The data are at
https://gin.g-node.org/denizenslab/narratives_reading_listening_fmri; data/deniz2019.md says what is known about them,
from which source, and what is assumed.

Row r of a published matrix is volume r of the scan and begins 2.0045 r - 10.023 s into the sound. Ten rows at each end
are left out, as in the paper: five of silence, five in which the response to it ends or begins.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import (
    ROLES,
    BoolArray,
    Float32Array,
    Intervals,
    Remote,
    Responses,
    SourceError,
    Story,
    Subject,
)
from brainlit.stories.published import PUBLISHED_CHANNEL, PublishedSource, chosen, paths_below, require_known
from brainlit.stories.readers.audio import read_sound
from brainlit.stories.readers.cleaning import clean_series, cleaning_filter
from brainlit.stories.readers.hdf5_rows import open_hdf5
from brainlit.stories.readers.tables import require_file
from brainlit.stories.readers.transcripts import NOT_WORDS, PHONE_TIERS, WORD_TIERS, read_intervals
from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import TimeBase

log = logging.getLogger(__name__)

TR_S = 2.0045
SOUND_START_S = 10.023
"""Seconds from the first volume to the sound, in the scanner's logs of all eleven stories (to 0.001 s)."""
TRIMMED_TRS = 10
"""Rows left out at each end."""

VOLUMES = {
    "alternateithicatom": 363,
    "avatar": 387,
    "howtodraw": 374,
    "legacy": 420,
    "life": 450,
    "myfirstdaywiththeyankees": 378,
    "naked": 442,
    "odetostepfather": 424,
    "souls": 375,
    "undertheinfluence": 324,
    "wheretheressmoke": 311,
}
"""Volumes of each story's scan, all different. The published files number the stories in this order, from story_01."""
STORIES = tuple(VOLUMES)
TEST_STORY = "wheretheressmoke"
ROLE_OF = {
    **dict.fromkeys(("alternateithicatom", "avatar", "howtodraw", "legacy", "life", "naked"), "tune"),
    **dict.fromkeys(("myfirstdaywiththeyankees", "odetostepfather", "souls"), "fit"),
    "undertheinfluence": "choose",
    TEST_STORY: "score",
}
SUBJECTS = tuple(f"subject{k:02d}" for k in range(1, 10))
MARKS = frozenset({"sentence_start", "sentence_end", "sentence start", "sentence end", "{sp}", "{ig}", "ig", "sl",
                   "ns_ap", "spm", "ls)", "(br"})  # fmt: skip
"""What is no word in these transcripts, besides the usual marks of silence and noise."""
_REGION = "roi_mask_"


class DenizSource(PublishedSource):
    """Eleven stories and the responses of those who heard, or read, them.

    Parameters
    ----------
    root : str
        Folder that mirrors the published repository, with `responses/`, `stimuli/` and `mappers/`.
    subjects : list of str, optional
        'subject01' to 'subject09'; None takes all.
    stories : list of str, optional
        Titles as in `VOLUMES`; None takes all.
    modality : 'listening' or 'reading'
        'reading' takes the responses of readers. They heard nothing: the sound in the store is then that of the
        recording whose words they read, on the same clock.
    high_pass_s : float, optional
        Drift slower than this is removed before z-scoring. None trusts the published preprocessing, as everyone does
        who has published results on these files.
    regions : RegionConfig, optional
        None takes the regions that were drawn for each subject, from `mappers/`.

    Raises
    ------
    SourceError
        If a subject, story or modality is unknown, or high_pass_s is not positive.
    """

    name = "deniz2019"

    def __init__(
        self,
        root: str,
        subjects: list[str] | None = None,
        stories: list[str] | None = None,
        modality: Literal["listening", "reading"] = "listening",
        high_pass_s: float | None = None,
        regions: RegionConfig | None = None,
    ) -> None:
        super().__init__(root, chosen("story", stories, STORIES), chosen("subject", subjects, SUBJECTS))
        require_known("modality", modality, ("listening", "reading"))
        if high_pass_s is not None and not high_pass_s > 0:
            raise SourceError(f"deniz2019: high_pass_s is {high_pass_s}; need seconds above 0, or null for none.")
        self._modality, self._high_pass_s, self._regions = modality, high_pass_s, regions

    def settings(self) -> dict[str, Any]:
        """What decides how stories and subjects look in the store."""
        return {
            "source": type(self).__name__,
            "stories": list(self._stories),
            "modality": self._modality,
            "trimmed_trs": TRIMMED_TRS,
            "high_pass_s": self._high_pass_s,
            "regions": None if self._regions is None else dataclasses.asdict(self._regions),
        }

    def default_roles(self) -> dict[str, list[str]]:
        """The authors' test story scores; it was presented twice. The ten others tune, fit and choose."""
        return {role: [name for name in self._stories if ROLE_OF[name] == role] for role in ROLES}

    def story(self, name: str) -> Story:
        """Sound, words, phones and clock of one story; the sound must last until the rows that are used end."""
        path = self._sound(name)
        sound = read_sound(path, PUBLISHED_CHANNEL)
        timebase = TimeBase.regular(VOLUMES[name] - 2 * TRIMMED_TRS, TR_S, TRIMMED_TRS * TR_S - SOUND_START_S)
        sound_s = len(sound.samples) / timebase.sample_rate_hz
        if timebase.end_s > sound_s + TR_S:
            raise SourceError(
                f"{path} lasts {sound_s:.2f} s, but the rows of {name!r} end at {timebase.end_s:.2f} s of it. Is it"
                " the sound of another story, or cut off? Fetch it again."
            )
        words, phones = self._tier(name, WORD_TIERS), self._tier(name, PHONE_TIERS)
        return Story(name, sound.samples, words, phones, timebase, sound.notes)

    def phones(self, story: str) -> Intervals | None:
        """Phones of one story, without reading the sound."""
        return self._tier(story, PHONE_TIERS)

    def subject(self, name: str) -> Subject:
        """Number of voxels and regions; the published repository has no voxel's place on fsaverage5."""
        self._require_subject(name)
        n_voxels = self._shape(name, self._stories[0])[-1]
        if self._regions is not None:
            return Subject(name, n_voxels, read_subject_regions(self._regions, name, n_voxels, self.root))
        return Subject(name, n_voxels, _read_mapper_regions(self._mapper(name), n_voxels))

    def responses(self, subject: str, story: str) -> Responses | None:
        """Rows without the ten at each end, z-scored over the rest; the test story with its two presentations."""
        self._require_subject(subject)
        shape = self._shape(subject, story)
        if len(shape) == 2:
            return Responses(self._rows(subject, story, ()))
        repeats = [self._rows(subject, story, (k,)) for k in range(shape[0])]
        mean = np.asarray(np.mean(repeats, axis=0, dtype=np.float64), dtype=np.float32)
        return Responses(mean, repeats)

    def story_files(self, name: str) -> Sequence[Path]:
        """Sound and transcript."""
        return [self._sound(name), self._transcript(name)]

    def subject_files(self, name: str) -> Sequence[Path]:
        """The responses that hold the stories asked for, and the files of the regions."""
        responses = dict.fromkeys(self._file(name, story) for story in self._stories)
        regions = [self._mapper(name)] if self._regions is None else region_files(self._regions, name, self.root)
        return [*responses, *regions]

    def response_filter(self) -> ResponseFilter | None:
        """Drift that is removed here, over the rows that are used; how the authors removed it is not known."""
        return cleaning_filter(self._high_pass_s)

    def facts(self) -> dict[str, str]:
        """What every report says of these data."""
        reading = {"modality": "responses of readers: the sound was not heard; each word was shown while it is spoken"}
        drift = "" if self._high_pass_s is None else f", drift slower than {self._high_pass_s:g} s removed"
        return {
            **(reading if self._modality == "reading" else {"modality": "responses of listeners"}),
            "clock": f"TR {TR_S} s, sound {SOUND_START_S} s after the first volume (scanner logs of the stories, not"
            f" of the single sessions); {TRIMMED_TRS} rows at each end left out",
            "preprocessing": f"motion correction and choice of cortical voxels by the authors{drift}; z-scored here",
            "licence": "CC0 as public code that uses the data says; read LICENSE in the repository",
            "citation": "Deniz, Nunez-Elizalde, Huth & Gallant (2019), Journal of Neuroscience 39, 7722-7736,"
            " doi:10.1523/JNEUROSCI.0675-19.2019",
        }

    def remote(self) -> Remote:
        """The repository on GIN, file by file."""
        wanted = [path for name in self._stories for path in self.story_files(name)]
        wanted += [path for name in self._subjects for path in self.subject_files(name)]
        url = "https://gin.g-node.org/denizenslab/narratives_reading_listening_fmri/raw/master"
        return Remote(url, self.root, paths_below(self.root, wanted), "see LICENSE in the repository")

    def _sound(self, story: str) -> Path:
        return self.root / "stimuli" / f"{self._dataset(story)}.wav"

    def _transcript(self, story: str) -> Path:
        self._require_story(story)
        return self.root / "stimuli" / "textgrids" / "stimulus_textgrids" / f"{story}.TextGrid"

    def _mapper(self, subject: str) -> Path:
        return self.root / "mappers" / f"{subject}_mappers.hdf"

    def _file(self, subject: str, story: str) -> Path:
        part = "val" if story == TEST_STORY else "trn"
        return self.root / "responses" / f"{subject}_{self._modality}_fmri_data_{part}.hdf"

    def _dataset(self, story: str) -> str:
        self._require_story(story)
        return f"story_{STORIES.index(story) + 1:02d}"

    def _tier(self, story: str, usual_tiers: Sequence[str]) -> Intervals:
        path = self._transcript(story)
        require_file(path, "Check root, and that stimuli/ was downloaded.")
        return read_intervals(path, None, usual_tiers, NOT_WORDS | MARKS)

    def _shape(self, subject: str, story: str) -> tuple[int, ...]:
        """Shape of a story's responses, checked against its scan."""
        path, name = self._file(subject, story), self._dataset(story)
        with open_hdf5(path) as file:
            others = sorted(file)
            if name not in others:
                raise SourceError(f"{path} holds no {name!r}. {did_you_mean(name, others)}")
            shape = tuple(int(n) for n in file[name].shape)
        n_axes = 3 if story == TEST_STORY else 2
        if len(shape) != n_axes or shape[-2] != VOLUMES[story] or 0 in shape:
            fits = [title for title, n_trs in VOLUMES.items() if len(shape) == n_axes and shape[-2] == n_trs]
            other = f" That is the length of {fits[0]!r}." if fits else ""
            raise SourceError(
                f"{path}: {name} has shape {shape}; the scan of {story!r} has {VOLUMES[story]} volumes"
                f"{', in two presentations' if n_axes == 3 else ''}.{other} The file holds {', '.join(others)}."
            )
        return shape

    def _rows(self, subject: str, story: str, repeat: tuple[int, ...]) -> Float32Array:
        path, name = self._file(subject, story), self._dataset(story)
        with open_hdf5(path) as file:  # the rest of it is not read
            kept = slice(TRIMMED_TRS, VOLUMES[story] - TRIMMED_TRS)
            values = np.asarray(file[name].astype("float32")[(*repeat, kept)])
        cleaned = clean_series(values, TR_S, self._high_pass_s)
        n_empty = int(np.isnan(cleaned[0]).sum())
        if n_empty:
            log.warning("%s, %s: %d of %d voxels hold no data; masked.", subject, story, n_empty, cleaned.shape[1])
        return cleaned


def _read_mapper_regions(path: Path, n_voxels: int) -> dict[str, BoolArray]:
    """Regions drawn by the authors: the datasets roi_mask_<name> of a subject's mapper, (n_voxels,) each."""
    with open_hdf5(path) as file:
        drawn = {name.removeprefix(_REGION): np.asarray(file[name]) for name in file if name.startswith(_REGION)}
    for name, mask in drawn.items():
        if mask.shape != (n_voxels,):
            raise SourceError(
                f"{path}: {_REGION}{name} has shape {mask.shape}, but the responses have {n_voxels} voxels. Is it the"
                " mapper of this subject?"
            )
    regions = {name: np.asarray(mask != 0, dtype=np.bool_) for name, mask in drawn.items() if (mask != 0).any()}
    if not regions:
        raise SourceError(f"{path} holds no {_REGION}<name>; name other regions, or fetch the mapper again.")
    return regions
