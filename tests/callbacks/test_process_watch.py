"""Processes without a trainer that watch each other: one is killed, fails, is slow, or is done before the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brainlit.callbacks import process_watch
from brainlit.callbacks.process_watch import ProcessesDifferError, ProcessWatch, Watch

N_RANKS = 3
ENDS_WITHIN_S = 60.0
FORKED = multiprocessing.get_context("fork")
Work = Callable[[int, Watch], None]
Begin = Callable[..., list[Any]]


def stuck(rank: int, watch: Watch) -> None:
    """Wait for ever, as in an exchange with one who is gone; a worker of a loader has copies of all connections."""
    if os.fork() == 0:
        time.sleep(ENDS_WITHIN_S + 30)
        os._exit(0)
    (Path.cwd() / f"ready-{rank}").touch()
    threading.Event().wait()


def stranger(port: int) -> None:
    """Somebody who does not know the key is sent away."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(bytes(process_watch.KEY_BYTES + process_watch.RANK_BYTES))
        assert line.recv(1) == b""


def process(rank: int, told: Any, folder: Path, work: Work, host: str | None) -> None:
    """One of the processes, in a group of its own, with what it says in a file."""
    os.setpgrp()
    os.chdir(folder)
    log = os.open(f"log-{rank}", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 2)

    def share(value: Any) -> Any:
        if rank == 0:
            for _ in range(N_RANKS - 1):
                told.put(value)
            return value
        value = told.get()
        stranger(value[0])
        return value

    work(rank, Watch(rank, N_RANKS, share, host, cure="Do it again."))


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start all processes with some work."""
    begun: list[Any] = []

    def start(work: Work, host: str | None = None) -> list[Any]:
        told = FORKED.SimpleQueue()
        begun.extend(FORKED.Process(target=process, args=(rank, told, tmp_path, work, host)) for rank in range(N_RANKS))
        for one in begun:
            one.start()
        return begun

    yield start
    for one in begun:
        try:
            os.killpg(one.pid, signal.SIGKILL)  # and the workers, which outlive them
        except ProcessLookupError:
            continue
        finally:
            one.join()


def statuses(processes: list[Any]) -> list[int | None]:
    """Their exit statuses; not by `join`, for workers that they forked hold the pipe on which that waits."""
    last_s = time.monotonic() + ENDS_WITHIN_S
    while any(one.exitcode is None for one in processes) and time.monotonic() < last_s:
        time.sleep(0.01)
    return [one.exitcode for one in processes]


def said(folder: Path, rank: int) -> str:
    return (folder / f"log-{rank}").read_text()


@pytest.mark.parametrize(("victim", "host"), [(0, None), (1, None), (1, "localhost")])
def test_all_end_with_an_error_when_one_is_killed(begin: Begin, tmp_path: Path, victim: int, host: str | None) -> None:
    """With a host they meet as processes on several machines do."""
    processes = begin(stuck, host)
    while not all((tmp_path / f"ready-{rank}").exists() for rank in range(N_RANKS)):
        time.sleep(0.01)
    processes[victim].kill()
    assert statuses(processes) == [-signal.SIGKILL if rank == victim else 1 for rank in range(N_RANKS)]
    for rank in {0, 1, 2} - {victim}:
        assert said(tmp_path, rank).startswith(f"error: process {victim} of the 3 of this run is gone: ")
        assert said(tmp_path, rank).endswith("Do it again.\n")


def test_who_is_slow_or_done_is_not_lost(begin: Begin, tmp_path: Path) -> None:
    """The second process is done at once, the first goes on for a second, and the third is halted meanwhile."""

    def work(rank: int, watch: Watch) -> None:
        if rank == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.0 if rank == 1 else 1.0)
        watch.leave()

    processes = begin(work)
    assert statuses(processes[:2]) == [0, 0]
    assert processes[2].exitcode is None
    os.kill(processes[2].pid, signal.SIGCONT)
    assert statuses(processes) == [0, 0, 0]
    assert [said(tmp_path, rank) for rank in (1, 2)] == ["", ""]
    assert said(tmp_path, 0).count("was sent away") in (0, N_RANKS - 1), (
        "nothing but strangers, where warnings are shown"
    )


def test_who_stops_on_an_error_says_it_and_the_others_have_time_to_end(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_watch, "PATIENCE_S", 1.0)

    def work(rank: int, watch: Watch) -> None:
        if rank == 1:
            watch.leave(ValueError("no story\nof that name"))
            return
        assert watch.has_news.wait(ENDS_WITHIN_S)
        if rank == 2:
            watch.leave(RuntimeError("a connection was closed"))
            os._exit(7)
        threading.Event().wait()

    assert statuses(begin(work)) == [1, 0, 7]
    words = "process 1 of the 3 of this run stopped (ValueError: no story)"
    assert said(tmp_path, 2) == f"{words}; this one ends, too.\n"
    assert (
        said(tmp_path, 0).splitlines()[-1].startswith(f"error: {words}, and this one did not end by itself within 1 s")
    )


def trainer(world_size: int, start: str | None = None) -> Any:
    strategy = SimpleNamespace(broadcast=lambda value: value)
    return SimpleNamespace(
        world_size=world_size, global_rank=0, num_nodes=1, strategy=strategy, ckpt_path=start, default_root_dir="mine"
    )


def watching() -> int:
    return sum(thread.name == "process-watch" for thread in threading.enumerate())


def test_one_process_watches_nobody() -> None:
    before = watching()
    ProcessWatch().setup(trainer(1), None, "fit")  # type: ignore[arg-type]
    assert watching() == before


def test_processes_that_would_begin_at_different_places_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, callback = str(tmp_path / "last.ckpt"), ProcessWatch()
    monkeypatch.setattr(process_watch, "gathered", lambda own, n: [own, {"start": last}])
    with pytest.raises(ProcessesDifferError, match=f"process 0 .* from the beginning, and process 1 from {last}"):
        callback.setup(trainer(2), None, "fit")  # type: ignore[arg-type]
    callback.teardown(trainer(2), None, "fit")  # type: ignore[arg-type]
    monkeypatch.setattr(process_watch, "gathered", lambda own, n: [own] * n)
    callback.setup(trainer(2, last), None, "fit")  # type: ignore[arg-type]
    callback.teardown(trainer(2, last), None, "fit")  # type: ignore[arg-type]
