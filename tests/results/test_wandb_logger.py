from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import WandbLogger

from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import (
    JOURNAL_FILE,
    PROJECT,
    ROW,
    STEP,
    RowJournal,
    RunLogger,
    WandbOptions,
    log_folder,
    settings_of,
    wandb_logger,
)
from brainlit.results.wandb_names import PROBE_EPOCH, wandb_id

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "model": {"backbone": {"family": "wav2vec", "weights": "tiny"}},
    "data": {"regime": "brain", "source": {"class_path": "brainlit.demo.DemoSource"}},
}


# --- Options and variables ---


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "brain_tune", "first")


VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "notes": "WANDB_NOTES",
}


def test_what_a_run_is_called_where_nobody_says_so(run: RunDirectory) -> None:
    settled = settings_of(run, CONFIG, WandbOptions(), {})
    assert {key: settled[key] for key in VARIABLES} == {
        "project": PROJECT,
        "entity": None,
        "name": "wav2vec-brain-s0",
        "group": "brain_tune",
        "job_type": "fit",
        "notes": None,
    }
    assert settled["tags"][:4] == ["wav2vec", "tiny", "brain", "demo"]
    assert settled["id"] == wandb_id(run)
    assert settled["config"]["model"] == CONFIG["model"]
    assert settled["config"]["run_id"] == "first"
    assert settled["config"]["brainlit"].keys() == {"version", "revision", "dirty"}


@pytest.mark.parametrize(("key", "variable"), VARIABLES.items())
def test_a_variable_wins_over_our_default_and_an_option_over_it(run: RunDirectory, key: str, variable: str) -> None:
    environ = {variable: "theirs"}
    assert settings_of(run, CONFIG, WandbOptions(), environ)[key] == "theirs"
    options = WandbOptions(**{key: "mine"})  # type: ignore[arg-type]
    assert settings_of(run, CONFIG, options, environ)[key] == "mine"


def test_tags_too(run: RunDirectory) -> None:
    environ = {"WANDB_TAGS": "a, b"}
    assert settings_of(run, CONFIG, WandbOptions(), environ)["tags"] == ["a", "b"]
    assert settings_of(run, CONFIG, WandbOptions(tags=["c"]), environ)["tags"] == ["c"]
    assert settings_of(run, CONFIG, WandbOptions(tags=[]), environ)["tags"] == []


def test_in_a_sweep_the_id_is_the_agents(run: RunDirectory) -> None:
    assert settings_of(run, CONFIG, WandbOptions(), {"WANDB_RUN_ID": "abc123"})["id"] == "abc123"


def test_no_scalars_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wandb\.scalars is 0; give at least 1"):
        WandbOptions(scalars=0)


def test_a_run_waits_at_its_end_as_long_as_is_said(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, option, expected_s in ((None, None, 1800), ("60", None, 60), ("60", 5.0, 5), ("60", 0.0, 0)):
        monkeypatch.delenv("WANDB_FINISH_TIMEOUT", raising=False)
        if variable:
            monkeypatch.setenv("WANDB_FINISH_TIMEOUT", variable)
        logger = wandb_logger(run, CONFIG, WandbOptions(finish_timeout_s=option), mode="online")
        assert logger is not None
        settings = logger._wandb_init["settings"]
        assert (settings.finish_timeout, settings.finish_timeout_raises) == (expected_s, True)
    with pytest.raises(ValueError, match=r"wandb\.finish_timeout_s is -1; give seconds"):
        WandbOptions(finish_timeout_s=-1)


def test_no_logger_where_wandb_is_disabled(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(run) is None


# --- Every row once ---


def test_the_journal_forgets_a_row_that_was_cut_short(tmp_path: Path) -> None:
    journal = RowJournal(tmp_path / "wandb" / JOURNAL_FILE)
    assert journal.read() == []
    journal.rewrite([{"loss": 1.0}])
    journal.append({"loss": float("inf"), STEP: 1})
    with journal.path.open("a") as file:
        file.write('{"loss": 0.')
    assert journal.read() == [{"loss": 1.0}, {"loss": float("inf"), STEP: 1}]


class Server:
    """An online run: what arrived of it, and where it would go on."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.axes: dict[str, Any] = {}

    def open(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """A process begins to log, or goes on."""
        summary = {key: value for row in self.rows for key, value in row.items()}
        settings = SimpleNamespace(sync_dir="run-1")
        one = SimpleNamespace(
            summary=summary,
            offline=False,
            settings=settings,
            log=lambda row: self.rows.append(row),
            id="id",
            url="https://x",
            finish=lambda: None,
        )
        one.define_metric = lambda name, **about: self.axes.update({name: about.get("step_metric")})
        monkeypatch.setattr("brainlit.results.wandb_logger.silence", nullcontext)
        monkeypatch.setattr(WandbLogger, "experiment", property(lambda logger: self._given(logger, one)))
        return one

    @staticmethod
    def _given(logger: Any, one: SimpleNamespace) -> SimpleNamespace:
        logger._experiment = one
        return one


def log_steps(logger: RunLogger, first: int, stop: int) -> None:
    for step in range(first, stop):
        logger.log_metrics({"train/loss": 1 / (1 + step), "epoch": step // 4}, step=step)
        if step % 4 == 3:
            logger.log_metrics(
                {"probe/during/all/layer-1/r_backbone": step / 10, PROBE_EPOCH: step // 4}, step=step + 1
            )


@pytest.mark.parametrize("n_lost", [0, 3, 9])
def test_online_a_run_that_goes_on_gives_what_is_lacking(
    n_lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    server.open(monkeypatch)
    whole = RunLogger(tmp_path / "whole")
    whole.log_metrics({"probe/before/all/layer-1/r_backbone": 0.1, PROBE_EPOCH: 0}, step=0)
    log_steps(whole, 0, 9)
    expected, server.rows = server.rows, []

    first = RunLogger(tmp_path / "killed")
    first.log_metrics({"probe/before/all/layer-1/r_backbone": 0.1, PROBE_EPOCH: 0}, step=0)
    log_steps(first, 0, 6)
    server.rows = server.rows[: len(server.rows) - n_lost]  # what had not been sent when it was killed

    server.open(monkeypatch)
    resumed = RunLogger(tmp_path / "killed", resumed_step=4)
    resumed.log_metrics({"probe/before/all/layer-1/r_backbone": 0.1, PROBE_EPOCH: 0}, step=0)
    log_steps(resumed, 4, 9)
    assert server.rows == expected
    assert [row[ROW] for row in server.rows] == list(range(len(expected)))
    assert server.axes["probe/during/all/layer-1/r_backbone"] == PROBE_EPOCH
    assert server.axes["train/loss"] == STEP
    assert [row[ROW] for row in _with_rows(resumed)] == list(range(len(expected)))


def _with_rows(logger: RunLogger) -> list[dict[str, Any]]:
    return [{**row, ROW: k} for k, row in enumerate(logger._journal.read())]


def test_a_server_that_does_not_answer_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from wandb.errors import AuthenticationError

    server = Server()
    one = server.open(monkeypatch)

    def log(row: dict[str, Any]) -> None:
        if "probe/table" in row:
            raise AuthenticationError("the service process is busy and did not respond in time")
        server.rows.append(row)

    one.log = log
    logger = RunLogger(tmp_path)
    logger.log_metrics({"probe/table": 1.0}, step=0)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    assert [row[STEP] for row in server.rows] == [1]
    assert [row[STEP] for row in logger._journal.read()] == [0, 1]
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "probe/table" in said
    assert "busy" in said
    one.log = lambda row: 1 / 0
    with pytest.raises(ZeroDivisionError):
        logger.log_metrics({"train/loss": 0.5}, step=2)


@pytest.mark.parametrize("error", [ValueError("1 validation error: artifact"), ConnectionError("reset by peer")])
def test_a_checkpoint_that_the_server_does_not_take_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def log_artifact(artifact: Any, aliases: list[str]) -> None:
        raise error

    (tmp_path / "last.ckpt").write_bytes(b"weights")
    Server().open(monkeypatch).log_artifact = log_artifact
    saved = (1.0, str(tmp_path / "last.ckpt"), 0.5, "last")
    monkeypatch.setattr("brainlit.results.wandb_logger._scan_checkpoints", lambda callback, known: [saved])
    callback = SimpleNamespace(_last_global_step_saved=3, monitor=None)
    RunLogger(tmp_path)._scan_and_log_checkpoints(callback)  # type: ignore[arg-type]
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "did not take last.ckpt; the run goes on" in said
    assert str(error) in said


def test_pictures_are_drawn_anew_and_rows_without_a_step_are_never_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    server.open(monkeypatch)
    first = RunLogger(tmp_path)
    first.log_metrics({"figures/one": [object()]}, step=0)
    first.log_metrics({"mine": 1.0})
    server.open(monkeypatch)
    again = RunLogger(tmp_path, resumed_step=0)
    again.log_metrics({"figures/one": [object()]}, step=0)
    again.log_metrics({"mine": 2.0})
    assert [set(row) - {STEP, ROW} for row in server.rows] == [{"figures/one"}, {"mine"}] * 2


def test_a_table_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.open(monkeypatch)
    data = [["all", np.float64(0.25), np.int64(3)], ["semantic", None, 4]]
    RunLogger(tmp_path).log_table("probe/table", columns=["region", "r", "n_voxels"], data=data, step=0)
    server.rows = []
    server.open(monkeypatch)
    assert RunLogger(tmp_path, resumed_step=0).experiment is not None
    (row,) = server.rows
    assert (row["probe/table"].columns, row["probe/table"].data) == (
        ["region", "r", "n_voxels"],
        [["all", 0.25, 3], ["semantic", None, 4]],
    )


# --- Commands that do not train ---


class OneRun(SimpleNamespace):
    """In place of what wandb.init gives."""

    def __enter__(self) -> OneRun:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_probe_or_downstream_command_is_a_run_of_its_own(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wandb = pytest.importorskip("wandb")
    opened: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **settings: opened.update(settings) or OneRun(log=rows.append))
    page = tmp_path / "report.html"
    page.write_text("<p>r</p>")
    numbers = {f"probe/{k}": float(k) for k in range(50)}
    table = [{"region": "all", "value": 0.5}, {"region": "null"}]
    log_folder(run, "probe", numbers, {"probe/table": table}, "offline", page=page, name="mine", group="brain_tune")
    assert {key: opened[key] for key in ("name", "group", "job_type", "tags", "mode", "dir")} == {
        "name": "mine",
        "group": "brain_tune",
        "job_type": "probe",
        "tags": ["probe"],
        "mode": "offline",
        "dir": str(run.path),
    }
    assert opened["id"] == f"{wandb_id(run)}-probe"
    (row,) = rows
    assert [key for key, value in row.items() if isinstance(value, float)] == [f"probe/{k}" for k in range(40)]
    assert row["probe/table"].data == [["all", 0.5], ["null", None]]
    assert isinstance(row["report"], wandb.Html)


def test_what_wandb_cannot_take_costs_nothing(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    log_folder(run, "probe", {}, {}, "online")
    assert "W&B could not be given what is in" in caplog.text


def test_it_works_offline_without_account_and_asks_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from brainlit.results.run_directory import RunDirectory;"
        "from brainlit.results.wandb_logger import wandb_logger;"
        "logger = wandb_logger(RunDirectory.create(Path(sys.argv[1]), 'brain_tune', 'run-1'), {'lr': 0.1});"
        "logger.log_metrics({'probe/before/all/layer-1/r': 0.5}, step=3);"
        "assert 'WANDB_MODE' not in os.environ;"
        "run = logger.experiment; print(run.group, run.config['lr'], run.config['run_id'], run.settings.mode);"
        "run.finish()"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["brain_tune", "0.1", "run-1", "offline"]
    assert list((tmp_path / "brain_tune" / "run-1" / "wandb").glob("offline-run-*/*.wandb"))
