"""Rearrangements of rows that take the responses away from their sound: blocks, circular shifts, other stories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainlit.datamodules.targets.reordered import ReorderedTargets
from brainlit.datamodules.targets.voxels import IntArray, VoxelTargets
from brainlit.demo.streams import random_stream
from brainlit.encoding.roles import Span


class PermutedTargets(ReorderedTargets):
    """Responses whose blocks of time have changed places over all tuning rows: the matched control.

    The rows of the tuning spans that a subject heard are laid end to end, cut into blocks of about block_trs rows, and
    the blocks change places so that none stays where it was. One permutation holds for the whole run; every row is used
    once.

    Parameters
    ----------
    voxels : VoxelTargets
        What is permuted.
    spans : sequence of Span
        The tuning spans; rows outside them cannot be asked for.
    block_trs : int
        Longer than the responses' autocorrelation, so that the noise keeps its shape.
    seed : int
        Of the permutation.

    Raises
    ------
    ValueError
        If a subject has too few rows for two blocks.
    """

    def __init__(self, voxels: VoxelTargets, spans: Sequence[Span], block_trs: int, seed: int) -> None:
        def rule(heard: Sequence[Span]) -> IntArray:
            return permute_blocks(sum(span.n_trs for span in heard), block_trs, np.random.default_rng(seed))

        super().__init__(voxels, spans, rule)


class ShiftedTargets(ReorderedTargets):
    """Responses shifted in a circle within each story's tuning rows, by a lag of its own for each story.

    Everything but the lag to the sound stays as it was, the seam between last and first row excepted. The lag is at
    least min_shift_trs rows in either direction of the circle, and depends on the seed and the story alone.

    Parameters
    ----------
    min_shift_trs : int
        Longer than a response to the sound lasts.

    Raises
    ------
    ValueError
        If a story has fewer than 2 min_shift_trs tuning rows.
    """

    def __init__(self, voxels: VoxelTargets, spans: Sequence[Span], min_shift_trs: int, seed: int) -> None:
        def rule(heard: Sequence[Span]) -> IntArray:
            return shift_stories(heard, min_shift_trs, seed)

        super().__init__(voxels, spans, rule)


class OtherStoryTargets(ReorderedTargets):
    """Responses to another story: stories change places so that none keeps its own.

    Stories differ in length: the rows of the other story are taken from its first tuning row on, cut where this story
    ends, and begun again where the other one is over; so some rows of long stories are not used, and those of short
    ones more than once.

    Raises
    ------
    ValueError
        If a subject heard fewer than two of the stories to tune on.
    """

    def __init__(self, voxels: VoxelTargets, spans: Sequence[Span], seed: int) -> None:
        def rule(heard: Sequence[Span]) -> IntArray:
            return exchange_stories(heard, seed)

        super().__init__(voxels, spans, rule)


def shift_stories(spans: Sequence[Span], min_shift_trs: int, seed: int) -> IntArray:
    """For each row of the spans, laid end to end, the row some lag earlier in the circle of its story's rows.

    Raises
    ------
    ValueError
        If a story has fewer than 2 min_shift_trs rows, or min_shift_trs is not positive.
    """
    rows_of = _rows_of_stories(spans)
    order = np.zeros(sum(len(rows) for rows in rows_of.values()), dtype=np.int64)
    for story, rows in rows_of.items():
        if min_shift_trs < 1 or len(rows) < 2 * min_shift_trs:
            raise ValueError(
                f"the {len(rows)} tuning rows of {story!r} cannot be shifted by at least {min_shift_trs} TRs either"
                " way round: take longer stories or a smaller control.min_shift_trs."
            )
        lag = int(random_stream(seed, "shift", story).integers(min_shift_trs, len(rows) - min_shift_trs + 1))
        order[rows] = np.roll(rows, lag)
    return order


def exchange_stories(spans: Sequence[Span], seed: int) -> IntArray:
    """For each row of the spans, laid end to end, the row at the same place of another story, cut or begun again.

    Raises
    ------
    ValueError
        If there are fewer than two stories.
    """
    rows_of = list(_rows_of_stories(spans).values())
    if len(rows_of) < 2:
        named = ", ".join(sorted({span.story for span in spans})) or "none"
        raise ValueError(
            f"control.kind is 'other_story', but there are not two stories to tune on ({named}): tune on several, or"
            " take control.kind blocks, phase or shift."
        )
    order = np.zeros(sum(map(len, rows_of)), dtype=np.int64)
    for rows, other in zip(rows_of, derangement(len(rows_of), np.random.default_rng(seed)), strict=True):
        order[rows] = np.resize(rows_of[other], len(rows))
    return order


def _rows_of_stories(spans: Sequence[Span]) -> dict[str, IntArray]:
    """Numbers of each story's rows among the rows of all spans, laid end to end."""
    labels = np.repeat([span.story for span in spans], [span.n_trs for span in spans])
    return {story: np.flatnonzero(labels == story) for story in dict.fromkeys(span.story for span in spans)}


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
            " more tuning data or a smaller control.block_trs."
        )
    n_blocks = _number_of_blocks(n_rows, block_trs)
    if n_blocks == 0:
        return np.roll(np.arange(n_rows, dtype=np.int64), -int(rng.integers(block_trs, n_rows - block_trs + 1)))
    blocks = np.array_split(np.arange(n_rows, dtype=np.int64), n_blocks)
    lengths = np.array([len(block) for block in blocks])
    sources = np.arange(n_blocks)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        sources[same] = same[derangement(len(same), rng)]
    return np.concatenate([blocks[k] for k in sources])


def _number_of_blocks(n_rows: int, block_trs: int) -> int:
    """The largest number of blocks (none longer than twice block_trs) in which each length occurs twice; 0 if none."""
    for n_blocks in range(n_rows // block_trs, max(n_rows // (2 * block_trs), 1), -1):
        n_longer = n_rows % n_blocks
        if n_longer != 1 and n_longer != n_blocks - 1:
            return n_blocks
    return 0


def derangement(n: int, rng: np.random.Generator) -> IntArray:
    """A random order of n >= 2 things in which none stays in place (about one try in three succeeds)."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order
