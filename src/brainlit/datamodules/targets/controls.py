"""Controls: responses without their match to the sound, by rows that change places or phases drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from brainlit.backbones.weights import cached_folder
from brainlit.datamodules.dataset import TargetSource
from brainlit.datamodules.targets.config import ControlConfig
from brainlit.datamodules.targets.stored import StoredTargets, VoxelTargets, file_name
from brainlit.demo.text import random_stream
from brainlit.encoding.arrays import Float32Array, IntArray
from brainlit.splits import Span

RECIPE = 1
"""Part of the cache's key: another number wherever the numbers below change."""


def control_targets(config: ControlConfig, voxels: VoxelTargets, spans: Sequence[Span], seed: int) -> TargetSource:
    """Responses of the tuning spans without their match to the sound; one draw for the whole run.

    Parameters
    ----------
    spans : sequence of Span
        The tuning spans.
    seed : int
        Of the first draw; the others follow from it (`draw_seed`).

    Raises
    ------
    ValueError
        If a subject has too few rows or stories for the control.
    """
    seed = draw_seed(seed, config.draw)
    if config.kind == "phase":
        return phase_targets(voxels, spans, seed)
    rules: dict[str, Rule] = {
        "blocks": lambda heard: permute_blocks(_n_rows(heard), config.block_trs, np.random.default_rng(seed)),
        "shift": lambda heard: shift_stories(heard, config.min_shift_trs, seed),
        "other_story": lambda heard: exchange_stories(heard, seed),
    }
    return ReorderedTargets(voxels, spans, rules[config.kind])


def _n_rows(spans: Sequence[Span]) -> int:
    return sum(span.n_trs for span in spans)


def draw_seed(seed: int, draw: int) -> int:
    """Seed of the k-th draw of a control: the seed itself for the first, one of 63 random bits for each other.

    >>> draw_seed(11, 1)
    11
    """
    return seed if draw == 1 else int(random_stream(seed, "control", draw).integers(2**63))


# --- Rows that change places ---

Rule = Callable[[Sequence[Span]], IntArray]
"""From the tuning spans that a subject heard to the row that takes the place of each of their rows, laid end to end."""


class ReorderedTargets:
    """Responses in another order than the sound: what every control that moves whole rows has in common.

    The rows of the tuning spans that a subject heard are laid end to end, and a rule says which row takes the place of
    which. Subjects who heard the same rows share the rearrangement, so that what they have in common stays in common,
    as in the real responses: only the match with the sound is lost. It does not depend on who else is in the run. Rows
    are read from the store when they are asked for.

    Parameters
    ----------
    voxels : VoxelTargets
        What is rearranged.
    spans : sequence of Span
        The tuning spans; rows outside them cannot be asked for.
    rule : callable
        Tuning spans that a subject heard -> source row of each row, shape (n_rows,); the same for the same spans.
    """

    def __init__(self, voxels: VoxelTargets, spans: Sequence[Span], rule: Rule) -> None:
        self.voxels = voxels
        self._source: dict[str, dict[tuple[str, int], tuple[str, int]]] = {}
        self._order: dict[str, IntArray] = {}
        for subject in voxels.sizes:
            heard = [span for span in spans if voxels.heard(subject, span.story)]
            rows = [(span.story, row) for span in heard for row in range(span.start_tr, span.stop_tr)]
            self._order[subject] = rule(heard)
            sources = [rows[k] for k in self._order[subject].tolist()]
            self._source[subject] = dict(zip(rows, sources, strict=True))

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of target voxels of each subject."""
        return self.voxels.sizes

    def heard(self, subject: str, story: str) -> bool:
        """Whether the subject heard the story."""
        return self.voxels.heard(subject, story)

    def rows(self, subject: str, story: str, start_tr: int, stop_tr: int) -> Float32Array | None:
        """The rows that took the place of start_tr .. stop_tr - 1; None if the subject did not hear the story."""
        if not self.heard(subject, story):
            return None
        sources = [self._source[subject].get((story, row)) for row in range(start_tr, stop_tr)]
        found = [source for source in sources if source is not None]
        if len(found) < len(sources):
            raise ValueError(f"rows {start_tr}..{stop_tr} of {story!r} are not tuning rows of {subject!r}.")
        parts = []
        # Rows that follow each other in their own story are read at once: there row - k is the same for all of them.
        for (source, _), run in groupby(enumerate(found), key=lambda item: (item[1][0], item[1][1] - item[0])):
            places = [row for _, (_, row) in run]
            rows = self.voxels.rows(subject, source, places[0], places[-1] + 1)
            assert rows is not None
            parts.append(rows)
        return np.concatenate(parts)

    def source_rows(self, subject: str) -> IntArray:
        """For each tuning row of a subject, laid end to end, the row that took its place; shape (n_rows,)."""
        return self._order[subject]


def permute_blocks(n_rows: int, block_trs: int, rng: np.random.Generator) -> IntArray:
    """A permutation of rows that moves whole blocks and leaves none in place, shape (n_rows,).

    The matched control: block_trs is longer than the responses' autocorrelation, so that the noise keeps its shape. The
    rows are cut into blocks whose lengths differ by at most one (block_trs or somewhat more), and blocks of one length
    change places among themselves, so that borders stay where they are. Where so few rows allow no such cut, a piece
    from the front, drawn between block_trs and n_rows - block_trs, changes places with the rest.

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
        sources[same] = same[_derangement(len(same), rng)]
    return np.concatenate([blocks[k] for k in sources])


def _number_of_blocks(n_rows: int, block_trs: int) -> int:
    """The largest number of blocks (none longer than twice block_trs) in which each length occurs twice; 0 if none."""
    for n_blocks in range(n_rows // block_trs, max(n_rows // (2 * block_trs), 1), -1):
        n_longer = n_rows % n_blocks
        if n_longer != 1 and n_longer != n_blocks - 1:
            return n_blocks
    return 0


def shift_stories(spans: Sequence[Span], min_shift_trs: int, seed: int) -> IntArray:
    """For each row of the spans, laid end to end, the row some lag earlier in the circle of its story's rows.

    Everything but the lag to the sound stays as it was, the seam between last and first row excepted. The lag is at
    least min_shift_trs rows in either direction of the circle, longer than a response to the sound lasts, and depends
    on the seed and the story alone.

    Raises
    ------
    ValueError
        If a story has fewer than 2 min_shift_trs rows, or min_shift_trs is not positive.
    """
    rows_of = _rows_of_stories(spans)
    order = np.zeros(_n_rows(spans), dtype=np.int64)
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
    """For each row of the spans, laid end to end, the row at the same place of another story: none keeps its own.

    Stories differ in length: the rows of the other story are taken from its first tuning row on, cut where this story
    ends, and begun again where the other one is over; so some rows of long stories are not used, and those of short
    ones more than once.

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
    order = np.zeros(_n_rows(spans), dtype=np.int64)
    for rows, other in zip(rows_of, _derangement(len(rows_of), np.random.default_rng(seed)), strict=True):
        order[rows] = np.resize(rows_of[other], len(rows))
    return order


def _rows_of_stories(spans: Sequence[Span]) -> dict[str, IntArray]:
    """Numbers of each story's rows among the rows of all spans, laid end to end."""
    labels = np.repeat([span.story for span in spans], [span.n_trs for span in spans])
    return {story: np.flatnonzero(labels == story) for story in dict.fromkeys(span.story for span in spans)}


def _derangement(n: int, rng: np.random.Generator) -> IntArray:
    """A random order of n >= 2 things in which none stays in place (about one try in three succeeds)."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).all():
            return order


# --- Phases drawn at random ---


def phase_targets(voxels: VoxelTargets, spans: Sequence[Span], seed: int) -> StoredTargets:
    """Phase-randomised surrogates of all tuning spans, each span by itself; computed once, then kept in the cache.

    One random phase per frequency and span serves all voxels and all subjects, so every power and cross spectrum stays
    as it was (Prichard & Theiler 1994, Phys. Rev. Lett. 73:951), and with them mean, variance, autocorrelation and the
    covariance of voxels and of subjects who heard the same rows. As each row depends on the whole span, the surrogates
    are written to disk: as many bytes as the tuning rows of all target voxels have in float32, which is 1.9 GB for 27
    stories of 350 TRs and 50,000 voxels.
    """
    heard = {subject: [span for span in spans if voxels.heard(subject, span.story)] for subject in voxels.sizes}
    settings: dict[str, Any] = {
        "recipe": RECIPE,
        "kind": "phase",
        "store": voxels.store.fingerprint,
        "voxels": {name: hashlib.sha256(own.tobytes()).hexdigest() for name, own in voxels.voxels.items()},
        "spans": {subject: [str(span) for span in own] for subject, own in heard.items()},
        "subjects": list(heard),
        "seed": seed,
    }

    def build(folder: Path) -> None:
        pieces = [(n, name, k, span) for n, name in enumerate(heard) for k, span in enumerate(heard[name])]
        for subject_number, subject, number, span in tqdm(pieces, desc="phase-randomised responses", unit="story"):
            values = voxels.rows(subject, span.story, span.start_tr, span.stop_tr)
            assert values is not None
            rng = random_stream(seed, "phases", span.story, span.start_tr, span.stop_tr)
            np.save(folder / file_name(subject_number, number), randomise_phases(values, rng))

    return StoredTargets(cached_folder("targets", settings, build), voxels.sizes, heard)


def randomise_phases(values: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Add the same random phases to the frequencies of all columns: (n_rows, n_columns) -> the same shape.

    The mean stays as it is. The highest frequency of an even number of rows keeps or turns its sign: a real series has
    no other phases there.
    """
    from scipy.fft import irfft, rfft

    n_rows = len(values)
    angles = rng.uniform(0, 2 * np.pi, n_rows // 2 + 1)
    angles[0] = 0.0
    if n_rows % 2 == 0:
        angles[-1] = np.pi * (angles[-1] > np.pi)
    turned = rfft(values, axis=0) * np.exp(1j * angles).astype(np.complex64)[:, None]
    surrogate: Float32Array = irfft(turned, n=n_rows, axis=0).astype(np.float32)
    return surrogate
