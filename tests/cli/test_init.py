"""`brainlit init`: what it writes, and what it never overwrites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brainlit.cli import main
from brainlit.cli.config_names import expanded
from brainlit.cli.init import README, TEXT
from brainlit.shipped import shipped_files

ROOT = Path(__file__).parents[2]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_copies_everything_and_says_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my work"]) == 0
    said = capsys.readouterr().out.splitlines()
    files = tree(tmp_path / "my work")
    assert files == {
        **{str(path): (ROOT / path).read_bytes() for path in shipped_files(ROOT)},
        README: TEXT.encode(),
    }
    assert said[0] == f"{len(files)} files written: my work/experiments, my work/{README}"
    assert said[1] == "Next: cd 'my work' && brainlit fit -c demo -c wav2vec"
    monkeypatch.chdir("my work")
    assert main(["init"]) == 0
    assert (
        capsys.readouterr().out
        == f"everything was there: experiments, {README}\nNext: brainlit fit -c demo -c wav2vec\n"
    )


def test_a_file_that_differs_is_kept_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = tmp_path / "experiments" / "data" / "demo.yaml"
    changed.parent.mkdir(parents=True)
    changed.write_text("mine")
    (tmp_path / README).write_text("mine too")
    before = tree(tmp_path)
    assert main(["init", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{README}, experiments/data/demo.yaml with other content" in error
    assert "nothing was written. Give another folder" in error
    assert tree(tmp_path) == before


@pytest.mark.parametrize("in_the_way", ["experiments", "experiments/data"])
def test_a_file_where_a_folder_is_needed_is_kept(tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("a file")
    assert main(["init", str(tmp_path)]) == 2
    assert list(tree(tmp_path)) == [in_the_way]


def test_what_was_deleted_comes_back_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path)]) == 0
    (tmp_path / "experiments" / "quick.yaml").unlink()
    capsys.readouterr()
    assert main(["init", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("1 files written")


def test_the_commands_of_its_readme_name_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    commands = re.findall(r"^brainlit fit (.*)$", TEXT, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert all(Path(file).is_file() for file in re.findall(r"-c (\S+)", " ".join(expanded(command.split()))))
