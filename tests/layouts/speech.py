"""Short sounds for the layouts of speech data sets: no two are alike, and each is the same every time."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import soundfile

N_SAMPLES = 320
RATE_HZ = 16_000


def samples(name: str) -> np.ndarray:
    """Noise that only this name has, int16, shape (N_SAMPLES,)."""
    return np.random.default_rng(crc32(name.encode())).integers(-9000, 9000, N_SAMPLES).astype(np.int16)


def write_speech(path: Path) -> None:
    """The noise of the file's name and folder as WAV or FLAC, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples(f"{path.parent.name}/{path.name}"), RATE_HZ, subtype="PCM_16")


def write_lines(path: Path, lines: list[str]) -> None:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
