"""Files that are whole or absent: temporary name, fsync, rename; and what to say when the disk is full."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from brainlit.checksums import KEY, checksum_of, table_text, with_checksum
from brainlit.guard import UnreadableFileError, read_json

logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
CONTENTS = "contents.json"
_SPARE_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.(tmp|old)(\..+)?")


class BusyError(OSError):
    """Another process is writing there."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another process is writing {path}. Wait for it, or write elsewhere.")


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
    disk before the rename, so a reader sees the old file, the new file, or none, whatever happens to the machine. Who
    may read it is what the umask says, whatever the writer does; see share.

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
        share(temporary)
        to_disk(temporary)
        temporary.replace(path)
        to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path, kind: Literal["tmp", "old"] = "tmp") -> Path:
    """A hidden name beside a folder or file, for what takes its place or what it replaces."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{kind}")


def share(path: Path) -> None:
    """Give a file that only its owner may read the mode of other new files there, as the umask or the folder says.

    Some writers make all files private (safetensors, tempfile), and in a cache that several people share they would
    be of use to one of them alone.
    """
    if path.stat().st_mode & 0o077:
        return
    usual = temporary_beside(path)
    descriptor = os.open(usual, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)  # asking for the umask would change it
    try:
        path.chmod(stat.S_IMODE(os.fstat(descriptor).st_mode))
    finally:
        os.close(descriptor)
        usual.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a name is one that `atomic_path` or `temporary_beside` gives out (a leftover, if nobody is writing)."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder and below; only for who holds it alone."""
    for path in sorted(folder.rglob(".*")):
        if is_temporary(path):
            logger.warning("removing %s, left by a process that was killed", path)
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def only_writer(path: Path, *also: str) -> Iterator[None]:
    """Write a file or folder alone, by a lock beside it that is gone afterwards; what killed writers left is removed.

    Parameters
    ----------
    also : str
        Names of further files and folders beside it that are written.

    Raises
    ------
    BusyError
        If another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(_lock_beside(path), path) as lock_file:
        for name in (path.name, *also):
            for left in path.parent.glob(f".{glob.escape(Path(name).stem)}.*"):
                if is_temporary(left):
                    remove(left)
        for name in also:
            sweep(path.parent / name)
        try:
            yield
        finally:
            lock_file.unlink(missing_ok=True)


def is_being_written(path: Path) -> bool:
    """Whether a process holds a file or folder by `only_writer`; the lock of one that was killed is free."""
    lock_file = _lock_beside(path)
    if not lock_file.exists():
        return False
    try:
        with _held(lock_file, path):
            return False
    except BusyError:
        return True


def _lock_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.writing")


@contextmanager
def folder_to_fill(folder: Path) -> Iterator[None]:
    """Fill a folder that is new, empty, or was left by a process that was killed; after an error it is gone.

    While it is being filled it holds a locked file `.unfinished`; a free one tells that its writer was killed, so what
    lies beside it is removed.

    Raises
    ------
    FileExistsError
        If it holds something else.
    BusyError
        If another process is filling it.
    """
    marker = folder / UNFINISHED
    if folder.exists() and not marker.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something, and nothing is overwritten. Give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with _held(marker, folder):
        _empty(folder, marker)
        try:
            yield
        except BaseException:
            _empty(folder, marker)
            marker.unlink(missing_ok=True)
            with suppress(OSError):  # somebody has put something there
                folder.rmdir()
            raise
        marker.unlink(missing_ok=True)


def _empty(folder: Path, but: Path) -> None:
    for path in folder.iterdir():
        if path != but:
            remove(path)


@contextmanager
def _held(lock_file: Path, path: Path) -> Iterator[Path]:
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(path) from error
    try:
        yield lock_file
    finally:
        lock.release()


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file of these bytes; returns its path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def write_json(path: Path, content: Mapping[str, Any], allow_nan: bool = True) -> Path:
    """Write plain values as readable JSON with their checksum, atomically; `guard.read_json` compares it."""
    text = json.dumps(with_checksum(content), indent=2, ensure_ascii=False, allow_nan=allow_nan)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def write_json_by_row(path: Path, content: Mapping[str, Any], allow_nan: bool = True) -> Path:
    """As `write_json`, with a line for each value and for each part of a list: for tables, in a fifth of the time."""
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=allow_nan).encode
    lines = []
    for name, value in content.items():
        rows = ",\n".join(map(encode, value)) if isinstance(value, list) else ""
        lines += [f"{encode(name)}: " + (f"[\n{rows}\n]" if rows else encode(value))] if name != KEY else []
    lines.append(f"{encode(KEY)}: {encode(checksum_of(json.loads('{' + ','.join(lines) + '}')))}")
    with atomic_path(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows under these columns with their checksum, atomically; `guard.read_csv` compares it.

    A row that lacks a column leaves it empty, as None does. The checksum is the name of an empty last column.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(table_text(columns, rows), encoding="utf-8", newline="")
    return path


def write_contents(folder: Path, about: Mapping[str, Any]) -> None:
    """List the SHA-256 of all files of a folder in contents.json, beside what is to be said about them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CONTENTS)
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
    write_json(folder / CONTENTS, {**about, "files": files})


def contents_damage(folder: Path) -> str | None:
    """What is wrong with a folder by its contents.json, in words; None if each file is as it was written."""
    try:
        files = read_json(folder / CONTENTS, "a list of files", "")["files"]
    except FileNotFoundError:
        return f"no {CONTENTS}"
    except (UnreadableFileError, KeyError):
        return f"{CONTENTS} cannot be read"
    if not isinstance(files, dict) or any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        return f"{CONTENTS} names files that are none of the folder"
    for name, digest in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_of(folder / name) != digest:
            return f"{name} has changed"
    return None


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
