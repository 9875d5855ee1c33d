"""FLAC, Ogg and MP3: every page and frame is looked at before (or, of FLAC, while) the sound is decoded."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlit.stories.readers.announced import AGAIN, CONVERT, Announced, AudioError, id3_size, read_at

# --- FLAC ---


_RATES_HZ = (None, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
"""By the code that a frame has of its rate; 0 is that of the file, and higher codes are of rarer rates."""


def announced_by_flac(path: Path, file: Any, first: int) -> Announced:
    """Number of samples and MD5 from STREAMINFO, the first block (RFC 9639, section 8.2).

    Raises
    ------
    AudioError
        If the first frame has another rate than the file.
    """
    head = read_at(file, first, 42)
    if len(head) < 42 or head[4] & 127 != 0:
        return Announced()
    packed, md5 = int.from_bytes(head[18:26], "big"), head[26:42]
    n_bits, rate_hz = (packed >> 36 & 31) + 1, packed >> 44
    said = _rate_of_first_frame(file, first + 4)
    if said is not None and said != rate_hz:
        raise AudioError(f"{path} contradicts itself: {rate_hz} Hz in its header are {said} Hz in its frames. {AGAIN}")
    n_frames = packed & (2**36 - 1)
    return Announced(n_frames, md5=md5 if any(md5) and n_bits in (16, 24) else None, n_bits=n_bits)


def _rate_of_first_frame(file: Any, at: int) -> int | None:
    """From its header, after the blocks of metadata (RFC 9639, section 9.1); None where it has none of its own."""
    is_last = False
    while not is_last:
        block = read_at(file, at, 4)
        if len(block) < 4:
            return None
        is_last, at = bool(block[0] & 128), at + 4 + int.from_bytes(block[1:], "big")
    frame = read_at(file, at, 3)
    code = frame[2] & 15 if len(frame) == 3 and frame[0] == 0xFF and frame[1] & 0xFC == 0xF8 else 0
    return _RATES_HZ[code] if code < len(_RATES_HZ) else None


# --- Ogg ---

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_crc(page: bytes) -> int:
    """CRC-32 of an Ogg page whose own field is 0: zlib's polynomial, but from the other end and without complements."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def require_whole_ogg(path: Path) -> None:
    """All pages: their CRCs, their numbers, and the mark of the last (https://www.rfc-editor.org/rfc/rfc3533#section-6)."""
    raw, at, expected, streams, is_last = path.read_bytes(), 0, 0, set(), False
    while at < len(raw):
        page = _ogg_page(raw, at)
        if page is None:
            reason = "cut off" if raw[at : at + 4] == b"OggS"[: len(raw) - at] else "damaged"
            raise AudioError(
                f"{path} is {reason} at byte {at} of {len(raw)}, where no whole page of Ogg stands. {AGAIN}"
            )
        flags, (stream, number, crc) = page[5], struct.unpack("<III", page[14:26])
        if ogg_crc(page[:22] + bytes(4) + page[26:]) != crc:
            raise AudioError(f"{path} is damaged: the page at byte {at} of {len(raw)} has another checksum. {AGAIN}")
        streams.add(stream)
        if len(streams) > 1:
            raise AudioError(f"{path} holds several streams, of which only one would be read. {CONVERT}")
        if number != expected:
            raise AudioError(f"{path} lacks pages: number {expected} should stand at byte {at}, not {number}. {AGAIN}")
        at, expected, is_last = at + len(page), expected + 1, bool(flags & 4)
    if not is_last:
        raise AudioError(f"{path} is cut off: its last page (number {expected - 1}) is not marked as the end. {AGAIN}")


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
class MpegFrame:
    """Bytes, samples per channel, and what all frames of a stream share."""

    n_bytes: int
    n_samples: int
    kind: tuple[int, int, int]


def mpeg_frame(head: bytes) -> MpegFrame | None:
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
    return MpegFrame(n_bytes, n_samples, (version, layer, rate))


def begins_as_mp3(file: Any, at: int) -> bool:
    """Whether a frame of MPEG stands here and another behind it, unless the file ends before."""
    first = mpeg_frame(read_at(file, at, 4))
    if first is None:
        return False
    behind = read_at(file, at + first.n_bytes, 4)
    second = mpeg_frame(behind)
    return len(behind) < 4 or (second is not None and second.kind == first.kind)


def announced_by_mp3(path: Path, at: int) -> Announced:
    """All frames, counted; with a Xing or Info header the number that it announces."""
    raw = path.read_bytes()
    first = mpeg_frame(raw[at : at + 4])
    assert first is not None
    announced, n_unused = _xing(raw[at : at + first.n_bytes])
    n_frames = 0
    while at < len(raw) and any(raw[at : at + 4]):
        frame = mpeg_frame(raw[at : at + 4])
        if frame is None or frame.kind != first.kind:
            n_tag = _tag_size(raw, at)
            if not n_tag:
                break
            at += n_tag
            continue
        if at + frame.n_bytes > len(raw):
            count = "" if announced is None else f" Of {announced} frames that it announces {n_frames - 1} are there."
            raise AudioError(f"{path} is cut off: its last frame, at byte {at}, is not whole.{count} {AGAIN}")
        at, n_frames = at + frame.n_bytes, n_frames + 1
    if any(raw[at:]):
        raise AudioError(f"{path} is damaged at byte {at} of {len(raw)}, where no frame of MPEG stands. {AGAIN}")
    if announced is None:
        return Announced(n_frames * first.n_samples, slack_frames=3 * first.n_samples)
    if abs(n_frames - 1 - announced) > 1:
        raise AudioError(
            f"{path} announces {announced} frames of MPEG, but holds {n_frames - 1}: it is cut off, or several files"
            f" were put into one. {AGAIN}"
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
    return id3_size(head)


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
