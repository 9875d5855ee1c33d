"""A stretch of speech, from a file or from memory; and the same sound in two places of a task."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from brainlit.files import sha256_of
from brainlit.stories import Intervals
from brainlit.stories.readers.audio import read_audio
from brainlit.timebase import SAMPLE_RATE_HZ

Int16Array = npt.NDArray[np.int16]

_MANY_FILES = 1000
"""From so many on, comparing them shows its progress."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of speech.

    Parameters
    ----------
    name : str
        Unique in its task.
    source : Path or int16 array of shape (n_samples,)
        A sound file of any rate and any number of channels, or mono samples at 16 kHz.
    start_s, stop_s : float or None
        The part of the source that is heard; None: from its beginning, to its end.
    speaker : str
        Who speaks; empty where nobody knows.
    text : str
        What is said, for controls that read instead of listening; empty where nobody knows.
    """

    name: str
    source: Path | Int16Array
    start_s: float | None = None
    stop_s: float | None = None
    speaker: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        start_s, stop_s = self.start_s or 0.0, self.stop_s
        if start_s < 0 or (stop_s is not None and stop_s <= start_s):
            raise ValueError(
                f"clip {self.name!r} is from {start_s} to {stop_s} s; it must begin at 0 or later and end after that."
            )
        if isinstance(self.source, np.ndarray) and (self.source.dtype != np.int16 or self.source.ndim != 1):
            raise ValueError(
                f"clip {self.name!r} holds {self.source.dtype} samples of shape {self.source.shape}; need int16 of"
                " shape (n_samples,), mono at 16 kHz."
            )

    def sound(self) -> Int16Array:
        """The samples, int16 mono at 16 kHz, shape (n_samples,).

        Raises
        ------
        FileNotFoundError, AudioError
            If the file is missing or no sound.
        ValueError
            If the clip begins after the end of its source.
        """
        whole = self.source if isinstance(self.source, np.ndarray) else _whole_file(self.source)
        start = round((self.start_s or 0.0) * SAMPLE_RATE_HZ)
        stop = len(whole) if self.stop_s is None else round(self.stop_s * SAMPLE_RATE_HZ)
        if start >= len(whole):
            raise ValueError(
                f"clip {self.name!r} begins at {self.start_s} s, but its source ends at"
                f" {len(whole) / SAMPLE_RATE_HZ:.3f} s. Check the times of its word or phone table."
            )
        return whole[start:stop]


@lru_cache(maxsize=4)
def _whole_file(path: Path) -> Int16Array:
    """A file's samples, kept for the next clips of the same file."""
    samples = read_audio(path)
    samples.setflags(write=False)
    return samples


def cut_clips(
    name: str, source: Path | Int16Array, intervals: Intervals, speaker: str = "", edge_s: float = 0.0
) -> list[Clip]:
    """The words (or phones) of one long sound as clips of their own: the sound is cut, not its features.

    A state of a transformer knows the words around it, so that slices of states would answer for the neighbours too
    (Choi et al. 2024, arXiv 2406.08619).

    Parameters
    ----------
    name : str
        Of the sound; clip k is called name/k.
    intervals : Intervals
        Their labels become the clips' texts.
    edge_s : float
        Sound kept on either side of each.
    """
    return [
        Clip(f"{name}/{k}", source, max(start_s - edge_s, 0.0), end_s + edge_s, speaker, label)
        for k, (label, start_s, end_s) in enumerate(
            zip(intervals.labels, intervals.start_s.tolist(), intervals.end_s.tolist(), strict=True)
        )
    ]


# --- The same sound in two places ---


def later_copies(groups: Mapping[str, Sequence[Clip]]) -> dict[str, list[Clip]]:
    """Clips of each group whose very sound is in a later group too.

    Files are compared byte by byte (by SHA-256), and read only where a file of another group has the same size; their
    clips are the same where their times are. Samples in memory are compared as they are heard.

    Parameters
    ----------
    groups : mapping of name to clips
        In order: what is in the last one is never a copy.
    """
    digests = _digests(groups)
    heard_later: set[str] = set()
    copies: dict[str, list[Clip]] = {}
    for name in reversed(list(groups)):
        keys = [_key(clip, digests) for clip in groups[name]]
        copies[name] = [clip for clip, key in zip(groups[name], keys, strict=True) if key in heard_later]
        heard_later |= {key for key in keys if key}
    return copies


def _digests(groups: Mapping[str, Sequence[Clip]]) -> dict[Path, str]:
    """SHA-256 of each file that could be the copy of one in another group."""
    files = [{clip.source for clip in clips if isinstance(clip.source, Path)} for clips in groups.values()]
    size_of = {path: path.stat().st_size for path in set[Path]().union(*files)}
    n_groups = Counter(size for paths in files for size in {size_of[path] for path in paths})
    suspects = [path for path, size in size_of.items() if n_groups[size] > 1]
    few = len(suspects) < _MANY_FILES
    return {path: sha256_of(path) for path in tqdm(suspects, "comparing files", leave=False, disable=few)}


def _key(clip: Clip, digests: Mapping[Path, str]) -> str:
    """What is the same for two clips if and only if their sound is; empty where it can have no copy."""
    if not isinstance(clip.source, Path):
        return hashlib.sha256(clip.sound().tobytes()).hexdigest()
    digest = digests.get(clip.source, "")
    return f"{digest} {clip.start_s or 0.0} {clip.stop_s}" if digest else ""
