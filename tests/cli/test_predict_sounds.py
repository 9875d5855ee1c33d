"""predict SOUND... --run RUN: the same numbers as predict RUN where the sound is the same, and errors in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import yaml

from brainlit.cli import main
from brainlit.cli.predict_sounds import _divided, asks_for_sounds
from brainlit.guard import read_csv
from brainlit.results.tables import SIMULATED
from brainlit.store import StoryStore
from tests.cli.test_reports import commands_of
from tests.toy import DRIVEN_BY


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, toy_store_path: Path) -> Path:
    """The sound of toy5 as a WAV, of 40 rows."""
    store = StoryStore.open(toy_store_path)
    path = tmp_path_factory.mktemp("sounds") / "story.wav"
    soundfile.write(path, store.audio("toy5", 0, store.n_samples("toy5")), 16_000, subtype="PCM_16")
    return path


def _bell(folder: Path, seconds: float = 6.0, name: str = "bell.flac") -> Path:
    """Noise in stereo, at another rate."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(int(22_050 * seconds))
    path = folder / name
    soundfile.write(path, np.column_stack([noise, noise]), 22_050)
    return path


def test_a_sound_is_predicted_as_the_same_sound_in_the_store(
    finished_run: Path,
    story: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command of the page."""
    assert main(["predict", str(finished_run), "--trust"]) == 0
    with h5py.File(finished_run / "predictions.h5") as file:
        expected = {name: (file[f"{name}/toy5"][()], file[f"{name}/voxels"][()]) for name in ("sub-A", "sub-B")}
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    shutil.copy(story, "story.wav")
    _bell(Path(), name="other.mp3")
    (command,) = commands_of("export.md", "predict")
    arguments = command.replace("runs/brain_tune/ID", str(finished_run)).split()
    assert main([*arguments, "--trust", "--output", "out"]) == 0
    said = capsys.readouterr().out
    with h5py.File(tmp_path / "out" / "story" / "predictions.h5") as file:
        for name, (rows, voxels) in expected.items():
            np.testing.assert_allclose(file[f"{name}/predicted"][()], rows, rtol=0, atol=1e-5)
            assert np.array_equal(file[f"{name}/voxels"][()], voxels)
    assert np.std(expected["sub-A"][0]) > 1e-3, "there is something to compare"
    with h5py.File(tmp_path / "out" / "other" / "predictions.h5") as file:
        assert file["sub-B/predicted"].shape == (3, len(DRIVEN_BY)), "shorter than a window"
    lines = said.splitlines()
    assert SIMULATED in lines
    assert lines[lines.index(SIMULATED) + 1].startswith("These are predictions:")
    assert (tmp_path / "out" / "story").as_uri() in said


def test_one_subject_at_another_tr_by_the_last_checkpoint(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--subjects", "sub-B", "--tr", "1", "--checkpoint", "last", "--data.batch_size", "1", "--trust"]
    command = ["predict", "--run", str(finished_run), *options, str(_bell(tmp_path)), "--output", str(tmp_path)]
    assert main(command) == 0
    names = {path.name for path in (tmp_path / "bell").iterdir()}
    assert {"predictions.h5", "sub-B_regions.csv", "sub-B_hemi-L_space-fsaverage5.func.gii", "listen.html"} <= names
    assert not any("sub-A" in name for name in names)
    rows = read_csv(tmp_path / "bell" / "sub-B_regions.csv", "a table", "")
    assert {row["time_s"] for row in rows} == {str(k) for k in range(6)}
    assert "at the TR of the run, 2 s, and read at 1 s" in capsys.readouterr().out
    assert main(command) == 2
    assert "holds earlier predictions. --overwrite replaces it." in capsys.readouterr().err


def _fails(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["predict", *map(str, words)]) == 2
    return capsys.readouterr().err.removeprefix("error: ")


def test_what_is_no_sound_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bell, run = _bell(tmp_path), tmp_path / "run"
    said = _fails(capsys, tmp_path / "bel.flac", "--run", run)
    assert f"there is no sound {tmp_path / 'bel.flac'}. Did you mean {bell}?" in said
    assert "Nor is there a folder" in _fails(capsys, tmp_path / "no" / "bell.flac", "--run", run)
    (tmp_path / "text.wav").write_text("no sound")
    assert "text.wav is not a readable sound file" in _fails(capsys, tmp_path / "text.wav", "--run", run)
    assert "is a folder. Give the files of sound in it" in _fails(capsys, tmp_path, "--run", run)
    (tmp_path / "more").mkdir()
    other = shutil.copy(bell, tmp_path / "more")
    assert "are both called bell" in _fails(capsys, bell, other, "--run", run)


def test_a_tr_that_no_scanner_has_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (_bell(tmp_path), "--run", tmp_path, "--tr")
    assert "--tr is 2000. Are these milliseconds? Then it is 2 s." in _fails(capsys, *command, "2000")
    assert "--tr is -1. Give seconds above 0." in _fails(capsys, *command, "-1")
    assert "--tr is nan. Give seconds above 0." in _fails(capsys, *command, "nan")


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bell = _bell(tmp_path)
    assert "not a run directory" in _fails(capsys, bell, "--run", tmp_path)
    said = _fails(capsys, bell)
    assert said.startswith(f"whose model is to predict the responses to {bell}? Say which run:")
    assert f"brainlit predict {bell} --run {tmp_path}\n" in _fails(capsys, tmp_path, bell)


def _empty_run(folder: Path, regime: str = "brain") -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": "finished"}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"regime": regime}, "model": {}}))
    return folder


def test_a_run_that_cannot_predict_responses_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bell = _bell(tmp_path)
    untuned, other = _empty_run(tmp_path / "untuned"), _empty_run(tmp_path / "other", "language_model")
    assert f"{untuned} has no checkpoint" in _fails(capsys, bell, "--run", untuned)
    assert "the regime language_model, whose model predicts no responses" in _fails(capsys, bell, "--run", other)


def test_what_the_run_does_not_have_is_refused(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run = (_bell(tmp_path), "--run", finished_run, "--trust", "--output", tmp_path)
    assert "no subject 'sub-C'. Did you mean 'sub-B'?" in _fails(capsys, *of_run, "--subjects", "sub-A,sub-C")
    short = _bell(tmp_path, seconds=1.5)
    assert "bell lasts 1.50 s, less than one row of 2 s" in _fails(capsys, short, *of_run[1:])
    assert "the checkpoint is 'first'" in _fails(capsys, *of_run, "--checkpoint", "first")
    assert not (tmp_path / "bell").exists()


def test_a_folder_that_holds_something_else_is_left_alone(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bell").mkdir()
    (tmp_path / "bell" / "notes.txt").touch()
    command = (_bell(tmp_path), "--run", finished_run, "--trust", "--output", tmp_path, "--overwrite")
    assert "holds something else. Give another folder" in _fails(capsys, *command)
    assert (tmp_path / "bell" / "notes.txt").exists()


def test_dotted_options_are_those_of_the_run() -> None:
    words = ["--data.batch_size", "2", "a.wav", "--trainer.precision=32-true", "--run", "r", "--data.x"]
    assert _divided(words) == (
        ["a.wav", "--run", "r"],
        ["--data.batch_size", "2", "--trainer.precision=32-true", "--data.x"],
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [("runs/x/y", False), ("runs/x/y --trust", False), ("a.opus", True), ("runs/x/y a.wav", True), ("--run r x", True)],
)
def test_sounds_are_told_from_runs(said: str, expected: bool) -> None:
    assert asks_for_sounds(said.split()) == expected


def test_help_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["predict", "--run", "r", "--help"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "--subjects" in said
    assert max(map(len, said.splitlines())) <= 120


def test_an_option_that_is_none_comes_with_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = _fails(capsys, _bell(tmp_path), "--run", tmp_path, "--checkpiont", "x")
    assert "Did you mean --checkpoint?" in said
