"""Folders outside the project that brainlit writes to, and files as terminals open them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def cache_dir() -> Path:
    """Where brainlit keeps what it can make again: $BRAINLIT_CACHE, else ~/.cache/brainlit."""
    return Path(os.environ.get("BRAINLIT_CACHE") or Path.home() / ".cache" / "brainlit").expanduser()


def link(path: Path) -> str:
    """A file as a terminal opens it at a click, whatever folder it is in.

    >>> link(Path("/runs/a b/report.html"))
    'file:///runs/a%20b/report.html'
    """
    return path.absolute().as_uri()


def next_command(*words: str | Path) -> str:
    """The last line of a command: what is probably wanted next, as it is typed.

    >>> next_command("downstream", Path("runs/a b"))
    "Next: brainlit downstream 'runs/a b'"
    """
    return f"Next: {shlex.join(['brainlit', *map(str, words)])}"
