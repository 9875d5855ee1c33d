"""The result in words, no stronger than its interval, and what cannot be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainlit.results.lookup import find_score, not_tuned_on, regions_of


def headline_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Two or three sentences built from the summary's numbers.

    A change is called a rise or a fall only where its 95 % interval lies on one side of 0.
    """
    region = summary["headline_region"]
    row = find_score(summary, region, "r_backbone")
    if row is None:
        return ["No probe has been run yet: there is nothing to say about the brain."]
    control = "Permuted control: " if summary["run"].get("control") else ""
    sentences = [control + alignment_sentence(summary, row)]
    share = find_score(summary, region, "low_level_share")
    if share is not None:
        sentences.append(share_sentence(share, _place(region)))
    other = next((name for name in ("auditory", "null") if name in regions_of(summary) and name != region), None)
    compared = find_score(summary, other, "r_backbone") if other else None
    if compared is not None and "difference" in compared:
        sentences.append(f"For comparison, in {_place(str(other))} alignment {change_words(compared)}.")
    return sentences


def alignment_sentence(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What happened to alignment in one region, with everything needed to judge the number."""
    words = f"Alignment with {_place(row['region'])} {change_words(row)}"
    held_out = f" ({len(names)} not tuned on)" if (names := not_tuned_on(summary)) else ""
    subjects = _count(row["n_subjects"], "subject") + held_out
    n_voxels = _count(row["n_voxels"], "voxel")
    return (
        f"{words}: mean held-out correlation r of layer {row['layer']} over {n_voxels} of {subjects},"
        f" {_stimulus(summary)}."
    )


def share_sentence(row: Mapping[str, Any], place: str) -> str:
    """What happened to the low-level share of the explained variance."""
    return f"The share of what the model explains in {place} that low-level features explain too {change_words(row)}."


def change_words(row: Mapping[str, Any]) -> str:
    """'rose from a to b (difference d, 95 % interval l to h)', or what fits the numbers instead.

    >>> side = {"low": None, "high": None}
    >>> change_words({"before": {"value": 0.2, **side}, "after": {"value": 0.3, **side},
    ...               "difference": {"value": 0.1, "low": 0.05, "high": 0.15}})
    'rose from 0.200 to 0.300 (difference +0.100, 95 % interval +0.050 to +0.150)'
    """
    if "difference" not in row or row["difference"]["value"] is None:
        return _single_words(row)
    before, after, change = row["before"]["value"], row["after"]["value"], row["difference"]
    numbers, difference = f"{before:.3f} to {after:.3f}", f"difference {change['value']:+.3f}"
    if change["low"] is None:
        return f"went from {numbers} ({difference}; no interval is available, so no claim is made)"
    interval = f"{difference}, 95 % interval {change['low']:+.3f} to {change['high']:+.3f}"
    if change["low"] > 0:
        return f"rose from {numbers} ({interval})"
    if change["high"] < 0:
        return f"fell from {numbers} ({interval})"
    return f"did not change beyond its uncertainty, {numbers} ({interval} includes 0)"


def limit_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What cannot be claimed from this run."""
    probe, run = summary["probe"], summary["run"]
    if not summary["scores"]:
        return ["The run holds no probe, so nothing can be claimed."]
    stories = probe.get("score_stories", [])
    limits = [_story_limit(stories, probe)]
    n_subjects = len(probe["subjects"])
    if n_subjects == 1:
        limits.append("One subject: nothing is shown about other people.")
    else:
        limits.append(f"{n_subjects} subjects, taken as fixed: the intervals do not cover other people.")
    limits.append(
        "One run with one seed: the intervals do not cover how much a result moves between seeds. Repeat the run, and"
        " the permuted control, with several seeds before claiming an effect of tuning."
    )
    if run.get("control"):
        limits.append(
            "This is the permuted control: the model was tuned on responses that do not belong to the sound. What"
            " rises here did not come from the match between sound and brain."
        )
    elif run.get("regime") == "brain":
        limits.append(
            "A rise alone does not show that the brain's match to the sound did it: compare with the permuted control,"
            " which is tuned in the same way on shuffled responses."
        )
    n_regions = len({row["region"] for row in summary["scores"]}) - 1
    if n_regions < 3:
        limits.append(
            f"{_count(n_regions, 'named region')} only: nothing is shown about where in the brain this holds."
        )
    limits.append("Regions were fixed beforehand; intervals are not corrected for the number of regions and layers.")
    if not any(facts.get("n_repeats") for facts in probe["subjects"].values()):
        limits.append(
            "The scored stories were heard once, so there is no noise ceiling: r cannot be judged against one."
        )
    if run.get("simulated"):
        limits.append("The listeners are simulated: this shows that the method recovers what was planted, not a brain.")
    return limits


def _story_limit(stories: list[str], probe: Mapping[str, Any]) -> str:
    n_trs = probe.get("n_score_trs")
    if len(stories) == 1:
        return (
            f"One held-out story ({stories[0]}, {n_trs} TRs): the intervals are over time within it, and nothing is"
            " shown about generalisation over stories."
        )
    return (
        f"{len(stories)} held-out stories ({', '.join(stories)}; {n_trs} TRs together), taken as fixed: blocks of time"
        " are drawn within each, so the intervals say little about other stories."
    )


def _single_words(row: Mapping[str, Any]) -> str:
    known = [stage for stage in ("after", "before") if row.get(stage, {}).get("value") is not None]
    if not known:
        return "is not defined"
    stage, score = known[0], row[known[0]]
    if score["low"] is None:
        return f"is {score['value']:.3f} {_when(stage)}"
    return f"is {score['value']:.3f} {_when(stage)} (95 % interval {score['low']:.3f} to {score['high']:.3f})"


def _when(stage: str) -> str:
    return "after tuning" if stage == "after" else "before tuning"


def _place(region: str) -> str:
    words = region.replace("_", " ")
    return words if words.endswith("voxels") else f"{words} voxels"


def _stimulus(summary: Mapping[str, Any]) -> str:
    probe = summary["probe"]
    n_stories = len(probe.get("score_stories", []))
    return f"{probe.get('n_score_trs')} TRs of {_count(n_stories, 'held-out story', 'held-out stories')}"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
