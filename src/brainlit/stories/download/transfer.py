"""Fetch what a plan says: several files at once, each checked before it gets its name, none lost to an interruption."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Literal, get_args

from tqdm import tqdm

from brainlit.files import to_disk
from brainlit.stories.download.hosts import DownloadError, Host, RemoteFile, RestartError, UnreachableError
from brainlit.stories.download.plan import DownloadPlan, PlannedFile, gigabytes
from brainlit.stories.download.verify import SIZE_ONLY, Ledger, MismatchError, check_file, part_path, pointer_problem

logger = logging.getLogger(__name__)

FETCH_THREADS = 4
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Between attempts at one file during which not a byte came; the clients wait by themselves before that."""
_MAX_RESTARTS = 3
_GIVE_UP_AFTER = 3
"""Files in a row for which the server could not be reached, after which the others are not tried."""

OnDifference = Literal["refuse", "keep", "replace"]
ON_DIFFERENCE: tuple[OnDifference, ...] = get_args(OnDifference)


class _TooMuchError(DownloadError):
    """More bytes come than the server said."""


class _StoppedError(DownloadError):
    """Others asked this thread to end."""


class Transfer:
    """One run through a plan. `run` raises nothing for single files: see `failures`.

    Parameters
    ----------
    on_difference, progress
        As in `brainlit.stories.download.download`.

    Attributes
    ----------
    fetched, checked, size_only, kept
        As in `brainlit.stories.download.DownloadReport`.
    failures : dict of path to reason
    untried : list of str
        Files that were not begun, because the disk was full or the server was gone.
    """

    def __init__(
        self, plan: DownloadPlan, host: Host, ledger: Ledger, on_difference: OnDifference, progress: bool
    ) -> None:
        self.plan, self.host, self.ledger, self.on_difference = plan, host, ledger, on_difference
        self.root = plan.remote.root
        self.fetched: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        self.kept: list[str] = []
        self.size_only: list[str] = []
        self.checked: Counter[str] = Counter()
        self.untried: list[str] = []
        self._stop, self._lock, self._n_unreachable = threading.Event(), threading.Lock(), 0
        todo = sum(f.remote.n_bytes - (f.n_here if f.state == "partial" else 0) for f in self._todo())
        pause_s = 0.5 if sys.stderr.isatty() else 30
        self._bar = tqdm(total=todo, unit="B", unit_scale=True, disable=not progress, mininterval=pause_s)

    def run(self) -> None:
        """Fetch and check; everything that could be fetched is there afterwards, whatever became of the rest."""
        for file in self.plan.files:
            if file.state == "whole" and (found := self.ledger.verified(file.remote.path)):
                self._count(file.remote.path, found[1])
        with self._bar, ThreadPoolExecutor(FETCH_THREADS) as pool:
            futures = [pool.submit(self._one, file) for file in self._todo()]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:  # Ctrl-C arrives here: the threads end at their next chunk
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                self._save()
        left = (file.remote.path for file in self._todo())
        settled = {*self.failures, *self.kept}
        self.untried = [path for path in left if path not in settled and self.ledger.verified(path) is None]

    def _save(self) -> None:
        try:
            self.ledger.save()
        except OSError as error:  # a full disk; what became of the files is more important
            logger.warning("%s could not be written (%s).", self.ledger.path, error)

    def _todo(self) -> list[PlannedFile]:
        return [file for file in self.plan.files if file.state != "whole"]

    def _one(self, planned: PlannedFile) -> None:
        """One file; what goes wrong with it is noted, and what will go wrong with all others stops them."""
        path = planned.remote.path
        if self._stop.is_set():
            return
        try:
            self._settle(planned)
            self._n_unreachable = 0
            return
        except _StoppedError:
            pass
        except UnreachableError as error:
            self.failures[path] = str(error)
            with self._lock:
                self._n_unreachable += 1
            if self._n_unreachable >= _GIVE_UP_AFTER:
                self._stop.set()
        except DownloadError as error:
            self.failures[path] = str(error)
        except OSError as error:
            self.failures[path] = f"{error.strerror or error} ({error.filename or path})"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._stop.set()
        part = part_path(self.root / path)
        if part.is_file() and not part.stat().st_size:
            part.unlink()

    def _settle(self, planned: PlannedFile) -> None:
        """Leave the file whole under its name, or raise."""
        file, local = planned.remote, self.root / planned.remote.path
        self._bar.set_description_str(local.name, refresh=False)
        if planned.state == "unchecked" and self._is_whole_already(local, file):
            return
        if planned.state in ("unchecked", "other") and not self._may_replace(file, local):
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        file, checked = self._fetch_checked(file, local)
        part_path(local).replace(local)
        to_disk(local.parent)  # the new name, too
        self._finish(file, checked)

    def _is_whole_already(self, local: Path, file: RemoteFile) -> bool:
        try:
            self._finish(file, check_file(local, file, self.host, self._tick))
        except MismatchError:
            with self._lock:
                self._bar.total += file.n_bytes
            return False
        return True

    def _may_replace(self, file: RemoteFile, local: Path) -> bool:
        """What was asked for is done with a file that differs; False if it stays."""
        if self.on_difference == "replace":
            return True
        if self.on_difference == "keep":
            self.kept.append(file.path)
            return False
        raise DownloadError(
            f"{local} ({local.stat().st_size} bytes) differs from the published file ({file.n_bytes} bytes) and was"
            " not touched. Delete it, or say what is meant: --on-difference replace fetches it, keep leaves it."
        )

    def _fetch_checked(self, file: RemoteFile, local: Path) -> tuple[RemoteFile, str]:
        """The published bytes in the partial file, and by what they agree; wrong ones are fetched once more."""
        problems = []
        for _ in range(2):
            file = self._fetch(file, local)
            try:
                checked = check_file(part_path(local), file, self.host, self._go_on)
            except MismatchError as error:
                problems.append(str(error))
                part_path(local).unlink()
                with self._lock:
                    self._bar.total += file.n_bytes
                continue
            if (problem := pointer_problem(part_path(local))) is not None:
                part_path(local).unlink()
                raise DownloadError(f"the server has no content for it either: {problem}")
            return file, checked
        raise DownloadError(
            f"what came is not what was published: {problems[0]}; fetched again, {problems[1]}. A proxy or the disk"
            " may be at fault, or the publisher's copy is damaged: try again later or from another network, and tell"
            " the publisher. Nothing of it was kept."
        )

    def _fetch(self, file: RemoteFile, local: Path) -> RemoteFile:
        """Append to the partial file until it is complete, through interruptions; returns what was fetched."""
        part, n_restarts, n_idle = part_path(local), 0, 0
        if not self.ledger.n_partial(file):
            self._begin(file, part)
        while True:
            before = part.stat().st_size
            try:
                self._append(file, part)
                return file
            except RestartError as error:
                n_restarts += 1
                if n_restarts > _MAX_RESTARTS:
                    raise DownloadError(f"{error} That happened {n_restarts} times; try again later.") from error
                file = self._look_again(file)
                self._begin(file, part)
            except _TooMuchError:
                part.unlink()  # its length alone would make it look whole
                raise
            except UnreachableError:
                self._go_on()
                n_idle = 0 if part.stat().st_size > before else n_idle + 1
                if n_idle > len(PAUSES_S):
                    raise
                self._stop.wait(PAUSES_S[max(n_idle - 1, 0)])

    def _begin(self, file: RemoteFile, part: Path) -> None:
        """An empty partial file. The old one goes before the ledger speaks of the new one: a kill may come between."""
        part.unlink(missing_ok=True)
        self.ledger.begin(file)
        part.touch()

    def _look_again(self, file: RemoteFile) -> RemoteFile:
        now = self.host.stat(file.path, again=True)
        if now is None:
            raise DownloadError(f"{file.path} is no longer at {self.plan.remote.url}.")
        return now

    def _append(self, file: RemoteFile, part: Path) -> None:
        """Everything from the partial file's end on, safely on the disk."""
        with part.open("ab") as stream:
            start = stream.tell()
            if start < file.n_bytes:
                with closing(self.host.read(file, start)) as chunks:
                    for chunk in chunks:
                        self._go_on()
                        if stream.tell() + len(chunk) > file.n_bytes:
                            raise _TooMuchError(
                                f"the server said {file.n_bytes} bytes ({gigabytes(file.n_bytes)}) and sends more."
                                " Nothing of it was kept; try again later, or tell the publisher."
                            )
                        stream.write(chunk)
                        self.fetched[file.path] = self.fetched.get(file.path, 0) + len(chunk)
                        self._tick(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
            if stream.tell() < file.n_bytes:
                raise UnreachableError(f"the connection ended after {gigabytes(stream.tell())}.")

    def _go_on(self, n_bytes: int = 0) -> None:
        """Raise if the others are ending."""
        if self._stop.is_set():
            raise _StoppedError("stopped")

    def _tick(self, n_bytes: int) -> None:
        self._go_on()
        with self._lock:
            self._bar.update(n_bytes)

    def _finish(self, file: RemoteFile, checked: str) -> None:
        self.ledger.finish(file, checked)
        self._count(file.path, checked)

    def _count(self, path: str, checked: str) -> None:
        with self._lock:
            self.checked[checked] += 1
            if checked == SIZE_ONLY:
                self.size_only.append(path)
