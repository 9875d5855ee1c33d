"""Findings about subjects: voxels, regions, responses, repeats, and recordings that occur twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from brainlit.store.between_members import between_members
from brainlit.store.checks.findings import Finding, Level
from brainlit.store.checks.timing import N_VOXELS, LagEvidence
from brainlit.store.reader import StoryStore
from brainlit.stories.base import BoolArray, Float32Array, FloatArray, IntArray

BLOCK_BYTES = 64_000_000
_N_PRINT_VOXELS = 64
_SAME_R = 0.999
"""Median correlation over voxels above which two recordings are one: repeated measurements reach 0.5 at best, and
copies that were rounded or rescaled stay above."""

_MAX_MEAN, _MAX_SD_DIFFERENCE = 0.05, 0.1
"""How far the median voxel's mean and standard deviation may be from 0 and 1 before responses count as not z-scored; of
the mean of n z-scored presentations, the standard deviation lies between 1 / sqrt(n) and 1."""

_REBUILD = "Delete the subject's file and build the store again."


class SubjectChecks:
    """Checks of one subject at a time; what it saw of responses goes on to `lags` and stays to find twins."""

    def __init__(self, lags: LagEvidence) -> None:
        self._lags = lags
        self._recordings: dict[str, list[tuple[str, Float32Array]]] = defaultdict(list)

    def subject(self, store: StoryStore, name: str) -> Iterator[Finding]:
        """What belongs to the subject and not to a story."""
        good, n_voxels = store.good_voxels(name), store.n_voxels(name)
        if len(good) != n_voxels:
            yield _length(name, f"the mask of usable voxels has {len(good)} entries for {n_voxels} voxels.")
            return
        if not good.any():
            message = "has no voxel that is finite and varies in all stories."
            yield Finding("error", "no_usable_voxel", name, message, "Leave the subject out.")
        elif not good.all():
            message = f"{int((~good).sum())} of {len(good)} voxels are NaN or constant in some story; they are masked."
            level: Level = "info" if good.mean() > 0.9 else "warning"
            yield Finding(level, "masked_voxels", name, message, "Check the mask if that is many.")
        yield from _regions(store, name)
        if store.members(name) and good.any():
            yield from _agreement(store, name, good)

    def responses(self, store: StoryStore, subject: str, story: str) -> Iterator[Finding]:
        """What one pass over a subject's responses to a story shows."""
        where = f"{subject}/{story}"
        need = store.n_trs(story), store.n_voxels(subject)
        for what, shape in _response_shapes(store, subject, story).items():
            if shape[-2:] != need:
                needed = f"the story has {need[0]} TRs and the subject {need[1]} voxels."
                yield _length(where, f"{what} have shape {shape[-2:]}; {needed}")
                return
        good = np.flatnonzero(store.good_voxels(subject))
        columns = spread(good, N_VOXELS)
        everywhere = spread(np.arange(store.n_voxels(subject)), _N_PRINT_VOXELS)
        scan = scan_responses(store, subject, story, np.concatenate([columns, everywhere]))
        self._lags.add_responses(story, scan.sample[:, : len(columns)])
        self._recordings[story].append((subject, unit_columns(scan.sample[:, len(columns) :])))
        yield from _values(where, scan, store.n_repeats(subject, story))
        if store.n_repeats(subject, story) > 1 and len(good):
            yield from _repeats(store, subject, story, int(good[len(good) // 2]))

    def twins(self, store: StoryStore) -> Iterator[Finding]:
        """Two subjects with one recording, or one subject with one recording for two stories."""
        shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for story, recordings in self._recordings.items():
            for group in _same_recordings(recordings):
                shared[tuple(group)].append(story)
        for names, stories in shared.items():
            more = f" and {len(stories) - 1} more" if len(stories) > 1 else ""
            message = f"subjects {', '.join(names)} have identical responses to {stories[0]!r}{more}."
            cure = "Check which file belongs to whom; keep one of them."
            yield Finding("error", "twin_subjects", names[0], message, cure)
        for subject in store.subject_names:
            heard = [(story, one) for story, found in self._recordings.items() for who, one in found if who == subject]
            for same in _same_recordings(heard):
                message = f"responses to {', '.join(same)} are identical."
                cure = "Check which file belongs to which story."
                yield Finding("error", "twin_responses", subject, message, cure)


def _length(where: str, message: str) -> Finding:
    return Finding("error", "length_mismatch", where, message, _REBUILD)


def _regions(store: StoryStore, name: str) -> Iterator[Finding]:
    try:
        regions = store.subject(name).regions
    except ValueError as error:
        yield _length(name, str(error))
        return
    same: dict[bytes, list[str]] = defaultdict(list)
    for region, mask in regions.items():
        if mask.any():
            same[np.packbits(mask).tobytes()].append(region)
        else:
            message = "the region holds no voxel."
            yield Finding("warning", "empty_region", f"{name}/{region}", message, "Check the region's mask.")
    for equal in same.values():
        if len(equal) > 1:
            message = f"regions {', '.join(equal)} hold exactly the same voxels."
            cure = "Check the labels: one mask was read twice, or left and right were not told apart."
            yield Finding("warning", "equal_regions", f"{name}/{equal[0]}", message, cure)


def _agreement(store: StoryStore, group: str, good: BoolArray) -> Iterator[Finding]:
    """How far the members of a group agree over all that they heard."""
    agreement = between_members(store, group)
    found = agreement.json(good, by_member=True)
    ceiling = agreement.ceiling_r(good)
    of_mean = f"the ceiling of their mean is {ceiling:.2f}" if np.isfinite(ceiling) else "no shared signal shows"
    least = min(found["r"], key=found["r"].get)
    message = (
        f"the mean of {found['n_members']} people: r of each with the mean of the others {found['mean_r']:.2f}"
        f" ({found['least_r']:.2f} of {least} to {found['most_r']:.2f}), mean over {int(good.sum())} voxels; {of_mean}."
    )
    cure = "Who agrees with nobody may have other rows: check their clock. Else nothing."
    yield Finding("info", "between_members", group, message, cure)


def _values(where: str, scan: Scan, n_repeats: int) -> Iterator[Finding]:
    if scan.n_infinite:
        message = f"{scan.n_infinite} voxels hold infinite values."
        yield Finding("error", "infinite_values", where, message, "Check divisions in preprocessing.")
    if not scan.varies.any():
        message = f"none of {len(scan.varies)} voxels is finite and varies."
        yield Finding("warning", "constant_responses", where, message, "Leave this story out for the subject.")
        return
    mean, sd = float(np.median(scan.mean[scan.varies])), float(np.median(scan.sd[scan.varies]))
    least_sd = 1 / np.sqrt(max(n_repeats, 1))  # of the mean of presentations that share nothing
    if abs(mean) > _MAX_MEAN or not least_sd - _MAX_SD_DIFFERENCE < sd < 1 + _MAX_SD_DIFFERENCE:
        message = f"responses are not z-scored: the median voxel has mean {mean:.3g} and standard deviation {sd:.3g}."
        cure = "Remove drift and z-score each story over time in the source."
        yield Finding("warning", "not_zscored", where, message, cure)


def _repeats(store: StoryStore, subject: str, story: str, voxel: int) -> Iterator[Finding]:
    """Whether presentations are the same recording as an earlier one, by the voxels around one."""
    first = max(0, min(voxel - _N_PRINT_VOXELS // 2, store.n_voxels(subject) - _N_PRINT_VOXELS))
    n = store.n_repeats(subject, story)
    recordings: list[Float32Array] = []
    for k in range(n):  # one at a time: together they may be larger than memory
        values = store.repeats(subject, story, slice(first, first + _N_PRINT_VOXELS), slice(k, k + 1))
        assert values is not None
        recordings.append(unit_columns(values[0]))
    n_copies = sum(any(same_recording(one, old) for old in recordings[:k]) for k, one in enumerate(recordings))
    if n_copies:
        what, each = ("members", "person") if store.members(subject) else ("repeats", "presentation")
        message = f"{n_copies} of {n} {what} are copies: the noise ceiling is too high."
        cure = f"Keep each {each} once."
        yield Finding("error", "copied_repeats", f"{subject}/{story}", message, cure)


# --- One pass over the responses, some rows at a time, so that whole brains fit in little memory ---


@dataclass(frozen=True)
class Scan:
    """What one pass over the rows leaves.

    Parameters
    ----------
    mean, sd : arrays of shape (n_voxels,)
        Over time; not finite where a value is not.
    varies : bool array of shape (n_voxels,)
        Finite throughout and not constant.
    n_infinite : int
        Voxels with an infinite value.
    sample : array of shape (n_trs, n_columns)
        The columns that were asked for.
    """

    mean: FloatArray
    sd: FloatArray
    varies: BoolArray
    n_infinite: int
    sample: Float32Array


def _response_shapes(store: StoryStore, subject: str, story: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of one subject and story as they are in the file: 'responses', perhaps 'repeats'."""
    with h5py.File(store.path / store.index.subjects[subject].file, "r", locking=False) as h5:
        return {what: h5[what][story].shape for what in ("responses", "repeats") if story in h5.get(what, ())}


def scan_responses(
    store: StoryStore, subject: str, story: str, columns: IntArray, block_bytes: int = BLOCK_BYTES
) -> Scan:
    """Read the rows once, at most `block_bytes` at a time, and keep the given columns."""
    n_trs, n_voxels = store.n_trs(story), store.n_voxels(subject)
    sample = np.empty((n_trs, len(columns)), dtype=np.float32)
    total, squares = np.zeros(n_voxels), np.zeros(n_voxels)
    low, high = np.full(n_voxels, np.inf), np.full(n_voxels, -np.inf)
    infinite = np.zeros(n_voxels, dtype=np.bool_)
    n_rows = max(1, block_bytes // (4 * n_voxels))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, n_trs, n_rows):
            rows = store.responses(subject, story, start, min(start + n_rows, n_trs))
            assert rows is not None
            sample[start : start + len(rows)] = rows[:, columns]
            total += rows.sum(axis=0, dtype=np.float64)
            squares += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
            infinite |= np.isinf(rows).any(axis=0)
        mean = total / n_trs
        sd = np.sqrt(np.maximum(squares / n_trs - mean**2, 0))
    varies = np.isfinite(total) & (high > low)
    return Scan(mean, sd, varies, int(infinite.sum()), sample)


def spread(among: IntArray, n: int) -> IntArray:
    """At most n of the given columns, evenly spread over them."""
    places = np.linspace(0, max(len(among) - 1, 0), min(n, len(among)))
    return among[np.rint(places).astype(np.int64)]


# --- The same recording twice ---


def unit_columns(values: Float32Array) -> Float32Array:
    """Columns at mean 0 and length 1; those that are not finite or do not vary become 0."""
    finite = np.where(np.isfinite(values).all(axis=0), values, 0).astype(np.float64)
    centred = finite - finite.mean(axis=0)
    length = np.sqrt(np.square(centred).sum(axis=0))
    usable = length > 1e-6 * np.sqrt(len(values))
    return np.where(usable, centred / np.where(usable, length, 1), 0).astype(np.float32)


def same_recording(left: Float32Array, right: Float32Array) -> bool:
    """Whether two series of `unit_columns` show the same series, whatever the scale of each column."""
    if left.shape != right.shape:
        return False
    usable = left.any(axis=0) & right.any(axis=0)
    r = np.abs((left[:, usable] * right[:, usable]).sum(axis=0))
    return bool(usable.any() and np.median(r) > _SAME_R)


def _same_recordings(recordings: Sequence[tuple[str, Float32Array]]) -> list[list[str]]:
    """Names of the same recording, in groups of at least two."""
    groups: list[tuple[Float32Array, list[str]]] = []
    for name, one in recordings:
        same = next((names for first, names in groups if same_recording(first, one)), None)
        if same is None:
            groups.append((one, [name]))
        else:
            same.append(name)
    return [names for _, names in groups if len(names) > 1]
