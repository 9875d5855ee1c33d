"""Whether a file is, byte for byte, what was published; a ledger of those that are; files that only stand for others.

How S3 makes an ETag: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html. The
MD5 of the bytes, or, for what was uploaded in parts, the MD5 of the parts' MD5s, a hyphen and the number of parts.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlit.files import write_json
from brainlit.guard import UnreadableFileError, read_json
from brainlit.stories.download.hosts import CHUNK_BYTES, Host, RemoteFile

logger = logging.getLogger(__name__)

SIZE_ONLY = "size only"
_MIB, MB = 1 << 20, 10**6
_USUAL_PART_BYTES = tuple(
    sorted(n * unit for unit in (_MIB, MB) for n in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 200, 250, 256))
    + [n * unit for unit in (_MIB, MB) for n in (500, 512, 1000, 1024, 2048, 4096, 5000, 5120)]
)
"""Part sizes of common tools (8 MiB: aws, 15 MiB: s3cmd, 1 GiB: OpenNeuro), for services that do not tell theirs."""

_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")

_Tick = Callable[[int], None]


class MismatchError(Exception):
    """A file that is not what was published."""

    def __init__(self, what: str, found: str, published: str) -> None:
        super().__init__(f"its {what} is {found}, published is {published}")


def check_file(path: Path, file: RemoteFile, host: Host, tick: _Tick = lambda n_bytes: None) -> str:
    """Compare a local file with the published one by the best that the service offers.

    Parameters
    ----------
    tick : callable
        Told how many bytes were read.

    Returns
    -------
    str
        What agrees: 'MD5', 'MD5 of parts', 'SHA256', ..., or SIZE_ONLY where the service tells nothing else.

    Raises
    ------
    MismatchError
        With both values.
    """
    if path.stat().st_size != file.n_bytes:
        raise MismatchError("size", f"{path.stat().st_size} bytes", f"{file.n_bytes} bytes")
    etag = _ETAG.fullmatch(file.etag or "")
    if etag is not None and etag[2] is None:
        return _compare("MD5", _hex_digest(path, "md5", tick), etag[1])
    if etag is not None and _has_parts(path, file, int(etag[2]), host, tick):
        return "MD5 of parts"
    for name, published in host.checksums(file).items():
        return _compare(name.upper(), _hex_digest(path, name, tick), published)
    return SIZE_ONLY


def parts_etags(path: Path, part_bytes: Sequence[int], tick: _Tick = lambda n_bytes: None) -> dict[int, str]:
    """The ETag that S3 gives a file uploaded in parts, for each size of parts; the file is read once."""
    hashes = {size: _PartsHash(size) for size in part_bytes}
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            for parts in hashes.values():
                parts.update(chunk)
            tick(len(chunk))
    return {size: parts.etag() for size, parts in hashes.items()}


def usual_part_bytes(n_bytes: int, n_parts: int) -> list[int]:
    """The usual part sizes that cut a file into that many parts.

    >>> usual_part_bytes(2_447_000_216, 3)
    [1000000000, 1024000000, 1048576000, 1073741824]
    """
    return sorted({size for size in _USUAL_PART_BYTES if max(1, -(-n_bytes // size)) == n_parts})


def _has_parts(path: Path, file: RemoteFile, n_parts: int, host: Host, tick: _Tick) -> bool:
    """Whether the MD5 of parts agrees; False if that cannot be said, because nobody knows the parts."""
    told = host.part_bytes(file, n_parts)
    sizes = [told] if told else usual_part_bytes(file.n_bytes, n_parts)
    found = parts_etags(path, sizes, tick) if sizes else {}
    if told and found[told] != file.etag:
        raise MismatchError("MD5 of parts", found[told], str(file.etag))
    return file.etag in found.values()


class _PartsHash:
    """MD5 of the MD5s of parts, fed in chunks of any size."""

    def __init__(self, part_bytes: int) -> None:
        self.part_bytes, self.room = part_bytes, part_bytes
        self.part, self.digests = hashlib.md5(usedforsecurity=False), list[bytes]()

    def update(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while len(view):
            self.part.update(view[: self.room])  # what still fits into this part; the rest begins the next
            taken = min(self.room, len(view))
            self.room, view = self.room - taken, view[taken:]
            if not self.room:
                self._close_part()

    def etag(self) -> str:
        if self.room < self.part_bytes or not self.digests:  # an empty file has one empty part
            self._close_part()
        return f"{hashlib.md5(b''.join(self.digests), usedforsecurity=False).hexdigest()}-{len(self.digests)}"

    def _close_part(self) -> None:
        self.digests.append(self.part.digest())
        self.part, self.room = hashlib.md5(usedforsecurity=False), self.part_bytes


def _hex_digest(path: Path, name: str, tick: _Tick) -> str:
    crc, digest = 0, None if name == "crc32" else hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if digest is None:
                crc = zlib.crc32(chunk, crc)
            else:
                digest.update(chunk)
            tick(len(chunk))
    return f"{crc:08x}" if digest is None else digest.hexdigest()


def _compare(what: str, found: str, published: str) -> str:
    if found != published:
        raise MismatchError(what, found, published)
    return what


# --- What was fetched into a folder and found to be whole ---

LEDGER_FILE = ".brainlit-download.json"
FORMAT = 1
_SAVE_EVERY_S = 1.0
_NOTED_FROM_BYTES = 4 << 20
"""Smaller files are sooner fetched again than noted before they are begun."""
PART_SUFFIX = ".part"


class Ledger:
    """The part of `<root>/.brainlit-download.json` that is about one url. Safe to use from several threads.

    Parameters
    ----------
    root : Path
        The data set's folder; it need not exist before something is saved.
    url : str
        Where its files come from. A folder may be filled from several.
    """

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.path = root, root / LEDGER_FILE
        self._all = _read(self.path)
        about = self._all.setdefault("remotes", {}).setdefault(url, {})
        self._files: dict[str, dict[str, Any]] = about.setdefault("files", {})
        self._parts: dict[str, dict[str, Any]] = about.setdefault("parts", {})
        self._patterns: dict[str, list[str]] = about.setdefault("patterns", {})
        self._lock, self._saved_s = threading.Lock(), 0.0

    def verified(self, path: str) -> tuple[RemoteFile, str] | None:
        """What was published when the local file was found to be whole, and by what that was seen.

        None if it never was, or if its size or time of change is another since.
        """
        entry = self._files.get(path)
        local = self.root / path
        if entry is None or not local.is_file():
            return None
        stat = local.stat()
        if (stat.st_size, stat.st_mtime_ns) != (entry["n_bytes"], entry["mtime_ns"]):
            return None
        return RemoteFile(path, entry["n_bytes"], entry["version"]), entry["checked"]

    def matches(self, pattern: str) -> list[str] | None:
        """What a pattern stood for when all of that was fetched; None if that never was."""
        return self._patterns.get(pattern)

    def n_partial(self, file: RemoteFile) -> int:
        """Bytes of an interrupted download that still belong to the published file."""
        part = part_path(self.root / file.path)
        began = self._parts.get(file.path)
        if not file.version or began != _as_entry(file) or not part.is_file():
            return 0
        n_bytes = part.stat().st_size
        return n_bytes if n_bytes <= file.n_bytes else 0

    def begin(self, file: RemoteFile) -> None:
        """Note of which version the bytes in the (now absent) partial file will be."""
        with self._lock:
            self._parts[file.path] = _as_entry(file)
            if file.n_bytes >= _NOTED_FROM_BYTES:
                self._save()

    def finish(self, file: RemoteFile, checked: str) -> None:
        """Note that the local file is whole."""
        stat = (self.root / file.path).stat()
        with self._lock:
            self._parts.pop(file.path, None)
            self._files[file.path] = {**_as_entry(file), "mtime_ns": stat.st_mtime_ns, "checked": checked}
            if time.monotonic() > self._saved_s + _SAVE_EVERY_S:
                self._save()

    def remember(self, patterns: Mapping[str, Sequence[str]]) -> None:
        """Note what the patterns stand for, once all of it is here."""
        self._patterns.update({pattern: list(paths) for pattern, paths in patterns.items()})

    def save(self) -> None:
        """Write the ledger, whole or not at all."""
        with self._lock:
            self._save()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        write_json(self.path, {**self._all, "format": FORMAT})


def part_path(local: Path) -> Path:
    """Where the bytes of a file are collected until all are here."""
    return local.with_name(local.name + PART_SUFFIX)


def _as_entry(file: RemoteFile) -> dict[str, Any]:
    return {"n_bytes": file.n_bytes, "version": file.version}


def _read(path: Path) -> dict[str, Any]:
    """The ledger, or an empty one: it saves time and holds nothing that cannot be found out again."""
    if not path.is_file():
        return {}
    try:
        content = read_json(path, "a ledger of downloads", "")
    except UnreadableFileError:
        content = {}
    if content.get("format") != FORMAT:
        logger.warning("%s cannot be read; the files are compared with the published ones once more.", path)
        return {}
    return content


# --- Pointers: what a clone of a git-annex, DataLad or Git LFS repository holds before `get` ---

_MAX_POINTER_BYTES = 32 << 10
"""git-annex looks no further: https://git-annex.branchable.com/internals/pointer_file/."""

_ANNEX = re.compile(rb"(\.\./)*(\.git)?/annex/objects/\S+")
_LFS = b"version https://git-lfs.github.com/spec/"


def pointer_problem(path: Path | str) -> str | None:
    """What is wrong with a file whose content was never fetched, and what to do; None if nothing is.

    Recognised: links to nowhere, git-annex pointers (text instead of the content), Git LFS pointers. Looks at the
    name, the size and at most a few bytes.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        target = str(path.readlink())
        if "annex/objects/" in target:
            return _problem(path, "git-annex", "`datalad get` (or `git annex get`)")
        return f"{path} is a link to {target}, which is not there. Mend the link, or put the file in its place."
    if not path.is_file() or path.stat().st_size > _MAX_POINTER_BYTES:
        return None
    with path.open("rb") as stream:
        start = stream.read(200)
    if _ANNEX.match(start):
        return _problem(path, "git-annex", "`datalad get` (or `git annex get`)")
    return _problem(path, "Git LFS", "`git lfs pull`") if start.startswith(_LFS) else None


def _problem(path: Path, kind: str, cure: str) -> str:
    return (
        f"{path} is only a pointer of {kind}, its content was not fetched: run {cure} there, or"
        " `brainlit data download`."
    )
