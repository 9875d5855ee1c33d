"""Feature spaces at their own rate, and what responses passed: written, read, described, checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from brainlit.features import FeatureConfig, envelope, word_length
from brainlit.files import sha256_of, write_json
from brainlit.store import StoreError, StoryStore, UnknownNameError, build_store, check_store, describe_store
from brainlit.store.describe import description_text
from brainlit.stories import FeatureSpace, ResponseFilter, Story, TimedValues
from tests.toy import ToySource

FILTER = ResponseFilter(2, 128.0, trimmed_trs=(10, 5), source="its authors")
LOW_LEVEL = ["log_mel", "word_rate", "word_length", "pauses", "phone_rate"]


class Known(ToySource):
    """The toy, whose own spaces are called something else, and of whose responses something is known."""

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        return [replace(space, name=f"own_{space.name}") for space in super().feature_spaces(story)]

    def response_filter(self) -> ResponseFilter:
        return FILTER

    def slice_reference(self) -> float:
        return 0.25


@pytest.fixture(scope="module")
def source() -> Known:
    return Known(n_trs=30)


@pytest.fixture(scope="module")
def path(source: Known, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own_rate") / "store"
    build_store(source, folder, progress=False, features=FeatureConfig(low_level=LOW_LEVEL)).close()
    return folder


@pytest.fixture
def store(path: Path) -> StoryStore:
    return StoryStore.open(path)


def test_computed_spaces_are_read_as_they_were_computed(store: StoryStore, source: Known) -> None:
    for name in ("toy0", "toy5"):
        story = source.story(name)
        computed = word_length(story)
        assert computed.timed is not None
        read = store.timed(name, "word_length")
        assert read is not None
        assert read.duration_s is None
        np.testing.assert_array_equal(read.values, computed.timed.values)
        np.testing.assert_array_equal(read.times_s, story.words.middle_s)
        frames = store.timed(name, "log_mel")
        assert frames is not None
        assert frames.duration_s == 0.1
        assert frames.values.shape == (601, 20)
        assert frames.values.dtype == np.float32
        assert frames.times_s.dtype == np.float64


def test_spaces_known_per_tr_only_have_no_rate_of_their_own(store: StoryStore) -> None:
    assert store.timed("toy0", "own_envelope") is None
    rates = {entry.name: entry.own_rate for entry in store.feature_space_entries}
    events = dict.fromkeys(LOW_LEVEL[1:], "events")
    assert rates == {"log_mel": "frames", **events, "own_envelope": None, "own_word_vectors": None}


def test_unknown_names_are_refused_with_the_nearest(store: StoryStore) -> None:
    with pytest.raises(UnknownNameError, match=r"feature space 'word_lenght'.*word_length"):
        store.timed("toy0", "word_lenght")
    with pytest.raises(UnknownNameError, match=r"story 'toy9'"):
        store.timed("toy9", "word_rate")


def test_values_per_tr_are_as_without_them(store: StoryStore, source: Known) -> None:
    (values,) = (space.values for space in store.feature_spaces("toy3") if space.name == "word_length")
    np.testing.assert_array_equal(values, word_length(source.story("toy3")).values)


def test_what_responses_passed_is_kept(store: StoryStore) -> None:
    assert store.response_filter == FILTER
    assert store.slice_reference == 0.25
    assert store.facts["responses passed"] == FILTER.in_words


def test_without_a_word_from_the_source_nothing_is_known(toy_store: StoryStore) -> None:
    assert toy_store.response_filter is None
    assert toy_store.slice_reference == 0.5
    assert toy_store.facts["responses passed"] == "not known"
    assert toy_store.timed("toy0", "envelope") is None


@pytest.mark.parametrize("reference", [-0.1, 1.5, float("nan")])
def test_a_moment_outside_the_volume_is_refused(tmp_path: Path, reference: float) -> None:
    source = ToySource(n_trs=6)
    source.slice_reference = lambda: reference  # type: ignore[method-assign]
    with pytest.raises(StoreError, match=r"slice_reference of 'toy' is .*; need a part of the TR"):
        build_store(source, tmp_path / "store", progress=False)


def test_the_description_says_which_rate_and_filter(path: Path) -> None:
    description = describe_store(path)
    assert json.loads(json.dumps(description)) == description
    assert ResponseFilter.from_json(description["response_filter"]) == FILTER
    text = description_text(description)
    assert "log_mel (20, frames)" in text
    assert "own_envelope (2, per TR only)" in text
    assert "0.25 of the TR" in text


def test_a_source_may_bring_its_own_rate(tmp_path: Path) -> None:
    timed = TimedValues(np.arange(4.0)[:, None], [1, 2, 2, 5])

    class Brings(ToySource):
        def feature_spaces(self, story: Story) -> list[FeatureSpace]:
            return [FeatureSpace("beats", "low_level", ("beat",), "mine", np.zeros((6, 1)), timed=timed)]

    read = build_store(Brings(n_trs=6), tmp_path / "store", progress=False).timed("toy2", "beats")
    assert read is not None
    assert read.duration_s is None
    np.testing.assert_array_equal(read.values, timed.values)
    np.testing.assert_array_equal(read.times_s, timed.times_s)


def test_stories_with_other_rates_are_refused(tmp_path: Path) -> None:
    class Odd(ToySource):
        def feature_spaces(self, story: Story) -> list[FeatureSpace]:
            timed = TimedValues(np.zeros((4, 1)), range(4), 1.0 if story.name == "toy3" else None)
            return [FeatureSpace("beats", "low_level", ("beat",), "mine", np.zeros((6, 1)), timed=timed)]

    with pytest.raises(StoreError, match=r"'beats' has events at its own rate in story 'toy0' and frames in 'toy3'"):
        build_store(Odd(n_trs=6), tmp_path / "store", progress=False)


def test_a_story_without_events_has_none(tmp_path: Path) -> None:
    class Mute(ToySource):
        def feature_spaces(self, story: Story) -> list[FeatureSpace]:
            timed = TimedValues(np.zeros((0, 1)), [])
            return [FeatureSpace("beats", "low_level", ("beat",), "mine", np.zeros((6, 1)), timed=timed)]

    read = build_store(Mute(n_trs=6), tmp_path / "store", progress=False).timed("toy0", "beats")
    assert read is not None
    assert read.values.shape == (0, 1)


def test_events_take_little_room(path: Path) -> None:
    with h5py.File(path / "stories/toy0.h5") as h5:
        group = h5["timed/phone_rate"]
        assert group["values"].compression == "gzip"
        assert group["values"].chunks is not None
        assert group["values"].id.get_storage_size() < group["values"].nbytes


def _not_finite(h5: Any) -> None:
    h5["timed/log_mel/values"][0, 0] = np.nan


def _fewer_columns(h5: Any) -> None:
    values = h5["timed/log_mel/values"][:, :-1]
    del h5["timed/log_mel/values"]
    h5["timed/log_mel/values"] = values


def _lost(h5: Any) -> None:
    del h5["timed/log_mel"]


def _other_times(h5: Any) -> None:
    h5["timed/word_rate/times_s"][0] = 1e6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_not_finite, "'log_mel' is no series at its own rate: values at their own times, or the times, hold NaN"),
        (_fewer_columns, "'log_mel' has 19 columns at its own rate and 20 per TR"),
        (_lost, "'log_mel' has nothing at its own rate, the index says frames"),
        (_other_times, "'word_rate' is no series at its own rate: time 1 is"),
    ],
)
def test_damage_is_found(path: Path, tmp_path: Path, damage: Callable[[Any], None], message: str) -> None:
    shutil.copytree(path, tmp_path / "s")
    file = tmp_path / "s/stories/toy1.h5"
    with h5py.File(file, "r+") as h5:
        damage(h5)
    index = json.loads((tmp_path / "s/store.json").read_text())
    index["stories"]["toy1"] |= {"n_bytes": file.stat().st_size, "sha256": sha256_of(file)}
    write_json(tmp_path / "s/store.json", index)
    (finding,) = [f for f in check_store(tmp_path / "s", progress=False) if f.kind == "length_mismatch"]
    assert (finding.level, finding.where) == ("error", "toy1")
    assert message in finding.message


def test_an_envelope_of_a_store_is_the_storys(source: Known, tmp_path: Path) -> None:
    config = FeatureConfig(low_level=["envelope"])
    with_frames = build_store(source, tmp_path / "store", progress=False, features=config)
    computed, read = envelope(source.story("toy4")).timed, with_frames.timed("toy4", "envelope")
    assert computed is not None
    assert read is not None
    np.testing.assert_array_equal(read.values, computed.values)
    np.testing.assert_array_equal(read.times_s, computed.times_s)
