"""The whole chain as a user runs it, killed at three moments and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlit.results.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A small fit with all the parts of a big one: three epochs, probes, report."""
    probe = {"class_path": "brainlit.callbacks.BandedRidgeProbe", "init_args": {"figures": False, "n_bootstraps": 50}}
    callbacks = json.dumps([probe, {"class_path": "brainlit.callbacks.RunReport"}])
    return [
        *(sys.executable, "-m", "brainlit.cli", "fit", "-c", "experiments/brain_tune.yaml"),
        *("--data.source", "tests.toy.ToySource", "--data.source.init_args.n_trs", "30"),
        *("--data.store_dir", str(tmp_path / "store"), "--data.window.n_trs", "8"),
        *("--model.backbone.weights", "random:tiny", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"),
        *("--run.root", str(tmp_path / "runs"), "--run.wandb", "off"),
        *("--trainer.callbacks", callbacks),
    ]


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=environment, start_new_session=True)


def _kill_once(command: list[str], folder: Path, sign: str, log: Path) -> None:
    """Start the command and kill it, without a warning, as soon as a file of this pattern is there."""
    process = _start(command, log)
    deadline = time.monotonic() + 240
    try:
        while not any(folder.glob(sign)):
            assert process.poll() is None, f"ended before {sign} was there:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{sign} never came:\n{log.read_text()[-3000:]}"
            time.sleep(0.005)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_killed_while_preparing_probing_and_training_it_ends_with_a_report(tmp_path: Path, command: list[str]) -> None:
    log = tmp_path / "log.txt"
    _kill_once(command, tmp_path, "store/stories/*.h5", log)
    assert not (tmp_path / "store" / "store.json").exists(), "half a store is no store"
    _kill_once(command, tmp_path, "runs/brain_tune/*/probes/*/epoch-000.h5", log)
    _kill_once(command, tmp_path, "runs/brain_tune/*/checkpoints/last.ckpt", log)
    finished = _start(command, log)
    assert finished.wait(timeout=240) == 0, log.read_text()[-3000:]

    (path,) = (tmp_path / "runs" / "brain_tune").iterdir()
    run = RunDirectory.open(path)
    assert run.state == "finished"
    assert len(run.status["starts"]) == 4, "one run, started four times"
    assert "Traceback" not in log.read_text()
    assert log.read_text().rstrip().splitlines()[-1] == f"Report: {path / 'report.html'}"

    assert (path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    summary = json.loads((path / "summary.json").read_text())
    assert summary["headline"]
    probed = sorted(file.name for file in (path / "probes" / "sub-A").iterdir() if not file.name.startswith("."))
    assert probed == ["epoch-000.h5", "epoch-003.h5"]
    assert "going on with" in log.read_text()
