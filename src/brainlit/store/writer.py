"""Build a store from a source: one file at a time, whole or absent, resumable after any interruption."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import h5py
from tqdm import tqdm  # type: ignore[import-untyped]

import brainlit
from brainlit.store.atomic import is_temporary, sha256_of, waiting_lock, write_json
from brainlit.store.files import (
    FINGERPRINT,
    Spaces,
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
    SpaceEntry,
    StoreError,
    StoreIndex,
    StoryEntry,
    SubjectEntry,
    checked_names,
    fingerprint_of,
    read_index,
    refuse_other_settings,
    settings_of,
)
from brainlit.stories import StorySource

logger = logging.getLogger(__name__)

Entry = TypeVar("Entry", StoryEntry, SubjectEntry)


def build_store(source: StorySource, path: Path | str, progress: bool = True) -> StoryStore:
    """Write what a source holds into the folder `path` and open it; a finished store is opened at once.

    Safe to interrupt at any point and to start twice: each file is whole or absent, a second process waits for the
    first, and files that an interrupted build finished are used again if the settings are the same.

    Parameters
    ----------
    source : StorySource
        Asked for one story, then for one subject's responses to one story at a time.
    path : Path or str
        The store's folder; made if missing.
    progress : bool
        Show a progress bar.

    Raises
    ------
    StoreSettingsError
        If the folder holds a store made with other settings.
    StoreError
        If the source's parts do not fit each other (the message names story, subject, numbers and cure).
    FullDiskError
        If the disk has no room for the next file.
    """
    path = Path(path)
    settings = settings_of(source)
    if not _is_complete(path, settings):
        path.mkdir(parents=True, exist_ok=True)
        with waiting_lock(path / LOCK_FILE, f"another process is building the store {path}"):
            if not _is_complete(path, settings):
                _Build(source, path, settings, progress).run()
    return StoryStore.open(path)


def _is_complete(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a store with these settings is there with all its files; refuses one with other settings."""
    index = read_index(path)
    if index is None:
        return False
    refuse_other_settings(path, index.settings, settings)
    return all((path / entry.file).exists() for entry in index.files)


class _Build:
    """One build under the lock; `run` leaves a finished store or raises with the finished files kept."""

    def __init__(self, source: StorySource, path: Path, settings: dict[str, Any], progress: bool) -> None:
        self.source, self.path, self.settings = source, path, settings
        self.fingerprint = fingerprint_of(settings)
        self.story_names = checked_names("story", source.story_names())
        self.subject_names = checked_names("subject", source.subject_names())
        if not self.story_names:
            raise StoreError(f"source {source.name!r} holds no stories; check where it looks for them.")
        n_files = len(self.story_names) + len(self.subject_names)
        self.bar = tqdm(total=n_files, desc=f"store {source.name}", unit="file", disable=not progress)

    def run(self) -> None:
        """Write what is missing, then the index."""
        with self.bar:
            self._remove_leftovers()
            stories = {name: self._story(name) for name in self.story_names}
            spaces = self._common_spaces()
            _require_one_tr(stories)
            subjects = {name: self._subject(name, stories) for name in self.subject_names}
        index = StoreIndex(
            schema_version=SCHEMA_VERSION,
            name=self.source.name,
            settings=self.settings,
            fingerprint=self.fingerprint,
            stories=stories,
            subjects=subjects,
            feature_spaces=spaces,
            default_roles={role: list(spans) for role, spans in self.source.default_roles().items()},
            left_out=dict(self.source.left_out()),
            software={"brainlit": brainlit.__version__, "h5py": version("h5py"), "numpy": version("numpy")},
        )
        write_json(self.path / INDEX_FILE, index.to_json())

    def _remove_leftovers(self) -> None:
        """Remove what an interrupted build left: temporary files, and store files of other settings."""
        wanted = {self.path / STORY_FOLDER / f"{name}.h5" for name in self.story_names}
        wanted |= {self.path / SUBJECT_FOLDER / f"{name}.h5" for name in self.subject_names}
        for folder in (self.path, self.path / STORY_FOLDER, self.path / SUBJECT_FOLDER):
            for file in sorted(folder.glob("*")) if folder.is_dir() else []:
                if is_temporary(file) or (file.suffix == ".h5" and self._is_stale(file, wanted)):
                    logger.warning("removing %s, left by an interrupted build", file)
                    file.unlink()

    def _is_stale(self, file: Path, wanted: set[Path]) -> bool:
        """Whether a file cannot be used again; refuses to touch a file that no build of ours wrote."""
        try:
            with h5py.File(file, "r", locking=False) as h5:
                fingerprint = h5.attrs.get(FINGERPRINT)
        except OSError:
            logger.warning("%s cannot be read", file)
            return file in wanted
        if fingerprint is None:
            raise StoreError(f"{file} is not a file of a store. Move it away or choose another store folder.")
        return fingerprint != self.fingerprint or file not in wanted

    def _story(self, name: str) -> StoryEntry:
        file = self.path / STORY_FOLDER / f"{name}.h5"

        def write() -> None:
            story = self.source.story(name)
            if story.name != name:
                raise StoreError(f"source {self.source.name!r} gave story {story.name!r} when asked for {name!r}.")
            write_story_file(file, story, self.source.feature_spaces(story), self.fingerprint)

        self._ensure(file, write)
        return _sealed(read_story_entry(file), self.path, file)

    def _subject(self, name: str, stories: Mapping[str, StoryEntry]) -> SubjectEntry:
        file = self.path / SUBJECT_FOLDER / f"{name}.h5"
        n_trs_of = {story: entry.n_trs for story, entry in stories.items()}

        def write() -> None:
            subject = self.source.subject(name)
            if subject.name != name:
                raise StoreError(f"source {self.source.name!r} gave subject {subject.name!r} when asked for {name!r}.")
            heard = ((story, self.source.responses(name, story)) for story in n_trs_of)
            write_subject_file(file, subject, heard, n_trs_of, self.fingerprint)

        self._ensure(file, write)
        return _sealed(read_subject_entry(file), self.path, file)

    def _ensure(self, file: Path, write: Callable[[], None]) -> None:
        self.bar.set_postfix_str(file.stem)
        if file.exists():
            logger.info("using %s again", file)
        else:
            write()
        self.bar.update()

    def _common_spaces(self) -> list[SpaceEntry]:
        """The feature spaces, after checking that all stories have the same ones with the same columns."""
        first, *others = self.story_names
        reference = read_spaces(self.path / STORY_FOLDER / f"{first}.h5")
        for other in others:
            _require_same_spaces(first, reference, other, read_spaces(self.path / STORY_FOLDER / f"{other}.h5"))
        return [SpaceEntry(name, kind, len(columns), source) for name, kind, columns, source in reference]


def _sealed(entry: Entry, path: Path, file: Path) -> Entry:
    """The entry with the file's place, size and hash."""
    return replace(entry, file=file.relative_to(path).as_posix(), n_bytes=file.stat().st_size, sha256=sha256_of(file))


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
