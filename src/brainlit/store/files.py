"""Write one story or one subject to an HDF5 file, after checking that its parts fit; read back what the index needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from brainlit.files import atomic_path, full_disk_explained, require_space, reserve
from brainlit.guard import DAMAGE
from brainlit.hdf5 import (
    empty_array,
    members,
    new_file,
    read_json_text,
    read_text,
    row_chunks,
    write_array,
    write_json_text,
    write_text,
)
from brainlit.store.schema import (
    ROWS_PER_CHUNK,
    SCHEMA_VERSION,
    FileEntry,
    SourceFile,
    StoreCorruptError,
    StoreError,
    StoryEntry,
    SubjectEntry,
    checked_names,
)
from brainlit.store.sound import write_sound
from brainlit.stories import FeatureSpace, Intervals, Responses, Story, Subject
from brainlit.stories.base import BoolArray, Float32Array
from brainlit.timebase import SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

FINGERPRINT = "settings_fingerprint"
_NOTES = "notes"
_MEMBERS = "members"
Spaces = list[tuple[str, str, tuple[str, ...], str, str | None]]
"""Name, kind, columns, source and own rate ('frames', 'events' or None) of each feature space of a story."""
Sources = Callable[[], Sequence[SourceFile]]
_MAX_SILENCE_S = 60.0
"""Scanners run on after a story; longer than this, sound and clock are taken not to belong together."""
_REPEAT_VOXELS_PER_CHUNK = 1024
"""Repeats are read for some voxels over all rows (ceilings), responses for some rows over all voxels."""
_UNIT_WITHIN = 1e-2
"""Columns whose standard deviation is within this of 1 count as z-scored."""
_ROUNDING = 1e-4
_IS_THE_MEAN_R = 0.9
"""Responses that correlate so with the mean of their presentations are that mean, whatever was done to its scale."""


def write_story_file(
    file: Path, story: Story, spaces: list[FeatureSpace], fingerprint: str, sources: Sources = tuple
) -> None:
    """Write one story, atomically; `sources` is asked for the files it was made from when everything is written.

    Raises
    ------
    StoreError
        If the audio is not int16 mono at 16 kHz or ends a minute before the last TR starts, or a feature space has
        another number of TRs than the story.
    FullDiskError
        If the disk has no room for it.
    """
    _check_audio(story)
    _check_spaces(story, spaces)
    n_bytes = story.audio.nbytes + sum(map(_n_bytes, spaces))
    file.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_explained(file, n_bytes), atomic_path(file) as temporary, _new_file(temporary, fingerprint) as h5:
        _make_room(file, temporary, h5, n_bytes)
        write_text(h5, "name", story.name)
        h5.attrs["tr_s"] = float(story.timebase.tr_s)
        h5.attrs["sample_rate_hz"] = int(story.timebase.sample_rate_hz)
        write_array(h5, "tr_starts_s", story.timebase.tr_starts_s)
        _write_intervals(h5, "words", story.words)
        if story.phones is not None:
            _write_intervals(h5, "phones", story.phones)
        features = h5.create_group("features", track_order=True)
        for space in spaces:
            dataset = write_array(features, space.name, space.values)
            write_text(dataset, "kind", space.kind)
            write_text(dataset, "source", space.source)
            write_json_text(dataset, "columns", list(space.columns))
            dataset.attrs["coverage"] = float(space.coverage)
        _write_timed(h5, spaces)
        write_sound(h5, story.audio)
        write_json_text(h5, _NOTES, [asdict(note) for note in story.sound_notes])
        _write_sources(h5, sources)


def write_subject_file(
    file: Path,
    subject: Subject,
    heard: Iterable[tuple[str, Responses | None]],
    n_trs_of: Mapping[str, int],
    fingerprint: str,
    sources: Sources = tuple,
) -> None:
    """Write one subject, atomically, holding one presentation of one story in memory at a time.

    Parameters
    ----------
    heard : pairs of story name and its responses
        None where the subject did not hear the story; consumed once, in order.
    n_trs_of : mapping of story to n_trs
        What the responses' first axis must be.

    Raises
    ------
    StoreError
        If responses or repeats have another shape than (n_trs, n_voxels), or the subject heard no story.
    FullDiskError
        If the disk has no room for the next story's responses.
    """
    if subject.n_voxels < 1:
        raise StoreError(
            f"subject {subject.name!r} has {subject.n_voxels} voxels; leave the subject out of the source."
        )
    good = np.ones(subject.n_voxels, dtype=np.bool_)
    n_heard = 0
    n_bytes = 4 * subject.n_voxels * sum(n_trs_of.values())
    file.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_explained(file, n_bytes), atomic_path(file) as temporary, _new_file(temporary, fingerprint) as h5:
        _write_subject_facts(h5, subject)
        for story, responses in heard:
            if responses is None:
                continue
            n_heard += 1
            _check_responses(subject, story, responses, n_trs_of[story])
            n_presentations = 1 + (0 if responses.repeats is None else len(responses.repeats))
            _make_room(file, temporary, h5, 4 * responses.values.size * n_presentations)
            good &= _write_rows(h5, story, responses)
            h5.flush()
        if n_heard == 0:
            raise StoreError(
                f"subject {subject.name!r} heard none of the stories; leave the subject out of the source."
            )
        write_array(h5, "good_voxels", good)
        _write_sources(h5, sources)


def read_story_entry(file: Path, entry: FileEntry) -> StoryEntry:
    """What the index says of a story file, as of any file and as of a story."""
    with _reading(file) as h5:
        return StoryEntry(
            **vars(entry),
            n_trs=len(h5["tr_starts_s"]),
            tr_s=float(h5.attrs["tr_s"]),
            n_samples=len(h5["audio"]),
            sample_rate_hz=int(h5.attrs["sample_rate_hz"]),
            n_words=len(h5["words/start_s"]),
            sound_notes=read_json_text(h5, _NOTES) if _NOTES in h5.attrs else [],
        )


def read_subject_entry(file: Path, entry: FileEntry) -> SubjectEntry:
    """What the index says of a subject file, as of any file and as of a subject."""
    with _reading(file) as h5:
        return SubjectEntry(
            **vars(entry),
            n_voxels=int(h5.attrs["n_voxels"]),
            n_good_voxels=int(h5["good_voxels"][:].sum()),
            stories=list(h5["responses"]),
            repeats={story: int(dataset.shape[0]) for story, dataset in members(h5["repeats"])},
            members={
                story: read_json_text(dataset, _MEMBERS)
                for story, dataset in members(h5["repeats"])
                if _MEMBERS in dataset.attrs
            },
        )


def read_sources(file: Path) -> dict[str, str]:
    """SHA-256 of the files that a story or subject file was made from, by their labels."""
    with _reading(file) as h5:
        return dict(read_json_text(h5, "sources"))


def read_spaces(file: Path) -> Spaces:
    """What the index says of the feature spaces of a story file, in the order of writing."""
    with _reading(file) as h5:
        return [
            (
                name,
                read_text(dataset, "kind"),
                tuple(read_json_text(dataset, "columns")),
                read_text(dataset, "source"),
                _own_rate(h5["timed"].get(name)),
            )
            for name, dataset in members(h5["features"])
        ]


@contextmanager
def _reading(file: Path) -> Iterator[Any]:
    try:
        with h5py.File(file, "r", locking=False) as h5:
            yield h5
    except DAMAGE as error:
        raise StoreCorruptError(file, f"cannot be read ({error})") from error


@contextmanager
def _new_file(temporary: Path, fingerprint: str) -> Iterator[Any]:
    """A new HDF5 file; cut to what HDF5 used of it when the block ends, because space is reserved ahead."""
    with new_file(temporary) as h5:
        h5.attrs["schema_version"] = SCHEMA_VERSION
        write_text(h5, FINGERPRINT, fingerprint)
        yield h5
        h5.flush()
        n_bytes = h5.id.get_filesize()
    os.truncate(temporary, n_bytes)


def _make_room(file: Path, temporary: Path, h5: Any, n_bytes: int) -> None:
    """See that n_bytes more can be written: HDF5 itself does not survive a full disk unharmed."""
    require_space(file, n_bytes)
    reserve(temporary, h5.id.get_filesize() + n_bytes)


def _write_intervals(h5: Any, name: str, intervals: Intervals) -> None:
    group = h5.create_group(name)
    labels = [label.encode("utf-8") for label in intervals.labels]
    width = max((len(label) for label in labels), default=0) or 1
    write_array(group, "labels", np.array(labels, dtype=f"S{width}"))
    write_array(group, "start_s", intervals.start_s)
    write_array(group, "duration_s", intervals.duration_s)


def _write_timed(h5: Any, spaces: list[FeatureSpace]) -> None:
    """Spaces at their own rate; compressed, because events are mostly zeros, and read a whole story at a time."""
    timed = h5.create_group("timed", track_order=True)
    for space in spaces:
        if space.timed is None:
            continue
        group, values = timed.create_group(space.name), space.timed.values
        if values.size:
            how: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            write_array(group, "values", values, **how)
        else:
            group.create_dataset("values", data=values)
        write_array(group, "times_s", space.timed.times_s)
        if space.timed.duration_s is not None:
            group.attrs["duration_s"] = float(space.timed.duration_s)


def _own_rate(group: Any) -> str | None:
    return None if group is None else "frames" if "duration_s" in group.attrs else "events"


def _n_bytes(space: FeatureSpace) -> int:
    own_rate = 0 if space.timed is None else space.timed.values.nbytes + space.timed.times_s.nbytes
    return space.values.nbytes + own_rate


def _write_subject_facts(h5: Any, subject: Subject) -> None:
    write_text(h5, "name", subject.name)
    h5.attrs["n_voxels"] = subject.n_voxels
    for name in ("responses", "repeats", "regions", "truth"):
        h5.create_group(name, track_order=True)
    for name, places in (("vertices", subject.vertices), ("coordinates_mm", subject.coordinates_mm)):
        if places is not None:
            write_array(h5, name, _per_voxel(subject, name, places))
    for region, mask in subject.regions.items():
        write_array(h5["regions"], _link_name(subject, region), mask)
    for name, values in subject.truth.items():
        array = _per_voxel(subject, f"truth {name!r}", values)
        array = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        write_array(h5["truth"], _link_name(subject, name), array)


def _link_name(subject: Subject, name: str) -> str:
    if not name or "/" in name or name == ".":
        raise StoreError(f"{name!r} of subject {subject.name!r} cannot name a region or a truth; use no slash.")
    return name


def _per_voxel(subject: Subject, what: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "biufSU" or array.ndim == 0 or len(array) != subject.n_voxels:
        raise StoreError(
            f"{what} of subject {subject.name!r} is {array.dtype} of shape {array.shape}; need numbers or text with one"
            f" entry per voxel ({subject.n_voxels})."
        )
    return array


def _write_rows(h5: Any, story: str, responses: Responses) -> BoolArray:
    """Write responses and repeats; return which voxels are finite and not constant."""
    values = np.asarray(responses.values, dtype=np.float32)
    n_trs, n_voxels = values.shape
    # A few rows of all voxels: training reads rows, and whole chunks are checked.
    chunks = row_chunks(values.shape, values.itemsize, ROWS_PER_CHUNK)
    finite = np.isfinite(values).all(axis=0)
    varying = values.max(axis=0) > values.min(axis=0)
    if responses.repeats is not None:
        _write_repeats(h5, story, responses.repeats, (n_trs, n_voxels))
        if responses.members:
            write_json_text(h5["repeats"][story], _MEMBERS, list(responses.members))
        values = _in_units_of_one(values, h5["repeats"][story], story)
    dataset = write_array(h5["responses"], story, values, chunks)
    dataset.attrs["n_not_finite"] = int((~finite).sum())
    dataset.attrs["n_constant"] = int((finite & ~varying).sum())
    return np.asarray(finite & varying)


def _write_repeats(h5: Any, story: str, repeats: Sequence[Any] | npt.NDArray[Any], shape: tuple[int, int]) -> None:
    """One presentation at a time: they may come from a file that is larger than memory."""
    n_trs, n_voxels = shape
    chunks = (1, n_trs, min(_REPEAT_VOXELS_PER_CHUNK, n_voxels))
    dataset = empty_array(h5["repeats"], story, (len(repeats), *shape), np.float32, chunks)
    for k in range(len(repeats)):
        values = np.asarray(repeats[k], dtype=np.float32)
        if values.shape != shape:
            raise StoreError(
                f"repeat {k} of story {story!r} has shape {values.shape}, but the responses have {shape}: each"
                " presentation needs the same rows and voxels."
            )
        dataset[k] = values


def _in_units_of_one(values: Float32Array, repeats: Any, story: str) -> Float32Array:
    """The mean of several presentations with the standard deviation that the mean of z-scored ones has.

    Some data sets publish that mean z-scored once more. Averaging takes noise away, so z-scoring it again makes its
    signal larger than that of the single presentations that models are fitted on, by another factor in every voxel:
    correlations stay, but R2 and all shares of it come out too low. Columns with another standard deviation than 1, and
    those that are no mean of their presentations, stay as they are.

    Parameters
    ----------
    values : array of shape (n_trs, n_voxels)
    repeats : HDF5 dataset of shape (n_repeats, n_trs, n_voxels)
    """
    n_voxels, n_scaled, n_other = values.shape[1], 0, 0
    scale = np.ones(n_voxels, dtype=np.float32)
    for first in range(0, n_voxels, _REPEAT_VOXELS_PER_CHUNK):
        block = slice(first, first + _REPEAT_VOXELS_PER_CHUNK)
        with np.errstate(invalid="ignore", divide="ignore"):
            given = values[:, block].astype(np.float64)
            given -= given.mean(axis=0)
            sd = given.std(axis=0)
            is_unit = np.abs(sd - 1) < _UNIT_WITHIN
            if not is_unit.any():
                continue
            each = repeats[:, :, block].astype(np.float64)
            mean = ((each - each.mean(axis=1, keepdims=True)) / each.std(axis=1, keepdims=True)).mean(axis=0)
            factor, r = mean.std(axis=0) / sd, (given * mean).mean(axis=0) / (sd * mean.std(axis=0))
            off = is_unit & (np.abs(factor - 1) > _ROUNDING)
            is_mean = off & (r > _IS_THE_MEAN_R)
        scale[block][is_mean] = factor[is_mean]
        n_scaled, n_other = n_scaled + int(is_mean.sum()), n_other + int((off & ~is_mean).sum())
    if n_scaled:
        text = "%s: the mean of %d presentations was z-scored once more in %d of %d columns; stored in units of one."
        log.info(text, story, len(repeats), n_scaled, n_voxels)
    if n_other:
        text = "%s: %d of %d columns of the responses are z-scored, but no mean of the presentations; left as they are."
        log.warning(text, story, n_other, n_voxels)
    return values * scale if n_scaled else values


def _write_sources(h5: Any, sources: Sources) -> None:
    write_json_text(h5, "sources", {source.file: source.sha256 for source in sources()})


def _check_audio(story: Story) -> None:
    if story.audio.dtype != np.int16 or story.audio.ndim != 1:
        raise StoreError(
            f"audio of story {story.name!r} is {story.audio.dtype} of shape {story.audio.shape}; need int16, mono,"
            " shape (n_samples,)."
        )
    clock = story.timebase
    if clock.sample_rate_hz != SAMPLE_RATE_HZ:
        raise StoreError(
            f"audio of story {story.name!r} is at {clock.sample_rate_hz} Hz; resample it to {SAMPLE_RATE_HZ} Hz."
        )
    audio_s = len(story.audio) / clock.sample_rate_hz
    silent_s = float(clock.tr_starts_s[-1]) - audio_s
    if silent_s > _MAX_SILENCE_S:
        raise StoreError(
            f"the sound of story {story.name!r} lasts {audio_s:.2f} s, but its {clock.n_trs} TRs of {clock.tr_s} s end"
            f" at {clock.end_s:.2f} s: the last one starts {silent_s:.1f} s after the sound is over. Is the sound cut"
            " off, or of another story? Otherwise correct the TR or the onset of the sound, or trim the last rows of"
            " its responses (and TR starts)."
        )


def _check_spaces(story: Story, spaces: list[FeatureSpace]) -> None:
    checked_names("feature space", [space.name for space in spaces])
    for space in spaces:
        if len(space.values) != story.timebase.n_trs:
            raise StoreError(
                f"feature space {space.name!r} of story {story.name!r} has {len(space.values)} rows for"
                f" {story.timebase.n_trs} TRs; compute it on the story's own clock."
            )


def _check_responses(subject: Subject, story: str, responses: Responses, n_trs: int) -> None:
    need = (n_trs, subject.n_voxels)
    if responses.values.shape != need:
        raise StoreError(
            f"responses of subject {subject.name!r} to story {story!r} have shape {responses.values.shape}, but the"
            f" story has {n_trs} TRs and the subject {subject.n_voxels} voxels: need {need}. Trim rows or TR starts so"
            " that row k is the volume that starts at tr_starts_s[k]."
        )
    if responses.repeats is not None and len(responses.repeats) < 2:
        raise StoreError(
            f"story {story!r} of subject {subject.name!r} has {len(responses.repeats)} repeats; need at least two, or"
            " None."
        )
