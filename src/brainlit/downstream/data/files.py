"""What the loaders share: files that are there or named, tables and lines, sound that can be read, comparable text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from brainlit.hints import did_you_mean
from brainlit.stories import SourceError
from brainlit.stories.readers.tables import read_cells, read_lines
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


def need_files(folder: Path, pattern: str, what: str, where: str) -> list[Path]:
    """The files of a folder that fit the pattern, in order, at least one; errors as in `need_file`."""
    found = sorted(need_folder(folder, what, where).glob(pattern))
    if not found:
        raise FileNotFoundError(f"{folder} holds no {pattern}: {what}; get it from {where}.")
    return found


def numbered_lines(path: Path, what: str, where: str) -> Iterator[tuple[int, str]]:
    """Lines of a text file that are not blank, without the spaces around them, and their numbers from 1."""
    for number, line in enumerate(read_lines(need_file(path, what, where), SourceError), start=1):
        if line.strip():
            yield number, line.strip()


def table_rows(path: Path, columns: Sequence[str], what: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of these columns, and the line, of each row of a comma-separated table with a header.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SourceError
        If a column is missing, or the table is damaged.
    """
    (_, header), *rows = read_cells(need_file(path, what, where), ",", SourceError) or [(1, [])]
    for column in columns:
        if column not in header:
            raise SourceError(
                f"{path}, line 1: there is no column {column!r}. {did_you_mean(column, filter(None, header))}"
            )
    places = [header.index(column) for column in columns]
    return ((line, [row[place] for place in places]) for line, row in rows)


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
