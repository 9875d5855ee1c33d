"""Responses whose rows have changed places, one rearrangement for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from brainlit.datamodules.targets.voxels import Float32Array, IntArray, VoxelTargets
from brainlit.encoding.roles import Span

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
        self._place: dict[str, dict[str, IntArray]] = {}
        self._source: dict[str, list[tuple[str, int]]] = {}
        self._order: dict[str, IntArray] = {}
        for subject in voxels.sizes:
            heard = [span for span in spans if voxels.heard(subject, span.story)]
            self._arrange(subject, heard, rule(heard))

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
        places = self._place[subject].get(story, np.zeros(0, dtype=np.int64))[start_tr:stop_tr]
        if len(places) < stop_tr - start_tr or (places < 0).any():
            raise ValueError(f"rows {start_tr}..{stop_tr} of {story!r} are not tuning rows of {subject!r}.")
        return np.concatenate([self._run(subject, run) for run in self._runs(subject, places)])

    def source_rows(self, subject: str) -> IntArray:
        """For each tuning row of a subject, laid end to end, the row that took its place; shape (n_rows,)."""
        return self._order[subject]

    def _arrange(self, subject: str, spans: Sequence[Span], order: IntArray) -> None:
        sources = [(span.story, row) for span in spans for row in range(span.start_tr, span.stop_tr)]
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
