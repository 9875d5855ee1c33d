"""The verb export, and the commands of docs/export.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from brainlit.cli import main

Command = Callable[..., list[str]]
PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
COMMANDS = re.findall(r"^brainlit (export .*)$", PAGE, re.MULTILINE)


def test_the_page_has_its_commands() -> None:
    assert len(COMMANDS) == 3


def test_the_commands_of_the_page_and_its_snippet(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        arguments = command.replace("runs/brain_tune/ID", str(finished_run)).split()
        assert main(arguments) == 0, capsys.readouterr().err
    assert "with its card: models/tuned" in capsys.readouterr().out
    said = json.loads((finished_run / "export" / "config.json").read_text())["brainlit"]
    assert (said["run"], said["regime"]) == ("brain_tune/finished", "brain")
    card = (finished_run / "export" / "README.md").read_text()
    assert "'After' is of the weights in this folder" in card
    assert "The listeners are simulated." in card
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    loaded: dict[str, object] = {}
    exec(snippet, loaded)
    assert type(loaded["model"]).__name__ == "Wav2Vec2Model"


def test_what_is_not_there_is_said(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert main(["export", str(finished_run), "--checkpoint", "bset"]) == 2
    assert "give best, last or a file. The run has: best.ckpt, last.ckpt" in capsys.readouterr().err
    (tmp_path / "mine.txt").touch()
    assert main(["export", str(finished_run), "--output", str(tmp_path)]) == 2
    assert "something else than an export" in capsys.readouterr().err
