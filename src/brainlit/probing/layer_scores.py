"""Single layers against the brain: quick numbers for a curve over layers, or to choose a checkpoint by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from brainlit.encoding.statistics import Score, mean_score
from brainlit.probing.engine import Features, ProbeEngine
from brainlit.probing.process_group import Meeting
from brainlit.results.scores import ScoreRow, curve_rows, regions_with_all


class LayerScore(NamedTuple):
    """Alignment of one layer in one region, mean over subjects."""

    layer: int
    region: str
    score: Score
    n_voxels: int


def score_layers(
    engine: ProbeEngine,
    features: Features,
    datamodule: Any,
    subjects: Sequence[str],
    meeting: Meeting | None = None,
) -> list[LayerScore]:
    """Fit each layer alone on `fit` and score it on the engine's role, as the probe's layer curve does.

    Parameters
    ----------
    features : mapping of layer to array of shape (n_rows, n_features)
        A row per TR of `engine.spans(datamodule)`.
    meeting : Meeting, optional
        Processes take layers in turn; the first gets the scores of all, the others none.
    """
    meeting = meeting or Meeting(Path())
    own = [layer for k, layer in enumerate(sorted(features)) if k % meeting.n_ranks == meeting.rank]
    scores = []
    for layer in own:
        rows = _rows_by_subject(engine, features, layer, datamodule, subjects)
        scores += [(*row[:2], row.score.value, row.score.interval, row.n_voxels) for row in _mean_rows(layer, rows)]
    found = meeting.collect("scores", scores)
    rows_of_all = [
        LayerScore(layer, region, Score(value, bounds=tuple(bounds) if bounds else None), n_voxels)
        for part in found
        for layer, region, value, bounds, n_voxels in part
    ]
    return sorted(rows_of_all, key=lambda row: row.layer)


def _rows_by_subject(
    engine: ProbeEngine, features: Features, layer: int, datamodule: Any, subjects: Sequence[str]
) -> dict[str, list[ScoreRow]]:
    from brainlit.encoding.probe import run_probes

    rows = {}
    for group in engine.who_heard_the_same(datamodule, subjects):
        data = {name: engine.subject_data(datamodule, name) for name in group}
        first, Ys = data[group[0]], {name: own.responses for name, own in data.items()}
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
