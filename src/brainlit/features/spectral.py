"""What a story sounds like, per TR: its spectrum in four forms, and how loud it is.

A frame belongs to the row in which its middle falls. Silence is 0 in every space: powers are taken as
log(1 + power / floor).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from brainlit.features.per_tr import PerTr, space_per_tr
from brainlit.stories import FeatureSpace, Story
from brainlit.stories.base import Float32Array, FloatArray
from brainlit.timebase import TimeBase

_FRAME_S = 0.025
HOP_S = 0.010
POWER_FLOOR = 1e-4
"""Added to power before the logarithm: about the noise of a recording 60 dB below full scale."""

_MAX_HZ = 8000.0
"""Top of the power spectrum: what sound at 16 kHz holds."""

_N_MFCC = 13
_N_MFCC_MELS = 40

_FRAMES_PER_BLOCK = 6000
_FRAMES = "25 ms Hann windows every 10 ms"


def log_mel(story: Story, n_mels: int = 20, per_tr: PerTr = "mean") -> FeatureSpace:
    """Log-mel spectrum of the 10 ms frames of each TR.

    Parameters
    ----------
    n_mels : int
        Mel bands between 0 Hz and half the sample rate.
    """
    columns = (f"mel_{band:02d}" for band in range(n_mels))
    source = f"log(1 + mel power / {POWER_FLOOR:g}), {_FRAMES}"
    return space_per_tr(story, "log_mel", columns, source, *mel_frames(story, n_mels), "mean", per_tr)


def envelope(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Loudness of each TR: root mean square of the sound (full scale 1) in the frames of the spectrum."""
    rms, times_s = envelope_frames(story)
    source = "root mean square of 25 ms windows every 10 ms"
    return space_per_tr(story, "envelope", ["envelope"], source, rms[:, None], times_s, "mean", per_tr)


def power_spectrum(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """Log power in linear bands up to 8 kHz.

    At 16 kHz: 256 bands of 31.25 Hz, the bins of a 512-point transform without 0 Hz. The published feature of this
    name (de Heer et al. 2017, J Neurosci 37:6539; Deniz et al. 2019, J Neurosci 39:7722) has 448 bands of 33.5 Hz up to
    15 kHz; sound at 16 kHz ends at 8 kHz.
    """
    frames, times_s = power_frames(story)
    width_hz = story.timebase.sample_rate_hz / _n_fft(story.timebase.sample_rate_hz)
    columns = (f"hz_{width_hz * (band + 1):07.1f}" for band in range(frames.shape[1]))
    source = (
        f"log(1 + power / {POWER_FLOOR:g}) in {frames.shape[1]} bands of {width_hz:g} Hz up to 8 kHz (published:"
        f" 448 bands of 33.5 Hz up to 15 kHz; Deniz et al. 2019), {_FRAMES}"
    )
    return space_per_tr(story, "power_spectrum", columns, source, frames, times_s, "mean", per_tr)


def mfcc(story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
    """The first 13 mel-frequency cepstral coefficients, from 40 mel bands; the first is the overall level.

    Orthonormal cosine transform (DCT-II) of `mel_frames`; unlike decibels with a floor below the loudest frame, it
    does not depend on the rest of the story, and silence is 0.
    """
    from torchaudio.functional import create_dct

    mel, times_s = mel_frames(story, _N_MFCC_MELS)
    frames = mel @ create_dct(_N_MFCC, _N_MFCC_MELS, norm="ortho").numpy()
    columns = (f"mfcc_{k:02d}" for k in range(_N_MFCC))
    source = f"DCT-II of log(1 + power / {POWER_FLOOR:g}) in {_N_MFCC_MELS} mel bands, {_FRAMES}"
    return space_per_tr(story, "mfcc", columns, source, frames, times_s, "mean", per_tr)


def mel_frames(story: Story, n_mels: int) -> tuple[Float32Array, FloatArray]:
    """Log-mel power of every frame, (n_frames, n_mels), and the middle of each frame in seconds, (n_frames,).

    Frame k is centred on k x 10 ms, with silence assumed beyond both ends of the sound. The value is
    log(1 + power / floor), which is 0 in silence.
    """
    import torchaudio

    rate_hz = story.timebase.sample_rate_hz
    transform = torchaudio.transforms.MelSpectrogram(rate_hz, n_mels=n_mels, **_transform_sizes(rate_hz))
    return _log_frames(story, transform, slice(None))


def power_frames(story: Story) -> tuple[Float32Array, FloatArray]:
    """Log power of every frame in linear bands, (n_frames, n_bands), and the middle of each frame, (n_frames,)."""
    import torchaudio

    rate_hz = story.timebase.sample_rate_hz
    n_bands = int(min(_MAX_HZ, rate_hz / 2) * _n_fft(rate_hz) / rate_hz)
    transform = torchaudio.transforms.Spectrogram(power=2.0, **_transform_sizes(rate_hz))
    return _log_frames(story, transform, slice(1, 1 + n_bands))


def envelope_frames(story: Story) -> tuple[FloatArray, FloatArray]:
    """Root mean square of every frame, (n_frames,), and the middle of each frame in seconds, (n_frames,)."""
    rate_hz = story.timebase.sample_rate_hz
    window, hop = _frame_samples(rate_hz)
    blocks = []
    for block in _blocks(story.audio, window, hop):
        # Energy of a window as a difference of running sums; rounding may take silence a little below 0.
        energy = np.concatenate([[0.0], np.cumsum(np.square(block, dtype=np.float64))])
        firsts = np.arange(0, len(block) - window + 1, hop)
        blocks.append(np.sqrt(np.maximum(energy[firsts + window] - energy[firsts], 0) / window))
    rms: FloatArray = np.concatenate(blocks)
    return rms, np.arange(len(rms), dtype=np.float64) * (hop / rate_hz)


def _log_frames(story: Story, transform: Callable[..., object], bands: slice) -> tuple[Float32Array, FloatArray]:
    """log(1 + power / floor) of chosen bands of a power spectrum, and the middle of each frame in seconds."""
    import torch

    rate_hz = story.timebase.sample_rate_hz
    _, hop = _frame_samples(rate_hz)
    blocks = []
    with torch.no_grad():
        for block in _blocks(story.audio, _n_fft(rate_hz), hop):
            power = torch.as_tensor(transform(torch.from_numpy(block))).T[:, bands].numpy()
            blocks.append(np.log1p(power / np.float32(POWER_FLOOR)))
    frames = np.concatenate(blocks).astype(np.float32)
    return frames, np.arange(len(frames), dtype=np.float64) * (hop / rate_hz)


def _blocks(audio: npt.NDArray[np.int16], window: int, hop: int) -> Iterator[Float32Array]:
    """Stretches of sound (full scale 1) that hold whole frames, so that long stories need little memory."""
    n_frames = 1 + len(audio) // hop
    for first in range(0, n_frames, _FRAMES_PER_BLOCK):
        n_here = min(_FRAMES_PER_BLOCK, n_frames - first)
        # Frame k is centred on sample k x hop, so blocks overlap by a window less a hop.
        start = first * hop - window // 2
        stop = start + (n_here - 1) * hop + window
        inside = audio[max(start, 0) : max(stop, 0)]
        block = np.zeros(stop - start, dtype=np.float32)
        block[max(-start, 0) : max(-start, 0) + len(inside)] = inside
        yield block / np.float32(32768)


def _frame_samples(sample_rate_hz: int) -> tuple[int, int]:
    """Length of a frame and distance of two, rounded as the clock rounds."""
    clock = TimeBase.regular(1, 1.0, sample_rate_hz=sample_rate_hz)
    window, hop = clock.samples_at([_FRAME_S, HOP_S])
    return int(window), int(hop)


def _transform_sizes(sample_rate_hz: int) -> dict[str, int]:
    """What torchaudio's transforms are told; blocks bring the silence around the sound, so no centring."""
    window, hop = _frame_samples(sample_rate_hz)
    return {"n_fft": _n_fft(sample_rate_hz), "win_length": window, "hop_length": hop, "center": False}


def _n_fft(sample_rate_hz: int) -> int:
    """The power of two at or above the length of a frame."""
    return 1 << (_frame_samples(sample_rate_hz)[0] - 1).bit_length()
