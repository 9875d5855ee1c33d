"""The same sound in two places of a task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from brainlit.downstream.clip import Clip
from brainlit.store.atomic import sha256_of

MANY_FILES = 1000


def later_copies(groups: Mapping[str, Sequence[Clip]]) -> dict[str, list[Clip]]:
    """Clips of each group whose very sound is in a later group too.

    Files are compared byte by byte (by SHA-256), and read only where a file of another group has the same size; their
    clips are the same where their times are. Samples in memory are compared as they are heard.

    Parameters
    ----------
    groups : mapping of name to clips
        In order: what is in the last one is never a copy.
    """
    digests = _digests(groups)
    heard_later: set[str] = set()
    copies: dict[str, list[Clip]] = {}
    for name in reversed(list(groups)):
        keys = [_key(clip, digests) for clip in groups[name]]
        copies[name] = [clip for clip, key in zip(groups[name], keys, strict=True) if key in heard_later]
        heard_later |= {key for key in keys if key}
    return copies


def _digests(groups: Mapping[str, Sequence[Clip]]) -> dict[Path, str]:
    """SHA-256 of each file that could be the copy of one in another group."""
    sizes: dict[Path, int] = {}
    groups_of_size: dict[int, set[str]] = {}
    for name, clips in groups.items():
        for path in {clip.source for clip in clips if isinstance(clip.source, Path)}:
            sizes[path] = path.stat().st_size
            groups_of_size.setdefault(sizes[path], set()).add(name)
    suspects = [path for path, size in sizes.items() if len(groups_of_size[size]) > 1]
    few = len(suspects) < MANY_FILES
    return {path: sha256_of(path) for path in tqdm(suspects, "comparing files", leave=False, disable=few)}


def _key(clip: Clip, digests: Mapping[Path, str]) -> str:
    """What is the same for two clips if and only if their sound is; empty where it can have no copy."""
    if not isinstance(clip.source, Path):
        return hashlib.sha256(clip.sound().tobytes()).hexdigest()
    digest = digests.get(clip.source, "")
    return f"{digest} {clip.start_s or 0.0} {clip.stop_s}" if digest else ""
