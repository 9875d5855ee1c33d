"""The files around the code say the same thing, and what the README promises is there."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


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
    assert project == "-e .[demo,dev]"
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
    for text in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
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


def test_make_train_passes_on_what_was_chosen() -> None:
    chosen = ["MODEL=wav2vec", "DATA=alice", "SEED=3", "REGIME=permuted", "SUBJECT=s18", "ARGS=--trainer.max_epochs 2"]
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "train", *chosen], cwd=ROOT, capture_output=True, text=True, check=True
    )
    command = " ".join(done.stdout.split())
    assert command.endswith(
        "brainlit fit -c experiments/brain_tune.yaml -c experiments/model/wav2vec.yaml -c experiments/data/alice.yaml"
        " --seed_everything 3 --data.regime permuted --data.subjects [s18] --trainer.max_epochs 2"
    )


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


def test_the_import_contracts_name_every_room() -> None:
    contracts = _pyproject()["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    package = ROOT / "src" / "brainlit"
    rooms = {f"brainlit.{path.stem}" for path in package.iterdir() if not path.name.startswith(("_", "py."))}
    assert layers == rooms
