"""The table of runs: what it says of runs in every state, made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainlit.cli import main, slurm
from brainlit.cli.status import planned, statuses
from brainlit.files import only_writer
from brainlit.results.run_directory import RunDirectory
from tests.cli.test_axes import written


def begun(root: Path, name: str, epochs: int = 0) -> RunDirectory:
    """A run that is held, with so many epochs behind it."""
    run = RunDirectory.create(root, "grid", name)
    (run.path / "config.yaml").write_text("trainer: {max_epochs: 8}\n")
    rows = [f"{epoch},{10 * epoch + 9},{0.9 - epoch / 10}," for epoch in range(epochs)]
    (run.path / "metrics.csv").write_text(
        "\n".join(["epoch,step,val/loss,train/loss_step", *rows, f"{epochs},99,,0.7"])
    )
    return run


def log(folder: Path, name: str, text: str) -> Path:
    path = folder / "logs" / f"{name}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def states(folder: Path, *names: str) -> dict[str, str]:
    return {one.name: one.state for one in statuses(folder, names)}


def test_runs_say_themselves_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    runs = {name: begun(tmp_path, name, epochs=2) for name in ("finished", "running", "stopped", "failed")}
    runs["finished"].finish()
    for name in ("stopped", "failed"):
        runs[name].release()
    log(folder, "failed", "--- a start\nTraceback\n--- another\nall is well\nerror: no memory\n")
    log(folder, "stopped", "--- a start\nerror: no memory\n--- another\nall is well\n")
    log(folder, "early", "--- a start\nerror: there is no such option\n")
    expected = {name: name for name in runs} | {"new": "waiting", "early": "failed"}
    assert states(folder, *runs, "new", "early") == expected


def test_a_line_has_epochs_the_last_loss_the_time_and_the_log(tmp_path: Path) -> None:
    run = begun(tmp_path, "one", epochs=2)
    path = log(run.path.parent, "one", "")
    (line,) = statuses(run.path.parent, ["one"])
    assert line.cells[:4] == ["one", "running", "2 of 8", "val/loss 0.8000"]
    assert (line.n_starts, line.log) == (1, path)
    assert line.seconds is not None
    assert 0 <= line.seconds < 60
    run._write_status(starts=["2026-01-01T10:00:00+00:00", "2026-01-01T12:00:00+00:00"])
    status = {**run.status, "state": "finished", "finished": "2026-01-01T13:02:03+00:00"}
    run._write_status(**status)
    (line,) = statuses(run.path.parent, ["one"])
    assert line.cells[4] == "1:02:03 (start 2)"


def test_before_the_first_epoch_ends_the_loss_of_a_step_is_shown(tmp_path: Path) -> None:
    run = begun(tmp_path, "one")
    (line,) = statuses(run.path.parent, ["one"])
    assert line.cells[2:4] == ["0 of 8", "train/loss_step 0.7000"]


def test_what_is_written_just_now_is_left_out(tmp_path: Path) -> None:
    run = begun(tmp_path, "one")
    (run.path / "metrics.csv").write_bytes(b"epoch,st\xff")
    (run.path / "config.yaml").write_text("{")
    (line,) = statuses(run.path.parent, ["one"])
    assert line.cells[1:4] == ["running", "0", ""]


def test_the_queue_tells_requeued_from_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "grid"
    names = ("requeued", "elsewhere", "cancelled", "starved", "waiting", "starting", "gone")
    for name in names[:4]:
        begun(tmp_path, name).release()
    log(folder, "starting", "--- a start\n")
    log(folder, "gone", "--- a start\n")
    slurm.write_jobs(folder, {name: f"41_{k}" for k, name in enumerate(names)})
    queue = {"41_0": "PENDING", "41_1": "RUNNING", "41_4": "PENDING", "41_5": "RUNNING"}
    monkeypatch.setattr(slurm, "queued", lambda: queue)
    over = {"41_2": "CANCELLED", "41_3": "OUT_OF_MEMORY", "41_6": "FAILED"}
    monkeypatch.setattr(slurm, "ended", lambda jobs: {job: over[job] for job in jobs})
    expected = ["requeued", "running", "stopped", "failed", "waiting", "running", "failed"]
    assert states(folder, *names) == dict(zip(names, expected, strict=True))


def test_where_slurm_does_not_answer_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path, "one")
    slurm.write_jobs(run.path.parent, {"one": "41_0"})

    def refuse() -> None:
        raise slurm.SlurmError("squeue does not answer: no controller")

    monkeypatch.setattr(slurm, "queued", refuse)
    assert states(tmp_path / "grid", "one") == {"one": "running"}
    assert "squeue does not answer: no controller What is told of the queue is missing." in capsys.readouterr().err


def test_a_job_of_this_machine_that_has_no_run_yet_is_running(tmp_path: Path) -> None:
    log(tmp_path, "one", "")
    assert states(tmp_path, "one") == {"one": "stopped"}
    with only_writer(tmp_path / "axes.yaml"):
        assert states(tmp_path, "one", "two") == {"one": "running", "two": "waiting"}


def test_a_file_of_axes_names_runs_that_have_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, axes={"seed": [11, 12]}, folder=str(tmp_path / "grid"))
    begun(tmp_path, "11").finish()
    assert main(["status", str(file)]) == 0
    *lines, count = capsys.readouterr().out.splitlines()
    assert lines[0] == "| run | state | epoch | last | time | log |"
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| 11", "finished"], ["| 12", "waiting"]]
    assert count == "1 waiting, 1 finished of 2"


def test_a_folder_is_read_with_or_without_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither runs nor"):
        planned(tmp_path)
    begun(tmp_path, "other").finish()
    assert planned(tmp_path / "grid") == (tmp_path / "grid", ["other"])
    written(tmp_path / "grid", axes={"seed": [11]}, folder="elsewhere/grid")
    assert planned(tmp_path / "grid") == (tmp_path / "grid", ["11", "other"])
    assert main(["status", str(tmp_path / "grid"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["run"], line["state"]) for line in lines] == [("11", "waiting"), ("other", "finished")]
