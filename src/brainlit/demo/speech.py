"""Text to speech with the time of every word and phone: espeak-ng, driven through ctypes.

The wheel `espeakng-loader` carries the library and its voices. The synthesiser keeps state from one call to the next
(noise, wave phase, pitch flutter) that neither its parameters nor a new initialisation reset, so every call works on
a freshly loaded library: the same text and voice give the same samples in any order and in any process.

A phone event names the character at which its word begins, and so gives each word its phones. espeak-ng speaks some
pairs of small words ("of a", "in the") as one: all phones then carry the position of the first. Such a group is
shared out: its phones go to the words in order, in proportion to their letters and at least one each; where there
are fewer phones than words, the time is shared out in proportion to letters.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from brainlit.stories import Intervals
from brainlit.stories.base import Float32Array, FloatArray

ESPEAK_RATE_HZ = 22_050
VOICES = ("en-us", "en-us+m1", "en-us+m3", "en-us+m4", "en-us+m7", "en-us+f1", "en-us+f4", "en-us+Annie")
"""American English plain and in seven variants; the name is language+variant.

Variants with breath (f2, f3, f5) work but are left out here: they draw on the C library's random numbers, which are
seeded for every call, but which another thread could disturb.
"""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


class EspeakMissingError(ImportError):
    """The wheel that carries espeak-ng is not installed."""


@dataclass(frozen=True)
class Speech:
    """Spoken text.

    Parameters
    ----------
    audio : int16 array of shape (n_samples,)
        Mono at 16 kHz.
    words : Intervals
        Every word of the text, as it is written, in order.
    phones : Intervals
        espeak mnemonics without stress marks; pauses are left out.
    """

    audio: npt.NDArray[np.int16]
    words: Intervals
    phones: Intervals


def speak(text: str, voice: str = "en-us", rate_wpm: int = 170, pitch: int = 50, pitch_range: int = 50) -> Speech:
    """Say a text; the same arguments always give the same samples.

    Parameters
    ----------
    voice : str
        Name as espeak-ng wants it, such as 'en-us+f2'; `VOICES` lists those of the demo.
    rate_wpm : int
        Nominal words per minute, 80..450.
    pitch, pitch_range : int
        0..99.

    Raises
    ------
    EspeakMissingError
        If the wheel espeakng-loader is not installed.
    ValueError
        If the text has no words, a number is out of range, or espeak-ng does not know the voice.
    """
    limits = (("rate_wpm", rate_wpm, 80, 450), ("pitch", pitch, 0, 99), ("pitch_range", pitch_range, 0, 99))
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; espeak-ng takes {low}..{high}.")
    spans = [match.span() for match in _WORD.finditer(text)]
    if not spans:
        raise ValueError(f"the text {text[:40]!r} has no words to say; pass letters (numbers are not spelled out).")
    sound = _synthesise(text, voice, {_RATE: rate_wpm, _VOLUME: _QUIET_ENOUGH, _PITCH: pitch, _RANGE: pitch_range})
    n_seconds = len(sound.samples) / ESPEAK_RATE_HZ
    return Speech(
        audio=resample_to_16k(sound.samples),
        words=align_words(text, spans, sound.phones, n_seconds),
        phones=phone_intervals(sound.phones, n_seconds),
    )


def resample_to_16k(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """22.05 kHz to 16 kHz by the exact ratio 320/441 with a zero-phase filter, so that times in seconds stay true."""
    from scipy.signal import resample_poly

    resampled: Float32Array = resample_poly(samples.astype(np.float32), 320, 441)
    return np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)


# --- Times of words and phones ---


class PhoneEvent(NamedTuple):
    """One phone as the synthesiser reports it.

    `position` is the index in the text of the first character of the word it belongs to.
    """

    label: str
    position: int
    start_s: float

    @property
    def is_pause(self) -> bool:
        """Whether this is silence between phrases."""
        return self.label.startswith("_") or not self.label


def phone_intervals(events: Sequence[PhoneEvent], end_s: float) -> Intervals:
    """The phones without pauses: each lasts until the next phone or pause begins; stress marks are taken off."""
    edges_s = np.asarray([*(event.start_s for event in events), end_s])
    kept = [k for k, event in enumerate(events) if not event.is_pause]
    labels = tuple(events[k].label.lstrip("',%=|") or events[k].label for k in kept)
    return Intervals(labels, edges_s[:-1][kept], np.diff(edges_s)[kept])


def align_words(text: str, spans: Sequence[tuple[int, int]], events: Sequence[PhoneEvent], end_s: float) -> Intervals:
    """Start and duration of every word: from its first phone to the end of its last.

    Parameters
    ----------
    spans : list of (start, stop)
        Where each word stands in the text, in order.
    end_s : float
        End of the sound, in seconds.

    Raises
    ------
    RuntimeError
        If the synthesiser reported no phone before the first word ends (nothing to share out).
    """
    edges_s = np.asarray([*(event.start_s for event in events), end_s])
    owners = np.searchsorted([start for start, _ in spans], [event.position for event in events], side="right") - 1
    phones_of: list[list[int]] = [[] for _ in spans]
    for k, event in enumerate(events):
        if not event.is_pause and owners[k] >= 0:
            phones_of[owners[k]].append(k)
    starts_s, ends_s = np.zeros(len(spans)), np.zeros(len(spans))
    for group in _groups(phones_of):
        letters = np.asarray([spans[k][1] - spans[k][0] for k in group], dtype=np.float64)
        cuts_s = _share_out(edges_s, phones_of[group[0]], letters)
        starts_s[group], ends_s[group] = cuts_s[:-1], cuts_s[1:]
    return Intervals(tuple(text[start:stop] for start, stop in spans), starts_s, ends_s - starts_s)


def _groups(phones_of: Sequence[Sequence[int]]) -> list[list[int]]:
    """Words that share phones: each word with phones of its own, and those without that follow it."""
    if not phones_of[0]:
        raise RuntimeError("espeak-ng reported no phones for the first word of the text; its events are unusable.")
    groups: list[list[int]] = []
    for word, phones in enumerate(phones_of):
        if phones:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _share_out(edges_s: FloatArray, phones: Sequence[int], letters: FloatArray) -> FloatArray:
    """Edges in seconds of the words that share these phones, shape (n_words + 1,)."""
    shares = np.cumsum(letters) / letters.sum()
    n_words, n_phones = len(letters), len(phones)
    start_s, end_s = edges_s[phones[0]], edges_s[phones[-1] + 1]
    if n_phones < n_words:
        return np.asarray([start_s, *(start_s + shares * (end_s - start_s))])
    firsts = [0]
    for word in range(1, n_words):
        wanted = int(np.floor(shares[word - 1] * n_phones + 0.5))
        # one phone at least for the word before, and for each word from here on
        firsts.append(int(np.clip(wanted, firsts[-1] + 1, n_phones - (n_words - word))))
    return np.asarray([*(edges_s[phones[first]] for first in firsts), end_s])


# --- The library ---

_RETRIEVE_SYNCHRONOUSLY = 2
_PHONEME_EVENTS, _DO_NOT_EXIT = 0x0001, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_QUIET_ENOUGH = 70
"""Volume in percent at which no voice of the demo reaches full scale, so that resampling never clips."""
_UTF8_TEXT = 1
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7

_LOCK = threading.Lock()


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Sound(NamedTuple):
    samples: npt.NDArray[np.int16]
    phones: list[PhoneEvent]


def _synthesise(text: str, voice: str, parameters: dict[int, int]) -> _Sound:
    chunks: list[bytes] = []
    events: list[PhoneEvent] = []

    def collect(wave: Any, n_samples: int, event: Any) -> int:
        if wave and n_samples > 0:
            chunks.append(ctypes.string_at(wave, 2 * n_samples))
        k = 0
        while event[k].type != _EVENT_END_OF_LIST:
            if event[k].type == _EVENT_PHONEME:
                label = event[k].id.string.decode("utf-8", "replace")
                events.append(PhoneEvent(label, event[k].text_position - 1, event[k].sample / ESPEAK_RATE_HZ))
            k += 1
        return 0

    callback = _Callback(collect)
    with _LOCK, _fresh_espeak() as library:
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        library.espeak_SetSynthCallback(callback)
        _choose_voice(library, voice)
        for parameter, value in parameters.items():
            library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode() + b"\0"
        if library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, _UTF8_TEXT, None, None) != 0:
            raise RuntimeError(f"espeak-ng could not say a text of {len(text)} characters that begins {text[:40]!r}.")
    return _Sound(np.frombuffer(b"".join(chunks), dtype=np.int16), events)


def _choose_voice(library: ctypes.CDLL, voice: str) -> None:
    """Set the voice; espeak-ng itself ignores a variant that it does not have, so that is checked here."""
    _, plus, variant = voice.partition("+")
    variants = Path(_import_loader().get_data_path()) / "voices" / "!v"
    known = not plus or (variant != "" and (variants / variant).is_file())
    if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(
            f"espeak-ng does not know the voice {voice!r}; use a name such as {' or '.join(VOICES[:2])}"
            f" (language+variant; the variants are the files in {variants}; 'en-gb' is not accepted here)."
        )


@contextmanager
def _fresh_espeak() -> Iterator[ctypes.CDLL]:
    """The library, newly loaded and initialised; unloaded afterwards, so that no state reaches the next call."""
    loader = _import_loader()
    library_path, data_path = Path(loader.get_library_path()), str(loader.get_data_path())
    with tempfile.TemporaryDirectory(prefix="brainlit-espeak-", ignore_cleanup_errors=True) as folder:
        if _is_loaded(library_path):
            library_path = Path(shutil.copy2(library_path, folder))
        library = ctypes.CDLL(str(library_path))
        try:
            options = _PHONEME_EVENTS | _DO_NOT_EXIT
            rate_hz = library.espeak_Initialize(_RETRIEVE_SYNCHRONOUSLY, 0, data_path.encode(), options)
            if rate_hz != ESPEAK_RATE_HZ:
                raise RuntimeError(
                    f"espeak-ng started with a rate of {rate_hz} instead of {ESPEAK_RATE_HZ} Hz; its data folder is"
                    f" {data_path}. Reinstall it: pip install --force-reinstall espeakng-loader"
                )
            yield library
            library.espeak_Terminate()
        finally:
            _unload(library)


def _import_loader() -> Any:
    try:
        import espeakng_loader
    except ImportError as error:
        raise EspeakMissingError(
            "the demo speaks with espeak-ng, and the wheel espeakng-loader that carries it is not installed;"
            " cure: pip install espeakng-loader"
        ) from error
    return espeakng_loader


def _is_loaded(path: Path) -> bool:
    """Whether something else in this process holds the library, in which case loading it again would share state."""
    if sys.platform == "win32":
        return False
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    _unload(library)
    return True


def _unload(library: ctypes.CDLL) -> None:
    import _ctypes

    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
