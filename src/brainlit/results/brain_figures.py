"""The pictures of the brain that one subject's probes make: of its cortex, or of its voxels in a volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from brainlit.results.figure_data import voxels_csv
from brainlit.results.map_places import Grid
from brainlit.results.record import ProbeRecord
from brainlit.results.style import Figure

Jobs = list[tuple[str, Callable[[], Figure]]]


def brain_figures(records: Sequence[ProbeRecord], *, simulated: bool = False) -> tuple[Jobs, str]:
    """Name and drawing function of each picture of a subject, and a sentence where there is none.

    Parameters
    ----------
    records : sequence of ProbeRecord
        Of one subject, by epoch: r of the first, of the last, and their difference are drawn.
    """
    first, last = records[0], records[-1]
    after = last.r if last.epoch > first.epoch else None
    if first.vertices is not None:
        return [(f"brain-{first.subject}", lambda: _on_cortex(first, after, simulated=simulated))], ""
    centres_mm = next((one.coordinates_mm for one in records if one.coordinates_mm is not None), None)
    if centres_mm is None:
        return [], f"No map for {first.subject}: nothing says where its voxels lie, on fsaverage5 or in a volume."
    grid = Grid.of(centres_mm)
    if grid is None:
        return [], f"No map for {first.subject}: the centres of its voxels lie on no regular grid."
    from brainlit.results.volume_map import Volume, volume_figure

    volume = Volume(grid, str(last.facts.get("space") or ""))
    return [
        (
            f"brain-{first.subject}-{kind}",
            lambda kind=kind: volume_figure(kind, volume, first.r, after, first.subject, simulated=simulated),  # type: ignore[misc]
        )
        for kind in volume.kinds
    ], ""


def _on_cortex(first: ProbeRecord, after: np.ndarray | None, *, simulated: bool) -> Figure:
    from brainlit.results.brainmap import brain_figure

    vertices = np.asarray(first.vertices, dtype=np.int64)
    drawn = brain_figure(vertices, first.r, after, first.subject, simulated=simulated)
    numbers = {"vertex": vertices, "r_before": first.r} | ({"r_after": after} if after is not None else {})
    return replace(drawn, csv=voxels_csv(numbers))
