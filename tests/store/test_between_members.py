"""A group in the store: who its members are, how far they agree, and that no run uses them twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.datamodules.selection import settle_subjects
from brainlit.encoding.ceiling import noise_ceiling
from brainlit.encoding.inter_subject import leave_one_out_r
from brainlit.probing.inputs import probe_data
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store, check_store, describe_store, description_text
from brainlit.store import between_members as between_module
from brainlit.store.between_members import between_members
from brainlit.store.schema import StoreSettingsError
from brainlit.stories import GroupMean, Responses
from tests.crowd import SHARED, Crowd

FIT, SCORE = (Span("toy2", 0, 60), Span("toy3", 0, 60)), (Span("toy4", 0, 60), Span("toy5", 10, 60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four people and their group; toy0 was heard by one of them, toy1 and toy4 by three."""
    path = tmp_path_factory.mktemp("crowd") / "store"
    build_store(GroupMean(Crowd(all_heard_all=False), beside_members=True), path, progress=False)
    return path


@pytest.fixture
def store(folder: Path) -> StoryStore:
    return StoryStore.open(folder)


def test_the_store_names_the_members_of_every_story(store: StoryStore) -> None:
    everybody, three = ["p1", "p2", "p3", "p4"], ["p1", "p2", "p3"]
    assert store.subject_names == [*everybody, "group"]
    assert store.members("group") == {
        "toy1": three, "toy2": everybody, "toy3": everybody, "toy4": three, "toy5": everybody
    }  # fmt: skip
    assert store.members("p1") == {}
    assert store.n_repeats("group", "toy4") == 3
    for k, name in enumerate(three):
        np.testing.assert_array_equal(store.repeats("group", "toy4")[k], store.responses(name, "toy4"))
    mean = np.mean([store.responses(name, "toy4") for name in three], axis=0)
    np.testing.assert_allclose(store.responses("group", "toy4"), mean, atol=1e-6)


def test_info_says_how_many_people_are_in_every_story(folder: Path) -> None:
    description = describe_store(folder)
    assert json.loads(json.dumps(description)) == description
    assert description["members"]["group"]["toy4"] == ["p1", "p2", "p3"]
    said = description_text(description)
    assert "8 voxels, 5 stories, toy1: mean of 3 people, toy2: mean of 4 people" in said
    assert "the mean of at most 4 people (p1, p2, p3, p4)" in said
    assert "of group from its members: what they share is signal" in said


def test_agreement_is_that_of_the_members_rows(store: StoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [store.repeats("group", "toy4"), store.repeats("group", "toy5")[:, 10:]]
    expected = leave_one_out_r(rows, [["p1", "p2", "p3"], ["p1", "p2", "p3", "p4"]])
    for bytes_at_once in (64_000_000, 8 * 60 * 7 * 3):  # some voxels at a time
        monkeypatch.setattr(between_module, "_BYTES_AT_ONCE", bytes_at_once)
        found = between_members(store, "group", SCORE)
        assert list(found.r) == ["p1", "p2", "p3", "p4"]
        for name, r in expected.items():
            np.testing.assert_allclose(found.r[name], r, rtol=1e-6)
        each = noise_ceiling(rows, block_trs=10).ceiling_r
        np.testing.assert_allclose(np.sqrt(found.signal[SHARED]), each[SHARED], rtol=1e-4)
        assert found.ceiling_r(SHARED) == pytest.approx(np.sqrt(np.mean(np.square(each[SHARED]))), rel=1e-4)
    said = found.json(SHARED)
    of_each = [float(r[SHARED].mean()) for r in expected.values()]
    assert said["n_members"] == 4
    assert (said["mean_r"], said["least_r"], said["most_r"]) == pytest.approx(
        (np.mean(of_each), min(of_each), max(of_each)), rel=1e-6
    )
    by_member = found.json(SHARED, by_member=True)
    assert by_member.pop("r") == pytest.approx(dict(zip(expected, of_each, strict=True)), rel=1e-6)
    assert by_member == said
    assert found.json(np.zeros_like(SHARED)) == {}
    assert np.isnan(replace(found, signal=-found.signal).ceiling_r(SHARED))


def test_only_a_group_has_members_that_agree(store: StoryStore) -> None:
    with pytest.raises(ValueError, match="subject 'p1' is one person, no group"):
        between_members(store, "p1")
    with pytest.raises(ValueError, match=r"group 'group' heard none of toy0\[0:60\], but toy1, toy2"):
        between_members(store, "group", [Span("toy0", 0, 60)])


def test_the_check_tells_how_far_members_agree(folder: Path, store: StoryStore) -> None:
    findings = check_store(folder, progress=False)
    (finding,) = (one for one in findings if one.kind == "between_members")
    said = between_members(store, "group").json(store.good_voxels("group"))
    assert (finding.level, finding.where) == ("info", "group")
    assert finding.message.startswith(
        f"the mean of 4 people: r of each with the mean of the others {said['mean_r']:.2f}"
    )
    assert [one for one in findings if one.level == "error"] == []


def test_a_person_who_is_in_twice_is_found(tmp_path: Path) -> None:
    class Twins(Crowd):
        def responses(self, subject: str, story: str) -> Responses | None:
            return super().responses("p1" if subject == "p2" else subject, story)

    build_store(GroupMean(Twins()), tmp_path / "store", progress=False)
    found = [one for one in check_store(tmp_path / "store", progress=False) if one.kind == "copied_repeats"]
    assert len(found) == 6
    assert found[0].message == "1 of 4 members are copies: the noise ceiling is too high."


def test_another_choice_of_members_is_another_store(folder: Path) -> None:
    with pytest.raises(StoreSettingsError, match=r'members=\["p1", "p2", "p3", "p4"\], but members=\["p1", "p2"\]'):
        build_store(GroupMean(Crowd(all_heard_all=False), members=["p1", "p2"], beside_members=True), folder)


@pytest.mark.parametrize(
    ("asked", "held_out"), [(None, []), (["p1", "group"], []), (["p1"], ["group"]), (["group"], ["p4"])]
)
def test_a_group_and_its_members_are_never_in_one_run(
    asked: list[str] | None, held_out: list[str], store: StoryStore
) -> None:
    with pytest.raises(
        ValueError, match=r"group is a mean over people and holds the responses of p\d: both in one run"
    ):
        settle_subjects(store, store.subject_names, asked, held_out)


def test_a_group_or_its_members_make_a_run(store: StoryStore) -> None:
    assert settle_subjects(store, store.subject_names, ["group"], []) == ["group"]
    assert settle_subjects(store, store.subject_names, ["p1", "p2"], ["p3"]) == ["p1", "p2"]


def test_two_groups_with_one_member_are_refused(tmp_path: Path) -> None:
    left = GroupMean(Crowd(), name="left", members=["p1", "p2"], beside_members=True)
    right = GroupMean(left, name="right", members=["p2", "p3"], beside_members=True)
    found = build_store(right, tmp_path / "store", progress=False)
    with pytest.raises(ValueError, match="left is a mean over people and holds the responses of p2, as right does"):
        settle_subjects(found, found.subject_names, ["left", "right"], [])
    assert settle_subjects(found, found.subject_names, ["left", "p3", "p4"], []) == ["left", "p3", "p4"]


def test_a_probe_knows_the_members_and_their_agreement_on_the_scored_rows(store: StoryStore) -> None:
    data = probe_data(store, "group", FIT, SCORE)
    assert data.facts["members"] == {"toy4": ["p1", "p2", "p3"], "toy5": ["p1", "p2", "p3", "p4"]}
    assert (data.facts["n_repeats"], data.facts["most_repeats"]) == (3, 4)
    rows = [Span("toy4", 5, 60), Span("toy5", 15, 60)]  # the first rows of each span are not scored
    assert data.facts["between_members"]["shared"] == between_members(store, "group", rows).json(SHARED)
    assert list(data.facts["between_members"]["all voxels"]["r"]) == ["p1", "p2", "p3", "p4"]
    assert set(data.facts["between_members"]) == {"all voxels", "shared", "null"}
    assert "members" not in probe_data(store, "p1", FIT, SCORE).facts
