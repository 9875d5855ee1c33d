"""The numbers of a store."""

from __future__ import annotations

import json
from pathlib import Path

from brainlit.store import describe_store, description_text


def test_numbers_are_those_of_the_source(toy_store_path: Path) -> None:
    description = describe_store(toy_store_path)
    assert json.loads(json.dumps(description)) == description
    expected = {
        "name": "toy",
        "stories": 6,
        "minutes": 8.0,
        "trs": 240,
        "tr_s": 2.0,
        "subjects": 2,
        "voxels": {"sub-A": 12, "sub-B": 12},
        "stories_heard": {"sub-A": 6, "sub-B": 5},
        "repeats": {"sub-A": {"toy4": 3, "toy5": 3}, "sub-B": {"toy4": 3, "toy5": 3}},
        "left_out": {"sub-C": "its columns are constant"},
    }
    assert {key: description[key] for key in expected} == expected
    assert [(space["name"], space["n_features"]) for space in description["feature_spaces"]] == [
        ("envelope", 2),
        ("word_vectors", 3),
    ]
    on_disk = sum(file.stat().st_size for file in toy_store_path.rglob("*.h5"))
    assert abs(description["disk_mb"] - on_disk / 1e6) < 0.01


def test_the_table_says_what_was_done_to_the_sound(toy_store_path: Path) -> None:
    description = {**describe_store(toy_store_path), "sound_notes": {"toy1": ["It was scaled.", "It was long."]}}
    assert describe_store(toy_store_path)["sound_notes"] == {}
    lines = [line.split() for line in description_text(description).splitlines()]
    assert ["sound", "of", "toy1", "It", "was", "scaled.", "It", "was", "long."] in lines


def test_the_table_says_what_was_left_out_and_why(toy_store_path: Path) -> None:
    lines = description_text(describe_store(toy_store_path)).splitlines()
    assert any(line.startswith("left out: sub-C") and line.endswith("its columns are constant") for line in lines)
    assert any("sub-B" in line and "12 voxels, 5 stories, toy4 x 3, toy5 x 3" in line for line in lines)
    assert any("tune" in line and "toy0, toy1" in line for line in lines)
