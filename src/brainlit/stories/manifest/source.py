"""Any data set, described by a YAML manifest: audio, transcripts, responses of any kind, clock, cleaning, roles.

docs/your_data.md describes the file. Paths in it are relative to its root, which is relative to the manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.hints import did_you_mean, few
from brainlit.shipped import here_or_shipped
from brainlit.stories.base import (
    BoolArray,
    Float32Array,
    IntArray,
    Intervals,
    LazyRepeats,
    Responses,
    Story,
    StorySource,
    Subject,
)
from brainlit.stories.manifest.reader import read_manifest
from brainlit.stories.manifest.responses import ResponseReader
from brainlit.stories.manifest.schema import (
    Manifest,
    ManifestError,
    ResponseSpec,
    StorySpec,
    TierSpec,
    filled,
    placeholders,
)
from brainlit.stories.readers.audio import read_sound
from brainlit.stories.readers.cleaning import cleaning_filter
from brainlit.stories.readers.runs import Run, RunFinder, make_finder
from brainlit.stories.readers.tables import Table
from brainlit.stories.readers.transcripts import (
    PHONE_TIERS,
    WORD_TIERS,
    Transcript,
    TranscriptError,
    read_transcript,
    refuse_swapped,
)
from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import TimeBase

log = logging.getLogger(__name__)

_FSAVERAGE5_VERTICES = 20_484
_OUTSIDE_S = 1.0
_LEAST_TOLD = 0.1
"""Words that would fill at least this part of the sound, were their times milliseconds, are taken for such."""
_BYTES_AT_ONCE = 256 * 2**20


class ManifestSource(StorySource):
    """The data set that a manifest describes.

    A subject without any usable column is left out with the reason; single columns that are constant or hold a NaN
    come back as NaN, which everything downstream masks.

    Parameters
    ----------
    path : str
        The manifest; one that comes with brainlit (data/alice/manifest.yaml) is found from every folder. Nothing is
        read before a method is called.
    """

    def __init__(self, path: str) -> None:
        self.path = here_or_shipped(Path(path))
        self._untimed: dict[str, str] = {}
        self.name = self.path.parent.name if self.path.stem == "manifest" else self.path.stem

    @cached_property
    def manifest(self) -> Manifest:
        """What the file says."""
        return read_manifest(self.path)

    @cached_property
    def _finder(self) -> RunFinder:
        return make_finder(self.manifest, self.path)

    @cached_property
    def _reader(self) -> ResponseReader:
        return ResponseReader(self._finder)

    def settings(self) -> dict[str, Any]:
        """What the manifest says, without its root and its subjects."""
        return {"source": type(self).__name__, **self.manifest.settings()}

    def story_names(self) -> Sequence[str]:
        """The stories of the manifest, in its order."""
        return list(self.manifest.stories)

    def subject_names(self) -> Sequence[str]:
        """The subjects of the manifest, or those whom fMRIPrep's folder holds."""
        return self._finder.subjects()

    def default_roles(self) -> dict[str, list[str]]:
        """The roles of the manifest."""
        return {role: list(spans) for role, spans in self.manifest.roles.items()}

    def on_other_clocks(self) -> dict[str, str]:
        """The stories of subjects with a clock of their own."""
        return dict(self.manifest.on_other_clocks)

    def parts(self) -> dict[str, str]:
        """The runs of stories that were told over several."""
        whole = {name: self.manifest.told(name)["story"] for name in self.manifest.stories}
        return {name: story for name, story in whole.items() if self.manifest.told(name)["part"]}

    def response_filter(self) -> ResponseFilter | None:
        """What the manifest says, or else the drift that is removed here."""
        said = self.manifest.responses
        if said.response_filter is not None:
            return said.response_filter
        return cleaning_filter(said.high_pass_s, () if said.confounds is None else said.confounds.columns)

    def slice_reference(self) -> float:
        """What the manifest says, or else the JSON beside the first run, or else the middle."""
        said = self.manifest.responses.slice_reference
        return self._reader.clocks.first_slice_reference if said is None else said

    def facts(self) -> dict[str, str]:
        """Clock and preprocessing in words; licence and citation where the manifest gives them."""
        own = {"licence": self.manifest.licence, "citation": self.manifest.citation}
        said = {
            "clock": clock_in_words(self.manifest.stories),
            "preprocessing": _preprocessing_in_words(self.manifest.responses),
        }
        return said | {key: value for key, value in own.items() if value is not None}

    def left_out(self) -> dict[str, str]:
        """Words (and phones) of which no time is known, counted; of files that are not there any more nothing."""
        for name, spec in self.manifest.stories.items():
            for tier, usual_tiers in ((spec.words, WORD_TIERS), (spec.phones, PHONE_TIERS)):
                if tier is None or self._part(tier, name, usual_tiers) in self._untimed:
                    continue
                if self._path(tier.file, name).is_file():
                    self._transcript(tier, name, usual_tiers)
        return {part: said for part, said in self._untimed.items() if said}

    def story_files(self, name: str) -> list[Path]:
        """Audio, transcripts and the table of row starts."""
        spec = self._spec(name)
        patterns = [spec.audio, spec.words.file, spec.phones.file if spec.phones else None, spec.tr_starts]
        return list(dict.fromkeys(self._path(pattern, name) for pattern in patterns if pattern is not None))

    def subject_files(self, name: str) -> list[Path]:
        """Responses, masks, confounds and regions."""
        regions = region_files(self._region_config(), name, self.manifest.root)
        return list(dict.fromkeys([*self._finder.files(name), *regions]))

    def story(self, name: str) -> Story:
        """Sound, words, phones and clock of one story.

        Raises
        ------
        ManifestError
            If the story is unknown, nobody heard it, the sound ends before the scanner does by more than
            silence_after_s, or words lie outside the sound.
        AudioError
            If the sound is damaged, or its channels are not one sound.
        TranscriptError
            If words and phones are swapped.
        """
        spec = self._spec(name)
        timebase = self._reader.clocks.timebase(name)
        sound = read_sound(self._path(spec.audio, name), spec.channel)
        samples = sound.samples[self._stretch(name, len(sound.samples), timebase.sample_rate_hz)]
        sound_s = len(samples) / timebase.sample_rate_hz
        self._reader.clocks.require_rows_are_volumes(name, sound_s)
        self._require_sound(name, timebase, sound_s)
        words, phones = self._intervals(spec.words, name, WORD_TIERS), self.phones(name)
        refuse_swapped(words, phones, f"{self._path(spec.words.file, name)}")
        self._require_inside(name, words, sound_s)
        return Story(name, samples, words, phones, timebase, sound.notes)

    def phones(self, story: str) -> Intervals | None:
        """Phones of one story; reads nothing else."""
        tier = self._spec(story).phones
        return None if tier is None else self._intervals(tier, story, PHONE_TIERS)

    def subject(self, name: str) -> Subject:
        """Columns of one subject: places where mask or surface give them, regions by column names and from files.

        Raises
        ------
        SubjectLeftOut
            If no column of any story can be used.
        ManifestError
            If columns, mask and surface do not fit each other.
        """
        first, table = self._reader.first_usable(name)
        n_columns, mask = table.values.shape[1], self._finder.mask(name)
        if mask is not None and int(mask.inside.sum()) != n_columns:
            raise ManifestError(
                f"{self.path}: {first.files[0]} has {n_columns} columns, but {mask.file} has {mask.inside.sum()}"
                " voxels. Name the mask that the columns were taken from."
            )
        regions = self._named_columns(table)
        regions |= read_subject_regions(self._region_config(), name, n_columns, self.manifest.root, table.places)
        coordinates_mm = None if mask is None else mask.coordinates_mm
        return Subject(name, n_columns, regions, self._vertices(first, n_columns), coordinates_mm)

    def responses(self, subject: str, story: str) -> Responses | None:
        """Responses without drift and confounds, each run z-scored over time; NaN in the columns that hold no data."""
        self._finder.require_subject(subject)
        if story not in self._finder.heard(subject):
            return None
        runs = self._finder.runs(subject, story)
        first = self._reader.cleaned(subject, story, runs[0])
        if len(runs) == 1:
            _say_what_is_masked(subject, story, first)
            return Responses(first)
        if first.nbytes * len(runs) <= _BYTES_AT_ONCE:
            together = np.stack([first, *(self._reader.cleaned(subject, story, run) for run in runs[1:])])
            repeats: Sequence[Float32Array] | Float32Array = together
        else:
            repeats = LazyRepeats(len(runs), lambda k: self._reader.cleaned(subject, story, runs[k]))
        total = np.zeros(first.shape)
        for k in range(len(runs)):
            total += repeats[k]
        mean = (total / len(runs)).astype(np.float32)
        _say_what_is_masked(subject, story, mean)
        return Responses(mean, repeats)

    # Parts of a story

    def _spec(self, story: str) -> StorySpec:
        if story not in self.manifest.stories:
            hint = did_you_mean(story, self.manifest.stories)
            raise ManifestError(f"{self.path}: there is no story {story!r}. {hint}")
        return self.manifest.stories[story]

    def _path(self, pattern: str, story: str) -> Path:
        return self.manifest.root / filled(pattern, **self.manifest.told(story))

    def _intervals(self, tier: TierSpec, story: str, usual_tiers: Sequence[str]) -> Intervals:
        found = self._transcript(tier, story, usual_tiers).intervals
        if not tier.on_scanner_clock:
            return self._within_stretch(found, tier, story)
        return Intervals(found.labels, found.start_s + self._reader.clocks.first_volume_s(story), found.duration_s)

    def _transcript(self, tier: TierSpec, story: str, usual_tiers: Sequence[str]) -> Transcript:
        """What a file says; how many labels of it have no time is said once."""
        path, told = self._path(tier.file, story), self.manifest.told(story)
        asked = (tier.tier,) if isinstance(tier.tier, str) else tier.tier
        names = None if asked is None else [filled(name, **told) for name in asked]
        found = read_transcript(path, names, usual_tiers, self.manifest.not_words, tier.column, tier.where)
        part = self._part(tier, story, usual_tiers)
        if part not in self._untimed and found.untimed:
            log.warning("%s: %s; dropped.", part, found.untimed_words)
        self._untimed[part] = found.untimed_words
        return found

    def _part(self, tier: TierSpec, story: str, usual_tiers: Sequence[str]) -> str:
        """A transcript for messages; one that several stories share is one."""
        path, root = self._path(tier.file, story), self.manifest.root
        file = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        return f"{'words' if usual_tiers == WORD_TIERS else 'phones'} of {file}"

    def _stretch(self, story: str, n_samples: int, sample_rate_hz: int) -> slice:
        """The samples of the audio file that were played."""
        spec = self._spec(story)
        first = round(spec.sound_start_s * sample_rate_hz)
        last = n_samples if spec.sound_end_s is None else round(spec.sound_end_s * sample_rate_hz)
        if not 0 <= first < last <= n_samples + sample_rate_hz * _OUTSIDE_S:
            end = "its end" if spec.sound_end_s is None else f"{spec.sound_end_s:g} s"
            raise ManifestError(
                f"{self.path}: {self._path(spec.audio, story)} lasts {n_samples / sample_rate_hz:.2f} s, but {story!r}"
                f" is its sound from {spec.sound_start_s:g} s to {end}. Check sound_start_s and sound_end_s."
            )
        return slice(first, last)

    def _within_stretch(self, found: Intervals, tier: TierSpec, story: str) -> Intervals:
        """What begins in the stretch of the audio file that was played, in seconds of that stretch."""
        spec = self._spec(story)
        if spec.is_whole_sound:
            return found
        end_s = np.inf if spec.sound_end_s is None else spec.sound_end_s
        kept = np.flatnonzero((found.start_s >= spec.sound_start_s) & (found.start_s < end_s))
        if not kept.size:
            raise TranscriptError(
                f"{self._path(tier.file, story)}: nothing begins from {spec.sound_start_s:g} to {end_s:g} s, which is"
                f" {story!r}. Its times have to count from the start of the audio file."
            )
        labels = tuple(found.labels[k] for k in kept)
        return Intervals(labels, found.start_s[kept] - spec.sound_start_s, found.duration_s[kept])

    def _require_sound(self, story: str, timebase: TimeBase, sound_s: float) -> None:
        spec, missing_s = self._spec(story), timebase.end_s - sound_s
        if missing_s > spec.silence_after_s + 0.5 * timebase.tr_s:
            lasts = "lasts" if spec.is_whole_sound else "was played for"
            raise ManifestError(
                f"{self.path}: {self._path(spec.audio, story)} {lasts} {sound_s:.2f} s, but the {timebase.n_trs} rows"
                f" of {story!r} end at {timebase.end_s:.2f} s. Check onset_s ({spec.onset_s}) and tr_s"
                f" ({timebase.tr_s}); if the scanner did run on in silence, say silence_after_s:"
                f" {np.ceil(missing_s):.0f}."
            )

    def _require_inside(self, story: str, words: Intervals, sound_s: float) -> None:
        """Words outside the sound are on another clock."""
        first_s, last_s = float(words.start_s[0]), float(words.start_s[-1])
        if first_s < -_OUTSIDE_S or last_s > sound_s + _OUTSIDE_S:
            tier = self._spec(story).words
            if _LEAST_TOLD * sound_s <= last_s / 1000 <= sound_s + _OUTSIDE_S:
                raise TranscriptError(
                    f"{self._path(tier.file, story)}: words start from {first_s:g} to {last_s:g}, and the audio file"
                    f" lasts {sound_s:.2f} s. Are these milliseconds? Then name the columns so (onset_ms, duration_ms),"
                    " or divide the times by 1000."
                )
            raise TranscriptError(
                f"{self._path(tier.file, story)}: words start from {first_s:.2f} to {last_s:.2f} s of the audio file,"
                f" which lasts {sound_s:.2f} s. Do its times count from the first volume? Then say clock: scanner"
                f" (now {'scanner' if tier.on_scanner_clock else 'audio'}) and check onset_s."
            )

    def _named_columns(self, table: Table) -> dict[str, BoolArray]:
        said = self.manifest.responses
        columns = said.columns or table.columns
        if columns is None:
            if said.regions:
                raise ManifestError(f"{self.path}: responses.regions names columns, but the columns have no names.")
            return {}
        if len(columns) != table.values.shape[1]:
            raise ManifestError(
                f"{self.path}: responses.columns names {len(columns)} columns ({', '.join(columns[:9])}), but the"
                f" tables have {table.values.shape[1]}."
            )
        groups = said.regions or {column: (column,) for column in columns}
        return {region: self._mask(region, wanted, columns) for region, wanted in groups.items()}

    def _mask(self, region: str, wanted: Sequence[str], columns: Sequence[str]) -> BoolArray:
        for column in wanted:
            if column not in columns:
                hint = did_you_mean(column, columns)
                raise ManifestError(f"{self.path}: responses.regions: {region} names no column {column!r}. {hint}")
        return np.isin(columns, list(wanted))

    def _region_config(self) -> RegionConfig | None:
        """How regions are read from files; the mask of the responses is theirs unless they name one."""
        config, mask = self.manifest.responses.region_files, self.manifest.responses.mask
        if config is None or config.mask is not None or mask is None or placeholders(mask) - {"subject"}:
            return config
        return replace(config, mask=mask)

    def _vertices(self, run: Run, n_columns: int) -> IntArray | None:
        if (self.manifest.responses.space or "").partition(":")[0] != "fsaverage5":
            return None
        if n_columns != _FSAVERAGE5_VERTICES:
            raise ManifestError(
                f"{self.path}: {run.files[0]} has {n_columns} columns, but space fsaverage5 has {_FSAVERAGE5_VERTICES}"
                " vertices, left hemisphere first. Give both hemispheres, or another space."
            )
        return np.arange(n_columns, dtype=np.int64)


def _say_what_is_masked(subject: str, story: str, values: Float32Array) -> None:
    n_bad = int(np.isnan(values).any(axis=0).sum())
    if n_bad:
        log.warning("%s, %s: %d of %d columns hold no data; masked.", subject, story, n_bad, values.shape[1])


# --- What reports say ---


def clock_in_words(stories: Mapping[str, StorySpec]) -> str:
    """When the rows of the responses happened.

    >>> from brainlit.stories.manifest.schema import TierSpec
    >>> words = TierSpec("a.TextGrid")
    >>> clock_in_words({"frog": StorySpec("a.wav", words, tr_s=2.0, onset_s=-8.0, volumes_discarded=4)})
    'frog: TR 2 s, row 0 of the file starts at -8 s of the sound, first 4 rows not used'
    """
    grouped: dict[str, list[str]] = {}
    for name, spec in stories.items():
        grouped.setdefault(_one_clock(spec), []).append(name)
    return "; ".join(f"{few(names)}: {clock}" for clock, names in grouped.items())


def _preprocessing_in_words(spec: ResponseSpec) -> str:
    """What was done to the responses here.

    >>> _preprocessing_in_words(ResponseSpec("a.npy"))
    'periods of 128 s and more taken out; z-scored per story'
    """
    parts = ["preprocessed before" if spec.preprocessed else ""]
    if spec.fmriprep is not None:
        parts.append(f"fMRIPrep, space {spec.space}")
    if spec.high_pass_s is not None:
        parts.append(f"periods of {spec.high_pass_s:g} s and more taken out")
    if spec.low_pass_s is not None:
        parts.append(f"periods below {spec.low_pass_s:g} s taken out")
    if spec.confounds is not None:
        parts.append(f"confounds regressed out: {', '.join(spec.confounds.columns)}")
    return "; ".join(part for part in [*parts, "z-scored per story"] if part)


def _one_clock(spec: StorySpec) -> str:
    tr_s = "TR of the file" if spec.tr_s is None else f"TR {spec.tr_s:g} s"
    start = "starts of the rows from a table" if spec.tr_starts else (
        f"row 0 of the file starts at {spec.onset_s:g} s of the sound"
    )  # fmt: skip
    end = "its end" if spec.sound_end_s is None else f"{spec.sound_end_s:g} s"
    start += "" if spec.is_whole_sound else f", which is the audio file from {spec.sound_start_s:g} s to {end}"
    used = f", first {spec.volumes_discarded} rows not used" if spec.volumes_discarded else ""
    return f"{tr_s}, {start}{used}"
