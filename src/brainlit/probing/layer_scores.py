"""Single layers against the brain: quick numbers for a curve over layers, or to choose a checkpoint by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from brainlit.encoding.arrays import Float32Array
from brainlit.encoding.statistics import Score, mean_score
from brainlit.encoding.temporal import TemporalBand
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.layer_fits import Features, fit_rows
from brainlit.probing.process_group import ProcessGroup
from brainlit.results.scores import ScoreRow, curve_rows, regions_with_all

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule


class LayerScore(NamedTuple):
    """Alignment of one layer in one region, mean over subjects."""

    layer: int
    region: str
    score: Score
    n_voxels: int


def score_layers(
    engine: ProbeEngine,
    features: Features,
    datamodule: StoryDataModule,
    subjects: Sequence[str],
    group: ProcessGroup | None = None,
) -> list[LayerScore]:
    """Fit each layer alone on `fit` and score it on the engine's role, as the probe's layer curve does.

    Parameters
    ----------
    features : mapping of layer to array of shape (n_rows, n_features)
        A row per TR of `engine.spans(datamodule)`.
    group : ProcessGroup, optional
        Processes take layers in turn; the first gets the scores of all, the others none.
    """
    group, features = group or ProcessGroup(), engine.as_bands(features, datamodule)
    own = sorted(features)[group.rank :: group.n_ranks]
    scores = [score for k in own for score in _mean_scores(engine, features[k], k, datamodule, subjects)]
    return sorted((score for part in group.gather(scores) for score in part), key=lambda score: score.layer)


def _mean_scores(
    engine: ProbeEngine,
    states: Float32Array | TemporalBand,
    layer: int,
    datamodule: StoryDataModule,
    subjects: Sequence[str],
) -> list[LayerScore]:
    """One layer in each region: subjects who heard the same rows are searched together, then all are averaged."""
    by_region: dict[str, list[ScoreRow]] = {}
    for data in engine.who_heard_the_same(datamodule, subjects):
        first, Ys = next(iter(data.values())), {name: own.responses for name, own in data.items()}
        alone = replace(engine.config, leave_out_fit=False)
        results = fit_rows(first, {"backbone": states[first.rows]}, Ys, alone)
        for name, result in results.items():
            regions = regions_with_all(data[name].regions, result.used)
            for row in curve_rows(result, regions, layer, engine.blocks(result)):
                if row.metric == "r_backbone":
                    by_region.setdefault(row.region, []).append(row)
    return [
        LayerScore(layer, region, mean_score([row.score for row in rows]), sum(row.n_voxels for row in rows))
        for region, rows in by_region.items()
    ]
