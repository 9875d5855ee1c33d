from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainlit.results.run_directory import (
    RunBusyError,
    RunDirectory,
    RunError,
    RunFinishedError,
    collect,
    git_state,
    new_run_id,
    package_versions,
    read_json,
    store_hashes,
    write_json_atomic,
    write_provenance,
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


def write_checkpoint(path: Path, step: int, age_s: int = 0, last_batch: bool = False, **without: None) -> None:
    """As far as resuming is concerned, a checkpoint of Lightning's."""
    progress = {"current": {"started": 2, "processed": 1}}
    loops = {"fit_loop": {"epoch_progress": progress, "epoch_loop.batch_progress": {"is_last_batch": last_batch}}}
    content = {"global_step": step, "optimizer_states": [], "loops": loops}
    torch.save({key: value for key, value in content.items() if key not in without}, path)
    os.utime(path, (1e9 - age_s, 1e9 - age_s))


def test_an_unfinished_run_is_resumed_from_the_checkpoint_with_the_most_steps(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path, "e", "one")
    assert run.last_checkpoint is None
    assert run.resumed_step is None
    write_checkpoint(run.checkpoints / "last.ckpt", 8, age_s=200)
    write_checkpoint(run.checkpoints / "step=6.ckpt", 6)
    write_checkpoint(run.checkpoints / "best.ckpt", 16)
    run.release()
    again = RunDirectory.claim(tmp_path, "e", "one")
    assert again.resumed
    assert again.last_checkpoint == run.checkpoints / "last.ckpt"
    assert again.resumed_step == 8
    assert len(again.status["starts"]) == 2
    write_checkpoint(run.checkpoints / "step=8.ckpt", 8, age_s=100)
    assert again.last_checkpoint == run.checkpoints / "step=8.ckpt", "of those at equal steps the newest"
    write_checkpoint(run.path / "hpc_ckpt_1.ckpt", 9, age_s=300)
    assert again.last_checkpoint == run.path / "hpc_ckpt_1.ckpt"


def test_checkpoints_that_nothing_can_go_on_from_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDirectory.claim(tmp_path, "e", "one")
    (run.checkpoints / "torn.ckpt").write_bytes(b"PK")
    write_checkpoint(run.checkpoints / "weights-only.ckpt", 9, optimizer_states=None)
    write_checkpoint(run.checkpoints / "before-validation.ckpt", 8, last_batch=True)
    assert run.last_checkpoint is None
    assert "cannot read the checkpoint" in caplog.text
    run.release()
    assert RunDirectory.claim(tmp_path, "e", "one").resumed_step == 0


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "77"}, "77"),
        ({"SLURM_JOB_ID": "79", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "2"}, "77_2"),
        ({"SLURM_JOB_ID": "77; rm -r /"}, None),
    ],
)
def test_a_slurm_job_is_known_by_its_number(
    environ: dict[str, str], job: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert RunDirectory.create(tmp_path, "e", "one").status["slurm_job"] == job


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
    assert read_json(path) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_versions_name_what_is_there_and_what_is_not() -> None:
    versions = package_versions()
    assert versions["torch"] == torch.__version__
    assert set(versions) >= {"python", "lightning", "himalaya", "numpy"}


def test_git_state_tells_revision_and_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path) == {"revision": "unknown", "dirty": None}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    assert git_state(tmp_path) == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True


def test_the_store_is_named_by_the_hash_of_its_index(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"settings": {"seed": 3}}))
    expected = hashlib.sha256((tmp_path / "store.json").read_bytes()).hexdigest()
    assert store_hashes(tmp_path) == {"sha256": expected, "settings": {"seed": 3}}
    assert store_hashes(None) == {"sha256": "unknown"}


def test_all_of_it_is_written_as_json(tmp_path: Path) -> None:
    path = write_provenance(tmp_path, collect(seed=7, note="x"))
    found = json.loads(path.read_text())
    assert (found["seed"], found["note"]) == (7, "x")
    assert {"command", "git", "versions", "machine", "store", "written"} <= set(found)
    assert found["machine"]["torch_threads"] == torch.get_num_threads()


def test_a_run_whose_parts_lead_elsewhere_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs", "sent", "run")
    run.finish()
    (tmp_path / "elsewhere").mkdir()
    for name in ("downstream", "export", "maps"):
        (run.path / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RunError, match=f"{name} is a link that leads out of the run"):
            RunDirectory.open(run.path)
        (run.path / name).unlink()
    (run.path / "downstream").symlink_to(run.path / "figures")
    assert RunDirectory.open(run.path).state == "finished"


def test_a_start_that_failed_before_anything_ran_leaves_no_folder(tmp_path: Path) -> None:
    run = RunDirectory.claim(tmp_path / "runs", "demo", "new")
    (run.path / "config.yaml").write_text("{}")
    assert run.discard_unused()
    assert not (tmp_path / "runs" / "demo").exists()
    run = RunDirectory.claim(tmp_path / "runs", "demo", "new")
    (run.path / ".x.0123456789ab.tmp.json").touch()
    (run.probes / "sub-A").mkdir()
    assert not run.discard_unused(), "it holds a probe"
    run.release()
    resumed = RunDirectory.claim(tmp_path / "runs", "demo", "new")
    assert not list(resumed.path.glob(".x.*")), "what the killed process left is swept"
    assert not resumed.discard_unused()
    resumed.release()
