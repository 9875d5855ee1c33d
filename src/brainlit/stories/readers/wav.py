"""WAV files: as many samples as the header announces, and a header that agrees with itself.

libsndfile reads what is there of a file that was cut off, no more than is announced of one whose header is wrong, and
nothing of one whose header was written by a pipe and says 0.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlit.stories.readers.announced import AGAIN, CONVERT, Announced, AudioError, cut_off, read_at

PIPE_SIZES = range(0x7FFF_0000, 0x8000_0100)
_PIPE_LONG_SIZES = (0xFFFF_FFFF, 2**63 - 1, 2**64 - 1)
"""What writes into a pipe cannot know the length: SoX and arecord announce some 2 GB, others 0 or all ones."""
_CHUNKS = {b"LIST", b"INFO", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"fact", b"PEAK", b"JUNK", b"junk", b"iXML",
           b"axml", b"PAD ", b"FLLR", b"DISP", b"_PMX", b"afsp", b"inst", b"cart"}  # fmt: skip


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    start: int
    size: int


def announced_by_wav(path: Path, file: Any, first: int) -> Announced:
    """What a RIFF, RIFX, RF64 or BW64 that begins at byte `first` announces, after comparing it with what is there.

    Raises
    ------
    AudioError
        If it is cut off, longer than announced, without samples, or contradicts itself.
    """
    n_bytes, order = path.stat().st_size, ">" if read_at(file, first, 4) == b"RIFX" else "<"
    long_size: tuple[int, int] | None = None  # of the samples, in RF64: its value and where it stands
    for chunk in _chunks(file, first + 12, n_bytes, order):
        if chunk.name == b"ds64" and chunk.size >= 24:
            long_size = struct.unpack("<Q", read_at(file, chunk.start + 8, 8).ljust(8, b"\0"))[0], chunk.start + 8
        elif chunk.name == b"fmt ":
            _require_it_agrees(path, read_at(file, chunk.start, 16), order)
        elif chunk.name == b"data":
            there = n_bytes - chunk.start
            if long_size is not None and chunk.size == 0xFFFF_FFFF:
                return _data(path, file, long_size[0], chunk.start, order, (long_size[1], struct.pack("<Q", there)))
            right = struct.pack(f"{order}I", min(there, 0xFFFF_FFFE))
            return _data(path, file, chunk.size, chunk.start, order, (chunk.start - 4, right))
    raise AudioError(f"{path} is a WAV file without samples, or with a damaged header. {AGAIN}")


def _data(path: Path, file: Any, announced: int, start: int, order: str, length_at: tuple[int, bytes]) -> Announced:
    """The samples: as many bytes as announced, and nothing after them but other chunks."""
    n_bytes = path.stat().st_size
    there = n_bytes - start
    if announced == 0 and there and not _are_chunks(file, start, n_bytes, order):
        return Announced(is_open=True, length_at=length_at)
    if announced > there:
        is_long = len(length_at[1]) == 8
        if announced in _PIPE_LONG_SIZES if is_long else announced in PIPE_SIZES or announced >= 0xFFFF_FF00:
            return Announced(is_open=True, length_at=length_at)
        raise cut_off(path, announced, there)
    if not any(_are_chunks(file, start + announced + pad, n_bytes, order) for pad in (announced % 2, 0)):
        raise AudioError(
            f"{path} holds {there - announced} bytes after the {announced} bytes of samples that its header announces."
            f" The header is wrong (was the recorder stopped hard, or is the file larger than 4 GB?). {CONVERT}"
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
    raise AudioError(f"{path} contradicts itself: {found} that its header announces. {AGAIN}")


def _chunks(file: Any, start: int, n_bytes: int, order: str) -> Iterator[_Chunk]:
    while start + 8 <= n_bytes:
        name, size = struct.unpack(f"{order}4sI", read_at(file, start, 8))
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


class WithLength(io.FileIO):
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
