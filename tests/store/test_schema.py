"""Names, settings and the index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.store import StoreCorruptError, StoreError, StoreSettingsError
from brainlit.store.schema import (
    StoreIndex,
    checked_names,
    fingerprint_of,
    read_index,
    refuse_other_settings,
    settings_of,
    unknown_name,
)
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
    assert StoreIndex.from_json(json.loads(json.dumps(index.to_json()))) == index


def test_folders_without_an_index_hold_no_store(tmp_path: Path) -> None:
    assert read_index(tmp_path) is None


@pytest.mark.parametrize("text", ["{", '{"schema_version": 2}', '{"schema_version": 2, "stories": []}', "\x80"])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreCorruptError, match=r"store\.json"):
        read_index(tmp_path)


@pytest.mark.parametrize("text", ['{"schema_version": 1}', "[]", "{}"])
def test_other_schema_versions_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match="schema version"):
        read_index(tmp_path)
