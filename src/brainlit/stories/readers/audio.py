"""Sound files of any rate and any number of channels, as the mono 16 kHz int16 that stories hold.

What is done to a sound on the way is said in notes, which the store keeps. Whether a file is whole is found in
`sound_files`, which channels are the sound in `channels`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import Float32Array, SoundNote
from brainlit.stories.readers.announced import AudioError
from brainlit.stories.readers.channels import Channel, Relation, RelationOfChannels, name_of, number_of
from brainlit.stories.readers.clipping import MAX_CLIPPED, FlatTops, clipped_level
from brainlit.stories.readers.sound_files import SoundFile, opened
from brainlit.timebase import SAMPLE_RATE_HZ

__all__ = ["AudioError", "Channel", "Sound", "read_audio", "read_sound", "resample", "to_int16"]

log = logging.getLogger(__name__)

_FULL_SCALE = 32768
_INTEGER_UNITS = 100.0
"""A peak of so many times full scale is no loud sound, but one in other units."""
_LOSSY_PEAK = 2.0
_SOFT, _FEW_STEPS = 0.003, 8
"""Peaks below the first leave hundreds of steps of int16, or fewer; below so many steps speech is a buzz."""
_FEW_SAMPLES, _FEW_PART = 8, 1e-5
"""A real sound has more samples than these within 40 dB of its largest value; damaged floats stand alone."""
_CHOOSE = (
    "Say which is the story: `channel: left`, `right` or a number (0 is the first) in each_story or the story of the"
    " manifest; where there is no manifest, write that channel into a file of its own."
)


@dataclass(frozen=True)
class Sound:
    """What a sound file holds.

    Parameters
    ----------
    samples : int16 array of shape (n_samples,)
        Mono.
    notes : tuple of SoundNote
        What was done to it, or noticed.
    """

    samples: npt.NDArray[np.int16]
    notes: tuple[SoundNote, ...] = ()


def read_audio(path: Path, channel: Channel | None = None) -> npt.NDArray[np.int16]:
    """The samples of `read_sound`, at 16 kHz; its notes are logged."""
    return read_sound(path, channel).samples


def read_sound(path: Path, channel: Channel | None = None, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Sound:
    """Read a sound file: one channel or their mean, resampled (polyphase, Kaiser window), rounded to int16.

    A mono file that already has this rate comes back bit by bit if it holds 16-bit samples. Samples beyond full scale,
    which only floats can have, make the whole file be divided by its own peak.

    Parameters
    ----------
    channel : 'left', 'right', number from 0, 'mean' or None
        None takes the mean of all channels that are not silent, after finding that they belong together; 'mean' that of
        all, whatever they hold.

    Returns
    -------
    Sound
        n_in x sample_rate_hz / rate_in samples, rounded up; the first sample keeps its time.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    AudioError
        If libsndfile cannot read it, it is cut off or damaged as far as that can be seen, it holds no or non-finite
        samples, its channels cancel each other or are several sounds, or it has no such channel.
    """
    mono, rate_hz, notes = _mono(path, channel)
    if not len(mono) or not np.isfinite(mono).all():
        raise AudioError(f"{path} holds {len(mono)} samples, or some that are not finite. Export it again.")
    peak = max(float(mono.max()), -float(mono.min()))
    if peak > 1:
        _refuse_single_values(path, mono, peak)
        notes = [*notes, _scaled_note(peak, is_lossy=path.suffix.lower() in (".mp3", ".ogg", ".opus"))]
        mono = mono / np.float32(peak)
    elif 0 < peak < _SOFT:
        notes = [*notes, _soft_note(peak)]
    resampled = resample(mono, rate_hz, sample_rate_hz)
    if peak > 1:  # what the filter overshoots would be clipped
        resampled = resampled * np.float32((_FULL_SCALE - 1) / _FULL_SCALE / max(float(np.abs(resampled).max()), 1.0))
    for note in notes:
        _say(f"{path}: {note.message} {note.cure}", logging.INFO if note.level == "info" else logging.WARNING)
    return Sound(to_int16(resampled), tuple(notes))


def _mono(path: Path, channel: Channel | None) -> tuple[Float32Array, int, list[SoundNote]]:
    """The chosen channel, or the mean of those that are heard; full scale is 1."""
    with opened(path) as file:
        weights = _weights(path, file.n_channels, channel)
        mono, relation, tops = _read(file, weights)
        notes = _notes_of_file(file)
    heard = relation.heard
    if file.n_channels > 1 and isinstance(channel, (int, str)) and channel != "mean":
        _refuse_silent(path, relation, number_of(channel))
    elif file.n_channels > 1:
        notes += _require_one_sound(path, relation, channel)
        if channel is None and len(heard) < file.n_channels:
            notes.append(_left_out_note(relation))
            weights = np.isin(np.arange(file.n_channels), heard) / len(heard)
            with opened(path) as file:
                mono, _, tops = _read(file, weights)
    return mono, file.rate_hz, [*notes, *_clipped_notes(tops, weights)]


def _read(file: SoundFile, weights: npt.NDArray[Any]) -> tuple[Float32Array, Relation, FlatTops]:
    """The weighted sum of the channels, block by block, and what is gathered about them on the way."""
    relation = RelationOfChannels(file.n_channels, file.rate_hz, file.full_scale)
    tops = FlatTops(file.n_channels, file.rate_hz, softest=(0.98 if file.is_coarse else 0.03) * file.full_scale)
    share = (weights / file.full_scale).astype(np.float32)
    parts = []
    for block in file.blocks():
        tops.add(block)
        with np.errstate(over="ignore", invalid="ignore"):  # not finite: refused later
            values = block.astype(np.float32, copy=False)
            parts.append(values @ share)
            if file.n_channels > 1:
                relation.add(values)
    mono = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    return mono, relation.result(), tops


def _weights(path: Path, n_channels: int, channel: Channel | None) -> npt.NDArray[Any]:
    if channel is None or channel == "mean":
        return np.full(n_channels, 1 / n_channels)
    k = number_of(channel)
    if not 0 <= k < n_channels:
        has = "one channel, number 0" if n_channels == 1 else f"{n_channels} channels, 0 to {n_channels - 1}"
        raise AudioError(f"{path} has {has}; channel: {channel} is none of them. Correct `channel`, or leave it out.")
    return np.asarray(np.arange(n_channels) == k, dtype=np.float64)


def _require_one_sound(path: Path, relation: Relation, channel: Channel | None) -> list[SoundNote]:
    """Refuse channels that cancel each other, and several sounds unless their mean is asked for; that is noted."""
    n_channels = len(relation.level_db)
    if relation.cancels:
        where = "" if relation.cancelled_part > 0.9 else f" in {100 * relation.cancelled_part:.0f} % of the sound"
        low, high = np.unravel_index(relation.waveform_r.argmin(), relation.waveform_r.shape)
        raise AudioError(
            f"{path}: its channels cancel each other when they are averaged{where} (channels {low} and {high}:"
            f" r = {relation.waveform_r[low, high]:.2f}): one has its polarity turned round. {_CHOOSE}"
        )
    pair = relation.strangers(relation.heard)
    if pair is None:
        return []
    one, other = pair
    levels = [f"{relation.level_db[k]:.0f} dB" for k in pair]
    found = (
        f"{name_of(one, n_channels)} and {name_of(other, n_channels)} are not one sound (r = "
        f"{relation.waveform_r[one, other]:.2f}, of their loudness {relation.loudness_r[one, other]:.2f}; levels"
        f" {' and '.join(levels)})"
    )
    if channel == "mean":
        return [SoundNote("strange_channels", "warning", f"{found}; averaged all the same.", _CHOOSE)]
    raise AudioError(
        f"{path}: {found}: are there triggers, or another speaker, in one of them? {_CHOOSE} `channel: mean` averages"
        " them all the same."
    )


def _refuse_silent(path: Path, relation: Relation, chosen: int) -> None:
    if not np.isfinite(relation.level_db[chosen]) and np.isfinite(relation.level_db).any():
        heard = ", ".join(map(str, relation.heard))
        raise AudioError(f"{path}: channel {chosen} is silent, but not {heard}. Choose another in `channel`.")


def _refuse_single_values(path: Path, mono: Float32Array, peak: float) -> None:
    loud = np.flatnonzero(np.abs(mono) > peak / 100)
    if len(loud) <= max(_FEW_SAMPLES, _FEW_PART * len(mono)) and len(loud) < len(mono):
        raise AudioError(
            f"{path} holds a value of {peak:.3g} times full scale (sample {loud[0]}) that {len(loud)} of {len(mono)}"
            " samples come near: the file is damaged. Fetch or export it again."
        )


# --- What is said ---


@lru_cache(maxsize=4096)
def _say(text: str, level: int) -> None:
    """Once: a store asks for a story's sound and for its phones."""
    log.log(level, text)


def _notes_of_file(file: SoundFile) -> list[SoundNote]:
    if not file.announced.is_open:
        return []
    message = "the header does not say how long the sound is, as a pipe writes it; read to the end of the file."
    return [SoundNote("open_length", "info", message, "Nothing, if the sound is as long as it should be.")]


def _left_out_note(relation: Relation) -> SoundNote:
    names = [name_of(k, len(relation.level_db)) for k in range(len(relation.level_db)) if k not in relation.heard]
    message = f"{', '.join(names)} is silent (40 dB below the others) and left out of the mean."
    return SoundNote("silent_channel", "info", message, "Nothing. `channel: mean` averages all channels.")


def _scaled_note(peak: float, is_lossy: bool) -> SoundNote:
    units = " It is in integer units?" if peak > _INTEGER_UNITS else ""
    message = f"samples go up to {peak:.4g} times full scale; the whole sound was divided by this peak.{units}"
    cure = "Nothing, unless stories should keep their levels to each other: then write all of them within -1 to 1."
    return SoundNote("scaled_sound", "info" if is_lossy and peak < _LOSSY_PEAK else "warning", message, cure)


def _soft_note(peak: float) -> SoundNote:
    steps = peak * _FULL_SCALE
    message = f"samples go up to {peak:.2g} of full scale, {steps:.2g} steps of the 16 bits in which sound is kept."
    cure = "Is it in other units, or nearly silent? Write it at a level that speech has."
    return SoundNote("soft_sound", "error" if steps < _FEW_STEPS else "warning", message, cure)


def _clipped_notes(tops: FlatTops, weights: npt.NDArray[Any]) -> list[SoundNote]:
    part = max(part for part, weight in zip(tops.parts(), weights, strict=True) if weight)
    if part <= MAX_CLIPPED:
        return []
    message = f"{100 * part:.2f} % of the samples are cut flat at the largest value."
    cure = "The sound was too loud for what recorded or wrote it: take it from before, or record it at a lower gain."
    return [SoundNote("clipped_sound", clipped_level(part), message, cure)]


# --- Rate and sample format ---


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
