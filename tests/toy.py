"""A small data set with known answers: noise for sound, two subjects, voxels driven by a feature 2 TRs earlier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainlit.stories import FeatureSpace, Intervals, Responses, Story, StorySource, Subject
from brainlit.timebase import TimeBase

DELAY_TRS = 2
DRIVEN_BY = ("low_level",) * 4 + ("semantic",) * 4 + ("noise",) * 4
"""What drives each of the 12 voxels, the same for both subjects."""
WORDS = ("river", "stone", "doctor", "garden", "winter", "mother")


class ToySource(StorySource):
    """Stories toy0, toy1 (tune), toy2, toy3 (fit), toy4 (choose) and toy5 (score), heard by sub-A and sub-B.

    Voxels 0..3 follow the column `level` of the low-level space `envelope`, voxels 4..7 the column `first` of the
    semantic space `word_vectors`, both DELAY_TRS rows earlier, with noise of a quarter of the variance; voxels 8..11
    are noise. The sound is noise whose loudness follows `level`. toy4 and toy5 were heard n_repeats times; sub-B did
    not hear toy1 (set `everyone_heard_all` for that).
    """

    name = "toy"

    def __init__(
        self,
        seed: int = 0,
        n_trs: int = 40,
        tr_s: float = 2.0,
        n_repeats: int = 3,
        everyone_heard_all: bool = False,
    ) -> None:
        self.seed, self.n_trs, self.tr_s, self.n_repeats = seed, n_trs, tr_s, n_repeats
        self.everyone_heard_all = everyone_heard_all

    def settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "n_trs": self.n_trs,
            "tr_s": self.tr_s,
            "n_repeats": self.n_repeats,
            "everyone_heard_all": self.everyone_heard_all,
        }

    def story_names(self) -> Sequence[str]:
        return [f"toy{k}" for k in range(6)]

    def subject_names(self) -> Sequence[str]:
        return ["sub-A", "sub-B"]

    def story(self, name: str) -> Story:
        timebase = TimeBase.regular(self.n_trs, self.tr_s)
        rng = self._rng(name, 1)
        loudness = np.repeat(np.exp(0.5 * self._level(name)), 100)
        n_samples = int(timebase.samples_at(timebase.end_s))
        place = np.minimum(np.arange(n_samples) * len(loudness) // n_samples, len(loudness) - 1)
        audio = 1000 * loudness[place] * rng.standard_normal(n_samples, dtype=np.float32)
        return Story(
            name=name,
            audio=np.clip(audio, -32768, 32767).astype(np.int16),
            words=self._intervals(name, 2, 0.8),
            phones=self._intervals(name, 3, 0.2),
            timebase=timebase,
        )

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        level = np.stack([self._level(story.name), self._rng(story.name, 4).standard_normal(self.n_trs)], axis=1)
        return [
            FeatureSpace("envelope", "low_level", ("level", "unrelated"), "planted", level.astype(np.float32)),
            FeatureSpace(
                "word_vectors", "semantic", ("first", "second", "third"), "planted", self._meaning(story.name), 0.9
            ),
        ]

    def subject(self, name: str) -> Subject:
        return Subject(
            name=name,
            n_voxels=len(DRIVEN_BY),
            regions={band: np.array([driver == band for driver in DRIVEN_BY]) for band in ("low_level", "semantic")},
            vertices=np.arange(len(DRIVEN_BY), dtype=np.int64) * 100,
            coordinates_mm=np.arange(3.0 * len(DRIVEN_BY)).reshape(-1, 3),
            truth={"driven_by": np.array(DRIVEN_BY), "delay_trs": np.full(len(DRIVEN_BY), DELAY_TRS)},
        )

    def responses(self, subject: str, story: str) -> Responses | None:
        if subject == "sub-B" and story == "toy1" and not self.everyone_heard_all:
            return None
        n_repeats = self.n_repeats if story in ("toy4", "toy5") else 1
        signal = np.zeros((self.n_trs, len(DRIVEN_BY)))
        signal[DELAY_TRS:, :4] = self._level(story)[:-DELAY_TRS, None]
        signal[DELAY_TRS:, 4:8] = self._meaning(story)[:-DELAY_TRS, :1]
        noise = self._rng(story, 5, subject).standard_normal((n_repeats, *signal.shape))
        repeats = _z_score(signal + np.where(signal.any(axis=0), 0.5, 1.0) * noise)
        return Responses(repeats.mean(axis=0), repeats if n_repeats > 1 else None)

    def default_roles(self) -> dict[str, list[str]]:
        return {"tune": ["toy0", "toy1"], "fit": ["toy2", "toy3"], "choose": ["toy4"], "score": ["toy5"]}

    def left_out(self) -> dict[str, str]:
        return {"sub-C": "its columns are constant"}

    def _level(self, story: str) -> np.ndarray:
        return self._rng(story, 6).standard_normal(self.n_trs)

    def _meaning(self, story: str) -> np.ndarray:
        return self._rng(story, 7).standard_normal((self.n_trs, 3)).astype(np.float32)

    def _intervals(self, story: str, stream: int, step_s: float) -> Intervals:
        start_s = np.arange(0.1, self.n_trs * self.tr_s - 1, step_s)
        labels = tuple(self._rng(story, stream).choice(WORDS, size=len(start_s)).tolist())
        return Intervals(labels, start_s, np.full(len(start_s), 0.9 * step_s))

    def _rng(self, story: str, stream: int, subject: str = "") -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, *story.encode(), *subject.encode()])


class TwoMeanings(ToySource):
    """The semantic space in two: what drives voxels is in `glove`, and `context` holds what drives none."""

    name = "two_meanings"

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        envelope, vectors = super().feature_spaces(story)
        columns = (("glove", slice(0, 1)), ("context", slice(1, 3)))
        return [
            envelope,
            *(replace(vectors, name=n, columns=vectors.columns[c], values=vectors.values[:, c]) for n, c in columns),
        ]


def _z_score(values: np.ndarray) -> np.ndarray:
    """Over the time axis, (n_repeats, n_trs, n_voxels)."""
    centred = values - values.mean(axis=1, keepdims=True)
    return (centred / centred.std(axis=1, keepdims=True)).astype(np.float32)


class TwoClocks(ToySource):
    """The scanner of sub-B began 3 rows before that of sub-A: its stories, toy0.B and so on, have a clock of their own.

    What both hear at one moment drives both.
    """

    name = "two_clocks"
    ROWS_BEFORE = 3

    def story_names(self) -> Sequence[str]:
        return [name for story in super().story_names() for name in (story, f"{story}.B")]

    def on_other_clocks(self) -> dict[str, str]:
        return {f"{story}.B": story for story in super().story_names()}

    def story(self, name: str) -> Story:
        story = super().story(name.removesuffix(".B"))
        onset_s = -self.ROWS_BEFORE * self.tr_s * name.endswith(".B")
        return replace(story, name=name, timebase=TimeBase.regular(self.n_trs, self.tr_s, onset_s))

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        spaces = super().feature_spaces(replace(story, name=story.name.removesuffix(".B")))
        return [replace(space, values=self._rows(story.name, space.values)) for space in spaces]

    def responses(self, subject: str, story: str) -> Responses | None:
        found = super().responses(subject, story.removesuffix(".B"))
        if found is None or (subject == "sub-B") != story.endswith(".B"):
            return None
        repeats = None if found.repeats is None else np.stack([self._rows(story, one) for one in found.repeats])
        return Responses(self._rows(story, found.values), repeats)

    def _rows(self, story: str, values: np.ndarray) -> np.ndarray:
        if not story.endswith(".B"):
            return values
        before = 0.1 * self._rng(story, 8).standard_normal((self.ROWS_BEFORE, values.shape[1]))
        return np.concatenate([before, values[: -self.ROWS_BEFORE]]).astype(np.float32)
