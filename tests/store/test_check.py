"""Each fault is found, named and told from health."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.store import StoreError, build_store, check_store, exit_code, findings_json, findings_text
from brainlit.stories import FeatureSpace, Responses, Story, Subject
from tests.toy import ToySource

Change = Callable[[Any], Any]


class Faulty(ToySource):
    """A toy source whose parts pass through a function each."""

    def __init__(
        self,
        story: Change = lambda story: story,
        responses: Callable[[str, str, Responses], Responses] = lambda subject, story, responses: responses,
        spaces: Change = lambda spaces: spaces,
        subject: Change = lambda subject: subject,
    ) -> None:
        super().__init__(everyone_heard_all=True)
        self._change = {"story": story, "spaces": spaces, "subject": subject}
        self._responses = responses

    def story_names(self) -> list[str]:
        return ["toy0", "toy4"]

    def story(self, name: str) -> Story:
        return self._change["story"](super().story(name))

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        return self._change["spaces"](super().feature_spaces(story))

    def subject(self, name: str) -> Subject:
        return self._change["subject"](super().subject(name))

    def responses(self, subject: str, story: str) -> Responses | None:
        given = super().responses(subject, story)
        assert given is not None
        return self._responses(subject, story, given)


def twin(subject: str, story: str, given: Responses) -> Responses:
    return ToySource().responses("sub-A", story) or given


def infinite(subject: str, story: str, given: Responses) -> Responses:
    given.values[0, 0] = np.inf
    return given


def dead(subject: str, story: str, given: Responses) -> Responses:
    return Responses(np.zeros_like(given.values)) if subject == "sub-B" else given


def raw(subject: str, story: str, given: Responses) -> Responses:
    return Responses(given.values * 40 + 900)


def copied(subject: str, story: str, given: Responses) -> Responses:
    return given if given.repeats is None else Responses(given.values, given.repeats[[0, 1, 0]])


def some_constant(subject: str, story: str, given: Responses) -> Responses:
    given.values[:, :3] = 2.0
    return given


def same_sound(story: Story) -> Story:
    return replace(story, audio=ToySource().story("toy0").audio)


def late_words(story: Story) -> Story:
    return replace(story, words=replace(story.words, start_s=story.words.start_s + 60))


def uncovered(spaces: list[FeatureSpace]) -> list[FeatureSpace]:
    return [replace(space, coverage=0.2) for space in spaces]


def flat(spaces: list[FeatureSpace]) -> list[FeatureSpace]:
    return [replace(space, values=np.ones_like(space.values)) for space in spaces]


def empty_region(subject: Subject) -> Subject:
    return replace(subject, regions={"A1": np.zeros(12, dtype=bool)})


def silent(story: Story) -> Story:
    return replace(story, audio=np.zeros_like(story.audio))


def clipped(story: Story) -> Story:
    return replace(story, audio=np.where(story.audio > 500, 32767, story.audio).astype(np.int16))


def long_sound(story: Story) -> Story:
    return replace(story, audio=np.tile(story.audio, 2))


@pytest.mark.parametrize(
    ("faults", "level", "message"),
    [
        ({"responses": twin}, "error", "sub-A, sub-B have identical responses to 'toy0'"),
        ({"responses": infinite}, "error", "1 voxels hold infinite values"),
        ({"responses": dead}, "error", "no voxel that is finite and varies"),
        ({"responses": raw}, "warning", "not z-scored: the median voxel has mean 900 and standard deviation 40"),
        ({"responses": copied}, "error", "1 of 3 repeats are copies"),
        ({"responses": some_constant}, "warning", "3 of 12 voxels are NaN or constant"),
        ({"story": same_sound}, "error", "toy0, toy4 have the same sound"),
        ({"story": late_words}, "warning", "words start outside the sound"),
        ({"story": silent}, "error", "silent throughout"),
        ({"story": clipped}, "warning", "at the limit of int16"),
        ({"story": long_sound}, "warning", "goes on for 80.0 s after the last of 40 TRs"),
        ({"spaces": uncovered}, "warning", "for 20 % of the words"),
        ({"spaces": flat}, "warning", "all columns are constant"),
        ({"subject": empty_region}, "warning", "holds no voxel"),
    ],
)
def test_faults_are_found(tmp_path: Path, faults: dict[str, Any], level: str, message: str) -> None:
    build_store(Faulty(**faults), tmp_path, progress=False)
    findings = check_store(tmp_path)
    found = [finding for finding in findings if message in finding.message]
    assert found, findings_text(findings)
    assert {finding.level for finding in found} == {level}
    assert all(finding.cure for finding in findings)
    if level == "error":
        assert exit_code(findings) == 1
        assert findings[0].level == "error"
    elif not any(finding.level == "error" for finding in findings):
        assert exit_code(findings) == 0


def test_of_a_healthy_store_only_who_was_left_out_is_said(toy_store_path: Path) -> None:
    (finding,) = check_store(toy_store_path)
    assert (finding.level, finding.where) == ("info", "sub-C")
    assert finding.message == "was left out: its columns are constant"
    assert exit_code([finding]) == 0
    assert findings_text([]) == "The store is in order."


def test_changed_bytes_are_found_whatever_they_are(toy_store_path: Path, tmp_path: Path) -> None:
    """One flipped bit, a file cut short and one that is gone; sizes alone would miss the first."""
    shutil.copytree(toy_store_path, tmp_path / "s")
    flipped = tmp_path / "s" / "stories" / "toy0.h5"
    content = bytearray(flipped.read_bytes())
    content[-1000] ^= 1
    flipped.write_bytes(content)
    os.truncate(tmp_path / "s" / "stories" / "toy1.h5", 1000)
    (tmp_path / "s" / "subjects" / "sub-B.h5").unlink()
    findings = check_store(tmp_path / "s")
    assert [finding.where for finding in findings] == ["stories/toy0.h5", "stories/toy1.h5", "subjects/sub-B.h5"]
    assert ["SHA-256" in findings[0].message, "1000 bytes" in findings[1].message] == [True, True]
    assert exit_code(findings) == 1


def test_findings_are_text_and_json(toy_store_path: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store_path, tmp_path / "s")
    (tmp_path / "s" / "subjects" / "sub-B.h5").unlink()
    findings = check_store(tmp_path / "s")
    assert "ERROR   subjects/sub-B.h5: is missing." in findings_text(findings)
    assert json.loads(findings_json(findings))[0] == {
        "level": "error",
        "where": "subjects/sub-B.h5",
        "message": "is missing.",
        "cure": "Build the store again: only this file is made anew.",
    }


def test_no_store_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished store"):
        check_store(tmp_path)
