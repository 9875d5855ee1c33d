"""The responses themselves, and what every source of targets can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from brainlit.encoding.arrays import Float32Array, IntArray
from brainlit.store import StoryStore


class TargetSource(Protocol):
    """Anything that yields rows of targets per subject (or per other thing to predict)."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of targets of each subject."""

    def heard(self, subject: str, story: str) -> bool:
        """Whether there are targets of the subject for the story."""

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """Rows start_tr .. stop_tr - 1, shape (n_rows, n_targets); None if the subject has none for the story."""


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
