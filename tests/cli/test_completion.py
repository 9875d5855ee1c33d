"""The script of `brainlit completion`, asked by bash itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from brainlit.cli import TRAINING, VERBS
from brainlit.cli.completion import completion_script, options_of

OPTIONS = {"fit": ["--data.batch_size", "--data.window", "--model.head_lr"], "report": ["--help", "--root"]}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


def completed(*words: str, folder: Path) -> list[str]:
    """What bash offers for the last of the words."""
    (folder / "script").write_text(completion_script(OPTIONS))
    said = " ".join(f"'{word}'" for word in ("brainlit", *words))
    offered = "printf '%s\\n' \"${COMPREPLY[@]}\""
    code = f"source ./script; COMP_WORDS=({said}); COMP_CWORD={len(words)}; _brainlit; {offered}"
    done = subprocess.run(["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["re"], ["report"]),
        ([""], ["fit", "report"]),
        (["fit", "--data."], ["--data.batch_size", "--data.window"]),
        (["report", "--"], ["--help", "--root"]),
        (["fit", "-c", "hub"], ["hubert"]),
        (["fit", "-c", "wav2vec", "-c", "my_"], ["my_file.yaml"]),
        (["report", "runs"], []),
        (["no_verb", "--"], []),
    ],
)
def test_words_are_completed(words: list[str], expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "my_file.yaml").touch()
    assert completed(*words, folder=tmp_path) == expected


def test_options_are_those_of_the_help() -> None:
    assert options_of("report") == ["--help", "--root"]
    assert {"--local", "--jobs", "--wandb-sweep"} <= set(options_of("submit"))
    assert {"--dry-run", "--json", "--download"} <= set(options_of("data"))
    assert len({*TRAINING, *VERBS}) == len(TRAINING) + len(VERBS)
