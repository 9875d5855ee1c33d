"""Folders that are expensive to make and cheap to keep, one per set of settings."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brainlit.places import cache_dir
from brainlit.store.atomic import sha256_of, to_disk

log = logging.getLogger(__name__)

CONTENTS = "contents.json"


def cached_folder(kind: str, settings: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder that these settings make; built if it is not there, or not whole.

    A second process waits for the first. The folder appears under its name only when it is complete, with a list of
    its files' SHA-256 that is checked at every use, so a damaged one is made again.

    Parameters
    ----------
    kind : str
        First part of the folder's name.
    settings : mapping of plain JSON values
        All that decides what is in the folder.
    build : callable
        Fills the empty folder that it is given.
    """
    from filelock import FileLock

    parent = cache_dir()
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{kind}-{settings_key(settings)}"
    with FileLock(parent / f"{folder.name}.lock"):
        if folder.exists():
            damage = find_damage(folder)
            if damage is None:
                return folder
            log.warning("%s is damaged (%s); making it again", folder, damage)
            shutil.rmtree(folder)
        _build_aside(folder, settings, build)
    return folder


def settings_key(settings: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the settings, in whatever order they are given."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def find_damage(folder: Path) -> str | None:
    """What is wrong with a cached folder, in words; None if each file is there with the content it was made with."""
    try:
        files: dict[str, str] = json.loads((folder / CONTENTS).read_text())["files"]
    except FileNotFoundError:
        return f"no {CONTENTS}"
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        return f"{CONTENTS} cannot be read"
    for name, digest in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_of(folder / name) != digest:
            return f"{name} has changed"
    return None


def _build_aside(folder: Path, settings: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    """Build under a temporary name, list the contents, put everything on disk, rename."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(aside)
        files = {str(path.relative_to(aside)): sha256_of(path) for path in sorted(aside.rglob("*")) if path.is_file()}
        contents = {"settings": dict(settings), "files": files}
        (aside / CONTENTS).write_text(json.dumps(contents, indent=2) + "\n")
        for path in aside.rglob("*"):
            to_disk(path)
        aside.chmod(0o755)
        aside.replace(folder)
        to_disk(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
