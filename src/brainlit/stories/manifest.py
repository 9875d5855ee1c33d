"""Any data set, described by a YAML manifest: audio, transcripts, response tables, clock, drift removal, roles.

docs/your_data.md describes the file. Paths in it are relative to its root, which is relative to the manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.hints import did_you_mean
from brainlit.stories.audio import read_audio
from brainlit.stories.base import FeatureSpace, Intervals, Responses, Story, StorySource, Subject
from brainlit.stories.drift import clean, zscore
from brainlit.stories.manifest_schema import Manifest, ManifestError, StorySpec, TierSpec, read_manifest
from brainlit.stories.tables import Table, read_table
from brainlit.stories.transcripts import PHONE_TIERS, WORD_TIERS, read_intervals
from brainlit.timebase import TimeBase

log = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]


class ManifestSource(StorySource):
    """The data set that a manifest describes.

    A subject without any usable column is left out with the reason (`left_out`); single columns that are constant or
    hold a NaN come back as NaN, which everything downstream masks.

    Parameters
    ----------
    path : str
        The manifest. Nothing is read before a method is called.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.name = self.path.parent.name if self.path.stem == "manifest" else self.path.stem

    @cached_property
    def manifest(self) -> Manifest:
        """What the file says."""
        return read_manifest(self.path)

    def settings(self) -> dict[str, Any]:
        """The manifest without its root, and the SHA-256 of each file: a changed file means another store."""
        said = dataclasses.asdict(self.manifest)
        del said["root"]
        said["not_words"] = sorted(said["not_words"])
        files = {self._label(path): _sha256(path) for path in self._files()}
        return {"source": type(self).__name__, **_as_json(said), "files": files}

    def story_names(self) -> Sequence[str]:
        """The stories of the manifest, in its order."""
        return list(self.manifest.stories)

    def subject_names(self) -> Sequence[str]:
        """The subjects of the manifest with at least one usable column."""
        return [name for name in self.manifest.subjects if name not in self._unusable]

    def left_out(self) -> dict[str, str]:
        """Subjects without a usable column, each with the reason."""
        return dict(self._unusable)

    def default_roles(self) -> dict[str, list[str]]:
        """The roles of the manifest."""
        return {role: list(spans) for role, spans in self.manifest.roles.items()}

    def story(self, name: str) -> Story:
        """Sound, words, phones and clock of one story.

        Raises
        ------
        ManifestError
            If the story is unknown, or the sound ends before the scanner does by more than silence_after_s.
        """
        spec = self._spec(name)
        audio_path, audio = self._path(spec.audio, story=name), self._audio(spec, name)
        timebase = self._timebase(name)
        sound_s = len(audio) / timebase.sample_rate_hz
        missing_s = timebase.end_s - sound_s
        if missing_s > spec.silence_after_s + 0.5 * spec.tr_s:
            raise ManifestError(
                f"{self.path}: {audio_path} lasts {sound_s:.2f} s, but the {timebase.n_trs} rows of {name!r} end at"
                f" {timebase.end_s:.2f} s. Check onset_s ({spec.onset_s}) and tr_s ({spec.tr_s}); if the scanner did"
                f" run on in silence, say silence_after_s: {np.ceil(missing_s):.0f}."
            )
        phones = self._intervals(spec.phones, name, PHONE_TIERS) if spec.phones else None
        return Story(name, audio, self._intervals(spec.words, name, WORD_TIERS), phones, timebase)

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        """Low-level spaces of sound, words and phones; word vectors where the manifest names a file of them."""
        from brainlit.features import low_level_spaces
        from brainlit.features.semantic import word_vectors

        spaces = low_level_spaces(story)
        if self.manifest.word_vectors is not None:
            spaces.append(word_vectors(story, self._vectors, source=self.manifest.word_vectors))
        return spaces

    def subject(self, name: str) -> Subject:
        """Regions of one subject: those of the manifest, or one per named column."""
        heard = self._heard(name)
        table = self._table(name, heard[0], self._repeats(heard[0])[0])
        columns = self._columns(table)
        n_voxels = table.values.shape[1]
        if columns is None:
            return Subject(name, n_voxels)
        regions = self.manifest.responses.regions or {column: (column,) for column in columns}
        return Subject(name, n_voxels, {region: _mask(region, wanted, columns) for region, wanted in regions.items()})

    def responses(self, subject: str, story: str) -> Responses | None:
        """Responses without drift, z-scored over time; NaN in the columns that hold no data.

        Raises
        ------
        ManifestError
            If tables of one story differ in their number of rows, or do not fit the clock.
        """
        if story not in self._heard(subject):
            return None
        repeats = np.stack([self._cleaned(subject, story, repeat) for repeat in self._repeats(story)])
        n_bad = int(np.isnan(repeats).any(axis=(0, 1)).sum())
        if n_bad:
            log.warning("%s, %s: %d of %d columns hold no data; masked.", subject, story, n_bad, repeats.shape[2])
        mean = repeats[0] if len(repeats) == 1 else zscore(repeats.mean(axis=0))
        return Responses(mean.astype(np.float32), repeats.astype(np.float32) if len(repeats) > 1 else None)

    @cached_property
    def _unusable(self) -> dict[str, str]:
        reasons = {}
        for name, heard in self.manifest.subjects.items():
            if not any(np.isfinite(self._cleaned(name, s, self._repeats(s)[0])).any() for s in heard):
                file = self._response_path(name, heard[0], self._repeats(heard[0])[0])
                reasons[name] = f"every column is constant or holds NaN (see {file.name})"
                log.warning("%s is left out: %s.", name, reasons[name])
        return reasons

    @cached_property
    def _vectors(self) -> Any:
        from brainlit.features.semantic import read_word_vectors

        return read_word_vectors(self.manifest.root / str(self.manifest.word_vectors))

    def _spec(self, story: str) -> StorySpec:
        if story not in self.manifest.stories:
            hint = did_you_mean(story, self.manifest.stories)
            raise ManifestError(f"{self.path}: there is no story {story!r}. {hint}")
        return self.manifest.stories[story]

    def _heard(self, subject: str) -> tuple[str, ...]:
        if subject not in self.manifest.subjects:
            hint = did_you_mean(subject, self.manifest.subjects)
            raise ManifestError(f"{self.path}: there is no subject {subject!r}. {hint}")
        return self.manifest.subjects[subject]

    def _repeats(self, story: str) -> tuple[str, ...]:
        return self._spec(story).repeats or ("",)

    def _path(self, pattern: str, **names: str) -> Path:
        return self.manifest.root / self._filled(pattern, **names)

    def _label(self, path: Path) -> str:
        root = self.manifest.root
        return str(path.relative_to(root) if path.is_relative_to(root) else path)

    def _filled(self, pattern: str, **names: str) -> str:
        try:
            return pattern.format(**names)
        except (KeyError, IndexError, ValueError) as error:
            known = ", ".join(f"{{{name}}}" for name in names)
            raise ManifestError(f"{self.path}: {pattern!r}: {error} is no placeholder; known: {known}.") from error

    def _audio(self, spec: StorySpec, name: str) -> npt.NDArray[np.int16]:
        return read_audio(self._path(spec.audio, story=name))

    def _intervals(self, spec: TierSpec, story: str, usual_tiers: Sequence[str]) -> Intervals:
        path = self._path(spec.file, story=story)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist. Check the path in {self.path}, and its root.")
        return read_intervals(path, spec.tier, usual_tiers, self.manifest.not_words)

    def _timebase(self, story: str) -> TimeBase:
        spec = self._spec(story)
        if spec.tr_starts is not None:
            return TimeBase(read_table(self._path(spec.tr_starts, story=story)).values[:, 0], spec.tr_s)
        return TimeBase.regular(self._n_trs(story), spec.tr_s, float(spec.onset_s or 0.0))

    def _n_trs(self, story: str) -> int:
        first = next((name for name, heard in self.manifest.subjects.items() if story in heard), None)
        if first is None:
            raise ManifestError(f"{self.path}: nobody heard {story!r}. Add it to a subject, or remove the story.")
        return len(self._table(first, story, self._repeats(story)[0]).values)

    def _response_path(self, subject: str, story: str, repeat: str) -> Path:
        return self._path(self.manifest.responses.file, subject=subject, story=story, repeat=repeat)

    def _table(self, subject: str, story: str, repeat: str) -> Table:
        dataset = self.manifest.responses.dataset
        names = {"subject": subject, "story": story, "repeat": repeat}
        return read_table(self._response_path(**names), self._filled(dataset, **names) if dataset else None)

    def _cleaned(self, subject: str, story: str, repeat: str) -> FloatArray:
        values = self._table(subject, story, repeat).values
        n_trs = self._timebase(story).n_trs
        if len(values) != n_trs:
            turned = " Its columns would fit: is it transposed?" if values.shape[1] == n_trs else ""
            raise ManifestError(
                f"{self.path}: {self._response_path(subject, story, repeat)} has {len(values)} rows, but {story!r} has"
                f" {n_trs} TRs.{turned} Rows are volumes; trim all tables of a story alike."
            )
        return clean(values, self._spec(story).tr_s, self.manifest.responses.high_pass_s)

    def _columns(self, table: Table) -> tuple[str, ...] | None:
        columns = self.manifest.responses.columns or table.columns
        if columns is not None and len(columns) != table.values.shape[1]:
            raise ManifestError(
                f"{self.path}: responses.columns names {len(columns)} columns ({', '.join(columns[:9])}), but the"
                f" tables have {table.values.shape[1]}."
            )
        return columns

    def _story_files(self, story: str) -> list[Path]:
        spec = self._spec(story)
        patterns = [spec.audio, spec.words.file, spec.phones.file if spec.phones else None, spec.tr_starts]
        return list(dict.fromkeys(self._path(pattern, story=story) for pattern in patterns if pattern is not None))

    def _files(self) -> list[Path]:
        files = [path for story in self.manifest.stories for path in self._story_files(story)]
        for subject, heard in self.manifest.subjects.items():
            files += [self._response_path(subject, s, r) for s in heard for r in self._repeats(s)]
        if self.manifest.word_vectors is not None:
            files.append(self.manifest.root / self.manifest.word_vectors)
        return list(dict.fromkeys(files))


def _mask(region: str, wanted: Sequence[str], columns: Sequence[str]) -> npt.NDArray[np.bool_]:
    for column in wanted:
        if column not in columns:
            raise ManifestError(f"region {region!r} names no column {column!r}. {did_you_mean(column, columns)}")
    return np.isin(columns, list(wanted))


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Check the path in the manifest, and its root.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value
