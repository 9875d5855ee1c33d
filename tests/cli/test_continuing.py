"""fit --ckpt_path: the interrupted run, a checkpoint of another run, and what training cannot go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from brainlit.cli import main
from brainlit.cli.continuing import Start, asked_start, say_where
from brainlit.cli.errors import UsageError
from brainlit.cli.run_options import RunOptions, difference
from brainlit.cli.training import parsed
from brainlit.guard import read_csv, read_json
from brainlit.results.run_directory import RunDirectory
from tests.cli.conftest import drawing_nothing

Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def first_run(quick: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of one epoch with a checkpoint of the user's own and early stopping."""
    root = tmp_path_factory.mktemp("continued")
    own = ("ModelCheckpoint", "EarlyStopping")
    callbacks = [
        part for name in own for part in (f"--trainer.callbacks+={name}", "--trainer.callbacks.monitor=val/loss")
    ]
    with drawing_nothing():
        assert main(["fit", *quick("--run.root", str(root), "--run.id", "first", *callbacks)]) == 0
        yield root / "brain_tune" / "first"


def _rows(path: Path) -> list[dict[str, str]]:
    return read_csv(path, "a table", "")


@pytest.mark.usefixtures("undrawn")
def test_a_run_goes_on_from_a_checkpoint_of_another(
    first_run: Path, quick: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {path.name for path in (first_run / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "best.ckpt", "epoch=0-step=1.ckpt"}
    last = first_run / "checkpoints" / "last.ckpt"
    options = quick("--run.root", str(tmp_path), "--run.id", "second", "--ckpt_path", str(last))
    options[options.index("--trainer.max_epochs") + 1] = "2"
    assert main(["fit", *options]) == 0
    run = tmp_path / "brain_tune" / "second"
    facts = read_json(run / "run.json", "", "")
    assert (facts["epochs"], facts["steps"], facts["went_on_from"]) == (2, 2, str(last))
    for subject in ("sub-A", "sub-B"):
        before = Path("probes") / subject / "epoch-000.h5"
        assert (run / before).read_bytes() == (first_run / before).read_bytes(), "of the untouched model"
        assert (run / "probes" / subject / "epoch-002.h5").is_file()
    assert [row["epoch"] for row in _rows(run / "drift.csv") if row["layer"] == "0"] == ["1", "2"]
    epochs = [row["epoch"] for row in _rows(run / "metrics.csv") if row["val/loss"]]
    assert epochs == ["0", "1"], "no epoch is doubled or lost"
    now, then = (torch.load(path, weights_only=True)["state_dict"] for path in (run / "checkpoints/last.ckpt", last))
    assert any(not torch.equal(now[name], then[name]) for name in now), (
        "the second plan's rates, not the end of the first"
    )
    assert main(["test", str(run), "--trust", "--ckpt_path", "last"]) == 0
    assert "own predictions, from layer 4 in last.ckpt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "trainer", "message"),
    [
        ("best", {}, r"--ckpt_path best does not say of which run\. Give last .*or a file"),
        ("hpc", {}, "--ckpt_path hpc does not say of which run"),
        ("FIRST/last.ckpt", {"max_epochs": 1}, r"has 1 epochs behind it, .*Give --trainer\.max_epochs 2 or more"),
        ("FIRST/last.ckpt", {"max_steps": 1}, r"has 1 optimiser steps behind it.*max_steps 2 or more"),
    ],
)
def test_what_training_cannot_go_on_from_is_refused(
    first_run: Path, asked: str, trainer: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        asked_start(asked.replace("FIRST", str(first_run / "checkpoints")), RunOptions(), trainer)


def test_weights_alone_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "weights.ckpt")
    with pytest.raises(UsageError, match=r"training cannot go on from .*weights\.ckpt: it holds only weights"):
        asked_start(str(tmp_path / "weights.ckpt"), RunOptions(), {})


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint no/such\.ckpt"):
        asked_start("no/such.ckpt", RunOptions(), {})


def test_last_is_the_same_run_as_without_it(quick: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it, without = (parsed("fit", quick(*more)).resolved for more in (("--ckpt_path", "last"), ()))
    assert difference(with_it, without) is None
    assert asked_start("last", RunOptions(), {}) is None
    with pytest.raises(UsageError, match=r"--run\.resume never forbids that"):
        asked_start("last", RunOptions(resume="never"), {})


@pytest.mark.parametrize(("resumed", "says"), [(False, True), (True, False)])
def test_last_without_an_interrupted_run_begins_anew_and_says_so(
    tmp_path: Path, resumed: bool, says: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        say_where("last", RunDirectory(tmp_path / "brain_tune" / "mine", resumed=resumed))
    assert ("this one begins anew" in caplog.text) == says


def test_what_was_brought_is_taken_back(first_run: Path, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "brain_tune", "mine")
    start = Start(first_run / "checkpoints" / "last.ckpt", 1, 1).bring_records(run)
    assert (run.probes / "sub-A" / "epoch-001.h5").is_file()
    start.take_back()
    assert run.discard_unused()


def test_records_after_the_checkpoint_stay_where_they_are(first_run: Path, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "brain_tune", "mine")
    Start(first_run / "checkpoints" / "last.ckpt", 0, 0).bring_records(run)
    assert {path.name for path in run.probes.rglob("epoch-*")} == {"epoch-000.h5", "epoch-000.csv"}
    assert {row["step"] for row in _rows(run.path / "metrics.csv")} == {"0"}


def test_a_checkpoint_outside_of_runs_brings_nothing(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs", "brain_tune", "mine")
    assert Start(tmp_path / "some.ckpt", 3, 1).bring_records(run).brought == ()
