"""Build a store from a source: one file at a time, whole or absent, resumable after any interruption."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import h5py
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import brainlit
from brainlit.features import FeatureConfig, FeatureExtractor
from brainlit.files import is_temporary, sha256_of, waiting_lock, write_json
from brainlit.guard import DAMAGE
from brainlit.hdf5 import read_text
from brainlit.store.files import (
    FINGERPRINT,
    Sources,
    Spaces,
    read_sources,
    read_spaces,
    read_story_entry,
    read_subject_entry,
    write_story_file,
    write_subject_file,
)
from brainlit.store.reader import StoryStore
from brainlit.store.schema import (
    INDEX_FILE,
    LOCK_FILE,
    SCHEMA_VERSION,
    STORY_FOLDER,
    SUBJECT_FOLDER,
    FileEntry,
    SourceFile,
    SpaceEntry,
    StoreError,
    StoreIndex,
    StoreSettingsError,
    StoryEntry,
    SubjectEntry,
    changed,
    checked_names,
    fingerprint_of,
    labels_of,
    read_index,
    refuse_other_settings,
    remember,
    settings_of,
    touched,
)
from brainlit.stories import Intervals, ResponseFilter, Story, StorySource, SubjectLeftOut

logger = logging.getLogger(__name__)

DEFAULT_FEATURES = FeatureConfig()
Entry = TypeVar("Entry", StoryEntry, SubjectEntry)


def build_store(
    source: StorySource, path: Path | str, progress: bool = True, features: FeatureConfig = DEFAULT_FEATURES
) -> StoryStore:
    """Write what a source holds into the folder `path` and open it; a finished store is opened at once.

    Safe to interrupt at any point and to start twice: each file is whole or absent, a second process waits for the
    first, and files that an interrupted build finished are used again if settings and sources are the same. Subjects
    that the store lacks are added without touching what is there.

    Parameters
    ----------
    source : StorySource
        Asked for one story, then for one subject's responses to one story at a time.
    path : Path or str
        The store's folder; made if missing.
    progress : bool
        Show a progress bar.
    features : FeatureConfig
        The feature spaces to compute.

    Raises
    ------
    StoreSettingsError
        If the folder holds a store made with other settings, or from files that have changed since.
    StoreError
        If the source's parts do not fit each other (the message names story, subject, numbers and cure).
    FullDiskError
        If the disk has no room for the next file.
    """
    path = Path(path)
    reader = StoryReader(source)
    extractor = FeatureExtractor(features, list(source.story_names()), reader.phones)
    settings = settings_of(source, extractor.settings())
    if not _is_complete(source, extractor, path, settings):
        path.mkdir(parents=True, exist_ok=True)
        with waiting_lock(path / LOCK_FILE, f"another process is building the store {path}"):
            if not _is_complete(source, extractor, path, settings):
                _Build(reader, extractor, path, settings, progress).run()
    return StoryStore.open(path)


def _is_complete(source: StorySource, features: FeatureExtractor, path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a store with these settings is there, with all its files and the subjects that are asked for.

    Refuses one that was made with other settings, or from files whose content has changed.
    """
    index = read_index(path)
    if index is None:
        return False
    refuse_other_settings(path, index.settings, settings)
    known = index.subjects.keys() | set(index.unusable_subjects)
    parts: list[tuple[FileEntry, Sequence[Path]]] = [
        (entry, [*source.story_files(story), *features.files()]) for story, entry in index.stories.items()
    ]
    asked = [name for name in source.subject_names() if name in index.subjects]
    parts += [(index.subjects[name], source.subject_files(name)) for name in asked]
    as_remembered = [_as_remembered(path, entry, files) for entry, files in parts]  # all: any of them may refuse
    return (
        all(as_remembered)
        and known.issuperset(source.subject_names())
        and all((path / entry.file).exists() for entry in index.files)
    )


def _as_remembered(path: Path, entry: FileEntry, files: Sequence[Path]) -> bool:
    """Whether no source of a part was touched since; refuses one whose content has changed."""
    different = changed(files, entry.sources)
    if different is not None:
        label, before, now = different
        key = f"sha256 of {label} (a source of {entry.file})"
        cure = "Put the old file back" if before else "Take the file away, which was not there then"
        raise StoreSettingsError(path, key, before, now, cure)
    return not touched(files, entry.sources)


class _Build:
    """One build under the lock; `run` leaves a finished store or raises with the finished files kept."""

    def __init__(
        self, reader: StoryReader, features: FeatureExtractor, path: Path, settings: dict[str, Any], progress: bool
    ) -> None:
        source = reader.source
        self.source, self.reader, self.features, self.path, self.settings = source, reader, features, path, settings
        self.fingerprint = fingerprint_of(settings)
        self.index = read_index(path)
        self.story_names = checked_names("story", source.story_names())
        self.subject_names = checked_names("subject", source.subject_names())
        self.unusable: dict[str, str] = {}
        if self.index is not None:
            self.unusable = {name: self.index.left_out[name] for name in self.index.unusable_subjects}
            self.subject_names = list(dict.fromkeys([*self.index.subjects, *self.subject_names]))
        if not self.story_names:
            raise StoreError(f"source {source.name!r} holds no stories; check where it looks for them.")
        n_files = len(self.story_names) + len(self.subject_names)
        self.bar = tqdm(total=n_files, desc=f"store {source.name}", unit="file", disable=not progress)

    def run(self) -> None:
        """Write what is missing, then the index."""
        passed, reference = self.source.response_filter(), _checked_reference(self.source)
        with self.bar:
            self._remove_leftovers()
            with self.reader, threadpool_limits(1):  # reading and computing share the cores; spinning threads would not
                stories = {name: self._story(name) for name in self.story_names}
            spaces = self._common_spaces()
            _require_one_tr(stories)
            asked = [name for name in self.subject_names if name not in self.unusable]
            found = {name: self._subject(name, stories) for name in asked}
        subjects = {name: entry for name, entry in found.items() if entry is not None}
        if not subjects:
            raise StoreError(f"no subject can be used: {json.dumps(self.unusable)}.")
        # Which spaces lack phones is asked once, for it reads all transcripts.
        earlier = self.features.left_out() if self.index is None else self.index.left_out
        index = StoreIndex(
            schema_version=SCHEMA_VERSION if self.index is None else self.index.schema_version,
            name=self.source.name,
            settings=self.settings,
            fingerprint=self.fingerprint,
            stories=stories,
            subjects=subjects,
            feature_spaces=spaces,
            default_roles={role: list(spans) for role, spans in self.source.default_roles().items()},
            left_out={**earlier, **self.source.left_out(), **self.unusable},
            unusable_subjects=sorted(self.unusable),
            facts={**self.source.facts(), **_passed_in_words(passed)},
            response_filter=None if passed is None else passed.to_json(),
            slice_reference=reference,
            before_sound=self.source.before_sound(),
            on_other_clocks=self.source.on_other_clocks(),
            parts=self.source.parts(),
            software={"brainlit": brainlit.__version__, "h5py": version("h5py"), "numpy": version("numpy")},
        )
        write_json(self.path / INDEX_FILE, asdict(index))

    def _remove_leftovers(self) -> None:
        """Remove what an interrupted build left: temporary files, and store files of other settings or sources."""
        wanted = {self.path / STORY_FOLDER / f"{name}.h5": self._story_files(name) for name in self.story_names}
        for name in self.subject_names:
            wanted[self.path / SUBJECT_FOLDER / f"{name}.h5"] = list(self.source.subject_files(name))
        finished = {self.path / entry.file for entry in self.index.files} if self.index else set()
        for folder in (self.path, self.path / STORY_FOLDER, self.path / SUBJECT_FOLDER):
            for file in sorted(folder.glob("*")) if folder.is_dir() else []:
                is_store_file = file.suffix == ".h5" and file not in finished
                if is_temporary(file) or (is_store_file and self._is_stale(file, wanted)):
                    logger.warning("removing %s, left by an interrupted build", file)
                    file.unlink()

    def _is_stale(self, file: Path, wanted: Mapping[Path, Sequence[Path]]) -> bool:
        """Whether a file cannot be used again; refuses to touch a file that no build of ours wrote."""
        try:
            with h5py.File(file, "r", locking=False) as h5:
                is_ours = FINGERPRINT in h5.attrs
                fingerprint = read_text(h5, FINGERPRINT) if is_ours else None
                version = h5.attrs.get("schema_version")
        except DAMAGE:
            logger.warning("%s cannot be read", file)
            return file in wanted
        if fingerprint is None:
            raise StoreError(f"{file} is not a file of a store. Move it away or choose another store folder.")
        if fingerprint != self.fingerprint or version != SCHEMA_VERSION or file not in wanted:
            return True
        return {source.file: source.sha256 for source in remember(wanted[file])} != read_sources(file)

    def _story(self, name: str) -> StoryEntry:
        file = self.path / STORY_FOLDER / f"{name}.h5"

        def write(sources: Sources) -> None:
            story = self.reader.story(name, ahead=self._next_missing(name))
            if story.name != name:
                raise StoreError(f"source {self.source.name!r} gave story {story.name!r} when asked for {name!r}.")
            spaces = self.features.spaces(story, self.source.feature_spaces(story))
            write_story_file(file, story, spaces, self.fingerprint, sources)

        known = None if self.index is None else self.index.stories.get(name)
        return self._ensured(file, known, self._story_files(name), write, read_story_entry)

    def _next_missing(self, name: str) -> str | None:
        """The next story whose file is not there yet."""
        later = self.story_names[self.story_names.index(name) + 1 :]
        return next((other for other in later if not (self.path / STORY_FOLDER / f"{other}.h5").exists()), None)

    def _story_files(self, name: str) -> list[Path]:
        return [*self.source.story_files(name), *self.features.files()]

    def _subject(self, name: str, stories: Mapping[str, StoryEntry]) -> SubjectEntry | None:
        file = self.path / SUBJECT_FOLDER / f"{name}.h5"
        n_trs_of = {story: entry.n_trs for story, entry in stories.items()}

        def write(sources: Sources) -> None:
            subject = self.source.subject(name)
            if subject.name != name:
                raise StoreError(f"source {self.source.name!r} gave subject {subject.name!r} when asked for {name!r}.")
            heard = ((story, self.source.responses(name, story)) for story in n_trs_of)
            write_subject_file(file, subject, heard, n_trs_of, self.fingerprint, sources)

        known = None if self.index is None else self.index.subjects.get(name)
        try:
            return self._ensured(file, known, self.source.subject_files(name), write, read_subject_entry)
        except SubjectLeftOut as reason:
            self.bar.update()
            logger.warning("%s is left out: %s", name, reason)
            self.unusable[name] = str(reason)
            return None

    def _ensured(
        self,
        file: Path,
        known: Entry | None,
        files: Sequence[Path],
        write: Callable[[Sources], None],
        read: Callable[[Path, FileEntry], Entry],
    ) -> Entry:
        """The entry of a file of the store: as it was, or of the file that is there, or of one written now."""
        self.bar.set_postfix_str(file.stem)
        if known is not None and file.exists():
            self.bar.update()
            return replace(known, sources=_remember_again(files, known.sources))
        with ThreadPoolExecutor(max_workers=1) as worker:
            remembered = worker.submit(remember, files)
            if file.exists():
                logger.info("using %s again", file)
            else:
                write(remembered.result)
            sources = remembered.result()
        self.bar.update()
        place, n_bytes = file.relative_to(self.path).as_posix(), file.stat().st_size
        return read(file, FileEntry(place, n_bytes, sha256_of(file), sources))

    def _common_spaces(self) -> list[SpaceEntry]:
        """The feature spaces, after checking that all stories have the same ones with the same columns."""
        first, *others = self.story_names
        reference = read_spaces(self.path / STORY_FOLDER / f"{first}.h5")
        for other in others:
            _require_same_spaces(first, reference, other, read_spaces(self.path / STORY_FOLDER / f"{other}.h5"))
        return [SpaceEntry(name, kind, len(columns), source, rate) for name, kind, columns, source, rate in reference]


def _remember_again(files: Sequence[Path], known: Sequence[SourceFile]) -> list[SourceFile]:
    """What is remembered of sources whose content is known to be the same, with their present times."""
    there = {label: path.stat() for label, path in zip(labels_of(files), files, strict=True) if path.is_file()}
    return [
        replace(source, mtime_ns=there[source.file].st_mtime_ns) if source.file in there else source for source in known
    ]


def _passed_in_words(passed: ResponseFilter | None) -> dict[str, str]:
    return {"responses passed": "not known" if passed is None else passed.in_words}


def _checked_reference(source: StorySource) -> float:
    reference = source.slice_reference()
    if not 0 <= reference <= 1:
        raise StoreError(
            f"slice_reference of {source.name!r} is {reference}; need a part of the TR, 0 (its start) to 1 (its end)."
        )
    return float(reference)


def _require_one_tr(stories: Mapping[str, StoryEntry]) -> None:
    """Windows of one data set have one length, so its stories share one nominal TR."""
    by_tr = {entry.tr_s: name for name, entry in stories.items()}
    if len(by_tr) > 1:
        raise StoreError(
            f"stories differ in tr_s: {json.dumps({name: tr_s for tr_s, name in by_tr.items()})}. Give all stories the"
            " nominal TR of the protocol (their logged TR starts may still differ), or build one store per TR."
        )


def _require_same_spaces(first: str, reference: Spaces, other: str, spaces: Spaces) -> None:
    names, other_names = [space[0] for space in reference], [space[0] for space in spaces]
    if names != other_names:
        raise StoreError(
            f"story {first!r} has feature spaces {names}, story {other!r} has {other_names}; all stories of a store"
            " need the same. Leave the odd story or the odd space out (without phone times there are no phone spaces)."
        )
    for left, right in zip(reference, spaces, strict=True):
        if left[1:3] != right[1:3]:
            raise StoreError(
                f"feature space {left[0]!r} is {left[1]} with {len(left[2])} columns in story {first!r} and {right[1]}"
                f" with {len(right[2])} in {other!r}, or its columns have other names; they must agree."
            )
        if left[4] != right[4]:
            raise StoreError(
                f"feature space {left[0]!r} has {left[4] or 'no values'} at its own rate in story {first!r} and"
                f" {right[4] or 'no values'} in {other!r}; all stories of a store need the same."
            )


# --- Reading ahead ---


class StoryReader:
    """Asks a source for stories, one ahead of what is needed; never for two things at once.

    Sound is resampled on one core while features are computed and written on another. Use as a context manager:
    leaving it waits for a story that is still being read.
    """

    def __init__(self, source: StorySource) -> None:
        self.source = source
        self._one_at_a_time = Lock()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._coming: dict[str, Future[Story]] = {}

    def __enter__(self) -> StoryReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def story(self, name: str, ahead: str | None = None) -> Story:
        """A story, now; the one to read `ahead` comes in the background, and its errors when it is asked for."""
        story = (self._coming.pop(name, None) or self._thread.submit(self._story, name)).result()
        if ahead is not None:
            self._coming[ahead] = self._thread.submit(self._story, ahead)
        return story

    def phones(self, name: str) -> Intervals | None:
        """Phones of a story."""
        with self._one_at_a_time:
            return self.source.phones(name)

    def _story(self, name: str) -> Story:
        with self._one_at_a_time:
            return self.source.story(name)
