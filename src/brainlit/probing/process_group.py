"""Processes of one run meet through files, so that none waits in a collective while another computes.

A collective (all-reduce, barrier) gives up after its time-out, some minutes by default, and then the run is lost. A
probe may take longer. Here the processes wait by looking for files in the run directory, which they share, as often and
as long as it takes; a process that fails leaves its reason there, and one that dies is noticed by its silence.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)

FOLDER = ".meeting"
BEAT_S = 5.0
SAY_EVERY_S = 60.0
FIRST_LOOK_S, LAST_LOOK_S = 0.01, 1.0


class ElsewhereError(RuntimeError):
    """Another process of the run has failed, or has died."""


class Meeting:
    """One thing that the processes of a run do together; a context.

    With one process everything is done at once and no file is written. Leave the context on an error and the others
    raise an ElsewhereError with its message instead of waiting.

    Parameters
    ----------
    folder : Path
        Not used before by another meeting, on a disk that all processes see.
    rank, n_ranks : int
    silent_s : float
        After so long without a sign of life another process counts as dead.
    beat_s : float
        Seconds between signs of life.
    """

    def __init__(
        self, folder: Path, rank: int = 0, n_ranks: int = 1, silent_s: float = 600.0, beat_s: float = BEAT_S
    ) -> None:
        self.folder, self.rank, self.n_ranks = Path(folder), rank, n_ranks
        self.silent_s, self.beat_s = silent_s, beat_s
        self._ended = threading.Event()
        self._pulse: threading.Thread | None = None
        self._seen: dict[int, tuple[str, float]] = {}

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes results."""
        return self.rank == 0

    def __enter__(self) -> Self:
        if self.n_ranks > 1:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._pulse = threading.Thread(target=self._beat, name="signs of life", daemon=True)
            self._pulse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.n_ranks > 1 and error is not None and not isinstance(error, ElsewhereError):
                self.put("failed", f"{type(error).__name__}: {error}")
            elif self.n_ranks > 1 and error is None:
                self._leave()
        finally:
            self._end_pulse()

    # --- What is exchanged ---

    def tell(self, name: str, say: Callable[[], Any]) -> Any:
        """What the first process says, as plain JSON, in every process; only the first calls `say`."""
        if self.is_first:
            value = say()
            if self.n_ranks > 1:
                self.put(name, json.dumps(value))
            return value
        self.wait(name, [0])
        return json.loads(self.path(name, 0).read_text(encoding="utf-8"))

    def collect(self, name: str, value: Any) -> list[Any]:
        """In the first process the values (plain JSON) of all, by rank; nothing in the others."""
        if self.n_ranks == 1:
            return [value]
        self.put(name, json.dumps(value))
        if not self.is_first:
            return []
        self.wait(name, range(self.n_ranks))
        return [json.loads(self.path(name, k).read_text(encoding="utf-8")) for k in range(self.n_ranks)]

    def put(self, name: str, text: str = "") -> None:
        """Leave a text under a name of this process; readers see all of it or nothing."""
        path = self.path(name, self.rank)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)

    def path(self, name: str, rank: int) -> Path:
        """Where a process leaves something."""
        return self.folder / f"{name}-{rank}"

    def wait(self, name: str, ranks: Any) -> None:
        """Return once these processes have left something under the name.

        Raises
        ------
        ElsewhereError
            If another process has failed or shows no sign of life.
        """
        started = said = time.monotonic()
        pause = FIRST_LOOK_S
        while missing := [rank for rank in ranks if not self.path(name, rank).exists()]:
            self._check_others(missing)
            now = time.monotonic()
            if now - said > SAY_EVERY_S:
                said = now
                log.info("process %d waits for %r of %s since %.0f s", self.rank, name, missing, now - started)
            time.sleep(pause)
            pause = min(1.5 * pause, LAST_LOOK_S)

    # --- How ---

    def _leave(self) -> None:
        """Nobody leaves before the first process is done; it is the last to leave, and tidies up.

        To have left is the last thing that the others write: the folder may be gone after that.
        """
        if not self.is_first:
            self.wait("done", [0])
            self._end_pulse()
            self.put("left")
        else:
            self.put("done")
            self.wait("left", range(1, self.n_ranks))
            self._end_pulse()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end_pulse(self) -> None:
        self._ended.set()
        if self._pulse is not None:
            self._pulse.join()

    def _check_others(self, missing: list[int]) -> None:
        for rank in range(self.n_ranks):
            failure = self.path("failed", rank)
            if rank != self.rank and failure.exists():
                raise ElsewhereError(f"process {rank} of the run stopped: {failure.read_text(encoding='utf-8')}")
        for rank in missing:
            self._check_alive(rank)

    def _check_alive(self, rank: int) -> None:
        alive = self.path("alive", rank)
        sign, now = alive.read_text(encoding="utf-8") if alive.exists() else "", time.monotonic()
        last, since = self._seen.get(rank, ("", now))
        if sign != last or rank not in self._seen:
            self._seen[rank] = (sign, now)
        elif now - since > self.silent_s:
            raise ElsewhereError(
                f"process {rank} of the run has shown no sign of life for {now - since:.0f} s: it was probably ended"
                " from outside, for want of memory, say. Its log may tell; resume the run from its last checkpoint."
            )

    def _beat(self) -> None:
        count = 0
        while not self._ended.is_set():
            self.put("alive", str(count))
            count += 1
            self._ended.wait(self.beat_s)


class Meetings:
    """The meetings of one callback, one after the other; every process must hold each of them.

    Parameters
    ----------
    silent_s : float
        See `Meeting`.
    """

    def __init__(self, silent_s: float = 600.0) -> None:
        self.silent_s = silent_s
        self._token, self._count = "", 0

    def set_up(self, trainer: Any) -> None:
        """Agree on a folder that no earlier process has used; to be called where processes are in step."""
        if trainer.world_size > 1:
            self._token = str(trainer.strategy.broadcast(secrets.token_hex(8), src=0))

    def next(self, trainer: Any) -> Meeting:
        """The next meeting, in the trainer's root directory."""
        self._count += 1
        folder = Path(trainer.default_root_dir) / FOLDER / f"{self._token}-{self._count}"
        return Meeting(folder, trainer.global_rank, trainer.world_size, self.silent_s)
