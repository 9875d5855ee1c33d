"""`brainlit submit`: what each option does with the cells; jobs and comparisons are stand-ins."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.cli import main, run_many, slurm, submit
from brainlit.cli.run_many import BRAINLIT
from brainlit.results.run_directory import RunDirectory
from tests.cli.test_axes import written


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Four cells: two regimes of two seeds, in a folder of their own."""
    axes = {"regime": ["brain", "permuted"], "seed": [11, 12]}
    return written(tmp_path, experiment=["demo", "wav2vec"], axes=axes, folder=str(tmp_path / "runs" / "grid"))


@pytest.fixture
def grid(file: Path) -> Path:
    return file.parent / "runs" / "grid"


@pytest.fixture(autouse=True)
def unchecked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options are not looked at, which takes seconds, but in one test."""
    if "checked" not in request.node.name:
        monkeypatch.setattr(submit, "check_settings", lambda runs: None)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is compared, instead of comparing."""
    calls: list[list[str]] = []
    monkeypatch.setattr("brainlit.cli.reports.run_compare", lambda given: calls.append(list(given)) or 0)
    return calls


def finish(grid: Path, *names: str) -> None:
    for name in names:
        run = RunDirectory.create(grid.parent, grid.name, name)
        run.finish()
        (run.path / "report.html").touch()


def test_a_dry_run_shows_what_is_missing_and_writes_nothing(
    file: Path, grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(grid, "brain-11", "permuted-12")
    before = sorted(file.parent.rglob("*"))
    assert main(["submit", str(file), "--dry-run"]) == 0
    *commands, last, count = capsys.readouterr().out.splitlines()
    assert [command.rpartition("=")[2] for command in commands] == ["brain-12", "permuted-11"]
    assert shlex.split(last) == ["brainlit", "submit", str(file), "--report"]
    assert count == "2 of 4 runs are finished."
    assert sorted(file.parent.rglob("*")) == before


def test_options_are_checked_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, axes={"trainer.max_epoch": [3]}, options=None, folder=str(tmp_path / "runs" / "grid"))
    assert main(["submit", str(path), "--local"]) == 2
    assert "Did you mean --trainer.max_epochs?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_on_this_machine_the_one_scheduler_runs_what_is_missing_then_compares(
    file: Path, grid: Path, compared: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(grid, "brain-11")
    calls: list[tuple[Any, ...]] = []

    def run_jobs(*given: Any) -> None:
        calls.append(given)
        finish(grid, *(job.name for job in given[0]))

    monkeypatch.setattr(run_many, "run_jobs", run_jobs)
    assert main(["submit", str(file), "--local", "--jobs", "2"]) == 0
    ((jobs, logs, n_at_once, _),) = calls
    assert [job.name for job in jobs] == ["brain-12", "permuted-11", "permuted-12"]
    assert jobs[0].command[: len(BRAINLIT)] == BRAINLIT
    assert (logs, n_at_once) == (grid / "logs", 2)
    names = ["brain-11", "brain-12", "permuted-11", "permuted-12"]
    assert compared == [[*(str(grid / name) for name in names), "--output", str(grid)]]
    assert (grid / "axes.yaml").read_bytes() == file.read_bytes()


def test_after_a_failure_what_finished_is_compared_and_the_rest_is_named(
    file: Path,
    grid: Path,
    compared: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish(grid, "brain-11")

    def fail(*_: Any) -> None:
        raise run_many.JobError("permuted-11 failed (exit status 2).")

    monkeypatch.setattr(run_many, "run_jobs", fail)
    assert main(["submit", str(file), "--local"]) == 1
    assert "missing: brain-12, permuted-11, permuted-12" in capsys.readouterr().out
    assert compared == [[str(grid / "brain-11"), "--output", str(grid)]]


def test_groups_that_are_not_compared_have_reports_of_their_own(
    tmp_path: Path, compared: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "runs" / "grid"
    path = written(tmp_path, axes={"seed": [11, 12], "subjects": ["s01", "s02"]}, folder=str(grid))
    finish(grid, "11-s01", "12-s01")
    assert main(["submit", str(path), "--report"]) == 1
    assert compared == [[str(grid / "11-s01"), str(grid / "12-s01"), "--output", str(grid / "compared-s01")]]
    assert "s02: 0 of 2 runs" in capsys.readouterr().out


class FakeSlurm:
    """A queue: what is submitted gets numbers from 41 on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue: dict[str, str] = {}
        self.cells: list[dict[str, Sequence[str]]] = []
        self.reports: list[list[str]] = []
        self.cancelled: list[str] = []
        monkeypatch.setattr(slurm, "queued", lambda: self.queue)
        monkeypatch.setattr(slurm, "submit_cells", self._submit_cells)
        monkeypatch.setattr(slurm, "submit_report", self._submit_report)
        monkeypatch.setattr(slurm, "cancel", self.cancelled.append)

    def _submit_cells(self, folder: Path, cells: dict[str, Sequence[str]], settings: Any) -> dict[str, str]:
        self.cells.append(cells)
        number = 40 + len(self.cells)
        given = {name: f"{number}_{k}" for k, name in enumerate(cells)}
        self.queue |= dict.fromkeys(given.values(), "PENDING")
        return given

    def _submit_report(self, folder: Path, report: Sequence[str], settings: Any, jobs: Sequence[str]) -> str:
        self.reports.append(list(jobs))
        self.queue[job := f"r{len(self.reports)}"] = "PENDING"
        return job


def test_what_is_finished_or_queued_is_not_submitted_again(
    file: Path,
    grid: Path,
    compared: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = FakeSlurm(monkeypatch)
    finish(grid, "brain-11")
    assert main(["submit", str(file)]) == 0
    assert "submitted 3 as job 41, the comparison behind them as r1." in capsys.readouterr().out
    assert list(fake.cells[0]) == ["brain-12", "permuted-11", "permuted-12"]
    assert fake.cells[0]["brain-12"][0] == "fit"
    assert main(["submit", str(file)]) == 0
    assert capsys.readouterr().out == "1 of 4 runs are finished, 3 wait or run.\n"

    del fake.queue["41_1"]  # as after scancel
    assert main(["submit", str(file)]) == 0
    assert list(fake.cells[1]) == ["permuted-11"]
    assert fake.reports[1] == ["42_0", "41_0", "41_2"], "the comparison waits for all"
    assert fake.cancelled == ["r1"]

    finish(grid, "brain-12", "permuted-11", "permuted-12")
    fake.queue.clear()
    assert main(["submit", str(file)]) == 0
    assert len(fake.cells) == 2
    assert len(compared) == 1, "all is there, so it is compared here and now"


def test_an_agent_becomes_the_command_of_its_cell(
    file: Path, grid: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    became: list[list[str]] = []

    def become(program: str, words: list[str]) -> None:
        became.append(words)
        raise SystemExit

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(SystemExit):
        main(["submit", str(file), "--cell", "--regime=permuted", "--seed=12"])
    assert became[0][len(BRAINLIT)] == "fit"
    assert became[0][-1] == "--run.id=permuted-12"
    finish(grid, "brain-11")
    capsys.readouterr()
    assert main(["submit", str(file), "--cell", "--regime=brain", "--seed=11"]) == 0
    assert capsys.readouterr().out == f"{grid / 'brain-11'} has finished.\n"
    assert len(became) == 1


def test_a_sweep_is_printed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(file), "--wandb-sweep"]) == 0
    sweep = yaml.safe_load(capsys.readouterr().out)
    assert sweep["parameters"] == {"regime": {"values": ["brain", "permuted"]}, "seed": {"values": [11, 12]}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "2"], "--jobs 2 goes with --local"),
        (["--local", "--jobs", "0"], "--jobs 0 goes with --local, and is at least 1"),
        (["--local", "--report"], "--local and --report do not go together"),
        (["--locl"], "Did you mean --local?"),
        (["--trainer.max_epochs", "3"], "unrecognized arguments"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", str(file), *arguments]) == 2
    assert message in capsys.readouterr().err
