"""What a window should predict: a subject's voxels, or the same voxels block-permuted in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from brainlit.encoding.roles import Span
from brainlit.store import StoryStore

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class TargetSource(Protocol):
    """Anything that yields rows of targets per subject (or per other thing to predict)."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of targets of each subject."""

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

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """Rows of the target voxels; None if the subject did not hear the story."""
        return self.store.responses(subject, story, start_tr, stop_tr, self.voxels[subject])


class PermutedTargets:
    """Responses whose blocks of time have changed places over all tuning rows: the matched control.

    The rows of the tuning spans that a subject heard are laid end to end, cut into blocks of about block_trs rows, and
    the blocks change places so that none stays where it was. One permutation holds for the whole run; every row is used
    once. Subjects who heard the same rows share the permutation, so that what they have in common stays in common, as
    in the real responses: only the match with the sound is lost. It does not depend on who else is in the run.

    Parameters
    ----------
    voxels : VoxelTargets
        What is permuted.
    spans : sequence of Span
        The tuning spans; rows outside them cannot be asked for.
    block_trs : int
        Longer than the responses' autocorrelation, so that the noise keeps its shape.

    Raises
    ------
    ValueError
        If a subject has too few rows for two blocks.
    """

    def __init__(self, voxels: VoxelTargets, spans: Sequence[Span], block_trs: int, seed: int) -> None:
        self.voxels, self.block_trs, self.seed = voxels, block_trs, seed
        self._place: dict[str, dict[str, IntArray]] = {}
        self._source: dict[str, list[tuple[str, int]]] = {}
        self._order: dict[str, IntArray] = {}
        for subject in voxels.sizes:
            heard = [span for span in spans if span.story in voxels.store.heard(subject)]
            self._arrange(subject, heard)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of target voxels of each subject."""
        return self.voxels.sizes

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """The rows that took the place of start_tr .. stop_tr - 1; None if the subject did not hear the story."""
        if story not in self.voxels.store.heard(subject):
            return None
        places = self._place[subject].get(story, np.zeros(0, dtype=np.int64))[start_tr:stop_tr]
        if len(places) < stop_tr - start_tr or (places < 0).any():
            raise ValueError(f"rows {start_tr}..{stop_tr} of {story!r} are not tuning rows of {subject!r}.")
        return np.concatenate([self._run(subject, run) for run in self._runs(subject, places)])

    def source_rows(self, subject: str) -> IntArray:
        """For each tuning row of a subject, laid end to end, the row that took its place; shape (n_rows,)."""
        return self._order[subject]

    def _arrange(self, subject: str, spans: Sequence[Span]) -> None:
        sources = [(span.story, row) for span in spans for row in range(span.start_tr, span.stop_tr)]
        rng = np.random.default_rng(self.seed)
        order = permute_blocks(len(sources), self.block_trs, rng)
        self._order[subject], self._source[subject] = order, sources
        places: dict[str, IntArray] = {}
        for (story, row), source in zip(sources, order.tolist(), strict=True):
            if story not in places:
                places[story] = np.full(self.voxels.store.n_trs(story), -1, dtype=np.int64)
            places[story][row] = source
        self._place[subject] = places

    def _runs(self, subject: str, places: IntArray) -> list[IntArray]:
        """Cut places into runs of consecutive rows of one story."""
        sources = self._source[subject]
        breaks = [
            k + 1
            for k, (a, b) in enumerate(pairwise(places.tolist()))
            if sources[b] != (sources[a][0], sources[a][1] + 1)
        ]
        return np.split(places, breaks)

    def _run(self, subject: str, places: IntArray) -> Float32Array:
        story, first = self._source[subject][places[0]]
        rows = self.voxels.rows(subject, story, first, first + len(places))
        assert rows is not None
        return rows


def permute_blocks(n_rows: int, block_trs: int, rng: np.random.Generator) -> IntArray:
    """A permutation of rows that moves whole blocks and leaves none in place, shape (n_rows,).

    The rows are cut into blocks whose lengths differ by at most one (block_trs or somewhat more), and blocks of one
    length change places among themselves, so that borders stay where they are. Where so few rows allow no such cut, a
    piece from the front, drawn between block_trs and n_rows - block_trs, changes places with the rest.

    Raises
    ------
    ValueError
        If there are fewer than two blocks' worth of rows.
    """
    if block_trs < 1 or n_rows < 2 * block_trs:
        raise ValueError(
            f"{n_rows} tuning rows cannot be permuted in blocks of {block_trs}: at least two blocks are needed. Use"
            " more tuning data or a smaller permute_block_trs."
        )
    n_blocks = _number_of_blocks(n_rows, block_trs)
    if n_blocks == 0:
        return np.roll(np.arange(n_rows, dtype=np.int64), -int(rng.integers(block_trs, n_rows - block_trs + 1)))
    blocks = np.array_split(np.arange(n_rows, dtype=np.int64), n_blocks)
    lengths = np.array([len(block) for block in blocks])
    sources = np.arange(n_blocks)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        sources[same] = same[_derangement(len(same), rng)]
    return np.concatenate([blocks[k] for k in sources])


def _number_of_blocks(n_rows: int, block_trs: int) -> int:
    """The largest number of blocks (none longer than twice block_trs) in which each length occurs twice; 0 if none."""
    for n_blocks in range(n_rows // block_trs, max(n_rows // (2 * block_trs), 1), -1):
        n_longer = n_rows % n_blocks
        if n_longer != 1 and n_longer != n_blocks - 1:
            return n_blocks
    return 0


def _derangement(n: int, rng: np.random.Generator) -> IntArray:
    """A random order of n >= 2 things in which none stays in place (about one try in three succeeds)."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order
