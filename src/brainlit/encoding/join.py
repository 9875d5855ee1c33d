"""One result out of several: processes that each probed a share of the voxels put their parts together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainlit.encoding.edges import alpha_edges, edge_warnings
from brainlit.encoding.groups import FloatArray
from brainlit.encoding.result import ProbeResult

_PER_VOXEL = ("r", "r2", "observed", "used")
_TABLES = (
    *("r_by_model", "r2_by_model", "split", "partition", "impact", "r_rest", "predictions", "rest_predictions"),
    *("gamma_ranking", "alpha_index", "sub_split", "sub_unique"),
)
_OF_PARTS = ("alpha_at_low_edge", "alpha_at_high_edge", "warnings")
"""What meta says about a part's voxels; made anew for all of them."""


def join_results(parts: Sequence[ProbeResult]) -> ProbeResult:
    """Concatenate results along voxels: what one probe of all these voxels gives.

    Parameters
    ----------
    parts : sequence of ProbeResult
        Of the same features, rows and settings, in the order of the voxels.

    Raises
    ------
    ValueError
        If there is no part, or parts differ in anything but their voxels.
    """
    if not parts:
        raise ValueError("no results to join; give at least one.")
    first = parts[0]
    for part in parts[1:]:
        _check_alike(first, part)
    tables: dict[str, Any] = {name: _join_table([getattr(part, name) for part in parts]) for name in _TABLES}
    at_edge, low, high = alpha_edges(tables["alpha_index"], len(first.meta["alphas"]))
    lasting = [text for text in first.meta["warnings"] if text not in _edge_texts(first)]
    meta = {**first.meta, "alpha_at_low_edge": low, "alpha_at_high_edge": high}
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in _PER_VOXEL
    }
    return replace(
        first,
        **arrays,
        **tables,
        ceiling=_join_ceilings(parts),
        alpha_at_edge=at_edge,
        n_dropped=sum(part.n_dropped for part in parts),
        meta={**meta, "warnings": [*lasting, *edge_warnings(low, high, first.meta["alphas"])]},
    )


def _join_table(tables: Sequence[Any]) -> dict[str, Any]:
    return {key: np.concatenate([table[key] for table in tables], axis=-1) for key in tables[0]}


def _join_ceilings(parts: Sequence[ProbeResult]) -> FloatArray | None:
    if all(part.ceiling is None for part in parts):
        return None
    return np.concatenate([np.full(p.r.size, np.nan) if p.ceiling is None else p.ceiling for p in parts])


def _edge_texts(part: ProbeResult) -> list[str]:
    meta = part.meta
    return edge_warnings(meta["alpha_at_low_edge"], meta["alpha_at_high_edge"], meta["alphas"])


def _lasting_meta(part: ProbeResult) -> dict[str, Any]:
    return {key: value for key, value in part.meta.items() if key not in _OF_PARTS}


def _check_alike(first: ProbeResult, part: ProbeResult) -> None:
    ours, theirs = _lasting_meta(first), _lasting_meta(part)
    different = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    different += [name for name in _TABLES if list(getattr(first, name)) != list(getattr(part, name))]
    if not np.array_equal(first.score_groups, part.score_groups):
        different.append("score_groups")
    if different:
        raise ValueError(
            f"the parts of a probe differ in {', '.join(different)}; join only results of the same features, rows and"
            " settings."
        )
