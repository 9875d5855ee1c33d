"""The numbers of one probe of one subject, by region, layer and metric, and the formulas behind them.

A new number per voxel takes a field of `ProbeResult`, the line of `encoding.probe` that fills it, and here an entry in
VOXEL_MEANS, FORMULAS and LABELS: then it stands in every table, the printed one and the page.

Their replicates come from `encoding.bootstrap`: a region's score is the mean over its voxels, and blocks of some twenty
TRs are drawn within each story. Two probes of the same stories share the draws, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray, group_slices
from brainlit.encoding.bootstrap import Blocks, region_replicates, voxel_correlations
from brainlit.encoding.ceiling import MIN_SIGNAL, region_ratio
from brainlit.encoding.partition import model_name, partition_variance, semipartial, subsets
from brainlit.encoding.statistics import (
    LEVEL,
    MOST_LOST,
    Score,
    lost_between_blocks,
    small_sample_factor,
)
from brainlit.results.style import BAND_COLOURS, BAND_LABELS, part_label

if TYPE_CHECKING:
    from brainlit.encoding.result import ProbeResult


MIN_SHARE_WITH_CEILING = 0.75
"""Of a region's voxels, where ceilings are numbers without the repeats that they come from."""
ALL_VOXELS = "all voxels"
VOXELS_AT_ONCE = 256
MIN_MORE_BLOCKS = 3
"""With one or two degrees of freedom an interval is 13 or 4 times the standard error, and leaves [-1, 1]."""
KINDS = ("semantic", "auditory", "null")

TUNED_SOUND = "_tuned_sound"
TUNED_SOUND_METRICS = ("low_level_share", "partition_backbone", "r_low_level", "impact_banded_ridge")
"""Numbers that `probe.tuned_sound` reports a second time, under names with the suffix; and the terms of ratios."""
WAYS = ("residual_lag0", "residual_lags", "banded_ridge")
"""Of taking low-level features out of the backbone's alignment."""

FOLD_MEAN = "r_backbone_mean_of_folds"
"""Beside the alignment of all folds together."""

UNSEEN_WORDS, SEEN_WORDS = "r_backbone_unseen_words", "r_backbone_seen_words"
UNFITTED_WORDS, FITTED_WORDS = "r_backbone_unfitted_words", "r_backbone_fitted_words"
"""Alignment on the rows that rest on words which tuning (or the fit of the encoding models) never heard, or heard."""

FORMULAS = {
    "r_backbone": "mean over voxels of Pearson r between measured and predicted response on the scored rows;"
    " ridge on the backbone's layer alone",
    FOLD_MEAN: "as alignment, in each fold on its own, and then the mean over folds; alignment itself is of the rows of"
    " all folds together",
    UNSEEN_WORDS: "as alignment, on the scored rows where words that are in no tuning story (nor with another regular"
    " ending) have at least 80 % of the content words' weight: the absolute haemodynamic response at the row, from each"
    " word's middle; responses and predictions centred within story over these rows; interval by leaving out blocks",
    SEEN_WORDS: "the same where words that tuning heard have at least 90 % of the weight",
    UNFITTED_WORDS: "as of unseen words, for words that are in no story on which the encoding models were fitted",
    FITTED_WORDS: "as of seen words, for words of these stories",
    "r_low_level": "as alignment, low-level features alone",
    "r_semantic": "as alignment, semantic features alone",
    "r_joint": "as alignment, banded ridge on all bands together",
    "r_together": "correlation of measured and predicted responses over all scored rows and voxels of the region"
    " together (each voxel without its mean per story), backbone alone: sum y p / sqrt(sum y^2 sum p^2)",
    "ceiling": "highest r_together that any model could reach: square root of the sum of squared signal over that"
    " of squared responses, from the repeats of the scored stories; of stories heard once the signal per row is taken"
    f" to be that of the others; left out where the signal is not {MIN_SIGNAL:g} standard errors above 0",
    "r_over_ceiling": "r_together over ceiling, less the bias that the ceiling's noise adds; never clipped; the"
    " interval holds that noise too",
    "r2_backbone": "mean over voxels of 1 - SSE / SST on the scored rows, backbone alone",
    "low_level_share": "(R2_B + R2_L - R2_BL) / R2_B, each R2 summed over the voxels, and of several subjects averaged"
    " over all of them before the division; left out where the 95 % interval of R2_B reaches 0",
    "impact_residual_lag0": "100 (r_B - r_B|L) / r_B, each r a mean over voxels, and of several subjects over all of"
    " them before the division; low-level features regressed out of the backbone's features at lag 0 (as published);"
    " left out where r_B is not above 0 or the 95 % interval of R2_B reaches 0",
    "impact_residual_lags": "as before, regressed out over lags -k..k; r_B|L with what the residual predicts beyond"
    " what low-level features predict (its prediction minus the nearest multiple of theirs)",
    **{
        f"{metric}{TUNED_SOUND}": f"as {metric}; the low-level band also holds what a ridge from low-level features to"
        " the same voxels, fitted on the tuning stories, predicts: what tuning could have learned from sound alone"
        for metric in TUNED_SOUND_METRICS
    },
    "impact_banded_ridge": "as before, r_B|L with what a banded ridge of backbone and low-level features predicts"
    " beyond low-level features alone (its prediction minus the nearest multiple of theirs)",
    "r2_low_level, r2_semantic, r2_joint": "as r2_backbone, of the other models",
    "r2_shared_low_level": "R2_B + R2_L - R2_BL, each a mean over voxels: what low-level features explain too",
    "r_rest": "r_B|L of the impacts: the alignment that is left without low-level features, mean over voxels",
    "split": "product measure: sum over rows of p_b (2 y - p) over that of y^2, p_b being the band's part of the joint"
    " prediction p; mean over voxels; adds up to R2 of the joint model; no interval",
    "sub_split": "as split, of a joint model in which bands are cut into sub-bands",
    "sub_unique": "R2 of that joint model minus R2 of the same without the sub-band, mean over voxels; no interval",
    "partition": "unique and shared R2 from the seven nested models, mean over voxels; the parts add up to R2 of the"
    " joint model and may be negative on held-out data",
}

LABELS = {
    "r_backbone": "r",
    FOLD_MEAN: "r, mean of folds",
    UNSEEN_WORDS: "r, words that tuning never heard",
    SEEN_WORDS: "r, words that it heard",
    UNFITTED_WORDS: "r, words that were never fitted",
    FITTED_WORDS: "r, words that were fitted",
    "r_together": "r of all voxels together",
    "ceiling": "ceiling",
    "r_over_ceiling": "r / ceiling",
    "r2_backbone": "R2",
    "r2_joint": "R2 of all bands",
    **{f"split_{band}": f"split: {label}" for band, label in BAND_LABELS.items()},
    **{f"partition_{part}": f"part: {part_label(part)}" for part in BAND_COLOURS},
    "low_level_share": "low-level share",
    "impact_residual_lag0": "impact % (residual, lag 0)",
    "impact_residual_lags": "impact % (residual, lags)",
    "impact_banded_ridge": "impact % (banded ridge)",
    f"low_level_share{TUNED_SOUND}": "low-level share, with the sound of the tuning stories",
    f"partition_backbone{TUNED_SOUND}": "part: speech model only, with that sound",
    f"impact_banded_ridge{TUNED_SOUND}": "impact % (banded ridge), with that sound",
}
"""What tables to print and pages show of a layer, and what they call it; in the order of the printed table."""


@dataclass(frozen=True)
class Ratio:
    """A number that is divided: part / whole, or 100 (1 - part / whole) of an impact.

    Parameters
    ----------
    part, whole : str
        Metrics that have a value in every subject.
    explained : str
        The R2 whose interval must lie above 0.
    is_loss : bool
        Whether the number is what the part lacks, in percent.
    """

    part: str
    whole: str
    explained: str = "r2_backbone"
    is_loss: bool = False

    @property
    def terms(self) -> tuple[str, ...]:
        """All metrics that it takes."""
        return tuple(dict.fromkeys((self.part, self.whole, self.explained)))

    def said(self, quotient: Any) -> Any:
        """The number as it is reported, of part / whole."""
        return 100 * (1 - quotient) if self.is_loss else quotient


RATIOS: Mapping[str, Ratio] = {
    f"{metric}{suffix}": replace(ratio, part=f"{ratio.part}{suffix}")
    for suffix in ("", TUNED_SOUND)
    for metric, ratio in {
        "low_level_share": Ratio("r2_shared_low_level", "r2_backbone"),
        **{f"impact_{way}": Ratio(f"r_rest_{way}", "r_backbone", is_loss=True) for way in WAYS},
    }.items()
}
VOXEL_MEANS = ("split", "sub_split", "sub_unique")
"""Tables of a ProbeResult whose columns become numbers by the mean over a region's voxels, without an interval."""


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

    Attributes
    ----------
    n_voxels : dict of region to int
        Of the region's first row.
    """

    def __init__(self, rows: Iterable[ScoreRow]) -> None:
        self.rows = tuple(rows)
        self._index = {(row.region, row.layer, row.metric): row for row in self.rows}
        if len(self._index) != len(self.rows):
            raise ValueError("two rows of a score table share region, layer and metric; give each its own name.")
        self.n_voxels = {row.region: row.n_voxels for row in reversed(self.rows)}

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
    result: ProbeResult,
    regions: Mapping[str, BoolArray],
    layer: int,
    blocks: Blocks,
) -> list[ScoreRow]:
    """All numbers of one layer that its bands allow.

    Parameters
    ----------
    regions : mapping of name to bool array of shape (n_voxels,)
        From `regions_with_all`.
    layer : int
        Which layer the backbone band held (0 is the input of the first layer).
    blocks : result of `region_scores.block_weights` for result.score_groups
    """
    drawn = {model: _drawn(result, predicted, regions, blocks) for model, predicted in result.predictions.items()}
    rests = rest_scores(result, regions, blocks)
    by_fold = fold_mean_scores(result, regions, blocks)
    stretch = _stretch(result, blocks)
    rows = []
    for region, mask in regions.items():
        of_r, of_r2 = ({model: by_region[region][k] for model, by_region in drawn.items()} for k in (0, 1))
        r = _region_scores(result.r_by_model, of_r, mask)
        r2 = _region_scores(result.r2_by_model, of_r2, mask)
        scores = {f"r_{_short(model, r)}": score for model, score in r.items()}
        scores |= {FOLD_MEAN: by_fold[region]} if by_fold else {}
        scores |= {f"r2_{_short(model, r2)}": score for model, score in r2.items()}
        scores |= {f"partition_{part}": score for part, score in partition_scores(r2).items()}
        scores |= _voxel_means(result, mask)
        scores |= _low_level(r, r2, {way: by_region[region] for way, by_region in rests.items()}, stretch)
        rows += [ScoreRow(region, layer, name, int(mask.sum()), score) for name, score in scores.items()]
    rows += _ceiling_rows(result, regions, layer, blocks)
    return [replace(row, score=row.score.stretched(stretch)) for row in rows]


def curve_rows(result: ProbeResult, regions: Mapping[str, BoolArray], layer: int, blocks: Blocks) -> list[ScoreRow]:
    """The numbers of a layer of the curve: r and R2 of the backbone, and the parts where it has other bands beside it.

    Parameters are those of `probe_rows`.
    """
    if len(result.r_by_model) > 1:
        return probe_rows(result, regions, layer, blocks)
    drawn = _drawn(result, result.predictions["backbone"], regions, blocks)
    stretch = _stretch(result, blocks)
    tables = {"r_backbone": result.r_by_model, "r2_backbone": result.r2_by_model}
    rows = []
    for region, mask in regions.items():
        for (name, table), replicates in zip(tables.items(), drawn[region], strict=True):
            score = Score(_mean(table["backbone"], mask), replicates).stretched(stretch)
            rows.append(ScoreRow(region, layer, name, int(mask.sum()), score))
    return rows


def fold_mean_scores(result: ProbeResult, regions: Mapping[str, BoolArray], blocks: Blocks) -> dict[str, Score]:
    """Mean over folds of the backbone's mean r in a region, with the draws of all rows; empty without folds."""
    if result.fold_of_group is None:
        return {}
    fold_of_row = result.fold_of_group[result.score_groups]
    once = blocks[0], np.concatenate([np.ones_like(blocks[1][:1]), blocks[1]])  # the first draw is the number itself
    by_fold = []
    for fold in np.unique(fold_of_row):
        rows = fold_of_row == fold
        own_blocks, block_of_row = np.unique(once[0][rows], return_inverse=True)
        given = result.observed[rows], result.predictions["backbone"][rows], result.score_groups[rows]
        by_fold.append(region_replicates(*given, regions, (block_of_row, once[1][:, own_blocks])))
    means = {name: np.mean([found[name][0] for found in by_fold], axis=0) for name in regions}
    return {name: Score(float(mean[0]), mean[1:]) for name, mean in means.items()}


def _stretch(result: ProbeResult, blocks: Blocks) -> float | None:
    """`stretch_of` the backbone's predictions; of folds more, for their fits share rows."""
    given = result.score_groups, blocks, result.observed, result.predictions["backbone"]
    return stretch_of(*given, factor=result.overlap_factor)


def stretch_of(
    groups: IntArray, blocks: Blocks, observed: npt.NDArray[Any], *predicted: npt.NDArray[Any], factor: float = 1.0
) -> float | None:
    """How much too narrow plain percentiles are, by `small_sample_factor` and `lost_between_blocks` of
    `encoding.statistics`: blocks are few, and the borders between them hide something.

    Parameters
    ----------
    groups : int array of shape (n_trs,)
        Story of each scored row.
    blocks : result of `block_weights` for these rows, over time
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Of one or more models; the one whose predictions change most slowly counts.
    factor : float
        What widens them for another reason: `ProbeResult.overlap_factor` of folds.

    Returns
    -------
    float or None
        None where an interval cannot be had: fewer than MIN_MORE_BLOCKS more blocks than stories, or rows that are so
        alike that blocks hide more than MOST_LOST of the variance.
    """
    n_blocks, n_stories = blocks[1].shape[1], len(group_slices(groups))
    if n_blocks < n_stories + MIN_MORE_BLOCKS:
        return None
    lost = max(lost_between_blocks(observed, one, groups, n_blocks) for one in predicted)
    widened = factor * small_sample_factor(n_blocks, LEVEL, n_stories)
    return widened / float(np.sqrt(1.0 - lost)) if lost <= MOST_LOST else None


def partition_scores(r2: Mapping[str, Score]) -> dict[str, Score]:
    """Unique and shared parts of R2 by inclusion and exclusion; they add up to the joint model's R2.

    Parameters
    ----------
    r2 : mapping of model ('backbone', 'backbone+low_level', …) to Score

    Returns
    -------
    mapping of part to Score: 'backbone' (unique), 'backbone&low_level' (shared by two), …; empty with one band.
    """
    bands = [model for model in r2 if "+" not in model]
    models = [model_name(members) for members in subsets(bands)] if len(bands) > 1 else []
    if not models or any(model not in r2 for model in models):
        return {}
    values = partition_variance({model: np.array([r2[model].value]) for model in models}, bands)
    drawn = {model: draws for model in models if (draws := r2[model].replicates) is not None}
    replicates = partition_variance(drawn, bands) if len(drawn) == len(models) else {}
    return {part: Score(float(value[0]), replicates.get(part)) for part, value in values.items()}


def rest_scores(result: ProbeResult, regions: Mapping[str, BoolArray], blocks: Blocks) -> dict[str, dict[str, Score]]:
    """What correlation each way of taking low-level features out leaves, per region, with replicates where kept."""
    predictions, replicates = dict(result.rest_predictions), {}
    if "banded_ridge" in result.r_rest:
        predictions["banded_ridge"] = result.predictions["backbone+low_level"]
    for way, predicted in predictions.items():
        if way == "residual_lag0":
            drawn = _drawn(result, predicted, regions, blocks)
            replicates[way] = {region: r for region, (r, _) in drawn.items()}
        else:
            replicates[way] = _beyond_low_level(result, predicted, regions, blocks)
    one_less = _regression_stretch(result.score_groups, blocks)
    return {
        way: {
            name: Score(_mean(rest, mask), replicates.get(way, {}).get(name)).stretched(
                1.0 if way == "residual_lag0" else one_less
            )
            for name, mask in regions.items()
        }
        for way, rest in result.r_rest.items()
    }


def _regression_stretch(groups: IntArray, blocks: Blocks) -> float:
    """How much wider an interval is with a degree of freedom less, which a regression within the scored rows takes."""
    n_blocks, n_stories = blocks[1].shape[1], len(group_slices(groups))
    if n_blocks < n_stories + MIN_MORE_BLOCKS:
        return 1.0  # too few for an interval
    less, all_of_them = (small_sample_factor(n_blocks, LEVEL, n_stories + taken) for taken in (1, 0))
    return less / all_of_them


def _beyond_low_level(
    result: ProbeResult, predicted: npt.NDArray[Any], regions: Mapping[str, BoolArray], blocks: Blocks
) -> dict[str, FloatArray]:
    """Replicates of a region's mean semipartial correlation; its regression is made anew in each of them."""
    low, observed = result.predictions["low_level"], result.observed
    pairs = (observed, predicted), (observed, low), (predicted, low)
    return _voxelwise(result, pairs, semipartial, regions, blocks)


def _drawn(
    result: ProbeResult, predicted: npt.NDArray[Any], regions: Mapping[str, BoolArray], blocks: Blocks
) -> dict[str, tuple[FloatArray, FloatArray]]:
    return region_replicates(result.observed, predicted, result.score_groups, regions, blocks)


def _voxelwise(
    result: ProbeResult,
    pairs: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    combine: Callable[..., FloatArray],
    regions: Mapping[str, BoolArray],
    blocks: Blocks,
) -> dict[str, FloatArray]:
    """Replicates of a region's mean of combine(r of each pair), which no mean of r gives.

    Pairs are of arrays of shape (n_score_trs, n_voxels); a few hundred voxels are taken at a time.
    """
    inside = np.flatnonzero(np.any([*regions.values(), np.zeros_like(result.used)], axis=0))
    totals = {name: np.zeros(len(blocks[1])) for name in regions}
    for start in range(0, inside.size, VOXELS_AT_ONCE):
        voxels = inside[start : start + VOXELS_AT_ONCE]
        r = (voxel_correlations(a[:, voxels], b[:, voxels], result.score_groups, blocks) for a, b in pairs)
        combined = combine(*r)
        # Sums, divided at the end: a region's voxels may lie in several of the pieces, and a voxel in several regions.
        for name, mask in regions.items():
            totals[name] += combined @ mask[voxels]
    return {name: total / regions[name].sum() for name, total in totals.items()}


def _region_scores(
    by_model: Mapping[str, npt.NDArray[np.floating]], replicates: Mapping[str, FloatArray], mask: BoolArray
) -> dict[str, Score]:
    return {model: Score(_mean(values, mask), replicates.get(model)) for model, values in by_model.items()}


def _voxel_means(result: ProbeResult, mask: BoolArray) -> dict[str, Score]:
    """Product measures, and what sub-bands alone add; only of models of several bands."""
    tables: dict[str, Mapping[str, npt.NDArray[Any]]] = {name: getattr(result, name) for name in VOXEL_MEANS}
    if len(result.split) == 1:
        del tables["split"]
    return {
        f"{table}_{band.replace('/', '.')}": Score(_mean(values, mask))
        for table, by_band in tables.items()
        for band, values in by_band.items()
    }


def _low_level(
    r: Mapping[str, Score], r2: Mapping[str, Score], rests: Mapping[str, Score], stretch: float | None
) -> dict[str, Score]:
    """Share and impacts where the backbone explains anything at all, and what they divide in any case."""
    if "backbone+low_level" not in r2:
        return {}
    terms = {"r2_shared_low_level": r2["backbone"] + r2["low_level"] - r2["backbone+low_level"]}
    terms |= {f"r_rest_{way}": rest for way, rest in rests.items()}
    own = {**terms, "r_backbone": r["backbone"], "r2_backbone": r2["backbone"]}
    whole = [metric for metric, ratio in RATIOS.items() if all(term in own for term in ratio.terms)]
    ratios = {metric: found for metric in whole if (found := ratio_of(metric, own, stretch)) is not None}
    return terms | ratios


def ratio_of(metric: str, terms: Mapping[str, Score], stretch: float | None = 1.0) -> Score | None:
    """One of RATIOS, of a subject or of the means over several.

    Parameters
    ----------
    terms : mapping of metric to Score
    stretch : float or None
        How much the terms' intervals are still to be widened, as `stretch_of` says.

    Returns
    -------
    Score or None
        None where the interval of the explained variance reaches 0, or there is nothing to divide by.
    """
    ratio = RATIOS[metric]
    explained = terms[ratio.explained].stretched(stretch)
    lowest = explained.value if explained.interval is None else explained.low
    if not (lowest > 0 and terms[ratio.whole].value > 0):
        return None
    found = terms[ratio.whole].combine(terms[ratio.part], lambda whole, part: ratio.said(part / whole))
    return found if np.isfinite(found.value) else None


def _ceiling_rows(result: ProbeResult, regions: Mapping[str, BoolArray], layer: int, blocks: Blocks) -> list[ScoreRow]:
    """r of all rows and voxels together, its ceiling, and their ratio, of the regions that have a ceiling."""
    if result.ceiling is None:
        return []
    ceiling = result.ceiling if result.signal is None else result.signal
    given = result.observed, result.predictions["backbone"], result.score_groups, ceiling
    rows = []
    for region, mask in regions.items():
        n_known = int((mask & np.isfinite(result.ceiling)).sum())
        if result.signal is None and n_known < MIN_SHARE_WITH_CEILING * mask.sum():
            continue
        scores = region_ratio(*given, mask, blocks)
        if "ceiling" in scores:
            scores["ceiling"] = Score(scores["ceiling"].value)
            found = {name: one for name, one in scores.items() if np.isfinite(one.value)}
            rows += [ScoreRow(region, layer, name, int(mask.sum()), one) for name, one in found.items()]
    return rows


def _mean(values: npt.NDArray[Any], mask: BoolArray) -> float:
    return float(np.asarray(values, dtype=np.float64)[mask].mean())


def _short(model: str, models: Mapping[str, Score]) -> str:
    """'joint' for the model with all bands (where there are several)."""
    largest = max(models, key=lambda name: name.count("+"))
    return "joint" if "+" in largest and model == largest else model
