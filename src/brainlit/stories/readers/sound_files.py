"""Whether a sound file is whole: what it announces against what is there, before and while it is read.

libsndfile reads a WAV that was cut off to its end and says nothing, stops early in an MP3 whose length it has to guess,
and leaves out the pages of an Ogg file that are damaged. So lengths are taken from the headers here and compared with
the bytes and the samples that are there, and the checksums that exist are met: the CRC of Ogg's pages, the CRC of
FLAC's frames (by libsndfile) and the MD5 of FLAC's samples. WAV, AIFF, AU, NIST and MP3 have none: a flipped bit in
their samples cannot be found. Of rarer formats (VOC, IRCAM, AVR, MAT, PAF, PVF) a cut cannot be found either.
"""

from __future__ import annotations

import hashlib
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import Float32Array
from brainlit.stories.readers.announced import AGAIN, CONVERT, Announced, AudioError, cut_off, id3_size, read_at
from brainlit.stories.readers.compressed_sound import (
    announced_by_flac,
    announced_by_mp3,
    begins_as_mp3,
    mpeg_frame,
    require_whole_ogg,
)
from brainlit.stories.readers.tables import require_file
from brainlit.stories.readers.wav import PIPE_SIZES, WithLength, announced_by_wav

_BLOCK_FRAMES = 1 << 18
_MIN_RATE_HZ, _MAX_RATE_HZ = 500, 768_000


class SoundFile:
    """An open sound file.

    Attributes
    ----------
    rate_hz, n_channels : int
    is_lossy : bool
        Whether it is MP3, Vorbis or Opus, whose decoded samples go beyond full scale now and then.
    full_scale : float
        What counts as 1 in the blocks: 32768 of int16, 1 of float32.
    is_coarse : bool
        Whether its samples have 8 bits.
    announced : Announced
    """

    def __init__(self, path: Path, file: Any, announced: Announced) -> None:
        self.path, self.announced, self._file = path, announced, file
        self.rate_hz, self.n_channels = int(file.samplerate), int(file.channels)
        self.is_lossy = file.subtype.startswith("MPEG") or file.subtype in ("VORBIS", "OPUS")
        self.is_coarse = file.subtype in ("PCM_U8", "PCM_S8", "DPCM_8")
        self._dtype = "int16" if file.subtype == "PCM_16" else "int32" if announced.md5 else "float32"
        self.full_scale = 32768.0 if self._dtype == "int16" else 1.0

    def blocks(self) -> Iterator[npt.NDArray[np.int16] | Float32Array]:
        """All samples from front to back, (n_frames, n_channels); 16-bit samples as such, which is faster.

        Raises
        ------
        AudioError
            If reading stops before what is announced, or the samples have another MD5.
        """
        import soundfile

        n_read, md5 = 0, hashlib.md5(usedforsecurity=False)
        while True:
            try:
                block = self._file.read(_BLOCK_FRAMES, dtype=self._dtype, always_2d=True)
            except soundfile.SoundFileError as error:
                raise self._ends_early(n_read, f"{error}".strip(" .")) from error
            if not len(block):
                break
            n_read += len(block)
            if self.announced.md5:
                md5.update(_as_stored(block, self.announced.n_bits))
            yield block if self._dtype != "int32" else (block * np.float64(2**-31)).astype(np.float32)
        least = self._n_announced - self.announced.slack_frames
        if n_read < least:
            raise self._ends_early(n_read)
        if self.announced.md5 and md5.digest() != self.announced.md5:
            raise AudioError(f"{self.path} is damaged: its samples have another MD5 than the file says. {AGAIN}")

    @property
    def _n_announced(self) -> int:
        n_frames = self.announced.n_frames
        n_frames = int(self._file.frames) if n_frames is None else n_frames
        return n_frames if n_frames < 2**62 else 0  # a FLAC stream of unknown length

    def _ends_early(self, n_read: int, why: str = "") -> AudioError:
        return AudioError(
            f"{self.path} is damaged or cut off: {_length(self._n_announced, self.rate_hz)} are announced, but reading"
            f" stops after {_length(n_read, self.rate_hz)}{f' ({why})' if why else ''}. {AGAIN}"
        )


@contextmanager
def opened(path: Path) -> Iterator[SoundFile]:
    """A sound file, after its header was compared with its size.

    Raises
    ------
    FileNotFoundError
        If there is none.
    AudioError
        If libsndfile cannot read it, or it was cut off as far as that can be seen.
    """
    import soundfile

    require_file(path)
    try:
        announced = _announced(path)
        source = path if announced.length_at is None else WithLength(path, *announced.length_at)
        file = _stream_class()(source)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: .raw says neither rate nor channels
        raise AudioError(
            f"{path} is not a readable sound file: {f'{error}'.strip(' .:')}. Convert it to WAV or FLAC."
        ) from error
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror or error}.") from error
    with file:
        if file.format not in ("WAV", "WAVEX", "RF64"):
            _refuse_shortened(path, file.extra_info)
        if file.format == "MP3" and announced.n_frames is None:
            raise AudioError(f"{path} does not begin with a frame of MPEG, and its length is not known. {CONVERT}")
        if not _MIN_RATE_HZ <= file.samplerate <= _MAX_RATE_HZ:
            raise AudioError(f"{path} says that it has {file.samplerate} samples per second, as no sound has. {AGAIN}")
        yield SoundFile(path, file, announced)


@lru_cache
def _stream_class() -> Any:
    import soundfile

    class Stream(soundfile.SoundFile):  # type: ignore[misc]
        """Read from front to back: soundfile would seek after each block, which FLAC of unknown length cannot."""

        def seekable(self) -> bool:
            return False

    return Stream


def _length(n_frames: int, rate_hz: int) -> str:
    return f"{n_frames / rate_hz:.2f} s ({n_frames} samples)"


def _announced(path: Path) -> Announced:
    with path.open("rb") as file:
        first = id3_size(file.read(10))
        head = read_at(file, first, 1024)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return announced_by_wav(path, file, first)
        if head[:4] == b"fLaC":
            return announced_by_flac(path, file, first)
        if head[:4] == b"OggS":
            require_whole_ogg(path)
        elif head[:4] == b".snd" and len(head) >= 12:
            return _au(path, *struct.unpack(">II", head[4:12]))
        elif head[:7] == b"NIST_1A":
            count = re.search(rb"sample_count -i (\d+)", head)
            return Announced() if count is None else Announced(int(count[1]))
        elif first or mpeg_frame(head) is not None:
            first += len(head) - len(head.lstrip(b"\0"))  # what pads a tag
            if begins_as_mp3(file, first):
                return announced_by_mp3(path, first)
    return Announced()


def _au(path: Path, start: int, announced: int) -> Announced:
    there = path.stat().st_size - start
    if announced == 0xFFFF_FFFF:
        return Announced(is_open=True)
    if announced < there:
        raise AudioError(f"{path} holds {there} bytes of samples, but its header announces {announced}. {CONVERT}")
    return Announced()


def _refuse_shortened(path: Path, log: str) -> None:
    """libsndfile's own remarks about lengths, of AIFF, AU, W64, SVX and others."""
    uneven = re.search(r"'COMM' chunk \((\d+)\) not equal to frame count\D+(\d+)", log)
    if uneven is not None and int(uneven[1]) > int(uneven[2]):  # fewer: packets of compressed sound
        raise AudioError(
            f"{path} is damaged: its header announces {uneven[1]} samples and has room for {uneven[2]}. {AGAIN}"
        )
    for announced, there in re.findall(r"(\d+) \(?should be (\d+)", log):
        if int(there) < int(announced) < PIPE_SIZES.start:
            raise cut_off(path, int(announced), int(there))


def _as_stored(block: npt.NDArray[Any], n_bits: int) -> bytes:
    """Integers of n_bits, little-endian, whose MD5 FLAC keeps; libsndfile puts them into the upper bits."""
    size = n_bits // 8
    if sys.byteorder == "big":
        block = block.byteswap()
    return np.ascontiguousarray(block).view(np.uint8).reshape(-1, block.itemsize)[:, block.itemsize - size :].tobytes()
