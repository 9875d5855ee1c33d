"""What the loaders share: files that are there or named, sound that can be read, text that can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from brainlit.hints import did_you_mean
from brainlit.stories import SourceError
from brainlit.tuning.objectives.ctc import plain

_SPHERE_HEADER_BYTES = 1024
_SHORTEN = b"embedded-shorten"
_LFS = b"version https://git-lfs"
_NOT_SPOKEN = re.compile(r"[^\w' ]+|_")


def need_file(path: Path, what: str, where: str) -> Path:
    """The path, if there is a file.

    Parameters
    ----------
    what, where : str
        What the file is, and where it is published.

    Raises
    ------
    FileNotFoundError
        One sentence with the path, what it is and where to get it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {what}; get it from {where}, or check the folder.")
    return path


def need_folder(path: Path, what: str, where: str) -> Path:
    """The path, if there is a folder; the counterpart of `need_file`."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: {what}; get it from {where}, or check the folder.")
    return path


def need_sound(path: Path, what: str, where: str) -> Path:
    """The path, if there is a file of sound that libsndfile can read; only the header is looked at.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SourceError
        If it is a pointer that git-lfs left in its place, or a NIST SPHERE file compressed by shorten.
    """
    with need_file(path, what, where).open("rb") as file:
        header = file.read(_SPHERE_HEADER_BYTES)
    if header.startswith(_LFS):
        raise SourceError(f"{path} is a pointer of git-lfs, not sound: run 'git lfs pull' where it was cloned.")
    if _SHORTEN in header:
        raise SourceError(
            f"{path} is a SPHERE file compressed by shorten, which libsndfile cannot read: convert the sounds with"
            " 'sph2pipe -f wav IN OUT' and keep their names."
        )
    return path


def inside(folder: Path, marker: str, *names: str) -> Path:
    """The folder itself, or the one of these below it, that holds `marker`; the folder if none does.

    Archives unpack into a folder of their own, and users name that one or the one above.
    """
    places = (folder, *(folder / name for name in names))
    return next((place for place in places if any_case(place, marker).exists()), folder)


def any_case(folder: Path, name: str) -> Path:
    """The entry of a folder with this name in upper, lower or mixed case; the name as it is if there is none.

    CD-ROMs were copied in either case, and both are found in laboratories.
    """
    if not folder.is_dir() or (folder / name).exists():
        return folder / name
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()), folder / name)


def plain_text(text: str) -> str:
    """Words in lower case with their apostrophes; what is written but not said is dropped.

    >>> plain_text("She'd said: don't -- a well-known 'fact'.")
    "she'd said don't a well known fact"
    """
    words = _NOT_SPOKEN.sub(" ", plain(text)).split()
    return " ".join(word for word in (word.strip("'") for word in words) if word)


def require_option(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value of an option that is not among the known ones.

    Raises
    ------
    ValueError
        With the nearest known value.
    """
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{name} is {value!r}. {did_you_mean(str(value), known)}")


def heard_before(texts: Mapping[str, Sequence[str]]) -> str:
    """How many clips of each later part say words that a clip of "train" says too: what a transcript can answer.

    >>> heard_before({"train": ["A", "B"], "choose": ["B"], "test": ["A", "C"]})
    'choose: 1 of 1, test: 1 of 2'
    """
    known = set(texts["train"])
    counts = {part: sum(text in known for text in said) for part, said in texts.items() if part != "train"}
    return ", ".join(f"{part}: {count} of {len(texts[part])}" for part, count in counts.items())


# --- phones
# The 61 symbols of TIMIT's phonetic transcription and the 39 classes into which they are folded.


_FOLDED = {
    **{"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "ux": "uw", "zh": "sh"},
    **{"el": "l", "em": "m", "en": "n", "nx": "n", "eng": "ng"},
    **dict.fromkeys(("bcl", "dcl", "gcl", "pcl", "tcl", "kcl", "epi", "pau", "h#"), "sil"),
}
_AS_THEY_ARE = """
    aa ae ah aw ay b ch d dh dx eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z
"""
DROPPED = "q"
"""The glottal stop, which is no phoneme of English: left out, as Lee & Hon do."""

CLASS_OF: dict[str, str | None] = {**{name: name for name in _AS_THEY_ARE.split()}, **_FOLDED, DROPPED: None}
"""Class of each of the 61 symbols, None for the glottal stop.

Lee & Hon (1989), Speaker-independent phone recognition using hidden Markov models, IEEE Transactions on Acoustics,
Speech and Signal Processing 37, 1641-1648: 61 symbols are folded into 48 for training and these into 39 for scoring.
Both steps at once here; closures, pauses and the silence around an utterance become one class, "sil".
"""

CLASSES = tuple(sorted({name for name in CLASS_OF.values() if name is not None}))
"""The 39 classes in alphabetical order."""
