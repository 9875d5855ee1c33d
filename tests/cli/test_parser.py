"""Overrides as users type them; what is refused comes with the nearest thing that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brainlit.cli.errors import UsageError
from brainlit.cli.parser import hints_for
from brainlit.cli.training import parsed

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


def _parsed(*arguments: str) -> dict[str, Any]:
    experiments = Path(__file__).parents[2] / "experiments"
    files = ("brain_tune.yaml", "model/wav2vec.yaml", "data/demo.yaml")
    configs = [part for file in files for part in ("-c", str(experiments / file))]
    return parsed("fit", [*configs, *arguments]).resolved


def test_files_merge_and_options_override_as_users_type_them() -> None:
    options = "--trainer.max_epochs 2 --data.window.n_trs 1 --model.head_lr 1e-3 --data.source.n_tune 3"
    config = _parsed(*options.split())
    assert config["trainer"]["max_epochs"] == 2
    assert config["data"]["window"] == config["data"]["window"] | {"n_trs": 1, "context_s": 8.0}
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
    assert config["trainer"]["callbacks"][0]["init_args"]["seed"] == 7
    assert config["run"]["root"] == "/somewhere/runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model.head_l", "1"), r"Did you mean --model\.head_lr\?"),
        (("--data.source.n_tunes", "3"), r"Did you mean n_tune\?"),
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


def test_an_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model:\n  heed_lr: 1\n")
    with pytest.raises(UsageError, match=r"does not accept option 'heed_lr'\s+Did you mean model\.head_lr"):
        _parsed("-c", str(tmp_path / "mine.yaml"))


def test_without_data_it_is_said_what_is_missing() -> None:
    with pytest.raises(UsageError, match=r"add for instance -c experiments/data/demo\.yaml"):
        parsed("fit", [])


def test_print_config_prints_the_merged_config_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _parsed("--trainer.max_epochs", "3", "--print_config")
    assert ended.value.code in (None, 0)
    printed = capsys.readouterr().out
    assert "max_epochs: 3" in printed
    assert "store_dir: data/store/demo-0" in printed
