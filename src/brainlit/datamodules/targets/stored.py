"""Targets that are read from a disk when they are asked for: the responses of a store, and arrays computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.encoding.arrays import Float32Array, IntArray
from brainlit.splits import Span
from brainlit.store import StoryStore


class VoxelTargets:
    """The responses themselves.

    Parameters
    ----------
    voxels : mapping of subject to int array
        Columns of the responses that are targets.
    """

    def __init__(self, store: StoryStore, voxels: Mapping[str, IntArray]) -> None:
        self.store = store
        self.voxels = dict(voxels)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of target voxels of each subject."""
        return {subject: len(columns) for subject, columns in self.voxels.items()}

    def heard(self, subject: str, story: str) -> bool:
        """Whether the subject heard the story."""
        return story in self.store.heard(subject)

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """Rows of the target voxels; None if the subject did not hear the story."""
        return self.store.responses(subject, story, start_tr, stop_tr, self.voxels[subject])


class StoredTargets:
    """Rows read from .npy files when they are asked for; nothing is kept in memory, and copies to workers are cheap.

    Parameters
    ----------
    folder : Path
        Where the files named by `file_name` are.
    sizes : mapping of subject to int
        Columns of each subject's arrays.
    spans : mapping of subject to sequence of Span
        The stretches that there are files of, in the order in which they are numbered.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int], spans: Mapping[str, Iterable[Span]]) -> None:
        self.folder, self._sizes = folder, dict(sizes)
        self._spans = {subject: list(own) for subject, own in spans.items()}
        self._numbers = {subject: number for number, subject in enumerate(self._spans)}
        self._open: dict[Path, Float32Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of targets of each subject."""
        return self._sizes

    def heard(self, subject: str, story: str) -> bool:
        """Whether there are targets of the subject for some rows of the story."""
        return any(span.story == story for span in self._spans[subject])

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """Rows start_tr .. stop_tr - 1; None if the subject has none for the story.

        Raises
        ------
        ValueError
            If there are targets for other rows of the story, but not for all of these.
        """
        if not self.heard(subject, story):
            return None
        for number, span in enumerate(self._spans[subject]):
            if span.story == story and span.start_tr <= start_tr and stop_tr <= span.stop_tr:
                values = self._opened(self.folder / file_name(self._numbers[subject], number))
                return np.array(values[start_tr - span.start_tr : stop_tr - span.start_tr])
        raise ValueError(f"rows {start_tr}..{stop_tr} of {story!r} are not tuning rows of {subject!r}.")

    def _opened(self, file: Path) -> Float32Array:
        if file not in self._open:
            self._open[file] = np.load(file, mmap_mode="r", allow_pickle=False)
        return self._open[file]


def file_name(subject_number: int, span_number: int) -> str:
    """Name of the array of one subject and span, by their numbers.

    >>> file_name(0, 12)
    '000-0012.npy'
    """
    return f"{subject_number:03d}-{span_number:04d}.npy"
