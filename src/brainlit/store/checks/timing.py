"""When responses follow the sound: the lag of the haemodynamic response, with its chance level and its certainty.

A rate of the stimulus (words, loudness) goes through the canonical haemodynamic response, which peaks 5 s after its
cause, and is moved along the responses: the lag at which they agree best is the time from sound to response. No sign
is assumed (the squares of the correlations count) and no voxels are chosen. Chance is what random series with the same
spectrum do. Drift slower than 128 s is taken out of both and the noise of the scanner is whitened by one
autoregressive coefficient, as in any GLM.

Findings are about the whole store, a subject, a story, or one story in one subject. A story whose pattern over voxels
is known from the others can be judged alone, so one wrong onset among good ones is found. What is off is told once, at
the coarsest place that explains it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from brainlit.demo.haemodynamics import haemodynamic_response
from brainlit.store.checks.findings import Finding, Level
from brainlit.store.reader import StoryStore
from brainlit.stories import Story
from brainlit.stories.base import Float32Array, FloatArray, IntArray
from brainlit.stories.readers.cleaning import drift_basis
from brainlit.timebase import TimeBase

Real = TypeVar("Real", np.float32, np.float64)

_USUAL_LAG_S = 5.0
"""Peak of the canonical haemodynamic response (Friston et al. 1998, NeuroImage 7:30)."""
_PLAUSIBLE_LAG_S = (1.0, 10.0)
"""Responses peak some 3 to 8 s after their cause, differently in people and regions (Handwerker et al. 2004, NeuroImage
21:1639); 2 s more on both sides cover rates that are known per TR only, and which moment of its TR a row stands for."""
_WIDE_LAGS_S, _NARROW_LAGS_S = (-30.0, 40.0), (-16.0, 24.0)
"""Lags that are tried, and those for stories too short for so many."""
_RESPONSE_S = 32.0
_N_CHANCE = 200
HIGH_PASS_S = 128.0
GRID_S = 0.1

MAX_P = 0.005
"""Chance of as much agreement anywhere, after multiplying by the number of places that were looked at."""
MIN_LOG_ODDS = 5.0
"""At least 150 times likelier outside than inside. Of 750 simulated stores of pure noise two met both."""
ERROR_P, _ERROR_LOG_ODDS, _ERROR_DISTANCE_S = 1e-6, math.log(1e6), 2.0
"""An error: so sure, and so far from what is plausible."""
_MAX_STORY_DIFFERENCE_S = 3.0
"""How far a story may lie from the subject's other stories: voxels are the same, so the response is."""
_SILENT_P = 0.05
_MIN_TRS_TO_EXPECT = 1000
"""Half an hour at 2 s: with less, no visible response in one subject says nothing."""
N_VOXELS = 1000


# --- Findings ---


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
        self._expected: dict[str, FloatArray] = {}
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
        n_before = math.ceil(_RESPONSE_S / clock.tr_s)
        edges_s = clock.tr_edges_s(-n_before, n_before + clock.n_trs)
        longer = replace(story, timebase=TimeBase(edges_s[:-1], clock.tr_s, clock.sample_rate_hz))
        rates = np.concatenate([word_rate(longer).values, envelope(longer).values], axis=1).astype(np.float64)
        first_s, last_s = (story.words.start_s[0], story.words.end_s.max()) if len(story.words) else (0.0, 0.0)
        rates[(edges_s[1:] <= first_s) | (edges_s[:-1] >= last_s)] = np.nan
        self._expected[story.name] = expected_responses(rates, self.tr_s)[n_before:]

    def add_responses(self, story: str, responses: Float32Array) -> None:
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
            seconds = self.lags_s[-1] - self.lags_s[0] if len(self.lags_s) else _NARROW_LAGS_S[1] - _NARROW_LAGS_S[0]
            yield _none(self.name, f"stories are too short to try lags over {seconds:.0f} s.")
            return
        whole = lag_of_strength(list(self._strengths.values()), self.lags_s)
        everything = self._everything()
        whole_is_off = _is_off(whole, 1)
        if whole_is_off:
            yield _lag_finding(everything, whole, self.tr_s, 1)
        elif whole.p > _SILENT_P or whole.log_odds > 0:
            yield _silence(everything, whole, sum(self._n_voxels.values()))
        own = {name: lag_of_strength([curve], self.lags_s) for name, curve in self._strengths.items()}
        off = {name for name, one in own.items() if len(own) > 1 and _is_off(one, len(own))}
        if whole_is_off:
            off = {name for name in off if abs(own[name].lag_s - whole.lag_s) > _MAX_STORY_DIFFERENCE_S}
        yield from (_lag_finding(name, own[name], self.tr_s, len(own)) for name in sorted(off))
        if whole.p <= _SILENT_P:
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
            if len(own) > 1 and estimate.p > _SILENT_P and self._n_trs[name] >= _MIN_TRS_TO_EXPECT:
                yield _silence(name, estimate, self._n_voxels[name])

    def _everything(self) -> str:
        """The subject or the story, where there is only one."""
        if len(self._strengths) == 1:
            return next(iter(self._strengths))
        return next(iter(self._expected)) if len(self._expected) == 1 else self.name


def _near(lag_s: float) -> tuple[float, float]:
    return lag_s - _MAX_STORY_DIFFERENCE_S, lag_s + _MAX_STORY_DIFFERENCE_S


def _is_off(estimate: LagEstimate, n_places: int) -> bool:
    return estimate.p * n_places < MAX_P and estimate.log_odds > MIN_LOG_ODDS


def _lag_finding(
    where: str, estimate: LagEstimate, tr_s: float, n_places: int, others_s: float | None = None
) -> Finding:
    """Warning or error, with the shift that would put it right."""
    if others_s is None:
        (low_s, high_s), goal_s = _PLAUSIBLE_LAG_S, _USUAL_LAG_S
        expected = f"responses peak {low_s:g} to {high_s:g} s after their cause"
    else:
        (low_s, high_s), goal_s = _near(others_s), others_s
        expected = f"the other stories peak at {others_s:.1f} s"
    distance_s = max(low_s - estimate.lag_s, estimate.lag_s - high_s)
    sure = estimate.p * n_places < ERROR_P and estimate.log_odds > _ERROR_LOG_ODDS and distance_s > _ERROR_DISTANCE_S
    level: Level = "error" if sure else "warning"
    first_s, last_s = estimate.interval_s
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


def _silence(where: str, estimate: LagEstimate, n_voxels: int) -> Finding:
    what = "no stimulus-locked response found" if estimate.p > _SILENT_P else "no response at a plausible lag found"
    return _none(where, f"{what} ({n_voxels} voxels, best lag {estimate.lag_s:.1f} s, p = {estimate.p:.2g}).")


def _none(where: str, message: str) -> Finding:
    cure = "The alignment of sound and responses cannot be checked this way; with little data that is normal."
    return Finding("info", "no_response", where, message, cure)


# --- Agreement of stimulus and responses at every lag, and at chance ---


@dataclass(frozen=True)
class Agreement:
    """How one story's rates agree with one subject's voxels.

    Parameters
    ----------
    at_lags : float32 array of shape (n_lags, n_rates * n_voxels)
        Sums of products of standardised series, rate earlier than response by each lag.
    at_chance : float32 array of shape (_N_CHANCE, n_rates * n_voxels)
        The same with random series of the same spectrum in place of the rates.
    """

    at_lags: Float32Array
    at_chance: Float32Array

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.at_lags + other.at_lags, self.at_chance + other.at_chance)


def shifts_to_try(shortest_n_trs: int, tr_s: float) -> IntArray | None:
    """Rows by which the expected response is moved, so that its peak covers the lags; None if a story is too short."""
    for (low_s, high_s), least_trs_per_shift in ((_WIDE_LAGS_S, 3), (_NARROW_LAGS_S, 1.6)):
        first, last = math.floor((low_s - _USUAL_LAG_S) / tr_s), math.ceil((high_s - _USUAL_LAG_S) / tr_s)
        if shortest_n_trs >= least_trs_per_shift * (last - first + 1):
            return np.arange(first, last + 1, dtype=np.int64)
    return None


def clock_drift_s(tr_starts_s: npt.ArrayLike, tr_s: float) -> float:
    """How much later the last row starts than by the nominal repetition time, counted from the first."""
    starts_s = np.asarray(tr_starts_s, dtype=np.float64)
    return float(starts_s[-1] - starts_s[0] - (len(starts_s) - 1) * tr_s)


def lags_s_of(shifts: IntArray, tr_s: float) -> FloatArray:
    """Time from sound to peak of the response at each shift."""
    return np.asarray(shifts * tr_s + _USUAL_LAG_S, dtype=np.float64)


def expected_responses(rates: npt.ArrayLike, tr_s: float) -> FloatArray:
    """Rates of the stimulus through the haemodynamic response, (n_trs, n_rates); rows without speech hold NaN.

    Such rows count as the mean: the rise at the start of the story would outweigh all else, and scanners have their own
    transients there.
    """
    values = np.asarray(rates, dtype=np.float64)
    filled = np.nan_to_num(values - np.nanmean(values, axis=0)) if np.isfinite(values).any() else np.zeros_like(values)
    kernel = haemodynamic_response(np.arange(0, _RESPONSE_S, tr_s))
    return np.stack([np.convolve(column, kernel)[: len(column)] for column in filled.T], axis=1)


def agreement(
    expected: FloatArray, responses: npt.ArrayLike, tr_s: float, shifts: IntArray, rng: np.random.Generator
) -> Agreement:
    """Products of expected and measured responses, both without drift, whitened and standardised.

    Parameters
    ----------
    expected : array of shape (n_trs, n_rates)
    responses : array of shape (n_trs, n_voxels)
        Finite. Constant columns agree with nothing; spikes are cut at four standard deviations.
    shifts : int array
        Rows by which the response is later than expected, counted round the end.
    rng : numpy Generator
        Draws the phases of chance; the same for all subjects who heard the story.
    """
    values = np.asarray(responses, dtype=np.float32)
    basis = drift_basis(len(values), tr_s, HIGH_PASS_S)
    values = values - (basis @ (basis.T @ values)).astype(np.float32)
    noise = _autocorrelation(values)
    measured = _standardised(np.clip(_standardised(_whitened(values, noise)), -4, 4))
    rates = _standardised(_whitened(expected - basis @ (basis.T @ expected), noise))
    shifted = np.stack([np.roll(rates, shift, axis=0) for shift in shifts])
    at_lags, at_chance = (
        np.concatenate([series[:, :, k].astype(np.float32) @ measured for k in range(rates.shape[1])], axis=1)
        for series in (shifted, surrogates(rates, _N_CHANCE, rng))
    )
    return Agreement(at_lags, at_chance)


def surrogates(rates: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Random series with the spectra and cross-spectra of the rates, shape (n, n_trs, n_rates).

    Every frequency of all rates is turned by one random angle (Prichard & Theiler 1994, Phys. Rev. Lett. 73:951); a
    circular shift is the special case in which the angles lie on a line.
    """
    spectrum = np.fft.rfft(rates, axis=0)
    turns = np.exp(2j * np.pi * rng.random((n, len(spectrum))))
    turns[:, 0] = 1  # the mean stays; of an even number of rows the highest frequency is real, so only its sign turns
    if len(rates) % 2 == 0:
        turns[:, -1] = np.where(turns[:, -1].real < 0, -1, 1)
    return np.fft.irfft(turns[:, :, None] * spectrum, n=len(rates), axis=1)


def _autocorrelation(values: npt.NDArray[Real]) -> float:
    """Median over columns of the correlation of each row with the next, within 0..0.8."""
    energy = np.square(values).sum(axis=0)
    varies = energy > 0
    if not varies.any():
        return 0.0
    products = (values[1:, varies] * values[:-1, varies]).sum(axis=0)
    return float(np.clip(np.median(products / energy[varies]), 0.0, 0.8))


def _whitened(values: npt.NDArray[Real], noise: float) -> npt.NDArray[Real]:
    return np.concatenate([values[:1] * math.sqrt(1 - noise**2), values[1:] - noise * values[:-1]])


def _standardised(values: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Mean 0 and standard deviation 1 of each column; constant columns become 0."""
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    varies = scale > 1e-9 * (np.abs(values).max(axis=0, initial=0) + 1e-12)
    return np.asarray(np.where(varies, centred / np.where(varies, scale, 1), 0), dtype=values.dtype)


# --- The lag, its chance level and its certainty ---


@dataclass(frozen=True)
class LagEstimate:
    """When the response peaks.

    Parameters
    ----------
    lag_s : float
        Time from sound to peak.
    interval_s : (float, float)
        Lags that the data support almost as well (95 % by the likelihood ratio).
    p : float
        How often chance reaches as much agreement at any of the lags.
    log_odds : float
        Log likelihood of the best lag outside the plausible ones less that of the best inside.
    """

    lag_s: float
    interval_s: tuple[float, float]
    p: float
    log_odds: float


NOTHING = LagEstimate(math.nan, (math.nan, math.nan), 1.0, -math.inf)
"""Nothing varies."""


@dataclass(frozen=True)
class Strength:
    """How strongly a subject's voxels agree with the rates at each lag, and the traces of C, C^2, C^3 at chance."""

    at_lags: FloatArray
    traces: tuple[float, float, float]


def strength(summed: Agreement) -> Strength:
    """Sum of squares over voxels and rates at each lag, and what is needed to know its distribution at chance.

    The traces are U-statistics over the draws of chance, so a draw never meets itself.
    """
    draws = summed.at_chance.astype(np.float64)
    products = draws @ draws.T
    n = len(products)
    others = products - np.diag(np.diag(products))  # a draw meets itself on the diagonal only
    cubes = float(np.sum((others @ others) * others))
    traces = (
        float(np.diag(products).mean()),
        float(np.square(others).sum()) / (n * (n - 1)),
        cubes / (n * (n - 1) * (n - 2)),
    )
    return Strength(np.einsum("ij,ij->i", summed.at_lags, summed.at_lags, dtype=np.float64), traces)


def lag_of_strength(
    subjects: Sequence[Strength], lags_s: FloatArray, plausible_s: tuple[float, float] = _PLAUSIBLE_LAG_S
) -> LagEstimate:
    """The lag of a sum of squares over subjects, which at chance is a sum of chi-squares with unknown weights.

    Voxels share their noise, so few weights may decide. The tail is that of the chi-square with the same mean,
    variance and skewness (Imhof 1961, Biometrika 48:419), and so is the log likelihood.
    """
    from scipy.stats import chi2

    curve = np.sum([subject.at_lags for subject in subjects], axis=0)
    c1, c2, c3 = np.sum([subject.traces for subject in subjects], axis=0)
    if not (c1 > 0 and c2 > 0):
        return NOTHING
    scale = max(c3 / c2, c2 / c1)
    freedom = c2 / scale**2
    p = min(1.0, len(lags_s) * float(chi2.sf((curve.max() - c1) / scale + freedom, freedom)))
    return _estimate(lags_s, curve / scale / 2, p, plausible_s)


@dataclass(frozen=True)
class Match:
    """A story's agreement along one pattern over voxels: at the lags (n_lags,) and at chance (_N_CHANCE,)."""

    at_lags: FloatArray
    at_chance: FloatArray


def matches_of_stories(stories: Sequence[Agreement]) -> list[Match]:
    """Each story against the pattern over voxels that all others show at their best lag.

    A story whose rows are shifted shows the same pattern at another lag; knowing the pattern makes one story enough
    to see that.
    """
    total = np.sum([story.at_lags for story in stories], axis=0, dtype=np.float64)
    matches = []
    for story in stories:
        others = total - story.at_lags
        pattern = others[np.square(others).sum(axis=1).argmax()]
        matches.append(Match(story.at_lags @ pattern, story.at_chance @ pattern))
    return matches


def lag_of_match(
    matches: Sequence[Match], lags_s: FloatArray, plausible_s: tuple[float, float] = _PLAUSIBLE_LAG_S
) -> LagEstimate:
    """The lag of a sum of products with known patterns over voxels, which at chance is normal around 0.

    Matches of several subjects count alike. Student's t with 40 degrees of freedom stands for the normal, for the size
    of chance is known from a limited number of independent moments of a story.
    """
    from scipy.stats import t as student

    scales = [math.sqrt(float(np.square(match.at_chance).mean())) for match in matches]
    usable = [(match, scale) for match, scale in zip(matches, scales, strict=True) if scale > 0]
    if not usable:
        return NOTHING
    at_lags, at_chance = (
        np.sum([getattr(match, what) / scale for match, scale in usable], axis=0) for what in ("at_lags", "at_chance")
    )
    z = at_lags / math.sqrt(float(np.square(at_chance).mean()))
    p = min(1.0, len(lags_s) * float(student.sf(z.max(), 40)))
    return _estimate(lags_s, np.square(np.maximum(z, 0)) / 2, p, plausible_s)


def _estimate(
    lags_s: FloatArray, log_likelihood: FloatArray, p: float, plausible_s: tuple[float, float]
) -> LagEstimate:
    """Best lag, interval and odds on a fine grid; between the lags of whole TRs the curve is a cubic spline."""
    from scipy.interpolate import CubicSpline

    fine_s = np.linspace(lags_s[0], lags_s[-1], 1 + round((lags_s[-1] - lags_s[0]) / GRID_S))
    fine = CubicSpline(lags_s, log_likelihood)(fine_s)
    best = int(fine.argmax())
    supported = fine_s[fine > fine[best] - 1.92]  # half the 95 % point of chi-square with one degree of freedom
    inside = (fine_s >= plausible_s[0]) & (fine_s <= plausible_s[1])
    log_odds = float(fine[~inside].max() - fine[inside].max())
    return LagEstimate(float(fine_s[best]), (float(supported[0]), float(supported[-1])), p, log_odds)
