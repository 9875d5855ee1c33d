"""Config files by name: what is found, in which order it is merged, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from brainlit import shipped
from brainlit.cli import NAMING, VERBS, main
from brainlit.cli.config_names import config_files, expanded, names_in
from brainlit.cli.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, and a package that brought files; its experiments/ is returned."""
    files = ("brain_tune", "quick", "curves", "data/demo", "data/alice", "model/wav2vec", "model/w2v-bert")
    own = tmp_path / "package" / "_shipped" / "experiments"
    for name in (*files, "regime/brain", "regime/pretrained", "paper/paper_text"):
        (own / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (own / f"{name}.yaml").write_text("{}\n")
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(shipped, "PACKAGED", own.parent)
    monkeypatch.chdir(tmp_path / "here")
    return own


def put(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}\n")


def files(own: Path, *arguments: str, with_base: bool = False) -> list[str]:
    """The values of -c, those of the package by their paths in it."""
    said = expanded(arguments, with_base=with_base)
    return [value.removeprefix(f"{own}/") for before, value in pairwise(said) if before == "-c"]


def test_names_are_found_from_an_empty_folder(packaged: Path) -> None:
    assert files(packaged, "-c", "demo") == files(packaged, "-c", "data/demo") == ["data/demo.yaml"]
    assert files(packaged, "-c", "experiments/data/demo.yaml") == ["data/demo.yaml"], "as the texts have it"
    assert expanded(["--config", "w2v-bert"])[1] == str(packaged / "model/w2v-bert.yaml")
    assert expanded(["--config=demo", "-c=quick"]) == [
        f"--config={packaged}/data/demo.yaml",
        f"-c={packaged}/quick.yaml",
    ]


def test_a_file_comes_first_then_this_folder_then_the_package(packaged: Path) -> None:
    put("experiments/mine/demo.yaml", "experiments/data/own.yaml")
    assert files(packaged, "-c", "demo", "-c", "wav2vec") == ["experiments/mine/demo.yaml", "model/wav2vec.yaml"][::-1]
    assert files(packaged, "-c", "own") == ["experiments/data/own.yaml"]
    put("demo")
    assert files(packaged, "-c", "demo") == ["demo"]


def test_in_a_clone_names_are_paths_as_they_were_typed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert expanded(["-c", "wav2vec", "-c", "demo"], with_base=True) == [
        *("-c", "experiments/brain_tune.yaml"),
        *("-c", "experiments/data/demo.yaml", "-c", "experiments/model/wav2vec.yaml"),
    ]


def test_names_are_merged_in_one_order_and_files_keep_their_places(packaged: Path) -> None:
    put("mine.yaml", "experiments/further.yaml")
    names = ["further", "paper_text", "pretrained", "quick", "wav2vec", "data/demo", "brain_tune", "curves"]
    said = [part for name in names for part in ("-c", name)]
    assert files(packaged, *said) == [
        *("brain_tune.yaml", "data/demo.yaml", "model/wav2vec.yaml", "quick.yaml"),
        *("regime/pretrained.yaml", "paper/paper_text.yaml", "experiments/further.yaml", "curves.yaml"),
    ]
    typed = ["--a", "1", "-c", "wav2vec", "-c", "mine.yaml", "--b", "2", "-c", "demo"]
    assert expanded(typed) == [
        *("--a", "1", "-c", f"{packaged}/data/demo.yaml", "-c", "mine.yaml"),
        *("--b", "2", "-c", f"{packaged}/model/wav2vec.yaml"),
    ]
    assert expanded(["-c", "mine.yaml", "-c", "experiments/data/demo.yaml"])[1] == "mine.yaml"


@pytest.mark.parametrize(
    ("said", "has_base"),
    [
        (["demo"], True),
        (["paper_text"], True),
        (["mine.yaml", "demo"], True),
        (["curves"], False),
        (["mine.yaml"], False),
        (["experiments/data/demo.yaml", "experiments/model/wav2vec.yaml"], False),
        (["demo", "brain_tune"], False),
        (["demo", "experiments/brain_tune.yaml"], False),
    ],
)
def test_the_base_comes_before_everything_unless_it_is_named(packaged: Path, said: list[str], has_base: bool) -> None:
    put("mine.yaml")
    options = ["--trainer.max_epochs", "3", *(part for name in said for part in ("-c", name))]
    assert expanded(options)[:2] == options[:2]
    begins = expanded(options, with_base=True)[:2]
    assert begins == (["-c", f"{packaged}/brain_tune.yaml"] if has_base else options[:2])


def test_settings_that_are_written_out_and_a_missing_value_are_left_alone(packaged: Path) -> None:
    for said in (["-c", '{"data": {"seed": 1}}'], ["-c", "seed_everything: 1"], ["--x", "demo", "-c"], []):
        assert expanded(said, with_base=True) == said


def test_a_name_of_two_files_is_refused_with_both(packaged: Path) -> None:
    put("experiments/data/small.yaml", "experiments/model/small.yaml")
    with pytest.raises(UsageError, match="'small' is the name of 2") as refused:
        expanded(["-c", "small"])
    assert "-c experiments/data/small.yaml or -c experiments/model/small.yaml" in str(refused.value)
    assert files(packaged, "-c", "model/small") == ["experiments/model/small.yaml"]


def test_a_mistyped_name_is_refused_with_the_nearest_and_all_there_are(packaged: Path) -> None:
    put("experiments/data/own.yaml")
    with pytest.raises(UsageError) as refused:
        expanded(["-c", "wavvec"])
    assert str(refused.value).splitlines() == [
        "there is no experiment 'wavvec', and no file of this name. Did you mean 'wav2vec'?",
        *("  data: alice, demo, own", "  model: w2v-bert, wav2vec", "  regime: brain, pretrained"),
        *("  paper: paper_text", "  others: brain_tune, curves, quick"),
    ]
    with pytest.raises(UsageError, match="Did you mean 'data/demo'"):
        expanded(["-c", "data/dmo"])


def test_a_file_that_is_not_there_is_refused_with_what_is(packaged: Path) -> None:
    with pytest.raises(UsageError, match=r"no config file experiments/model/wavvec\.yaml\. Did you mean wav2vec\.yaml"):
        expanded(["-c", "experiments/model/wavvec.yaml"])
    put("own/a.yaml")
    with pytest.raises(UsageError, match=r"own/ holds: a\.yaml"):
        expanded(["-c", "own/q.yaml"])


def test_files_are_called_as_a_reader_knows_them(packaged: Path) -> None:
    put("mine.yaml")
    said = expanded(["-c", "demo", "-c", "mine.yaml", "-c", "{a: 1}"], with_base=True)
    own = [f"experiments/{name}.yaml (came with brainlit)" for name in ("brain_tune", "data/demo")]
    assert config_files(said) == [*own, "mine.yaml", "{...}"]


def test_names_of_a_folder_are_those_here_and_those_of_the_package(packaged: Path) -> None:
    put("experiments/data/own.yaml")
    assert names_in("data") == ["alice", "demo", "own"]


def test_a_mistyped_name_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from brainlit.cli import main\n"
        "for verb in ('fit', 'plan', 'test', 'probe', 'sweep'): print(main([verb, '-c', 'wavvec']))\n"
        "print([m for m in ('torch', 'lightning', 'numpy', 'jsonargparse', 'yaml') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stdout.split() == [*["2"] * 5, "[]"]
    assert done.stderr.count("Did you mean 'wav2vec'?") == 5


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["fit", "-c", "demo"], ["-c", "brain_tune.yaml", "-c", "data/demo.yaml"]),
        (["plan", "-c", "demo"], ["-c", "brain_tune.yaml", "-c", "data/demo.yaml"]),
        (["test", "runs/a/b", "-c", "demo"], ["runs/a/b", "-c", "data/demo.yaml"]),
        (["probe", "--model", "wav2vec", "-c", "demo"], ["--model", "wav2vec", "-c", "data/demo.yaml"]),
        (["sweep", "--key", "a.b", "-c", "paper_text"], ["--key", "a.b", "-c", "paper/paper_text.yaml"]),
        (["data", "info", "-c", "demo"], ["info", "-c", "data/demo.yaml"]),
        (["curve", "-c", "demo"], ["-c", "demo"]),
    ],
)
def test_verbs_that_describe_a_run_bring_the_base_and_others_take_what_is_named(
    packaged: Path, arguments: list[str], given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[str] = []
    monkeypatch.setattr("brainlit.cli._verb", lambda _: lambda said: got.extend(said) or 0)
    assert main(arguments) == 0
    assert [value.removeprefix(f"{packaged}/") for value in got] == given
    assert set(VERBS) >= set(NAMING[4:])


def test_the_printed_config_says_what_was_merged(
    packaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("brainlit.cli._verb", lambda _: lambda said: 0)
    put("mine.yaml")
    main(["fit", "-c", "demo", "-c", "mine.yaml", "--print_config"])
    own = ", ".join(f"experiments/{name}.yaml (came with brainlit)" for name in ("brain_tune", "data/demo"))
    assert capsys.readouterr().out == f"# merged: {own}, mine.yaml\n"
    main(["fit", "-c", "demo"])
    assert capsys.readouterr().out == ""
