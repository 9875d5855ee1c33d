"""What a story sounds like, per TR: spectrum, loudness, and how fast words and phones come.

Two conventions hold throughout. A frame, word or phone belongs to the row in which its middle falls. Rows without
sound (before the story begins, after it ends, digital silence) are 0 in every space.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from brainlit.features.phones import PHONE_CLASSES, classify_phones, is_pause
from brainlit.stories import FeatureSpace, Intervals, Story
from brainlit.timebase import TimeBase

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

FRAME_S = 0.025
HOP_S = 0.010
POWER_FLOOR = 1e-4
"""Added to mel power before the logarithm: about the noise of a recording 60 dB below full scale."""

_FRAMES_PER_BLOCK = 6000


def log_mel(story: Story, n_mels: int = 20) -> FeatureSpace:
    """Mean log-mel spectrum of the 10 ms frames of each TR.

    Parameters
    ----------
    n_mels : int
        Mel bands between 0 Hz and half the sample rate.
    """
    frames, times_s = mel_frames(story, n_mels)
    return FeatureSpace(
        name="log_mel",
        kind="low_level",
        columns=tuple(f"mel_{band:02d}" for band in range(n_mels)),
        source=f"log(1 + mel power / {POWER_FLOOR:g}), 25 ms Hann windows every 10 ms, mean per TR",
        values=_float32(story.timebase.average_per_tr(frames, times_s)),
    )


def envelope(story: Story) -> FeatureSpace:
    """Mean loudness of each TR: root mean square of the sound (full scale 1) in the frames of the spectrum."""
    rms, times_s = envelope_frames(story)
    return FeatureSpace(
        name="envelope",
        kind="low_level",
        columns=("envelope",),
        source="root mean square of 25 ms windows every 10 ms, mean per TR",
        values=_float32(story.timebase.average_per_tr(rms[:, None], times_s)),
    )


def word_rate(story: Story) -> FeatureSpace:
    """Number of words in each TR."""
    counts = story.timebase.count_per_tr(story.words.middle_s)
    return FeatureSpace("word_rate", "low_level", ("word_rate",), "words per TR", _float32(counts[:, None]))


def word_length(story: Story) -> FeatureSpace:
    """Mean number of letters of the words of each TR; 0 where there are none."""
    letters = np.asarray([sum(character.isalpha() for character in word) for word in story.words.labels])
    values = story.timebase.average_per_tr(letters.reshape(-1, 1), story.words.middle_s)
    return FeatureSpace("word_length", "low_level", ("word_length",), "mean letters per word per TR", _float32(values))


def phone_rate(story: Story) -> FeatureSpace:
    """Number of phones in each TR, pauses not counted.

    Raises
    ------
    ValueError
        If the story has no phone times.
    """
    phones = _phones_of(story)
    sounding = np.asarray([not is_pause(label) for label in phones.labels], dtype=bool)
    counts = story.timebase.count_per_tr(phones.middle_s[sounding])
    return FeatureSpace("phone_rate", "low_level", ("phone_rate",), "phones per TR", _float32(counts[:, None]))


def phone_classes(story: Story) -> FeatureSpace:
    """Number of vowels, stops, fricatives, affricates, nasals and approximants in each TR.

    Raises
    ------
    ValueError
        If the story has no phone times, or its phones are in no alphabet known here.
    """
    phones = _phones_of(story)
    values = story.timebase.sum_per_tr(phone_class_table(story), phones.middle_s)
    return FeatureSpace(
        "phone_classes", "low_level", PHONE_CLASSES, "vowels and consonants by manner, per TR", _float32(values)
    )


def phone_class_table(story: Story) -> FloatArray:
    """One row per phone of the story, one column per class of `PHONE_CLASSES`: 1 where it belongs, 0 elsewhere."""
    phones = _phones_of(story)
    try:
        return classify_phones(phones.labels)
    except ValueError as error:
        raise ValueError(f"story {story.name!r}: {error}") from error


def mel_frames(story: Story, n_mels: int) -> tuple[Float32Array, FloatArray]:
    """Log-mel power of every frame, (n_frames, n_mels), and the middle of each frame in seconds, (n_frames,).

    Frame k is centred on k x 10 ms, with silence assumed beyond both ends of the sound. The value is
    log(1 + power / floor), which is 0 in silence.
    """
    import torch
    import torchaudio

    rate_hz = story.timebase.sample_rate_hz
    window, hop = _frame_samples(rate_hz)
    n_fft = 1 << (window - 1).bit_length()
    transform = torchaudio.transforms.MelSpectrogram(
        rate_hz, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=n_mels, center=False
    )
    with torch.no_grad():
        blocks = [transform(torch.from_numpy(block)).T.numpy() for block in _blocks(story.audio, n_fft, hop)]
    frames = _float32(np.log1p(np.concatenate(blocks) / np.float32(POWER_FLOOR)))
    return frames, np.arange(len(frames), dtype=np.float64) * (hop / rate_hz)


def envelope_frames(story: Story) -> tuple[FloatArray, FloatArray]:
    """Root mean square of every frame, (n_frames,), and the middle of each frame in seconds, (n_frames,)."""
    rate_hz = story.timebase.sample_rate_hz
    window, hop = _frame_samples(rate_hz)
    blocks = []
    for block in _blocks(story.audio, window, hop):
        energy = np.concatenate([[0.0], np.cumsum(np.square(block, dtype=np.float64))])
        firsts = np.arange(0, len(block) - window + 1, hop)
        blocks.append(np.sqrt(np.maximum(energy[firsts + window] - energy[firsts], 0) / window))
    rms: FloatArray = np.concatenate(blocks)
    return rms, np.arange(len(rms), dtype=np.float64) * (hop / rate_hz)


def _blocks(audio: npt.NDArray[np.int16], window: int, hop: int) -> Iterator[Float32Array]:
    """Stretches of sound (full scale 1) that hold whole frames, so that long stories need little memory."""
    n_frames = 1 + len(audio) // hop
    for first in range(0, n_frames, _FRAMES_PER_BLOCK):
        n_here = min(_FRAMES_PER_BLOCK, n_frames - first)
        start = first * hop - window // 2
        stop = start + (n_here - 1) * hop + window
        inside = audio[max(start, 0) : max(stop, 0)]
        block = np.zeros(stop - start, dtype=np.float32)
        block[max(-start, 0) : max(-start, 0) + len(inside)] = inside
        yield block / np.float32(32768)


def _frame_samples(sample_rate_hz: int) -> tuple[int, int]:
    clock = TimeBase.regular(1, 1.0, sample_rate_hz=sample_rate_hz)
    window, hop = clock.samples_at([FRAME_S, HOP_S])
    return int(window), int(hop)


def _phones_of(story: Story) -> Intervals:
    if story.phones is None:
        raise ValueError(
            f"story {story.name!r} has no phone times; give its source a phone tier or leave this space out."
        )
    return story.phones


def _float32(values: npt.ArrayLike) -> Float32Array:
    return np.asarray(values, dtype=np.float32)
