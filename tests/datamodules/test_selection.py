"""Roles of a store's stories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.datamodules import StoryDataModule
from brainlit.datamodules.dataset import WindowDataset
from brainlit.datamodules.selection import (
    choose_repeats,
    common_columns,
    heard_any,
    same_length_sounds,
    select_voxels,
    settle_roles,
    span_signal,
)
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.datamodules.windows import Window, WindowConfig
from brainlit.encoding.ceiling import CEILING_METHODS, Ceiling, CeilingMethod, noise_ceiling, signal_rows
from brainlit.splits import LeakError, Span, refuse_scored
from brainlit.store import StoryStore, build_store
from brainlit.store.checks.stories import StoryChecks
from brainlit.stories import Responses, Story, Subject
from brainlit.tuning.heads import HeadConfig, build_head
from tests.toy import DRIVEN_BY, ToySource, TwoClocks


class Twins(ToySource):
    """toy5 has the sound of toy0; toy3 is a sample shorter than the others."""

    name = "twins"

    def story(self, name: str) -> Story:
        story = super().story("toy0" if name == "toy5" else name)
        return replace(story, name=name, audio=story.audio[:-1] if name == "toy3" else story.audio)


def test_one_sound_under_two_names_serves_one_role(tmp_path: Path) -> None:
    store = build_store(Twins(), tmp_path / "store")
    sounds = same_length_sounds(store)
    assert sounds["toy0"] == sounds["toy5"]
    assert len(set(sounds.values())) == 4
    assert "toy3" not in sounds
    with pytest.raises(LeakError, match=r"'toy0' \(tune\) and 'toy5' \(score\) are the same sound under two names"):
        settle_roles(store, {"tune": ["toy0"], "score": ["toy5"]}, 6)
    assert settle_roles(store, {"tune": ["toy0", "toy5"], "score": ["toy4"]}, 6).stories("score") == ("toy4",)
    assert settle_roles(store, {"tune": ["toy0"], "score": ["toy5"]}, 6, ["tune and score"]).n_trs("score") == 40


@pytest.fixture(scope="module")
def two_clocks(tmp_path_factory: pytest.TempPathFactory) -> StoryStore:
    """A store in which each story stands on the clocks of two listeners."""
    return build_store(TwoClocks(), tmp_path_factory.mktemp("clocks") / "store", progress=False)


def test_a_span_is_one_of_its_sound_on_every_clock(two_clocks: StoryStore) -> None:
    store = two_clocks
    assert store.on_other_clocks == {f"toy{k}.B": f"toy{k}" for k in range(6)}
    asked = {"tune": ["toy0[:20]", "toy1"], "fit": ["toy2"], "choose": ["toy0[30:36]"], "score": ["toy3[4:]"]}
    assert settle_roles(store, asked, 6).as_text() == {
        "tune": ["toy0[0:20]", "toy1[0:40]", "toy0.B[0:23]", "toy1.B[0:40]"],
        "fit": ["toy2[0:40]", "toy2.B[0:40]"],
        "choose": ["toy0[30:36]", "toy0.B[33:39]"],
        "score": ["toy3[4:40]", "toy3.B[7:40]"],
    }
    named = {"tune": ["toy0[0:10]", "toy0.B[0:13]"], "score": ["toy0[20:30]", "toy0.B[19:30]"]}
    assert settle_roles(store, named, 6).as_text() == named, "who names both rules"
    named["score"] = ["toy0.B[18:30]"]
    with pytest.raises(LeakError, match=r"toy0\[0:10\] \(tune\) and toy0\.B\[18:30\] \(score\) are 5\.05 TRs apart"):
        settle_roles(store, named, 6)
    roles = settle_roles(store, {"tune": ["toy1"], "score": ["toy0[20:30]"]}, 6)
    with pytest.raises(LeakError, match=r"would look at toy0\.B"):
        refuse_scored(roles, [Span("toy0.B", 10, 20)], "choosing")


def test_stories_on_two_clocks_are_no_twins(two_clocks: StoryStore) -> None:
    checks = StoryChecks()
    for name in two_clocks.story_names:
        checks.story(two_clocks, name)
    assert list(checks.twins()) == []


def test_windows_of_two_clocks_hear_the_same_at_the_same_moment(two_clocks: StoryStore) -> None:
    everything = np.arange(len(DRIVEN_BY), dtype=np.int64)
    targets = VoxelTargets(two_clocks, {"sub-A": everything, "sub-B": everything})
    dataset = WindowDataset(two_clocks, WindowConfig(n_trs=4, context_s=4.0), targets)
    batch = dataset.read([Window("toy0", 8, 8, 12), Window("toy0.B", 11, 11, 15)])
    assert torch.equal(batch["audio"][0], batch["audio"][1])
    assert torch.equal(batch["bin_edges_s"][0], batch["bin_edges_s"][1])
    assert batch["text"][0] == batch["text"][1]
    assert {name: mask.any(dim=1).tolist() for name, mask in batch["target_mask"].items()} == {
        "sub-A": [True, False],
        "sub-B": [False, True],
    }


class TwoRuns(ToySource):
    """A tale was told over two runs, toy0 and toy1; toy1 also stands on the clock of another listener, as toy2."""

    name = "two_runs"

    def parts(self) -> dict[str, str]:
        return dict.fromkeys(("toy0", "toy1", "toy2"), "tale")

    def on_other_clocks(self) -> dict[str, str]:
        return {"toy2": "toy1"}


def test_a_story_told_over_two_runs_stays_together(tmp_path: Path) -> None:
    store = build_store(TwoRuns(), tmp_path / "store", progress=False)
    assert store.parts == dict.fromkeys(("toy0", "toy1", "toy2"), "tale")
    roles = settle_roles(store, {"tune": ["tale"], "score": ["toy4"]}, 6)
    assert roles.stories("tune") == ("toy0", "toy1", "toy2"), "its name stands for all runs, on all clocks"
    with pytest.raises(ValueError, match=r"'tale\[0:9\]': 'tale' was told .* Say which: toy0\[0:9\], toy1\[0:9\]\."):
        settle_roles(store, {"tune": ["tale[0:9]"]}, 6)
    torn = {"tune": ["toy0"], "score": ["toy1"]}
    with pytest.raises(
        LeakError, match=r"'toy0' \(tune\) and 'toy1' \(score\) are runs of one story, 'tale'\. Give all"
    ):
        settle_roles(store, torn, 6)
    with pytest.raises(LeakError, match=r"'toy2' \(tune\) and 'toy0' \(score\) are runs of one story"):
        settle_roles(store, {"tune": ["toy2"], "score": ["toy0"]}, 6)
    assert settle_roles(store, torn, 6, ["tune and score"]).stories("score") == ("toy1", "toy2")
    apart = {"tune": ["toy1[0:10]", "toy2[0:10]"], "score": ["toy1[30:40]", "toy2[30:40]"]}
    assert settle_roles(store, apart, 6).n_trs("tune") == 20, "stretches of one run are held apart by their gap"


# --- voxels
# Voxels are chosen on the 'choose' repeats and on nothing that is scored.


N_NOISE = 600
CHOOSE = [Span("toy4", 0, 120)]
DRIVEN = [k for k, driver in enumerate(DRIVEN_BY) if driver != "noise"]


class Long(ToySource):
    """Enough rows for a ceiling; with `scramble`, another answer in all that is scored."""

    def __init__(self, scramble: bool = False) -> None:
        super().__init__(n_trs=120, n_repeats=4)
        self.scramble = scramble

    def responses(self, subject: str, story: str) -> Responses | None:
        given = super().responses(subject, story)
        if self.scramble and story == "toy5" and given is not None:
            assert given.repeats is not None
            return Responses(given.values[:, ::-1].copy(), given.repeats[:, :, ::-1].copy())
        return given


class Broken(Long):
    def responses(self, subject: str, story: str) -> Responses | None:
        given = super().responses(subject, story)
        if given is not None:
            given.values[0, [1, 9] if subject == "sub-A" else slice(None)] = np.nan
        return given


class Dead(ToySource):
    """Voxels without data: 1 and 9 of sub-A, `dead_b` of sub-B; sub-B may have fewer voxels."""

    def __init__(self, dead_b: tuple[int, ...] = (3, 9), n_voxels_b: int = 12) -> None:
        super().__init__()
        self.dead_b, self.n_voxels_b = dead_b, n_voxels_b

    def subject(self, name: str) -> Subject:
        return Subject(name, 12 if name == "sub-A" else self.n_voxels_b)

    def responses(self, subject: str, story: str) -> Responses | None:
        given = super().responses(subject, story)
        if given is None:
            return None
        given.values[0, (1, 9) if subject == "sub-A" else self.dead_b] = np.nan
        n = 12 if subject == "sub-A" else self.n_voxels_b
        return Responses(given.values[:, :n], None if given.repeats is None else given.repeats[..., :n])


class Noisy(Long):
    """N_NOISE more voxels of noise."""

    def story_names(self) -> list[str]:
        return ["toy4"]

    def subject(self, name: str) -> Subject:
        return Subject(name, 12 + N_NOISE)

    def responses(self, subject: str, story: str) -> Responses | None:
        given = super().responses(subject, story)
        assert given is not None
        assert given.repeats is not None
        noise = self._rng(story, 8, subject).standard_normal((self.n_repeats, self.n_trs, N_NOISE), dtype=np.float32)
        repeats = np.concatenate([given.repeats, noise], axis=2)
        return Responses(repeats.mean(axis=0), repeats)


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> StoryStore:
    return build_store(Long(), tmp_path_factory.mktemp("long"), progress=False)


def test_all_driven_voxels_and_hardly_any_noise_are_chosen(tmp_path: Path) -> None:
    """The choice promises a rate: at most one in two hundred noise voxels passes, not none."""
    store = build_store(Noisy(), tmp_path, progress=False)
    chosen = select_voxels(store, "sub-A", CHOOSE, 0.4)
    assert set(DRIVEN) <= set(chosen.tolist())
    assert (len(chosen) - len(DRIVEN)) / (N_NOISE + 4) < 0.015
    assert select_voxels(store, "sub-A", CHOOSE, None).tolist() == list(range(12 + N_NOISE))


def test_scored_data_changes_nothing(long_store: StoryStore, tmp_path: Path) -> None:
    scrambled = build_store(Long(scramble=True), tmp_path, progress=False)
    before, after = (store.responses("sub-A", "toy5") for store in (long_store, scrambled))
    assert before is not None
    assert after is not None
    assert (before != after).any()
    for subject in ("sub-A", "sub-B"):
        np.testing.assert_array_equal(
            select_voxels(long_store, subject, CHOOSE, 0.4), select_voxels(scrambled, subject, CHOOSE, 0.4)
        )


def test_the_ceiling_uses_the_rows_of_the_spans(long_store: StoryStore) -> None:
    whole = long_store.repeats("sub-A", "toy4")
    assert whole is not None
    spans = [Span("toy0", 0, 9), Span("toy4", 5, 20), Span("toy4", 30, 60)]
    first, second = choose_repeats(long_store, "sub-A", spans)
    np.testing.assert_array_equal(first, whole[:, 5:20])
    np.testing.assert_array_equal(second, whole[:, 30:60])
    part, _ = choose_repeats(long_store, "sub-A", spans, slice(3, 7))
    np.testing.assert_array_equal(part, first[:, :, 3:7])


def test_all_scored_rows_have_their_own_number_of_presentations(
    long_store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [Span("toy0", 5, 90), Span("toy4", 5, 60)]
    again = long_store.repeats("sub-A", "toy4")
    once = long_store.responses("sub-A", "toy0", 5, 90)
    assert again is not None
    assert once is not None
    signal = span_signal(long_store, "sub-A", spans)
    np.testing.assert_allclose(signal, signal_rows([once[None], again[:, 5:60]]), rtol=1e-6)
    assert np.isnan(signal[:85]).all()
    monkeypatch.setattr("brainlit.datamodules.selection.VOXELS_AT_ONCE", 5)
    np.testing.assert_allclose(span_signal(long_store, "sub-A", spans), signal, rtol=1e-6)
    with pytest.raises(ValueError, match="needs repeats"):
        span_signal(long_store, "sub-A", spans[:1])
    with pytest.raises(ValueError, match="did not hear 'toy1'"):
        span_signal(long_store, "sub-B", [Span("toy1", 0, 60), spans[1]])


@pytest.mark.parametrize("method", CEILING_METHODS)
def test_repeats_are_read_in_blocks_of_voxels_that_change_nothing(
    long_store: StoryStore, monkeypatch: pytest.MonkeyPatch, method: CeilingMethod
) -> None:
    at_once = select_voxels(long_store, "sub-A", CHOOSE, 0.4, method)
    assert 0 < len(at_once) < 12
    read: list[tuple[int, ...]] = []
    whole = StoryStore.repeats

    def counted(self: StoryStore, *args: Any, **kwargs: Any) -> np.ndarray | None:
        values = whole(self, *args, **kwargs)
        assert values is not None
        read.append(values.shape)
        return values

    monkeypatch.setattr(StoryStore, "repeats", counted)
    monkeypatch.setattr("brainlit.datamodules.selection.VOXELS_AT_ONCE", 5)
    np.testing.assert_array_equal(select_voxels(long_store, "sub-A", CHOOSE, 0.4, method), at_once)
    assert read == [(4, 120, 5), (4, 120, 5), (4, 120, 2)]


def test_the_method_is_the_one_that_was_asked_for(long_store: StoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(*args: Any, **kwargs: Any) -> Ceiling:
        asked.append(kwargs["method"])
        return noise_ceiling(*args, **kwargs)

    monkeypatch.setattr("brainlit.datamodules.selection.noise_ceiling", noted)
    for method in CEILING_METHODS:
        assert set(DRIVEN) <= set(select_voxels(long_store, "sub-A", CHOOSE, 0.4, method).tolist())
    assert asked == list(CEILING_METHODS)
    with pytest.raises(ValueError, match="known: signal_power"):
        select_voxels(long_store, "sub-A", CHOOSE, 0.4, "halves")  # type: ignore[arg-type]


def test_voxels_with_holes_are_never_chosen(tmp_path: Path) -> None:
    store = build_store(Broken(), tmp_path, progress=False)
    assert select_voxels(store, "sub-A", CHOOSE, None).tolist() == [k for k in range(12) if k not in (1, 9)]
    with pytest.raises(ValueError, match="'sub-B' has no voxel that is finite"):
        select_voxels(store, "sub-B", CHOOSE, None)


@pytest.mark.parametrize("choose", [[], [Span("toy0", 0, 120)]])
def test_without_repeats_there_is_no_ceiling(long_store: StoryStore, choose: list[Span]) -> None:
    with pytest.raises(ValueError, match=r"a noise ceiling needs repeats, .* repeated are toy4, toy5"):
        select_voxels(long_store, "sub-A", choose, 0.4)


def test_impossible_ceilings_are_refused(long_store: StoryStore) -> None:
    with pytest.raises(ValueError, match=r"min_ceiling is 1\.5"):
        select_voxels(long_store, "sub-A", CHOOSE, 1.5)
    with pytest.raises(ValueError, match=r"no voxel of subject 'sub-A' .* toy4\[0:120\]; lower min_ceiling"):
        select_voxels(long_store, "sub-A", CHOOSE, 0.999)


def test_who_heard_what(toy_store: StoryStore) -> None:
    assert heard_any(toy_store, "sub-B", ["toy1", "toy0"])
    assert not heard_any(toy_store, "sub-B", ["toy1"])


def dead_data(path: Path, source: Dead, common_voxels: bool) -> StoryDataModule:
    data = StoryDataModule(source, str(path), common_voxels=common_voxels)
    data.prepare_data()
    data.setup()
    return data


def test_common_voxels_are_those_of_every_subject_and_let_heads_share_a_map(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = dead_data(tmp_path, Dead(), common_voxels=False)
    assert [9 in columns for columns in own.target_voxels.values()] == [False, False]
    assert own.target_sizes == {"sub-A": 10, "sub-B": 10}
    shared = HeadConfig(kind="shared")
    with pytest.raises(ValueError, match=r"of which 9 are common to all\..*common_voxels true"):
        build_head(shared, 4, own.target_sizes, "tr", 0, own.target_columns)
    with caplog.at_level("INFO"):
        both = dead_data(tmp_path, Dead(), common_voxels=True)
    assert "9 voxels are common to all subjects; chosen in each: sub-A 10, sub-B 10" in caplog.text
    expected = [k for k in range(12) if k not in (1, 3, 9)]
    assert {name: columns.tolist() for name, columns in both.target_voxels.items()} == {
        "sub-A": expected,
        "sub-B": expected,
    }
    build_head(shared, 4, both.target_sizes, "tr", 0, both.target_columns)
    batch = next(both.evaluation_batches([Span("toy5", 0, 16)]))
    whole = both.store.responses("sub-B", "toy5", 0, 16)
    assert whole is not None
    np.testing.assert_array_equal(batch["targets"]["sub-B"][0], whole[:, expected])
    assert (both.describe()["common_voxels"], both.describe()["n_targets"]) == (True, {"sub-A": 9, "sub-B": 9})


def test_a_head_of_a_run_without_common_voxels_is_refused(tmp_path: Path) -> None:
    """The columns reach the model's head: as many targets of other places are not the same targets."""
    from brainlit.backbones import BackboneConfig
    from brainlit.tuning import BrainTuning

    data = dead_data(tmp_path, Dead(), common_voxels=False)
    model = BrainTuning(BackboneConfig(weights="random:tiny"), head=HeadConfig(kind="shared"))
    model._trainer = SimpleNamespace(datamodule=data, precision="32-true")  # type: ignore[assignment]
    with pytest.raises(ValueError, match="different columns of the responses"):
        model.setup("fit")


def test_subjects_without_a_common_space_have_no_common_voxels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"different numbers of voxels: sub-A 12, sub-B 11.*common_voxels to false"):
        dead_data(tmp_path, Dead(n_voxels_b=11), common_voxels=True)


def test_no_common_voxel_is_refused(toy_store: StoryStore) -> None:
    chosen = {"sub-A": np.array([1, 2, 3]), "sub-B": np.array([7])}
    with pytest.raises(ValueError, match=r"no voxel is chosen in every subject \(chosen: sub-A 3, sub-B 1\)"):
        common_columns(toy_store, chosen)
