"""Names and formulas of numbers of bands that somebody chose, beside those of the bands of any probe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brainlit.encoding.config import BANDS
from brainlit.encoding.partition import order_bands, part_name, subsets
from brainlit.results.scores import FORMULAS, LABELS, TUNED_SOUND
from brainlit.results.style import band_label, part_label


def bands_of(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """The bands that the run's numbers are about, in their order."""
    return bands_among(row["metric"] for row in summary["scores"])


def bands_among(metrics: Iterable[str]) -> tuple[str, ...]:
    """The bands that numbers are about, by the names of the parts; those of any probe where nobody chose others.

    >>> bands_among(["r_backbone", "partition_backbone", "partition_backbone&context"])
    ('backbone', 'context')
    """
    parts = {metric.removeprefix("partition_") for metric in metrics if metric.startswith("partition_")}
    found = {band for part in parts if not part.endswith(TUNED_SOUND) for band in part.split("&")}
    return BANDS if found <= set(BANDS) else order_bands(found)


def formulas(bands: Sequence[str]) -> dict[str, str]:
    """FORMULAS, with those of bands of other names."""
    own = [band for band in bands if band not in BANDS]
    if not own:
        return FORMULAS
    more = {f"r_{band}": f"as alignment, {band_label(band)} features alone" for band in own}
    more[", ".join(f"r2_{band}" for band in own)] = "as r2_backbone, of these bands alone"
    n_models = 2 ** len(bands) - 1
    return FORMULAS | more | {"partition": FORMULAS["partition"].replace("seven nested", f"{n_models} nested")}


def labels(bands: Sequence[str]) -> dict[str, str]:
    """LABELS, with those of the bands' own numbers in their places."""
    of_bands = {f"split_{band}": f"split: {band_label(band)}" for band in bands}
    of_bands |= {f"partition_{part}": f"part: {part_label(part)}" for part in map(part_name, subsets(bands))}
    found: dict[str, str] = {}
    for metric, label in LABELS.items():
        found |= of_bands if metric.startswith("split_") else {}
        found.setdefault(metric, label)
    return found
