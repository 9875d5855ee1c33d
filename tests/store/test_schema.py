"""Names, settings and the index."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.features import FeatureConfig
from brainlit.store import StoreCorruptError, StoreError, StoreSettingsError, StoryStore, build_store
from brainlit.store.schema import (
    StoreIndex,
    changed,
    checked_names,
    fingerprint_of,
    labels_of,
    read_index,
    refuse_other_settings,
    remember,
    settings_of,
    touched,
    unknown_name,
)
from brainlit.stories import Responses, Story, Subject, SubjectLeftOut
from tests.toy import ToySource


class Unusual(ToySource):
    def settings(self) -> dict[str, Any]:
        return {"array": np.zeros(3)}


def test_settings_hold_the_source_and_are_plain() -> None:
    settings = settings_of(ToySource(seed=3), {"vectors": None})
    assert settings["source"] == "toy"
    assert settings["seed"] == 3
    assert settings["stories"] == [f"toy{k}" for k in range(6)]
    assert settings["features"] == {"vectors": None}
    with pytest.raises(TypeError, match="Unusual must be plain JSON"):
        settings_of(Unusual(), {})


def test_fingerprint_depends_on_values_not_on_order() -> None:
    assert fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


@pytest.mark.parametrize(
    ("stored", "asked", "key"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "b"),
        ({"a": {"x": {"y": 1}}}, {"a": {"x": {"y": 2}}}, "a.x.y"),
        ({"a": 1}, {"a": 1, "new": None}, "new"),
        ({"a": 1, "old": 0}, {"a": 1}, "old"),
        ({"a": {}}, {"a": {"b": 1}}, "a"),
    ],
)
def test_the_first_difference_is_named(stored: dict[str, Any], asked: dict[str, Any], key: str) -> None:
    with pytest.raises(StoreSettingsError) as caught:
        refuse_other_settings(Path("s"), stored, asked)
    assert caught.value.key == key
    refuse_other_settings(Path("s"), stored, stored)


def test_both_values_are_in_the_message() -> None:
    with pytest.raises(StoreSettingsError, match=r"n=3, but n=4 is asked for"):
        refuse_other_settings(Path("s"), {"n": 3}, {"n": 4})


@pytest.mark.parametrize("name", ["a/b", "", ".hidden", "a[1:2]", "two words", "..", "a\n"])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(StoreError, match="letters, digits"):
        checked_names("story", ["good", name])


def test_names_that_differ_in_case_only_are_refused() -> None:
    assert checked_names("story", ["sub-01", "wo.rt_2+3", "été"]) == ["sub-01", "wo.rt_2+3", "été"]
    with pytest.raises(StoreError, match="'Life', 'life'"):
        checked_names("story", ["life", "Life"])


def test_unknown_names_come_with_the_nearest() -> None:
    assert "Did you mean 'alice'" in str(unknown_name("story", "alise", ["bob", "alice"]))
    assert "none" in str(unknown_name("story", "alise", []))


def test_index_survives_json(toy_store_path: Path) -> None:
    index = read_index(toy_store_path)
    assert index is not None
    assert StoreIndex.from_json(json.loads(json.dumps(asdict(index)))) == index


def test_folders_without_an_index_hold_no_store(tmp_path: Path) -> None:
    assert read_index(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 4}', '{"schema_version": 5, "stories": []}', "\x80"])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreCorruptError, match=r"store\.json"):
        read_index(tmp_path)


@pytest.mark.parametrize("text", ['{"schema_version": 3}', '{"schema_version": 6}', '{"schema_version": "5"}', "{}"])
def test_other_schema_versions_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match="schema version"):
        read_index(tmp_path)


# --- sources
# The files a store was made from: noticed when they change, not missed when they are gone; stores grow by subjects.


class OnDisk(ToySource):
    """A toy whose stories and subjects each stand for one file; counts what it is asked for."""

    def __init__(self, root: Path, subjects: Sequence[str] = ("sub-A", "sub-B"), unusable: Sequence[str] = ()) -> None:
        super().__init__(n_trs=6)
        self.root, self.subjects, self.unusable = root, list(subjects), unusable
        self.asked: list[str] = []
        root.mkdir(exist_ok=True)
        for name in [*self.story_names(), "sub-A", "sub-B"]:
            if not (root / name).exists():
                (root / name).write_text(name)

    def subject_names(self) -> list[str]:
        return self.subjects

    def story_files(self, name: str) -> list[Path]:
        return [self.root / name]

    def subject_files(self, name: str) -> list[Path]:
        return [self.root / name]

    def story(self, name: str) -> Story:
        self.asked.append(name)
        return super().story(name)

    def subject(self, name: str) -> Subject:
        self.asked.append(name)
        if name in self.unusable:
            raise SubjectLeftOut("every column is constant")
        return super().subject(name)

    def facts(self) -> dict[str, str]:
        return {"clock": f"nominal, {', '.join(self.subjects)}"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def store(tmp_path: Path, raw: Path) -> Path:
    build_store(OnDisk(raw), tmp_path / "store", progress=False).close()
    return tmp_path / "store"


def asked_by_again(raw: Path, store: Path) -> list[str]:
    source = OnDisk(raw)
    build_store(source, store, progress=False).close()
    return source.asked


def test_an_unchanged_source_is_neither_read_nor_hashed(
    raw: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainlit.store.schema.sha256_of", lambda path: pytest.fail(f"{path} was hashed"))
    assert asked_by_again(raw, store) == []


def test_a_changed_source_is_refused_with_both_hashes(raw: Path, store: Path) -> None:
    before = StoryStore.open(store).index.stories["toy2"].sources[0].sha256
    (raw / "toy2").write_text("other words")
    with pytest.raises(StoreSettingsError, match=r"sha256 of toy2 \(a source of stories/toy2\.h5\)") as caught:
        asked_by_again(raw, store)
    assert caught.value.stored == before
    assert len(caught.value.asked) == 64
    assert caught.value.asked != before


def test_a_touched_source_is_hashed_once_and_then_known(
    raw: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(raw / "sub-A", ns=(1, 1))
    hashes = StoryStore.open(store).hashes
    assert asked_by_again(raw, store) == []
    assert StoryStore.open(store).index.subjects["sub-A"].sources[0].mtime_ns == 1
    assert StoryStore.open(store).hashes == hashes
    monkeypatch.setattr("brainlit.store.schema.sha256_of", lambda path: pytest.fail(f"{path} was hashed"))
    assert asked_by_again(raw, store) == []


def test_deleted_sources_are_not_missed_and_moved_ones_are_the_same(tmp_path: Path, raw: Path, store: Path) -> None:
    shutil.move(raw, tmp_path / "elsewhere")
    assert asked_by_again(tmp_path / "elsewhere", store) == []
    source = OnDisk(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    build_store(source, store, progress=False).close()
    assert source.asked == []


def test_a_source_that_was_not_there_before_is_refused(tmp_path: Path, raw: Path) -> None:
    class WithLog(OnDisk):
        def story_files(self, name: str) -> list[Path]:
            return [path for path in (self.root / name, self.root / f"{name}.report") if path.exists()]

    build_store(WithLog(raw), tmp_path / "store", progress=False).close()
    (raw / "toy1.report").write_text("0.0 trigger")
    with pytest.raises(StoreSettingsError, match=r"sha256 of toy1\.report .*=null.*Take the file away"):
        build_store(WithLog(raw), tmp_path / "store", progress=False)


def test_adding_a_subject_touches_only_that_subject(tmp_path: Path, raw: Path) -> None:
    first = build_store(OnDisk(raw, ["sub-A"]), tmp_path / "s", progress=False)
    assert first.subject_names == ["sub-A"]
    times = {file: (tmp_path / "s" / file).stat().st_mtime_ns for file in first.hashes}
    source = OnDisk(raw, ["sub-B"])
    grown = build_store(source, tmp_path / "s", progress=False)
    assert source.asked == ["sub-B"]
    assert grown.subject_names == ["sub-A", "sub-B"]
    assert {file: (tmp_path / "s" / file).stat().st_mtime_ns for file in times} == times
    assert {file: grown.hashes[file] for file in times} == first.hashes
    assert grown.hashes == build_store(OnDisk(raw), tmp_path / "both", progress=False).hashes
    fewer = OnDisk(raw, ["sub-A"])
    build_store(fewer, tmp_path / "s", progress=False)
    assert fewer.asked == []


def test_an_unusable_subject_is_left_out_once_and_said(tmp_path: Path, raw: Path) -> None:
    source = OnDisk(raw, unusable=["sub-B"])
    store = build_store(source, tmp_path / "s", progress=False)
    assert store.subject_names == ["sub-A"]
    assert store.left_out["sub-B"] == "every column is constant"
    again = OnDisk(raw, unusable=["sub-B"])
    build_store(again, tmp_path / "s", progress=False)
    assert again.asked == []
    with pytest.raises(StoreError, match=r"no subject can be used.*every column is constant"):
        build_store(OnDisk(raw, unusable=["sub-A", "sub-B"]), tmp_path / "none", progress=False)


def test_other_features_or_stories_are_other_settings(tmp_path: Path, raw: Path, store: Path) -> None:
    with pytest.raises(StoreSettingsError) as caught:
        build_store(OnDisk(raw), store, progress=False, features=FeatureConfig(per_tr="lanczos"))
    assert (caught.value.key, caught.value.stored, caught.value.asked) == ("features.per_tr", "mean", "lanczos")

    class Fewer(OnDisk):
        def story_names(self) -> list[str]:
            return ["toy0"]

    with pytest.raises(StoreSettingsError, match=r"made with stories=\["):
        build_store(Fewer(raw), store, progress=False)


def test_facts_are_kept(raw: Path, store: Path) -> None:
    assert StoryStore.open(store).facts == {"clock": "nominal, sub-A, sub-B", "responses passed": "not known"}


def test_repeats_are_read_one_by_one_and_in_parts(tmp_path: Path) -> None:
    class Lazy(Sequence):
        def __init__(self, repeats: np.ndarray) -> None:
            self.repeats, self.read = repeats, []

        def __len__(self) -> int:
            return len(self.repeats)

        def __getitem__(self, k: int) -> np.ndarray:
            self.read.append(k)
            return self.repeats[k]

    class Large(ToySource):
        def responses(self, subject: str, story: str) -> Responses | None:
            given = super().responses(subject, story)
            return given if given is None or given.repeats is None else Responses(given.values, Lazy(given.repeats))

    store = build_store(Large(n_trs=6), tmp_path / "lazy", progress=False)
    whole = build_store(ToySource(n_trs=6), tmp_path / "whole", progress=False)
    assert store.hashes == whole.hashes
    expected = whole.repeats("sub-A", "toy5")
    np.testing.assert_array_equal(store.repeats("sub-A", "toy5", slice(2, 5), slice(0, 2)), expected[:2, :, 2:5])


def test_a_repeat_of_another_shape_is_refused(tmp_path: Path) -> None:
    class Cut(ToySource):
        def responses(self, subject: str, story: str) -> Responses | None:
            given = super().responses(subject, story)
            if given is None or given.repeats is None:
                return given
            return Responses(given.values, [given.repeats[0], given.repeats[1][:-1]])

    with pytest.raises(StoreError, match=r"repeat 1 of story 'toy4' has shape \(5, 12\), but the responses have"):
        build_store(Cut(n_trs=6), tmp_path / "s", progress=False)


def test_labels_stay_when_folders_move_and_tell_twins_apart() -> None:
    assert labels_of([Path("/x/L/a.gii"), Path("/x/R/a.gii")]) == labels_of(
        [Path("/y/z/L/a.gii"), Path("/y/z/R/a.gii")]
    )
    assert labels_of([]) == []


def test_what_is_remembered(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    remembered = remember([file])
    assert changed([file], remembered) is None
    assert not touched([file], remembered)
    os.utime(file, ns=(5, 5))
    assert changed([file], remembered) is None
    assert touched([file], remembered)
    file.write_text("2")
    assert changed([file], remembered)[:2] == ("a", remembered[0].sha256)
    with pytest.raises(FileNotFoundError):
        remember([tmp_path / "none"])
