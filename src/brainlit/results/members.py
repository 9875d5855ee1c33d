"""How reports name the people in a subject that is a group, and how far these agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainlit.results.scores import ALL_VOXELS


def members_said(facts: Mapping[str, Any]) -> str:
    """How many people the scored rows of a group are the mean of, from the facts of its probe.

    >>> members_said({"members": {"frog": ["p1", "p2", "p3"], "bear": ["p1", "p2"]}})
    '2 to 3 people'
    """
    counts = [len(names) for names in facts["members"].values()]
    fewest, most = min(counts), max(counts)
    return f"{most} people" if fewest == most else f"{fewest} to {most} people"


def subject_said(name: str, facts: Mapping[str, Any], *more: str) -> str:
    """A subject with what else there is to say; of a group first of all how many people it is.

    >>> subject_said("group", {"members": {"frog": ["p1", "p2"]}}, "not tuned on"), subject_said("p1", {})
    ('group (mean of 2 people, not tuned on)', 'p1')
    """
    said = [*([f"mean of {members_said(facts)}"] if facts.get("members") else []), *more]
    return f"{name} ({', '.join(said)})" if said else name


def agreement_said(subjects: Mapping[str, Mapping[str, Any]], region: str) -> str | None:
    """How far the members of groups agree in a region on the scored rows; None where nobody is a group."""
    said, where = [], region if region == ALL_VOXELS else f"the voxels of {region}"
    for name, facts in subjects.items():
        found = (facts.get("between_members") or {}).get(region)
        if found:
            said.append(
                f"{name}: r of each with the mean of the others {found['mean_r']:.3f} ({found['least_r']:.3f} to"
                f" {found['most_r']:.3f} over {found['n_members']} people), mean over {where}"
            )
    return "; ".join(said) or None
