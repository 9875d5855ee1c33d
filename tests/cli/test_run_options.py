"""Which run a command opens: a new one, the interrupted one, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.cli.run_options import CONFIG_FILE, RUN_VARIABLE, RunOptions, follow_run, open_run
from brainlit.results.run_directory import RunBusyError, RunError, RunFinishedError

pytestmark = pytest.mark.usefixtures("no_run")

CONFIG: dict[str, Any] = {"model": {"head_lr": 0.1}, "run": {"id": "auto"}}


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run that another process has opened; what a test sets is forgotten."""
    monkeypatch.setenv(RUN_VARIABLE, "")
    monkeypatch.delenv(RUN_VARIABLE)


def test_a_new_run_holds_its_config(tmp_path: Path) -> None:
    run = open_run(RunOptions(str(tmp_path)), CONFIG)
    assert run.path.parent == tmp_path / "brain_tune"
    assert yaml.safe_load((run.path / CONFIG_FILE).read_text()) == CONFIG
    assert not run.resumed
    run.release()


def test_an_interrupted_run_is_taken_up_by_the_same_command_only(tmp_path: Path) -> None:
    options = RunOptions(str(tmp_path))
    run = open_run(options, CONFIG)
    run.release()  # as the kernel does when a process is killed
    other = open_run(options, CONFIG | {"model": {"head_lr": 0.2}})
    assert other.path != run.path
    other.finish()
    again = open_run(options, CONFIG | {"run": {"id": "auto", "wandb": "off"}})
    assert (again.path, again.resumed) == (run.path, True)
    busy = open_run(options, CONFIG)
    assert busy.path != run.path, "a run that another process writes is left alone"
    again.finish()
    busy.finish()
    assert open_run(options, CONFIG).path not in (run.path, busy.path), "finished runs are left alone"


def test_a_requeued_job_goes_on_with_its_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, runs = RunOptions(str(tmp_path)), {}
    for job in ("77", "78"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        runs[job] = open_run(options, CONFIG)
    for run in runs.values():
        run.release()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    again = open_run(options, CONFIG)
    assert again.path == runs["77"].path, "78 is newer, but another job's"
    monkeypatch.setenv("SLURM_JOB_ID", "79")
    assert open_run(options, CONFIG).path == runs["78"].path, "submitted anew by hand"


def test_never_starts_anew(tmp_path: Path) -> None:
    run = open_run(RunOptions(str(tmp_path)), CONFIG)
    run.release()
    assert open_run(RunOptions(str(tmp_path), resume="never"), CONFIG).path != run.path


def test_a_named_run_is_resumed_with_the_same_settings_only(tmp_path: Path) -> None:
    named = RunOptions(str(tmp_path), id="mine")
    open_run(named, CONFIG).release()
    with pytest.raises(RunError, match=r"other settings: model\.head_lr is 0\.2, was 0\.1.*another.*--run\.id"):
        open_run(named, CONFIG | {"model": {"head_lr": 0.2}})
    with pytest.raises(RunError, match="never overwritten"):
        open_run(RunOptions(str(tmp_path), id="mine", resume="never"), CONFIG)
    run = open_run(named, CONFIG)
    assert run.resumed
    with pytest.raises(RunBusyError):
        open_run(named, CONFIG)
    run.finish()
    with pytest.raises(RunFinishedError):
        open_run(named, CONFIG)


def test_further_processes_follow_the_first_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(str(tmp_path))
    with pytest.raises(RunError, match=r"Give --run\.id"):
        follow_run(options)
    assert follow_run(RunOptions(str(tmp_path), id="mine")).path == tmp_path / "brain_tune" / "mine"
    first = open_run(options, CONFIG)
    assert follow_run(options).path == first.path.resolve()
    named = follow_run(RunOptions(str(tmp_path), id="mine"))
    assert named.path.name == "mine", "the variable may be of another run, in whose process this one was started"
    first.release()


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_a_budget_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="give gigabytes of disk, 0 for no probe"):
        RunOptions(probe_cache_gb=value)
