from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brainlit.results.group import group_score, of_tables
from brainlit.results.record import ProbeRecord, find_records
from brainlit.results.run_directory import RunDirectory
from brainlit.results.summary import build_summary
from brainlit.results.wandb_names import (
    data_set,
    headline_scalars,
    probe_scalars,
    run_name,
    run_tags,
    wandb_id,
)

CONFIG: dict[str, Any] = {
    "seed_everything": 3,
    "trainer": {"max_epochs": 8},
    "model": {"backbone": {"family": "hubert", "weights": "facebook/hubert-base-ls960"}},
    "data": {"regime": "permuted", "source": {"class_path": "brainlit.demo.DemoSource"}, "subjects": None},
}
CODE = {"revision": "0123456789abcdef", "dirty": False}


def changed(**groups: dict[str, Any]) -> dict[str, Any]:
    return {**CONFIG, **{name: {**CONFIG[name], **values} for name, values in groups.items()}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONFIG, "hubert-hubert-base-ls960-permuted-s3"),
        (changed(model={"backbone": {"family": "wav2vec", "weights": "tiny"}}), "wav2vec-permuted-s3"),
        (
            changed(model={"backbone": {"family": "wav2vec", "weights": "random:tiny"}}),
            "wav2vec-random-tiny-permuted-s3",
        ),
        (changed(trainer={"max_epochs": 0}), "hubert-hubert-base-ls960-pretrained-s3"),
        (changed(data={"subjects": ["UTS01", "UTS02"]}), "hubert-hubert-base-ls960-permuted-UTS01+UTS02-s3"),
        (
            {
                **CONFIG,
                "config_files": [
                    "experiments/data/demo.yaml",
                    "experiments/paper/multi_brain.yaml (came with brainlit)",
                ],
            },
            "hubert-hubert-base-ls960-permuted-multi_brain-s3",
        ),
        (changed(data={"subjects": list("abcd")}), "hubert-hubert-base-ls960-permuted-4-subjects-s3"),
        ({}, "s0"),
    ],
)
def test_a_run_is_called_by_what_it_is(config: dict[str, Any], expected: str) -> None:
    assert run_name(config) == expected


def test_tags_say_what_a_run_is_made_of() -> None:
    assert run_tags(CONFIG, CODE) == ["hubert", "hubert-base-ls960", "permuted", "demo", "git-0123456"]
    assert run_tags(CONFIG, {**CODE, "dirty": True})[-1] == "git-0123456-dirty"
    assert run_tags(CONFIG, {"revision": "unknown", "dirty": None})[-1] == "demo"
    long = changed(model={"backbone": {"family": "hubert", "weights": "x" * 100}})
    assert max(map(len, run_tags(long, CODE))) == 64, "W&B refuses longer ones"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"class_path": "brainlit.stories.manifest.ManifestSource", "init_args": {"path": "data/mine/m.yaml"}}, "mine"),
        ({"class_path": "brainlit.stories.manifest.ManifestSource", "init_args": {"path": "m.yaml"}}, "manifest"),
        ({"class_path": "x.GroupMean", "init_args": {"source": {"class_path": "x.LebelSource"}}}, "lebel"),
        ({}, ""),
    ],
)
def test_the_data_set_in_a_word(source: dict[str, Any], expected: str) -> None:
    assert data_set({"data": {"source": source}}) == expected


def test_the_id_is_that_of_the_folder(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "a", "brain_tune", "first")
    own = wandb_id(run)
    run.release()
    again = RunDirectory.claim(tmp_path / "a", "brain_tune", "first")
    assert again.resumed
    assert wandb_id(again) == own
    assert own.startswith("first-")
    assert wandb_id(RunDirectory.create(tmp_path / "a", "another", "first")) != own
    long = RunDirectory.create(tmp_path / "a", "brain_tune", "x" * 90)
    assert len(wandb_id(long)) <= 64, "W&B refuses longer ones"


# --- Numbers ---


@pytest.fixture(scope="module")
def records(run: RunDirectory) -> list[ProbeRecord]:
    found = find_records(run.probes)
    return [record for record in found if record.epoch == max(other.epoch for other in found)]


def test_scalars_are_the_group_s_and_the_most_telling_come_first(records: list[ProbeRecord]) -> None:
    values = probe_scalars(records)
    tables = {record.subject: record.table for record in records}
    for key, value in values.items():
        prefix, stage, region, layer, metric = key.split("/")
        assert (prefix, stage) == ("probe", "after")
        found = group_score(metric, of_tables(tables, region.replace("_", " "), int(layer.removeprefix("layer-"))))
        assert found is not None
        assert value == found.score.value
    keys, layer = list(values), f"layer-{records[0].layer}"
    assert keys[:3] == [f"probe/after/{name}/{layer}/r_backbone" for name in ("semantic", "auditory", "null")]
    first_other = next(k for k, key in enumerate(keys) if layer not in key)
    assert all(layer not in key for key in keys[first_other:]), "the compared layer is before all others"
    assert next(iter(probe_scalars(records, "alice"))) == f"probe/alice/after/semantic/{layer}/r_backbone"


def test_the_headline_is_plain_numbers(run: RunDirectory) -> None:
    summary = build_summary(run)
    values = headline_scalars(summary)
    row = next(
        row
        for row in summary["scores"]
        if (row["subject"], row["region"], row["metric"]) == ("all", "semantic", "r_backbone")
        and row["layer"] == summary["probe"]["layer"]
    )
    assert {part: values[f"headline/alignment/{part}"] for part in ("before", "after", "difference")} == {
        part: row[part]["value"] for part in ("before", "after", "difference")
    }
    assert values["headline/alignment/difference_low"] == row["difference"]["low"]
    assert values["headline/alignment/difference_high"] == row["difference"]["high"]
    assert {key.split("/")[1] for key in values} >= {"alignment", "low_level_share", "alignment_auditory"}
    assert all(isinstance(value, float) for value in values.values())


def test_a_trial_run_and_one_without_a_probe_have_no_headline(run: RunDirectory, tmp_path: Path) -> None:
    summary = build_summary(run)
    assert headline_scalars({**summary, "run": {**summary["run"], "trial": "A trial run"}}) == {}
    assert headline_scalars(build_summary(RunDirectory.create(tmp_path, "brain_tune"))) == {}
