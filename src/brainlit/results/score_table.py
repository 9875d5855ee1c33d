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

MIN_CEILING = 0.1
MIN_SHARE_WITH_CEILING = 0.75
ALL_VOXELS = "all voxels"
KINDS = ("semantic", "auditory", "null")

FORMULAS = {
    "r_backbone": "mean over voxels of Pearson r between measured and predicted response on the scored rows;"
    " ridge on the backbone's layer alone",
    "r_low_level": "as alignment, low-level features alone",
    "r_semantic": "as alignment, semantic features alone",
    "r_joint": "as alignment, banded ridge on all bands together",
    "ceiling": "mean noise-ceiling correlation of the voxels that have one (positive signal power), from the repeats"
    f" of the scored stories; left out where fewer than {MIN_SHARE_WITH_CEILING:.0%} of the voxels have one",
    "r_over_ceiling": "sum of r over sum of ceiling, over the voxels with a ceiling; never clipped; the ceiling is"
    f" held fixed in the interval; left out where the mean ceiling is below {MIN_CEILING}",
    "r2_backbone": "mean over voxels of 1 - SSE / SST on the scored rows, backbone alone",
    "low_level_share": "(R2_B + R2_L - R2_BL) / R2_B, each R2 summed over the voxels; left out where the 95 %"
    " interval of R2_B reaches 0",
    "impact_residual_lag0": "100 (r_B - r_B|L) / r_B, each r a mean over voxels; low-level features regressed out of"
    " the backbone's features at lag 0 (as published)",
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
    """The named regions without dropped voxels; first all used voxels, then kinds, then places. No empty ones."""
    order = [*(name for name in KINDS if name in regions), *(name for name in regions if name not in KINDS)]
    named = {ALL_VOXELS: used, **{name: regions[name] & used for name in order}}
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
    with_ceiling = _with_ceiling(result, regions)
    drawn = region_replicates(
        result.observed, result.predictions["backbone"], result.score_groups, with_ceiling, blocks
    )
    rows = []
    for region, mask in regions.items():
        r = _region_scores(result.r_by_model, replicates, region, mask, which=0)
        r2 = _region_scores(result.r2_by_model, replicates, region, mask, which=1)
        scores = {f"r_{_short(model, r)}": score for model, score in r.items()}
        scores |= {f"r2_{_short(model, r2)}": score for model, score in r2.items()}
        scores |= {f"partition_{part}": score for part, score in partition_scores(r2).items()}
        scores |= _low_level(result, r2, mask)
        if region in with_ceiling:
            scores |= _ceiling(result, with_ceiling[region], drawn[region][0])
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
    from brainlit.encoding.partition import BANDS, model_name, partition_variance, subsets

    bands = [band for band in BANDS if band in r2]
    models = [model_name(members) for members in subsets(bands)] if len(bands) > 1 else []
    if not models or any(model not in r2 for model in models):
        return {}
    values = partition_variance({model: np.array([r2[model].value]) for model in models}, bands)
    drawn = {model: draws for model in models if (draws := r2[model].replicates) is not None}
    replicates = partition_variance(drawn, bands) if len(drawn) == len(models) else {}
    return {part: Score(float(value[0]), replicates.get(part)) for part, value in values.items()}


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


def _low_level(result: ProbeResult, r2: Mapping[str, Score], mask: BoolArray) -> dict[str, Score]:
    """Share and impacts, where the backbone explains anything at all."""
    if "backbone+low_level" not in r2 or not _above_zero(r2["backbone"]):
        return {}
    shared = r2["backbone"] + r2["low_level"] - r2["backbone+low_level"]
    scores = {"low_level_share": shared.over(r2["backbone"])}
    r_backbone = float(np.asarray(result.r_by_model["backbone"], dtype=np.float64)[mask].mean())
    for kind, rest in result.r_rest.items():
        left = float(np.asarray(rest, dtype=np.float64)[mask].mean())
        if np.isfinite(left) and r_backbone > 0:
            scores[f"impact_{kind}"] = Score(100 * (r_backbone - left) / r_backbone)
    return scores


def _with_ceiling(result: ProbeResult, regions: Mapping[str, BoolArray]) -> dict[str, BoolArray]:
    """The voxels with a ceiling of each region, where they are enough of it."""
    if result.ceiling is None:
        return {}
    known = np.isfinite(np.asarray(result.ceiling, dtype=np.float64))
    enough = {name: (mask & known).sum() >= MIN_SHARE_WITH_CEILING * mask.sum() for name, mask in regions.items()}
    return {name: mask & known for name, mask in regions.items() if enough[name]}


def _ceiling(result: ProbeResult, defined: BoolArray, r_drawn: FloatArray) -> dict[str, Score]:
    """Ceiling and normalised alignment over the voxels that have a ceiling; r_drawn are replicates of their mean r."""
    mean = float(np.asarray(result.ceiling, dtype=np.float64)[defined].mean())
    scores = {"ceiling": Score(mean)}
    if mean >= MIN_CEILING:
        r = float(np.asarray(result.r_by_model["backbone"], dtype=np.float64)[defined].mean())
        scores["r_over_ceiling"] = Score(r / mean, r_drawn / mean)
    return scores


def _above_zero(score: Score) -> bool:
    interval = score.interval
    return score.value > 0 if interval is None else interval[0] > 0


def _short(model: str, models: Mapping[str, Score]) -> str:
    """'joint' for the model with all bands (where there are several)."""
    largest = max(models, key=lambda name: name.count("+"))
    return "joint" if "+" in largest and model == largest else model
