"""One pass over a subject's responses to one story, some rows at a time, so that whole brains fit in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import numpy.typing as npt

from brainlit.store.reader import StoryStore

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

BLOCK_BYTES = 64_000_000
N_PRINT_VOXELS = 64
SAME_R = 0.999
"""Median correlation over voxels above which two recordings are one: repeated measurements reach 0.5 at best, and
copies that were rounded or rescaled stay above."""


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
    varies: npt.NDArray[np.bool_]
    n_infinite: int
    sample: Float32Array


def response_shapes(store: StoryStore, subject: str, story: str) -> dict[str, tuple[int, ...]]:
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


def fingerprint(values: Float32Array) -> Float32Array:
    """Columns at mean 0 and length 1; those that are not finite or do not vary become 0."""
    finite = np.where(np.isfinite(values).all(axis=0), values, 0).astype(np.float64)
    centred = finite - finite.mean(axis=0)
    length = np.sqrt(np.square(centred).sum(axis=0))
    usable = length > 1e-6 * np.sqrt(len(values))
    return np.where(usable, centred / np.where(usable, length, 1), 0).astype(np.float32)


def same_recording(left: Float32Array, right: Float32Array) -> bool:
    """Whether two fingerprints show the same series, whatever the scale of each column."""
    if left.shape != right.shape:
        return False
    usable = left.any(axis=0) & right.any(axis=0)
    r = np.abs((left[:, usable] * right[:, usable]).sum(axis=0))
    return bool(usable.any() and np.median(r) > SAME_R)


def n_copied_repeats(store: StoryStore, subject: str, story: str, voxels: slice) -> int:
    """How many presentations are the same recording as an earlier one, by some voxels."""
    n_repeats = store.n_repeats(subject, story)
    prints: list[Float32Array] = []
    for k in range(n_repeats):
        values = store.repeats(subject, story, voxels=voxels, repeats=slice(k, k + 1))
        if values is not None:
            prints.append(fingerprint(values[0]))
    return sum(any(same_recording(one, earlier) for earlier in prints[:k]) for k, one in enumerate(prints))


def same_recordings(prints: Sequence[tuple[str, Float32Array]]) -> list[list[str]]:
    """Names whose fingerprints are the same recording, in groups of at least two."""
    groups: list[tuple[Float32Array, list[str]]] = []
    for name, one in prints:
        for first, names in groups:
            if same_recording(first, one):
                names.append(name)
                break
        else:
            groups.append((one, [name]))
    return [names for _, names in groups if len(names) > 1]
