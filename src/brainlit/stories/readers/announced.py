"""What a sound file says of itself, and the words in which one is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlit.stories.base import SourceError

AGAIN = "It was cut off or damaged while it was copied or written: fetch or export it again."
CONVERT = "Write it anew as WAV or FLAC (ffmpeg -i OLD NEW.wav), and listen whether it is whole."


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


def cut_off(path: Path, announced: int, there: int) -> AudioError:
    found = f"its header announces {announced} bytes of sound, of which {there} are there"
    return AudioError(f"{path} is cut off: {found}. {AGAIN}")


def id3_size(head: bytes) -> int:
    """Bytes of the ID3 tag (version 2) that begins here; 0 if none does."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    footer = 10 if head[5] & 16 else 0
    return 10 + sum((byte & 127) << (7 * (3 - k)) for k, byte in enumerate(head[6:10])) + footer


def read_at(file: Any, start: int, n_bytes: int) -> bytes:
    file.seek(start)
    return bytes(file.read(n_bytes))
