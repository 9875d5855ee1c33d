"""Numbers of several regimes and seeds, their differences within a seed, and their interval over seeds.

A state is a model at one moment: 'pretrained' (before tuning), or a regime after tuning. Numbers of one seed are
paired: its states share stories, listeners, starting weights and clips. What was not measured is absent, never zero.

Whether seeds are independent depends on what they are scored on. Where each draws listeners and stories (or clips) of
its own, as the demo does, the scatter of seeds holds all there is. Where they share them, as on real data, the same
minutes of the same people favour all of them or none: that error does not average out, and seeds do not show it.
`over_seeds` is the one rule for both, for claims, curves, figures, tables and pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from brainlit.downstream.representation import WordMap
from brainlit.encoding.statistics import LEVEL, Score, mean_score, student_quantile
from brainlit.results.group import Lookup, entering, group_score, own_parts
from brainlit.results.summary import place_words
from brainlit.results.tables import SIMULATED

PRETRAINED, BRAIN, PERMUTED = "pretrained", "brain", "permuted"
STIMULUS, LANGUAGE_MODEL = "stimulus", "language_model"
REGIMES = (PRETRAINED, BRAIN, PERMUTED, STIMULUS, LANGUAGE_MODEL, "large_speech_model")
REGION, AUDITORY, WORDS = "region", "auditory", "words"
ALIGNMENT, LATE_MINUS_EARLY = "r_backbone", "late_minus_early"
PLANTED_NULLS = ("auditory", "modulation", "attention", "arousal")
"""Regions of simulated voxels that follow sound, attention or arousal, and no meaning: nothing semantic can change."""
NULL, BRAIN_ONLY = "null", "brain_only"
"""Regions of simulated voxels that follow nothing, and a meaning that no text carries."""
PROBE = "probe"
"""What of a seed's data the probe's numbers rest on: listeners and stories."""

Change: TypeAlias = tuple[str, str]
"""(regime, other): the first minus the second."""


class Key(NamedTuple):
    """Which number.

    Parameters
    ----------
    what : str
        A metric of the probe, LATE_MINUS_EARLY, a downstream task, or a number of `word_evidence`.
    where : str
        REGION (the compared one) or the name of any region, the part of a task, or WORDS.
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
    data : mapping of str to str
        What its numbers are scored on, under PROBE, WORDS and 'TASK PART'; seeds with the same text share it. What is
        not named is taken as shared: that seeds drew data of their own has to be known.
    """

    model: str
    seed: int
    states: Mapping[str, tuple[State, ...]]
    words: Mapping[Change, tuple[Mapping[Key, Score], ...]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    def values(self, regime: str, key: Key) -> list[Score]:
        """A number of one regime, of all subjects together; one for each permutation."""
        return _known(_of_group(state, key) for state in self.states.get(regime, ()))

    def value(self, regime: str, key: Key) -> Score | None:
        """Mean of these over permutations, with this seed's interval over held-out time, clips or words."""
        return _mean(self.values(regime, key))

    def differences(self, regime: str, other: str, key: Key) -> list[Score]:
        """regime - other, of the subjects that enter both; one for each permutation."""
        of_words = [changes[key] for changes in self.words.get((regime, other), ()) if key in changes]
        pairs = [(one, two) for one in self.states.get(regime, ()) for two in self.states.get(other, ())]
        return of_words or _known(_minus(one, two, key) for one, two in pairs)

    def difference(self, regime: str, other: str, key: Key) -> Score | None:
        """Mean of these over permutations."""
        return _mean(self.differences(regime, other, key))

    def people(self, regime: str, other: str | None, key: Key) -> dict[str, float]:
        """What each subject contributes to the number (or to regime - other), mean over permutations.

        Of tasks and words that of nobody; see `results.group.own_parts`.
        """
        found: dict[str, list[float]] = {}
        for one in self.states.get(regime, ()):
            for two in self.states.get(other, ()) if other else (None,):
                both = [state for state in (one, two) if state is not None]
                names = [name for name in _entering(one, key) if all(name in _entering(state, key) for state in both)]
                if any(_of_group(state, key, names) is None for state in both):
                    continue
                ours, *theirs = (own_parts(key.what, _lookup(state, key), names) for state in both)
                for name, value in ours.items():
                    found.setdefault(name, []).append(value - sum(own[name] for own in theirs))
        means = {subject: float(np.mean(values)) for subject, values in found.items()}
        return {subject: mean for subject, mean in means.items() if np.isfinite(mean)}

    def data_of(self, key: Key) -> str | None:
        """What a number is scored on; None where that is not known."""
        own = f"{key.what} {key.where}"
        return self.data.get(own if own in self.data else WORDS if key.where == WORDS else PROBE)

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
    simulated : bool
        Whether all runs say that their listeners are simulated.
    partly_simulated : str
        A sentence about this where only some do.
    fitted_on_tuned : tuple of str
        Sentences about encoding models that were fitted on stories that the model was tuned on.
    """

    region: str
    seeds: tuple[SeedEvidence, ...]
    tasks: tuple[tuple[str, str], ...] = ()
    controls: Controls = field(default_factory=dict)
    maps: Mapping[str, WordMap] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    simulated: bool = False
    partly_simulated: str = ""
    fitted_on_tuned: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The region in words: 'semantic voxels'."""
        return place_words(self.region)

    @property
    def listeners(self) -> str:
        """What every page and table begins with where listeners are simulated, else nothing."""
        return SIMULATED if self.simulated else self.partly_simulated

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


def mean_over_seeds(seeds: Sequence[SeedEvidence], key: Key, regime: str, other: str | None = None) -> Score | None:
    """Mean of a number of a regime (or of regime - other) over the seeds that have it, by the rule of `over_seeds`.

    None where no seed has it; of one seed the mean has no interval.
    """
    values = {seed: seed.value(regime, key) if other is None else seed.difference(regime, other, key) for seed in seeds}
    found = {seed: value for seed, value in values.items() if value is not None}
    if not found:
        return None
    people = [seed.people(regime, other, key) for seed in found]
    return over_seeds(list(found.values()), people, shared=share_data(list(found), key))


def mean_gap(seeds: Sequence[SeedEvidence], key: Key, other_key: Key, regime: str, other: str) -> Score | None:
    """regime - other of one number less that of another, within each seed; mean over seeds as `mean_over_seeds`."""
    pairs = {seed: [seed.difference(regime, other, one) for one in (key, other_key)] for seed in seeds}
    found = {seed: one - two for seed, (one, two) in pairs.items() if one is not None and two is not None}
    if not found:
        return None
    people = []
    for seed in found:
        ours, theirs = (seed.people(regime, other, one) for one in (key, other_key))
        people.append({name: value - theirs[name] for name, value in ours.items() if name in theirs})
    return over_seeds(list(found.values()), people, shared=share_data(list(found), key))


def share_data(seeds: Sequence[SeedEvidence], key: Key) -> bool:
    """Whether any two seeds are scored on the same listeners and stories (or clips, or words), as far as is known."""
    drawn = [seed.data_of(key) for seed in seeds]
    return len(seeds) > 1 and (None in drawn or len(set(drawn)) < len(drawn))


def over_seeds(
    found: Sequence[Score],
    people: Sequence[Mapping[str, float]] = (),
    *,
    shared: bool,
    level: float = LEVEL,
) -> Score:
    """Mean over seeds and its interval; no interval with one seed.

    **Own data.** The scatter of seeds holds all there is: Student's t with n - 1 degrees of freedom. Two or three may
    lie close together by chance, so the interval is never narrower than the seeds' own intervals make that of their
    mean, where all have one.

    **Shared data.** Three sources, each with its own half width: seeds (as above), held-out time (the mean of the
    seeds' own variances: their errors are one and the same, and do not shrink with the number of seeds), and from two
    subjects up people (Student's t of the subjects' means over seeds). Their squares add up, which is Cochran's
    solution of the problem of Behrens and Fisher (1964, Biometrics 20:191): on the safe side, also because what is
    peculiar to a seed and a minute counts in both. Without an interval of every seed there is none of the mean.

    Parameters
    ----------
    found : sequence of Score
        One per seed, mean over subjects.
    people : sequence of mapping of subject to float
        Of each seed, its number for every subject.
    shared : bool
        Whether seeds are scored on the same listeners and stories.

    >>> mean = over_seeds([Score(0.14), Score(0.19), Score(0.17)], shared=False)
    >>> round(mean.value, 3), round(mean.low, 3), round(mean.high, 3)
    (0.167, 0.104, 0.229)
    >>> mean = over_seeds([Score(v, bounds=(v - 0.05, v + 0.05)) for v in (0.14, 0.19, 0.17)], shared=True)
    >>> round(mean.value, 3), round(mean.low, 3), round(mean.high, 3)
    (0.167, 0.087, 0.247)
    """
    values, n = [one.value for one in found], len(found)
    mean, units = float(np.mean(values)), {"seeds": n}
    if n < 2:
        return Score(mean, level=level, n_units=units)
    seeds = _half_width(values, level)
    halves = [(one.high - one.low) / 2 for one in found if one.interval is not None]
    if not shared:
        own = float(np.linalg.norm(halves)) / n if len(halves) == n else 0.0
        return _within(mean, max(seeds, own), level, units)
    subjects = _means_of_people(people)
    units |= {"subjects": len(subjects)} if subjects else {}
    if len(halves) < n:
        return Score(mean, level=level, n_units=units)
    time = float(np.sqrt(np.mean(np.square(halves))))
    return _within(mean, float(np.hypot(np.hypot(seeds, time), _half_width(subjects, level))), level, units)


def over_subjects(found: Sequence[Score], level: float = LEVEL) -> Score:
    """Mean over subjects, as one draw from many people: time (what subjects share of it stays) and people added up.

    Of one subject its own interval, which says nothing about other people; no interval where one has none.
    """
    mean = mean_score(found)
    if len(found) < 2 or mean.interval is None:
        return mean
    joined = mean.joined(_half_width([one.value for one in found], level))
    return Score(mean.value, bounds=joined.interval, level=level, n_units={"subjects": len(found)})


def _means_of_people(people: Sequence[Mapping[str, float]]) -> list[float]:
    """Mean over seeds of each named subject's number."""
    names = dict.fromkeys(name for own in people for name in own if name)
    return [float(np.mean([own[name] for own in people if name in own])) for name in names]


def _half_width(values: Sequence[float], level: float) -> float:
    """Of the t interval of a mean; 0 of a single value, which does not scatter."""
    n = len(values)
    return student_quantile(n - 1, level) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else 0.0


def _within(mean: float, half: float, level: float, n_units: Mapping[str, int]) -> Score:
    return Score(mean, bounds=(mean - half, mean + half), level=level, n_units=n_units)


def _lookup(state: State, key: Key) -> Lookup:
    """Other metrics of the same place and layer."""
    return lambda metric: state.get(key._replace(what=metric), {})


def _entering(state: State, key: Key) -> list[str]:
    return entering(key.what, _lookup(state, key))


def _of_group(state: State, key: Key, subjects: Sequence[str] | None = None) -> Score | None:
    """The number of these subjects together, or of all who enter it."""
    found = group_score(key.what, _lookup(state, key), subjects)
    return None if found is None else found.score


def _minus(one: State, other: State, key: Key) -> Score | None:
    """Difference over the subjects that enter both."""
    theirs = _entering(other, key)
    both = [subject for subject in _entering(one, key) if subject in theirs]
    first, second = (_of_group(state, key, both) for state in (one, other))
    return None if first is None or second is None else first - second


def _mean(scores: Sequence[Score]) -> Score | None:
    return mean_score(scores) if scores else None


def _known(scores: Iterable[Score | None]) -> list[Score]:
    return [score for score in scores if score is not None and np.isfinite(score.value)]
