"""Every file under experiments/ builds what it describes, and says why it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.backbones import BACKBONES
from brainlit.cli.config_names import expanded
from brainlit.cli.errors import UsageError
from brainlit.cli.training import BrainlitCLI, parsed
from brainlit.datamodules.targets.config import REGIMES
from brainlit.results.wandb_logger import PROJECT

ROOT = Path(__file__).parents[2]
ALL = sorted(path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.yaml"))
SWEEPS = [path for path in ALL if path.parent.name == "sweeps"]
GRIDS = [path for path in ALL if path.parent.name == "grids"]
"""For `brainlit submit`; tests/cli/test_axes.py reads them."""
FILES = [path for path in ALL if path not in (*SWEEPS, *GRIDS)]
BASE = Path("experiments/brain_tune.yaml")
DATA, MODEL, REGIME = (Path(f"experiments/{name}.yaml") for name in ("data/demo", "model/wav2vec", "regime/brain"))
LEBEL = Path("experiments/data/lebel2023.yaml")
PROBES = ("four_bands", "word_rate")
"""Settings of `brainlit probe` under probe/, which a fit does not know; tests/cli/test_reference.py reads them."""
PRESETS = {"brain_wavlm": "wavlm", "multi_brain": "wav2vec", "paper_code": "wav2vec", "paper_text": "wav2vec"}
"""The model of each recipe under paper/."""


def test_none_is_forgotten() -> None:
    assert [str(path.relative_to("experiments")) for path in FILES] == [
        "brain_tune.yaml",
        "curves.yaml",
        *(f"data/{name}.yaml" for name in ("alice", "alice_bids", "alice_folds", "alice_group", "demo", "deniz2019")),
        *(f"data/{name}.yaml" for name in ("lebel2023", "narratives", "petit_prince")),
        *(f"model/{name}.yaml" for name in sorted(BACKBONES)),
        *(f"paper/{name}.yaml" for name in PRESETS),
        *(f"probe/{name}.yaml" for name in PROBES),
        "published_demo.yaml",
        "quick.yaml",
        *(f"regime/{name}.yaml" for name in sorted(REGIMES)),
    ]
    assert [path.stem for path in SWEEPS] == ["rates", "regimes", "subjects"]
    assert [path.stem for path in GRIDS] == ["demo"]


def merged(path: Path) -> list[Path]:
    """The files that a command with this one merges, in the order of the Makefile."""
    chosen = {"data": DATA, "model": MODEL, "regime": REGIME}
    if path.parent.name == "paper":
        chosen |= {"data": LEBEL, "model": Path(f"experiments/model/{PRESETS[path.stem]}.yaml"), "paper": path}
    elif path != BASE:
        chosen[path.parent.name] = path
    return [BASE, *chosen.values()]


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name != "probe"], ids=str)
def test_it_builds(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = [part for file in merged(path) for part in ("-c", str(file))]
    size = "base" if path.stem == "brain_wavlm" else "tiny"  # it reads hidden state 9
    small = ["--model.backbone.weights", f"random:{size}", "--run.root", str(tmp_path), "--run.wandb", "off"]
    cli = BrainlitCLI("fit", [*options, *small])
    assert cli.run is not None
    cli.run.release()
    family = PRESETS.get(path.stem, path.stem if path.parent.name == "model" else "wav2vec")
    assert cli.model.backbone.family == family
    assert cli.datamodule.regime == (path.stem if path.parent.name == "regime" else "brain")
    assert cli.datamodule.source.default_roles()["tune"]
    limit = cli.model.backbone.max_samples
    if limit is not None:
        window = cli.datamodule.window
        assert (window.n_trs * 2.0045 + window.context_s) * 16_000 <= limit
    assert (cli.run.path / "config.yaml").is_file()


def test_stimulus_trains_each_family_on_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for family, own in (("hubert", "self_supervised"), ("whisper", "ctc")):
        files = [BASE, DATA, Path(f"experiments/model/{family}.yaml"), Path("experiments/regime/stimulus.yaml")]
        options = [part for file in files for part in ("-c", str(file))]
        small = ["--model.backbone.weights", "random:tiny", "--run.root", str(tmp_path), "--run.wandb", "off"]
        cli = BrainlitCLI("fit", [*options, *small])
        assert cli.run is not None
        cli.run.release()
        assert getattr(cli.model.objective, own) == 1
        assert cli.model.objective.targets == 0


def test_the_text_of_the_paper_stops_early_and_keeps_the_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    options = [part for file in merged(Path("experiments/paper/paper_text.yaml")) for part in ("-c", str(file))]
    callbacks = parsed("fit", options).resolved["trainer"]["callbacks"]
    names = [callback["class_path"].rsplit(".", 1)[-1] for callback in callbacks]
    assert names == ["BandedRidgeProbe", "FeatureDrift", "RunReport", "EarlyStopping"]


def test_curves_come_before_the_report_that_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = [part for file in merged(Path("experiments/curves.yaml")) for part in ("-c", str(file))]
    callbacks = parsed("fit", [*options, "--seed_everything", "3"]).resolved["trainer"]["callbacks"]
    names = [callback["class_path"].rsplit(".", 1)[-1] for callback in callbacks]
    assert names == ["BandedRidgeProbe", "LayerCurve", "ChooseCheckpoint", "FeatureDrift", "RunReport"]
    assert [callbacks[k]["init_args"]["seed"] for k in (0, 1)] == [3, 3]
    assert [callbacks[k]["init_args"]["probe"]["seed"] for k in (0, 1)] == [3, 3]


def test_names_from_an_empty_folder_are_the_same_run_as_the_files_of_make_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = parsed("fit", expanded(["-c", "wav2vec", "-c", "demo", "--seed_everything", "4"], with_base=True))
    monkeypatch.chdir(ROOT)
    files = [part for file in (BASE, DATA, MODEL, REGIME) for part in ("-c", str(file))]
    assert named.resolved == parsed("fit", [*files, "--seed_everything", "4"]).resolved
    assert named.config_files[0] == "experiments/brain_tune.yaml (came with brainlit)"


@pytest.mark.parametrize("path", [*FILES, *GRIDS], ids=str)
def test_its_head_says_question_command_cost_and_result(path: Path) -> None:
    head = [line for line in (ROOT / path).read_text().splitlines() if line.startswith("#")]
    for word in ("# Question:", "# Command:", "# Cost:", "# Result:"):
        assert any(line.startswith(word) for line in head), word


def test_the_quick_reproduction_has_data_of_its_own_and_validates_its_last_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    files = [BASE, DATA, MODEL, Path("experiments/quick.yaml"), REGIME]
    full, quick = (
        parsed("fit", [*(part for file in own for part in ("-c", str(file))), "--seed_everything", "12"]).resolved
        for own in ([BASE, DATA, MODEL, REGIME], files)
    )
    assert quick["data"]["store_dir"] == "data/store/demo-quick-12" != full["data"]["store_dir"]
    assert quick["data"]["source"]["init_args"].keys() == full["data"]["source"]["init_args"].keys()
    assert quick["data"]["source"]["init_args"]["n_fit"] < full["data"]["source"]["init_args"]["n_fit"]
    assert quick["trainer"]["max_epochs"] % quick["trainer"]["check_val_every_n_epoch"] == 0


def test_published_weights_on_the_demo_have_data_of_their_own_and_few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = [BASE, DATA, Path("experiments/model/whisper.yaml"), Path("experiments/published_demo.yaml"), REGIME]
    options = [*(part for file in files for part in ("-c", str(file))), "--seed_everything", "12"]
    config = parsed("fit", options).resolved
    assert config["data"]["store_dir"] == "data/store/demo-small-12"
    assert config["data"]["source"]["init_args"]["n_tune"] == 8
    assert config["model"]["trainable"]["upper_layers"] == 2
    pretrained = parsed("fit", [*options, "-c", "experiments/regime/pretrained.yaml"]).resolved
    assert pretrained["trainer"]["max_epochs"] == 0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_papers_keep_the_published_rates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = [part for file in merged(Path(f"experiments/paper/{name}.yaml")) for part in ("-c", str(file))]
    model = parsed("fit", options).resolved["model"]
    published = {"paper_code": 5e-5, "paper_text": 5e-5, "multi_brain": 1e-4, "brain_wavlm": 1e-4}
    assert (model["backbone_lr"], model["head_lr"]) == (published[name], 1e-4)


# --- Sweeps of W&B ---


def agents_command(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What `wandb agent` runs for one choice of parameters."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    words = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    words |= {"program": [sweep["program"]]}
    command: list[str] = []
    for part in utils.create_sweep_command(list(sweep["command"])):
        command += words[part[2:-1]] if part.startswith("${") else [str(part)]
    return command


def some_values(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The lowest and the highest value of every parameter: the first and the last of a list."""
    return [
        {
            name: about["values"][end] if "values" in about else about["max" if end else "min"]
            for name, about in sweep["parameters"].items()
        }
        for end in (0, -1)
    ]


def value_at(config: dict[str, Any], name: str) -> Any:
    """The value of an option, by its name."""
    for part in name.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("path", SWEEPS, ids=str)
def test_a_sweep_runs_fit_with_what_the_agent_chose(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load(path.read_text())
    assert sweep["project"] == PROJECT
    for values in some_values(sweep):
        program, verb, *arguments = agents_command(sweep, values)
        assert (program, verb) == ("brainlit", "fit")
        cli = parsed("fit", expanded(arguments, with_base=True))
        assert cli.resolved["run"]["experiment"] == f"sweep_{path.stem}"
        for name, value in values.items():
            assert value_at(cli.resolved, name) == (yaml.safe_load(value) if isinstance(value, str) else value), name


@pytest.mark.parametrize("path", SWEEPS, ids=str)
def test_a_sweep_that_chooses_does_not_look_at_scored_stories(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    metric, all_are_made = sweep["metric"]["name"], sweep["method"] == "grid"
    assert metric == "val/loss" or (all_are_made and metric == "headline/alignment/difference")


def test_a_sweep_is_no_config_file() -> None:
    with pytest.raises(UsageError, match="there is no experiment 'rates'"):
        expanded(["fit", "-c", "demo", "-c", "rates"])
