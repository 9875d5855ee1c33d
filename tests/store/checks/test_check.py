"""Each fault is found, named and told from health."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainlit.files import sha256_of, write_json
from brainlit.store import (
    Finding,
    StoreError,
    StoryStore,
    build_store,
    check_store,
    exit_code,
    findings_json,
    findings_text,
)
from brainlit.store.checks.findings import KINDS
from brainlit.store.checks.subjects import same_recording, scan_responses, unit_columns
from brainlit.stories import FeatureSpace, Intervals, Responses, SoundNote, Story, Subject
from brainlit.timebase import TimeBase
from tests.toy import WORDS, ToySource

Change = Callable[[Any], Any]


class Faulty(ToySource):
    """A toy source whose parts pass through a function each."""

    def __init__(
        self,
        story: Change = lambda story: story,
        responses: Callable[[str, str, Responses], Responses] = lambda subject, story, responses: responses,
        spaces: Change = lambda spaces: spaces,
        subject: Change = lambda subject: subject,
        n_trs: int = 40,
    ) -> None:
        super().__init__(everyone_heard_all=True, n_trs=n_trs)
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


def rescaled_twin(subject: str, story: str, given: Responses) -> Responses:
    """Another file of the same subject: other units, rounded, one voxel lost."""
    if subject == "sub-A":
        return given
    original = ToySource().responses("sub-A", story)
    assert original is not None
    values = np.round(original.values, 2)
    values[:, 0] = np.nan
    return Responses(values)


def same_for_all(subject: str, story: str, given: Responses) -> Responses:
    return Responses((ToySource(everyone_heard_all=True).responses(subject, "toy0") or given).values)


def infinite(subject: str, story: str, given: Responses) -> Responses:
    given.values[0, 0] = np.inf
    return given


def dead(subject: str, story: str, given: Responses) -> Responses:
    return Responses(np.zeros_like(given.values)) if subject == "sub-B" else given


def raw(subject: str, story: str, given: Responses) -> Responses:
    return Responses(given.values * 40 + 900)


def copied(subject: str, story: str, given: Responses) -> Responses:
    return given if given.repeats is None else Responses(given.values, np.asarray(given.repeats)[[0, 1, 0]])


def some_constant(subject: str, story: str, given: Responses) -> Responses:
    given.values[:, :3] = 2.0
    return given


def noise(subject: str, story: str, given: Responses) -> Responses:
    rng = np.random.default_rng([*subject.encode(), *story.encode()])
    values = rng.standard_normal(given.values.shape).astype(np.float32)
    return Responses((values - values.mean(axis=0)) / values.std(axis=0))


def same_sound(story: Story) -> Story:
    return replace(story, audio=ToySource().story("toy0").audio)


def same_words(story: Story) -> Story:
    return replace(story, words=ToySource().story("toy0").words)


def late_words(story: Story) -> Story:
    return replace(story, words=replace(story.words, start_s=story.words.start_s + 60))


def few_words(story: Story) -> Story:
    words = story.words
    return replace(story, words=Intervals(words.labels[::4], words.start_s[::4], words.duration_s[::4]))


def spoken(story: Story, shift_s: float = 0.0, stretch: float = 1.0, speed: float = 1.0) -> Story:
    """Sound that is loud during words of uneven length; the transcript may be wrong."""
    rng = np.random.default_rng(list(story.name.encode()))
    duration_s = rng.uniform(0.15, 0.7, 600)
    start_s = 0.5 + np.cumsum(duration_s + rng.choice([0.0, 0.5], 600, p=[0.7, 0.3])) - duration_s
    inside = start_s + duration_s < len(story.audio) / 16000 - 2
    start_s, duration_s = start_s[inside], duration_s[inside]
    times_s = np.arange(len(story.audio)) / 16000
    word = np.clip(np.searchsorted(start_s, times_s / stretch) - 1, 0, None)
    loud = (times_s / stretch < start_s[word] + duration_s[word]) & (times_s / stretch > start_s[0])
    audio = (rng.standard_normal(len(times_s)) * np.where(loud, 3000, 30)).astype(np.int16)
    labels = tuple(rng.choice(WORDS, len(start_s)).tolist())
    heard_s = np.maximum(start_s * speed - shift_s, 0)
    return replace(story, audio=audio, words=Intervals(labels, heard_s, duration_s * speed))


def uncovered(spaces: list[FeatureSpace]) -> list[FeatureSpace]:
    return [replace(space, coverage=0.1) for space in spaces]


def flat(spaces: list[FeatureSpace]) -> list[FeatureSpace]:
    return [replace(space, values=np.ones_like(space.values)) for space in spaces]


def empty_region(subject: Subject) -> Subject:
    return replace(subject, regions={"A1": np.zeros(12, dtype=bool)})


def equal_regions(subject: Subject) -> Subject:
    mask = np.arange(12) < 5
    return replace(subject, regions={"A1_left": mask, "A1_right": mask, "V1": ~mask})


def silent(story: Story) -> Story:
    return replace(story, audio=np.zeros_like(story.audio))


def clipped(story: Story) -> Story:
    loud = np.quantile(story.audio, 0.98)
    return replace(story, audio=np.where(story.audio > loud, 32767, story.audio).astype(np.int16))


def far_clipped(story: Story) -> Story:
    """Louder than int16 can hold in a tenth of the samples that are no silence; most of it is silence."""
    loud = np.quantile(np.abs(story.audio.astype(int)), 0.95)
    audio = np.clip(story.audio * (33_000 / loud), -32768, 32767).astype(np.int16)
    return replace(story, audio=np.where(np.arange(len(audio)) % 32_000 < 16_000, audio, 0).astype(np.int16))


def noted(kind: str, level: Any, story: Story) -> Story:
    return replace(story, sound_notes=(SoundNote(kind, level, f"the {kind} of {story.name}.", "Look."),))


def long_sound(story: Story) -> Story:
    return replace(story, audio=np.tile(story.audio, 2))


def short_sound(story: Story) -> Story:
    return replace(story, audio=story.audio[: -3 * 16000 // 2])


def late_sound(story: Story) -> Story:
    return replace(story, timebase=TimeBase.regular(40, 2.0, onset_s=-6.0))


def slow_clock(story: Story) -> Story:
    return replace(story, timebase=TimeBase(TimeBase.regular(40, 1.98).tr_starts_s, 2.0))


FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("twin_subjects", {"responses": twin}, "error", "sub-A, sub-B have identical responses to 'toy0' and 1 more"),
    ("twin_subjects", {"responses": rescaled_twin}, "error", "sub-A, sub-B have identical responses"),
    ("twin_responses", {"responses": same_for_all}, "error", "responses to toy0, toy4 are identical"),
    ("infinite_values", {"responses": infinite}, "error", "1 voxels hold infinite values"),
    ("no_usable_voxel", {"responses": dead}, "error", "no voxel that is finite and varies"),
    ("constant_responses", {"responses": dead}, "warning", "none of 12 voxels is finite and varies"),
    ("not_zscored", {"responses": raw}, "warning", "the median voxel has mean 900 and standard deviation 40"),
    ("copied_repeats", {"responses": copied}, "error", "1 of 3 repeats are copies"),
    ("masked_voxels", {"responses": some_constant}, "warning", "3 of 12 voxels are NaN or constant"),
    ("no_response", {"responses": noise}, "info", "no stimulus-locked response found (24 voxels, best lag"),
    ("twin_sounds", {"story": same_sound}, "error", "toy0, toy4 have the same sound"),
    ("twin_transcripts", {"story": same_words}, "warning", "toy0, toy4 have the same words"),
    ("words_outside", {"story": late_words}, "warning", "words start outside the sound"),
    ("speech_rate", {"story": few_words}, "warning", "are 19 per minute; speech has 50 to 350"),
    ("words_shifted", {"story": partial(spoken, shift_s=3.0)}, "warning", "fit the sound +3.00 s from where"),
    ("words_drift", {"story": partial(spoken, speed=0.995), "n_trs": 80}, "warning", "s in the last"),
    ("wrong_sample_rate", {"story": partial(spoken, stretch=44.1 / 48)}, "error", "ratio of 44100 to 48000 Hz"),
    ("silent_sound", {"story": silent}, "error", "silent throughout"),
    ("clipped_sound", {"story": clipped}, "warning", "at the limit of int16"),
    ("clipped_sound", {"story": far_clipped}, "error", "at the limit of int16"),
    ("clipped_sound", {"story": partial(noted, "clipped_sound", "error")}, "error", "the clipped_sound of toy0."),
    ("scaled_sound", {"story": partial(noted, "scaled_sound", "warning")}, "warning", "the scaled_sound of toy0."),
    ("soft_sound", {"story": partial(noted, "soft_sound", "error")}, "error", "the soft_sound of toy0."),
    ("silent_channel", {"story": partial(noted, "silent_channel", "info")}, "info", "the silent_channel of toy0."),
    (
        "strange_channels",
        {"story": partial(noted, "strange_channels", "warning")},
        "warning",
        "the strange_channels of",
    ),
    ("open_length", {"story": partial(noted, "open_length", "info")}, "info", "the open_length of toy0."),
    ("sound_goes_on", {"story": long_sound}, "warning", "goes on for 80.0 s after the last of 40 TRs"),
    ("sound_ends_early", {"story": short_sound}, "info", "ends 1.5 s before the last of 40 TRs"),
    ("rows_before_sound", {"story": late_sound}, "info", "3 TRs end before the sound starts"),
    ("clock_drift", {"story": slow_clock}, "warning", "last row is -0.78 s (-0.39 TRs) off"),
    ("low_coverage", {"spaces": uncovered}, "warning", "for 10 % of the words"),
    ("constant_space", {"spaces": flat}, "warning", "all columns are constant"),
    ("empty_region", {"subject": empty_region}, "warning", "holds no voxel"),
    ("equal_regions", {"subject": equal_regions}, "warning", "A1_left, A1_right hold exactly the same"),
]
FOUND_ELSEWHERE = {
    *("missing_file", "wrong_size", "changed_bytes", "length_mismatch", "left_out", "response_lag"),
    "between_members",  # tests/store/test_between_members.py
}


@pytest.mark.parametrize(("kind", "faults", "level", "message"), FAULTS)
def test_faults_are_found(tmp_path: Path, kind: str, faults: dict[str, Any], level: str, message: str) -> None:
    build_store(Faulty(**faults), tmp_path, progress=False)
    findings = check_store(tmp_path, progress=False)
    found = [finding for finding in findings if finding.kind == kind]
    assert found, findings_text(findings)
    assert message in found[0].message
    assert {finding.level for finding in found} == {level}
    assert all(finding.cure for finding in findings)
    if level == "error":
        assert exit_code(findings) == 1
        assert findings[0].level == "error"
    elif not any(finding.level == "error" for finding in findings):
        assert exit_code(findings) == 0


def test_every_kind_has_a_planted_fault_and_a_page_that_explains_it() -> None:
    assert {kind for kind, *_ in FAULTS} | FOUND_ELSEWHERE == set(KINDS)
    page = (Path(__file__).parents[3] / "docs" / "data_check.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == sorted(KINDS)
    with pytest.raises(ValueError, match="'odd_thing' is no kind of finding"):
        Finding("info", "odd_thing", "here", "is odd", "none")


def test_words_that_fit_their_sound_raise_nothing(tmp_path: Path) -> None:
    build_store(Faulty(story=spoken), tmp_path, progress=False)
    kinds = {finding.kind for finding in check_store(tmp_path, progress=False)}
    assert kinds <= {"left_out", "no_response"}, "the toy's responses follow other sound"


def _move_trs(finding: Finding) -> float:
    found = re.search(r"\(([+-][\d.]+) TRs", finding.cure)
    assert found is not None
    return float(found[1])


def test_stories_too_short_for_a_lag_are_said(tmp_path: Path) -> None:
    build_store(ToySource(n_trs=20), tmp_path, progress=False)
    (finding,) = [finding for finding in check_store(tmp_path, progress=False) if finding.kind == "no_response"]
    assert finding.message == "stories are too short to try lags over 40 s."


def _edit(store: Path, file: str, change: Callable[[Any], None]) -> None:
    """Change an HDF5 file of a store so that only its meaning is wrong: size and hash in the index follow."""
    with h5py.File(store / file, "r+") as h5:
        change(h5)
    index = json.loads((store / "store.json").read_text())
    for entry in [*index["stories"].values(), *index["subjects"].values()]:
        if entry["file"] == file:
            entry["n_bytes"] = (store / file).stat().st_size
            entry["sha256"] = sha256_of(store / file)
    write_json(store / "store.json", index)


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store long enough for the lag of single stories; not to be changed."""
    path = tmp_path_factory.mktemp("long") / "store"
    build_store(ToySource(n_trs=120), path, progress=False)
    return path


def _lags_after_moving(store: Path, copy: Path, shift_trs: int, subjects: str, stories: set[str]) -> list[Finding]:
    """What is found of lags in a copy of a store in which responses come so many rows later."""

    def move(h5: Any) -> None:
        for story in stories & set(h5["responses"]):
            h5["responses"][story][:] = np.roll(h5["responses"][story][:], shift_trs, axis=0)

    shutil.copytree(store, copy)
    for letter in subjects:
        _edit(copy, f"subjects/sub-{letter}.h5", move)
    return [finding for finding in check_store(copy, progress=False) if finding.kind == "response_lag"]


@pytest.mark.parametrize("shift_trs", [-4, 4])
def test_one_story_that_is_off_is_found_among_good_ones(long_store: Path, tmp_path: Path, shift_trs: int) -> None:
    (finding,) = _lags_after_moving(long_store, tmp_path / "s", shift_trs, "AB", {"toy2"})
    assert (finding.level, finding.where) == ("warning", "toy2")
    assert "the other stories peak at" in finding.message
    assert _move_trs(finding) == pytest.approx(-shift_trs, abs=0.6)


def test_a_store_that_is_off_throughout_is_told_once(long_store: Path, tmp_path: Path) -> None:
    (finding,) = _lags_after_moving(long_store, tmp_path / "s", 8, "AB", set(ToySource().story_names()))
    assert (finding.level, finding.where) == ("error", "toy")
    assert _move_trs(finding) == pytest.approx(-8, abs=0.6)


def test_one_subject_that_is_off_is_named(long_store: Path, tmp_path: Path) -> None:
    found = _lags_after_moving(long_store, tmp_path / "s", -6, "B", set(ToySource().story_names()))
    assert {finding.where for finding in found} == {"sub-B"}


def _shortened(key: str, axis: int = 0) -> Callable[[Any], None]:
    def change(h5: Any) -> None:
        values = h5[key][:]
        attributes = dict(h5[key].attrs)
        del h5[key]
        h5[key] = np.delete(values, -1, axis=axis)
        h5[key].attrs.update(attributes)

    return change


@pytest.mark.parametrize(
    ("file", "key", "axis", "where", "message"),
    [
        ("subjects/sub-A.h5", "responses/toy1", 0, "sub-A/toy1", "responses have shape (39, 12); the story has 40 TRs"),
        ("subjects/sub-A.h5", "responses/toy1", 1, "sub-A/toy1", "shape (40, 11)"),
        ("subjects/sub-A.h5", "repeats/toy4", 1, "sub-A/toy4", "repeats have shape (39, 12)"),
        ("subjects/sub-A.h5", "regions/semantic", 0, "sub-A", "region 'semantic' of sub-A is bool of shape (11,)"),
        ("stories/toy3.h5", "tr_starts_s", 0, "toy3", "the clock has 39 rows, the story 40 TRs"),
        ("stories/toy3.h5", "features/envelope", 0, "toy3", "'envelope' has 39 rows, the story 40 TRs"),
    ],
)
def test_lengths_that_do_not_match_are_found(
    toy_store_path: Path, tmp_path: Path, file: str, key: str, axis: int, where: str, message: str
) -> None:
    shutil.copytree(toy_store_path, tmp_path / "s")
    _edit(tmp_path / "s", file, _shortened(key, axis))
    (finding,) = [f for f in check_store(tmp_path / "s", progress=False) if f.kind == "length_mismatch"]
    assert (finding.level, finding.where) == ("error", where)
    assert message in finding.message


def test_of_a_healthy_store_only_who_was_left_out_is_said(toy_store_path: Path) -> None:
    (finding,) = check_store(toy_store_path, progress=False)
    assert (finding.level, finding.kind, finding.where) == ("info", "left_out", "sub-C")
    assert finding.message == "was left out: its columns are constant"
    assert exit_code([finding]) == 0
    assert findings_text([]) == "The store is in order."


@pytest.mark.parametrize("block_bytes", [1, 500, 10**9])
def test_a_scan_in_blocks_is_a_scan_of_everything(toy_store: StoryStore, block_bytes: int) -> None:
    values = toy_store.responses("sub-A", "toy0")
    assert values is not None
    columns = np.array([3, 0, 11])
    scan = scan_responses(toy_store, "sub-A", "toy0", columns, block_bytes)
    assert np.allclose(scan.mean, values.mean(axis=0), atol=1e-6)
    assert np.allclose(scan.sd, values.std(axis=0))
    assert scan.varies.all()
    assert np.array_equal(scan.sample, values[:, columns])


def test_fingerprints_tell_recordings_apart() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 50, 6)).astype(np.float32)
    noisy = one + 0.3 * other
    assert same_recording(unit_columns(one), unit_columns(-3 * one + 5))
    assert not same_recording(unit_columns(one), unit_columns(noisy))
    assert not same_recording(unit_columns(one), unit_columns(one[:-1]))
    assert not same_recording(unit_columns(np.ones((5, 2), np.float32)), unit_columns(np.ones((5, 2), np.float32)))


def test_many_findings_of_a_kind_are_told_together() -> None:
    names = [f"story{k:02d}" for k in range(84)]
    many = [Finding("warning", "clock_drift", name, "drifts.", "Mend it.", n_checked=84) for name in names]
    text = findings_text([*many, Finding("info", "left_out", "sub-C", "was left out.", "None.")])
    lines = text.splitlines()
    assert lines[0] == "WARNING [clock_drift] 84 of 84 stories:"
    assert lines[1] == "        story00: drifts."
    assert lines[4].startswith("        and 81 more: story03, story04")
    assert len(lines) < 12
    assert lines[-1].startswith("84 warnings, 1 info.")
    assert len(json.loads(findings_json(many))) == 84


def test_changed_bytes_are_found_whatever_they_are(toy_store_path: Path, tmp_path: Path) -> None:
    """One flipped bit, a file cut short and one that is gone; sizes alone would miss the first."""
    shutil.copytree(toy_store_path, tmp_path / "s")
    flipped = tmp_path / "s" / "stories" / "toy0.h5"
    content = bytearray(flipped.read_bytes())
    content[-1000] ^= 1
    flipped.write_bytes(content)
    os.truncate(tmp_path / "s" / "stories" / "toy1.h5", 1000)
    (tmp_path / "s" / "subjects" / "sub-B.h5").unlink()
    findings = check_store(tmp_path / "s", progress=False)
    assert [finding.where for finding in findings] == ["subjects/sub-B.h5", "stories/toy1.h5", "stories/toy0.h5"]
    assert ["1000 bytes" in findings[1].message, "SHA-256" in findings[2].message] == [True, True]
    assert [finding.kind for finding in findings] == ["missing_file", "wrong_size", "changed_bytes"]
    assert exit_code(findings) == 1


def test_findings_are_text_and_json(toy_store_path: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store_path, tmp_path / "s")
    (tmp_path / "s" / "subjects" / "sub-B.h5").unlink()
    findings = check_store(tmp_path / "s", progress=False)
    assert "ERROR   subjects/sub-B.h5: is missing." in findings_text(findings)
    assert json.loads(findings_json(findings))[0] == {
        "level": "error",
        "kind": "missing_file",
        "where": "subjects/sub-B.h5",
        "message": "is missing.",
        "cure": "Build the store again: only this file is made anew.",
        "n_checked": 8,
    }


def test_no_store_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished store"):
        check_store(tmp_path)
