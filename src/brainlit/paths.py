"""Folders outside the project that brainlit writes to."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where brainlit keeps what it can make again: $BRAINLIT_CACHE, else ~/.cache/brainlit."""
    return Path(os.environ.get("BRAINLIT_CACHE") or Path.home() / ".cache" / "brainlit").expanduser()
