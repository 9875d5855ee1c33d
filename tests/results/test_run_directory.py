from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brainlit.results.run_directory import (
    RunBusyError,
    RunDirectory,
    RunError,
    RunFinishedError,
    new_run_id,
    write_json_atomic,
)


def test_a_new_run_has_its_folders_and_says_that_it_runs(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "brain_tune", "first")
    assert run.path == tmp_path / "brain_tune" / "first"
    assert all((run.path / name).is_dir() for name in ("checkpoints", "probes", "figures"))
    assert (run.state, run.resumed, run.experiment, run.run_id) == ("running", False, "brain_tune", "first")


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, "e", "one").release()
    with pytest.raises(RunError, match="never overwritten"):
        RunDirectory.create(tmp_path, "e", "one")


def test_a_finished_run_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "e", "one")
    run.finish()
    before = (run.path / "status.json").read_bytes()
    for take in (lambda: RunDirectory.claim(tmp_path, "e", "one"), lambda: RunDirectory.adopt(run.path)):
        with pytest.raises(RunFinishedError, match="finished at"):
            take()
    assert (run.path / "status.json").read_bytes() == before


def test_an_unfinished_run_is_resumed_from_its_newest_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path, "e", "one")
    assert run.last_checkpoint is None
    for age, name in ((200, "last.ckpt"), (100, "last-v1.ckpt"), (0, "epoch=3.ckpt")):
        path = run.checkpoints / name
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    run.release()
    again = RunDirectory.claim(tmp_path, "e", "one")
    assert again.resumed
    assert again.last_checkpoint == run.checkpoints / "last-v1.ckpt"
    assert len(again.status["starts"]) == 2


def test_a_run_that_another_holder_writes_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path, "e", "one")
    with pytest.raises(RunBusyError, match="another process"):
        RunDirectory.claim(tmp_path, "e", "one")
    run.release()
    assert RunDirectory.claim(tmp_path, "e", "one").resumed


def test_a_killed_run_is_recognised_and_can_be_claimed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from brainlit.results import RunDirectory;"
        "run = RunDirectory.claim(sys.argv[1], 'e', 'one'); print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    reader = RunDirectory.open(tmp_path / "e" / "one")
    assert reader.state == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert reader.state == "killed"
    assert RunDirectory.claim(tmp_path, "e", "one").resumed


def test_names_must_be_folder_names_and_ids_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder name"):
        RunDirectory.create(tmp_path, "e", "../other")
    assert len({new_run_id() for _ in range(20)}) == 20


def test_open_wants_a_run_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        RunDirectory.open(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = write_json_atomic(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
