"""Entries of brainlit's cache that runs share: whole or absent, checked when read, the least recently used go first.

Writers and readers may be processes of several machines that see the same folder. An entry is a folder that is filled
under a temporary name, with the SHA-256 of its files, and renamed. A reader hashes what it has copied, and takes it
only if all of it is what was written. Locks keep two processes from making the same thing, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from brainlit.files import (
    CONTENTS,
    is_temporary,
    require_space,
    sha256_of,
    temporary_beside,
    to_disk,
    waiting_lock,
    write_contents,
)
from brainlit.guard import UnreadableFileError, read_json

log = logging.getLogger(__name__)

BYTES_PER_GB = 10**9
LEFT_BEHIND_S = 24 * 3600.0
"""A temporary folder that has not changed for so long is of a writer that was killed."""


class DamagedEntryError(ValueError):
    """An entry is not what was written."""


class SharedEntries:
    """Folders of files in one folder, each found by the settings that decide what is in it.

    Parameters
    ----------
    folder : Path
        Made when something is kept.
    max_gb : float
        Disk for all entries together, in 10^9 bytes. Where they need more, those that were not read or written for the
        longest time are removed.
    """

    def __init__(self, folder: Path, max_gb: float) -> None:
        self.folder, self.max_gb = Path(folder), max_gb

    def path(self, settings: Mapping[str, Any]) -> Path:
        """Where the entry of these settings (plain JSON values) lies, if it is there."""
        text = json.dumps(settings, sort_keys=True, allow_nan=False)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:20]

    def fetch(self, settings: Mapping[str, Any], places: Mapping[str, Path]) -> Path | None:
        """Copy all files of an entry to their places, or none of them.

        Parameters
        ----------
        places : mapping of file name to path
            Where each file goes; replaces what is there.

        Returns
        -------
        Path or None
            The entry. None where there is none; one that is damaged is removed, and that is said.
        """
        entry = self.path(settings)
        found = _identity(entry)
        if found is None:
            return None
        copies = {name: temporary_beside(path) for name, path in places.items()}
        try:
            digests = _digests(entry, settings, set(places))
            for name, copy in copies.items():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(entry / name, copy)
                if sha256_of(copy) != digests[name]:
                    raise DamagedEntryError(f"{name} has changed")
                to_disk(copy)
            for name, copy in copies.items():
                copy.replace(places[name])
                to_disk(places[name].parent)
        except (FileNotFoundError, UnreadableFileError, DamagedEntryError) as error:
            if _identity(entry) == found:  # else another process has just removed it
                log.warning("%s is damaged (%s); what it kept is computed again", entry, error)
                _remove(entry)
            return None
        except OSError as error:
            log.warning("%s cannot be read (%s); what it keeps is computed again", entry, error)
            return None
        finally:
            for copy in copies.values():
                copy.unlink(missing_ok=True)
        with suppress(OSError):  # a cache that may only be read
            os.utime(entry)
        return entry

    def keep(self, settings: Mapping[str, Any], files: Mapping[str, Path], about: Mapping[str, Any]) -> Path | None:
        """Copy files into the entry of these settings, within the budget.

        A cache is no reason to stop: what goes wrong is said in the log. Where another process was first, its entry
        stays.

        Parameters
        ----------
        files : mapping of file name to path
        about : mapping
            Plain JSON for people, put beside the settings.

        Returns
        -------
        Path or None
            The entry, None where nothing was kept.
        """
        n_bytes = sum(path.stat().st_size for path in files.values())
        if n_bytes > self.max_gb * BYTES_PER_GB:
            log.info("not kept in %s: %.2f GB are more than %g GB", self.folder, n_bytes / BYTES_PER_GB, self.max_gb)
            return None
        entry = self.path(settings)
        aside = temporary_beside(entry)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            require_space(entry, n_bytes)
            aside.mkdir()
            for name, path in files.items():
                shutil.copyfile(path, aside / name)
                to_disk(aside / name)
            write_contents(aside, {**about, "settings": dict(settings)})
            aside.rename(entry)
            to_disk(self.folder)
            self._trim()
        except OSError as error:
            if not entry.is_dir():
                log.warning("cannot keep %s (%s); other runs compute it anew", entry, error)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return entry if entry.is_dir() else None

    @contextmanager
    def alone(self, settings: Mapping[str, Any], why: str) -> Iterator[None]:
        """Look for an entry and make it in this block: others who want the same wait, and then find it.

        Where the folder cannot hold a lock each makes its own, and nothing else is lost.

        Parameters
        ----------
        why : str
            What a process that waits says.
        """
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(waiting_lock(_lock(self.path(settings)), why))
            except OSError as error:
                log.debug("no lock in %s (%s)", self.folder, error)
            yield

    def _trim(self) -> None:
        """Remove what was not used for the longest time until the rest fits, and what killed writers left."""
        now, used = time.time(), []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process removes, too
                if is_temporary(path):
                    if now - path.stat().st_mtime > LEFT_BEHIND_S:
                        shutil.rmtree(path, ignore_errors=True)
                elif path.is_dir():
                    used.append((path.stat().st_mtime_ns, sum(file.stat().st_size for file in path.iterdir()), path))
        n_bytes = sum(size for _, size, _ in used)
        for _, size, entry in sorted(used):
            if n_bytes <= self.max_gb * BYTES_PER_GB:
                return
            log.info("removing %s, which was not used for the longest time", entry)
            _remove(entry)
            _lock(entry).unlink(missing_ok=True)
            n_bytes -= size


def _digests(entry: Path, settings: Mapping[str, Any], names: set[str]) -> dict[str, str]:
    """The SHA-256 that an entry says of its files.

    Raises
    ------
    DamagedEntryError
        If it is not of these settings and files.
    """
    found = read_json(entry / CONTENTS, "a list of files", "")
    digests = found.get("files")
    if not isinstance(digests, dict) or set(digests) != names:
        raise DamagedEntryError(f"{CONTENTS} lists other files")
    if found.get("settings") != json.loads(json.dumps(settings)):
        raise DamagedEntryError("it was made with other settings")
    return digests


def _identity(entry: Path) -> tuple[int, int] | None:
    """Tells an entry from one that takes its place; None where there is none."""
    try:
        state = entry.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_mtime_ns


def _lock(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}.lock")


def _remove(entry: Path) -> None:
    """Take an entry away in one step, so that nobody finds a part of it."""
    aside = temporary_beside(entry, "old")
    try:
        entry.rename(aside)
    except OSError as error:  # gone already, or in a cache that may only be read
        log.debug("cannot remove %s (%s)", entry, error)
        return
    shutil.rmtree(aside, ignore_errors=True)
