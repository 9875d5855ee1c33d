"""Fluent Speech Commands: intents of three slots, words for the control that reads, and damaged tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.downstream.data import fluent
from brainlit.stories import SourceError
from tests.layouts.fluent import HEADER, SPEAKERS, write_fluent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The unpacked archive; may be damaged."""
    write_fluent(tmp_path)
    return tmp_path


def test_an_intent_is_action_object_and_location(root: Path) -> None:
    task = fluent.load(root)
    assert task.labels == (
        "activate, lights, kitchen",
        "activate, lights, none",
        "change language, none, none",
        "decrease, heat, none",
    )
    assert task.targets["test"].tolist() == [0, 1, 3, 2]
    people = {part: {clip.speaker for clip in clips} for part, clips in task.clips.items()}
    assert people == {"train": {SPEAKERS["train"]}, "choose": {SPEAKERS["valid"]}, "test": {SPEAKERS["test"]}}


def test_words_give_the_intent_away_and_the_facts_say_so(root: Path) -> None:
    task = fluent.load(root)
    assert [clip.text for clip in task.clips["test"]][2:] == ["heat down please", "change the language"]
    assert task.facts["words heard in train"] == "choose: 4 of 4, test: 3 of 4"
    assert "2406.08619" in task.facts["transcript"]
    said = dict(zip([clip.text for clip in task.clips["train"]], task.targets["train"].tolist(), strict=True))
    assert [said[clip.text] for clip in task.clips["choose"]] == task.targets["choose"].tolist()


def test_the_folder_above_will_do(tmp_path: Path) -> None:
    write_fluent(tmp_path / "fluent_speech_commands_dataset")
    assert len(fluent.load(tmp_path).labels) == 4


@pytest.mark.parametrize("name", ["train_data.csv", "valid_data.csv", "test_data.csv"])
def test_a_missing_table_is_named(root: Path, name: str) -> None:
    (root / "data" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} does not exist: the commands of the part '.*'; get it from"):
        fluent.load(root)


def test_a_missing_sound_and_no_folder_are_named(root: Path) -> None:
    next((root / "wavs" / "speakers" / SPEAKERS["test"]).iterdir()).unlink()
    with pytest.raises(FileNotFoundError, match=r"\.wav does not exist: the sound of line \d of test_data\.csv"):
        fluent.load(root)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: Fluent Speech Commands"):
        fluent.load(root / "nowhere")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("transcription", "transcript", r"line 1: there is no column 'transcription'\. Did you mean 'transcript'\?"),
        ("activate,lights,none", "activate,,none", r"line 3: the column 'object' is empty"),
        ("activate,lights,none", "activate,lights", r"line 3: 6 columns, but 7 in the lines before"),
        (HEADER, "", r"line 2: there is no column 'path'|line 1: there is no column 'path'"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(root: Path, old: str, new: str, message: str) -> None:
    path = root / "data" / "test_data.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SourceError, match=message):
        fluent.load(root)
