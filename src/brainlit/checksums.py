"""JSON and tables that say what they should be: a checksum inside each file that brainlit writes, compared on reading.

It covers the values, not the bytes: what an editor or git does to blanks and line ends is no damage. It tells damage,
not intent: whoever changes a file can change its checksum too, or take it away; a file without one is read as it is.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

KEY = "brainlit_checksum"
"""Last key of a JSON object."""
COLUMN = "checksum:"
"""Beginning of the name of a table's last column, which is empty; the digits follow."""


class ChecksumError(ValueError):
    """What is there is not what was written."""

    def __init__(self, how: str) -> None:
        super().__init__(
            f"it was damaged or changed after brainlit wrote it: its content is not what its checksum says ({how})"
        )


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with the checksum of them as last key."""
    rest = {name: value for name, value in content.items() if name != KEY}
    plain = json.loads(json.dumps(rest))  # keys become text, tuples lists, as in the file
    return {**rest, KEY: checksum_of(plain)}


def without_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """The values alone, after comparing.

    Raises
    ------
    ChecksumError
        If they are others than were written.
    """
    if KEY not in content:
        _refuse_key_like_ours(content)
        return content
    rest = {name: value for name, value in content.items() if name != KEY}
    if content[KEY] != checksum_of(rest):
        raise ChecksumError(f"take the key {KEY} out of it if it was changed on purpose")
    return rest


def _refuse_key_like_ours(content: dict[str, Any]) -> None:
    """A checksum whose own name is damaged is one, too."""
    name = next(reversed(content), "")
    if len(name) == len(KEY) and _is_like(name, KEY):
        raise ChecksumError(f"{name!r} should be {KEY}")


def _is_like(name: str, ours: str) -> bool:
    """Whether a name begins with ours, but for a third of damaged characters."""
    return len(name) >= len(ours) and 3 * sum(a != b for a, b in zip(name, ours, strict=False)) <= len(ours)


def checksum_of(content: Mapping[str, Any]) -> str:
    """Of values as they are read from JSON, without a checksum among them."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def table_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV under these columns and an empty last one, which is named by the checksum of the rest.

    A row that lacks a column leaves it empty, as None does.

    Raises
    ------
    ValueError
        If a row has a column that is none of these.
    """
    body = io.StringIO(newline="")
    writer = csv.DictWriter(body, fieldnames=[*columns, COLUMN], restval="")
    writer.writerows(rows)
    cells = list(csv.reader(io.StringIO(body.getvalue(), newline="")))
    head = io.StringIO(newline="")
    csv.writer(head).writerow([*columns, COLUMN + _of_cells([list(columns), *(row[:-1] for row in cells)])])
    return head.getvalue() + body.getvalue()


def table_rows(text: str) -> list[dict[str, str]]:
    """Rows of a table as `table_text` writes it, or of one without a checksum.

    Raises
    ------
    ChecksumError
        If the cells are others than were written, a row has more or fewer than there are columns, or there is nothing
        but a header that does not end in a checksum: it was cut off.
    """
    if "\0" in text:
        raise ChecksumError("it holds zero bytes")
    lines = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    if not lines:
        return []
    columns, *rows = lines
    uneven = next((k for k, row in enumerate(rows, 2) if len(row) != len(columns)), None)
    if uneven is not None:
        raise ChecksumError(f"row {uneven} has {len(rows[uneven - 2])} cells for {len(columns)} columns")
    named = columns[-1] if columns else ""
    if _is_like(named, COLUMN):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
        if named != COLUMN + _of_cells([columns, *rows]):
            raise ChecksumError("take out its last column if it was changed on purpose")
    elif not rows:
        raise ChecksumError("it ends within its first line")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _of_cells(rows: list[list[str]]) -> str:
    return f"{zlib.crc32(json.dumps(rows).encode('ascii')):08x}"
