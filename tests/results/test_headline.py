from __future__ import annotations

from typing import Any

import pytest

from brainlit.results.headline import change_words, headline_sentences, limit_sentences


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


def test_limits_name_one_story_one_subject_no_repeats_and_few_regions() -> None:
    probe = {"score_stories": ["alone"], "n_score_trs": 90, "subjects": {"a": {"n_repeats": 0}}}
    limits = " ".join(limit_sentences(summary([row("r_backbone", 0.2, 0.3, 0.01)], probe=probe)))
    assert "One held-out story (alone, 90 TRs)" in limits
    assert "nothing is shown about generalisation over stories" in limits
    assert "One subject" in limits
    assert "no noise ceiling" in limits
    assert "0 named regions only" in limits


def test_without_a_probe_nothing_is_said() -> None:
    empty = {"run": {}, "probe": {"subjects": {}}, "scores": [], "headline_region": "all voxels"}
    assert "nothing to say" in headline_sentences(empty)[0]
    assert limit_sentences(empty) == ["The run holds no probe, so nothing can be claimed."]
