"""The files that a store was made from: remembered by size, time and SHA-256, so that a changed one is noticed.

A store opens again without reading its sources: where size and time of modification are as remembered, the content is
taken to be. Sources that were deleted after the store was made are not missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from brainlit.store.atomic import sha256_of


@dataclass(frozen=True)
class SourceFile:
    """One file that went into a store.

    Parameters
    ----------
    file : str
        Its name, with as many of its folders as tell it from the other sources of the same part.
    n_bytes, mtime_ns : int
    sha256 : str
    """

    file: str
    n_bytes: int
    mtime_ns: int
    sha256: str


def remember(files: Sequence[Path]) -> list[SourceFile]:
    """Read and hash each file.

    Raises
    ------
    FileNotFoundError
        If one is not there.
    """
    return [
        SourceFile(label, stat.st_size, stat.st_mtime_ns, _sha256(path, stat.st_size, stat.st_mtime_ns))
        for label, path in zip(labels_of(files), files, strict=True)
        for stat in [path.stat()]
    ]


def labels_of(files: Sequence[Path]) -> list[str]:
    """The name of each file, with as many of its folders as all names need to differ.

    Labels stay the same when the whole data set moves to another folder.

    >>> labels_of([Path("/data/a/x.wav"), Path("/data/b/x.wav"), Path("y.txt")])
    ['a/x.wav', 'b/x.wav', 'y.txt']
    """
    parts = [path.absolute().parts for path in dict.fromkeys(files)]
    depths = [1] * len(parts)
    while True:
        labels = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        doubled = [labels.count(label) > 1 for label in labels]
        if not any(doubled):
            return labels
        depths = [depth + again for depth, again in zip(depths, doubled, strict=True)]


def changed(files: Sequence[Path], remembered: Sequence[SourceFile]) -> tuple[str, str | None, str] | None:
    """The first file that is not as it was: its label, remembered and present SHA-256; None if there is none.

    A file that is no longer there counts as unchanged, one whose size and time agree is not read, one that was not
    there when the store was made has no remembered SHA-256.
    """
    known = {source.file: source for source in remembered}
    for label, path in zip(labels_of(files), files, strict=True):
        if not path.is_file() or (label in known and is_as_remembered(path, known[label])):
            continue
        before, now = known[label].sha256 if label in known else None, sha256_of(path)
        if before != now:
            return label, before, now
    return None


def touched(files: Sequence[Path], remembered: Sequence[SourceFile]) -> bool:
    """Whether size or time of a file that is there differ from what is remembered."""
    known = {source.file: source for source in remembered}
    labelled = zip(labels_of(files), files, strict=True)
    return any(path.is_file() and not is_as_remembered(path, known[label]) for label, path in labelled)


def is_as_remembered(path: Path, source: SourceFile) -> bool:
    """Whether size and time of modification agree."""
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns) == (source.n_bytes, source.mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, n_bytes: int, mtime_ns: int) -> str:
    """Hash of a file that many parts share (word vectors), read once per process while size and time stay."""
    return sha256_of(path)
