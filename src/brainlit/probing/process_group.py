"""The processes of a run exchange what a probe found, however long it takes.

The collectives of training (all-reduce, barrier) give up after some minutes, and then the run is lost; a probe may take
longer. Probes therefore have a gloo group of their own (CPU, sockets) with a time-out of a day. A process that fails
tells the others, and one that dies is noticed at once: the system closes its connections.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    import lightning.pytorch as pl

log = logging.getLogger(__name__)

TIME_OUT = timedelta(days=1)
SAY_EVERY_S = 60.0
_FIRST_LOOK_S, _LAST_LOOK_S = 0.001, 0.2


class ElsewhereError(RuntimeError):
    """Another process of the run has failed, or has died."""


class ProcessGroup:
    """The processes of a run, and what they tell each other; a context around each thing that they do together.

    Inside the context all of them call `broadcast` and `gather` in the same order. A process that leaves it on an error
    says so at its next exchange, where all others raise an ElsewhereError with its message; no process leaves before
    all are done. With one process everything is done at once, and nothing is opened.

    Parameters
    ----------
    rank, n_ranks : int
    handle : torch.distributed.ProcessGroup, optional
        A group of all processes whose backend moves CPU tensors; needed where there are several.
    """

    def __init__(self, rank: int = 0, n_ranks: int = 1, handle: Any = None) -> None:
        self.rank, self.n_ranks, self._handle = rank, n_ranks, handle

    @classmethod
    def of_trainer(cls, trainer: pl.Trainer) -> Self:
        """A new group of the trainer's processes; to be called by all of them where they are in step, as in setup."""
        if trainer.world_size == 1:
            return cls()
        return cls(trainer.global_rank, trainer.world_size, dist.new_group(backend="gloo", timeout=TIME_OUT))

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes results."""
        return self.rank == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an ElsewhereError nobody waits for another exchange: all have seen the same failure, or one is dead.
        if self.n_ranks == 1 or isinstance(error, ElsewhereError):
            return
        if error is None:
            self._agree()
            return
        log.error("process %d of the run stops: %s: %s", self.rank, type(error).__name__, error)
        try:
            self._agree(error)
        except ElsewhereError as other:  # its own error is the one to see
            log.error("%s", other)

    def broadcast(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, in every process; only the first calls `make`."""
        if self.n_ranks == 1:
            return make()
        content = pickle.dumps(make()) if self.is_first else b""
        sizes = self._agree(n_bytes=len(content))
        buffer = _as_tensor(content) if self.is_first else torch.empty(sizes[0], dtype=torch.uint8)
        self._wait(dist.broadcast(buffer, 0, self._handle, async_op=True))
        return pickle.loads(_as_bytes(buffer))

    def gather(self, value: Any) -> list[Any]:
        """In the first process the values of all, by rank; nothing in the others.

        Values go from socket to socket: no disk that all processes see is needed, and nothing is left to tidy up.
        """
        if self.n_ranks == 1:
            return [value]
        content = pickle.dumps(value)
        sizes = self._agree(n_bytes=len(content))
        # Shares are about equal, so filling all up to the longest costs little; sends of one to one cannot be polled.
        own = _as_tensor(content.ljust(max(sizes), b"\0"))
        everyones = [torch.empty_like(own) for _ in sizes] if self.is_first else None
        self._wait(dist.gather(own, everyones, 0, self._handle, async_op=True))
        # The padding behind the end of a pickle is not looked at.
        return [] if everyones is None else [pickle.loads(_as_bytes(buffer)) for buffer in everyones]

    # --- How ---

    def _agree(self, error: BaseException | None = None, n_bytes: int = 0) -> list[int]:
        """Begin an exchange: the bytes that each process will send, once all are here and none has failed.

        Every exchange begins so, whatever it is, also the last one of a context. A process that failed before thus
        meets the others at the exchange that they come to next, and it is the last one for all of them.

        Raises
        ------
        ElsewhereError
            With the message of the first process that failed, if it is another one.
        """
        message = b"" if error is None else f"{type(error).__name__}: {error}".encode()
        header = torch.tensor([n_bytes, error is not None, len(message)])
        n_bytes_of, has_failed, n_said = torch.stack(self._all_gather(header)).T.tolist()
        failed = [rank for rank, has in enumerate(has_failed) if has]
        if failed:
            padded = self._all_gather(_as_tensor(message.ljust(max(n_said), b"\0")))
            others = [rank for rank in failed if rank != self.rank]
            if others:
                said = _as_bytes(padded[others[0]])[: n_said[others[0]]].decode()
                raise ElsewhereError(f"process {others[0]} of the run stopped: {said}")
        return list(n_bytes_of)

    def _all_gather(self, own: Tensor) -> list[Tensor]:
        everyones = [torch.empty_like(own) for _ in range(self.n_ranks)]
        self._wait(dist.all_gather(everyones, own, self._handle, async_op=True))
        return everyones

    def _wait(self, work: Any) -> None:
        """Until the exchange is over; looks now and then, so that signals (Ctrl-C, SLURM's) are heard meanwhile."""
        started = said = time.monotonic()
        pause = _FIRST_LOOK_S
        try:
            while not work.is_completed():
                time.sleep(pause)
                pause = min(1.5 * pause, _LAST_LOOK_S)
                now = time.monotonic()
                if now - said > SAY_EVERY_S:
                    said = now
                    log.info("process %d has waited for another one for %.0f s", self.rank, now - started)
            work.wait()
        except RuntimeError as error:
            raise ElsewhereError(
                "another process of the run is gone: it was probably ended from outside, for want of memory, say. Its"
                f" log may tell; resume the run from its last checkpoint. ({error})"
            ) from error


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _as_bytes(values: Tensor) -> bytes:
    return values.numpy().tobytes()
