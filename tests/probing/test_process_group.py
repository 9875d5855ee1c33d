"""Processes that meet through files; threads stand for them here (test_ddp has real ones)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainlit.probing.process_group import ElsewhereError, Meeting


def together(folder: Path, work: Callable[[Meeting], Any], n_ranks: int = 2) -> list[Any]:
    """What the work returns, or raises, in each process."""
    results: list[Any] = [None] * n_ranks

    def run(rank: int) -> None:
        try:
            with Meeting(folder, rank, n_ranks, silent_s=20.0, beat_s=0.05) as meeting:
                results[rank] = work(meeting)
        except (RuntimeError, ArithmeticError) as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(n_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_the_first_tells_and_collects(tmp_path: Path) -> None:
    def work(meeting: Meeting) -> Any:
        told = meeting.tell("plan", lambda: {"from": meeting.rank})
        return told, meeting.collect("values", meeting.rank * 10)

    told = {"from": 0}
    assert together(tmp_path / "a", work, 3) == [(told, [0, 10, 20]), (told, []), (told, [])]
    assert not (tmp_path / "a").exists()


def test_alone_nothing_is_written(tmp_path: Path) -> None:
    with Meeting(tmp_path / "a") as meeting:
        assert meeting.tell("plan", lambda: 3) == 3
        assert meeting.collect("values", 4) == [4]
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("failing", [0, 1])
def test_one_failure_stops_all_with_its_message(tmp_path: Path, failing: int) -> None:
    def work(meeting: Meeting) -> Any:
        if meeting.rank == failing:
            raise ArithmeticError("no room")
        return meeting.tell("plan", lambda: 1), meeting.collect("values", 1)

    results = together(tmp_path / "a", work)
    assert isinstance(results[failing], ArithmeticError)
    other = results[1 - failing]
    assert isinstance(other, ElsewhereError)
    assert str(other) == f"process {failing} of the run stopped: ArithmeticError: no room"


def test_a_process_that_died_is_noticed_by_its_silence(tmp_path: Path) -> None:
    with (
        pytest.raises(ElsewhereError, match=r"process 1 .* no sign of life for .*: it was probably ended"),
        Meeting(tmp_path / "a", 0, 2, silent_s=0.1, beat_s=0.02) as meeting,
    ):
        meeting.wait("anything", [1])


@pytest.mark.slow
def test_one_that_works_long_is_not_taken_for_dead(tmp_path: Path) -> None:
    rest = threading.Event()

    def work(meeting: Meeting) -> Any:
        meeting.silent_s = 1.0
        if meeting.rank == 1:
            rest.wait(2.5)
        return meeting.collect("values", meeting.rank)

    assert together(tmp_path / "a", work) == [[0, 1], []]
