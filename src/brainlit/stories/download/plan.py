"""What a download will do, known before it does anything."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from brainlit.hints import few, nearest
from brainlit.stories.base import Remote
from brainlit.stories.download.hosts import DownloadError, Host, RemoteFile, checked_path, is_pattern
from brainlit.stories.download.verify import PART_SUFFIX, Ledger, pointer_problem

State = Literal["whole", "unchecked", "partial", "absent", "pointer", "outdated", "other"]
"""Of a local file: found whole before; of the right size; begun; not there; a pointer; whole, but since published
anew; or another than the published one, and not from here."""

_STAT_THREADS = 8
MAX_NAMED = 10
_MAX_ROWS = 15
_SPARE_BYTES = 100 * 10**6
"""What a download leaves free on the disk."""


@dataclass(frozen=True)
class PlannedFile:
    """A file that is asked for, and what is here of it.

    Parameters
    ----------
    n_here : int
        Bytes that need not be fetched.
    """

    remote: RemoteFile
    state: State
    n_here: int


@dataclass(frozen=True)
class DownloadPlan:
    """All files that are asked for.

    Parameters
    ----------
    patterns : mapping of pattern to paths
        What each path with a wildcard stands for.
    """

    remote: Remote
    files: tuple[PlannedFile, ...]
    patterns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.remote.n_bytes for file in self.files)

    @property
    def n_here(self) -> int:
        """Bytes that are here."""
        return sum(file.n_here for file in self.files)

    @property
    def free_bytes(self) -> int:
        """Room on the disk where the files go."""
        root = self.remote.root.absolute()
        return shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free


def plan_without_network(remote: Remote, ledger: Ledger) -> DownloadPlan | None:
    """The plan if everything was fetched and found whole before; None if the server must be asked."""
    patterns = {path: ledger.matches(path) or [] for path in remote.paths if is_pattern(path)}
    paths = [match for path in remote.paths for match in patterns.get(path) or [path]]
    files = []
    for path in dict.fromkeys(paths):
        found = ledger.verified(checked_path(path))
        if found is None:
            return None
        files.append(PlannedFile(found[0], "whole", found[0].n_bytes))
    return DownloadPlan(remote, tuple(files), patterns)


def make_plan(remote: Remote, host: Host, ledger: Ledger) -> DownloadPlan:
    """Ask the server for every file's size and version, and compare with what is here.

    Raises
    ------
    DownloadError
        If files are not there, naming them and what is there instead; or if the server cannot be asked.
    """
    patterns = {path: host.match(checked_path(path)) for path in remote.paths if is_pattern(path)}
    exact = [checked_path(path) for path in dict.fromkeys(remote.paths) if path not in patterns]
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        answers = dict(zip(exact, pool.map(host.stat, exact), strict=True))
    missing = [path for path in remote.paths if not (patterns[path] if path in patterns else answers[path])]
    if missing:
        raise DownloadError(_missing_text(remote, host, missing), dict.fromkeys(missing, "not there"))
    found = {file.path: file for file in answers.values() if file is not None}
    found.update({file.path: file for files in patterns.values() for file in files})
    planned = tuple(_planned(remote.root, file, ledger) for file in found.values())
    return DownloadPlan(
        remote, planned, {pattern: [file.path for file in files] for pattern, files in patterns.items()}
    )


def require_room(plan: DownloadPlan) -> None:
    """Refuse a download that does not fit on the disk.

    Raises
    ------
    DownloadError
        With what is needed and what is free.
    """
    needed, free = plan.n_bytes - plan.n_here, plan.free_bytes
    if needed and free < needed + _SPARE_BYTES:
        raise DownloadError(
            f"{gigabytes(needed)} are to be fetched, and {gigabytes(free)} are free in {plan.remote.root}. Nothing was"
            " fetched. Free some space, ask for fewer subjects or stories, or choose another folder."
        )


def plan_text(plan: DownloadPlan) -> str:
    """The plan as a table of kinds of files, with sums, licence and what is unusual."""
    remote, todo = plan.remote, plan.n_bytes - plan.n_here
    rows = [("files", "number", "all", "here", "to fetch")]
    rows += [_row(kind, files) for kind, files in _by_kind(plan.files).items()]
    rows.append(_row("together", plan.files))
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    table = ["  ".join([row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in range(1, 5))]) for row in rows]
    return "\n".join(
        [
            f"{remote.url} -> {remote.root}",
            f"licence: {remote.licence}",
            *table,
            f"{gigabytes(todo)} to fetch, {gigabytes(plan.free_bytes)} free on the disk",
            *_remarks(plan),
        ]
    )


def gigabytes(n_bytes: int) -> str:
    """A size in GB, or in MB or kB where it is small.

    >>> gigabytes(20_100_000_000), gigabytes(42_000_000), gigabytes(0)
    ('20.10 GB', '42.00 MB', '0')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.2f} {name}"
    return f"{n_bytes / 1000:.2f} kB" if n_bytes else "0"


def _planned(root: Path, file: RemoteFile, ledger: Ledger) -> PlannedFile:
    local, verified = root / file.path, ledger.verified(file.path)
    if verified is not None:
        same = verified[0].version == file.version and verified[0].n_bytes == file.n_bytes
        return PlannedFile(file, "whole", file.n_bytes) if same else PlannedFile(file, "outdated", 0)
    if pointer_problem(local) is not None:
        return PlannedFile(file, "pointer", 0)
    if local.is_dir():
        raise DownloadError(f"{local} is a folder, and should be a file of {file.n_bytes} bytes. Move it away.")
    if local.is_file():
        right_size = local.stat().st_size == file.n_bytes
        return PlannedFile(file, "unchecked", file.n_bytes) if right_size else PlannedFile(file, "other", 0)
    n_partial = ledger.n_partial(file)
    return PlannedFile(file, "partial" if n_partial else "absent", n_partial)


def _missing_text(remote: Remote, host: Host, missing: Sequence[str]) -> str:
    lines = [f"{len(missing)} of {len(remote.paths)} files are not at {remote.url}. Nothing was fetched."]
    for path in missing[:MAX_NAMED]:
        neighbours = host.neighbours(path)
        near = nearest(path, neighbours)
        hint = (
            f"did you mean {near}?"
            if near
            else f"there is: {few(neighbours, MAX_NAMED)}"
            if neighbours
            else "not there"
        )
        lines.append(f"  {path}: {hint}")
    if len(missing) > MAX_NAMED:
        lines.append(f"  and {len(missing) - MAX_NAMED} more")
    return "\n".join([*lines, "Check the names of stories and subjects, and the url."])


def _by_kind(files: Iterable[PlannedFile]) -> dict[str, list[PlannedFile]]:
    """By folder and ending; by ending alone where that would be a long table."""
    by_folder: dict[str, list[PlannedFile]] = defaultdict(list)
    by_ending: dict[str, list[PlannedFile]] = defaultdict(list)
    for file in files:
        folder, _, name = file.remote.path.rpartition("/")
        stem, dot, ending = name.partition(".")
        kind = f"*.{ending}" if dot and stem else name
        by_ending[kind].append(file)
        by_folder[f"{folder}/{kind}" if folder else kind].append(file)
    chosen = by_folder if len(by_folder) <= _MAX_ROWS else by_ending
    return {files[0].remote.path if len(files) == 1 else kind: files for kind, files in sorted(chosen.items())}


def _row(kind: str, files: Sequence[PlannedFile]) -> tuple[str, str, str, str, str]:
    n_bytes, n_here = sum(file.remote.n_bytes for file in files), sum(file.n_here for file in files)
    return kind, str(len(files)), gigabytes(n_bytes), gigabytes(n_here), gigabytes(n_bytes - n_here)


def _remarks(plan: DownloadPlan) -> Iterable[str]:
    remarks: dict[State, str] = {
        "unchecked": "are here with the right size and will be compared with the published ones",
        "partial": "were begun and will be continued",
        "pointer": "are only pointers of a version control system and will be replaced by the content",
        "outdated": "were published anew since they were fetched, and will be fetched again",
        "other": "are here and differ from the published ones",
    }
    for state, remark in remarks.items():
        paths = [file.remote.path for file in plan.files if file.state == state]
        if paths:
            yield f"{len(paths)} {remark}: {few(paths, MAX_NAMED)}"


def missing_locally(remote: Remote) -> list[str]:
    """Paths that are asked for and not there (a pointer is not there; one match is enough for a pattern)."""
    return [path for path in remote.paths if not any(map(_is_there, _candidates(remote.root, path)))]


def _candidates(root: Path, path: str) -> Iterable[Path]:
    return root.glob(checked_path(path)) if is_pattern(path) else [root / checked_path(path)]


def _is_there(path: Path) -> bool:
    return path.is_file() and not path.name.endswith(PART_SUFFIX) and pointer_problem(path) is None
