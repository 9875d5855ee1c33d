"""SLURP: intents of all parts in one map, the best recording or all, and damaged lines by number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from brainlit.downstream.data import slurp
from brainlit.downstream.task import Task
from brainlit.stories import SourceError
from tests.layouts.slurp import write_slurp


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The repository with its sounds; may be damaged."""
    write_slurp(tmp_path)
    return tmp_path


def _names(task: Task, part: str) -> list[str]:
    return [clip.name for clip in task.clips[part]]


def test_the_label_is_the_intent_by_scenario_and_action(root: Path) -> None:
    task = slurp.load(root)
    assert task.labels == ("alarm_set", "email_query", "qa_currency")
    assert [task.labels[k] for k in task.targets["test"]] == ["alarm_set", "email_query"]
    assert task.facts["labels"].endswith("call their intent otherwise: 1")
    assert "1 labels that train lacks: takeaway_order (1)" in task.facts["left_out"]


def test_the_best_recording_of_each_sentence_or_all(root: Path) -> None:
    best, every = slurp.load(root), slurp.load(root, recordings="all")
    assert _names(best, "train") == ["4489/audio-15", "16421/audio-17-headset", "13804/audio--18"]
    assert _names(best, "test") == ["3843/audio-30-headset", "7000/audio-32"]
    assert len(every.clips["train"]) == 6
    assert "4 further recordings of the same sentences" in best.facts["left_out"]
    assert "further" not in every.facts["left_out"]


def test_speakers_and_words_are_told_where_they_are_known(root: Path) -> None:
    task = slurp.load(root)
    assert [clip.speaker for clip in task.clips["train"]] == ["FO-460", "", ""]
    assert task.clips["train"][0].text == "wake me up at eight o'clock"
    assert task.facts["words heard in train"] == "choose: 0 of 1, test: 1 of 3"
    (root / "dataset" / "slurp" / "metadata.json").unlink()
    assert {clip.speaker for clip in slurp.load(root).clips["train"]} == {""}


def test_synthetic_speech_trains_only_if_asked(root: Path) -> None:
    task = slurp.load(root, with_synthetic=True)
    assert _names(task, "train")[-1] == "90000/synth-1"
    assert "takeaway_order" in task.labels
    assert len(task.clips["test"]) == 3


def test_tables_and_sounds_may_lie_side_by_side(root: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(root / "dataset" / "slurp", flat)
    shutil.copytree(root / "audio" / "slurp_real", flat / "slurp_real")
    assert _names(slurp.load(flat), "test") == _names(slurp.load(root), "test")


def test_few_missing_recordings_are_counted_and_many_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "audio" / "slurp_real" / "audio-15.flac").unlink()
    with pytest.raises(FileNotFoundError, match=r"audio-15\.flac does not exist \(1 of 11 missing\): .* zenodo"):
        slurp.load(root)
    monkeypatch.setattr(slurp, "MOST_MISSING", 0.1)
    task = slurp.load(root)
    assert _names(task, "train")[0] == "4489/audio-16"
    assert task.facts["left_out"].startswith("1 recordings that are listed but not there")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("dataset/slurp/train.jsonl", r"train\.jsonl does not exist: the requests of the part 'train'; get it from"),
        ("dataset/slurp/devel.jsonl", r"devel\.jsonl does not exist: the requests of the part 'choose'"),
        ("dataset/slurp/test.jsonl", r"test\.jsonl does not exist"),
        ("audio/slurp_real", r"slurp_real is no folder: the recordings of SLURP; get it from zenodo"),
        ("audio/slurp_synth", r"slurp_synth is no folder"),
        ("dataset/slurp/train_synthetic.jsonl", r"train_synthetic\.jsonl does not exist"),
    ],
)
def test_what_is_missing_is_named(root: Path, lost: str, message: str) -> None:
    path = root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        slurp.load(root, with_synthetic=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"slurp_id": 1, "sentence":', r"devel\.jsonl, line 2: Expecting value"),
        (json.dumps({"slurp_id": 1, "sentence": "a", "action": "set"}), r"line 2: 'scenario' is missing"),
        (json.dumps({"scenario": "a", "action": "b", "recordings": [{"wer": 0}]}), r"line 2: 'file' is missing"),
        ("[1]", r"line 2: .* A line is one JSON object with slurp_id"),
    ],
)
def test_a_damaged_line_is_refused_with_its_number(root: Path, line: str, message: str) -> None:
    path = root / "dataset" / "slurp" / "devel.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(SourceError, match=message):
        slurp.load(root)


@pytest.mark.parametrize("text", ["{", "[]", '{"1": {"recordings": {"a.flac": {}}}}', '{"1": 2}'])
def test_damaged_metadata_are_refused(root: Path, text: str) -> None:
    (root / "dataset" / "slurp" / "metadata.json").write_text(text)
    with pytest.raises(SourceError, match=r"metadata\.json does not hold 'recordings' with a 'usrid' each"):
        slurp.load(root)


def test_unknown_recordings_and_no_folder_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"recordings is 'bset'\. Did you mean 'best'\?"):
        slurp.load(root, recordings="bset")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: SLURP"):
        slurp.load(root / "nowhere")
