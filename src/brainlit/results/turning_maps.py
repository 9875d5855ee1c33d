"""Maps of the cortex that a reader turns, inside the page: fsaverage5 with r before, after and their difference.

Drawn by plotly's meshes, whose script nilearn's package carries: the page needs no network. Every map of a subject has
the one scale, so that a change looks as large as it is beside the r that it changes. The pictures of brainmap.py stay
in the page, for print and for browsers without WebGL.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray
from brainlit.results.brainmap import MAX_DISTANCE_MM, fsaverage5, surface_values
from brainlit.results.record import ProbeRecord
from brainlit.results.style import DIVERGING, NO_NUMBER, SEQUENTIAL

PLOTLY_FILE = "plotly-gl3d-latest.min.js"
HEMISPHERES = ("left", "right")
MM_A_STEP, R_A_STEP, NO_VALUE = 0.01, 1e-4, -32_768
"""Places and values travel as 16-bit integers of these steps; a vertex without a value has the last."""
BETWEEN_MM = 6.0
"""From one inflated hemisphere to the other; as the files have them, they overlap."""
_GROUP = "mean of subjects"


def turning_maps(subjects: Mapping[str, Sequence[ProbeRecord]], *, simulated: bool = False) -> str | None:
    """HTML of the maps: what is chosen, the mesh, the scale, the data and the scripts.

    Parameters
    ----------
    subjects : mapping of subject to its records of the headline's layer, by epoch
        The first is before, the last after; one record has no after.
    simulated : bool
        Whether the listeners are; the description of the maps then says so.

    Returns
    -------
    str or None
        None where no subject has places on fsaverage5, or nilearn carries no plotly.
    """
    from brainlit.results.pages import render_part

    placed = {name: records for name, records in subjects.items() if records and records[0].vertices is not None}
    script = plotly_file()
    if not placed or script is None:
        return None
    data = map_data(placed)
    maps = [f"{one['subject']}, {one['name']}: mean {one['mean']:.3f}" for one in data["maps"]]
    return render_part(
        "turning_maps.html.j2",
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/"),
        plotly=script.read_text(encoding="utf-8"),
        names=list(dict.fromkeys(one["subject"] for one in data["maps"])),
        stages=list(dict.fromkeys(one["name"] for one in data["maps"])),
        alt=f"{'Simulated listeners. ' if simulated else ''}Cortical maps of alignment. {'; '.join(maps)}.",
        max_distance_mm=MAX_DISTANCE_MM,
    )


def map_data(subjects: Mapping[str, Sequence[ProbeRecord]]) -> dict[str, Any]:
    """What the script draws, as plain JSON.

    Returns
    -------
    dict
        mesh (of each hemisphere its places, faces and folds), colours, top (end of the scale, r) and maps: of each
        subject, and of their mean where there are several, the values of each stage and, in the mean, how many
        subjects each vertex has; region_of says which of a subject's region_sets (lists of places in regions) a vertex
        has. Arrays are base64 of little-endian integers.
    """
    regions = sorted({name for records in subjects.values() for name in records[0].regions if name != "all voxels"})
    both = {name: _on_surface(records, regions) for name, records in subjects.items()}
    shown, named = {name: one for name, (one, _) in both.items()}, {name: two for name, (_, two) in both.items()}
    stages = ["before", "after", "difference"] if all("after" in one for one in shown.values()) else ["before"]
    everybody = {stage: np.stack([one[stage] for one in shown.values()]) for stage in stages}
    counts = {stage: np.isfinite(values).sum(axis=0) for stage, values in everybody.items()}
    maps = [(name, stage, shown[name][stage]) for name in shown for stage in stages]
    if len(shown) > 1:
        with np.errstate(invalid="ignore"):  # 0 / 0 where nobody has a value
            means = [np.nansum(everybody[stage], axis=0) / counts[stage] for stage in stages]
        maps = [(_GROUP, stage, mean) for stage, mean in zip(stages, means, strict=True)] + maps
    top = max(float(np.nanquantile(np.abs(row), 0.99)) for values in everybody.values() for row in values)
    return {
        "mesh": {side: _mesh(side) for side in HEMISPHERES},
        "colours": {"r": list(SEQUENTIAL), "difference": list(DIVERGING), "none": NO_NUMBER},
        "top": round(top, 4),
        "step": R_A_STEP,
        "place_step_mm": MM_A_STEP,
        "none": NO_VALUE,
        "regions": regions,
        "region_sets": {name: sets for name, (sets, _) in named.items()},
        "region_of": {name: _packed(which, "<u2") for name, (_, which) in named.items()},
        "maps": [
            {
                "subject": name,
                "name": stage,
                "mean": round(float(np.nanmean(values)), 4),
                "values": _packed(np.where(np.isfinite(values), np.round(values / R_A_STEP), NO_VALUE), "<i2"),
                **({"counts": _packed(counts[stage], "<u2")} if name == _GROUP else {}),
            }
            for name, stage, values in maps
        ],
    }


def plotly_file() -> Path | None:
    """The script in nilearn's package, which is not imported for it; None where this nilearn has none."""
    spec = find_spec("nilearn")
    for folder in spec.submodule_search_locations or [] if spec is not None else []:
        for place in ("_assets/js", "plotting/data/js"):  # since nilearn 0.14, and before
            if (path := Path(folder) / place / PLOTLY_FILE).is_file():
                return path
    return None


def _on_surface(
    records: Sequence[ProbeRecord], regions: Sequence[str]
) -> tuple[dict[str, FloatArray], tuple[list[list[int]], IntArray]]:
    """Values by stage over the vertices of both hemispheres; the sets of regions that there are, and each vertex's."""
    first, last = records[0], records[-1]
    vertices = np.asarray(first.vertices, dtype=np.int64)
    r = [first.r] + ([last.r, last.r - first.r] if last.epoch > first.epoch else [])
    nowhere = np.zeros(len(vertices), dtype=bool)
    masks = [np.asarray(first.regions.get(name, nowhere), dtype=np.float64) for name in regions]
    stacked = np.stack([*r, *masks])
    both = np.concatenate([surface_values(side, vertices, stacked) for side in HEMISPHERES], axis=1)
    shown = dict(zip(("before", "after", "difference"), both[: len(r)], strict=False))
    return shown, _sets(both[len(r) :] > 0)


def _sets(inside: BoolArray) -> tuple[list[list[int]], IntArray]:
    """The different columns of (n_regions, n_vertices), as places in regions, and which of them each vertex has."""
    packed = [column.tobytes() for column in np.packbits(inside, axis=0).T]  # sorted as the columns are
    first = {column: k for k, column in reversed(list(enumerate(packed)))}
    order = {column: k for k, column in enumerate(sorted(first))}
    sets = [np.flatnonzero(inside[:, first[column]]).tolist() for column in order]
    return sets, np.array([order[column] for column in packed])


def _mesh(side: str) -> dict[str, str]:
    half = fsaverage5(side)
    places = half.shape_mm.copy()
    away = places[:, 0].max() + BETWEEN_MM / 2 if side == "left" else places[:, 0].min() - BETWEEN_MM / 2
    places[:, 0] -= away
    return {
        "places": _packed(np.round(places / MM_A_STEP), "<i2"),
        "faces": _packed(half.faces, "<u2"),
        "folds": _packed(half.depth > 0, "<u1"),
    }


def _packed(values: Any, kind: str) -> str:
    """Integers as base64; numbers that the kind cannot hold are cut at its ends."""
    ends = np.iinfo(np.dtype(kind))
    cut = np.clip(np.asarray(values, dtype=np.float64), ends.min, ends.max)
    return base64.b64encode(np.ascontiguousarray(cut.astype(kind)).tobytes()).decode("ascii")
