"""People who share a part of their responses to the toy's stories, and each have a part of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainlit.stories import Responses, Subject
from tests.toy import DELAY_TRS, ToySource

N_VOXELS = 8
SHARED = np.arange(N_VOXELS) < 6
"""Voxels that follow what is shared; the others are each person's own, and noise."""


@dataclass(frozen=True)
class Shares:
    """Expected numbers of n people of whose variance a part `a` is shared: the algebra of independent series."""

    a: float
    n: int

    @property
    def one_with_the_others(self) -> float:
        return self.a / np.sqrt(self.a + (1 - self.a) / (self.n - 1))

    @property
    def ceiling_of_one(self) -> float:
        return np.sqrt(self.a)

    @property
    def ceiling_of_the_mean(self) -> float:
        return np.sqrt(self.a / (self.a + (1 - self.a) / self.n))


class Crowd(ToySource):
    """p1, p2, .. hear the toy's stories; where SHARED, the column `level` drives a part `a` of everybody's variance.

    A part `own` follows something of the stimulus that differs between people (the same in all presentations), the rest
    is noise. The last person did not hear toy1 and toy4, and nobody but p1 heard toy0 unless `all_heard_all`.
    """

    name = "crowd"

    def __init__(
        self, n_people: int = 4, a: float = 0.3, own: float = 0.2, n_trs: int = 60, all_heard_all: bool = True
    ) -> None:
        super().__init__(n_trs=n_trs, n_repeats=1)
        self.people = [f"p{k}" for k in range(1, n_people + 1)]
        self.a, self.own, self.all_heard_all = a, own, all_heard_all

    def settings(self) -> dict[str, Any]:
        return {"n_trs": self.n_trs, "a": self.a, "own": self.own, "all_heard_all": self.all_heard_all}

    def subject_names(self) -> Sequence[str]:
        return list(self.people)

    def left_out(self) -> dict[str, str]:
        return {}

    def subject(self, name: str) -> Subject:
        return Subject(
            name, N_VOXELS, {"shared": SHARED, "null": ~SHARED}, truth={"signal": np.where(SHARED, self.a, 0)}
        )

    def responses(self, subject: str, story: str) -> Responses | None:
        absent = {self.people[-1]: {"toy1", "toy4"}}.get(subject, set()) | ({"toy0"} if subject != "p1" else set())
        if story in absent and not self.all_heard_all:
            return None
        return Responses(self._presentation(subject, story).astype(np.float32))

    def _presentation(self, subject: str, story: str, repeat: int = 0) -> np.ndarray:
        shared = np.zeros(self.n_trs)
        shared[DELAY_TRS:] = self._level(story)[:-DELAY_TRS]
        own = self._rng(story, 20, subject).standard_normal((self.n_trs, N_VOXELS))
        noise = self._rng(story, 21 + repeat, subject).standard_normal((self.n_trs, N_VOXELS))
        a = np.where(SHARED, self.a, 0.0)
        mixed = np.sqrt(a) * shared[:, None] + np.sqrt(self.own) * own + np.sqrt(1 - a - self.own) * noise
        return (mixed - mixed.mean(axis=0)) / mixed.std(axis=0)
