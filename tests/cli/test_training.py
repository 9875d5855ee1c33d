"""fit, validate, test, predict and report on a small run."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import h5py
import lightning.pytorch as pl
import numpy as np
import pytest
import yaml

from brainlit.cli import main, training
from brainlit.cli.errors import INTERRUPTED, UsageError
from brainlit.cli.refusals import HintingParser, hints_for, missing_package
from brainlit.cli.run_options import RUN_VARIABLE, RunOptions
from brainlit.cli.trainer import loggers
from brainlit.cli.training import parsed
from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_names import wandb_id
from brainlit.store import StoryStore
from tests.cli.test_option_hints import names_in

Command = Callable[..., list[str]]


def test_a_run_leaves_what_its_directory_promises(finished_run: Path) -> None:
    assert RunDirectory.open(finished_run).state == "finished"
    for name in ("config.yaml", "metrics.csv", "summary.json", "provenance.json", "report.html"):
        assert (finished_run / name).stat().st_size > 0, name
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert not (finished_run / "wandb").exists(), "W&B was off"
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["model"]["backbone"]["weights"] == "random:tiny"
    assert json.loads((finished_run / "summary.json").read_text())["headline"]


def test_a_finished_run_is_never_overwritten(
    finished_run: Path, small: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file()}
    assert main(["fit", *small("--run.id", "finished")]) == 2
    assert "finished at" in capsys.readouterr().err
    now = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file()}
    assert {path for path in before if now[path] != before[path]} <= {finished_run / ".lock"}


def test_test_and_validate_give_their_numbers(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(finished_run), "--trust"]) == 0
    assert "test/r/sub-A" in capsys.readouterr().out
    assert main(["validate", str(finished_run), "--trust"]) == 0
    assert "val/loss" in capsys.readouterr().out


def test_predictions_are_in_their_places(finished_run: Path) -> None:
    assert main(["predict", str(finished_run), "--trust"]) == 0
    with h5py.File(finished_run / "predictions.h5") as file:
        assert file["sub-A/toy5"].shape == (40, 12)
        assert np.isfinite(file["sub-A/toy5"][()]).all()
        assert len(file["sub-B/voxels"]) == 12
        assert set(file["sub-A"]) == {"toy5", "voxels"}


def test_predictions_are_those_that_test_scores(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    windows = ["--trust", "--data.window.n_trs", "12"]  # of 40 rows: the last window overlaps the one before it
    assert main(["test", str(finished_run), *windows]) == 0
    found = re.search(r"test/r/sub-A[^\d-]+(-?[\d.]+(?:e-\d+)?)", capsys.readouterr().out)
    assert found is not None
    assert main(["predict", str(finished_run), *windows]) == 0
    store_dir = yaml.safe_load((finished_run / "config.yaml").read_text())["data"]["store_dir"]
    with h5py.File(finished_run / "predictions.h5") as file:
        predicted, voxels = file["sub-A/toy5"][()], file["sub-A/voxels"][()]
    observed = StoryStore.open(store_dir).responses("sub-A", "toy5")[:, voxels]
    r = [np.corrcoef(one, other)[0, 1] for one, other in zip(predicted.T, observed.T, strict=True)]
    assert float(found[1]) == pytest.approx(np.mean(r), abs=1e-5)


def test_the_report_can_be_written_again(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished_run / "report.html").unlink()
    assert main(["report", str(finished_run)]) == 0
    assert {path.stem for path in (finished_run / "figures").glob("brain-*.png")} == {"brain-sub-A", "brain-sub-B"}
    assert (finished_run / "report.html").stat().st_size > 0
    last = [f"Report: {(finished_run / 'report.html').as_uri()}", f"Next: brainlit downstream {finished_run}"]
    assert capsys.readouterr().out.splitlines()[-2:] == last


def test_without_runs_there_is_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--root", str(tmp_path)]) == 2
    assert "Train first" in capsys.readouterr().err
    assert main(["test", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_a_verb_without_a_model_says_what_it_needs(small: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", *small()]) == 2
    assert "brainlit test needs a tuned model: brainlit test runs/" in capsys.readouterr().err
    assert main(["test", *small("--ckpt_path", "no/such.ckpt")]) == 2
    assert "there is no checkpoint no/such.ckpt" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(finished_run), "--trust", "--model.head.delays_trs", "[1,2]"]) == 2
    assert "delays_trs" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_wandb_id(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        run = RunDirectory.claim(tmp_path, "brain_tune", "mine")
        _, wandb = loggers(run, RunOptions(wandb="offline"), {})
        ids.append(wandb.version)
        run.release()
    assert ids == [wandb_id(run)] * 2


class Interrupt(pl.Callback):
    """Ctrl-C after the first epoch, unless that has happened before."""

    def __init__(self, once: str) -> None:
        self.once = Path(once)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and not self.once.exists():
            self.once.touch()
            raise KeyboardInterrupt


def test_ctrl_c_leaves_a_run_that_the_same_command_finishes(
    small: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [{"class_path": f"{__name__}.Interrupt", "init_args": {"once": str(tmp_path / "once")}}]
    arguments = small("--run.root", str(tmp_path), "--trainer.callbacks", json.dumps(callbacks))
    arguments[arguments.index("--trainer.max_epochs") + 1] = "2"
    assert main(["fit", *arguments]) == INTERRUPTED
    assert RUN_VARIABLE not in os.environ, "what this process starts now is no part of that run"
    assert "goes on from the last checkpoint" in capsys.readouterr().err
    (run,) = (RunDirectory.open(path.parent) for path in tmp_path.glob("brain_tune/*/status.json"))
    assert run.state == "killed"
    assert main(["fit", *arguments]) == 0
    assert run.state == "finished"
    assert len(run.status["starts"]) == 2
    epochs = [row.split(",") for row in (run.path / "metrics.csv").read_text().splitlines()]
    at = epochs[0].index("epoch")
    assert {row[at] for row in epochs[1:]} == {"0", "1"}


# --- Keeping freed memory: asked in another process, for it lasts ---


PROGRAM = """
import numpy as np, resource
from brainlit.cli.training import keep_freed_memory
print(keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_large_blocks_are_reused_instead_of_faulted_in_again() -> None:
    understood, faults = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    ).stdout.split()
    if understood == "False":
        pytest.skip("this C library has no mallopt")
    assert int(faults) < 20 * 8_000_000 * 8 / 4096 / 10


@pytest.mark.parametrize(
    ("text", "is_news"),
    [
        ("TPU available: False, using: 0 TPU cores", False),
        ("GPU available: False, used: False", False),
        ("Loading `train_dataloader` to estimate number of stepping batches.", False),
        ("`Trainer.fit` stopped: `max_epochs=3` reached.", False),
        ("Restoring states from the checkpoint path at last.ckpt", False),
        ("💡 Tip: For seamless cloud uploads, try this package.", False),
        ("GPU available: True (cuda), used: True", True),
        ("TPU available: True, using: 8 TPU cores", True),
        ("Loaded model weights from the checkpoint at last.ckpt", True),
        ("`Trainer.fit` stopped: No training batches.", True),
    ],
)
def test_of_what_lightning_says_news_are_shown(text: str, is_news: bool) -> None:
    record = logging.LogRecord("lightning", logging.INFO, "", 0, text, None, None)
    assert training._is_news(record) == is_news


# --- Overrides as users type them; what is refused comes with the nearest thing that exists ---


KEYS = ["data.source", "data.store_dir", "data.seed", "data.window.n_trs", "model.head_lr", "trainer.max_epochs"]


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("unrecognized arguments: --model.head_l 1", "Did you mean --model.head_lr?"),
        ("unrecognized arguments: --modell.head_lr=1", "Did you mean --model.head_lr?"),
        ("unrecognized arguments: --data.sorce.init_args.seed 1", "Did you mean --data.source.init_args.seed?"),
        ("unrecognized arguments: --max_epochs 3", "Did you mean --trainer.max_epochs?"),
        ("Group 'data' does not accept option 'window.n_tr'", "Did you mean data.window.n_trs?"),
        ("Option 'modell.head_lr' is not accepted", "Did you mean model.head_lr?"),
        ("class_path 'tests.toy.ToySource':\n    Option 'n_tr' is not accepted", "Did you mean n_trs?"),
        ("module 'tests.toy' has no attribute 'ToySorce'", "Did you mean tests.toy.ToySource?"),
    ],
)
def test_hints_name_what_is_near(message: str, hint: str) -> None:
    assert hint in list(hints_for(message, KEYS))


def test_nothing_near_means_no_hint() -> None:
    assert list(hints_for("unrecognized arguments: --qqqq 1", KEYS)) == []


def test_a_hint_exists_and_is_never_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting of training, spoilt in each of its parts, lengthened and left as it is."""
    asked: list[list[str]] = []

    def refused(parser: HintingParser, message: str, ex: Exception | None = None) -> NoReturn:
        asked.append(parser.known_keys())
        raise UsageError(message)

    monkeypatch.setattr(HintingParser, "error", refused)
    with pytest.raises(UsageError, match="unrecognized arguments: --qqqq"):
        _parsed("--qqqq", "1")
    known = asked[0]
    groups = {key[:dot] for key in known for dot in range(len(key)) if key[dot] == "."}
    assert len(known) > 150
    for key in known:
        parts = key.split(".")
        spoilt = [".".join([*parts[:k], f"{parts[k]}x", *parts[k + 1 :]]) for k in range(len(parts))]
        unlike = [".".join([*parts[:k], "qqqq", *parts[k + 1 :]]) for k in range(1, len(parts))]
        for given in [*spoilt, *unlike, f"{key}.qqqq", key]:
            names = names_in(hints_for(f"unrecognized arguments: --{given} 1", known))
            assert f"--{given}" not in names
            assert {name.removeprefix("--") for name in names} <= {*known, *groups}, given
            assert names or given.count(".") == 0 or given == key, given


def _parsed(*arguments: str) -> dict[str, Any]:
    experiments = Path(__file__).parents[2] / "experiments"
    files = ("brain_tune.yaml", "model/wav2vec.yaml", "data/demo.yaml")
    configs = [part for file in files for part in ("-c", str(experiments / file))]
    return parsed("fit", [*configs, *arguments]).resolved


def test_files_merge_and_options_override_as_users_type_them() -> None:
    options = "--trainer.max_epochs 2 --data.window.n_trs 1 --model.head_lr 1e-3 --data.source.n_tune 3"
    config = _parsed(*options.split())
    assert config["trainer"]["max_epochs"] == 2
    assert config["data"]["window"] == config["data"]["window"] | {"n_trs": 1, "context_s": 20.0}
    assert config["model"]["head_lr"] == 0.001
    assert config["data"]["source"]["init_args"]["n_tune"] == 3
    assert config["trainer"]["gradient_clip_val"] == 1.0, "of the base file"
    assert config["model"]["backbone"]["family"] == "wav2vec", "of the model file"
    assert [c["class_path"].rpartition(".")[2] for c in config["trainer"]["callbacks"]] == [
        "BandedRidgeProbe",
        "FeatureDrift",
        "RunReport",
    ]


def test_one_seed_reaches_everything_that_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORES", "/somewhere")
    config = _parsed("--seed_everything", "7", "--run.root", "${oc.env:STORES}/runs")
    assert (config["model"]["seed"], config["data"]["seed"]) == (7, 7)
    assert config["data"]["source"]["init_args"]["seed"] == 7
    assert config["data"]["store_dir"].endswith("demo-7")
    probe = config["trainer"]["callbacks"][0]["init_args"]
    assert (probe["seed"], probe["probe"]["seed"]) == (7, 7)
    assert config["run"]["root"] == "/somewhere/runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model.head_l", "1"), r"Did you mean --model\.head_lr\?"),
        (("--model.backbone.qqqq", "main"), r"--model\.backbone takes adapter_base, dropout, .*revision, seed"),
        (("--data.source.n_tunes", "3"), r"Did you mean n_tune\?"),
        (("--data.source.qqqq", "3"), r"brainlit\.demo\.DemoSource takes "),
        (("-c", "experiments/model/wavvec.yaml"), r"Did you mean wav2vec\.yaml\?"),
        (("--data.regime", "perm"), "brain.*permuted"),
        (("--trainer.max_epochs", "many"), "trainer.max_epochs"),
    ],
)
def test_wrong_options_are_refused_with_hints(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UsageError, match=message):
        _parsed(*arguments)


@pytest.mark.parametrize(
    ("option", "typed", "said", "right"),
    [
        ("--data.subjects", "[010]", "YAML makes 8 of a name without quotes", "--data.subjects \"['010']\""),
        ("--data.subjects", "[sub-1,no]", "YAML makes False", "--data.subjects \"[sub-1,'no']\""),
        ("--data.held_out_subjects", "[1e3]", "YAML makes 1000.0", "--data.held_out_subjects \"['1e3']\""),
        ("--data.roles", "{tune: [null]}", "YAML makes None", "--data.roles \"{tune: ['null']}\""),
        ("--data.subjects", "010", "Names stand in a list", "--data.subjects \"['010']\""),
    ],
)
def test_names_that_yaml_changes_are_refused_with_the_right_form(
    option: str, typed: str, said: str, right: str
) -> None:
    with pytest.raises(UsageError) as refused:
        _parsed(option, typed)
    assert said in str(refused.value)
    assert str(refused.value).endswith(right)
    key, value = shlex.split(right)
    found = _parsed(key, value)["data"]
    roles = found.get("roles") or {}
    assert yaml.safe_load(value) in (found.get("subjects"), found.get("held_out_subjects"), roles, roles.get("tune"))


def test_a_name_like_a_number_is_kept_where_one_text_is_asked_for() -> None:
    assert _parsed("--run.id", "1e3", "--run.experiment", "010")["run"]["id"] == "1e3"


def test_names_in_a_file_that_yaml_changes_get_the_same_hint(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {subjects: [010]}\n")
    with pytest.raises(UsageError, match=r"YAML makes 8 of a name without quotes.* Put it in quotes: '010'$"):
        _parsed("-c", str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("data: {subjects: ['010', 2024-01-02]}\n")
    assert _parsed("-c", str(tmp_path / "mine.yaml"))["data"]["subjects"] == ["010", "2024-01-02"]


def test_an_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model:\n  heed_lr: 1\n")
    with pytest.raises(UsageError, match=r"does not accept option 'heed_lr'\s+Did you mean model\.head_lr"):
        _parsed("-c", str(tmp_path / "mine.yaml"))


def test_without_data_it_is_said_what_is_missing() -> None:
    with pytest.raises(UsageError, match=r"add for instance -c demo"):
        parsed("fit", [])


def test_print_config_prints_the_merged_config_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _parsed("--trainer.max_epochs", "3", "--print_config")
    assert ended.value.code in (None, 0)
    printed = capsys.readouterr().out
    assert "max_epochs: 3" in printed
    assert "store_dir: data/store/demo-0" in printed


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--trainer.strategy=ddp_spwan", "there is no such strategy. Did you mean 'ddp_spawn'"),
        ("--trainer.accelerator=gppu", "there is no such accelerator. Did you mean 'gpu'"),
    ],
)
def test_names_that_lightning_does_not_know_are_refused_before_anything_is_built(
    small: Command, tmp_path: Path, option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *small(option, f"--run.root={tmp_path}")]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_found_among_the_causes() -> None:
    def fail() -> None:
        try:
            raise ModuleNotFoundError("Requirement 'comet-ml>=3.44.4'\n not met.")
        except ModuleNotFoundError as error:
            raise ValueError("Does not validate against any of the Union subtypes") from error

    with pytest.raises(ValueError, match="Union") as caught:
        fail()
    assert missing_package(caught.value) == "Requirement 'comet-ml>=3.44.4' not met."
    assert missing_package(ValueError("another")) is None
