from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brainlit.encoding import ProbeConfig, region_shares
from brainlit.probing.inputs import ProbeData
from brainlit.probing.shares import SubjectShares, measure_shares, shares_table, write_shares

N_TRS, N_STORIES = 200, 8
CONFIG = ProbeConfig(delays_trs=(1, 2), skip_trs=0)


def listener() -> tuple[Any, np.ndarray]:
    """Voxels of two regions: one follows the backbone's own features, one nothing."""
    rng = np.random.default_rng(3)
    n = N_TRS * N_STORIES
    backbone, low_level, semantic = (rng.standard_normal((n, 3)).astype(np.float32) for _ in range(3))
    responses = rng.standard_normal((n, 6)).astype(np.float32)
    responses[1:, :3] += backbone[:-1]
    groups = np.repeat(np.arange(N_STORIES), N_TRS)
    score = groups >= N_STORIES - 2
    stimulus = {"low_level": low_level, "semantic": semantic}
    regions = {"semantic": np.arange(6) < 3, "null": np.arange(6) >= 3}
    data = ProbeData(np.ones(n, bool), stimulus, responses, groups, ~score, score, None, {}, regions)
    return data, backbone


@pytest.fixture(scope="module")
def shares() -> list[SubjectShares]:
    data, backbone = listener()
    engine: Any = SimpleNamespace(config=CONFIG, subject_data=lambda *_: data)
    return measure_shares(engine, backbone, SimpleNamespace(), ["sub-1"])


def test_each_region_has_its_shares_and_they_are_those_of_the_function(shares: list[SubjectShares]) -> None:
    data, backbone = listener()
    assert [one.region for one in shares] == ["all voxels", "semantic", "null"]
    bands = {"backbone": backbone, **data.stimulus}
    expected = region_shares(bands, data.responses[:, :3], data.groups, data.fit, data.score, CONFIG)
    found = shares[1].shares()
    assert found["backbone"] == expected.parts["backbone"]
    assert found["backbone"].low <= 1.0 <= found["backbone"].high
    assert found["low_level_share"].low <= 0.0 <= found["low_level_share"].high
    assert found["joint_r2"].value == pytest.approx(0.5, abs=0.1)


def test_they_are_written_and_shown_with_what_they_rest_on(shares: list[SubjectShares], tmp_path: Path) -> None:
    rows = list(csv.DictReader(write_shares(shares, tmp_path).open()))
    (own,) = [row for row in rows if (row["region"], row["part"]) == ("semantic", "backbone")]
    assert float(own["low"]) < float(own["value"]) < float(own["high"])
    assert (own["n_voxels"], own["n_fit_trs"], own["is_cut"]) == ("3", "1200", "False")
    said = shares_table(shares)
    assert "| sub-1 | semantic | 3 |" in said
    assert "95 % interval over other" in said


def test_where_rows_are_too_few_it_is_said_what_it_takes() -> None:
    data, backbone = listener()
    wide = np.random.default_rng(4).standard_normal((len(backbone), 400)).astype(np.float32)
    engine: Any = SimpleNamespace(config=CONFIG, subject_data=lambda *_: data)
    (first, *others) = measure_shares(engine, wide, SimpleNamespace(), ["sub-1"])
    assert {one.found for one in (first, *others)} == {None}
    assert "no shares for semantic of sub-1: 812 columns" in shares_table([first, *others])
    assert "Fit at least 1624 rows" in first.why_not


def test_a_region_with_nothing_to_share_out_is_named(shares: list[SubjectShares]) -> None:
    none = SubjectShares("sub-1", "null", None, "the bands together explain nothing")
    assert shares_table([none]) == "- no shares for null of sub-1: the bands together explain nothing"
    assert none.shares() == {}
