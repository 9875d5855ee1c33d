"""Findings about the lag of responses: of the whole store, of a subject, of a story, of one story in one subject.

A story whose pattern over voxels is known from the others can be judged alone, so one wrong onset among good ones is
found. What is off is told once, at the coarsest place that explains it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

from brainlit.store.check_findings import Finding, Level
from brainlit.store.check_timing import (
    NARROW_LAGS_S,
    PLAUSIBLE_LAG_S,
    RESPONSE_S,
    USUAL_LAG_S,
    Agreement,
    LagEstimate,
    Match,
    Strength,
    agreement,
    expected_responses,
    lag_of_match,
    lag_of_strength,
    lags_s_of,
    matches_of_stories,
    shifts_to_try,
    strength,
)
from brainlit.store.reader import StoryStore
from brainlit.stories import Story
from brainlit.timebase import TimeBase

MAX_P = 0.005
"""Chance of as much agreement anywhere, after multiplying by the number of places that were looked at."""
MIN_LOG_ODDS = 5.0
"""At least 150 times likelier outside than inside. Of 750 simulated stores of pure noise two met both."""
ERROR_P, ERROR_LOG_ODDS, ERROR_DISTANCE_S = 1e-6, math.log(1e6), 2.0
"""An error: so sure, and so far from what is plausible."""
MAX_STORY_DIFFERENCE_S = 3.0
"""How far a story may lie from the subject's other stories: voxels are the same, so the response is."""
SILENT_P = 0.05
MIN_TRS_TO_EXPECT = 1000
"""Half an hour at 2 s: with less, no visible response in one subject says nothing."""
N_VOXELS = 1000


class LagEvidence:
    """Collects stories and responses one at a time, then says what is off.

    Parameters
    ----------
    store : StoryStore
        Only asked for its clocks.
    """

    def __init__(self, store: StoryStore) -> None:
        self.tr_s, self.name = store.tr_s, store.name
        enough = [n for n in map(store.n_trs, store.story_names) if shifts_to_try(n, self.tr_s) is not None]
        shifts = shifts_to_try(min(enough), self.tr_s) if enough else None
        self.shifts = np.zeros(0, dtype=np.int64) if shifts is None else shifts
        self.lags_s = lags_s_of(self.shifts, self.tr_s)
        self._expected: dict[str, npt.NDArray[np.float64]] = {}
        self._open: dict[str, Agreement] = {}
        self._strengths: dict[str, Strength] = {}
        self._matches: dict[tuple[str, str], Match] = {}
        self._n_trs: dict[str, int] = {}
        self._n_voxels: dict[str, int] = {}

    def add_story(self, story: Story) -> None:
        """Keep what a response to the story's words and loudness would look like; what precedes row 0 counts too."""
        from brainlit.features import envelope, word_rate

        clock = story.timebase
        if not len(self.shifts) or shifts_to_try(clock.n_trs, self.tr_s) is None:
            return
        n_before = math.ceil(RESPONSE_S / clock.tr_s)
        edges_s = clock.tr_edges_s(-n_before, n_before + clock.n_trs)
        longer = replace(story, timebase=TimeBase(edges_s[:-1], clock.tr_s, clock.sample_rate_hz))
        rates = np.concatenate([word_rate(longer).values, envelope(longer).values], axis=1).astype(np.float64)
        first_s, last_s = (story.words.start_s[0], story.words.end_s.max()) if len(story.words) else (0.0, 0.0)
        rates[(edges_s[1:] <= first_s) | (edges_s[:-1] >= last_s)] = np.nan
        self._expected[story.name] = expected_responses(rates, self.tr_s)[n_before:]

    def add_responses(self, story: str, responses: npt.NDArray[np.float32]) -> None:
        """Compare the responses of the subject at hand, (n_trs, n_voxels), with what was kept of the story."""
        if story in self._expected and responses.shape[1]:
            rng = np.random.default_rng(list(story.encode()))
            expected, shifts = self._expected[story], self.shifts
            self._open[story] = agreement(expected, np.nan_to_num(responses), self.tr_s, shifts, rng)

    def close_subject(self, subject: str, n_voxels: int) -> None:
        """Sum the subject's stories up; the next responses belong to another."""
        stories, self._open = self._open, {}
        if not stories:
            return
        self._n_voxels[subject] = n_voxels
        self._n_trs[subject] = sum(len(self._expected[story]) for story in stories)
        self._strengths[subject] = strength(reduce(add, stories.values()))
        if len(stories) > 1:
            matches = matches_of_stories(list(stories.values()))
            self._matches |= {(subject, story): match for story, match in zip(stories, matches, strict=True)}

    def findings(self) -> Iterator[Finding]:
        """What is off, the whole store first."""
        if not self._strengths:
            seconds = self.lags_s[-1] - self.lags_s[0] if len(self.lags_s) else NARROW_LAGS_S[1] - NARROW_LAGS_S[0]
            yield _none(self.name, f"stories are too short to try lags over {seconds:.0f} s.")
            return
        whole = lag_of_strength(list(self._strengths.values()), self.lags_s)
        everything = self._everything()
        whole_is_off = _is_off(whole, 1)
        if whole_is_off:
            yield _lag_finding(everything, whole, self.tr_s, 1)
        elif whole.p > SILENT_P or whole.log_odds > 0:
            yield _none(everything, _silence(whole, sum(self._n_voxels.values())))
        own = {name: lag_of_strength([curve], self.lags_s) for name, curve in self._strengths.items()}
        off = {name for name, one in own.items() if len(own) > 1 and _is_off(one, len(own))}
        if whole_is_off:
            off = {name for name in off if abs(own[name].lag_s - whole.lag_s) > MAX_STORY_DIFFERENCE_S}
        yield from (_lag_finding(name, own[name], self.tr_s, len(own)) for name in sorted(off))
        if whole.p <= SILENT_P:
            yield from self._silent_subjects(own)
        if whole.p <= MAX_P:
            yield from self._stories(whole, own)

    def _stories(self, whole: LagEstimate, own: dict[str, LagEstimate]) -> Iterator[Finding]:
        """Stories that lie elsewhere than the others: for all subjects, then for single ones."""
        by_story: dict[str, list[Match]] = defaultdict(list)
        for (_, story), match in self._matches.items():
            by_story[story].append(match)
        off = set()
        for story, matches in by_story.items():
            estimate = lag_of_match(matches, self.lags_s, _near(whole.lag_s))
            if _is_off(estimate, len(by_story)):
                off.add(story)
                yield _lag_finding(story, estimate, self.tr_s, len(by_story), others_s=whole.lag_s)
        for (subject, story), match in self._matches.items():
            usual_s = own[subject].lag_s if own[subject].p <= MAX_P else whole.lag_s
            estimate = lag_of_match([match], self.lags_s, _near(usual_s))
            if story not in off and _is_off(estimate, len(self._matches)):
                yield _lag_finding(f"{subject}/{story}", estimate, self.tr_s, len(self._matches), others_s=usual_s)

    def _silent_subjects(self, own: dict[str, LagEstimate]) -> Iterator[Finding]:
        for name, estimate in own.items():
            if len(own) > 1 and estimate.p > SILENT_P and self._n_trs[name] >= MIN_TRS_TO_EXPECT:
                yield _none(name, _silence(estimate, self._n_voxels[name]))

    def _everything(self) -> str:
        """The subject or the story, where there is only one."""
        if len(self._strengths) == 1:
            return next(iter(self._strengths))
        return next(iter(self._expected)) if len(self._expected) == 1 else self.name


def _near(lag_s: float) -> tuple[float, float]:
    return lag_s - MAX_STORY_DIFFERENCE_S, lag_s + MAX_STORY_DIFFERENCE_S


def _is_off(estimate: LagEstimate, n_places: int) -> bool:
    return estimate.p * n_places < MAX_P and estimate.log_odds > MIN_LOG_ODDS


def _lag_finding(
    where: str, estimate: LagEstimate, tr_s: float, n_places: int, others_s: float | None = None
) -> Finding:
    """Warning or error, with the shift that would put it right."""
    low_s, high_s = PLAUSIBLE_LAG_S if others_s is None else _near(others_s)
    goal_s = USUAL_LAG_S if others_s is None else others_s
    distance_s = max(low_s - estimate.lag_s, estimate.lag_s - high_s)
    sure = estimate.p * n_places < ERROR_P and estimate.log_odds > ERROR_LOG_ODDS and distance_s > ERROR_DISTANCE_S
    level: Level = "error" if sure else "warning"
    first_s, last_s = estimate.interval_s
    expected = f"responses peak {low_s:g} to {high_s:g} s after their cause" if others_s is None else ""
    expected = expected or f"the other stories peak at {others_s:.1f} s"
    message = (
        f"responses peak {estimate.lag_s:.1f} s after the sound (95 %: {first_s:.1f} to {last_s:.1f} s, chance p ="
        f" {estimate.p:.1g}); {expected}."
    )
    move_s = goal_s - estimate.lag_s
    cure = (
        f"Moving the rows by {move_s:+.1f} s ({move_s / tr_s:+.1f} TRs; onset_s or tr_starts_s) brings the peak to"
        f" {goal_s:.1f} s. Check discarded volumes, the first trigger, and silence before the story in the sound file."
    )
    return Finding(level, "response_lag", where, message, cure)


def _silence(estimate: LagEstimate, n_voxels: int) -> str:
    what = "no stimulus-locked response found" if estimate.p > SILENT_P else "no response at a plausible lag found"
    return f"{what} ({n_voxels} voxels, best lag {estimate.lag_s:.1f} s, p = {estimate.p:.2g})."


def _none(where: str, message: str) -> Finding:
    cure = "The alignment of sound and responses cannot be checked this way; with little data that is normal."
    return Finding("info", "no_response", where, message, cure)
