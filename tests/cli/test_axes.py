"""Files of axes: which cells they make, what is refused with which words, and the same cells as a sweep of W&B."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.cli.axes import Axes, read_axes, wandb_sweep, word
from brainlit.cli.config_names import NOT_OF_A_FIT, expanded
from brainlit.cli.errors import UsageError
from brainlit.cli.run_many import check_settings
from brainlit.cli.training import parsed
from tests.cli.test_experiments import agents_command, some_values

ROOT = Path(__file__).parents[2]
GRIDS = sorted((ROOT / "experiments" / "grids").glob("*.yaml"))
PLAIN: Mapping[str, Any] = {
    "experiment": ["demo"],
    "axes": {"model": ["wav2vec", "hubert"], "regime": ["brain", "pretrained"], "seed": [11, 12]},
    "options": {"trainer.max_epochs": 3},
    "folder": "runs/grid",
}


def written(where: Path, /, **changes: Any) -> Path:
    """A file of axes in which keys are other than in PLAIN; None leaves one out."""
    content = {key: value for key, value in {**PLAIN, **changes}.items() if value is not None}
    path = where / "axes.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def read(where: Path, /, **changes: Any) -> Axes:
    return read_axes(written(where, **changes))


def test_every_combination_is_one_cell_the_last_axis_fastest(tmp_path: Path) -> None:
    cells = read(tmp_path).cells
    assert [cell.name for cell in cells] == [
        f"{model}-{regime}-{seed}"
        for model in ("wav2vec", "hubert")
        for regime in ("brain", "pretrained")
        for seed in (11, 12)
    ]
    assert {cell.run.path.parent for cell in cells} == {Path("runs/grid")}
    assert [cell.run.seed for cell in cells[:2]] == [11, 12]
    assert {cell.run.kind for cell in cells[:2]} == {"wav2vec-brain"}


def test_a_cell_is_the_fit_that_its_values_say(tmp_path: Path) -> None:
    changes = {"axes": {**PLAIN["axes"], "subjects": ["s01", ["s01", "010"]], "model.lora.rank": [None, 4]}}
    cells = {cell.name: cell.run for cell in read(tmp_path, **changes).cells}
    run = cells["hubert-brain-12-s01_010-4"]
    config = parsed("fit", expanded(run.fit[1:], with_base=True)).resolved
    assert (config["model"]["backbone"]["family"], config["data"]["regime"]) == ("hubert", "brain")
    assert config["data"]["subjects"] == ["s01", "010"]
    assert (config["seed_everything"], config["model"]["lora"]["rank"], config["trainer"]["max_epochs"]) == (12, 4, 3)
    where = {key: config["run"][key] for key in ("root", "experiment", "id")}
    assert where == {"root": "runs", "experiment": "grid", "id": run.path.name}
    assert "--data.subjects=[s01]" in cells["wav2vec-brain-11-s01-null"].fit


def test_the_pretrained_model_is_not_tuned_whatever_the_options_say(tmp_path: Path) -> None:
    for cell in read(tmp_path).cells:
        epochs = [text for text in cell.run.fit if text.startswith("--trainer.max_epochs=")]
        assert epochs == [f"--trainer.max_epochs={0 if cell.values['regime'] == 'pretrained' else 3}"]


def test_runs_that_differ_in_what_is_not_compared_are_compared_apart(tmp_path: Path) -> None:
    assert list(read(tmp_path).groups()) == [""]
    groups = read(tmp_path, axes={**PLAIN["axes"], "subjects": ["s01", "s02"]}).groups()
    assert {name: len(cells) for name, cells in groups.items()} == {"s01": 8, "s02": 8}
    assert all(cell.values["subjects"] == name for name, cells in groups.items() for cell in cells)


AXES = PLAIN["axes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, "there is no key 'axis'. Did you mean 'axes'?"),
        ({"axes": None}, "axes is missing"),
        ({"axes": [1]}, "axes is [1]; give a mapping of names."),
        (
            {"axes": {"mode": ["hubert"]}},
            "axes.mode: there is no such name. Did you mean 'model'? Known: data, model,",
        ),
        ({"axes": {"model": ["hubrt"]}}, "axes.model: there is no model 'hubrt'. Did you mean 'hubert'?"),
        ({"axes": {"seed": 11}}, "axes.seed is 11; give a list of values."),
        ({"axes": {"seed": ["x"]}}, "axes.seed is 'x'; give whole numbers from 0 on."),
        ({"axes": {"seed": [11, 11]}}, "axes.seed has a value twice: 11, 11."),
        ({"axes": {"run.id": ["a"]}}, "axes.run.id is set for each cell"),
        ({"options": {"run.root": "a"}}, "options.run.root is set for each cell"),
        ({"options": {"epochs": 3}}, "options.epochs: there is no such name. Known: seed, subjects, or an option"),
        ({"options": {"seed_everything": 3}}, "options.seed_everything: there is no such name. Known: seed,"),
        ({"options": {"seed": 3}}, "seed_everything: said twice among axes and options."),
        ({"axes": {"subjects": ["a"], "data.subjects": [["a"]]}}, "data.subjects: said twice among axes and options."),
        ({"experiment": ["demmo"]}, "experiment: there is no experiment 'demmo'"),
        ({"experiment": ["gone.yaml"]}, "experiment: there is no config file gone.yaml."),
        ({"experiment": ["hubert"]}, "experiment names model/hubert, and model is an axis."),
        ({"experiment": {"a": 1}}, "experiment is {'a': 1}; give a list of config files"),
        ({"folder": None}, "folder is None; give that of the runs"),
        ({"folder": "runs/a b"}, "folder is 'runs/a b'"),
        ({"slurm": {"partitions": "gpu"}}, "slurm.partitions: there is no such setting. Did you mean 'partition'?"),
        (
            {"axes": {"model.layer": [-1, 1]}},
            "axes: model.layer -1 and model.layer 1 would share the folder 1. Give values that make different",
        ),
        ({"axes": {"subjects": [["s"] * 150]}}, "which is no name of a folder. Give shorter values"),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_key(changes: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(UsageError) as caught:
        read_axes(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_no_file_says_where_one_is_described(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.yaml. docs/cluster.md describes such files"):
        read_axes(tmp_path / "none.yaml")


# --- W&B ---


def test_an_agent_of_wandb_starts_the_same_cells(tmp_path: Path) -> None:
    axes = read(tmp_path, axes={**AXES, "subjects": ["s01", ["s01", "s02"]], "model.backbone_lr": [1e-3, "2e-3"]})
    sweep = wandb_sweep(axes, "brainlit")
    assert sweep["method"] == "grid"
    for values in some_values(sweep):
        program, verb, file, option, *words = agents_command(sweep, values)
        assert (program, verb, file, option) == ("brainlit", "submit", str(axes.path), "--cell")
        cell = axes.cell_of(words)
        assert {axis: word(value) for axis, value in cell.values.items()} == {a: str(v) for a, v in values.items()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=hubrt"], "--model is 'hubrt'. Did you mean 'hubert'?"),
        (["--mode=hubert"], "'--mode=hubert' is none. Did you mean 'model'?"),
        (["hubert"], "--cell takes --AXIS=VALUE"),
        (["--model=hubert", "--seed=11"], "(model, regime, seed): 2 cells remain."),
    ],
)
def test_words_that_say_no_cell_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path).cell_of(words)
    assert message in str(caught.value)


# --- The files that came with brainlit ---


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_shipped_grids_are_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    axes = read_axes(path)
    check_settings(axes.runs)
    assert str(path.relative_to(ROOT)) in shlex.split(path.read_text().partition("Command:")[2].splitlines()[0])
    assert len(axes.cells) == len({cell.run.path for cell in axes.cells}) > 5


def test_grids_are_no_config_files() -> None:
    assert [path.stem for path in GRIDS] == ["demo"]
    assert Path(expanded(["-c", "demo"])[1]).parent.name == "data"
    assert {path.parent.name for path in GRIDS} < set(NOT_OF_A_FIT)
