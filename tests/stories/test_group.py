"""Group means and means of regions, against what is planted; what cannot be averaged is refused in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.encoding import ProbeConfig, run_probe
from brainlit.stories import GroupMean, RegionMeans, Responses, SourceError, Subject, SubjectLeftOut
from brainlit.stories import group as group_module
from brainlit.stories.base import LazyRepeats
from tests.crowd import N_VOXELS, SHARED, Crowd, Shares
from tests.toy import ToySource

Change = Callable[[Subject], Subject]


class Changed(Crowd):
    """A crowd whose people, by name, are not as they were."""

    def __init__(self, people: dict[str, Change], **settings: Any) -> None:
        super().__init__(**settings)
        self._people = people

    def subject(self, name: str) -> Subject:
        return self._people.get(name, lambda subject: subject)(super().subject(name))


def leave_out(subject: Subject) -> Subject:
    raise SubjectLeftOut(f"{subject.name} slept")


# --- The mean ---


def test_a_row_is_the_mean_of_those_who_heard_it() -> None:
    source = Crowd(all_heard_all=False)
    group = GroupMean(source)
    assert group.subject_names() == ["group"]
    for story, who in (("toy2", ("p1", "p2", "p3", "p4")), ("toy4", ("p1", "p2", "p3"))):
        found, each = group.responses("group", story), [source.responses(name, story).values for name in who]
        assert found.members == who
        np.testing.assert_allclose(found.values, np.mean(each, axis=0), atol=1e-6)
        np.testing.assert_array_equal(np.stack(list(found.repeats)), each)


def test_one_listener_is_no_mean(caplog: pytest.LogCaptureFixture) -> None:
    assert GroupMean(Crowd(all_heard_all=False)).responses("group", "toy0") is None
    assert "group has no rows of toy0: of its members p1 heard it; a mean needs two." in caplog.text


def test_more_than_fits_is_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = GroupMean(Crowd()).responses("group", "toy2")
    monkeypatch.setattr(group_module, "_BYTES_AT_ONCE", 60 * N_VOXELS * 4 * 2)
    lazy = GroupMean(Crowd()).responses("group", "toy2")
    assert isinstance(lazy.repeats, LazyRepeats)
    np.testing.assert_array_equal(lazy.values, whole.values)
    np.testing.assert_array_equal(np.stack(list(lazy.repeats)), whole.repeats)


def test_several_presentations_of_a_member_are_one_of_the_group() -> None:
    source = ToySource(everyone_heard_all=True)
    found = GroupMean(source).responses("group", "toy5")
    each = [source.responses(name, "toy5").values for name in ("sub-A", "sub-B")]
    assert len(found.repeats) == 2
    np.testing.assert_allclose(found.values, np.mean(each, axis=0), atol=1e-6)


def test_members_are_chosen_by_name_and_stand_beside_the_group() -> None:
    group = GroupMean(Crowd(), name="some", members=["p3", "p1"], beside_members=True)
    assert group.subject_names() == ["p1", "p2", "p3", "p4", "some"]
    assert group.responses("some", "toy2").members == ("p1", "p3")
    np.testing.assert_array_equal(group.responses("p2", "toy2").values, Crowd().responses("p2", "toy2").values)
    assert group.subject("p2").name == "p2"
    assert group.settings()["members"] == ["p1", "p3"]


def test_who_cannot_be_used_is_left_out_and_named() -> None:
    group = GroupMean(Changed({"p2": leave_out}))
    assert group.responses("group", "toy2").members == ("p1", "p3", "p4")
    assert group.left_out() == {"p2": "p2 slept"}


def test_a_voxel_that_one_member_lacks_is_none_of_the_groups() -> None:
    class Holes(Crowd):
        def responses(self, subject: str, story: str) -> Responses:
            values = super().responses(subject, story).values.copy()
            values[3:5, 0] = np.nan if subject == "p2" else values[3:5, 0]
            values[:, 1] = 0.0 if subject == "p3" else values[:, 1]
            values[:] = np.nan if subject == "p4" else values
            return Responses(values)

    found = GroupMean(Holes()).responses("group", "toy2")
    assert found.members == ("p1", "p2", "p3"), "p4 has no voxel with data"
    assert np.isnan(found.values).all(axis=0).tolist() == [True, True] + [False] * (N_VOXELS - 2)


def test_the_groups_regions_are_those_of_most_members() -> None:
    def smaller(subject: Subject) -> Subject:
        return replace(subject, regions={"shared": np.arange(N_VOXELS) < 2})

    regions = GroupMean(Changed({"p4": smaller})).subject("group").regions
    assert regions["shared"].tolist() == SHARED.tolist()
    assert regions["null"].tolist() == (~SHARED).tolist()
    half = GroupMean(Changed({"p3": smaller, "p4": smaller})).subject("group").regions
    assert half["shared"].sum() == 2
    assert not half["null"].any()


def test_the_group_of_simulated_people_is_simulated() -> None:
    np.testing.assert_allclose(GroupMean(Crowd(a=0.3)).subject("group").truth["signal"], np.where(SHARED, 0.3, 0))
    of_regions = GroupMean(RegionMeans(Crowd(a=0.3))).subject("group")
    np.testing.assert_allclose(of_regions.truth["signal"], [0.3, 0])
    assert list(GroupMean(ToySource()).subject("group").truth) == ["driven_by", "delay_trs"]


# --- What is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: Subject(s.name, 5),
            r"^'group' is a mean over people, but p1 has 8 voxels and p3 5: columns are not the same places. Bring all"
            r" to one space .* wrap the source in brainlit.stories.RegionMeans",
        ),
        (
            lambda s: replace(s, vertices=np.arange(N_VOXELS) + 1),
            r"8 of 8 voxels of p1 and p3 have other vertices: columns are not the same places",
        ),
        (
            lambda s: replace(s, coordinates_mm=np.eye(N_VOXELS, 3)),
            r"3 of 8 voxels of p1 and p3 have other coordinates",
        ),
    ],
)
def test_another_space_is_refused_with_both_names_and_the_cure(change: Change, message: str) -> None:
    def placed(subject: Subject) -> Subject:
        return replace(subject, vertices=np.arange(N_VOXELS), coordinates_mm=np.zeros((N_VOXELS, 3)))

    people = dict.fromkeys(("p1", "p2", "p4"), placed) | {"p3": change}
    with pytest.raises(SourceError, match=message):
        GroupMean(Changed(people)).subject("group")


def test_columns_in_another_order_are_refused() -> None:
    def columns(*names: str) -> Change:
        masks = dict(zip(names, np.eye(len(names), dtype=bool), strict=True))
        return lambda subject: Subject(subject.name, len(names), masks)

    with pytest.raises(SourceError, match="column 0 is 'left' in p1 and 'right' in p2"):
        GroupMean(
            Changed({"p1": columns("left", "right"), "p2": columns("right", "left")}), members=["p1", "p2"]
        ).subject("group")
    unequal = Changed({"p1": columns("left", "right", "front"), "p2": columns("left", "right")})
    with pytest.raises(SourceError, match=r"p1 has 3 voxels and p2 2.* RegionMeans.regions: \[left, right\]"):
        GroupMean(RegionMeans(unequal), members=["p1", "p2"]).subject("group")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "p2"}, "the group is called 'p2', as one of the subjects is"),
        ({"members": ["p1"]}, r"group 'group' has 1 member \(p1\); a mean needs at least 2"),
        ({"members": ["p1", "q2"]}, "there is no subject 'q2'. Known: p1, p2"),
        ({"members": ["p1", "p1"]}, "subject 'p1' is asked for twice"),
    ],
)
def test_a_group_that_is_none_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        GroupMean(Crowd(), **settings).settings()


def test_a_group_of_whom_one_is_left_is_left_out() -> None:
    group = GroupMean(Changed({"p1": leave_out}), members=["p1", "p2"])
    with pytest.raises(
        SubjectLeftOut, match=r"1 of its 2 members can be used \(p1: p1 slept\); a mean needs at least 2"
    ):
        group.subject("group")
    assert group.left_out() == {}


# --- Regions ---


class Sizes(Crowd):
    """Two voxels of p1 are missing, so that people differ in size; regions have the same names in all."""

    def subject(self, name: str) -> Subject:
        whole, kept = super().subject(name), self._kept(name)
        return Subject(name, int(kept.sum()), {region: mask[kept] for region, mask in whole.regions.items()})

    def responses(self, subject: str, story: str) -> Responses:
        values = np.stack([self._presentation(subject, story, k)[:, self._kept(subject)] for k in (0, 1)])
        return Responses(values.mean(axis=0).astype(np.float32), values.astype(np.float32))

    def _kept(self, name: str) -> np.ndarray:
        return np.arange(N_VOXELS) > (1 if name == "p1" else -1)


def test_regions_are_means_of_z_scores_in_every_presentation() -> None:
    source = Sizes()
    with pytest.raises(SourceError, match="p1 has 6 voxels and p2 8"):
        GroupMean(source).subject("group")
    means = RegionMeans(source)
    assert (means.subject("p1").n_voxels, list(means.subject("p1").regions)) == (2, ["shared", "null"])
    found, whole = means.responses("p1", "toy2"), source.responses("p1", "toy2")
    for repeat in (0, 1):
        mean = whole.repeats[repeat][:, :4].mean(axis=1)
        np.testing.assert_allclose(found.repeats[repeat][:, 0], (mean - mean.mean()) / mean.std(), atol=1e-5)
    np.testing.assert_allclose(found.values, found.repeats.mean(axis=0), atol=1e-6)
    group = GroupMean(RegionMeans(source, regions=["null", "shared"])).responses("group", "toy2")
    assert group.values.shape == (60, 2)
    assert group.members == ("p1", "p2", "p3", "p4")


def test_a_region_averages_over_the_voxels_that_have_data() -> None:
    class Holes(Crowd):
        def responses(self, subject: str, story: str) -> Responses:
            values = super().responses(subject, story).values.copy()
            values[0, 0], values[:, 6:] = np.nan, 2.0
            return Responses(values)

    found = RegionMeans(Holes()).responses("p1", "toy2")
    mean = Holes().responses("p1", "toy2").values[:, 1:6].mean(axis=1)
    np.testing.assert_allclose(found.values[:, 0], (mean - mean.mean()) / mean.std(), atol=1e-5)
    assert np.isnan(found.values[:, 1]).all()


def test_regions_that_are_not_there_are_named() -> None:
    with pytest.raises(SourceError, match=r"p1 has no region 'sharde'. Did you mean '?shared"):
        RegionMeans(Crowd(), regions=["sharde"]).subject("p1")
    with pytest.raises(SourceError, match="p1 has no named region to average within"):
        RegionMeans(Changed({"p1": lambda s: Subject(s.name, N_VOXELS)})).subject("p1")


# --- The rest is as the other source has it ---


@pytest.mark.parametrize("wrap", [GroupMean, RegionMeans])
def test_stories_and_clocks_are_those_of_the_source(wrap: Callable[[Crowd], Any]) -> None:
    class Other(Crowd):
        def on_other_clocks(self) -> dict[str, str]:
            return {"toy1": "toy0"}

        def parts(self) -> dict[str, str]:
            return {"toy2": "toy"}

        def story_files(self, name: str) -> Sequence[Path]:
            return [Path(f"{name}.wav")]

        def subject_files(self, name: str) -> Sequence[Path]:
            return [Path(f"{name}.npy"), Path("mask.nii")]

        def before_sound(self) -> Any:
            return "mean"

        def slice_reference(self) -> float:
            return 0.25

        def facts(self) -> dict[str, str]:
            return {"clock": "exact"}

    source, wrapped = Other(), wrap(Other())
    for asked in (
        "story_names",
        "default_roles",
        "on_other_clocks",
        "parts",
        "before_sound",
        "slice_reference",
        "remote",
    ):
        assert getattr(wrapped, asked)() == getattr(source, asked)(), asked
    assert wrapped.story("toy1").words.labels == source.story("toy1").words.labels
    assert wrapped.phones("toy1").labels == source.phones("toy1").labels
    assert [space.name for space in wrapped.feature_spaces(source.story("toy1"))] == ["envelope", "word_vectors"]
    assert wrapped.story_files("toy1") == [Path("toy1.wav")]
    assert wrapped.facts()["clock"] == "exact"
    assert wrapped.response_filter() is None
    assert wrapped.settings()["of"] == source.settings()
    files = {name: [path.name for path in wrapped.subject_files(name)] for name in ("p1", "group")}
    assert files["p1"] == ["p1.npy", "mask.nii"]
    if wrap is GroupMean:
        assert files["group"] == ["p1.npy", "mask.nii", "p2.npy", "p3.npy", "p4.npy"]


# --- What it is for ---


@pytest.mark.parametrize("a", [0.1, 0.3])
def test_the_probe_of_the_mean_rises_as_noise_averages_out(a: float) -> None:
    """A model that knows what is shared reaches the ceiling of one in each person, and that of the mean in the mean."""
    source, stories = Crowd(n_people=10, a=a, n_trs=800), ("toy2", "toy3", "toy5")
    groups = np.repeat(np.arange(3), 800)
    bands = {"backbone": np.concatenate([source._level(story) for story in stories])[:, None].astype(np.float32)}
    config = ProbeConfig(alphas=(1.0, 10.0, 100.0))

    def r(asked: Crowd | GroupMean, subject: str) -> float:
        Y = np.concatenate([asked.responses(subject, story).values for story in stories])
        result = run_probe(bands, Y, groups, groups < 2, groups == 2, config)
        return float(result.r[SHARED].mean())

    single = np.mean([r(source, name) for name in source.people])
    assert single == pytest.approx(Shares(a, 10).ceiling_of_one, abs=0.02)
    for n in (2, 5, 10):
        found = r(GroupMean(source, members=source.people[:n]), "group")
        assert found == pytest.approx(Shares(a, n).ceiling_of_the_mean, abs=0.025), n
