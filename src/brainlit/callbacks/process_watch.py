"""A run of several processes ends soon after one of them is gone, and says which one that was.

A process that is killed, for want of memory, say, leaves the others in exchanges that it never comes to: NCCL may wait
until its time-out, gloo ends them with words about a socket, and one that computes by itself does not notice. So each
process holds a connection to the first one, and says a word before it leaves. The system closes the connections of a
process that dies in whatever way, and however busy the machine is: an end without a word is known at once, and a
process that is merely slow, or halted, is never taken for a dead one. With one process nothing is opened.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from weakref import WeakMethod

from lightning.pytorch import Callback, LightningModule, Trainer

from brainlit.callbacks.resume import gathered

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long a process may take to end by itself after another one said that it stops, on an error or on a signal."""
NEWS_WITHIN_S = 5.0
"""How long an error that may come of another process's end waits for the news of it."""
CONNECT_WITHIN_S = 30.0
GREET_WITHIN_S = 5.0
LOOK_EVERY_S = 0.5
"""How often the thread looks whether there is nothing more to wait for; words and ends wake it at once."""
KEY_BYTES, RANK_BYTES = 16, 4
SILENCE_S, N_SILENCES = 10, 4
"""A machine that vanishes closes no connection: after so many seconds of silence the system asks, so many times."""
_HERE = "127.0.0.1"


class ProcessesDifferError(RuntimeError):
    """The processes of a run would not do the same."""


class ProcessWatch(Callback):
    """End this process with one error soon after another one of the run is gone; see that all begin at one place.

    Nothing is tidied up then: what the run has on disk is what a killed run has, and the same command goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watch: Watch | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the processes.

        Raises
        ------
        ProcessesDifferError
            If they would begin from different checkpoints: out of step, they would wait for each other.
        """
        if trainer.world_size == 1 or self._watch is not None:
            return
        cure = "Give the same command again."
        if stage == "fit":
            folder = Path(trainer.default_root_dir) / "checkpoints"
            cure = f"The same command goes on from the last checkpoint in {folder}, or begins anew if there is none."
        host = os.environ["MASTER_ADDR"] if trainer.num_nodes > 1 else None
        self._watch = Watch(trainer.global_rank, trainer.world_size, trainer.strategy.broadcast, host, cure)
        own = "the beginning" if trainer.ckpt_path is None else str(Path(trainer.ckpt_path).resolve())
        first, *others = (one["start"] for one in gathered({"start": own}, trainer.world_size))
        for rank, other in enumerate(others, start=1):
            if other != first:
                raise ProcessesDifferError(
                    f"process 0 of this run would begin from {first}, and process {rank} from {other}. All have to see"
                    " one folder of runs: look at --run.root and at the disk on which it lies, and give the same"
                    " command again."
                )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others; but an exchange may fail since one of them is gone, so wait whether there is such news."""
        if self._watch is not None:
            if isinstance(exception, RuntimeError):
                self._watch.has_news.wait(NEWS_WITHIN_S)
            self._leave(exception)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the others that this process is done."""
        self._leave()

    def _leave(self, error: BaseException | None = None) -> None:
        if self._watch is not None:
            self._watch.leave(error)
            self._watch = None


class Watch:
    """This process's connections (the first one's to all others, theirs to the first), and a thread that listens.

    A message is a word, a rank and a reason: `done` and `stopped` are what a process says of itself before it leaves,
    and `gone` is what the first one says of another. One that hears the last, or finds a connection closed without a
    word, ends at once with status 1. The first process passes on what it hears.

    Parameters
    ----------
    rank, n_ranks : int
    share : callable
        Gives what the first process puts in to all of them; they call it together.
    host : str, optional
        Name or address by which other machines reach the first process; without it all are on this machine.
    cure : str
        What to do, for the error.

    Attributes
    ----------
    has_news : threading.Event
        Set when another process has said that it stops on an error.
    """

    def __init__(
        self, rank: int, n_ranks: int, share: Callable[[Any], Any], host: str | None = None, cure: str = ""
    ) -> None:
        self.rank, self.n_ranks, self._far, self._cure = rank, n_ranks, host is not None, cure
        self.has_news, self._leaves, self._left = threading.Event(), threading.Event(), threading.Event()
        self._deadline_s, self._news, self._why = float("inf"), "", ""
        self._lines: dict[Connection, int] = {}  # and the rank at the other end
        self._server: socket.socket | None = None
        _call_in_forks(WeakMethod(self.close_copies))
        if rank == 0:
            self._server = socket.create_server(("" if self._far else _HERE, 0), backlog=n_ranks)
            key = secrets.token_bytes(KEY_BYTES)
            share((self._server.getsockname()[1], key))
        else:
            port, key = share(None)
            self._reach_first(host or _HERE, port, key)
        threading.Thread(target=self._listen, args=(key,), daemon=True, name="process-watch").start()

    def leave(self, error: BaseException | None = None) -> None:
        """Say that this process is done, or stops on an error, and listen no more."""
        self._leaves.set()  # those who hear it close their ends, which means nothing from now on
        first_line = (str(error).strip().splitlines() or [""])[0]
        self._tell(
            f"done {self.rank} " if error is None else f"stopped {self.rank} {type(error).__name__}: {first_line}"
        )
        self._left.set()  # and the thread closes ours

    def close_copies(self) -> None:
        """In a forked process: it may outlive this one, and its copies would hide that this one is gone."""
        for one in (*self._lines, self._server):
            if one is not None:
                one.close()

    # --- Connections ---

    def _reach_first(self, host: str, port: int, key: bytes) -> None:
        try:
            line = socket.create_connection((host, port), timeout=CONNECT_WITHIN_S)
            line.sendall(key + self.rank.to_bytes(RANK_BYTES))
            if not line.recv(1):  # without an answer, what the first says could miss this process
                raise ConnectionError("it has left")
        except OSError as error:
            log.warning("process %d is not told if another one dies: the first is out of reach (%s)", self.rank, error)
            return
        self._keep(line, 0)

    def _let_in(self, server: socket.socket, key: bytes) -> int | None:
        """The rank of the one that asks; whoever does not know the key is sent away."""
        line, (host, *_) = server.accept()
        line.settimeout(GREET_WITHIN_S)
        said = b""
        with suppress(OSError), line.makefile("rb") as file:  # silent, or gone again
            said = file.read(KEY_BYTES + RANK_BYTES)
        if len(said) < KEY_BYTES + RANK_BYTES or not hmac.compare_digest(said[:KEY_BYTES], key):
            log.warning("somebody at %s who is no process of this run asked for it, and was sent away", host)
            line.close()
            return None
        rank = int.from_bytes(said[KEY_BYTES:])
        with suppress(OSError):  # whoever is gone is found so by listening
            line.sendall(b"!")
        self._keep(line, rank)
        if self.has_news.is_set():
            self._tell(self._news)
        return rank

    def _keep(self, line: socket.socket, rank: int) -> None:
        line.settimeout(None)
        if self._far:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE_S)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, N_SILENCES)
        self._lines[Connection(line.detach())] = rank

    def _tell(self, message: str) -> None:
        for line in list(self._lines):
            with suppress(OSError):  # whoever is gone is found so by listening
                line.send_bytes(message.encode())

    # --- Listening ---

    def _listen(self, key: bytes) -> None:
        awaited = set(range(1, self.n_ranks)) if self.rank == 0 else set[int]()
        while not self._left.is_set() and (self._lines or awaited or self.has_news.is_set()):
            server = [self._server] if self._server is not None and awaited else []
            for one in wait([*self._lines, *server], LOOK_EVERY_S):
                if isinstance(one, Connection):
                    self._hear(one)
                elif isinstance(one, socket.socket):
                    awaited.discard(self._let_in(one, key) or 0)
            if time.monotonic() > self._deadline_s:
                self._tell(f"stopped {self.rank} {self._why}")
                self._end(f"{self._why}, and this one did not end by itself within {PATIENCE_S:.0f} s: it is ended")
        self._left.wait()
        self.close_copies()

    def _hear(self, line: Connection) -> None:
        its_rank = str(self._lines[line])
        try:
            word, rank, why = line.recv_bytes().decode().split(" ", maxsplit=2)
        except (EOFError, OSError):
            word, rank, why = "gone", its_rank, ""
        who = f"process {rank} of the {self.n_ranks} of this run"
        if word == "gone":
            self._tell(f"gone {rank} ")
            self._end(
                f"{who} is gone: it was ended from outside, for want of memory, say, or its machine cannot be reached;"
                " its log or the system's may tell. This one ends, too"
            )
        if word == "stopped" and not self.has_news.is_set():
            self._news, self._why = f"stopped {rank} {why}", f"{who} stopped ({why})"
            self._tell(self._news)
            self._deadline_s = time.monotonic() + PATIENCE_S
            if not self._leaves.is_set():
                _say(f"{self._why}; this one ends, too.")
            self.has_news.set()
        if rank == its_rank:
            del self._lines[line]
            line.close()

    def _end(self, why: str) -> None:
        """At once, wherever the main thread is: in an exchange it hears nothing, and waits for somebody who is gone."""
        if not self._leaves.is_set():
            _say(f"error: {why}. {self._cure}")
            os._exit(1)


def _say(text: str) -> None:
    """On stderr, and past its buffer, which the main thread may hold."""
    os.write(2, f"{text}\n".encode())


def _call_in_forks(method: WeakMethod[Callable[[], None]]) -> None:
    """Workers of a loader are forks. Python forgets no such call, so it holds nothing of the watch."""

    def call() -> None:
        if (alive := method()) is not None:
            alive()

    os.register_at_fork(after_in_child=call)
