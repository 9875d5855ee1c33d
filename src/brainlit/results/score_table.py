"""The numbers of one probe of one subject, by region, layer and metric, and the formulas behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from brainlit.results.region_scores import BoolArray, FloatArray, IntArray, Score, region_replicates

if TYPE_CHECKING:
    from brainlit.encoding.probe import ProbeResult

BANDS = ("backbone", "low_level", "semantic")
MIN_CEILING = 0.1
ALL_VOXELS = "all voxels"

FORMULAS = {
    "r_backbone": "mean over voxels of Pearson r between measured and predicted response on the scored rows;"
    " ridge on the backbone's layer alone",
    "r_low_level": "as alignment, low-level features alone",
    "r_semantic": "as alignment, semantic features alone",
    "r_joint": "as alignment, banded ridge on all bands together",
    "ceiling": "mean over voxels of the noise-ceiling correlation, from the repeats of the scored stories;"
    " used for dividing only",
    "r_over_ceiling": "sum of r over sum of ceiling (voxels with a ceiling); never clipped; the ceiling is held fixed"
    f" in the interval; left out where the mean ceiling is below {MIN_CEILING}",
    "r2_backbone": "mean over voxels of 1 - SSE / SST on the scored rows, backbone alone",
    "low_level_share": "(R2_B + R2_L - R2_BL) / R2_B, each R2 summed over the voxels; left out where the 95 %"
    " interval of R2_B reaches 0",
    "impact_residual_lag0": "100 (r_B - r_B|L) / r_B, r summed over voxels; low-level features regressed out of the"
    " backbone's features at lag 0 (as published)",
    "impact_residual_lags": "as before, regressed out over lags -k..k",
    "impact_banded_ridge": "as before, r_B|L from the backbone's part of a banded ridge with the low-level band",
    "partition": "unique and shared R2 from the seven nested models, mean over voxels; the parts add up to R2 of the"
    " joint model and may be negative on held-out data",
}


@dataclass(frozen=True)
class ScoreRow:
    """One number: what, where, of which layer, over how many voxels."""

    region: str
    layer: int
    metric: str
    n_voxels: int
    score: Score


class ScoreTable:
    """The rows of one probe of one subject, in a fixed order.

    Parameters
    ----------
    rows : iterable of ScoreRow
        At most one row per (region, layer, metric).
    """

    def __init__(self, rows: Iterable[ScoreRow]) -> None:
        self.rows = tuple(rows)
        self._index = {(row.region, row.layer, row.metric): row for row in self.rows}
        if len(self._index) != len(self.rows):
            raise ValueError("two rows of a score table share region, layer and metric; give each its own name.")

    def get(self, region: str, layer: int, metric: str) -> ScoreRow | None:
        """The row, or None."""
        return self._index.get((region, layer, metric))

    @property
    def keys(self) -> tuple[tuple[str, int, str], ...]:
        """(region, layer, metric) of each row."""
        return tuple(self._index)


def regions_with_all(regions: Mapping[str, BoolArray], used: BoolArray) -> dict[str, BoolArray]:
    """The named regions without dropped voxels, headed by all used voxels; empty ones are left out."""
    named = {ALL_VOXELS: used, **{name: mask & used for name, mask in regions.items()}}
    return {name: mask for name, mask in named.items() if mask.any()}


def probe_rows(
    result: ProbeResult, regions: Mapping[str, BoolArray], layer: int, blocks: tuple[IntArray, FloatArray]
) -> list[ScoreRow]:
    """All numbers of the partition layer.

    Parameters
    ----------
    regions : mapping of name to bool array of shape (n_voxels,)
        From `regions_with_all`.
    layer : int
        Which layer the backbone band held (0 is the input of the first layer).
    blocks : result of `region_scores.block_weights` for result.score_groups
    """
    replicates = {
        model: region_replicates(result.observed, predicted, result.score_groups, regions, blocks)
        for model, predicted in result.predictions.items()
    }
    rows = []
    for region, mask in regions.items():
        r = _region_scores(result.r_by_model, replicates, region, mask, which=0)
        r2 = _region_scores(result.r2_by_model, replicates, region, mask, which=1)
        scores = {f"r_{_short(model, r)}": score for model, score in r.items()}
        scores |= {f"r2_{_short(model, r2)}": score for model, score in r2.items()}
        scores |= {f"partition_{part}": score for part, score in partition_scores(r2).items()}
        scores |= _low_level(result, r, r2, mask) | _ceiling(result, r, mask)
        rows += [ScoreRow(region, layer, name, int(mask.sum()), score) for name, score in scores.items()]
    return rows


def curve_rows(
    result: ProbeResult, regions: Mapping[str, BoolArray], layer: int, blocks: tuple[IntArray, FloatArray]
) -> list[ScoreRow]:
    """The alignment of one layer alone, for the layer curve."""
    replicates = region_replicates(
        result.observed, result.predictions["backbone"], result.score_groups, regions, blocks
    )
    r = result.r_by_model["backbone"]
    return [
        ScoreRow(region, layer, "r_backbone", int(mask.sum()), Score(float(r[mask].mean()), replicates[region][0]))
        for region, mask in regions.items()
    ]


def partition_scores(r2: Mapping[str, Score]) -> dict[str, Score]:
    """Unique and shared parts of R2 by inclusion and exclusion; they add up to the joint model's R2.

    Parameters
    ----------
    r2 : mapping of model ('backbone', 'backbone+low_level', …) to Score

    Returns
    -------
    mapping of part to Score: 'backbone' (unique), 'backbone&low_level' (shared by two), …; empty with one band.
    """
    bands = [band for band in BANDS if band in r2]
    if len(bands) < 2 or any(_model(subset) not in r2 for subset in _subsets(bands)):
        return {}
    parts = {}
    for part in _subsets(bands):
        rest = [band for band in bands if band not in part]
        total = r2[_model(bands)] - r2[_model(bands)]
        for subset in [[], *_subsets(list(part))]:
            if not subset and not rest:
                continue
            sign = np.subtract if len(subset) % 2 == 0 else np.add
            total = total.combine(r2[_model([*rest, *subset])], sign)
        parts["&".join(part)] = total
    return parts


def _region_scores(
    by_model: Mapping[str, npt.NDArray[np.floating]],
    replicates: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]],
    region: str,
    mask: BoolArray,
    which: int,
) -> dict[str, Score]:
    return {
        model: Score(
            float(np.asarray(values, dtype=np.float64)[mask].mean()),
            replicates[model][region][which] if model in replicates else None,
        )
        for model, values in by_model.items()
    }


def _low_level(
    result: ProbeResult, r: Mapping[str, Score], r2: Mapping[str, Score], mask: BoolArray
) -> dict[str, Score]:
    """Share and impacts, where the backbone explains anything at all."""
    if "backbone+low_level" not in r2 or not _above_zero(r2["backbone"]):
        return {}
    shared = r2["backbone"] + r2["low_level"] - r2["backbone+low_level"]
    scores = {"low_level_share": shared.over(r2["backbone"])}
    r_backbone = np.asarray(result.r_by_model["backbone"], dtype=np.float64)[mask]
    for kind, percent in result.impact.items():
        lost = np.asarray(percent, dtype=np.float64)[mask] * r_backbone
        defined = np.isfinite(lost)
        if defined.any() and r_backbone[defined].sum() > 0:
            scores[f"impact_{kind}"] = Score(float(lost[defined].sum() / r_backbone[defined].sum()))
    return scores


def _ceiling(result: ProbeResult, r: Mapping[str, Score], mask: BoolArray) -> dict[str, Score]:
    if result.ceiling is None:
        return {}
    ceiling = np.asarray(result.ceiling, dtype=np.float64)
    defined = mask & np.isfinite(ceiling)
    if not defined.any():
        return {}
    scores = {"ceiling": Score(float(ceiling[defined].mean()))}
    if scores["ceiling"].value >= MIN_CEILING:
        value = float(np.asarray(result.r_by_model["backbone"], dtype=np.float64)[defined].mean())
        mean, replicates = scores["ceiling"].value, r["backbone"].replicates
        whole = bool((defined == mask).all())
        scores["r_over_ceiling"] = Score(
            value / mean, replicates / mean if replicates is not None and whole else None
        )
    return scores


def _above_zero(score: Score) -> bool:
    interval = score.interval
    return score.value > 0 if interval is None else interval[0] > 0


def _short(model: str, models: Mapping[str, Score]) -> str:
    """'joint' for the model with all bands (where there are several)."""
    largest = max(models, key=lambda name: name.count("+"))
    return "joint" if "+" in largest and model == largest else model


def _model(bands: Iterable[str]) -> str:
    chosen = set(bands)
    return "+".join(band for band in BANDS if band in chosen)


def _subsets(bands: list[str]) -> list[tuple[str, ...]]:
    """Non-empty subsets, small ones first."""
    masks = sorted(range(1, 2 ** len(bands)), key=lambda m: (m.bit_count(), m))
    return [tuple(band for k, band in enumerate(bands) if m >> k & 1) for m in masks]
