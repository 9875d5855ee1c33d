"""What a store's files are called and hold, the files it was made from, and the errors that say what is wrong with one.

A story file: `audio` (int16, contiguous) and `audio_crc32` of its blocks, `words/` and perhaps `phones/` (`labels` as
UTF-8 bytes, `start_s`, `duration_s`), `tr_starts_s`, `features/<space>` (float32), and for spaces that have a rate of
their own `timed/<space>/` (`values` as float32, `times_s`, and `duration_s` as an attribute where they are frames). A
subject file: `responses/<story>` (float32, one row is one read; of several presentations, each z-scored, the mean,
which is not z-scored again), `repeats/<story>` (of a group, with its `members`), `good_voxels`, and perhaps `vertices`,
`coordinates_mm`, `regions/`, `truth/`. Both carry checksums as `brainlit.hdf5` writes them.

Source files are remembered by size, time and SHA-256, so that a changed one is noticed. A store opens again without
reading them: where size and time of modification are as remembered, the content is taken to be. Sources that were
deleted after the store was made are not missed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from brainlit.files import sha256_of
from brainlit.guard import UnreadableFileError, read_json
from brainlit.hints import did_you_mean
from brainlit.stories import StorySource

SCHEMA_VERSION = 5
"""5: every array, text and structure has a checksum."""
_NUMBERS_VERSION = 4
"""The first version with the same numbers. 4: the mean of several presentations is stored in units of one; before, it
was z-scored once more."""
INDEX_FILE = "store.json"
LOCK_FILE = ".build.lock"
STORY_FOLDER = "stories"
SUBJECT_FOLDER = "subjects"
ROWS_PER_CHUNK = 8
log = logging.getLogger(__name__)
_NAME = re.compile(r"\w[\w.+\-]*")


class StoreError(RuntimeError):
    """A store cannot be built or read; the message says what to do."""


class StoreSettingsError(StoreError):
    """A store exists and was made with other settings.

    Attributes
    ----------
    key : str
        First setting that differs, dotted where settings are nested.
    stored, asked : JSON values
        What the store was made with, and what is asked for now; None where one side lacks the key.
    """

    def __init__(self, path: Path, key: str, stored: Any, asked: Any, cure: str = "Use the old setting") -> None:
        self.key, self.stored, self.asked = key, stored, asked
        super().__init__(
            f"the store {path} was made with {key}={json.dumps(stored)}, but {key}={json.dumps(asked)} is asked for."
            f" {cure}, or choose another store folder (or delete this one to make it anew)."
        )


class UnknownNameError(StoreError, LookupError):
    """A story, subject or feature space that the store does not hold; the message names the nearest one."""


class StoreCorruptError(StoreError):
    """A file of a finished store is missing, cut short, changed or unreadable."""

    def __init__(self, file: Path, problem: str) -> None:
        self.file = file
        super().__init__(
            f"{file} {problem}. Delete this file (if it is there) and build the store again with the same settings:"
            " only this file is made anew."
        )


# --- The index ---


@dataclass(frozen=True)
class FileEntry:
    """Place inside the store, size and SHA-256 of one file, and the files that it was made from."""

    file: str
    n_bytes: int
    sha256: str
    sources: list[SourceFile]


@dataclass(frozen=True)
class StoryEntry(FileEntry):
    """What the index says about one story file; times in seconds.

    Parameters
    ----------
    sound_notes : list of mappings
        What was done to the sound, as `brainlit.stories.SoundNote` has it.
    """

    n_trs: int
    tr_s: float
    n_samples: int
    sample_rate_hz: int
    n_words: int
    sound_notes: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SubjectEntry(FileEntry):
    """What the index says about one subject file.

    Parameters
    ----------
    n_good_voxels : int
        Voxels that are finite and not constant in every story the subject heard.
    stories : list of str
        The stories that the subject heard.
    repeats : mapping of story to number of presentations
        Only stories that were heard more than once.
    members : mapping of story to list of str
        Of a group, whose responses its presentations are; empty for a person.
    """

    n_voxels: int
    n_good_voxels: int
    stories: list[str]
    repeats: dict[str, int]
    members: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class SpaceEntry:
    """One feature space as all stories of the store have it.

    Parameters
    ----------
    own_rate : 'frames', 'events' or None
        What `StoryStore.timed` gives; None where the space is known per TR only.
    """

    name: str
    kind: str
    n_features: int
    source: str
    own_rate: str | None


@dataclass(frozen=True)
class StoreIndex:
    """The content of store.json; it is written last, so a folder without it is no store (yet).

    Parameters
    ----------
    left_out : mapping of subject, story or part to reason
    unusable_subjects : list of str
        Those of `left_out` who were asked for and of whom nothing could be used.
    facts : mapping
        What every report says of the data, in words.
    response_filter : mapping or None
        What the responses passed (`ResponseFilter.to_json`); None where it is not known.
    before_sound : 'silence' or 'mean'
        What responses count as having preceded the sound.
    slice_reference : float
        Part of the TR that the values of a volume belong to.
    on_other_clocks : mapping of story to story
        Stories that are another one (its sound, its words) in the rows of subjects for whom it began at another time.
    parts : mapping of story to story
        Stories that are one run of a story that was told over several.
    """

    schema_version: int
    name: str
    settings: dict[str, Any]
    fingerprint: str
    stories: dict[str, StoryEntry]
    subjects: dict[str, SubjectEntry]
    feature_spaces: list[SpaceEntry]
    default_roles: dict[str, list[str]]
    left_out: dict[str, str]
    unusable_subjects: list[str]
    facts: dict[str, str]
    response_filter: dict[str, Any] | None
    slice_reference: float
    before_sound: str
    software: dict[str, str]
    on_other_clocks: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> list[FileEntry]:
        """The entries of all files, stories first."""
        return [*self.stories.values(), *self.subjects.values()]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StoreIndex:
        """The inverse of `dataclasses.asdict`."""
        parts = dict(content)
        parts["stories"] = {name: StoryEntry(**_with_sources(entry)) for name, entry in parts["stories"].items()}
        parts["subjects"] = {name: SubjectEntry(**_with_sources(entry)) for name, entry in parts["subjects"].items()}
        parts["feature_spaces"] = [SpaceEntry(**entry) for entry in parts["feature_spaces"]]
        return cls(**parts)


def _with_sources(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "sources": [SourceFile(**source) for source in entry["sources"]]}


def read_index(path: Path) -> StoreIndex | None:
    """The index of a store; None if the folder holds no finished store.

    Raises
    ------
    StoreCorruptError
        If store.json is there but is not one, is not what was written, or names files outside the store.
    StoreError
        If it was written by another version of the schema, or holds a name that no story or subject can have.
    """
    file = path / INDEX_FILE
    try:
        content = read_json(file, "the index of a story store", "")
    except FileNotFoundError:
        return None
    except UnreadableFileError as error:
        raise StoreCorruptError(file, str(error).removeprefix(f"{file} ").rstrip(". ")) from error
    version = content.get("schema_version")
    if version not in range(_NUMBERS_VERSION, SCHEMA_VERSION + 1):
        raise StoreError(
            f"{file} has schema version {version}, this software reads {_NUMBERS_VERSION} to {SCHEMA_VERSION}. Build"
            " the store again in a new folder, or use the software that made it."
        )
    try:
        index = StoreIndex.from_json(content)
        _refuse_other_places(file, index)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreCorruptError(file, f"lacks or exceeds what a store index holds ({error})") from error
    if index.schema_version < SCHEMA_VERSION:
        _say_unchecked(path)
    return index


def _refuse_other_places(file: Path, index: StoreIndex) -> None:
    """The files of a store lie where its names say: an index that somebody sent leads nowhere else."""
    for what, folder, entries in (
        ("story", STORY_FOLDER, index.stories),
        ("subject", SUBJECT_FOLDER, index.subjects),
    ):
        checked_names(what, entries)
        for name, entry in entries.items():
            place = f"{folder}/{name}.h5"
            if entry.file != place:
                raise StoreCorruptError(file, f"says that {what} {name!r} lies in {entry.file!r}, not in {place!r}")


@lru_cache(maxsize=1024)
def _say_unchecked(path: Path) -> None:
    """Once per process and store."""
    log.warning(
        "the store %s is of before checksums: damage to its files is found by `brainlit data check`, not while they are"
        " read. Built again in a new folder it has them.",
        path,
    )


# --- Settings and names ---


def settings_of(source: StorySource, features: Mapping[str, Any]) -> dict[str, Any]:
    """Name and settings of the source, its list of stories and the choice of features, as plain JSON, keys sorted.

    Raises
    ------
    TypeError
        If a setting is not a JSON value (say, a numpy array or a Path).
    """
    own = {"source": source.name, "stories": list(source.story_names()), **source.settings()}
    settings = {**own, "features": dict(features)}
    try:
        text = json.dumps(settings, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"settings() of {type(source).__name__} must be plain JSON values: {error}.") from error
    plain: dict[str, Any] = json.loads(text)
    return plain


def fingerprint_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 of the settings and of what the numbers mean; files with the same fingerprint are interchangeable."""
    text = json.dumps({"schema_version": _NUMBERS_VERSION, "settings": settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_other_settings(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise StoreSettingsError for the first setting (in sorted order) that differs."""
    left, right = dict(_flat(stored)), dict(_flat(asked))
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key) or (key in left) != (key in right):
            raise StoreSettingsError(path, key, left.get(key), right.get(key))


def checked_names(what: str, names: Iterable[str]) -> list[str]:
    """The names as a list, after checking that each can be a file name, a data set name and part of a span.

    Raises
    ------
    StoreError
        If a name is repeated or holds anything but letters, digits and _ . + -
    """
    listed = list(names)
    for name in listed:
        if not _NAME.fullmatch(name):
            raise StoreError(f"{what} name {name!r}: use letters, digits and _ . + - only, starting with one of _ a 1.")
    lowered = [name.lower() for name in listed]
    doubled = sorted({name for name in listed if lowered.count(name.lower()) > 1})
    if doubled:
        raise StoreError(
            f"{what} names {doubled} are one name (upper and lower case are not told apart in file names)."
        )
    return listed


def unknown_name(what: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not there, with the nearest that is."""
    return UnknownNameError(f"there is no {what} {name!r} in this store. {did_you_mean(name, known)}")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- The files that a store was made from ---


@dataclass(frozen=True)
class SourceFile:
    """One file that went into a store.

    Parameters
    ----------
    file : str
        Its name, with as many of its folders as tell it from the other sources of the same part.
    """

    file: str
    n_bytes: int
    mtime_ns: int
    sha256: str


def remember(files: Sequence[Path]) -> list[SourceFile]:
    """Read and hash each file.

    Raises
    ------
    FileNotFoundError
        If one is not there.
    """
    return [
        SourceFile(label, stat.st_size, stat.st_mtime_ns, _sha256(path, stat.st_size, stat.st_mtime_ns))
        for label, path in zip(labels_of(files), files, strict=True)
        for stat in [path.stat()]
    ]


def labels_of(files: Sequence[Path]) -> list[str]:
    """The name of each file, with as many of its folders as all names need to differ.

    Labels stay the same when the whole data set moves to another folder.

    >>> labels_of([Path("/data/a/x.wav"), Path("/data/b/x.wav"), Path("y.txt")])
    ['a/x.wav', 'b/x.wav', 'y.txt']
    """
    parts = [path.absolute().parts for path in dict.fromkeys(files)]
    depths = [1] * len(parts)
    while True:
        labels = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        doubled = [labels.count(label) > 1 for label in labels]
        if not any(doubled):
            return labels
        depths = [depth + again for depth, again in zip(depths, doubled, strict=True)]


def changed(files: Sequence[Path], remembered: Sequence[SourceFile]) -> tuple[str, str | None, str] | None:
    """The first file that is not as it was: its label, remembered and present SHA-256; None if there is none.

    A file that is no longer there counts as unchanged, one whose size and time agree is not read, one that was not
    there when the store was made has no remembered SHA-256.
    """
    for label, (path, before) in touched(files, remembered).items():
        now = sha256_of(path)
        if before != now:
            return label, before, now
    return None


def touched(files: Sequence[Path], remembered: Sequence[SourceFile]) -> dict[str, tuple[Path, str | None]]:
    """By label, the files that are there with another size or time than remembered, and their remembered SHA-256."""
    known = {source.file: source for source in remembered}
    differ = {}
    for label, path in zip(labels_of(files), files, strict=True):
        if path.is_file():
            stat, source = path.stat(), known.get(label)
            if source is None or (stat.st_size, stat.st_mtime_ns) != (source.n_bytes, source.mtime_ns):
                differ[label] = path, source.sha256 if source else None
    return differ


@lru_cache(maxsize=1024)
def _sha256(path: Path, n_bytes: int, mtime_ns: int) -> str:
    """Hash of a file that many parts share (word vectors), read once per process while size and time stay."""
    return sha256_of(path)
