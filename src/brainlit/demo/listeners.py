"""Simulated listeners: voxels whose answer is known.

What a story sounds like and means is turned into sets of slow signals: eight components of the low-level series, the
24 dimensions of word meaning, and what `brainlit.demo.planted` makes. Each listener mixes them in voxels of seven
kinds, every voxel through a haemodynamic response of its own (`brainlit.demo.haemodynamics`):

    auditory   L                                    modulation   energies of sound in time and frequency, onsets
    semantic   z(sqrt(0.8) S + sqrt(0.2) L)         attention    loudness times the listener's slow attention
    brain_only z(sqrt(0.8) B + sqrt(0.2) L)         arousal      loudness and rates over tens of seconds, and a course
    null       nothing                                           of the story that no sound has

with L, S and B random mixtures (own weights per voxel) of the low-level signals, of word vectors, and of what only the
brain knows of words, z-scored per story. A response is sqrt(f) signal + sqrt(1 - f) noise, where f is the voxel's
signal fraction and the noise is AR(1) plus drift. Signal and noise are detrended alike and standardised before they are
mixed, so f is exact in the data: the best possible correlation with one presentation is sqrt(f), with the mean of R it
is sqrt(f / (f + (1 - f) / R)).

Sampling: row k of a response is the signal at the moment tr_ends_s[k] at which its volume is complete. So an event in
the middle of row j whose peak comes 5 s later is seen in row j + 2 for a repetition time of 2 s. Baseline: what
precedes the story counts as its mean, so there is no response to the onset of the sound (otherwise most of the variance
of loudness would be the rise in the first 15 s; recordings have those rows cut).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from brainlit.demo.haemodynamics import (
    Hrf,
    ResponseBasis,
    VoxelResponses,
    bold_of_events,
    bold_of_frames,
    draw_responses,
    response_basis,
    slow_drift_basis,
)
from brainlit.demo.planted import (
    N_AROUSAL,
    N_MODULATIONS,
    N_ONSETS,
    arousal_bins,
    attention_course,
    bin_times_s,
    brain_only_values,
    loudness_bins,
    modulation_frames,
)
from brainlit.demo.surface import LANDMARKS, N_LEFT, place_voxels, region_vertices, vertex_coordinates_mm
from brainlit.demo.text import N_DIMENSIONS, random_stream, word_vectors
from brainlit.features.linguistic import phone_class_table
from brainlit.features.spectral import envelope_frames, mel_frames
from brainlit.stories import Story, Subject
from brainlit.stories.base import Float32Array, FloatArray, IntArray
from brainlit.timebase import TimeBase

Real = TypeVar("Real", np.float32, np.float64)

KINDS = ("null", "auditory", "semantic", "modulation", "attention", "arousal", "brain_only")
"""Meaning of the numbers in Subject.truth['kind']."""

Part = Literal["low_level", "semantic", "modulation", "attention", "arousal", "brain_only"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What signals are mixed from."""

N_MELS = 20
N_COMPONENTS = 8
LOW_LEVEL_FRACTION = 0.2
"""Share of low-level signal in voxels that follow meaning."""

SHARES: Mapping[str, Mapping[Part, float]] = MappingProxyType(
    {
        "null": {},
        "auditory": {"low_level": 1.0},
        "semantic": {"semantic": 1 - LOW_LEVEL_FRACTION, "low_level": LOW_LEVEL_FRACTION},
        "modulation": {"modulation": 1.0},
        "attention": {"attention": 1.0},
        "arousal": {"arousal": 1.0},
        "brain_only": {"brain_only": 1 - LOW_LEVEL_FRACTION, "low_level": LOW_LEVEL_FRACTION},
    }
)
"""Share of each part in the signal of each kind of voxel."""

N_COLUMNS: Mapping[Part, int] = MappingProxyType(
    {
        "low_level": N_COMPONENTS,
        "semantic": N_DIMENSIONS,
        "modulation": N_MODULATIONS + N_ONSETS,
        "attention": 1,
        "arousal": N_AROUSAL,
        "brain_only": 1,
    }
)
"""Series of each part that voxels weigh."""

SIGNAL_FRACTION = (0.08, 0.55)
"""Range of the signal fraction at snr 1, uniform over voxels; ceilings of one presentation then average 0.55."""

MAX_SIGNAL_FRACTION = 0.95
GAIN = (0.85, 1.15)
"""Range of a listener's own factor on the signal fraction of all voxels."""

NOISE_AR = 0.4
DRIFT_AMPLITUDE = 0.5
DRIFT_PERIOD_S = (90.0, 300.0)

_VOXELS_PER_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Stimulus:
    """The slow signals of one story before any listener: what each curve of a basis of responses makes of it.

    Parameters
    ----------
    series : mapping of part to array of shape (n_curves, n_trs, n_columns)
        Low-level series (29 columns), meaning (24), modulation (40), arousal (8) and what only brains know of words
        (1). Each column is scaled such that its variance under the average response of the basis is 1.
    loudness : array of shape (n_bins,)
        In bins of 0.1 s: what attention acts on.
    story : str
        Part of the key of a listener's attention.
    timebase : TimeBase
    basis : ResponseBasis
    """

    series: Mapping[Part, FloatArray]
    loudness: FloatArray
    story: str
    timebase: TimeBase
    basis: ResponseBasis

    def average_low_level(self) -> FloatArray:
        """The low-level series under the average response, z-scored: (n_trs, 29)."""
        return np.tensordot(self.basis.average, self.series["low_level"], axes=1)

    def attended(self, course: FloatArray) -> FloatArray:
        """Loudness times a course of attention, (n_bins,), as a series: (n_curves, n_trs, 1)."""
        times_s = bin_times_s(len(self.loudness))
        heard = bold_of_frames((course * self.loudness)[:, None], times_s, self.timebase, self.basis)
        return _scaled(heard, self.basis)


def stimulus_of(story: Story, hrf: Hrf = "varied", seed: int = 0) -> Stimulus:
    """What voxels are mixed from, through the haemodynamic responses of a basis.

    Low-level: 20 log-mel bands, envelope, phones, words, vowels and five manners of consonants. Frames are averaged;
    words and phones are impulses at their middle.

    Parameters
    ----------
    seed : int
        Of the story's part of arousal that no sound has.
    """
    if story.phones is None:
        raise ValueError(f"story {story.name!r} has no phones; simulated listeners hear phones.")
    clock, basis = story.timebase, response_basis(hrf)
    mel, mel_times_s = mel_frames(story, N_MELS)
    rms, rms_times_s = envelope_frames(story)
    phones = np.column_stack([np.ones(len(story.phones)), phone_class_table(story)])
    low_level = np.concatenate(
        [
            bold_of_frames(mel, mel_times_s, clock, basis),
            bold_of_frames(rms[:, None], rms_times_s, clock, basis),
            bold_of_events(phones, story.phones.middle_s, clock, basis),
            bold_of_events(np.ones((len(story.words), 1)), story.words.middle_s, clock, basis),
        ],
        axis=2,
    )
    meaning, nothing = word_vectors(), np.zeros(N_DIMENSIONS)
    words = [word.lower() for word in story.words.labels]
    vectors = np.stack([meaning.get(word, nothing) for word in words])
    own = np.array([[brain_only_values().get(word, 0.0)] for word in words])
    loudness = loudness_bins(rms)
    arousal = arousal_bins(story, loudness, random_stream(seed, "arousal", story.name))
    series: dict[Part, FloatArray] = {
        "low_level": low_level,
        "semantic": bold_of_events(vectors, story.words.middle_s, clock, basis),
        "modulation": bold_of_frames(*modulation_frames(story), clock, basis),
        "arousal": bold_of_frames(arousal, bin_times_s(len(loudness)), clock, basis),
        "brain_only": bold_of_events(own, story.words.middle_s, clock, basis),
    }
    scaled = {part: _scaled(values, basis) for part, values in series.items()}
    return Stimulus(scaled, loudness, story.name, clock, basis)


def principal_components(stimuli: Sequence[Stimulus]) -> FloatArray:
    """Directions of most variance of the low-level series over some stories: (29, 8), orthonormal columns.

    The series are those of the average response, so that they do not depend on listeners. Signs are fixed (the largest
    entry of each is positive), so that they do not depend on the linear algebra library.
    """
    stacked = np.concatenate([stimulus.average_low_level() for stimulus in stimuli])
    directions = np.linalg.eigh(stacked.T @ stacked)[1][:, ::-1][:, :N_COMPONENTS]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return np.asarray(directions * np.sign(largest))


@dataclass(frozen=True)
class Listener:
    """One simulated subject.

    Parameters
    ----------
    name : str
        Part of the key of the random stream: listeners differ in voxels, weights, gain and noise.
    shares : mapping of kind to share of voxels
        The rest are null.
    hrf : 'varied' or 'canonical'
        A response drawn for every voxel, or the double gamma of SPM for all. Stimuli have to be made with the same.
    """

    name: str
    seed: int
    n_voxels: int
    shares: Mapping[str, float]
    snr: float
    hrf: Hrf = "varied"

    @cached_property
    def subject(self) -> Subject:
        """Voxels in the order of their vertices, places, planted answers, and the regions that have voxels."""
        rng = random_stream(self.seed, "voxels", self.name)
        heard = [round(self.shares.get(name, 0.0) * self.n_voxels) for name in KINDS[1:]]
        heard = [max(0, min(n, self.n_voxels - sum(heard[:k]))) for k, n in enumerate(heard)]  # all may be rounded up
        kind = np.repeat(np.arange(len(KINDS)), [self.n_voxels - sum(heard), *heard]).astype(np.int64)
        vertices = place_voxels(kind, KINDS, rng)
        order = np.argsort(vertices, kind="stable")
        kind, vertices = kind[order], vertices[order]
        truth: dict[str, npt.NDArray[np.generic]] = {
            "kind": kind,
            "signal_fraction": self._signal_fraction(kind, rng),
        }
        for part in PARTS:
            truth[f"{part}_fraction"] = np.asarray([SHARES[name].get(part, 0.0) for name in KINDS])[kind]
        if (own := self.haemodynamics) is not None:
            truth |= {"peak_s": own.peak_s, "width_s": own.width_s, "undershoot": own.undershoot}
        regions = {region: np.isin(vertices, region_vertices()[region]) for region in LANDMARKS}
        regions |= {name: kind == number for number, name in enumerate(KINDS)}
        regions |= {"left_hemisphere": vertices < N_LEFT, "right_hemisphere": vertices >= N_LEFT}
        regions = {name: voxels for name, voxels in regions.items() if voxels.any()}
        coordinates_mm = vertex_coordinates_mm()[vertices]
        return Subject(self.name, self.n_voxels, regions, vertices, coordinates_mm, truth)

    @cached_property
    def haemodynamics(self) -> VoxelResponses | None:
        """The haemodynamic response of every voxel; None where it is the canonical one."""
        if self.hrf == "canonical":
            return None
        return draw_responses(random_stream(self.seed, "haemodynamics", self.name), self.n_voxels)

    def signals(self, stimulus: Stimulus, components: FloatArray, part: Part | Literal["all"] = "all") -> Float32Array:
        """Noise-free responses to a story, detrended like the data and z-scored over it: (n_trs, n_voxels).

        Parameters
        ----------
        part : 'all' or one of PARTS
            All of the signal, or one of the z-scored parts that it is mixed from; 0 in voxels without that part.
        """
        asked = [name for name in PARTS if part in ("all", name) and self.subject.truth[f"{name}_fraction"].any()]
        mixed = [(name, self._series(name, stimulus, components)) for name in asked]
        signal = np.zeros((stimulus.timebase.n_trs, self.n_voxels), dtype=np.float32)
        for block in _blocks(self.n_voxels):
            total = np.zeros((len(signal), block.stop - block.start))
            for name, series in mixed:
                fraction = self.subject.truth[f"{name}_fraction"][block]
                own = np.flatnonzero(fraction)
                if not len(own):
                    continue
                voxels = own + block.start
                heard = zscore(_mix(series, self._weights[name][:, voxels], self._shapes[:, voxels]))
                total[:, own] += heard * (np.sqrt(fraction[own]) if part == "all" else 1.0)
            signal[:, block] = zscore(total) if part == "all" else total
        return signal

    def _series(self, part: Part, stimulus: Stimulus, components: FloatArray) -> list[FloatArray]:
        """What voxels weigh, detrended: n_curves of (n_trs, n_columns)."""
        drifts = slow_drift_basis(stimulus.timebase)
        if part == "attention":
            rng = random_stream(self.seed, "attention", self.name, stimulus.story)
            values = stimulus.attended(attention_course(rng, len(stimulus.loudness)))
        else:
            values = stimulus.series[part]
        return [_detrend(series @ components if part == "low_level" else series, drifts) for series in values]

    def presentation(self, signal: Float32Array, timebase: TimeBase, story: str, repeat: int) -> Float32Array:
        """One presentation of a story: signal plus noise of its own, z-scored over the story, (n_trs, n_voxels)."""
        rng = random_stream(self.seed, "noise", self.name, story, repeat)
        fraction = np.asarray(self.subject.truth["signal_fraction"], dtype=np.float32)
        response = np.empty_like(signal)
        for block in _blocks(self.n_voxels):
            noise = _noise(rng, timebase, block.stop - block.start)
            mixed = np.sqrt(fraction[block]) * signal[:, block] + np.sqrt(1 - fraction[block]) * noise
            response[:, block] = zscore(mixed)
        return response

    def _signal_fraction(self, kind: IntArray, rng: np.random.Generator) -> FloatArray:
        gain = rng.uniform(*GAIN)
        fraction = self.snr * gain * rng.uniform(*SIGNAL_FRACTION, size=self.n_voxels)
        return np.where(kind == KINDS.index("null"), 0.0, np.clip(fraction, 0, MAX_SIGNAL_FRACTION))

    @cached_property
    def _shapes(self) -> FloatArray:
        """How much of each curve of the basis is in the response of each voxel, (n_curves, n_voxels)."""
        if self.haemodynamics is None:
            return np.ones((1, self.n_voxels))
        basis = response_basis(self.hrf)
        blocks = [basis.coefficients(self.haemodynamics.of(block)) for block in _blocks(self.n_voxels)]
        return np.concatenate(blocks, axis=1)

    @cached_property
    def _weights(self) -> dict[Part, FloatArray]:
        """Of every part, (n_columns, n_voxels); attention raises what voxels show and never lowers it."""
        rng = random_stream(self.seed, "weights", self.name)
        found: dict[Part, FloatArray] = {
            part: rng.standard_normal((N_COLUMNS[part], self.n_voxels)) for part in ("low_level", "semantic")
        }
        for part in PARTS[len(found) :]:
            own = random_stream(self.seed, "weights", self.name, part)
            found[part] = own.standard_normal((N_COLUMNS[part], self.n_voxels))
        found["attention"] = np.abs(found["attention"])
        return found


def zscore(values: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Each column minus its mean, over its standard deviation; columns that are constant become 0."""
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    constant = _is_constant(values, scale)
    return np.where(constant, 0, centred / np.where(constant, 1, scale)).astype(values.dtype)


def _scaled(series: FloatArray, basis: ResponseBasis) -> FloatArray:
    """Zero-mean columns, scaled as z-scoring scales those of the average response; (n_curves, n_trs, n_columns)."""
    average = np.tensordot(basis.average, series, axes=1)
    centred = series - series.mean(axis=1, keepdims=True)
    scale = (average - average.mean(axis=0)).std(axis=0)
    constant = _is_constant(average, scale)
    return np.where(constant, 0, centred / np.where(constant, 1, scale))


def _is_constant(values: npt.NDArray[Real], scale: npt.NDArray[Real]) -> npt.NDArray[np.bool_]:
    """Which columns vary by no more than rounding, given their standard deviations."""
    return np.asarray(scale <= 1e-6 * np.abs(values).max(axis=0, initial=0) + np.finfo(values.dtype).tiny)


def _mix(series: Sequence[FloatArray], weights: FloatArray, shapes: FloatArray) -> FloatArray:
    """Sum over curves and columns of series x weight x shape: n_curves of (n_trs, n_columns) -> (n_trs, n_voxels)."""
    both = shapes[:, None] * weights
    return np.concatenate(series, axis=1) @ both.reshape(-1, weights.shape[1])


def _noise(rng: np.random.Generator, timebase: TimeBase, n_voxels: int) -> Float32Array:
    """AR(1) noise plus drift (quadratic, and a cosine of random period) of half its size; detrended, unit variance."""
    noise = rng.standard_normal((timebase.n_trs, n_voxels), dtype=np.float32)
    noise[1:] *= np.float32(np.sqrt(1 - NOISE_AR**2))  # innovations of this size keep the variance of every row at 1
    for row in range(1, timebase.n_trs):
        noise[row] += np.float32(NOISE_AR) * noise[row - 1]
    t = (np.arange(timebase.n_trs) + 0.5) / timebase.n_trs
    phase = 2 * np.pi * t * timebase.n_trs * timebase.tr_s / rng.uniform(*DRIFT_PERIOD_S)
    shapes = zscore(np.stack([t, t**2, np.cos(phase), np.sin(phase)], axis=1))
    drift = zscore(shapes.astype(np.float32) @ rng.standard_normal((4, n_voxels), dtype=np.float32))
    drifts = slow_drift_basis(timebase).astype(np.float32)
    return zscore(_detrend(noise + np.float32(DRIFT_AMPLITUDE) * drift, drifts))


def _detrend(values: npt.NDArray[Real], basis: npt.NDArray[Real]) -> npt.NDArray[Real]:
    return values - basis @ (basis.T @ values)


def _blocks(n_voxels: int) -> Iterator[slice]:
    for first in range(0, n_voxels, _VOXELS_PER_BLOCK):
        yield slice(first, min(first + _VOXELS_PER_BLOCK, n_voxels))
