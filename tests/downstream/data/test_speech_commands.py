"""Speech Commands: the published lists decide, noise is left out, and what is missing is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brainlit.downstream.data import speech_commands
from brainlit.stories import SourceError
from tests.layouts.speech_commands import SPEAKERS, WORDS, write_speech_commands


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two words, to be damaged."""
    write_speech_commands(tmp_path, ["cat", "dog"])
    return tmp_path


def test_35_words_in_the_published_parts(tmp_path: Path) -> None:
    write_speech_commands(tmp_path)
    task = speech_commands.load(tmp_path)
    assert (task.kind, task.metric, task.labels) == ("single", "accuracy", tuple(sorted(WORDS)))
    assert len(WORDS) == 35
    for part, speaker in SPEAKERS.items():
        assert {clip.speaker for clip in task.clips[part]} == {speaker}
        assert [task.labels[k] for k in task.targets[part]] == [clip.name.split("/")[0] for clip in task.clips[part]]
    assert task.facts["left_out"] == "2 recordings of noise (_background_noise_)"


def test_some_words_only(small: Path) -> None:
    (small / "extra").mkdir()
    task = speech_commands.load(small, words=["dog", "cat"])
    assert task.labels == ("cat", "dog")
    assert task.facts["left_out"].endswith("1 other folders: extra")
    with pytest.raises(ValueError, match=r"words is 'catt'\. Did you mean 'cat'\?"):
        speech_commands.load(small, words=["catt"])


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("validation_list.txt", r"validation_list\.txt does not exist: the recordings of which the part 'choose'"),
        ("testing_list.txt", r"testing_list\.txt does not exist: .* get it from speech_commands_v0\.02"),
        ("cat", r"cat is no folder: the recordings of 'cat' \(version 0\.01 has 30 words, 0\.02 has 35\)"),
        (
            f"dog/{SPEAKERS['test']}_nohash_0.wav",
            r"017c4098_nohash_0\.wav does not exist \(1 missing\): a recording that",
        ),
    ],
)
def test_what_is_missing_is_named(small: Path, lost: str, message: str) -> None:
    path = small / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        speech_commands.load(small, words=["cat", "dog"])


def test_an_empty_folder_and_no_folder_are_named(small: Path) -> None:
    (small / "bird").mkdir()
    with pytest.raises(FileNotFoundError, match=r"bird holds no \*\.wav"):
        speech_commands.load(small, words=["bird", "cat"])
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: the words of Speech Commands"):
        speech_commands.load(small / "nowhere")


def test_a_name_without_a_speaker_is_refused(small: Path) -> None:
    shutil.copy(small / "cat" / f"{SPEAKERS['test']}_nohash_0.wav", small / "cat" / "mine.wav")
    with pytest.raises(SourceError, match=r"mine\.wav: the name is not 'SPEAKER_nohash_N\.wav'"):
        speech_commands.load(small, words=["cat", "dog"])


def test_a_copy_of_a_test_recording_does_not_train(small: Path) -> None:
    shutil.copy(small / "cat" / f"{SPEAKERS['test']}_nohash_0.wav", small / "cat" / f"{SPEAKERS['train']}_nohash_1.wav")
    task = speech_commands.load(small, words=["cat", "dog"])
    assert len(task.clips["train"]) == 2
    assert "1 clips whose sound is in a later part too" in task.facts["left_out"]
