"""What was fetched into a folder and found to be whole, so that nothing is fetched or read twice."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlit.stories.download.remote import RemoteFile

logger = logging.getLogger(__name__)

LEDGER_FILE = ".brainlit-download.json"
FORMAT = 1
SAVE_EVERY_S = 1.0
NOTED_FROM_BYTES = 4 << 20
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
            if file.n_bytes >= NOTED_FROM_BYTES:
                self._save()

    def finish(self, file: RemoteFile, checked: str) -> None:
        """Note that the local file is whole."""
        stat = (self.root / file.path).stat()
        with self._lock:
            self._parts.pop(file.path, None)
            self._files[file.path] = {**_as_entry(file), "mtime_ns": stat.st_mtime_ns, "checked": checked}
            if time.monotonic() > self._saved_s + SAVE_EVERY_S:
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
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{LEDGER_FILE}.tmp")
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump({**self._all, "format": FORMAT}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.path)


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        logger.warning("%s cannot be read; the files are compared with the published ones once more.", path)
        return {}
    return content
