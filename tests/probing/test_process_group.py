"""Real processes that tell each other what they found, fail, or are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from brainlit.probing.process_group import TIME_OUT, ElsewhereError, ProcessGroup

N_RANKS = 3
COLLECTIVES_S = 1.0
"""Time-out of the default group's collectives."""

Work = Callable[[ProcessGroup], Any]


def serve(rank: int, folder: str, pipe: Connection) -> None:
    """One process: joins the others, then does what it is sent and sends back what it returns or raises."""
    store = dist.FileStore(f"{folder}/store", N_RANKS)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=N_RANKS, timeout=timedelta(seconds=COLLECTIVES_S)
    )
    # Made once, as a callback does in setup: what fails in one context must leave the group fit for the next one.
    group = ProcessGroup(rank, N_RANKS, dist.new_group(backend="gloo", timeout=TIME_OUT))
    while True:
        work: Work = pipe.recv()
        try:
            with group:
                found: Any = work(group)
        except (RuntimeError, ArithmeticError) as error:
            found = error
        pipe.send(found)


class Processes:
    """Three processes, started once for many things that they do together."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["brainlit.probing.process_group", "tests.probing.test_process_group"])
        ends = [context.Pipe() for _ in range(N_RANKS)]
        self.pipes = [here for here, _ in ends]
        self.workers = [
            context.Process(target=serve, args=(rank, str(folder), there), daemon=True)
            for rank, (_, there) in enumerate(ends)
        ]
        for worker in self.workers:
            worker.start()
        for _, there in ends:
            there.close()

    def do(self, work: Work, within_s: float = 60.0) -> list[Any]:
        """What the work returns or raises in each process; None where one ended instead."""
        for pipe in self.pipes:
            pipe.send(work)
        return [self._answer(pipe, within_s) for pipe in self.pipes]

    def _answer(self, pipe: Any, within_s: float) -> Any:
        assert pipe.poll(within_s), "a process is left waiting"
        try:
            return pipe.recv()
        except EOFError:
            return None

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.join()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    started = Processes(tmp_path_factory.mktemp("group"))
    yield started
    started.end()


def tell_and_collect(group: ProcessGroup) -> Any:
    told = group.broadcast(lambda: {"from": group.rank})
    return told, group.gather({"rank": group.rank, "many": np.full(group.rank * 100_000, group.rank)})


def test_the_first_tells_and_collects(processes: Processes) -> None:
    (told, found), *others = processes.do(tell_and_collect)
    assert others == [({"from": 0}, []), ({"from": 0}, [])]
    assert told == {"from": 0}
    assert [value["rank"] for value in found] == [0, 1, 2]
    for rank, value in enumerate(found):
        np.testing.assert_array_equal(value["many"], np.full(rank * 100_000, rank))


class Failing:
    """Fails in one process, before, between or after what the others exchange."""

    def __init__(self, rank: int, n_before: int) -> None:
        self.rank, self.n_before = rank, n_before

    def __call__(self, group: ProcessGroup) -> Any:
        steps: list[Callable[[], Any]] = [lambda: group.broadcast(lambda: 1), lambda: group.gather(1)]
        for step in steps[: self.n_before]:
            step()
        if group.rank == self.rank:
            raise ArithmeticError("no room")
        return [step() for step in steps[self.n_before :]]


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("n_before", [0, 1, 2])
def test_one_failure_stops_all_with_its_message(processes: Processes, failing: int, n_before: int) -> None:
    results = processes.do(Failing(failing, n_before))
    assert isinstance(results[failing], ArithmeticError)
    for other in results[:failing] + results[failing + 1 :]:
        assert isinstance(other, ElsewhereError)
        assert str(other) == f"process {failing} of the run stopped: ArithmeticError: no room"


def test_what_cannot_be_made_stops_all(processes: Processes) -> None:
    first, *others = processes.do(make_nothing)
    assert isinstance(first, ZeroDivisionError)
    assert {str(other) for other in others} == {f"process 0 of the run stopped: ZeroDivisionError: {first}"}


def make_nothing(group: ProcessGroup) -> Any:
    return group.broadcast(lambda: 1 // group.rank)


def work_long(group: ProcessGroup) -> Any:
    if group.rank == 1:
        time.sleep(2.5 * COLLECTIVES_S)
    return group.gather(group.rank)


def test_one_that_works_long_is_not_taken_for_dead(processes: Processes) -> None:
    assert processes.do(work_long) == [[0, 1, 2], [], []]


def interrupt(group: ProcessGroup) -> Any:
    heard: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(time.monotonic()))
    try:
        if group.is_first:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        else:
            time.sleep(1.5)
        group.gather(None)
        return [time.monotonic() - moment > 0.5 for moment in heard]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_signals_are_heard_while_it_waits(processes: Processes) -> None:
    assert processes.do(interrupt) == [[True], [], []]


def die(group: ProcessGroup) -> Any:
    group.broadcast(lambda: None)
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return group.gather(group.rank)


def vanish(group: ProcessGroup) -> Any:
    if group.rank == 0:
        os._exit(0)
    return group.broadcast(lambda: None)


@pytest.mark.parametrize(("work", "dead"), [(die, 1), (vanish, 0)])
def test_a_process_that_died_is_noticed_at_once(work: Work, dead: int, tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    try:
        processes.do(tell_and_collect)
        started = time.monotonic()
        results = processes.do(work)
        assert time.monotonic() - started < 60
    finally:
        processes.end()
    assert results.pop(dead) is None
    for other in results:
        assert isinstance(other, ElsewhereError)
        assert "another process of the run is gone: it was probably ended from outside" in str(other)


def test_alone_nothing_is_opened() -> None:
    with ProcessGroup() as group:
        assert group.is_first
        assert group.broadcast(lambda: 3) == 3
        assert group.gather(4) == [4]
    assert not dist.is_initialized()
