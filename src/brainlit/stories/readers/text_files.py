"""Files as users hand them over: there or not, in one of the usual encodings, with any line ends."""

from __future__ import annotations

import csv
from pathlib import Path

from brainlit.stories.base import SourceError

_BYTE_ORDER_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def require_file(path: Path, cure: str = "Check the path in the manifest, and its root.") -> None:
    """Refuse a path that is no file that can be reached.

    Raises
    ------
    FileNotFoundError
        With the path and the cure.
    """
    try:
        there = path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        there = False
    if not there:
        raise FileNotFoundError(f"{path} does not exist. {cure}")


def read_lines(path: Path, error: type[SourceError], cure: str = "Save it as UTF-8 text.") -> list[str]:
    """Lines of a text file in UTF-8, or in UTF-16 with its byte order mark; any line ends, none of them kept.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SourceError
        Of the given class, if it cannot be read or decoded.
    """
    require_file(path)
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}.") from problem
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not {encoding.upper()} at byte {problem.start}. {cure}") from problem
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_cells(path: Path, separator: str, error: type[SourceError]) -> list[tuple[int, list[str]]]:
    """Rows of a table with their line numbers, blank lines left out; cells may stand in double quotes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SourceError
        Of the given class, if it cannot be decoded, a quotation mark is not closed, or a row has another number of
        cells than the first.
    """
    reader = csv.reader(read_lines(path, error), delimiter=separator, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 0
    try:
        for row in reader:
            if reader.line_num > line + 1:
                raise error(f"{path}, line {line + 1}: a cell goes on in the next line. Is a quotation mark missing?")
            line = reader.line_num
            if any(cell.strip() for cell in row):
                rows.append((line, [cell.strip() for cell in row]))
    except csv.Error as problem:
        raise error(f"{path}, line {line + 1}: {problem}. Is a quotation mark missing?") from problem
    for line, row in rows:
        if len(row) != len(rows[0][1]):
            raise error(f"{path}, line {line}: {len(row)} columns, but {len(rows[0][1])} in the lines before.")
    return rows
