"""The printed table of one probe: every cell is a number of the summary."""

from __future__ import annotations

import re

import pytest

from brainlit.results.region_table import REGIONS_ACROSS, region_table
from brainlit.results.run_directory import RunDirectory
from brainlit.results.summary import build_summary, find_score


def test_numbers_intervals_and_what_they_rest_on(run: RunDirectory) -> None:
    summary = build_summary(run)
    text = region_table(summary)
    assert text.startswith("The listeners are simulated: this shows that the method recovers what was planted")
    people = {**summary, "run": {**summary["run"], "simulated": False}}
    assert region_table(people).startswith("| |")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert heads == ["", "all voxels", "semantic", "auditory", "null"]
    cells = {row[0]: dict(zip(heads[1:], row[1:], strict=True)) for row in rows[1:]}
    score = (find_score(summary, "semantic", "r_backbone") or {})["after"]
    assert cells["r"]["semantic"] == f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    assert (cells["subjects"]["semantic"], cells["voxels"]["semantic"]) == ("2", "16")
    assert cells["ceiling"]["null"] == cells["r / ceiling"]["null"] == "-", "these voxels have none"
    parts = [float(row["all voxels"].split()[0]) for name, row in cells.items() if name.startswith("part: ")]
    splits = [float(row["all voxels"].split()[0]) for name, row in cells.items() if name.startswith("split: ")]
    joint = float(cells["R2 of all bands"]["all voxels"].split()[0])
    assert (len(parts), len(splits)) == (7, 3)
    assert sum(parts) == pytest.approx(joint, abs=0.004)
    assert sum(splits) == pytest.approx(joint, abs=0.002)
    assert "mean over the subjects counted above, of sub-1, sub-2; layer 2" in text
    assert "scored on story4[0:60], story5[0:60] (110 TRs used)" in text
    assert len(re.findall(r"^- partition: ", text, re.MULTILINE)) == 1


def test_many_regions_stand_in_several_blocks(run: RunDirectory) -> None:
    summary = build_summary(run)
    rows = [{**row, "region": f"{row['region']}-{k}"} for k in range(3) for row in summary["scores"]]
    text = region_table({**summary, "scores": rows})
    heads = [line for line in text.splitlines() if line.startswith("| | ")]
    assert [line.count("|") - 2 for line in heads] == [REGIONS_ACROSS, REGIONS_ACROSS, 2]
