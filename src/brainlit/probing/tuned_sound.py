"""What tuning could have learned from sound alone: the low-level control that has seen the tuning stories, too.

A tuned model has learned, on the stories that it was tuned on, how these voxels answer. Low-level features have not, so
a share that low-level features leave to the tuned model may be nothing but that map. Here a ridge from low-level
features to the same voxels is fitted on the tuning stories; what it predicts for the probe's stories, by its principal
components, joins the low-level band. The numbers of that probe are reported beside the plain ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from brainlit.encoding import probe
from brainlit.encoding.arrays import BoolArray, Float32Array, FloatArray, IntArray, position_in_group
from brainlit.encoding.bands import gather_bands
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.temporal import Band, TemporalBand, as_band
from brainlit.probing.inputs import ProbeData, Stimulus
from brainlit.results.scores import RATIOS, TUNED_SOUND, TUNED_SOUND_METRICS, ScoreRow
from brainlit.splits import Span
from brainlit.store import StoryStore

KEEP_VARIANCE = 0.99
"""Of the predictions: their components beyond it are many and next to nothing."""


def predicted_from_sound(
    store: StoryStore, subject: str, tune_spans: Sequence[Span], data_spans: Sequence[Span], config: ProbeConfig
) -> Float32Array | None:
    """What a ridge from low-level features, fitted on the tuning stories, predicts; None without such stories.

    Parameters
    ----------
    tune_spans, data_spans : sequences of Span
        Stories that the subject was tuned on, and those of the probe; of both only what the subject heard.

    Returns
    -------
    float32 array of shape (n_rows of data_spans, n_components)
        0 in the first rows of every span, which the probe leaves out.
    """
    heard = set(store.heard(subject))
    tune, own = ([span for span in spans if span.story in heard] for spans in (tune_spans, data_spans))
    if not tune or not own:
        return None
    spans = [*tune, *own]
    lengths = [span.n_trs for span in spans]
    groups = np.repeat(np.arange(len(spans)), lengths)
    fit = groups < len(tune)
    plain = replace(config, low_level_impact=False, sub_bands=False, leave_out_fit=False)
    responses = [store.responses(subject, span.story, span.start_tr, span.stop_tr) for span in spans]
    Y = np.concatenate([rows for rows in responses if rows is not None])
    Y[:, ~store.good_voxels(subject)] = np.nan
    bands = Stimulus(store, plain).bands(spans)
    if "low_level" not in bands:
        return None
    band = {"low_level": bands["low_level"]}
    result = probe.run_probe(band, Y, groups, fit, ~fit, plain)
    predicted = np.asarray(result.predictions["low_level"][:, result.used], dtype=np.float64)
    return _components(predicted, _scored_rows(groups, ~fit, config.skip_trs)[~fit])


def with_predictions(low_level: Band, predicted: Float32Array) -> TemporalBand:
    """The low-level band with the predictions as further columns, which get no delays."""
    band = as_band(low_level)
    if "hrf" in band.parts:
        return replace(band, parts={**band.parts, "hrf": np.concatenate([band.parts["hrf"], predicted], axis=1)})
    # half of the prior variance each: the predictions are few and the delayed columns many
    return replace(band, parts={**band.parts, "hrf": predicted}, weights={"fir": 0.5, "hrf": 0.5})


def tuned_sound_result(data: ProbeData, features: Band, predicted: Float32Array, config: ProbeConfig) -> ProbeResult:
    """The probe of one subject with the low-level band that has seen the tuning stories."""
    bands, _ = gather_bands({"backbone": features, **data.stimulus}, config.band_names)
    bands["low_level"] = with_predictions(bands["low_level"], predicted)
    plain = replace(config, sub_bands=False, leave_out_fit=False)
    return probe.run_probe(bands, data.responses, data.groups, data.fit, data.score, plain, ceiling=data.ceiling)


def renamed(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """The rows that are reported, under names that say what they are."""
    parts = {RATIOS[metric].part for metric in TUNED_SOUND_METRICS if metric in RATIOS}
    return [
        replace(row, metric=f"{row.metric}{TUNED_SOUND}")
        for row in rows
        if row.metric in TUNED_SOUND_METRICS or row.metric in parts
    ]


def _scored_rows(groups: IntArray, score: BoolArray, skip_trs: int) -> BoolArray:
    return np.asarray(score & (position_in_group(groups) >= skip_trs))


def _components(predicted: FloatArray, rows: BoolArray) -> Float32Array:
    """Leading principal components of (n_predicted, n_voxels) at the rows that they belong to; 0 elsewhere."""
    left, size, _ = np.linalg.svd(predicted - predicted.mean(axis=0), full_matrices=False)
    # predictions that are all constant leave one column of zeros, a constant feature
    n_kept = int(np.searchsorted(np.cumsum(size**2), KEEP_VARIANCE * np.sum(size**2))) + 1
    placed = np.zeros((len(rows), n_kept), dtype=np.float32)
    placed[rows] = left[:, :n_kept] * size[:n_kept]
    return placed
