"""The whole chain as a user runs it, killed at three moments and started again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from brainlit.results.run_directory import RunDirectory
from tests.processes import start

PATIENCE_S = 300


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A small fit with all the parts of a big one: three epochs, probes, report."""
    probe = {"class_path": "brainlit.callbacks.BandedRidgeProbe", "init_args": {"figures": False, "n_bootstraps": 50}}
    callbacks = json.dumps([probe, {"class_path": "brainlit.callbacks.RunReport"}])
    return [
        *("fit", "-c", "experiments/brain_tune.yaml", "--trainer.callbacks", callbacks),
        *("--data.source", "tests.toy.ToySource", "--data.source.init_args.n_trs", "30"),
        *("--data.store_dir", str(tmp_path / "store"), "--data.window.n_trs", "8"),
        *("--model.backbone.weights", "random:tiny", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"),
        *("--run.root", str(tmp_path / "runs"), "--run.wandb", "off"),
    ]


def _kill_once(arguments: list[str], folder: Path, sign: str, log: Path) -> None:
    """Start the command and kill it, without a warning, as soon as a file of this pattern is there."""
    process = start(arguments, log)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not any(folder.glob(sign)):
            assert process.is_alive(), f"ended before {sign} was there:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{sign} never came:\n{log.read_text()[-3000:]}"
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()


def test_killed_while_preparing_probing_and_training_it_ends_with_a_report(
    tmp_path: Path, arguments: list[str]
) -> None:
    log = tmp_path / "log.txt"
    _kill_once(arguments, tmp_path, "store/stories/*.h5", log)
    assert not (tmp_path / "store" / "store.json").exists(), "half a store is no store"
    _kill_once(arguments, tmp_path, "runs/brain_tune/*/probes/*/epoch-000.h5", log)
    _kill_once(arguments, tmp_path, "runs/brain_tune/*/checkpoints/last.ckpt", log)
    last = start(arguments, log)
    last.join(PATIENCE_S)
    assert last.exitcode == 0, log.read_text()[-3000:]

    (path,) = (tmp_path / "runs" / "brain_tune").iterdir()
    run = RunDirectory.open(path)
    assert run.state == "finished"
    assert len(run.status["starts"]) == 4, "one run, started four times"
    assert "Traceback" not in log.read_text()
    assert "going on with" in log.read_text()
    end = [f"Report: {(path / 'report.html').absolute().as_uri()}", f"Next: brainlit downstream {path}"]
    assert log.read_text().rstrip().splitlines()[-2:] == end

    assert (path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    summary = json.loads((path / "summary.json").read_text())
    assert summary["headline"]
    assert [one["of_mean"] is not None for one in summary["validation"]] == [True] * 3, "each epoch once"
    assert any("too short to learn" in text for text in summary["warnings"])
    assert "too short to learn" in log.read_text()
    facts = json.loads((path / "run.json").read_text())
    assert "backbone_lr 0.002, head_lr 0.003" in facts["training"]
    assert facts["planned_steps"] == facts["steps"] < 30
    probed = sorted(file.name for file in (path / "probes" / "sub-A").iterdir() if not file.name.startswith("."))
    assert probed == ["epoch-000.h5", "epoch-003.h5"]
