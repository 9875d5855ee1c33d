"""Read a store: files open when first asked for, once per process, so that loader workers never share a handle."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import numpy.typing as npt

from brainlit.guard import DAMAGE
from brainlit.hdf5 import members, read_json_text, read_text, refuse_outside
from brainlit.store.schema import (
    INDEX_FILE,
    SpaceEntry,
    StoreCorruptError,
    StoreError,
    StoreIndex,
    StoryEntry,
    SubjectEntry,
    read_index,
    unknown_name,
)
from brainlit.store.sound import SoundInFile
from brainlit.stories import FeatureKind, FeatureSpace, Intervals, ResponseFilter, Subject, TimedValues
from brainlit.stories.base import BoolArray, Float32Array, IntArray
from brainlit.timebase import TimeBase

_MAX_OPEN_FILES = 128


class StoryStore:
    """A finished store, opened by `StoryStore.open`; cheap to copy to another process.

    Attributes
    ----------
    index : StoreIndex
        The content of store.json.
    """

    def __init__(self, path: Path, index: StoreIndex) -> None:
        self.path, self.index = path, index
        self._forget()

    @classmethod
    def open(cls, path: Path | str) -> StoryStore:
        """Open a store after comparing the size of each file with the index.

        Raises
        ------
        StoreError
            If the folder holds no finished store, or one of another schema version.
        StoreCorruptError
            If a file is missing or has another size than when it was written.
        """
        path = Path(path)
        index = read_index(path)
        if index is None:
            raise StoreError(f"there is no finished store at {path} (no {INDEX_FILE}); build it with build_store.")
        for entry in index.files:
            file = path / entry.file
            if not file.exists():
                raise StoreCorruptError(file, "is missing")
            if file.stat().st_size != entry.n_bytes:
                raise StoreCorruptError(file, f"has {file.stat().st_size} bytes, it was written with {entry.n_bytes}")
        return cls(path, index)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "index": self.index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.index = state["path"], state["index"]
        self._forget()

    def close(self) -> None:
        """Close all files; they open again when asked for."""
        while self._open_files:
            self._close_oldest()

    # What the index knows

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.index.name

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that the store was made with."""
        return self.index.settings

    @property
    def fingerprint(self) -> str:
        """SHA-256 of settings and schema version."""
        return self.index.fingerprint

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file when it was written, by path inside the store."""
        return {entry.file: entry.sha256 for entry in self.index.files}

    @property
    def story_names(self) -> list[str]:
        """All stories, in the source's order."""
        return list(self.index.stories)

    @property
    def subject_names(self) -> list[str]:
        """All subjects."""
        return list(self.index.subjects)

    @property
    def feature_space_entries(self) -> list[SpaceEntry]:
        """Name, kind, size and source of the feature spaces, the same for every story."""
        return list(self.index.feature_spaces)

    @property
    def default_roles(self) -> dict[str, list[str]]:
        """Which stories or spans tune, fit, choose and score if nothing else is said."""
        return {role: list(spans) for role, spans in self.index.default_roles.items()}

    @property
    def on_other_clocks(self) -> dict[str, str]:
        """Stories that are another one in the rows of subjects for whom it began at another time."""
        return dict(self.index.on_other_clocks)

    @property
    def parts(self) -> dict[str, str]:
        """Stories that are one run of a story that was told over several."""
        return dict(self.index.parts)

    @property
    def left_out(self) -> dict[str, str]:
        """Subjects or parts that the source refused, with reasons."""
        return dict(self.index.left_out)

    @property
    def facts(self) -> dict[str, str]:
        """What every report says of the data: clock, preprocessing, licence."""
        return dict(self.index.facts)

    @property
    def response_filter(self) -> ResponseFilter | None:
        """What the responses passed over time; None where it is not known."""
        said = self.index.response_filter
        return None if said is None else ResponseFilter.from_json(said)

    @property
    def before_sound(self) -> str:
        """What responses count as having preceded the sound: 'silence' or the story's 'mean'."""
        return self.index.before_sound

    @property
    def slice_reference(self) -> float:
        """Part of the TR that the values of a volume belong to: 0 its start, 1 its end."""
        return self.index.slice_reference

    @property
    def tr_s(self) -> float:
        """Nominal repetition time in seconds, the same for every story."""
        return next(iter(self.index.stories.values())).tr_s

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of all audio."""
        return next(iter(self.index.stories.values())).sample_rate_hz

    def n_trs(self, story: str) -> int:
        """Number of rows of a story."""
        return self._story(story).n_trs

    def n_samples(self, story: str) -> int:
        """Number of audio samples of a story."""
        return self._story(story).n_samples

    def n_voxels(self, subject: str) -> int:
        """Number of response columns of a subject."""
        return self._subject(subject).n_voxels

    def heard(self, subject: str) -> list[str]:
        """Stories that a subject heard."""
        return list(self._subject(subject).stories)

    def n_repeats(self, subject: str, story: str) -> int:
        """How often a subject heard a story, 0 for never; several only where the single presentations are kept."""
        self._story(story)
        entry = self._subject(subject)
        return entry.repeats.get(story, int(story in entry.stories))

    def members(self, subject: str) -> dict[str, list[str]]:
        """Of a group, whose mean its responses to each story are; empty for a person."""
        return {story: list(names) for story, names in self._subject(subject).members.items()}

    # Stories

    def timebase(self, story: str) -> TimeBase:
        """The story's clock."""
        if story not in self._timebases:
            with self._reading(self._story(story)) as h5:
                starts_s, tr_s, rate = h5["tr_starts_s"][:], float(h5.attrs["tr_s"]), int(h5.attrs["sample_rate_hz"])
            self._timebases[story] = TimeBase(starts_s, tr_s, rate)
        return self._timebases[story]

    def words(self, story: str) -> Intervals:
        """Words with their times."""
        with self._reading(self._story(story)) as h5:
            return _intervals(h5["words"])

    def phones(self, story: str) -> Intervals | None:
        """Phones with their times; None where the source has none."""
        with self._reading(self._story(story)) as h5:
            return _intervals(h5["phones"]) if "phones" in h5 else None

    def audio(self, story: str, start_sample: int, stop_sample: int) -> npt.NDArray[np.int16]:
        """Samples start .. stop - 1 as int16; zeros before the first and after the last sample of the story."""
        out = np.zeros(max(stop_sample - start_sample, 0), dtype=np.int16)
        self.read_audio(story, start_sample, out)
        return out

    def read_audio(self, story: str, start_sample: int, out: npt.NDArray[np.int16]) -> slice:
        """Read len(out) samples from start_sample on into a contiguous array; outside the story it stays as it is.

        Returns
        -------
        slice
            The part of `out` that the story covers.
        """
        entry = self._story(story)
        start = min(max(-start_sample, 0), len(out))
        stop = max(min(len(out), entry.n_samples - start_sample), start)
        if stop > start:
            with self._reading(entry) as h5:
                if entry.file not in self._sounds:
                    self._sounds[entry.file] = SoundInFile(h5)
                self._sounds[entry.file].read(start_sample + start, out[start:stop])
        return slice(start, stop)

    def feature_spaces(self, story: str) -> list[FeatureSpace]:
        """All feature spaces of a story with their values per TR; `timed` reads those at their own rate."""
        with self._reading(self._story(story)) as h5:
            return [_feature_space(name, dataset) for name, dataset in members(h5["features"])]

    def timed(self, story: str, space: str) -> TimedValues | None:
        """A feature space of a story at its own rate; None where it is known per TR only."""
        known = [entry.name for entry in self.index.feature_spaces]
        if space not in known:
            raise unknown_name("feature space", space, known)
        with self._reading(self._story(story)) as h5:
            group = h5["timed"].get(space)
            if group is None:
                return None
            duration_s = group.attrs.get("duration_s")
            values, times_s = group["values"][:], group["times_s"][:]
        return TimedValues(values, times_s, None if duration_s is None else float(duration_s))

    def spaces_of(self, kind: FeatureKind) -> list[str]:
        """Names of all feature spaces of one kind."""
        return [entry.name for entry in self.index.feature_spaces if entry.kind == kind]

    def band(self, story: str, which: FeatureKind | Sequence[str]) -> Float32Array:
        """All spaces of one kind, or those named, side by side, (n_trs, n_features); no columns if there is none."""
        names = self._named(which)
        with self._reading(self._story(story)) as h5:
            parts = [h5["features"][name][:] for name in names]
        return np.concatenate([np.zeros((self.n_trs(story), 0), dtype=np.float32), *parts], axis=1)

    def band_columns(self, which: FeatureKind | Sequence[str]) -> list[str]:
        """Names of the columns of `band`, as 'space/column'."""
        first = {space.name: space for space in self.feature_spaces(self.story_names[0])}
        return [f"{name}/{column}" for name in self._named(which) for column in first[name].columns]

    def _named(self, which: FeatureKind | Sequence[str]) -> list[str]:
        if isinstance(which, str):
            return self.spaces_of(cast("FeatureKind", which))
        known = [entry.name for entry in self.index.feature_spaces]
        for name in which:
            if name not in known:
                raise unknown_name("feature space", name, known)
        return list(which)

    # Subjects

    def subject(self, name: str) -> Subject:
        """Voxels, regions and places of a subject."""
        with self._reading(self._subject(name)) as h5:
            n_voxels = int(h5.attrs["n_voxels"])
            regions = {region: mask[:] for region, mask in members(h5["regions"])}
            places = {key: h5[key][:] if key in h5 else None for key in ("vertices", "coordinates_mm")}
            truth = {key: _array(values) for key, values in members(h5["truth"])}
        return Subject(name=name, n_voxels=n_voxels, regions=regions, truth=truth, **places)

    def good_voxels(self, subject: str) -> BoolArray:
        """Voxels that are finite and not constant in every story the subject heard, shape (n_voxels,)."""
        with self._reading(self._subject(subject)) as h5:
            return cast("BoolArray", h5["good_voxels"][:])

    def responses(
        self, subject: str, story: str, start: int = 0, stop: int | None = None, voxels: IntArray | None = None
    ) -> Float32Array | None:
        """Rows start .. stop - 1 of a subject's responses, shape (n_rows, n_voxels); None if the story was not heard.

        Parameters
        ----------
        start, stop : int
            Rows of the story; stop None is its end.
        voxels : int array or None
            Columns to return, in this order; None returns all.

        Raises
        ------
        IndexError
            If the rows are not all inside the story.
        """
        entry, n_trs = self._subject(subject), self.n_trs(story)
        last = n_trs if stop is None else stop
        if not 0 <= start <= last <= n_trs:
            raise IndexError(f"rows {start}..{last} are not inside story {story!r} of {n_trs} TRs.")
        if story not in entry.stories:
            return None
        with self._reading(entry) as h5:
            key = (entry.file, story)
            if key not in self._rows:
                self._rows[key] = h5["responses"][story]
            rows = cast("Float32Array", self._rows[key][start:last])
        return rows if voxels is None else rows[:, voxels]

    def repeats(
        self, subject: str, story: str, voxels: slice = slice(None), repeats: slice = slice(None)
    ) -> Float32Array | None:
        """The single presentations, shape (n_repeats, n_trs, n_voxels); None if the story was not heard repeatedly.

        Parameters
        ----------
        voxels, repeats : slice
            What to read of them: ten repeats of a whole brain are more than a gigabyte.
        """
        entry = self._subject(subject)
        self._story(story)
        if story not in entry.repeats:
            return None
        with self._reading(entry) as h5:
            return cast("Float32Array", h5["repeats"][story][repeats, :, voxels])

    # Files

    def _story(self, name: str) -> StoryEntry:
        if name not in self.index.stories:
            raise unknown_name("story", name, self.index.stories)
        return self.index.stories[name]

    def _subject(self, name: str) -> SubjectEntry:
        if name not in self.index.subjects:
            raise unknown_name("subject", name, self.index.subjects)
        return self.index.subjects[name]

    def _forget(self) -> None:
        self._open_files: OrderedDict[str, Any] = OrderedDict()
        self._sounds: dict[str, SoundInFile] = {}
        self._rows: dict[tuple[str, str], Any] = {}
        self._timebases: dict[str, TimeBase] = {}
        self._process_id = os.getpid()

    @contextmanager
    def _reading(self, entry: StoryEntry | SubjectEntry) -> Iterator[Any]:
        """The open file of an entry; what HDF5 cannot read becomes a StoreCorruptError."""
        try:
            yield self._opened(entry.file)
        except (StoreError, MemoryError):
            raise
        except DAMAGE as error:
            raise StoreCorruptError(self.path / entry.file, f"cannot be read ({error})") from error

    def _close_oldest(self) -> None:
        file, h5 = self._open_files.popitem(last=False)
        self._sounds.pop(file, None)
        self._rows = {key: rows for key, rows in self._rows.items() if key[0] != file}
        h5.close()

    def _opened(self, file: str) -> Any:
        if self._process_id != os.getpid():
            self.close()  # forked: closes this process's copies of the parent's handles, the parent keeps its own
            self._process_id = os.getpid()
        if file not in self._open_files:
            if len(self._open_files) >= _MAX_OPEN_FILES:
                self._close_oldest()
            h5 = h5py.File(self.path / file, "r", locking=False)
            try:
                refuse_outside(h5)
            except BaseException:
                h5.close()
                raise
            self._open_files[file] = h5
        self._open_files.move_to_end(file)
        return self._open_files[file]


def _intervals(group: Any) -> Intervals:
    labels = tuple(label.decode("utf-8") for label in group["labels"][:].tolist())
    return Intervals(labels, group["start_s"][:], group["duration_s"][:])


def _feature_space(name: str, dataset: Any) -> FeatureSpace:
    columns, coverage = tuple(read_json_text(dataset, "columns")), float(dataset.attrs["coverage"])
    kind = cast("FeatureKind", read_text(dataset, "kind"))
    return FeatureSpace(name, kind, columns, read_text(dataset, "source"), dataset[:], coverage)


def _array(dataset: Any) -> npt.NDArray[Any]:
    """An array of a subject file; text was stored as UTF-8 bytes."""
    values = np.asarray(dataset[:])
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
