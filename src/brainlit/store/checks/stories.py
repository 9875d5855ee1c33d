"""Findings about stories: sound, clock, words, and what was computed from them.

Lag, drift and stretch of a transcript against its recording: the words as a mask (1 during a word) are correlated with
the logarithm of loudness at every lag, both without what changes slower than 10 s. Speech has a pause every few words,
so the right lag stands out by dozens of standard deviations of the wrong ones, in any language.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from brainlit.store.checks.findings import Finding, Level
from brainlit.store.checks.timing import clock_drift_s
from brainlit.store.reader import StoryStore
from brainlit.store.schema import SpaceEntry
from brainlit.stories import Intervals, SoundNote, Story
from brainlit.stories.base import FloatArray
from brainlit.stories.readers.clipping import MAX_CLIPPED, clipped_level

_MIN_COVERAGE = 0.2
"""Vectors of content words only cover a quarter of simple sentences; those of another language cover next to none."""
_MAX_SILENT_END_S = 60.0
_MAX_MISSING_END_S = 30.0
"""Scanners run on for a haemodynamic response; what is missing beyond that is a warning."""
_MAX_DRIFT_TRS = 0.25
_WORDS_PER_MINUTE = (50.0, 350.0)
"""Reading aloud has 140 to 180, the fastest speakers 300; music and silence make it fewer."""
_MAX_WORDS_DRIFT_S = 0.25


class StoryChecks:
    """Checks of one story at a time, which remembers what it needs to find that two are the same."""

    def __init__(self) -> None:
        self._sounds: dict[str, list[str]] = defaultdict(list)
        self._words: dict[str, list[str]] = defaultdict(list)
        self._told: dict[str, str] = {}

    def story(self, store: StoryStore, name: str) -> tuple[Story | None, list[Finding]]:
        """The story as it was read, None if its parts do not fit, and what was found."""
        problem = _length(store, name)
        if problem is not None:
            cure = "Delete the story's file and build the store again."
            return None, [Finding("error", "length_mismatch", name, problem, cure)]
        self._told = store.on_other_clocks
        audio = store.audio(name, 0, store.n_samples(name))
        story = Story(name, audio, store.words(name), None, store.timebase(name))
        self._sounds[hashlib.sha256(audio.tobytes()).hexdigest()].append(name)
        if len(story.words) > 1:
            self._words[" ".join(story.words.labels)].append(name)
        noted = [*_noted(store, name)]
        return story, [*noted, *_sound(story, noted), *_clock(story), *_words(story), *_spaces(store, name)]

    def twins(self) -> Iterator[Finding]:
        """Stories that share sound or text."""
        for twins in self._sounds.values():
            if len({self._told.get(name, name) for name in twins}) > 1:
                message = f"stories {', '.join(twins)} have the same sound: one may tune and the other score."
                cure = "Keep one of them, or give the one that is mixed up its own file."
                yield Finding("error", "twin_sounds", twins[0], message, cure)
        heard_twice = {frozenset(twins) for twins in self._sounds.values()}
        for twins in self._words.values():
            if len(twins) > 1 and frozenset(twins) not in heard_twice:
                message = f"stories {', '.join(twins)} have the same words but not the same sound."
                cure = "Check which transcript belongs to which recording; one story under two names must be kept once."
                yield Finding("warning", "twin_transcripts", twins[0], message, cure)


def _length(store: StoryStore, name: str) -> str | None:
    sizes = {f"feature space {space.name!r}": len(space.values) for space in store.feature_spaces(name)}
    for what, n_rows in {"clock": store.timebase(name).n_trs, **sizes}.items():
        if n_rows != store.n_trs(name):
            return f"the {what} has {n_rows} rows, the story {store.n_trs(name)} TRs."
    return next(filter(None, (_own_rate(store, name, entry) for entry in store.feature_space_entries)), None)


def _own_rate(store: StoryStore, name: str, entry: SpaceEntry) -> str | None:
    """What is wrong with a feature space at its own rate."""
    try:
        timed = store.timed(name, entry.name)
    except ValueError as error:  # not finite, or times that do not fit
        return f"feature space {entry.name!r} is no series at its own rate: {error}"
    found = None if timed is None else "events" if timed.duration_s is None else "frames"
    has = f"feature space {entry.name!r} has"
    if found != entry.own_rate:
        return f"{has} {found or 'nothing'} at its own rate, the index says {entry.own_rate}."
    if timed is not None and timed.values.shape[1] != entry.n_features:
        return f"{has} {timed.values.shape[1]} columns at its own rate and {entry.n_features} per TR."
    return None


def _spaces(store: StoryStore, name: str) -> Iterator[Finding]:
    for space in store.feature_spaces(name):
        where = f"{name}/{space.name}"
        if space.coverage < _MIN_COVERAGE:
            message = f"has a value for {100 * space.coverage:.0f} % of the words."
            cure = "Use vectors of the story's language and spelling."
            yield Finding("warning", "low_coverage", where, message, cure)
        if not (space.values.max(axis=0) > space.values.min(axis=0)).any():
            message = "all columns are constant in time."
            yield Finding("warning", "constant_space", where, message, "Check how the space was computed.")


def _noted(store: StoryStore, name: str) -> Iterator[Finding]:
    """What was done to the sound when it was read."""
    for said in store.index.stories[name].sound_notes:
        note = SoundNote(**said)  # type: ignore[arg-type]
        yield Finding(note.level, note.kind, name, note.message, note.cure)


def _sound(story: Story, noted: list[Finding]) -> Iterator[Finding]:
    if not story.audio.any():
        message = "the sound is silent throughout."
        yield Finding("error", "silent_sound", story.name, message, "Check how the audio was read.")
        return
    limits = np.iinfo(np.int16)
    clipped = float(((story.audio == limits.max) | (story.audio == limits.min)).sum() / np.count_nonzero(story.audio))
    if clipped > MAX_CLIPPED and "clipped_sound" not in {finding.kind for finding in noted}:
        message = f"{100 * clipped:.2f} % of the samples are at the limit of int16."
        cure = "Lower the gain before converting to int16."
        yield Finding(clipped_level(clipped), "clipped_sound", story.name, message, cure)


def _clock(story: Story) -> Iterator[Finding]:
    clock, name = story.timebase, story.name
    rest_s = len(story.audio) / clock.sample_rate_hz - clock.end_s
    if rest_s > _MAX_SILENT_END_S:
        message = f"the sound goes on for {rest_s:.1f} s after the last of {clock.n_trs} TRs."
        yield Finding("warning", "sound_goes_on", name, message, "Check the number of TRs and the onset of the sound.")
    if -rest_s > 0.5 * clock.tr_s:
        level: Level = "warning" if -rest_s > _MAX_MISSING_END_S else "info"
        message = f"the sound ends {-rest_s:.1f} s before the last of {clock.n_trs} TRs; their windows are padded."
        cure = "Normal if the scanner ran on in silence. If not: the sound is cut short, or the clock is late."
        yield Finding(level, "sound_ends_early", name, message, cure)
    before = int((clock.tr_ends_s <= 0).sum())
    if before:
        message = f"{before} TRs end before the sound starts; their windows are padded."
        yield Finding("info", "rows_before_sound", name, message, "None needed.")
    drift_s = clock_drift_s(clock.tr_starts_s, clock.tr_s)
    if abs(drift_s) > _MAX_DRIFT_TRS * clock.tr_s:
        real_s = clock.tr_s + drift_s / max(clock.n_trs - 1, 1)
        message = (
            f"by the logged clock the last row is {drift_s:+.2f} s ({drift_s / clock.tr_s:+.2f} TRs) off tr_s ="
            f" {clock.tr_s:g} s: volumes came every {real_s:.4f} s."
        )
        cure = f"Set tr_s to {real_s:.4f} if the log is right; if tr_s is right, the log or the audio clock is not."
        yield Finding("warning", "clock_drift", name, message, cure)


def _words(story: Story) -> Iterator[Finding]:
    words, end_s = story.words, len(story.audio) / story.timebase.sample_rate_hz
    n_outside = int(((words.start_s < 0) | (words.start_s > end_s)).sum())
    if n_outside:
        message = f"{n_outside} of {len(words)} words start outside the sound (0..{end_s:.2f} s)."
        cure = "Check that the transcript is in seconds of this recording."
        yield Finding("warning", "words_outside", story.name, message, cure)
    per_minute = 60 * len(words) / end_s if end_s > 0 else 0.0
    if not _WORDS_PER_MINUTE[0] <= per_minute <= _WORDS_PER_MINUTE[1]:
        message = f"{len(words)} words in {end_s:.0f} s are {per_minute:.0f} per minute; speech has 50 to 350."
        cure = "Check that the transcript is complete, of this recording, and in seconds."
        yield Finding("warning", "speech_rate", story.name, message, cure)
    if story.audio.any() and len(words):
        yield from _words_against_sound(story.name, words, _loudness_of(story))


def _words_against_sound(name: str, words: Intervals, loud: FloatArray) -> Iterator[Finding]:
    mask = word_mask(words.start_s, words.end_s, len(loud))
    given = align(mask, loud)
    if given is None:
        return
    if not given.convincing:
        found = wrong_rate(words.start_s, words.end_s, loud)
        if found is not None:
            stretch, (taken_hz, true_hz), fit = found
            message = (
                f"the words fit the sound when their times are multiplied by {stretch:.4f} (r = {fit.r:.2f}; as given"
                f" {given.r:.2f}), the ratio of {true_hz} to {taken_hz} Hz: a wrong sample rate."
            )
            cure = "Read the sound at the rate that it was recorded with, or the transcript that belongs to this file."
            yield Finding("error", "wrong_sample_rate", name, message, cure)
        return
    drift = drift_of_words_s(mask, loud)
    if drift is not None and abs(drift[1] - drift[0]) > _MAX_WORDS_DRIFT_S:
        message = f"the sound is {drift[0]:+.2f} s off the words in the first third and {drift[1]:+.2f} s in the last."
        cure = "Transcript and recording run at different speeds, or a piece is missing: align the words anew."
        yield Finding("warning", "words_drift", name, message, cure)
    elif given.shifted:
        message = (
            f"the words fit the sound {given.shift_s:+.2f} s from where the transcript puts them (r = {given.r:.2f};"
            f" z = {given.z:.0f} against {given.z_as_given:.0f} within {_TOLERANCE_S} s)."
        )
        cure = (
            f"Add {given.shift_s:.2f} s to the word times if the rows' clock counts from the start of the sound file;"
            " if it counts like the transcript, cut or pad the sound instead."
        )
        yield Finding("warning", "words_shifted", name, message, cure)


def _loudness_of(story: Story) -> FloatArray:
    """Loudness in frames of HOP_S, from the story's envelope of 10 ms."""
    from brainlit.features.spectral import HOP_S as FINE_HOP_S
    from brainlit.features.spectral import envelope_frames

    n_fine = round(HOP_S / FINE_HOP_S)
    rms = envelope_frames(story)[0]
    return loudness(rms[: len(rms) // n_fine * n_fine].reshape(-1, n_fine).mean(axis=1))


# --- Are the words where the sound is loud? ---

HOP_S = 0.02
HIGH_PASS_S = 10.0
_MIN_LAG_S, _MAX_LAG_S = 15.0, 60.0
"""Lags up to a quarter of the recording are tried, within these bounds."""
_MIN_SOUND_S = 45.0
_TOLERANCE_S = 0.25
_CONVINCING_Z = 8.0
_RATES_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class Alignment:
    """How words fit the sound best.

    Parameters
    ----------
    shift_s : float
        How much later the sound is than the words say.
    r : float
        Correlation of the mask of words with loudness at that shift.
    z, z_as_given : float
        The same in standard deviations over wrong lags; and the highest within `_TOLERANCE_S` of no shift.
    convincing : bool
        Whether it is far beyond what wrong lags reach.
    """

    shift_s: float
    r: float
    z: float
    z_as_given: float
    convincing: bool

    @property
    def shifted(self) -> bool:
        """Whether the words fit clearly better where the transcript does not put them."""
        return self.convincing and abs(self.shift_s) > _TOLERANCE_S and self.z - self.z_as_given > 4


def loudness(rms: npt.ArrayLike) -> FloatArray:
    """Logarithm of the root mean square; what is 30 dB below loud speech counts as silence."""
    values = np.asarray(rms, dtype=np.float64)
    return np.asarray(np.log(values + 0.03 * np.percentile(values, 95) + 1e-9))


def word_mask(start_s: npt.ArrayLike, end_s: npt.ArrayLike, n_frames: int, stretch: float = 1.0) -> FloatArray:
    """1 in the frames of HOP_S that a word covers, times multiplied by `stretch`: shape (n_frames,)."""
    edges = [np.rint(np.asarray(times) * stretch / HOP_S).astype(np.int64) for times in (start_s, end_s)]
    first, last = (np.clip(edge, 0, n_frames) for edge in edges)
    # +1 where a word begins and -1 where it ends; the running sum counts the words at each frame.
    steps = np.bincount(first, minlength=n_frames + 1) - np.bincount(last, minlength=n_frames + 1)
    return (np.cumsum(steps)[:n_frames] > 0).astype(np.float64)


def align(mask: FloatArray, loud: FloatArray) -> Alignment | None:
    """The lag at which words and loudness agree best, against all lags outside the window (circular).

    Parameters
    ----------
    mask, loud : arrays of shape (n_frames,)
        HOP_S seconds per frame.

    Returns
    -------
    Alignment or None
        None for less than `_MIN_SOUND_S`, or if one of them does not change.
    """
    n_frames = len(loud)
    if n_frames * HOP_S < _MIN_SOUND_S:
        return None
    words, sound = (_without_slow(series) for series in (mask, loud))
    scale = np.linalg.norm(words) * np.linalg.norm(sound)
    if not scale > 1e-9:
        return None
    products = np.fft.irfft(np.conj(np.fft.rfft(words)) * np.fft.rfft(sound), n_frames) / scale
    n_lags = round(np.clip(n_frames * HOP_S / 4, _MIN_LAG_S, _MAX_LAG_S) / HOP_S)
    lags = np.arange(-n_lags, n_lags + 1)
    # Negative lags index from the end, which is where a circular correlation has them.
    inside, outside = products[lags], products[n_lags + 1 : n_frames - n_lags]
    deviation = float(outside.std()) or 1.0
    best = int(inside.argmax())
    z_as_given = float(inside[np.abs(lags) * HOP_S <= _TOLERANCE_S + 1e-9].max()) / deviation
    r, z = float(inside[best]), float(inside[best]) / deviation
    convincing = z > _CONVINCING_Z and r > 0.15 and r > 1.5 * float(outside.max())
    return Alignment(float(lags[best] * HOP_S), r, z, z_as_given, convincing)


def drift_of_words_s(mask: FloatArray, loud: FloatArray) -> tuple[float, float] | None:
    """Shifts of the sound against the words in the first and in the last third, where both are convincing."""
    third = len(loud) // 3
    first, last = align(mask[:third], loud[:third]), align(mask[len(loud) - third :], loud[len(loud) - third :])
    if first is None or last is None or not (first.convincing and last.convincing):
        return None
    return first.shift_s, last.shift_s


def wrong_rate(
    start_s: npt.ArrayLike, end_s: npt.ArrayLike, loud: FloatArray
) -> tuple[float, tuple[int, int], Alignment] | None:
    """The stretch of the words that makes them fit, among the ratios of usual sample rates.

    Returns
    -------
    stretch, (taken_hz, true_hz), alignment
        The file has true_hz and was read as taken_hz (or the words were). None if no stretch is convincing.
    """
    best: tuple[float, tuple[int, int], Alignment] | None = None
    for ratio, rates in sample_rate_ratios().items():
        fit = align(word_mask(start_s, end_s, len(loud), float(ratio)), loud)
        if fit is not None and fit.convincing and (best is None or fit.r > best[2].r):
            best = float(ratio), rates, fit
    return best


def sample_rate_ratios() -> dict[Fraction, tuple[int, int]]:
    """true / taken for each pair of `_RATES_HZ`, 1 left out; of equal ratios the pair with the higher rates."""
    return {Fraction(true, taken): (taken, true) for taken in _RATES_HZ for true in _RATES_HZ if true != taken}


def _without_slow(series: FloatArray) -> FloatArray:
    """Less the running mean over HIGH_PASS_S (shorter at the ends)."""
    half = round(HIGH_PASS_S / HOP_S / 2)
    sums = np.concatenate([[0.0], np.cumsum(series)])
    place = np.arange(len(series))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(series))
    return np.asarray(series - (sums[last] - sums[first]) / (last - first))
