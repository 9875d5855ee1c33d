"""What simulated listeners follow besides low-level features and word vectors: series that no feature of a probe holds.

    modulation   energies of the log-mel spectrogram in time and frequency, and onsets of the sound
    attention    loudness times the listener's own slow attention
    arousal      loudness, words and phones integrated over tens of seconds, and a slow part that no sound has
    brain_only   one value of every content word that is in no word vector and in no text

Of these, only the last has anything to do with words. The first three are there to embarrass: whoever finds meaning in
such voxels, or a low-level share that falls, has found something else.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from brainlit.demo.text import CATEGORIES, VECTOR_SEED, random_stream, word_vectors
from brainlit.features.spectral import HOP_S, mel_frames
from brainlit.stories import Story
from brainlit.stories.base import FloatArray

ComplexArray = npt.NDArray[np.complex64]

# --- Modulation ---

RATES_HZ = (2.0, 4.0, 8.0, 16.0)
SCALES_PER_OCTAVE = (0.25, 0.5, 1.0, 2.0)
N_MODULATIONS = 2 * len(RATES_HZ) * len(SCALES_PER_OCTAVE)
N_ONSETS = 8
"""Bands in which onsets are looked for."""

_N_MELS = 64
_FRAMES_PER_STEP = 2
"""Spectra every 20 ms, so that 16 Hz and its bandwidth are below half the rate."""
_OCTAVES = (125.0, 8000.0)
_CHANNELS_PER_OCTAVE = 8


def modulation_frames(story: Story) -> tuple[FloatArray, FloatArray]:
    """Modulation energies and onsets, (n_frames, 32 + 8), and the time of each frame in seconds, (n_frames,).

    The log-mel spectrogram on an axis of octaves passes pairs of Gabor filters (a rate in time, a scale in frequency,
    upwards and downwards; after Chi, Ru and Shamma 2005, J Acoust Soc Am 118:887); the energy is the mean over
    channels of the squared magnitude. An onset is a rise of the log power of a band from one frame to the next; falls
    count as 0. Both are squares and rectifications, which no linear model takes from averages of the spectrum.
    """
    mel, times_s = mel_frames(story, _N_MELS)
    n_frames = len(mel) // _FRAMES_PER_STEP
    spectra = mel[: n_frames * _FRAMES_PER_STEP].reshape(n_frames, _FRAMES_PER_STEP, _N_MELS).mean(axis=1)
    frames_s = times_s[: n_frames * _FRAMES_PER_STEP].reshape(n_frames, _FRAMES_PER_STEP).mean(axis=1)
    bands = spectra.reshape(n_frames, N_ONSETS, -1).mean(axis=2)
    onsets = np.maximum(np.diff(bands, axis=0, prepend=bands[:1]), 0)
    octaves = spectra @ _to_octaves()
    return np.column_stack([modulation_energies(octaves, HOP_S * _FRAMES_PER_STEP), onsets]), frames_s


def modulation_energies(octaves: FloatArray, step_s: float) -> FloatArray:
    """Energies of a spectrogram with eight channels per octave: (n_frames, n_channels) -> (n_frames, 32).

    Columns are rates x scales x (falling, rising) frequency.
    """
    centred = octaves - octaves.mean(axis=0)
    rates_hz = np.fft.fftfreq(len(centred), step_s)
    spectrum = np.fft.fft(centred, axis=0)
    energies = []
    for rate_hz in RATES_HZ:
        # half a rate wide, and without negative frequencies: a complex signal whose phase runs forward
        passed = np.exp(-(((rates_hz - rate_hz) / (rate_hz / 2)) ** 2) / 2) * (rates_hz > 0)
        moving = np.fft.ifft(spectrum * passed[:, None], axis=0).astype(np.complex64)
        for scale in SCALES_PER_OCTAVE:
            kernel = _spectral_gabor(octaves.shape[1], scale)
            for way in (kernel, kernel.conj()):
                passed_both = moving @ way
                energies.append((passed_both.real**2 + passed_both.imag**2).mean(axis=1))
    return np.stack(energies, axis=1).astype(np.float64)


@lru_cache
def _spectral_gabor(n_channels: int, scale: float) -> ComplexArray:
    """Complex waves of some cycles per octave under bells as wide as a cycle, around every second channel."""
    apart = (np.arange(n_channels)[:, None] - np.arange(0, n_channels, 2)) / _CHANNELS_PER_OCTAVE
    kernel = np.exp(2j * np.pi * scale * apart - (scale * apart) ** 2 * np.pi)
    centred = kernel - kernel.mean(axis=0)
    return np.asarray((centred / np.linalg.norm(centred, axis=0)), dtype=np.complex64)


@lru_cache(maxsize=1)
def _to_octaves() -> FloatArray:
    """Linear interpolation from mel bands to channels an eighth of an octave apart, (64, 49)."""
    top_mel = _mel(8000.0)
    bands_mel = np.linspace(0, top_mel, _N_MELS + 2)[1:-1]
    n_octaves = np.log2(_OCTAVES[1] / _OCTAVES[0])
    channels_hz = _OCTAVES[0] * 2 ** (np.arange(round(n_octaves * _CHANNELS_PER_OCTAVE) + 1) / _CHANNELS_PER_OCTAVE)
    return np.stack([np.interp(_mel(channels_hz), bands_mel, row) for row in np.eye(_N_MELS)])


def _mel(hz: FloatArray | float) -> FloatArray:
    return np.asarray(2595 * np.log10(1 + np.asarray(hz) / 700))


# --- Attention ---

BIN_S = 0.1
ATTENTION_S = (2.0, 6.0, 20.0)
"""Standard deviations of the bells that smooth attention: it comes and goes within seconds to a minute."""
ATTENTION_SPREAD = 0.08
"""Standard deviation of the logarithm of attention."""


def loudness_bins(rms: FloatArray) -> FloatArray:
    """Loudness in bins of 0.1 s from frames of 10 ms: (n_frames,) -> (n_bins,); the rest of a bin at the end is cut."""
    per_bin = round(BIN_S / HOP_S)
    return np.asarray(rms[: len(rms) // per_bin * per_bin].reshape(-1, per_bin).mean(axis=1))


def attention_course(rng: np.random.Generator, n_bins: int) -> FloatArray:
    """How well a listener attends in each bin of 0.1 s, (n_bins,): positive, slow, 1 in the median."""
    slow = sum(slow_noise(rng, n_bins, width_s) for width_s in ATTENTION_S) / np.sqrt(len(ATTENTION_S))
    return np.asarray(np.exp(ATTENTION_SPREAD * slow))


def slow_noise(rng: np.random.Generator, n_bins: int, width_s: float) -> FloatArray:
    """White noise smoothed with a bell of this standard deviation, unit variance in expectation; (n_bins,)."""
    from scipy.signal import fftconvolve

    reach = int(4 * width_s / BIN_S)
    bell = np.exp(-((np.arange(-reach, reach + 1) * BIN_S / width_s) ** 2) / 2)
    noise = rng.standard_normal(n_bins + 2 * reach)
    return np.asarray(fftconvolve(noise, bell / np.linalg.norm(bell), mode="valid"))


# --- Arousal ---

INTEGRATION_S = (20.0, 40.0)
"""Time constants of the leaky integrators."""
AROUSAL_S = (10.0, 25.0)
"""Standard deviations of the bells that smooth the part of arousal that no sound has."""
N_AROUSAL = 3 * len(INTEGRATION_S) + len(AROUSAL_S)


def bin_times_s(n_bins: int) -> FloatArray:
    """Middles of bins of 0.1 s."""
    return np.asarray((np.arange(n_bins) + 0.5) * BIN_S)


def arousal_bins(story: Story, loudness: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What arousal is mixed from, in bins of 0.1 s: (n_bins,) -> (n_bins, 8).

    Loudness, words and phones through leaky integrators of 20 and 40 s, and two slow random courses of the story,
    which all listeners share. Before the story everything was as it is in the mean.
    """
    from scipy.signal import lfilter

    edges_s = np.arange(len(loudness) + 1) * BIN_S
    spoken = [story.words, story.phones] if story.phones is not None else [story.words, story.words]
    rates = [np.histogram(said.middle_s, edges_s)[0].astype(np.float64) for said in spoken]
    heard = np.stack([loudness, *rates], axis=1)
    heard = (heard - heard.mean(axis=0)) / np.maximum(heard.std(axis=0), 1e-12)
    leaks = [np.exp(-BIN_S / constant_s) for constant_s in INTEGRATION_S]
    integrated = [lfilter([1 - leak], [1, -leak], heard, axis=0) for leak in leaks]
    own = [slow_noise(rng, len(loudness), width_s)[:, None] for width_s in AROUSAL_S]
    return np.concatenate([*integrated, *own], axis=1)


# --- What only the brain knows of words ---

_SWAPS = 3000


@lru_cache(maxsize=1)
def brain_only_values() -> MappingProxyType[str, float]:
    """One value of each of the 96 content words that neither their vectors nor their places in sentences tell.

    Half of the words of every category and part of speech have about +1, the others about -1. Words change places until
    the 24 dimensions of `word_vectors` explain little of it, and what they and the means of categories and parts of
    speech still explain is taken off: over the lexicon the values are exactly orthogonal to all of them. They decide
    nothing about which sentences are made, so no model that learns from text can find them. A model that tells words
    apart can still be asked which word was said.
    """
    rng = random_stream(VECTOR_SEED, "brain only")
    words = list(word_vectors())
    cells = [[words.index(word) for word in slot] for category in CATEGORIES.values() for slot in category]
    means = np.zeros((len(words), len(cells)))
    for column, cell in enumerate(cells):
        means[cell, column] = 1
    known = np.linalg.qr(np.column_stack([means, np.stack(list(word_vectors().values()))]))[0]
    signs = np.zeros(len(words))
    for cell in cells:
        signs[cell] = rng.permutation(np.resize([1.0, -1.0], len(cell)))
    explained = known.T @ signs
    for _ in range(_SWAPS):
        one, other = rng.choice(cells[int(rng.integers(len(cells)))], size=2, replace=False)
        swapped = explained + known.T[:, [one, other]] @ (signs[[other, one]] - signs[[one, other]])
        if swapped @ swapped < explained @ explained:
            signs[[one, other]], explained = signs[[other, one]], swapped
    values = signs - known @ (known.T @ signs)
    return MappingProxyType(dict(zip(words, (values / values.std()).tolist(), strict=True)))
