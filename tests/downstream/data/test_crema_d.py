"""CREMA-D: actors are in one part each, broken recordings are left out, odd names are read or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brainlit.downstream.data import crema_d
from brainlit.stories import SourceError
from tests.layouts.crema_d import ACTORS, BROKEN, ODD, write_crema_d
from tests.layouts.speech import N_SAMPLES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight actors; may be damaged."""
    write_crema_d(tmp_path)
    return tmp_path


def test_actors_are_in_one_part_each(root: Path) -> None:
    task = crema_d.load(root)
    people = {part: {clip.speaker for clip in clips} for part, clips in task.clips.items()}
    assert people == {"train": {"1001", "1002", "1064", "1076"}, "choose": {"1008"}, "test": {"1005", "1010", "1040"}}
    assert set().union(*people.values()) == set(ACTORS)
    assert task.facts["speakers"] == "train: 2 female, 2 male; choose: 1 female; test: 1 female, 2 male"


def test_the_rule_gives_18_9_and_64_of_the_91_actors() -> None:
    parts = [crema_d.PARTS.get(str(number)[-1], "train") for number in range(1001, 1092)]
    assert [parts.count(part) for part in ("test", "choose", "train")] == [18, 9, 64]


def test_six_emotions_whole_clips_and_words(root: Path) -> None:
    task = crema_d.load(root)
    assert task.labels == ("anger", "disgust", "fear", "happy", "neutral", "sad")
    clips = {
        clip.name: (task.labels[k], clip)
        for part in task.clips
        for k, clip in zip(task.targets[part], task.clips[part], strict=True)
    }
    emotion, clip = clips[ODD]
    assert (emotion, clip.text) == ("sad", "i think i have a doctor's appointment")
    assert clips["1001_DFA_NEU_XX"][0] == "neutral"
    assert len(clip.sound()) == N_SAMPLES
    assert len(clips) == 6 * len(ACTORS) + 2


def test_broken_recordings_are_left_out_and_counted(root: Path) -> None:
    task = crema_d.load(root)
    assert not {clip.name for clips in task.clips.values() for clip in clips} & set(BROKEN)
    assert task.facts["left_out"].startswith("2 broken recordings: 1064_IEO_DIS_MD (a minute in which")


def test_the_table_of_people_may_be_missing_and_changes_no_part(root: Path) -> None:
    before = crema_d.load(root)
    (root / "VideoDemographics.csv").unlink()
    after = crema_d.load(root)
    assert "speakers" not in after.facts
    assert {part: [clip.name for clip in clips] for part, clips in after.clips.items()} == {
        part: [clip.name for clip in clips] for part, clips in before.clips.items()
    }


def test_missing_recordings_are_named(root: Path) -> None:
    shutil.rmtree(root / "AudioWAV")
    with pytest.raises(
        FileNotFoundError, match=r"AudioWAV is no folder: the recordings of CREMA-D; get it from github"
    ):
        crema_d.load(root)
    (root / "AudioWAV").mkdir()
    with pytest.raises(FileNotFoundError, match=r"AudioWAV holds no \*\.wav"):
        crema_d.load(root)


@pytest.mark.parametrize("name", ["1001_DFA_JOY_XX", "1001_XXX_ANG_XX", "holiday", "1001_DFA_ANG_ZZ"])
def test_a_name_that_says_no_emotion_is_refused(root: Path, name: str) -> None:
    shutil.copy(root / "AudioWAV" / "1001_DFA_ANG_XX.wav", root / "AudioWAV" / f"{name}.wav")
    with pytest.raises(SourceError, match=rf"{name}\.wav: the name is not 'ACTOR_SENTENCE_EMOTION_LEVEL\.wav'"):
        crema_d.load(root)


def test_a_pointer_and_a_table_without_its_columns_are_refused(root: Path) -> None:
    (root / "VideoDemographics.csv").write_text("ActorID,Age\n1001,51\n")
    with pytest.raises(SourceError, match=r"VideoDemographics\.csv, line 1: there is no column 'Sex'"):
        crema_d.load(root)
    (root / "AudioWAV" / "1001_DFA_ANG_XX.wav").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SourceError, match="git lfs pull"):
        crema_d.load(root)
