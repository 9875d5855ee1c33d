"""Two processes share a probe that takes longer than their collectives wait."""

from __future__ import annotations

import json
import multiprocessing
import socket
from pathlib import Path

import numpy as np
import pytest

from brainlit.probing.shared import FOLDER
from brainlit.results.record import load_record, record_path
from tests.callbacks.ddp_worker import work
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def folder(toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes trained thrice: with a probe that is slow in the second, one that is read, a failing one."""
    path = tmp_path_factory.mktemp("ddp")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    # Both are forked from one process that has imported what they need.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.callbacks.ddp_worker"])
    workers = [
        context.Process(target=work, args=(toy_store_path, path, {**shared, "LOCAL_RANK": str(rank)}))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=300)
        worker.kill()
    ended = [worker.exitcode for worker in workers]
    assert ended == [0, 0], (path / "log-0").read_text()[-3000:] + (path / "log-1").read_text()[-3000:]
    return path


def said(folder: Path, name: str) -> list[str]:
    return [json.loads((folder / f"said-{rank}.json").read_text())[name] for rank in range(2)]


def test_a_probe_longer_than_the_time_out_of_collectives_ends_well(folder: Path) -> None:
    for words in said(folder, "slow"):
        assert words.endswith("longer True")
        assert not words.startswith("steps 0")
    assert {path.suffix for path in (folder / "slow" / "probes").rglob("*.*")} == {".h5", ".csv"}, (
        "nothing is left over"
    )


def test_shares_put_together_are_the_probe_of_one_process(folder: Path, toy_store_path: Path, tmp_path: Path) -> None:
    data = toy_data(toy_store_path)
    data.prepare_data()
    data.setup()
    for expected in toy_probe().engine.measure(ToyModule(), data, ["sub-A", "sub-B"], tmp_path):
        found = load_record(record_path(folder / "slow" / "probes", expected.subject, 0))
        assert found.table.keys == expected.table.keys
        assert (found.fingerprint, found.facts["n_used"]) == (expected.fingerprint, expected.facts["n_used"])
        np.testing.assert_allclose(found.r, expected.r, atol=1e-5)
        for ours, theirs in zip(found.table.rows, expected.table.rows, strict=True):
            assert ours.score.value == pytest.approx(theirs.score.value, abs=1e-5)
            if ours.score.replicates is not None and theirs.score.replicates is not None:
                np.testing.assert_allclose(ours.score.replicates, theirs.score.replicates, atol=1e-4)


def test_a_probe_before_training_that_another_run_left_is_read(folder: Path) -> None:
    assert all(words.startswith("steps 0") for words in said(folder, "read"))
    for subject in ("sub-A", "sub-B"):
        read, made = (record_path(folder / name / "probes", subject, 0).read_bytes() for name in ("read", "slow"))
        assert read == made
    assert len([path for path in (folder / "cache" / FOLDER).iterdir() if path.is_dir()]) == 1, "one process writes"


def test_one_failing_process_stops_both_and_says_why(folder: Path) -> None:
    first, second = said(folder, "broken")
    assert second == "ArithmeticError: singular matrix in this share"
    assert first == "ElsewhereError: process 1 of the run stopped: " + second
