"""A run that is killed and goes on, online, against a local W&B server: what the server has of it is read back.

The server is openwandb, which takes what `wandb` sends. Its licence forbids commercial use, so brainlit never depends
on it: where its command is not on the PATH, or named by OPENWANDB, these tests are skipped.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import ROW, STEP
from brainlit.results.wandb_names import PROBE_EPOCH, headline_scalars, wandb_id

ROOT = Path(__file__).parents[2]
KEY = "local" + 40 * "0"
"""The key with which openwandb knows its first user."""
PATIENCE_S = 120.0


@dataclass
class Server:
    """A server of this test session, and the folder that it keeps everything in."""

    folder: Path
    environ: Mapping[str, str]

    def command(self, *words: str, timeout_s: float = 900.0) -> subprocess.CompletedProcess[str]:
        """A Python command of a user who is logged in at this server."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """The rows of a run, in the order in which they came."""
        (path,) = self.folder.rglob(f"{run_id}/wandb-history.jsonl")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """openwandb on a free port, with nothing in it."""
    command = os.environ.get("OPENWANDB") or shutil.which("openwandb")
    if command is None:
        pytest.skip("there is no W&B server here: pip install openwandb (not for commercial use), or set OPENWANDB")
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    own = {**environ, "HOME": str(folder)}
    own.pop("PYTHONPATH", None)  # the server has packages of its own
    arguments = [command, "serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder / "data")]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(arguments, env=own, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert process.poll() is None, (folder / "log.txt").read_text()[-2000:]
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)
        user = {"HOME": str(folder), "WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": KEY}
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        yield Server(folder / "data", {**environ, **user, "PYTHONPATH": path})
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small fit, killed after its third step, and gone on with by the same command."""
    folder = tmp_path_factory.mktemp("online")
    for expected in (-signal.SIGKILL, 0):
        done = server.command("-m", "tests.end_to_end.wandb_worker", str(folder), "online")
        assert done.returncode == expected, done.stderr[-4000:]
        assert "wandb:" not in done.stdout + done.stderr
        assert "W&B: http://127.0.0.1" in done.stdout + done.stderr
    return RunDirectory.open(folder / "runs" / "brain_tune" / "one")


def test_every_step_is_on_the_server_once_and_none_is_lacking(server: Server, run: RunDirectory) -> None:
    (of_run,) = {path.parent.name for path in server.folder.rglob("wandb-history.jsonl")}
    assert of_run == wandb_id(run), "one run"
    rows = server.history(of_run)
    assert [row[STEP] for row in rows if "train/loss_step" in row] == [0, 1, 2, 3]
    assert [(row[STEP], row[PROBE_EPOCH]) for row in rows if PROBE_EPOCH in row] == [(0, 0), (2, 1), (4, 2)]
    counted = [row[ROW] for row in rows if ROW in row]
    assert counted == list(range(len(counted)))
    assert [row["_step"] for row in rows] == list(range(len(rows)))


def test_the_result_the_page_and_the_tables_arrive(server: Server, run: RunDirectory) -> None:
    rows = server.history(wandb_id(run))
    expected = headline_scalars(json.loads((run.path / "summary.json").read_text()))
    assert expected
    (last,) = (row for row in rows if any(key.startswith("headline/") for key in row))
    assert {key: value for key, value in last.items() if key.startswith("headline/")} == pytest.approx(expected)
    assert last["report"]["_type"] == "html-file"
    tables = [row["probe/table"] for row in rows if "probe/table" in row]
    for epoch, table in enumerate(tables):
        (arrived,) = server.folder.rglob(Path(table["path"]).name)
        with (run.path / "probes" / f"epoch-{epoch:03d}.csv").open(newline="") as file:
            kept = [float(row["value"]) for row in csv.DictReader(file)]
        given = json.loads(arrived.read_text())
        assert [row[given["columns"].index("value")] for row in given["data"]] == pytest.approx(kept)
    assert len(tables) == 3
