"""Numbers of several regimes and seeds, their differences within a seed, and their interval over seeds.

A state is a model at one moment: 'pretrained' (before tuning), or a regime after tuning. Numbers of one seed are
paired: its states share stories, listeners, starting weights and clips. What was not measured is absent, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from brainlit.downstream.representation import WordMap
from brainlit.encoding.statistics import Score, mean_score

PRETRAINED, BRAIN, PERMUTED = "pretrained", "brain", "permuted"
STIMULUS, LANGUAGE_MODEL = "stimulus", "language_model"
REGIMES = (PRETRAINED, BRAIN, PERMUTED, STIMULUS, LANGUAGE_MODEL, "large_speech_model")
REGION, AUDITORY, WORDS = "region", "auditory", "words"
ALIGNMENT, LATE_MINUS_EARLY = "r_backbone", "late_minus_early"

Change: TypeAlias = tuple[str, str]
"""(regime, other): the first minus the second."""


@dataclass(frozen=True)
class Measured:
    """A number of one seed.

    Parameters
    ----------
    value : float
    low, high : float or None
        Its 95 % interval over held-out time, clips or words; None where it has none.
    draws : tuple of float
        The number for each permutation of the control, where there are several.
    """

    value: float
    low: float | None = None
    high: float | None = None
    draws: tuple[float, ...] = ()


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
    words : mapping of (regime, other regime) to tuple of mapping of Key to Measured
        Changes of preference with intervals over words, one for each permutation; they are no differences of
        replicates.
    """

    model: str
    seed: int
    states: Mapping[str, tuple[State, ...]]
    words: Mapping[Change, tuple[Mapping[Key, Measured], ...]] = field(default_factory=dict)

    def value(self, regime: str, key: Key) -> Measured | None:
        """A number of one regime, mean over subjects and permutations, with this seed's interval."""
        found = [mean_score(list(state[key].values())) for state in self.states.get(regime, ()) if state.get(key)]
        return _measured(found)

    def difference(self, regime: str, other: str, key: Key) -> Measured | None:
        """regime - other, over the subjects that have both; permutations are averaged."""
        of_words = [changes[key] for changes in self.words.get((regime, other), ()) if key in changes]
        if of_words:
            return _mean_measured(of_words)
        pairs = [(one, two) for one in self.states.get(regime, ()) for two in self.states.get(other, ())]
        return _measured([score for one, two in pairs if (score := _minus(one.get(key), two.get(key))) is not None])

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
        words = self.region.replace("_", " ")
        return words if words.endswith("voxels") else f"{words} voxels"

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


def over_seeds(found: Sequence[Measured], level: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean over seeds and its t interval (n - 1 degrees of freedom); no interval with one seed.

    The scatter of seeds holds all there is, but two or three may lie close together by chance. So the interval is never
    narrower than the seeds' own intervals make that of their mean, where all seeds have one.

    >>> mean, low, high = over_seeds([Measured(0.14), Measured(0.19), Measured(0.17)])
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (0.167, 0.104, 0.229)
    """
    values, n = [one.value for one in found], len(found)
    mean = float(np.mean(values))
    if n < 2:
        return mean, None, None
    halves = [(one.high - one.low) / 2 for one in found if one.low is not None and one.high is not None]
    own = float(np.linalg.norm(halves)) / n if len(halves) == n else 0.0
    half = max(_student(n, level) * float(np.std(values, ddof=1)) / n**0.5, own)
    return mean, mean - half, mean + half


def _minus(one: Mapping[str, Score] | None, other: Mapping[str, Score] | None) -> Score | None:
    """Mean difference over the subjects that have both."""
    if not one or not other:
        return None
    both = [one[subject] - other[subject] for subject in one if subject in other]
    return mean_score(both) if both else None


def _measured(scores: Sequence[Score]) -> Measured | None:
    """Mean over permutations with its interval."""
    known = [score for score in scores if np.isfinite(score.value)]
    if not known:
        return None
    mean = mean_score(known)
    low, high = mean.interval or (None, None)
    return Measured(mean.value, low, high, tuple(score.value for score in known) if len(known) > 1 else ())


def _mean_measured(found: Sequence[Measured]) -> Measured:
    """Mean over permutations; ends are averaged too, as wide as if the permutations erred alike."""
    if len(found) == 1:
        return found[0]
    lows, highs = [one.low for one in found if one.low is not None], [one.high for one in found if one.high is not None]
    known = len(lows) == len(highs) == len(found)
    low, high = (float(np.mean(lows)), float(np.mean(highs))) if known else (None, None)
    return Measured(float(np.mean([one.value for one in found])), low, high, tuple(one.value for one in found))


@lru_cache
def _student(n: int, level: float) -> float:
    """Quantile of Student's t for a two-sided interval of n seeds."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, n - 1))
