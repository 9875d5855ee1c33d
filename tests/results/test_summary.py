from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.results.record import find_records
from brainlit.results.run_directory import RunDirectory, read_json
from brainlit.results.summary import (
    build_summary,
    change_words,
    find_score,
    headline_sentences,
    limit_sentences,
    regions_of,
    word_sentences,
    write_summary,
)


def test_numbers_are_means_over_subjects_with_paired_differences(run: RunDirectory) -> None:
    records = find_records(run.probes)
    row = find_score(build_summary(run), "semantic", "r_backbone")
    assert row is not None
    own = {(r.subject, r.epoch): r.table.get("semantic", 2, "r_backbone") for r in records}
    for stage, epoch in (("before", 0), ("after", 4)):
        values = [own[name, epoch].score.value for name in ("sub-1", "sub-2")]  # type: ignore[union-attr]
        assert row[stage]["value"] == pytest.approx(np.mean(values))
    assert row["difference"]["value"] == pytest.approx(row["after"]["value"] - row["before"]["value"])
    assert row["difference"]["low"] > 0
    assert (row["n_voxels"], row["n_subjects"]) == (16, 2)
    paired, alone = (row[key]["high"] - row[key]["low"] for key in ("difference", "before"))
    draws = [own[name, 4].score.replicates - own[name, 0].score.replicates for name in ("sub-1", "sub-2")]  # type: ignore[union-attr, operator]
    low, high = np.quantile(np.mean(draws, axis=0), [0.025, 0.975])
    assert paired == pytest.approx(high - low)
    assert alone > 0


def test_voxels_up_counts_voxels(run: RunDirectory) -> None:
    records = {(r.subject, r.epoch): r for r in find_records(run.probes)}
    up = np.concatenate(
        [(records[name, 4].r > records[name, 0].r)[records[name, 0].regions["semantic"]] for name in ("sub-1", "sub-2")]
    )
    row = find_score(build_summary(run), "semantic", "r_backbone")
    assert row is not None
    assert row["voxels_up"] == pytest.approx(up.mean())


def test_it_is_plain_json_and_comes_back(run: RunDirectory, tmp_path: Path) -> None:
    summary = build_summary(run)
    other = RunDirectory(tmp_path)
    assert read_json(write_summary(other, summary)) == json.loads(json.dumps(summary))


def test_stages_and_learning_cover_the_epochs(run: RunDirectory) -> None:
    summary = build_summary(run)
    assert {name: stage["epoch"] for name, stage in summary["stages"].items()} == {"before": 0, "after": 4}
    curve = [row for row in summary["learning"] if (row["region"], row["metric"]) == ("semantic", "r_backbone")]
    assert [row["epoch"] for row in curve] == [0, 2, 4]
    assert curve[0]["value"] < curve[1]["value"]


def test_a_trial_run_has_no_number_in_its_headline(run: RunDirectory) -> None:
    summary = build_summary(run)
    summary["run"]["trial"] = "A trial run: no results."
    assert headline_sentences(summary) == ["A trial run: no results."]


def test_the_headline_region_follows_the_rule(run: RunDirectory) -> None:
    records = find_records(run.probes)
    assert build_summary(run, records)["headline_region"] == "semantic"
    asked = [replace(r, facts={**r.facts, "headline_region": "auditory"}) for r in records]
    assert build_summary(run, asked)["headline_region"] == "auditory"
    unknown = [replace(r, facts={**r.facts, "headline_region": "nowhere"}) for r in records]
    assert build_summary(run, unknown)["headline_region"] == "semantic"


def test_probes_with_other_settings_are_not_compared(run: RunDirectory) -> None:
    records = find_records(run.probes)
    records[-1] = replace(records[-1], fingerprint="other")
    with pytest.raises(ValueError, match="cannot be compared"):
        build_summary(run, records)


def test_warnings_that_differ_in_numbers_come_once_and_from_the_last_probe(run: RunDirectory) -> None:
    texts = {("sub-1", 0): "old", ("sub-1", 4): "12 % lie at 1e4.", ("sub-2", 4): "7 % lie at 1e4."}
    records = [
        replace(r, facts={**r.facts, "warnings": [texts[r.subject, r.epoch]] if (r.subject, r.epoch) in texts else []})
        for r in find_records(run.probes)
    ]
    falls, *said = build_summary(run, records)["warnings"]
    assert "had not stopped falling" in falls  # of the training, not of a probe
    assert said == ["12 % lie at 1e4. (So, with other numbers, for 2 subjects.)"]
    assert build_summary(run, records[:1])["warnings"] == [falls, "old"]


def test_a_run_without_training_has_no_difference(run: RunDirectory) -> None:
    summary = build_summary(run, [r for r in find_records(run.probes) if r.epoch == 0])
    row = find_score(summary, "semantic", "r_backbone")
    assert row is not None
    assert "difference" not in row
    assert "after" not in summary["stages"]
    assert "is 0." in summary["headline"][0]


def test_a_run_without_probes_has_a_summary(tmp_path: Path) -> None:
    summary = build_summary(RunDirectory.create(tmp_path, "e", "one"))
    assert summary["scores"] == []
    assert regions_of(summary) == []
    assert find_score(summary, "semantic", "r_backbone") is None


def score(value: float | None, half: float | None = 0.01) -> dict[str, float | None]:
    if value is None or half is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value - half, "high": value + half}


def row(metric: str, before: float, after: float, half: float | None, region: str = "semantic") -> dict[str, Any]:
    where = {"subject": "all", "region": region, "layer": 4, "metric": metric, "n_voxels": 240, "n_subjects": 3}
    change = score(after - before, half)
    return {**where, "before": score(before), "after": score(after), "difference": change}


def summary(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    probe = {
        "layer": 4,
        "score_stories": ["s1", "s2"],
        "n_score_trs": 200,
        "subjects": {"a": {"n_repeats": 5}, "b": {}},
    }
    probe |= changes.pop("probe", {})
    run = {"regime": "brain", "control": False, **changes}
    return {"run": run, "probe": probe, "scores": rows, "headline_region": "semantic"}


def test_a_rise_is_called_a_rise() -> None:
    first, *_ = headline_sentences(summary([row("r_backbone", 0.204, 0.291, 0.02)]))
    assert first == (
        "Alignment with semantic voxels rose from 0.204 to 0.291 (difference +0.087, 95 % interval +0.067 to +0.107):"
        " mean held-out correlation r of layer 4 over 240 voxels of 3 subjects, 200 TRs of 2 held-out stories."
    )


def test_a_fall_is_called_a_fall() -> None:
    words = change_words(row("low_level_share", 0.92, 0.58, 0.1))
    assert words == "fell from 0.920 to 0.580 (difference -0.340, 95 % interval -0.440 to -0.240)"


@pytest.mark.parametrize("after", [0.25, 0.15])
def test_an_interval_that_spans_zero_is_no_change(after: float) -> None:
    words = change_words(row("r_backbone", 0.2, after, 0.06))
    assert "did not change beyond its uncertainty" in words
    assert words.endswith("includes 0)")
    assert "rose" not in words
    assert "fell" not in words


def test_without_an_interval_nothing_is_claimed() -> None:
    assert "no claim is made" in change_words(row("r_backbone", 0.2, 0.9, None))


def test_one_probe_only_is_a_statement_not_a_change() -> None:
    only = row("r_backbone", 0.2, 0.2, 0.01)
    del only["after"], only["difference"]
    assert change_words(only) == "is 0.200 before tuning (95 % interval 0.190 to 0.210)"
    only["before"] = score(None)
    assert change_words(only) == "is not defined"


def test_the_share_and_a_comparison_follow() -> None:
    rows = [
        row("r_backbone", 0.2, 0.3, 0.01),
        row("low_level_share", 0.9, 0.5, 0.1),
        row("r_backbone", 0.37, 0.38, 0.02, region="auditory"),
    ]
    _, share, comparison = headline_sentences(summary(rows))
    assert "low-level features explain too fell from 0.900 to 0.500" in share
    assert "auditory voxels alignment did not change" in comparison


def test_the_permuted_control_says_so_first() -> None:
    given = summary([row("r_backbone", 0.2, 0.3, 0.01)], control=True, regime="permuted")
    assert headline_sentences(given)[0].startswith("Permuted control: ")
    assert any("This is the permuted control" in text for text in limit_sentences(given))


def test_simulated_listeners_are_said_first() -> None:
    given = summary([row("r_backbone", 0.2, 0.3, 0.01)], simulated=True, control=True)
    assert headline_sentences(given)[0].startswith("Simulated listeners. Permuted control: Alignment with")
    assert limit_sentences(given)[-1].startswith("The listeners are simulated: ")
    assert "imulated" not in " ".join(headline_sentences(summary([row("r_backbone", 0.2, 0.3, 0.01)])))


def test_limits_name_one_story_one_subject_no_repeats_and_few_regions() -> None:
    probe = {"score_stories": ["alone"], "n_score_trs": 90, "subjects": {"a": {"n_repeats": 0}}}
    limits = " ".join(limit_sentences(summary([row("r_backbone", 0.2, 0.3, 0.01)], probe=probe)))
    assert "One held-out story (alone, 90 TRs)" in limits
    assert "nothing is shown about generalisation over stories" in limits
    assert "One subject" in limits
    assert "no noise ceiling" in limits
    assert "0 named regions only" in limits


def test_a_group_names_its_people_beside_the_numbers_and_among_the_limits() -> None:
    people = [f"p{k}" for k in range(10)]
    own = {"n_repeats": 8, "members": {"one": people, "two": people[:8]}}
    given = summary([row("r_backbone", 0.2, 0.3, 0.01)], probe={"subjects": {"group": own}})
    assert " (mean of 8 to 10 people), " in headline_sentences(given)[0]
    limits = " ".join(limit_sentences(given))
    assert "group is the mean of 8 to 10 people, taken as fixed: nothing is shown about single people" in limits
    assert "One subject" not in limits


def test_models_fitted_on_tuned_stories_say_so_beside_the_numbers() -> None:
    rows = [row("r_backbone", 0.2, 0.3, 0.01)]
    plain, fitted = (summary(rows, probe=more) for more in ({}, {"fitted_on_tuned": ["x", "y"], "n_fit_stories": 2}))
    assert headline_sentences(fitted)[0].endswith("held-out stories; encoding models fitted on stories tuned on.")
    assert any("stories that the model was tuned on (2 of 2)" in text for text in limit_sentences(fitted))
    assert "fitted" not in headline_sentences(plain)[0]
    assert not any("fitted" in text for text in limit_sentences(plain))


def test_without_a_probe_nothing_is_said() -> None:
    empty = {"run": {}, "probe": {"subjects": {}}, "scores": [], "headline_region": "all voxels"}
    assert "nothing to say" in headline_sentences(empty)[0]
    assert limit_sentences(empty) == ["The run holds no probe, so nothing can be claimed."]


def words_facts(n_new: int = 12, unseen_trs: int = 84) -> dict[str, Any]:
    n_trs = {"r_backbone_unseen_words": unseen_trs, "r_backbone_seen_words": 150}
    n_words = {"r_backbone_unseen_words": n_new, "r_backbone_seen_words": 60}
    return {"words": {"n_content_words": 85, "n_words": n_words, "n_trs": n_trs, "least_trs": 60}}


def test_words_that_tuning_never_heard_are_counted_with_their_rows() -> None:
    said = "Words that tuning never heard: 12 of 85 content words of the scored stories; "
    two = {"a": words_facts(), "b": words_facts()}
    assert word_sentences(summary([], probe={"subjects": two})) == [
        f"{said}84 rows rest on them, and 150 rows rest on words heard there."
    ]
    two["b"] = words_facts(unseen_trs=1)
    assert word_sentences(summary([], probe={"subjects": two})) == [
        f"a: {said}84 rows rest on them, and 150 rows rest on words heard there.",
        f"b: {said}1 row (too few for a number: 60 are needed) rests on them, and 150 rows rest on words heard there.",
    ]
    assert word_sentences(summary([])) == []
