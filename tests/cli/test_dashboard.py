"""`brainlit dashboard`: the plan of a run as JSON, what is sent, and what is said where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brainlit.cli import main
from brainlit.results.run_directory import RunDirectory
from tests.results.fake_run import fake_run

ROWS = [
    {"val/loss": 1.0, "trainer/global_step": 2},
    {"headline/alignment/difference": 0.1, "trainer/global_step": 4},
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run whose journal has two rows; nobody is logged in."""
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = fake_run(tmp_path / "runs", subjects=("sub-1",), epochs=(0, 4))
    (found.path / "wandb").mkdir()
    (found.path / "wandb" / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return found


def test_the_plan_is_printed_as_json(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(run.path), "--dry-run", "--entity", "lab"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["project"], said["entity"]) == ("brainlit", "lab")
    panels = {section["title"]: [panel["keys"] for panel in section["panels"]] for section in said["sections"]}
    assert panels["Five results"] == panels["Regimes side by side"] == [["headline/alignment/difference"]]
    assert panels["Training"] == [["val/loss"]]


def test_the_project_is_that_of_the_run_unless_one_is_named(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.path / "config.yaml").write_text("wandb: {project: stories, entity: team}\n")
    for variable, option, expected in ((None, [], "stories"), ("mine", [], "mine"), ("mine", ["--project", "x"], "x")):
        if variable:
            monkeypatch.setenv("WANDB_PROJECT", variable)
        assert main(["dashboard", str(run.path), "--dry-run", *option]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["project"], said["entity"]) == (expected, "team")


def test_a_run_without_a_record_and_a_dry_run_without_a_run_are_refused(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "wandb" / "rows.jsonl").unlink()
    assert main(["dashboard", str(run.path), "--dry-run"]) == 2
    assert "--run.wandb off log nothing" in capsys.readouterr().err
    assert main(["dashboard", "--dry-run"]) == 2
    assert "--dry-run runs/brain_tune/ID" in capsys.readouterr().err


def test_without_the_package_or_a_login_one_sentence_says_what_to_do(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces", None)
    assert main(["dashboard", str(run.path)]) == 2
    assert "pip install wandb-workspaces" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces", SimpleNamespace())
    assert main(["dashboard", str(run.path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "WANDB_API_KEY" in line
    assert "wandb login" in line
    assert "--dry-run" in line


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A login whose server is these values."""
    import wandb

    api = SimpleNamespace(default_entity="me", runs=lambda path, **_: [])
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(wandb, "Api", lambda: api)
    monkeypatch.setattr(wandb, "setup", lambda **_: None)
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces", SimpleNamespace())
    return api


def test_both_pages_are_saved_and_their_addresses_printed(
    run: RunDirectory, logged_in: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainlit.results import dashboard

    made: list[tuple[str, str, str]] = []

    def make(kind: str) -> Any:
        def save(sections: Any, entity: str, project: str) -> Any:
            made.append((kind, entity, project))
            return SimpleNamespace(save=lambda: SimpleNamespace(url=f"https://example.org/{kind}"))

        return save

    for name in ("workspace", "report"):
        monkeypatch.setattr(dashboard, f"{name}_of", make(name))
    assert main(["dashboard", str(run.path)]) == 0
    assert made == [("workspace", "me", "brainlit"), ("report", "me", "brainlit")]
    addresses = ["Workspace: https://example.org/workspace", "Report: https://example.org/report"]
    assert capsys.readouterr().out.splitlines() == addresses
    logged_in.runs = lambda path, **_: [SimpleNamespace(summary=dict.fromkeys(ROWS[1])) for _ in path]
    assert main(["dashboard", "--project", "there"]) == 0
    assert made[2:] == [("workspace", "me", "there"), ("report", "me", "there")]


def test_a_login_without_entity_or_project_says_which_option_helps(
    run: RunDirectory, logged_in: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in.default_entity = None
    assert main(["dashboard", str(run.path)]) == 2
    assert "--entity" in capsys.readouterr().err
    logged_in.default_entity = "me"

    def refuse(path: str, **_: Any) -> Any:
        raise ValueError(f"could not find project {path}")

    logged_in.runs = refuse
    assert main(["dashboard", "--project", "nowhere"]) == 2
    assert "no project me/nowhere" in capsys.readouterr().err
