"""Spoken stories on a scanner's clock, and a corpus of speech for backbones that first learn to hear."""

from __future__ import annotations

import numpy as np

from brainlit.demo.grammar import write_story
from brainlit.demo.speech import VOICES, speak
from brainlit.demo.streams import random_stream
from brainlit.stories import Story
from brainlit.timebase import SAMPLE_RATE_HZ, TimeBase

RATE_WPM = (160, 195)
PITCH = (35, 65)
WORDS_PER_S_PER_WPM = 0.0193
"""Words per second that espeak-ng really speaks, per nominal word per minute, in stories of this grammar (measured)."""

MIN_TRS = 8
"""A story shorter than this many volumes cannot be detrended and z-scored sensibly."""


def tell_story(name: str, rng: np.random.Generator, minutes: float, tr_s: float) -> Story:
    """Write a story and say it in a voice drawn at random.

    The scanner starts with the sound: volume 0 is acquired from 0 to tr_s seconds. Silence is appended until the
    last volume ends.

    Parameters
    ----------
    minutes : float
        Length aimed at; the voice decides the rest (within some 10 %).

    Raises
    ------
    ValueError
        If the story would have fewer than 8 volumes.
    """
    if minutes * 60 < MIN_TRS * tr_s:
        raise ValueError(
            f"a story of {minutes} minutes has fewer than {MIN_TRS} volumes of {tr_s} s; make it at least"
            f" {MIN_TRS * tr_s / 60:.2f} minutes."
        )
    voice = str(rng.choice(VOICES))
    rate_wpm = int(rng.integers(RATE_WPM[0], RATE_WPM[1] + 1))
    pitch, pitch_range = (int(value) for value in rng.integers(PITCH[0], PITCH[1] + 1, size=2))
    text = write_story(rng, n_words=round(minutes * 60 * WORDS_PER_S_PER_WPM * rate_wpm))
    speech = speak(text, voice, rate_wpm, pitch, pitch_range)
    n_trs = max(int(np.ceil(len(speech.audio) / SAMPLE_RATE_HZ / tr_s)), MIN_TRS)
    timebase = TimeBase.regular(n_trs, tr_s)
    audio = np.zeros(max(int(timebase.samples_at(timebase.end_s)), len(speech.audio)), dtype=np.int16)
    audio[: len(speech.audio)] = speech.audio
    return Story(name, audio, speech.words, speech.phones, timebase)


def speech_corpus(seed: int, minutes: float, story_minutes: float = 3.5) -> list[Story]:
    """Some minutes of speech with words and phones, and no listeners.

    Lexicon, grammar and voices are those of `DemoSource`; the texts are other ones, whatever the seeds.
    """
    if minutes <= 0:
        raise ValueError(f"minutes is {minutes}; a corpus needs some speech.")
    n_stories = max(1, round(minutes / story_minutes))
    return [
        tell_story(f"speech_{k:03d}", random_stream(seed, "speech corpus", k), minutes / n_stories, tr_s=2.0)
        for k in range(1, n_stories + 1)
    ]
