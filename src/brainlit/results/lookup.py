"""Find one number in a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALL_SUBJECTS = "all"


def find_score(
    summary: Mapping[str, Any], region: str, metric: str, subject: str = ALL_SUBJECTS, layer: int | None = None
) -> dict[str, Any] | None:
    """One row of the summary's scores (by default at the partition layer, mean over subjects); None if absent."""
    wanted = summary["probe"].get("layer") if layer is None else layer
    for row in summary["scores"]:
        if (row["subject"], row["region"], row["metric"], row["layer"]) == (subject, region, metric, wanted):
            return dict(row)
    return None


def regions_of(summary: Mapping[str, Any], subject: str = ALL_SUBJECTS) -> list[str]:
    """Regions in the order of the scores."""
    return list(dict.fromkeys(row["region"] for row in summary["scores"] if row["subject"] == subject))


def not_tuned_on(summary: Mapping[str, Any]) -> list[str]:
    """Probed subjects who were held out from tuning."""
    return [name for name, facts in summary["probe"]["subjects"].items() if not facts.get("tuned_on", True)]
