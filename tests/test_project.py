"""The files around the code say the same thing, and what the README promises is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.backbones import BACKBONES
from brainlit.backbones.families import FAMILIES
from brainlit.cli import HELP, data
from brainlit.cli.config_names import expanded
from brainlit.cli.training import parsed
from brainlit.datamodules.targets.config import REGIMES
from brainlit.shipped import shipped_files
from brainlit.tuning.anchor import AnchorConfig
from brainlit.tuning.heads import HEADS
from brainlit.tuning.losses import LOSSES, LossConfig
from brainlit.tuning.objectives import ObjectiveConfig
from brainlit.tuning.objectives.build import SELF_SUPERVISED
from tests.make import made

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
BASE = ["-c", str(EXPERIMENTS / "brain_tune.yaml"), "-c", str(EXPERIMENTS / "data" / "demo.yaml")]
TEXTS = [ROOT / "README.md", EXPERIMENTS / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_the_constraints_are_exact_and_free_of_local_builds() -> None:
    assert len(_constraints()) > 50
    for name, version in _constraints().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_conda_installs_the_same_set() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    *pins, project = pip
    assert dict(pin.split("==") for pin in pins) == _constraints()
    assert project == "-e .[demo,dev,docs,slurm,dashboard]"
    assert "python=3.11" in environment["dependencies"]


def test_every_direct_dependency_is_constrained_at_or_above_its_bound() -> None:
    project = _pyproject()["project"]
    exact = {_name(name): version for name, version in _constraints().items()}
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    for requirement in [*project["dependencies"], *extras]:
        bound = requirement.partition(">=")[2]
        assert bound, f"{requirement} has no lower bound"
        assert _numbers(exact[_name(requirement)]) >= _numbers(bound), requirement


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


@pytest.mark.parametrize(("hook", "package"), [("ruff-check", "ruff"), ("mypy", "mypy"), ("codespell", "codespell")])
def test_pre_commit_uses_the_versions_of_the_constraints(hook: str, package: str) -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (revision,) = (repo["rev"] for repo in repositories if hook in [h["id"] for h in repo["hooks"]])
    assert revision == f"v{_constraints()[package]}"


def test_containers_install_the_tested_set_and_carry_what_that_needs() -> None:
    docker, apptainer = ((ROOT / "docs" / "containers" / name).read_text() for name in ("Dockerfile", "apptainer.def"))
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(part for part in environment["dependencies"] if str(part).startswith("python="))
    image = f"python:{python.partition('=')[2]}-slim"
    assert re.findall(r"^(?:FROM|From:) (.*)$", docker + apptainer, flags=re.MULTILINE) == [image, image]
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (.*)$", docker, flags=re.MULTILINE)]
    files = [name for names in copied for name in names]
    section = apptainer.partition("%files\n")[2].partition("\n\n")[0]
    carried = dict(line.split() for line in section.splitlines())
    assert list(carried) == files
    assert all(
        place.removeprefix("/opt/brainlit/") in (name, f"{Path(name).parent}/") for name, place in carried.items()
    )
    found = {path for name in files for path in ROOT.glob(name)}
    assert found >= {ROOT / name for name in ("src", "pyproject.toml", "setup.py", "constraints.txt", "README.md")}
    assert all({ROOT / path, *(ROOT / path).parents} & found for path in shipped_files(ROOT))
    (ours,), (theirs,) = (re.findall(r"python -m pip install .*", text) for text in (docker, apptainer))
    assert ours == theirs
    assert "-c constraints.txt" in ours
    extras = set(re.findall(r"\[([\w,]+)\]", ours)[0].split(","))
    assert extras <= _pyproject()["project"]["optional-dependencies"].keys()


def test_espeak_stays_an_extra() -> None:
    project = _pyproject()["project"]
    assert not any("espeak" in requirement for requirement in project["dependencies"])
    assert any("espeak" in requirement for requirement in project["optional-dependencies"]["demo"])
    assert "GPL-3.0" in (ROOT / "README.md").read_text()


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_every_make_command_in_the_texts_is_a_target() -> None:
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci" / "run"]
    texts += [*(ROOT / "docs").glob("*.md"), *(ROOT / "data").glob("*.md"), *(ROOT / "experiments").rglob("*.*")]
    mentioned = {target for text in texts for target in re.findall(r"\bmake ([a-z-]+)\b(?= |`|$)", _code(text))}
    assert mentioned >= {"train", "test"}
    assert mentioned <= _targets()


def _code(path: Path) -> str:
    """What is in back ticks or code blocks of a text, commands in the heads of configs, whole scripts."""
    text = path.read_text()
    if path.suffix != ".md":
        return "\n".join(re.findall(r"(?:^make .*|Command:.*)", text, flags=re.MULTILINE))
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))


def test_every_file_that_the_texts_link_to_exists() -> None:
    for text in [*TEXTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)#]+)", text.read_text()):
            if "://" not in link:
                assert (text.parent / link).exists(), f"{text.name} links to {link}"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "set -euo pipefail" in script
    assert script.rstrip().splitlines()[-1] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for target in _targets():
        assert f"make {target} " in done.stdout


def test_make_train_passes_on_what_was_chosen(tmp_path: Path) -> None:
    chosen = ["MODEL=wav2vec", "DATA=alice", "SEED=3", "REGIME=permuted", "SUBJECT=s18", "SIZE=base"]
    chosen += ["PRESET=paper_code", "ARGS=--trainer.max_epochs 2"]
    (command,) = made(tmp_path, "train", *chosen)
    assert " ".join(command) == (
        "brainlit fit -c experiments/brain_tune.yaml -c experiments/data/alice.yaml -c experiments/model/wav2vec.yaml"
        " -c experiments/regime/permuted.yaml -c experiments/paper/paper_code.yaml"
        " --seed_everything 3 --model.backbone.weights base --data.subjects [s18] --trainer.max_epochs 2"
    )


@pytest.mark.parametrize(
    ("chosen", "few"),
    [
        (["SIZE=/my/whisper-base"], True),
        (["SIZE=base"], True),
        (["SIZE=random:base"], True),
        ([], False),
        (["SIZE=tiny"], False),
        (["SIZE=tiny-large"], False),
        (["SIZE=random:tiny"], False),
        (["SIZE=base", "DATA=alice"], False),
    ],
)
def test_published_weights_on_the_demo_get_the_file_that_is_made_for_them(
    tmp_path: Path, chosen: list[str], few: bool
) -> None:
    (command,) = made(tmp_path, "train", "MODEL=whisper", *chosen)
    files = [word for before, word in pairwise(command) if before == "-c"]
    assert [Path(file).stem for file in files[:1] + files[2:]] == [
        "brain_tune",
        "whisper",
        *(["published_demo"] if few else []),
        "brain",
    ]


ONE_WORD = {
    "train": ["MODEL", "DATA", "REGIME", "PRESET", "SIZE", "SUBJECT", "SEED"],
    "probe": ["RUN"],
    "report": ["RUN"],
    "reproduce": ["MODEL", "JOBS"],
    "sweep": ["KEY", "MODEL", "REGIME", "JOBS"],
    "fractions": ["MODEL", "REGIME", "DATA", "PRESET", "SIZE", "SUBJECT", "JOBS"],
    "reference": ["WEIGHTS"],
}
WORDS = {
    "train": ["ARGS"],
    "data": ["ARGS"],
    "probe": ["ARGS"],
    "reproduce": ["SEEDS", "PERMUTATIONS", "ARGS"],
    "sweep": ["VALUES", "SEEDS", "ARGS"],
    "fractions": ["FRACTIONS", "SEEDS", "ARGS"],
    "reference": ["ARGS"],
    "bench": ["ARGS"],
    "test-fast": ["PYTEST_ARGS"],
}
NEEDED = {"sweep": {"KEY": "a.b", "VALUES": "1"}, "probe": {"RUN": "runs/a/b"}, "test-fast": {}}


@pytest.mark.parametrize("target", sorted(ONE_WORD.keys() | WORDS.keys()))
def test_make_runs_nothing_of_a_value(tmp_path: Path, target: str) -> None:
    """Values reach the programs as they are written, in one word or several, whatever the shell or make would do."""
    left = tmp_path / "left"
    value = f"x;touch {left} $(shell touch {left}) $$(touch {left}) `touch {left}` 'a\" * && touch {left} #|y"
    names = [*ONE_WORD.get(target, []), *WORDS.get(target, [])]
    given = {**NEEDED.get(target, {}), **dict.fromkeys(names, value)}
    runs = made(tmp_path / "made", target, *(f"{name}={given[name]}" for name in given))
    assert not left.exists()
    for name in ONE_WORD.get(target, []):
        assert sum(value in word for word in runs[-1]) >= ONE_WORD[target].count(name)
    for _ in WORDS.get(target, []):
        assert " ".join(value.split()) in " ".join(runs[-1])


def test_make_refuses_an_old_python_in_words(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.1"\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path}/venv", "doctor"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "brainlit needs Python 3.11 or newer" in done.stdout
    assert "Python 3.8.1" in done.stdout


# --- what the texts say about options, files and names ---


def _blocks(path: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in fenced if name == language]


def _commands(path: Path) -> list[str]:
    """Lines of the blocks of a text that have no language, with continued lines put together."""
    return [line.strip() for block in _blocks(path, "") for line in block.replace("\\\n", " ").splitlines()]


def _column(path: Path, header: str, n: int = 0) -> list[list[str]]:
    """The words in back ticks of column n in the rows of the table with this header, row by row."""
    lines = path.read_text().split(header + "\n")[1].splitlines()[1:]
    rows = [line.split(" | ") for line in lines[: next(k for k, line in enumerate([*lines, ""]) if line[:1] != "|")]]
    return [re.findall(r"`([^`]+)`", row[n]) for row in rows]


def _stems(folder: str) -> set[str]:
    return {path.stem for path in (EXPERIMENTS / folder).glob("*.yaml")}


@pytest.fixture(scope="module")
def parser() -> Any:
    return parsed("fit", BASE).parser


@pytest.mark.parametrize("text", [*TEXTS, ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_a_text_names_is_known(text: Path, parser: Any) -> None:
    found = re.findall(r"--((?:model|data|trainer|run)\.[\w.]*\w)", text.read_text())
    old = {"model.delays_trs", "model.head_dropout", "data.permute_block_trs"} if text.name == "CHANGELOG.md" else set()
    of_the_class = re.compile(r"data\.source\.init_args\.\w+")
    assert {name for name in found if not of_the_class.fullmatch(name)} - set(parser.known_keys()) == old


def test_every_make_train_of_the_texts_is_understood(parser: Any) -> None:
    folders = {"DATA": "data", "MODEL": "model", "REGIME": "regime", "PRESET": "paper"}
    lines = {line.split("#")[0].strip() for text in TEXTS for line in _commands(text)}
    commands = [line for line in sorted(lines) if re.match(r"make train\b", line)]
    assert len(commands) > 10
    options = []
    for command in commands:
        variables = dict(word.split("=", 1) for word in shlex.split(command)[2:])
        assert variables.keys() <= {*folders, "SIZE", "SUBJECT", "SEED", "ARGS"}, command
        for name in variables.keys() & folders.keys():
            assert variables[name] in _stems(folders[name]), command
        is_folder = variables.get("SIZE", "").startswith("$")
        assert is_folder or variables.get("SIZE", "base") in FAMILIES[variables.get("MODEL", "wav2vec")].sizes, command
        options += [word for word in shlex.split(variables.get("ARGS", "")) if word != "--print_config"]
    config = parser.parse_args([*BASE, *options])
    LossConfig(name=config.model.loss.name)


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_brainlit_fit_of_the_texts_names_files_in_the_order_of_the_makefile(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    order = ["brain_tune", "data", "model", "short", "regime", "paper", ""]
    place = {"brain_tune": "brain_tune", "quick": "short", "published_demo": "short"}  # those beside the folders
    for command in (line for line in _commands(text) if re.search(r"^(srun )?brainlit fit", line)):
        said = expanded(shlex.split(command), with_base=True)
        files = [Path(file) for before, file in pairwise(said) if before == "-c"]
        places = [order.index(place.get(file.stem, file.parent.name)) for file in files]
        assert places == sorted(places), command
        assert files[0].name == "brain_tune.yaml", command


def test_every_config_that_texts_and_messages_name_is_found_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    code = [path.read_text() for path in sorted((ROOT / "src").rglob("*.py"))]
    lines = [line for text in [*code, *(text.read_text() for text in TEXTS)] for line in text.splitlines()]
    named = {name for line in lines if "brainlit" in line for name in re.findall(r"(?<!\S)-c ([a-z][\w/.-]*)", line)}
    examples = [HELP, data.HELP, *data.EXAMPLES.values(), *("\n".join(_commands(text)) for text in TEXTS)]
    after = r"brainlit data (?:download|prepare|check|info) (?:--\w+ )?([a-z]\S+)"
    named |= {name for text in examples for name in re.findall(after, text)}
    assert named >= {"demo", "lebel2023", "wav2vec", "mine.yaml"}
    for name in named - {"data/store/demo-0"}:
        assert expanded(["-c", name.rstrip(".")])


def test_every_yaml_of_the_texts_is_understood(parser: Any, tmp_path: Path) -> None:
    texts = {name: _blocks(ROOT / "docs" / name, "yaml") for name in ("tuning.md", "regimes.md")}
    assert all(len(blocks) >= 2 for blocks in texts.values())
    files = []
    for name, blocks in texts.items():
        for k, block in enumerate(blocks):
            files.append(tmp_path / f"{name}-{k}.yaml")
            files[-1].write_text(block)
            _check_values(yaml.safe_load(block).get("model", {}))
    parser.parse_args([*BASE, *(part for file in files for part in ("-c", str(file)))])


def _check_values(model: dict[str, Any]) -> None:
    """The parser checks names and types; what a name may be is checked by what it fills."""
    sections: dict[str, Any] = {"loss": LossConfig, "anchor": AnchorConfig, "objective": ObjectiveConfig}
    for name, section in sections.items():
        section(**model.get(name, {}))
    assert not model.get("lora", {}).get("dropout") or model["backbone_mode"] == "train"


def test_the_texts_name_every_family_size_regime_and_preset() -> None:
    backbones, regimes, tuning = (ROOT / "docs" / f"{name}.md" for name in ("backbones", "regimes", "tuning"))
    families = "| `MODEL` | model | class in transformers | front end, frozen | longest window | LoRA adapts |"
    rows = _column(backbones, f"{families} stimulus loss |")
    classes = _column(backbones, f"{families} stimulus loss |", 2)
    assert [name for (name,) in rows] == list(BACKBONES)
    assert [name for (name,) in classes] == [BACKBONES[family].class_names[1] for family in BACKBONES]
    assert _stems("model") == set(BACKBONES)
    sizes = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| (\S+/\S+) \|$", backbones.read_text(), flags=re.MULTILINE)
    assert sizes == [(family, size, hub_id) for family, own in FAMILIES.items() for size, hub_id in own.sizes.items()]
    readme = ROOT / "README.md"
    header = "| `MODEL` | speech model | `SIZE` |"
    assert {name for (name,) in _column(readme, header)} == set(BACKBONES)
    for (family,), named in zip(_column(readme, header), _column(readme, header, 2), strict=True):
        assert set(named) <= set(FAMILIES[family].sizes)
    for text, header in (
        (readme, "| `REGIME` | the model learns to predict |"),
        (regimes, "| `REGIME` | what is predicted in tuning | a gain that it shows too did not need |"),
        (regimes, "| `REGIME` | `val/loss` | `test/r` | best.ckpt is chosen by |"),
    ):
        assert {name for row in _column(text, header) for name in row} == set(REGIMES), text.name
    assert _stems("regime") == set(REGIMES)
    presets = {name for (name,) in _column(tuning, "| `PRESET` | what it is |")}
    assert presets == _stems("paper")
    assert all(f"`{preset}`" in readme.read_text().replace("PRESET=", "") for preset in presets)


def test_the_texts_name_every_loss_head_and_stimulus_loss() -> None:
    tuning = ROOT / "docs" / "tuning.md"
    assert [row[0] for row in _column(tuning, "| `--model.loss.name` | formula | source |")] == list(LOSSES)
    heads = _column(tuning, "| `--model.head.kind` | prediction of subject s from a row x | for |")
    assert [row[0] for row in heads] == list(HEADS)
    contrastive, masked, ctc = _column(ROOT / "docs" / "regimes.md", "| `MODEL` | loss | source |")
    classes = {family: own.__name__ for family, own in SELF_SUPERVISED.items()}
    assert classes == dict.fromkeys(contrastive, "Contrastive") | dict.fromkeys(masked, "MaskedPrediction")
    assert set(ctc) == set(BACKBONES) - set(SELF_SUPERVISED)


def test_every_experiment_is_listed() -> None:
    listed = re.findall(r"^\| \[([\w/.-]+)\]", (EXPERIMENTS / "README.md").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(EXPERIMENTS)) for path in EXPERIMENTS.rglob("*.yaml"))


def test_the_example_of_the_backbones_text_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = _blocks(ROOT / "docs" / "backbones.md", "python")
    exec(compile(code, "backbones.md", "exec"), {})
    assert capsys.readouterr().out.startswith("5 torch.Size([2, 48, 128])")


def test_every_number_that_answers_an_objection_stands_on_the_page_beside_it() -> None:
    rows = [
        re.split(r"\s*\|\s*", line.strip("| "))
        for line in (ROOT / "docs" / "objections.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and "](" in line
    ]
    looked_up = 0
    for objection, _, said, page in rows:
        name = page.partition("(")[2].partition(")")[0].partition("#")[0]
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        for number in re.findall(r"[+-]?\d[\d,]*(?:\.\d+)?", said):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", text), (objection, number, name)
            looked_up += 1
    assert (len(rows), looked_up) == (27, 44)
