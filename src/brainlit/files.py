"""Files that are whole or absent: temporary name, fsync, rename; and what to say when the disk is full."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

_SPARE_BYTES = 1 << 20


class FullDiskError(OSError):
    """The disk has no room for a file; nothing of it was left behind."""

    def __init__(self, path: Path, needed_bytes: int, free_bytes: int) -> None:
        message = (
            f"no space for {path.name}: it needs about {needed_bytes / 1e6:.1f} MB, {free_bytes / 1e6:.1f} MB are free"
            f" in {path.parent}. Nothing of it was kept; free some space (or choose another folder) and run again:"
            " files that were finished are used again."
        )
        super().__init__(errno.ENOSPC, message)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary name starts with a dot and keeps the suffix (some writers choose the format by it). The bytes are on
    disk before the rename, so a reader sees the old file, the new file, or none, whatever happens to the machine.

    Parameters
    ----------
    path : Path
        The final name; its folder is made if it is missing.

    Yields
    ------
    Path
        Where to write. A block that writes nothing there leaves `path` as it was and raises FileNotFoundError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        to_disk(temporary)
        temporary.replace(path)
        to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a name is one that `atomic_path` gives out (a leftover, if nobody is writing)."""
    return path.name.startswith(".") and ".tmp" in path.name


def write_json(path: Path, content: Any) -> None:
    """Write content as readable JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows under these columns, atomically; a row that lacks one leaves it empty, as None does."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def waiting_lock(path: Path, why: str) -> Iterator[None]:
    """Hold an exclusive lock on a file; say so once in the log when another process has it, then wait.

    The operating system frees the lock when its holder dies, killed or not.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("waiting: %s (lock %s)", why, path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def require_space(path: Path, needed_bytes: int) -> None:
    """Raise FullDiskError if the folder of `path` has no room for that many bytes and a little more."""
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < needed_bytes + _SPARE_BYTES:
        raise FullDiskError(path, needed_bytes, free_bytes)


def reserve(path: Path, n_bytes: int) -> None:
    """Give an existing file that many bytes of disk now, so that writing into it later cannot meet a full disk.

    The file may grow; its writer cuts it. Does nothing where the system or the file system cannot reserve.

    Raises
    ------
    OSError
        With errno ENOSPC where the disk has no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes + _SPARE_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            logger.debug("%s: cannot reserve space (%s)", path, error)


@contextmanager
def full_disk_explained(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn 'no space left on device', however deep in the HDF5 library it arose, into a FullDiskError."""
    try:
        yield
    except FullDiskError:
        raise
    except (OSError, RuntimeError) as error:
        if not _means_full_disk(error):
            raise
        raise FullDiskError(path, needed_bytes, shutil.disk_usage(path.parent).free) from error


def _means_full_disk(error: BaseException) -> bool:
    """HDF5 raises once on writing and again on closing; the cause sits anywhere in that chain."""
    link: BaseException | None = error
    while link is not None:
        if getattr(link, "errno", None) == errno.ENOSPC or f"errno = {errno.ENOSPC}," in str(link):
            return True
        link = link.__cause__ or link.__context__
    return False


def to_disk(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
