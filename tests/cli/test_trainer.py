"""The options of a Trainer through the shipped experiment: each runs as LightningCLI's users know it, or is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from lightning.fabric.connector import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ModelSummary, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from brainlit.cli import main
from brainlit.cli.errors import UsageError
from brainlit.cli.run_options import RunOptions
from brainlit.cli.trainer import loggers, refused_in_words, trainer_of_fit, trainer_of_others
from brainlit.comparison.runs import read_summaries
from brainlit.guard import read_csv, read_json
from brainlit.results.run_directory import RunDirectory
from brainlit.tuning.precision import ALIASES, REFUSED, TAKEN

Command = Callable[..., list[str]]


def _table(path: Path) -> list[dict[str, str]]:
    return read_csv(path, "a table", "")


def _json(path: Path) -> dict[str, Any]:
    return read_json(path, "a JSON object", "")


# --- Precision ---


@pytest.mark.usefixtures("undrawn")
def test_half_precision_trains(quick: Command, tmp_path: Path) -> None:
    """All other runs here are of 32-true, but for one of 16-mixed."""
    assert main(["fit", *quick("--run.root", str(tmp_path), "--run.id", "a", "--trainer.precision", "bf16")]) == 0
    run = tmp_path / "brain_tune" / "a"
    assert (run / "report.html").is_file()
    (loss,) = (float(row["train/loss_epoch"]) for row in _table(run / "metrics.csv") if row["train/loss_epoch"])
    assert 0 < loss < 100
    assert "precision bf16-mixed," in _json(run / "run.json")["training"]


@pytest.mark.parametrize("precision", [*REFUSED, *(short for short, long in ALIASES.items() if long in REFUSED)])
@pytest.mark.parametrize("verb", ["fit", "test"])
def test_another_precision_is_refused_at_once(
    quick: Command, tmp_path: Path, precision: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, *quick("--run.root", str(tmp_path), "--trainer.precision", precision)]) == 2
    said = capsys.readouterr().err
    assert f"--trainer.precision {ALIASES.get(precision, precision)} cannot be used: " in said
    assert said.endswith("Give 32-true, bf16-mixed or 16-mixed.\n")
    assert list(tmp_path.iterdir()) == []


def test_these_are_all_precisions_that_there_are() -> None:
    assert {*TAKEN, *REFUSED, *ALIASES} == {*get_args(_PRECISION_INPUT_STR), *get_args(_PRECISION_INPUT_STR_ALIAS)}


# --- Progress bars, loggers, checkpoints ---


@pytest.mark.usefixtures("undrawn")
def test_a_bar_and_loggers_of_ones_own_and_what_lightning_has_for_looking_closely(
    quick: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = [{"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / name)}} for name in ("one", "two")]
    options = (
        *("--trainer.callbacks+=RichProgressBar", f"--trainer.logger={json.dumps(own)}"),
        *("--trainer.precision", "16-mixed"),  # on a CPU Lightning makes bf16-mixed of it, and says so
        *("--trainer.gradient_clip_algorithm", "value", "--trainer.accumulate_grad_batches", "2"),
        *("--trainer.profiler", "simple", "--trainer.detect_anomaly", "true", "--trainer.limit_train_batches", "1"),
    )
    assert main(["fit", *quick("--run.root", str(tmp_path), "--run.id", "a", *options)]) == 0
    run = tmp_path / "brain_tune" / "a"
    assert RunDirectory.open(run).state == "finished"
    tables = [
        _table(path / "metrics.csv")
        for path in (run, *(tmp_path / n / "lightning_logs/version_0" for n in ("one", "two")))
    ]
    losses = [{row["val/loss"] for row in table if row["val/loss"]} for table in tables]
    assert losses[0] == losses[1] == losses[2]
    assert "Profiler Report" in caplog.text
    assert "--trainer.limit_train_batches 1: at most 1 of the batches of an epoch is trained on." in " ".join(
        _json(run / "summary.json")["warnings"]
    )
    for verb, hook in (("validate", "validation"), ("test", "test"), ("predict", "predict")):
        Counting.batches = []
        assert (
            main(
                [
                    verb,
                    str(run),
                    "--trust",
                    f"--trainer.callbacks+={__name__}.Counting",
                    f"--trainer.logger={json.dumps(own[:1])}",
                ]
            )
            == 0
        )
        assert Counting.batches == [hook]
    assert any("test/r" in row for row in _table(tmp_path / "one" / "lightning_logs" / "version_2" / "metrics.csv"))
    assert not Path("lightning_logs").exists()


class Counting(Callback):
    """Notes which batches it saw."""

    batches: list[str] = []  # noqa: RUF012

    def on_validation_batch_end(self, *given: Any) -> None:
        self.batches.append("validation")

    def on_test_batch_end(self, *given: Any) -> None:
        self.batches.append("test")

    def on_predict_batch_end(self, *given: Any) -> None:
        self.batches.append("predict")


@pytest.mark.usefixtures("undrawn")
def test_no_bar_no_checkpoint_no_logger_and_no_validation(
    quick: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    off = [
        f"--trainer.{name}=false"
        for name in ("enable_progress_bar", "enable_checkpointing", "logger", "inference_mode")
    ]
    options = quick("--run.root", str(tmp_path), "--run.id", "a", *off, "--trainer.limit_val_batches", "0")
    capfd.readouterr()
    assert main(["fit", *options]) == 0
    said = capfd.readouterr()
    assert "it/s" not in said.out + said.err
    assert "model/s" not in said.out + said.err
    run = tmp_path / "brain_tune" / "a"
    assert list((run / "checkpoints").iterdir()) == []
    assert not (run / "metrics.csv").exists()
    assert (run / "report.html").is_file()
    warnings = " ".join(_json(run / "summary.json")["warnings"])
    assert "--trainer.logger false: nothing was logged" in warnings
    assert "--trainer.limit_val_batches 0: none of the batches of an epoch are validated on." in warnings
    assert main(["test", str(run), "--trust"]) == 2
    assert "keeps none (--trainer.enable_checkpointing false" in capfd.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_trial_run_has_no_result(quick: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *quick("--run.root", str(tmp_path), "--run.id", "a", "--trainer.fast_dev_run", "true")]) == 0
    run = tmp_path / "brain_tune" / "a"
    headline = _json(run / "summary.json")["headline"]
    assert headline == [_json(run / "run.json")["trial"]]
    assert headline[0].startswith("A trial run (fast_dev_run: 1 batch of training, no checkpoint): it shows that")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "trial run (fast_dev_run): no result" in page
    assert 'class="tile"' not in page
    assert "too short to learn" not in page
    capfd.readouterr()
    assert main(["report", str(run)]) == 0
    assert capfd.readouterr().out.splitlines()[0] == headline[0]
    with pytest.raises(ValueError, match=r"was a trial run \(fast_dev_run\) and has no result"):
        read_summaries([run])


def test_tensorboard_logs_where_it_is_installed_and_is_asked_for_where_not(
    quick: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    options = ("--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", str(tmp_path / "boards"))
    status = main(["fit", *quick("--run.root", str(tmp_path / "runs"), "--run.id", "a", *options)])
    if any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        assert status == 0
        assert list(tmp_path.glob("boards/**/events.out.tfevents.*"))
        assert _table(tmp_path / "runs" / "brain_tune" / "a" / "metrics.csv")
    else:
        assert status == 2
        assert "needs a package that is not here" in capsys.readouterr().err
        assert not (tmp_path / "runs" / "brain_tune").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.overfit_batches", "1"], "--trainer.overfit_batches 1 cannot be used"),
        (["--trainer.barebones", "true"], "--trainer.barebones true does without checkpoints"),
        (["--trainer.gradient_clip_algorithm", "size"], "gradient_clip_algorithm"),
        (["--trainer.max_time", "soon"], "`Timer(duration='soon')` is not a valid duration"),
        (
            ["--trainer.enable_progress_bar", "false", "--trainer.callbacks+=RichProgressBar"],
            "enable_progress_bar=False",
        ),
        (
            ["--trainer.enable_checkpointing", "false", "--trainer.callbacks+=ModelCheckpoint"],
            "enable_checkpointing=False",
        ),
        (["--trainer.callbacks+=RichProgressBar", "--trainer.callbacks+=TQDMProgressBar"], "only one progress bar"),
        (["--trainer.devices", "0"], "devices"),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_leaves_no_run(
    quick: Command, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *quick("--run.root", str(tmp_path), *options)]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.glob("brain_tune/*")) == []


# --- What is put together, without a run ---


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A new run."""
    return RunDirectory.create(tmp_path, "brain_tune", "mine")


def test_ones_own_checkpoint_stands_beside_best_and_last(run: RunDirectory) -> None:
    """Lightning refuses two that watch the same number, unless they can be told apart."""
    own = ModelCheckpoint(monitor="val/loss")
    made = trainer_of_fit({"callbacks": [own, RichProgressBar()]}, run, RunOptions(wandb="off"), {}, None)["callbacks"]
    keys = [callback.state_key for callback in made if isinstance(callback, ModelCheckpoint)]
    assert len(keys) == len(set(keys)) == 3
    assert [type(one).__name__ for one in made if type(one).__name__.endswith("ProgressBar")] == ["RichProgressBar"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [({}, False), ({"enable_model_summary": True}, True), ({"callbacks": [ModelSummary(max_depth=2)]}, True)],
)
def test_lightnings_table_of_modules_is_shown_where_it_is_asked_for(
    run: RunDirectory, given: dict[str, Any], shown: bool
) -> None:
    made = trainer_of_fit(given, run, RunOptions(wandb="off"), {}, None)
    assert made["enable_model_summary"] is shown


@pytest.mark.parametrize(
    ("wandb", "own", "expected"),
    [
        ("off", None, ["MetricsLogger"]),
        ("off", False, False),
        ("offline", True, ["MetricsLogger", "RunLogger"]),
        ("auto", ["csv"], ["CSVLogger", "MetricsLogger"]),
        ("offline", ["csv"], ["CSVLogger", "MetricsLogger", "RunLogger"]),
        ("offline", ["wandb", "csv"], ["WandbLogger", "CSVLogger", "MetricsLogger"]),
    ],
)
def test_the_users_loggers_come_first_and_metrics_csv_stays(
    run: RunDirectory, tmp_path: Path, wandb: Any, own: Any, expected: Any
) -> None:
    kinds: dict[str, Callable[[], Any]] = {
        "csv": lambda: CSVLogger(tmp_path),
        "wandb": lambda: WandbLogger(save_dir=tmp_path, offline=True),
    }
    given = [kinds[name]() for name in own] if isinstance(own, list) else own
    found = loggers(run, RunOptions(wandb=wandb), {}, given)
    assert (found if isinstance(found, bool) else [type(one).__name__ for one in found]) == expected


def test_other_verbs_take_what_is_given_but_checkpoints() -> None:
    bar, logger = RichProgressBar(), CSVLogger("somewhere")
    made = trainer_of_others({"callbacks": [ModelCheckpoint(), bar], "logger": logger})
    assert made.pop("callbacks")[:-1] == [bar], "and the watch of processes"
    assert made == {"logger": logger, "enable_checkpointing": False}
    assert trainer_of_others({"callbacks": None, "logger": True})["logger"] is False


def test_what_lightning_refuses_becomes_a_sentence() -> None:
    with (
        pytest.raises(UsageError, match="Lightning refuses these settings of the trainer: no such thing"),
        refused_in_words(),
    ):
        raise ValueError("no such thing")
    with pytest.raises(RuntimeError, match="out of memory"), refused_in_words():
        raise RuntimeError("CUDA out of memory")
