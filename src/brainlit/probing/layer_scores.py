"""Single layers against the brain: quick numbers for a curve over layers, or to choose a checkpoint by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from brainlit.encoding.statistics import Score, mean_score
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.layer_fits import Features
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
    group = group or ProcessGroup()
    own = [layer for k, layer in enumerate(sorted(features)) if k % group.n_ranks == group.rank]
    scores = []
    for layer in own:
        rows = _rows_by_subject(engine, features, layer, datamodule, subjects)
        scores += _mean_rows(layer, rows)
    return sorted((score for part in group.gather(scores) for score in part), key=lambda score: score.layer)


def _rows_by_subject(
    engine: ProbeEngine, features: Features, layer: int, datamodule: StoryDataModule, subjects: Sequence[str]
) -> dict[str, list[ScoreRow]]:
    from brainlit.encoding.probe import run_probes

    rows = {}
    for names in engine.who_heard_the_same(datamodule, subjects):
        data = {name: engine.subject_data(datamodule, name) for name in names}
        first, Ys = data[names[0]], {name: own.responses for name, own in data.items()}
        roles = (Ys, first.groups, first.fit, first.score, engine.config)
        for name, result in run_probes({"backbone": features[layer][first.rows]}, *roles).items():
            regions = regions_with_all(datamodule.store.subject(name).regions, result.used)
            curve = curve_rows(result, regions, layer, engine.blocks(result))
            rows[name] = [row for row in curve if row.metric == "r_backbone"]
    return rows


def _mean_rows(layer: int, rows: Mapping[str, Sequence[ScoreRow]]) -> list[LayerScore]:
    scores = []
    for region in dict.fromkeys(row.region for own in rows.values() for row in own):
        found = [row for own in rows.values() for row in own if row.region == region]
        mean = mean_score([row.score for row in found])
        scores.append(LayerScore(layer, region, mean, sum(row.n_voxels for row in found)))
    return scores
