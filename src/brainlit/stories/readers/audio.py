"""Sound files of any rate and any number of channels, as the mono 16 kHz int16 that stories hold."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import Float32Array, SourceError
from brainlit.stories.readers.tables import require_file
from brainlit.timebase import SAMPLE_RATE_HZ

_FULL_SCALE = 32768
_BLOCK_FRAMES = 1 << 18


class AudioError(SourceError):
    """A sound file that cannot be used; the message names file, cause and cure."""


def read_audio(path: Path, sample_rate_hz: int = SAMPLE_RATE_HZ) -> npt.NDArray[np.int16]:
    """Read a sound file: channels averaged, resampled (polyphase, Kaiser window), rounded to int16.

    A mono file that already has this rate comes back bit by bit if it holds 16-bit samples.

    Returns
    -------
    int16 array of shape (n_samples,)
        n_in x sample_rate_hz / rate_in samples, rounded up; the first sample keeps its time.

    Raises
    ------
    AudioError
        If libsndfile cannot read it, or it holds no or non-finite samples.
    """
    import soundfile

    require_file(path)
    try:
        with soundfile.SoundFile(path) as file:
            sound, rate_hz = _mono(file), int(file.samplerate)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path} is not a readable sound file: {error} Convert it to WAV or FLAC.") from error
    if not len(sound) or not np.isfinite(sound).all():
        raise AudioError(f"{path} holds {len(sound)} samples, or some that are not finite. Export it again.")
    return to_int16(resample(sound, rate_hz, sample_rate_hz))


def _mono(file: Any) -> Float32Array:
    """The mean of the channels, block by block into one buffer; 16-bit samples are read as such, which is faster."""
    is_16_bit = file.subtype == "PCM_16"
    buffer = np.empty((_BLOCK_FRAMES, file.channels), dtype=np.int16 if is_16_bit else np.float32)
    share = np.float32(1 / (file.channels * (_FULL_SCALE if is_16_bit else 1)))
    weights = np.full(file.channels, share, dtype=np.float32)
    parts = []
    while len(block := file.read(out=buffer)):
        parts.append(block.astype(np.float32, copy=False) @ weights)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def resample(sound: Float32Array, rate_hz: int, new_rate_hz: int = SAMPLE_RATE_HZ) -> Float32Array:
    """Change the sampling rate of a mono sound; sample 0 stays at time 0."""
    if rate_hz == new_rate_hz:
        return sound
    from scipy.signal import resample_poly

    shared = gcd(rate_hz, new_rate_hz)
    return np.asarray(resample_poly(sound, new_rate_hz // shared, rate_hz // shared), dtype=np.float32)


def to_int16(sound: Float32Array) -> npt.NDArray[np.int16]:
    """Samples in [-1, 1) as int16; what resampling overshoots is clipped."""
    scaled = sound * np.float32(_FULL_SCALE)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1, out=scaled).astype(np.int16)
