"""Files that somebody else made: JSON and YAML within stated limits, and one error for a file that cannot be read.

What a library raises on damaged bytes says neither which file it was nor what to do. `file_guard` turns it into one
error with file, cause and cure. `read_json` and `read_yaml` read text that may have been sent by a stranger: of a few
hundred bytes a parser can make gigabytes, or crash, so size, depth, aliases and interpolations are counted first.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any
from xml.parsers.expat import ExpatError
from zipfile import BadZipFile, ZipFile

from brainlit.checksums import table_rows, without_checksum

MAX_YAML_BYTES = 1_000_000
MAX_JSON_BYTES = 200_000_000
"""Records of runs hold a number for each region, layer and subject."""
MAX_DEPTH = 100
MAX_NODES = 200_000
"""Of a YAML document, counted as if every alias were written out."""
MAX_RESOLVED_CHARS = 1_000_000
"""Of a configuration with every interpolation written out."""
DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, AssertionError, SyntaxError),
    *(ArithmeticError, MemoryError, RuntimeError, BadZipFile, TokenError, ExpatError, zlib.error, struct.error),
)
"""What parsers raise on damaged bytes, besides errors of their own."""
_ZIP_END = struct.Struct("<4s4H2LH")
"""Signature, two numbers of disks, members here, members in all, size and place of their list, length of a comment."""
_NOT_ESCAPED = r"(?<!\\)(?:\\\\)*"  # two backslashes are one that escapes nothing
_INTERPOLATION = re.compile(_NOT_ESCAPED + r"\$\{")
_RESOLVER = re.compile(_NOT_ESCAPED + r"\$\{\s*+([^\s{}:]++)\s*+:")
_COMPOSED = re.compile(r"\$\{[^{}:]*\$\{")
"""A name within ${...} that is itself filled in, so that nobody can say before what it refers to."""
_PLACE = re.compile(
    r"(.*_)?(root|dir|dirpath|folder|files?|path|id|experiment|weights|adapter_base|vectors|audio|words|phones"
    r"|tr_starts|mask|fmriprep|pycortex)"
)
"""Last parts of keys whose values are paths or names."""
_NUMBER = re.compile(r"-?\d{1,9}")
_REFERENCE = re.compile(r"\$\{\s*+([^\s{}:]*+)\s*+\}")


class UnreadableFileError(ValueError):
    """A file that is not what it should be; the message names the file, what is wrong and what to do."""


@contextmanager
def file_guard(path: Path, what: str, cure: str, *further: type[Exception]) -> Iterator[None]:
    """Whatever a library stumbles over in a file becomes one UnreadableFileError.

    A file that is missing, may not be read, or lies on a full disk says so itself; these errors pass.

    Parameters
    ----------
    what : str
        What the file should be: "a record of a probe".
    cure : str
        A sentence.
    further : exception types
        Of a library's own, that are none of Python's.
    """
    try:
        yield
    except UnreadableFileError:
        raise
    except (*DAMAGE, *further) as error:
        if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
            raise  # it names the file, or the disk
        reason = " ".join(str(error).split())[:300]
        raise UnreadableFileError(f"{path} is not {what}: {reason or type(error).__name__}. {cure}") from error


def read_text(path: Path, what: str, cure: str, max_bytes: int = MAX_YAML_BYTES) -> str:
    """Text in UTF-8, with or without a byte order mark.

    Raises
    ------
    UnreadableFileError
        If it is larger than the limit, or is no UTF-8.
    OSError
        If it is missing or may not be read.
    """
    n_bytes = path.stat().st_size
    if n_bytes > max_bytes:
        raise UnreadableFileError(f"{path} has {n_bytes:,} bytes; {what} has at most {max_bytes:,}. {cure}")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{path} is not {what}: byte {error.start} is no UTF-8. {cure}") from error


def read_json(path: Path, what: str, cure: str) -> dict[str, Any]:
    """A JSON object; one that `files.write_json` wrote is compared with its checksum.

    Raises
    ------
    UnreadableFileError
        If it is none, or is not what was written.
    FileNotFoundError
        If there is no such file.
    """
    text = read_text(path, what, cure, MAX_JSON_BYTES)
    with file_guard(path, what, cure):
        value = json.loads(text)
        if isinstance(value, dict):
            return without_checksum(value)
    raise UnreadableFileError(f"{path} is not {what}: it holds a {type(value).__name__}, not an object. {cure}")


def read_csv(path: Path, what: str, cure: str, needs: str | None = None) -> list[dict[str, str]]:
    """The rows of a table that `files.write_csv` wrote, after comparing its checksum.

    Parameters
    ----------
    needs : str, optional
        A column that it has, whatever it is a table of.

    Raises
    ------
    UnreadableFileError
        If it is none, or is not what was written.
    FileNotFoundError
        If there is no such file.
    """
    text = read_text(path, what, cure, MAX_JSON_BYTES)
    with file_guard(path, what, cure, csv.Error):
        rows = table_rows(text)
    head = text.partition("\n")[0].strip().split(",")
    if needs is not None and needs not in head:
        raise UnreadableFileError(f"{path} is not {what}: it has no column {needs!r}. {cure}")
    return rows


def npz_headers(path: Path, what: str, cure: str) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array of an npz file by the headers: a few kilobytes can unpack to gigabytes.

    Raises
    ------
    UnreadableFileError
        If it is none, an array holds Python objects, or a header says another size than the archive.
    """
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    headers = {}
    with file_guard(path, what, cure), ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = npy.read_magic(stream)
                if version not in readers:
                    raise ValueError(f"{member.filename} is a .npy of version {version}")
                shape, _, dtype = readers[version](stream)
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds pickled Python objects, which are not read")
                n_bytes = stream.tell() + dtype.itemsize * math.prod(shape)
            if n_bytes != member.file_size:
                raise ValueError(f"{member.filename} has {member.file_size:,} bytes, and {n_bytes:,} by its own header")
            headers[member.filename.removesuffix(".npy")] = tuple(shape), dtype
        _require_all_members(path, len(headers))
    return headers


def read_npz(path: Path, what: str, cure: str) -> dict[str, Any]:
    """All arrays of an npz file by name, after `npz_headers`.

    Raises
    ------
    UnreadableFileError
        If it is none, holds Python objects, or is not what was written.
    """
    import numpy as np

    npz_headers(path, what, cure)
    with file_guard(path, what, cure), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _require_all_members(path: Path, n_members: int) -> None:
    """A damaged list of members can hide the next one, and has no checksum; but the end of the file counts them."""
    with path.open("rb") as file:
        file.seek(-_ZIP_END.size, os.SEEK_END)
        end = file.read()
    signature, _, _, _, n_said, *_ = _ZIP_END.unpack(end)
    if signature == b"PK\5\6" and n_said not in (n_members, 0xFFFF):  # a comment stands behind, or 65,535 and more
        raise ValueError(f"{n_members} of its {n_said} arrays can be found")


def read_yaml(path: Path, what: str, cure: str) -> dict[str, Any]:
    """A YAML mapping of plain values; interpolations stay as they are written.

    Raises
    ------
    UnreadableFileError
        If it is none, or is beyond a limit.
    FileNotFoundError
        If there is no such file.
    """
    import yaml

    text = read_text(path, what, cure)
    check_yaml(text, path, what, cure)
    with file_guard(path, what, cure, yaml.YAMLError):
        value = yaml.load(text, Loader=_yaml_loader())
    if not isinstance(value, dict):
        raise UnreadableFileError(f"{path} is not {what}: it holds a {type(value).__name__}, not a mapping. {cure}")
    return value


def check_yaml(text: str, path: Path, what: str, cure: str) -> None:
    """Refuse what a parser would crash on or never finish, by one pass that builds nothing.

    Raises
    ------
    UnreadableFileError
        If it is no YAML, is nested deeper than MAX_DEPTH, or has more than MAX_NODES nodes with aliases written out.
    """
    import yaml

    size_of: dict[str, int] = {}
    open_nodes: list[list[Any]] = []  # anchor and size of each mapping and list that has begun
    with file_guard(path, what, cure, yaml.YAMLError):
        for event in yaml.parse(text, Loader=_yaml_loader()):
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                open_nodes.append([event.anchor, 1])
                n_nodes = 0
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                anchor, n_nodes = open_nodes.pop()
                size_of |= {anchor: n_nodes} if anchor else {}
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor in [anchor for anchor, _ in open_nodes]:
                    raise UnreadableFileError(f"{path}: *{event.anchor} refers to what it lies in. {cure}")
                n_nodes = size_of.get(str(event.anchor), 1)
            elif isinstance(event, yaml.ScalarEvent):
                n_nodes = 1
                size_of |= {event.anchor: 1} if event.anchor else {}
            else:
                continue
            if open_nodes:
                open_nodes[-1][1] += n_nodes
            line = event.start_mark.line + 1 if event.start_mark else 1
            if len(open_nodes) > MAX_DEPTH:
                raise UnreadableFileError(f"{path}, line {line}: nested deeper than {MAX_DEPTH} levels. {cure}")
            if max(n_nodes, open_nodes[-1][1] if open_nodes else 0) > MAX_NODES:
                raise UnreadableFileError(f"{path}, line {line}: more than {MAX_NODES:,} values. {cure}")


def _yaml_loader() -> Any:
    """The safe loader; the fast one where libyaml is there."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def has_interpolation(value: Any) -> bool:
    """Whether a plain value holds `${...}` anywhere."""
    if isinstance(value, Mapping):
        return any(has_interpolation(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(map(has_interpolation, value))
    return isinstance(value, str) and _INTERPOLATION.search(value) is not None


def check_environment(content: Mapping[str, Any], where: str) -> None:
    """Let variables of the environment stand only where paths and names belong, and allow no other resolver.

    Settings are kept in records, reports and dashboards, which other people read; a file that somebody sent could put
    the value of any variable there, also by way of a path that holds one.

    Raises
    ------
    UnreadableFileError
    """
    reads: dict[str, bool] = {}  # by dotted key, whether the value holds a variable, itself or by what it refers to

    def holds_variable(value: Any, key: str) -> bool:
        if key not in reads:
            reads[key] = False  # what goes round in a circle is refused elsewhere
            if isinstance(value, (Mapping, list)):
                reads[key] = any(holds_variable(part, _below(key, name)) for name, part in _parts(value))
            else:
                text = str(value)
                found = (_referred(content, match[1], key) for match in _REFERENCE.finditer(text))
                reads[key] = bool(_RESOLVER.search(text)) or any(holds_variable(part, name) for name, part in found)
        return reads[key]

    def walk(value: Any, key: str, name: str, shown: str) -> None:
        if isinstance(value, Mapping):
            for own, part in value.items():
                walk(part, _below(key, own), str(own), _below(shown, own))
        elif isinstance(value, list):
            for k, part in enumerate(value):
                walk(part, _below(key, k), name, shown)
        elif isinstance(value, str):
            _refuse_composed(value, f"{where}: {shown}")
            for resolver in _RESOLVER.findall(value):
                if resolver != "oc.env":
                    raise UnreadableFileError(
                        f"{where}: {shown} uses ${{{resolver}:...}}; only ${{oc.env:NAME}} is known."
                    )
            if not _PLACE.fullmatch(name) and holds_variable(value, key):
                raise UnreadableFileError(
                    f"{where}: {shown} reads a variable of the environment, which only paths and names may: settings"
                    " are kept in records that others read. Write the value, or give it on the command line."
                )

    with _shallow(where):
        walk(content, "", "", "")


def _refuse_composed(text: str, where: str) -> None:
    if _COMPOSED.search(text):
        raise UnreadableFileError(f"{where} has a ${{...}} within the name of another. Write out what is meant.")


def _below(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _parts(value: Mapping[Any, Any] | list[Any]) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def _referred(content: Mapping[str, Any], reference: str, key: str) -> tuple[str, Any]:
    """Dotted key and value of what a reference in the value of `key` means; None where there is nothing."""
    n_dots = len(reference) - len(reference.lstrip("."))
    base = key.split(".")[: -n_dots or None] if n_dots else []
    names = [*base, *re.findall(r"[^.\[\]]+", reference)]
    value: Any = content
    for name in names:
        number = int(name) if _NUMBER.fullmatch(name) else None
        if isinstance(value, Mapping):
            value = value.get(name, value.get(number) if number is not None else None)
        elif isinstance(value, list) and number is not None and -len(value) <= number < len(value):
            value = value[number]
        else:
            return ".".join(names), None  # not there: whoever resolves it says so
    return ".".join(names), value if names else None


@contextmanager
def _shallow(where: str) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise UnreadableFileError(
            f"{where}: its ${{...}} refer to each other too deeply. Write out what is meant."
        ) from None


def check_interpolations(content: Mapping[str, Any], where: str) -> None:
    """Refuse interpolations that go round in a circle, or would become very long when they are written out.

    Parameters
    ----------
    content : mapping
        Plain values, as they are written.
    where : str
        File or files, for the message.

    Raises
    ------
    UnreadableFileError
    """
    sizes: dict[str, int | None] = {}  # by dotted key; None while it is being counted

    def size(value: Any, key: str) -> int:
        if isinstance(value, (Mapping, list)):
            total = sum(1 + sized(_below(key, name), part) for name, part in _parts(value))
        else:
            text = str(value)
            _refuse_composed(text, f"{where}: {key}")
            found = (_referred(content, match[1], key) for match in _REFERENCE.finditer(text))
            total = len(text) + sum(sized(name, part) for name, part in found if part is not None)
        if total > MAX_RESOLVED_CHARS:
            raise UnreadableFileError(
                f"{where}: {key or 'the whole'} would have more than {MAX_RESOLVED_CHARS:,} characters when its"
                " ${...} are filled in. Write out what is meant."
            )
        return total

    def sized(key: str, value: Any) -> int:
        if key not in sizes:
            sizes[key] = None
            sizes[key] = size(value, key)
        found = sizes[key]
        if found is None:
            raise UnreadableFileError(f"{where}: ${{{key}}} refers to itself. Write out what is meant.")
        return found

    with _shallow(where):
        size(content, "")
