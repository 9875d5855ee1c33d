"""Whether a file is, byte for byte, what was published.

How S3 makes an ETag: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html. The
MD5 of the bytes, or, for what was uploaded in parts, the MD5 of the parts' MD5s, a hyphen and the number of parts.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from brainlit.stories.download.remote import CHUNK_BYTES, Host, RemoteFile

SIZE_ONLY = "size only"
MIB, MB = 1 << 20, 10**6
USUAL_PART_BYTES = tuple(
    sorted(n * unit for unit in (MIB, MB) for n in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 200, 250, 256))
    + [n * unit for unit in (MIB, MB) for n in (500, 512, 1000, 1024, 2048, 4096, 5000, 5120)]
)
"""Part sizes of common tools (8 MiB: aws, 15 MiB: s3cmd, 1 GiB: OpenNeuro), for services that do not tell theirs."""

_ETAG = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")

Tick = Callable[[int], None]


class MismatchError(Exception):
    """A file that is not what was published."""

    def __init__(self, what: str, found: str, published: str) -> None:
        super().__init__(f"its {what} is {found}, published is {published}")


def check_file(path: Path, file: RemoteFile, host: Host, tick: Tick = lambda n_bytes: None) -> str:
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


def parts_etags(path: Path, part_bytes: Sequence[int], tick: Tick = lambda n_bytes: None) -> dict[int, str]:
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
    return sorted({size for size in USUAL_PART_BYTES if max(1, -(-n_bytes // size)) == n_parts})


def _has_parts(path: Path, file: RemoteFile, n_parts: int, host: Host, tick: Tick) -> bool:
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
            self.part.update(view[: self.room])
            taken = min(self.room, len(view))
            self.room, view = self.room - taken, view[taken:]
            if not self.room:
                self._close_part()

    def etag(self) -> str:
        if self.room < self.part_bytes or not self.digests:
            self._close_part()
        return f"{hashlib.md5(b''.join(self.digests), usedforsecurity=False).hexdigest()}-{len(self.digests)}"

    def _close_part(self) -> None:
        self.digests.append(self.part.digest())
        self.part, self.room = hashlib.md5(usedforsecurity=False), self.part_bytes


def _hex_digest(path: Path, name: str, tick: Tick) -> str:
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
