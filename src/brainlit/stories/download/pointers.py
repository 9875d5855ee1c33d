"""Files that only stand for others: what a clone of a git-annex, DataLad or Git LFS repository holds before `get`."""

from __future__ import annotations

import re
from pathlib import Path

MAX_POINTER_BYTES = 32 << 10
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
    if not path.is_file() or path.stat().st_size > MAX_POINTER_BYTES:
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
