"""Whether a sound file is whole: what it announces against what is there, before and while it is read.

libsndfile reads a WAV that was cut off to its end and says nothing, stops early in an MP3 whose length it has to guess,
and leaves out the pages of an Ogg file that are damaged. So lengths are taken from the headers here and compared with
the bytes and the samples that are there, and the checksums that exist are met: the CRC of Ogg's pages, the CRC of
FLAC's frames (by libsndfile) and the MD5 of FLAC's samples. WAV, AIFF, AU, NIST and MP3 have none: a flipped bit in
their samples cannot be found. Of rarer formats (VOC, IRCAM, AVR, MAT, PAF, PVF) a cut cannot be found either.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import Float32Array, SourceError
from brainlit.stories.readers.tables import require_file

_BLOCK_FRAMES = 1 << 18
_MIN_RATE_HZ, _MAX_RATE_HZ = 500, 768_000
_AGAIN = "It was cut off or damaged while it was copied or written: fetch or export it again."
_CONVERT = "Write it anew as WAV or FLAC (ffmpeg -i OLD NEW.wav), and listen whether it is whole."


class AudioError(SourceError):
    """A sound file that cannot be used; the message names file, cause and cure."""


@dataclass(frozen=True)
class Announced:
    """What the header of a file says, beyond what libsndfile tells.

    Parameters
    ----------
    n_frames : int or None
        Samples per channel; None where the header does not say (or libsndfile knows better).
    slack_frames : int
        So many fewer than n_frames may come out: what decoders of MP3 keep back.
    md5 : bytes or None
        MD5 of FLAC's samples, as integers of n_bits.
    is_open : bool
        The header was written before the length was known (by a pipe), so that the length of the file decides.
    length_at : pair of byte offset and bytes, or None
        Where an open length stands that libsndfile takes literally, and what should stand there.
    """

    n_frames: int | None = None
    slack_frames: int = 0
    md5: bytes | None = None
    n_bits: int = 0
    is_open: bool = False
    length_at: tuple[int, bytes] | None = None


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
            raise AudioError(f"{self.path} is damaged: its samples have another MD5 than the file says. {_AGAIN}")

    @property
    def _n_announced(self) -> int:
        n_frames = self.announced.n_frames
        n_frames = int(self._file.frames) if n_frames is None else n_frames
        return n_frames if n_frames < 2**62 else 0  # a FLAC stream of unknown length

    def _ends_early(self, n_read: int, why: str = "") -> AudioError:
        return AudioError(
            f"{self.path} is damaged or cut off: {_length(self._n_announced, self.rate_hz)} are announced, but reading"
            f" stops after {_length(n_read, self.rate_hz)}{f' ({why})' if why else ''}. {_AGAIN}"
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
        source = path if announced.length_at is None else _WithLength(path, *announced.length_at)
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
            raise AudioError(f"{path} does not begin with a frame of MPEG, and its length is not known. {_CONVERT}")
        if not _MIN_RATE_HZ <= file.samplerate <= _MAX_RATE_HZ:
            raise AudioError(f"{path} says that it has {file.samplerate} samples per second, as no sound has. {_AGAIN}")
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
        first = _id3_size(file.read(10))
        head = _read_at(file, first, 1024)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return _wav(path, file, first)
        if head[:4] == b"fLaC":
            return _flac(head)
        if head[:4] == b"OggS":
            _require_whole_ogg(path)
        elif head[:4] == b".snd" and len(head) >= 12:
            return _au(path, *struct.unpack(">II", head[4:12]))
        elif head[:7] == b"NIST_1A":
            count = re.search(rb"sample_count -i (\d+)", head)
            return Announced() if count is None else Announced(int(count[1]))
        elif first or _mpeg_frame(head) is not None:
            first += len(head) - len(head.lstrip(b"\0"))  # what pads a tag
            if _mpeg_frame(_read_at(file, first, 4)) is not None:
                return _mp3(path, first)
    return Announced()


def _au(path: Path, start: int, announced: int) -> Announced:
    there = path.stat().st_size - start
    if announced == 0xFFFF_FFFF:
        return Announced(is_open=True)
    if announced < there:
        raise AudioError(f"{path} holds {there} bytes of samples, but its header announces {announced}. {_CONVERT}")
    return Announced()


def _id3_size(head: bytes) -> int:
    """Bytes of the ID3 tag (version 2) that begins here; 0 if none does."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    footer = 10 if head[5] & 16 else 0
    return 10 + sum((byte & 127) << (7 * (3 - k)) for k, byte in enumerate(head[6:10])) + footer


def _refuse_shortened(path: Path, log: str) -> None:
    """libsndfile's own remarks about lengths, of AIFF, AU, W64, SVX and others."""
    uneven = re.search(r"'COMM' chunk \((\d+)\) not equal to frame count\D+(\d+)", log)
    if uneven is not None:
        raise AudioError(
            f"{path} is damaged: its header announces {uneven[1]} samples and has room for {uneven[2]}. {_AGAIN}"
        )
    for announced, there in re.findall(r"(\d+) \(?should be (\d+)", log):
        if int(there) < int(announced) < _PIPE_SIZES.start:
            raise _cut_off(path, int(announced), int(there))


def _cut_off(path: Path, announced: int, there: int) -> AudioError:
    found = f"its header announces {announced} bytes of sound, of which {there} are there"
    return AudioError(f"{path} is cut off: {found}. {_AGAIN}")


# --- WAV ---

_PIPE_SIZES = range(0x7FFF_0000, 0x8000_0100)
_PIPE_LONG_SIZES = (0xFFFF_FFFF, 2**63 - 1, 2**64 - 1)
"""What writes into a pipe cannot know the length: SoX and arecord announce some 2 GB, others 0 or all ones."""
_CHUNKS = {b"LIST", b"INFO", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"fact", b"PEAK", b"JUNK", b"junk", b"iXML",
           b"axml", b"PAD ", b"FLLR", b"DISP", b"_PMX", b"afsp", b"inst", b"cart"}  # fmt: skip


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    start: int
    size: int


def _wav(path: Path, file: Any, first: int) -> Announced:
    n_bytes, order = path.stat().st_size, ">" if _read_at(file, first, 4) == b"RIFX" else "<"
    long_size: tuple[int, int] | None = None  # of the samples, in RF64: its value and where it stands
    for chunk in _chunks(file, first + 12, n_bytes, order):
        if chunk.name == b"ds64" and chunk.size >= 24:
            long_size = struct.unpack("<Q", _read_at(file, chunk.start + 8, 8).ljust(8, b"\0"))[0], chunk.start + 8
        elif chunk.name == b"fmt ":
            _require_it_agrees(path, _read_at(file, chunk.start, 16), order)
        elif chunk.name == b"data":
            there = n_bytes - chunk.start
            if long_size is not None and chunk.size == 0xFFFF_FFFF:
                return _data(path, file, long_size[0], chunk.start, order, (long_size[1], struct.pack("<Q", there)))
            right = struct.pack(f"{order}I", min(there, 0xFFFF_FFFE))
            return _data(path, file, chunk.size, chunk.start, order, (chunk.start - 4, right))
    raise AudioError(f"{path} is a WAV file without samples, or with a damaged header. {_AGAIN}")


def _data(path: Path, file: Any, announced: int, start: int, order: str, length_at: tuple[int, bytes]) -> Announced:
    """The samples: as many bytes as announced, and nothing after them but other chunks."""
    n_bytes = path.stat().st_size
    there = n_bytes - start
    if announced == 0 and there and not _are_chunks(file, start, n_bytes, order):
        return Announced(is_open=True, length_at=length_at)
    if announced > there:
        is_long = len(length_at[1]) == 8
        if announced in _PIPE_LONG_SIZES if is_long else announced in _PIPE_SIZES or announced >= 0xFFFF_FF00:
            return Announced(is_open=True, length_at=length_at)
        raise _cut_off(path, announced, there)
    if not any(_are_chunks(file, start + announced + pad, n_bytes, order) for pad in (announced % 2, 0)):
        raise AudioError(
            f"{path} holds {there - announced} bytes after the {announced} bytes of samples that its header announces."
            f" The header is wrong (was the recorder stopped hard, or is the file larger than 4 GB?). {_CONVERT}"
        )
    return Announced()


def _require_it_agrees(path: Path, fmt: bytes, order: str) -> None:
    """The header says rate and sample size in two ways; a wrong one would stretch the sound, or make noise of it."""
    if len(fmt) < 16:
        return
    kind, n_channels, rate_hz, per_second, per_frame, n_bits = struct.unpack(f"{order}HHIIHH", fmt)
    is_plain = kind in (1, 3, 0xFFFE)  # integers, floats, and either with more said of the channels
    sizes = {-(-n_bits // 8), 4 if 16 < n_bits <= 24 else 0}
    if is_plain and per_second not in (0, rate_hz * per_frame):
        found = f"{rate_hz} samples per second of {per_frame} bytes are not the {per_second} bytes per second"
    elif (is_plain and per_frame not in {n_channels * size for size in sizes}) or (not is_plain and n_bits > 8):
        found = f"samples of format {kind}, {n_bits} bits and {n_channels} channels do not have the {per_frame} bytes"
    else:
        return
    raise AudioError(f"{path} contradicts itself: {found} that its header announces. {_AGAIN}")


def _chunks(file: Any, start: int, n_bytes: int, order: str) -> Iterator[_Chunk]:
    while start + 8 <= n_bytes:
        name, size = struct.unpack(f"{order}4sI", _read_at(file, start, 8))
        yield _Chunk(name, start + 8, size)
        start += 8 + size + size % 2


def _are_chunks(file: Any, start: int, n_bytes: int, order: str) -> bool:
    """Whether nothing, zeros, a tag or other chunks stand from here to the end."""
    for chunk in _chunks(file, start, n_bytes, order):
        if chunk.name[:3] in (b"TAG", b"ID3"):
            return True
        fits = chunk.start + chunk.size <= n_bytes and all(32 <= byte < 127 for byte in chunk.name)
        if not fits and chunk.name not in _CHUNKS:
            return _is_silent(file, chunk.start - 8)
    return True


def _is_silent(file: Any, start: int) -> bool:
    file.seek(start)
    return not any(any(block) for block in iter(lambda: file.read(1 << 16), b""))


def _read_at(file: Any, start: int, n_bytes: int) -> bytes:
    file.seek(start)
    return bytes(file.read(n_bytes))


class _WithLength(io.FileIO):
    """A file with other bytes at one place: a WAV whose header says the length that it has."""

    def __init__(self, path: Path, at: int, said: bytes) -> None:
        super().__init__(path, "rb")
        self._at, self._said = at, said

    def readinto(self, buffer: Any) -> int:
        """Read, and put the bytes where they belong."""
        first = self.tell()
        n_read = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        for k, byte in enumerate(self._said, self._at - first):
            if 0 <= k < n_read:
                view[k] = byte
        return n_read


# --- FLAC ---


def _flac(head: bytes) -> Announced:
    """Number of samples and MD5 from STREAMINFO, the first block (https://www.rfc-editor.org/rfc/rfc9639#section-8.2)."""
    if len(head) < 42 or head[4] & 127 != 0:
        return Announced()
    packed, md5 = int.from_bytes(head[18:26], "big"), head[26:42]
    n_bits = (packed >> 36 & 31) + 1
    n_frames = packed & (2**36 - 1)
    return Announced(n_frames, md5=md5 if any(md5) and n_bits in (16, 24) else None, n_bits=n_bits)


def _as_stored(block: npt.NDArray[Any], n_bits: int) -> bytes:
    """Integers of n_bits, little-endian, whose MD5 FLAC keeps; libsndfile puts them into the upper bits."""
    size = n_bits // 8
    if sys.byteorder == "big":
        block = block.byteswap()
    return np.ascontiguousarray(block).view(np.uint8).reshape(-1, block.itemsize)[:, block.itemsize - size :].tobytes()


# --- Ogg ---

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_crc(page: bytes) -> int:
    """CRC-32 of an Ogg page whose own field is 0: zlib's polynomial, but from the other end and without complements."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _require_whole_ogg(path: Path) -> None:
    """All pages: their CRCs, their numbers, and the mark of the last (https://www.rfc-editor.org/rfc/rfc3533#section-6)."""
    raw, at, expected, streams, is_last = path.read_bytes(), 0, 0, set(), False
    while at < len(raw):
        page = _ogg_page(raw, at)
        if page is None:
            reason = "cut off" if raw[at : at + 4] == b"OggS"[: len(raw) - at] else "damaged"
            raise AudioError(
                f"{path} is {reason} at byte {at} of {len(raw)}, where no whole page of Ogg stands. {_AGAIN}"
            )
        flags, (stream, number, crc) = page[5], struct.unpack("<III", page[14:26])
        if ogg_crc(page[:22] + bytes(4) + page[26:]) != crc:
            raise AudioError(f"{path} is damaged: the page at byte {at} of {len(raw)} has another checksum. {_AGAIN}")
        streams.add(stream)
        if len(streams) > 1:
            raise AudioError(f"{path} holds several streams, of which only one would be read. {_CONVERT}")
        if number != expected:
            raise AudioError(f"{path} lacks pages: number {expected} should stand at byte {at}, not {number}. {_AGAIN}")
        at, expected, is_last = at + len(page), expected + 1, bool(flags & 4)
    if not is_last:
        raise AudioError(f"{path} is cut off: its last page (number {expected - 1}) is not marked as the end. {_AGAIN}")


def _ogg_page(raw: bytes, at: int) -> bytes | None:
    head = raw[at : at + 27]
    if len(head) < 27 or head[:5] != b"OggS\0":
        return None
    sizes = raw[at + 27 : at + 27 + head[26]]
    end = at + 27 + head[26] + sum(sizes)
    return raw[at:end] if len(sizes) == head[26] and end <= len(raw) else None


# --- MP3 ---

_KBPS = {  # by (is MPEG 1, layer), for the indices 1 to 14
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES_HZ = (44_100, 48_000, 32_000)


@dataclass(frozen=True)
class _MpegFrame:
    """Bytes, samples per channel, and what all frames of a stream share."""

    n_bytes: int
    n_samples: int
    kind: tuple[int, int, int]


def _mpeg_frame(head: bytes) -> _MpegFrame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    is_mpeg1 = version == 3
    rate_hz = _MPEG_RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    n_samples = 384 if layer == 1 else 1152 if layer == 2 or is_mpeg1 else 576
    bits_per_s = 1000 * _KBPS[is_mpeg1, layer][bitrate - 1]
    unit = 4 if layer == 1 else 1  # layer I counts in slots of four bytes
    n_bytes = (n_samples * bits_per_s // (8 * rate_hz * unit) + padding) * unit
    return _MpegFrame(n_bytes, n_samples, (version, layer, rate))


def _mp3(path: Path, at: int) -> Announced:
    """All frames, counted; with a Xing or Info header the number that it announces."""
    raw = path.read_bytes()
    first = _mpeg_frame(raw[at : at + 4])
    assert first is not None
    announced, n_unused = _xing(raw[at : at + first.n_bytes])
    n_frames = 0
    while at < len(raw) and any(raw[at : at + 4]):
        frame = _mpeg_frame(raw[at : at + 4])
        if frame is None or frame.kind != first.kind:
            n_tag = _tag_size(raw, at)
            if not n_tag:
                break
            at += n_tag
            continue
        if at + frame.n_bytes > len(raw):
            count = "" if announced is None else f" Of {announced} frames that it announces {n_frames - 1} are there."
            raise AudioError(f"{path} is cut off: its last frame, at byte {at}, is not whole.{count} {_AGAIN}")
        at, n_frames = at + frame.n_bytes, n_frames + 1
    if any(raw[at:]):
        raise AudioError(f"{path} is damaged at byte {at} of {len(raw)}, where no frame of MPEG stands. {_AGAIN}")
    if announced is None:
        return Announced(n_frames * first.n_samples, slack_frames=3 * first.n_samples)
    if abs(n_frames - 1 - announced) > 1:
        raise AudioError(
            f"{path} announces {announced} frames of MPEG, but holds {n_frames - 1}: it is cut off, or several files"
            f" were put into one. {_AGAIN}"
        )
    return Announced(announced * first.n_samples - n_unused, slack_frames=first.n_samples)


def _tag_size(raw: bytes, at: int) -> int:
    """Bytes of the tag (ID3, APE, Lyrics3) that begins here; 0 if none does."""
    head = raw[at : at + 32]
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX") and len(head) == 32:
        return int.from_bytes(head[12:16], "little") + 32
    if head.startswith(b"LYRICSBEGIN"):
        return len(raw) - at
    return _id3_size(head)


def _xing(frame: bytes) -> tuple[int | None, int]:
    """Number of frames that the first one announces, if it is such a header; and samples that the encoder added.

    It does not count itself. http://gabriel.mp3-tech.org/mp3infotag.html has the places of LAME's numbers.
    """
    at = next((at for at in (13, 21, 36) if frame[at : at + 4] in (b"Xing", b"Info")), None)
    if at is None:
        is_vbri = frame[36:40] == b"VBRI" and len(frame) >= 54
        return (int.from_bytes(frame[50:54], "big") if is_vbri else None), 0
    if len(frame) < at + 12 or not frame[at + 7] & 1:
        return None, 0
    encoder, added = frame[at + 120 : at + 124], int.from_bytes(frame[at + 141 : at + 144], "big")
    n_unused = (added >> 12) + (added & 4095) if encoder in (b"LAME", b"Lavf", b"Lavc") else 0
    return int.from_bytes(frame[at + 8 : at + 12], "big"), n_unused
