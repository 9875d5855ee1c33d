"""LibriSpeech: sets are parts, a list makes the training small, and what is missing or damaged is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brainlit.downstream.data import librispeech
from brainlit.stories import SourceError
from tests.layouts.librispeech import write_librispeech

CHAPTER = "train-clean-100/103/1240"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four sets in LibriSpeech below this folder; may be damaged."""
    write_librispeech(tmp_path / "LibriSpeech")
    return tmp_path


def test_sets_are_parts_with_their_own_speakers(root: Path) -> None:
    task = librispeech.load_recognition(root)
    people = {part: {clip.speaker for clip in clips} for part, clips in task.clips.items()}
    assert people == {"train": {"103", "1034"}, "choose": {"84"}, "test": {"61"}}
    first = task.clips["train"][0]
    assert (first.name, first.text) == ("103-1240-0000", "chapter one missus rachel lynde")
    assert len(first.sound()) == 320
    assert set(task.alphabet) <= set(" 'abcdefghijklmnopqrstuvwxyz")


def test_further_tests_and_a_list_of_utterances(root: Path) -> None:
    sets = {**librispeech.PARTS, "test_other": "test-other"}
    task = librispeech.load_recognition(root / "LibriSpeech", sets, utterances=["1034-121119-0001"])
    assert [clip.name for clip in task.clips["train"]] == ["1034-121119-0001"]
    assert len(task.clips["test_other"]) == len(task.clips["choose"]) == 2
    assert task.facts["left_out"] == "all of train-clean-100 but 1 utterances"
    with pytest.raises(ValueError, match=r"1 of 2 utterances are not in train-clean-100, the first is '9-9-0000'"):
        librispeech.load_recognition(root, utterances=["103-1240-0000", "9-9-0000"])


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"train": "train-clean", "choose": "dev-clean", "test": "test-clean"}, "Did you mean 'train-clean-"),
        ({"train": "train-clean-100", "test": "test-clean"}, "train, choose and test need a set each"),
        ({"train": "dev-clean", "choose": "dev-clean", "test": "test-clean"}, "a set is one part"),
    ],
)
def test_sets_that_make_no_task_are_refused(root: Path, sets: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        librispeech.load_recognition(root, sets)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (
            "train-clean-100",
            r"train-clean-100 is no folder: the set train-clean-100 of LibriSpeech; get it from openslr",
        ),
        ("test-clean", r"test-clean is no folder"),
        ("dev-clean/84", r"dev-clean holds no SPEAKER/CHAPTER"),
        (f"{CHAPTER}/103-1240.trans.txt", r"103-1240\.trans\.txt does not exist: the words of a chapter"),
        (f"{CHAPTER}/103-1240-0001.flac", r"103-1240-0001\.flac does not exist: the sound of 103-1240-0001"),
    ],
)
def test_what_is_missing_is_named(root: Path, lost: str, message: str) -> None:
    path = root / "LibriSpeech" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        librispeech.load_recognition(root)


@pytest.mark.parametrize("line", ["103-1240-0000", "84-1-0000 OTHER CHAPTER", "103-1240-0000 ..."])
def test_a_damaged_line_is_refused_with_its_number(root: Path, line: str) -> None:
    (root / "LibriSpeech" / CHAPTER / "103-1240.trans.txt").write_text(f"103-1240-0000 FINE\n\n{line}\n")
    with pytest.raises(SourceError, match=r"103-1240\.trans\.txt, line 3: .* is not an utterance of this chapter"):
        librispeech.load_recognition(root)
