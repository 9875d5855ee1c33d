"""`brainlit maps`: the commands of docs/reading.md, on a run and on a folder of a probe, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from brainlit.cli import main
from tests.cli.test_reports import commands_of
from tests.results.fake_run import fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one subject on fsaverage5, whose configuration names a store that is not there."""
    path = fake_run(tmp_path_factory.mktemp("runs"), subjects=("sub-1",), epochs=(0, 4)).path
    (path / "config.yaml").write_text(yaml.safe_dump({"data": {"store_dir": "data/store/mine"}, "model": {}}))
    return path


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small files; that they reach the disk is tested with `brainlit.files`."""
    monkeypatch.setattr("brainlit.files.to_disk", lambda _: None)


def test_the_commands_of_the_page(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = commands_of("reading.md", "maps")
    assert len(commands) == 3
    for command in commands:
        assert main(command.replace("runs/brain_tune/ID", str(run)).split()) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out.startswith("The listeners are simulated: ")
    assert "The run has not finished (" in out
    assert f"sub-1: 30 files (dscalar.nii, func.gii)\nMaps: {run / 'maps'}\n" in out
    assert len([*(run / "maps").rglob("*_desc-afterLayers1to2_statmap.*")]) == 6
    assert len([*Path("maps").rglob("*.dscalar.nii")]) == 7


def test_a_folder_of_a_probe_has_maps_too(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run / "probes", tmp_path / "probe" / "probes")
    assert main(["maps", str(tmp_path / "probe"), "--stage", "after", "--measure", "ceiling"]) == 0
    assert "sub-1: 3 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layer", "some"], "--layer is 'some'; give numbers, or all."),
        (["--measure", "ceilng"], "Did you mean 'ceiling'?"),
        (["--mesure", "ceiling"], "Did you mean --measure"),
        (
            ["--format", "nifti"],
            "its story store does, but data/store/mine is not there. Put it there again, or name it:",
        ),
    ],
)
def test_what_cannot_be_done_is_one_error(
    arguments: list[str], words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["maps", str(run), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["maps", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
