"""Numbers of several regimes and seeds, their differences within a seed, and their interval over seeds.

A state is a model at one moment: 'pretrained' (before tuning), or a regime after tuning. Numbers of one seed are
paired: its states share stories, listeners, starting weights and clips. What was not measured is absent, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from brainlit.downstream.representation import WordMap
from brainlit.encoding.statistics import LEVEL, Score, mean_score, student_quantile
from brainlit.results.summary import place_words

PRETRAINED, BRAIN, PERMUTED = "pretrained", "brain", "permuted"
STIMULUS, LANGUAGE_MODEL = "stimulus", "language_model"
REGIMES = (PRETRAINED, BRAIN, PERMUTED, STIMULUS, LANGUAGE_MODEL, "large_speech_model")
REGION, AUDITORY, WORDS = "region", "auditory", "words"
ALIGNMENT, LATE_MINUS_EARLY = "r_backbone", "late_minus_early"

Change: TypeAlias = tuple[str, str]
"""(regime, other): the first minus the second."""


class Key(NamedTuple):
    """Which number.

    Parameters
    ----------
    what : str
        A metric of the probe, LATE_MINUS_EARLY, a downstream task, or a number of `word_evidence`.
    where : str
        REGION (the compared one) or AUDITORY, the part of a task, or WORDS.
    layer : int or None
        None: the compared layer (of words: the last; of tasks: the chosen one).
    """

    what: str
    where: str
    layer: int | None = None


State: TypeAlias = Mapping[Key, Mapping[str, Score]]
"""Numbers by subject; those of tasks and words have one subject without a name."""
Controls: TypeAlias = Mapping[tuple[str, str], Mapping[str, float]]
"""Of each task and part: scores of the controls that need no model."""


@dataclass(frozen=True, eq=False)
class SeedEvidence:
    """What one model showed with one seed.

    Parameters
    ----------
    states : mapping of regime to tuple of State
        One state; of 'permuted' one for each permutation.
    words : mapping of (regime, other regime) to tuple of mapping of Key to Score
        Changes of preference with intervals over words, one for each permutation; they are no differences of
        replicates.
    """

    model: str
    seed: int
    states: Mapping[str, tuple[State, ...]]
    words: Mapping[Change, tuple[Mapping[Key, Score], ...]] = field(default_factory=dict)

    def values(self, regime: str, key: Key) -> list[Score]:
        """A number of one regime, mean over subjects; one for each permutation."""
        return _known(mean_score(list(state[key].values())) for state in self.states.get(regime, ()) if state.get(key))

    def value(self, regime: str, key: Key) -> Score | None:
        """Mean of these over permutations, with this seed's interval over held-out time, clips or words."""
        return _mean(self.values(regime, key))

    def differences(self, regime: str, other: str, key: Key) -> list[Score]:
        """regime - other, over the subjects that have both; one for each permutation."""
        of_words = [changes[key] for changes in self.words.get((regime, other), ()) if key in changes]
        pairs = [(one, two) for one in self.states.get(regime, ()) for two in self.states.get(other, ())]
        return of_words or _known(_minus(one.get(key), two.get(key)) for one, two in pairs)

    def difference(self, regime: str, other: str, key: Key) -> Score | None:
        """Mean of these over permutations."""
        return _mean(self.differences(regime, other, key))

    def layers(self, what: str, where: str) -> list[int]:
        """Layers for which any state has this number."""
        keys = {key for states in self.states.values() for state in states for key in state}
        return sorted(key.layer for key in keys if key[:2] == (what, where) and key.layer is not None)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All seeds of all models.

    Parameters
    ----------
    region : str
        The compared one.
    tasks : tuple of (str, str)
        Task and part of all downstream results.
    maps : mapping of model to WordMap
        Of its first seed that has words before and after brain-tuning.
    notes, missing, runs : tuples of str
        What tasks warn of; what was not there; the runs that were read.
    """

    region: str
    seeds: tuple[SeedEvidence, ...]
    tasks: tuple[tuple[str, str], ...] = ()
    controls: Controls = field(default_factory=dict)
    maps: Mapping[str, WordMap] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The region in words: 'semantic voxels'."""
        return place_words(self.region)

    @property
    def models(self) -> list[str]:
        """In alphabetical order."""
        return sorted({seed.model for seed in self.seeds})

    @property
    def regimes(self) -> list[str]:
        """Those that any seed has, in a fixed order."""
        there = {regime for seed in self.seeds for regime in seed.states}
        return [*(regime for regime in REGIMES if regime in there), *sorted(there - set(REGIMES))]

    def of(self, model: str) -> list[SeedEvidence]:
        """The seeds of a model."""
        return [seed for seed in self.seeds if seed.model == model]


def over_seeds(found: Sequence[Score], level: float = LEVEL) -> Score:
    """Mean over seeds and its t interval (n - 1 degrees of freedom); no interval with one seed.

    The scatter of seeds holds all there is, but two or three may lie close together by chance. So the interval is never
    narrower than the seeds' own intervals make that of their mean, where all seeds have one.

    >>> mean = over_seeds([Score(0.14), Score(0.19), Score(0.17)])
    >>> round(mean.value, 3), round(mean.low, 3), round(mean.high, 3)
    (0.167, 0.104, 0.229)
    """
    values, n = [one.value for one in found], len(found)
    mean = float(np.mean(values))
    if n < 2:
        return Score(mean, level=level, n_units={"seeds": n})
    halves = [(one.high - one.low) / 2 for one in found if one.interval is not None]
    own = float(np.linalg.norm(halves)) / n if len(halves) == n else 0.0
    half = max(student_quantile(n - 1, level) * float(np.std(values, ddof=1)) / n**0.5, own)
    return Score(mean, bounds=(mean - half, mean + half), level=level, n_units={"seeds": n})


def _minus(one: Mapping[str, Score] | None, other: Mapping[str, Score] | None) -> Score | None:
    """Mean difference over the subjects that have both."""
    if not one or not other:
        return None
    return _mean([one[subject] - other[subject] for subject in one if subject in other])


def _mean(scores: Sequence[Score]) -> Score | None:
    return mean_score(scores) if scores else None


def _known(scores: Iterable[Score | None]) -> list[Score]:
    return [score for score in scores if score is not None and np.isfinite(score.value)]
