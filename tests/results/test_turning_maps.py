from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brainlit.results import turning_maps as module
from brainlit.results.brainmap import MAX_DISTANCE_MM, N_VERTICES, fsaverage5
from brainlit.results.record import ProbeRecord, find_records
from brainlit.results.run_directory import RunDirectory
from brainlit.results.turning_maps import NO_VALUE, map_data, plotly_file, turning_maps

R_ERROR = 0.5e-4 + 1e-9
"""Half a step of the numbers in the page."""


@pytest.fixture(scope="module")
def subjects(run: RunDirectory) -> dict[str, list[ProbeRecord]]:
    records = find_records(run.probes)
    return {name: [one for one in records if one.subject == name] for name in ("sub-1", "sub-2")}


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def values(data: dict[str, Any], subject: str, name: str) -> np.ndarray:
    (one,) = [one for one in data["maps"] if (one["subject"], one["name"]) == (subject, name)]
    raw = unpacked(one["values"], "<i2")
    return np.where(raw == NO_VALUE, np.nan, raw * data["step"])


def test_every_voxel_with_a_number_stands_at_its_vertex(subjects: dict[str, list[ProbeRecord]]) -> None:
    data = map_data(subjects)
    for name, records in subjects.items():
        first, last = records[0], records[-1]
        assert first.vertices is not None
        shown = {stage: values(data, name, stage) for stage in ("before", "after", "difference")}
        expected = {"before": first.r, "after": last.r, "difference": last.r - first.r}
        assert len(shown["before"]) == 2 * N_VERTICES
        checked = 0
        for voxel, vertex in enumerate(first.vertices):
            if np.isfinite(first.r[voxel]) and np.isfinite(last.r[voxel]):
                checked += 1
                for stage, at in shown.items():
                    assert at[vertex] == pytest.approx(expected[stage][voxel], abs=R_ERROR)
        assert checked >= 20


def test_left_is_left_and_what_is_far_from_every_voxel_has_no_value(subjects: dict[str, list[ProbeRecord]]) -> None:
    record = subjects["sub-1"][0]
    one = replace(record, r=np.array([0.5]), vertices=np.array([77]), regions={"semantic": np.array([True])})
    shown = values(map_data({"sub-1": [one]}), "sub-1", "before")
    distance_mm = np.linalg.norm(fsaverage5("left").places_mm - fsaverage5("left").places_mm[77], axis=1)
    assert np.array_equal(np.isfinite(shown[:N_VERTICES]), distance_mm < MAX_DISTANCE_MM)
    assert np.isnan(shown[N_VERTICES:]).all()
    assert set(shown[np.isfinite(shown)]) == {0.5}


def test_the_mean_is_over_the_subjects_with_a_value_and_says_how_many(subjects: dict[str, list[ProbeRecord]]) -> None:
    records = subjects["sub-1"]
    vertex = int(np.asarray(records[0].vertices)[0])
    alone = int(np.asarray(records[0].vertices)[1])
    other = [
        replace(one, subject="sub-2", r=np.array([one.r[0] + 0.1]), vertices=np.array([vertex]), regions={})
        for one in records
    ]
    data = map_data({"sub-1": records, "sub-2": other})
    mean = values(data, "mean of subjects", "before")
    (counted,) = [one for one in data["maps"] if (one["subject"], one["name"]) == ("mean of subjects", "before")]
    counts = unpacked(counted["counts"], "<u2")
    assert mean[vertex] == pytest.approx(records[0].r[0] + 0.05, abs=2 * R_ERROR)
    assert counts[vertex] == 2
    assert mean[alone] == pytest.approx(records[0].r[1], abs=R_ERROR)
    assert counts[alone] == 1
    assert np.array_equal(np.isnan(mean), counts == 0)


def test_one_scale_for_all_maps_and_no_mean_of_one(subjects: dict[str, list[ProbeRecord]]) -> None:
    data = map_data(subjects)
    shown = [values(data, name, stage) for name in subjects for stage in ("before", "after", "difference")]
    assert data["top"] == pytest.approx(max(np.nanquantile(np.abs(one), 0.99) for one in shown), abs=2 * R_ERROR)
    assert [one["subject"] for one in data["maps"]][:3] == ["mean of subjects"] * 3
    assert {one["subject"] for one in map_data({"sub-1": subjects["sub-1"]})["maps"]} == {"sub-1"}
    assert {one["name"] for one in map_data({"sub-1": subjects["sub-1"][:1]})["maps"]} == {"before"}


def test_the_pointer_knows_the_regions_of_a_vertex(subjects: dict[str, list[ProbeRecord]]) -> None:
    record = subjects["sub-1"][0]
    at, n_voxels = np.arange(len(record.r)), len(record.r)
    many = {f"region_{k:02}": at % (k + 2) == 0 for k in range(30)} | {"all voxels": np.ones(n_voxels, dtype=bool)}
    data = map_data({"sub-1": [replace(record, regions=many)]})
    which, sets = unpacked(data["region_of"]["sub-1"], "<u2"), data["region_sets"]["sub-1"]
    assert data["regions"] == sorted(many.keys() - {"all voxels"})
    checked = 0
    for voxel, vertex in enumerate(np.asarray(record.vertices)):
        if np.isfinite(record.r[voxel]):
            names = {data["regions"][k] for k in sets[which[vertex]]}
            assert names == {name for name in data["regions"] if many[name][voxel]}
            checked += any(int(name[-2:]) >= 16 for name in names)
    assert checked >= 3


def test_the_mesh_is_that_of_fsaverage5_and_its_halves_do_not_overlap(subjects: dict[str, list[ProbeRecord]]) -> None:
    mesh = map_data(subjects)["mesh"]
    places = {side: unpacked(mesh[side]["places"], "<i2").reshape(-1, 3) * 0.01 for side in mesh}
    for side, mine in places.items():
        half = fsaverage5(side)
        moved = mine - half.shape_mm
        assert np.abs(moved - moved[0]).max() < 0.011, "moved as a whole"
        assert np.array_equal(unpacked(mesh[side]["faces"], "<u2").reshape(-1, 3), half.faces)
    assert places["left"][:, 0].max() < places["right"][:, 0].min()


def test_the_part_holds_maps_data_and_script_and_says_who_listened(subjects: dict[str, list[ProbeRecord]]) -> None:
    part = turning_maps(subjects, simulated=True)
    assert part is not None
    data = re.search(r'<script type="application/json" id="turning-maps-data">(.*?)</script>', part, re.DOTALL)
    assert data is not None
    assert len(json.loads(data[1])["maps"]) == 9
    assert 'aria-label="Simulated listeners. Cortical maps of alignment. mean of subjects, before: mean' in part
    assert "plotly.js (gl3d" in part
    assert "<script src" not in part


def test_no_places_or_no_script_leave_the_pictures(
    subjects: dict[str, list[ProbeRecord]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert turning_maps({"sub-1": [replace(subjects["sub-1"][0], vertices=None)]}) is None
    assert plotly_file() is not None
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert plotly_file() is None
    assert turning_maps(subjects) is None
