"""A probe over folds: every row is scored once, by encoding models fitted without it, and all of them count together.

Each fold is a probe of its own. Standardisation, temporal weights, mixtures and ridge parameters come from the rows
that this fold fits. Then the predictions of all folds are put one after the other and scored as one: with y and p the
responses and predictions of fold k, centred within each scored stretch,

    r = sum_k sum_t y p / sqrt(sum_k sum_t y^2 sum_k sum_t p^2),   R2 = 1 - sum_k sum_t (y - p)^2 / sum_k sum_t y^2.

A fold that is long or varies much counts for more than in the mean of the folds' own correlations, and a short one does
not shout: r of few rows scatters and is biased towards 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, FloatArray, IntArray, demean_within
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.partition import low_level_impact, semipartial
from brainlit.encoding.probe import ceiling_fields, run_probes
from brainlit.encoding.probe_fit import VOXELS_AT_ONCE, ProbeCache, array_hash
from brainlit.encoding.probe_rows import prepare_rows
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.statistics import correlation_within
from brainlit.encoding.temporal import Band, TemporalBand
from brainlit.encoding.temporal_choice import SubjectWeights

OF_ROWS = ("n_fit_trs", "n_score_trs", "n_fit_groups", "n_score_groups", "rows")
_PARTS_OF_R2 = ("split", "partition", "sub_split", "sub_unique")
"""Tables of parts of R2: of joined rows they are means over folds, weighed by the variance that each scores."""


@dataclass(frozen=True, eq=False)
class FoldRows:
    """The rows of one fold.

    Parameters
    ----------
    rows : int array of shape (n_own,)
        Which of all rows take part, in the order of the groups. A row may come twice: rows before a scored stretch are
        in its group to feed its delays, and may be fitted on in another.
    groups : int array of shape (n_own,)
    fit, score : bool arrays of shape (n_own,)
        As for `run_probe`.
    """

    rows: IntArray
    groups: IntArray
    fit: BoolArray
    score: BoolArray


def run_folds(
    bands: Mapping[str, Band],
    Ys: Mapping[str, Array],
    folds: Sequence[FoldRows],
    config: ProbeConfig | None = None,
    *,
    ceilings: Mapping[str, npt.ArrayLike | None] | None = None,
    cache: ProbeCache | None = None,
    weights: Sequence[SubjectWeights] | None = None,
) -> dict[str, ProbeResult]:
    """Probe several subjects who heard the same rows, fold by fold, and join what was predicted.

    Parameters
    ----------
    bands, Ys : as for `run_probes`
        A row per row that any fold speaks of.
    folds : sequence of FoldRows
        At least two; no row is scored by two of them.
    ceilings : mapping of subject to array of shape (n_scored, n_voxels) or (n_voxels,), or None, optional
        For the scored rows of all folds, one fold after the other.
    weights : sequence of SubjectWeights, optional
        Of the temporal parts, for each fold; by default each fold chooses its own.

    Returns
    -------
    dict of subject to ProbeResult
        Scores and predictions of all scored rows, fold by fold. `score_groups` counts the scored stretches from 0, and
        meta['fold_of_group'] says to which fold each belongs. Of what was chosen, `alpha_index` has a row per fold,
        and the chosen gammas are (n_ranked, n_folds, n_voxels). Nothing is left out story by story.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or a row is scored twice; and as `run_probes`.
    """
    settings = replace(config or ProbeConfig(), leave_out_fit=False)
    if len(folds) < 2:
        raise ValueError(f"there are {len(folds)} folds; give at least 2, or fit and score fixed rows: run_probes.")
    _refuse_twice(folds)
    found: list[dict[str, ProbeResult]] = []
    for k, fold in enumerate(folds):
        own_bands, own_Ys = {name: _rows(X, fold.rows) for name, X in bands.items()}, {}
        own_Ys = {name: np.asarray(Y)[fold.rows] for name, Y in Ys.items()}
        given = None if weights is None else weights[k]
        of_fold = (own_bands, own_Ys, fold.groups, fold.fit, fold.score, settings)
        found.append(run_probes(*of_fold, cache=cache, weights=given))
    return {
        name: _joined([results[name] for results in found], np.asarray(Y), folds, settings, (ceilings or {}).get(name))
        for name, Y in Ys.items()
    }


def _rows(X: Band, rows: IntArray) -> Band:
    return X[rows] if isinstance(X, TemporalBand) else np.asarray(X)[rows]


def _refuse_twice(folds: Sequence[FoldRows]) -> None:
    counts = Counter(int(row) for fold in folds for row in fold.rows[fold.score])
    twice = sorted(row for row, n in counts.items() if n > 1)
    if twice:
        raise ValueError(f"{len(twice)} rows are scored by two folds, such as row {twice[0]}; score each row once.")


# --- Joining ---


def _joined(
    parts: Sequence[ProbeResult],
    Y: Array,
    folds: Sequence[FoldRows],
    settings: ProbeConfig,
    ceiling: npt.ArrayLike | None,
) -> ProbeResult:
    """One result of all scored rows; a voxel counts where every fold could use it."""
    used = np.all([part.used for part in parts], axis=0)
    if not used.any():
        raise ValueError("no voxel is finite and changing on the used rows of every fold; check the responses.")
    scales = _scales(parts, Y, folds, settings)
    shares = _variance_shares(parts, scales)
    groups, fold_of_group = _numbered(parts)

    def rows(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        scaled = [(values * scale).astype(np.float32) for values, scale in zip(arrays, scales, strict=True)]
        return np.where(used, np.concatenate(scaled), np.float32(np.nan))

    observed = rows([part.observed for part in parts])
    predictions = {model: rows([part.predictions[model] for part in parts]) for model in parts[0].predictions}
    rests = {way: rows([part.rest_predictions[way] for part in parts]) for way in parts[0].rest_predictions}
    r = {model: _correlations(observed, predicted, groups, used) for model, predicted in predictions.items()}
    r2 = {model: _weighed([part.r2_by_model[model] for part in parts], shares, used) for model in predictions}
    rest = _rest(parts[0], observed, predictions, rests, groups, used, r)
    parts_of_r2: dict[str, Any] = {}
    for name in _PARTS_OF_R2:
        tables: list[Mapping[str, FloatArray]] = [getattr(part, name) for part in parts]
        parts_of_r2[name] = {key: _weighed([table[key] for table in tables], shares, used) for key in tables[0]}
    joint = parts[0].joint
    whole = replace(
        parts[0],
        **parts_of_r2,
        r=r[joint],
        r2=r2[joint],
        r_by_model=r,
        r2_by_model=r2,
        r_rest=rest,
        impact={way: low_level_impact(r["backbone"], left) for way, left in rest.items()},
        predictions=predictions,
        rest_predictions=rests,
        observed=observed,
        score_groups=groups,
        used=used,
        n_dropped=int((~used).sum()),
        gamma_ranking=_stacked([part.gamma_ranking for part in parts], used),
        alpha_index=_stacked([part.alpha_index for part in parts], used),
        meta=_meta(parts, fold_of_group),
        **ceiling_fields(ceiling, len(groups), used.size),
    )
    return whole.with_grid_ends()


def _scales(
    parts: Sequence[ProbeResult], Y: Array, folds: Sequence[FoldRows], settings: ProbeConfig
) -> list[FloatArray]:
    """What brings the rows of each fold, which are in units of the sd of its fitted rows, to one scale, (n_voxels,)."""
    sizes = []
    for part, fold in zip(parts, folds, strict=True):
        rows = prepare_rows(fold.groups, fold.fit, fold.score, settings.skip_trs, len(fold.groups))
        scored, size = fold.rows[rows.score], np.ones(part.used.size)
        for block in _blocks(part.used):
            centred = demean_within(Y[scored][:, block], rows.score_groups)
            ours = np.square(part.observed[:, block].astype(np.float64)).sum(axis=0)
            size[block] = np.sqrt(np.square(centred).sum(axis=0) / ours)
        sizes.append(size)
    common = np.sqrt(np.mean(np.square(sizes), axis=0))
    return [size / common for size in sizes]


def _blocks(used: BoolArray) -> Iterator[IntArray]:
    """Used voxels, some at a time."""
    columns = np.flatnonzero(used)
    for start in range(0, columns.size, VOXELS_AT_ONCE):
        yield columns[start : start + VOXELS_AT_ONCE]


def _variance_shares(parts: Sequence[ProbeResult], scales: Sequence[FloatArray]) -> FloatArray:
    """Share of the scored sum of squares that each fold has, (n_folds, n_voxels)."""
    squares = [
        np.square(scale) * np.square(part.observed, dtype=np.float64).sum(axis=0)
        for part, scale in zip(parts, scales, strict=True)
    ]
    return np.asarray(squares / np.sum(squares, axis=0))


def _weighed(values: Sequence[FloatArray], shares: FloatArray, used: BoolArray) -> FloatArray:
    return np.asarray(np.where(used, (np.stack(values) * shares).sum(axis=0), np.nan))


def _correlations(a: Array, b: Array, groups: IntArray, used: BoolArray) -> FloatArray:
    """Correlation of the used voxels over all rows, 0 where a prediction is constant, NaN of the others."""
    found = np.full(used.size, np.nan)
    for block in _blocks(used):
        found[block] = np.nan_to_num(correlation_within(a[:, block], b[:, block], groups))
    return found


def _rest(
    first: ProbeResult,
    observed: Array,
    predictions: Mapping[str, Array],
    rests: Mapping[str, Array],
    groups: IntArray,
    used: BoolArray,
    r: Mapping[str, FloatArray],
) -> dict[str, FloatArray]:
    """What correlation each way of taking low-level features out leaves, on the joined rows."""
    found = {}
    for way in first.r_rest:
        predicted = rests[way] if way in rests else predictions["backbone+low_level"]
        left = _correlations(observed, predicted, groups, used)
        if way != "residual_lag0":
            between = _correlations(predictions["low_level"], predicted, groups, used)
            left = semipartial(left, r["low_level"], between)
        found[way] = left
    return found


def _numbered(parts: Sequence[ProbeResult]) -> tuple[IntArray, list[int]]:
    """Scored stretches of all folds counted from 0, and the fold of each."""
    groups: list[IntArray] = []
    fold_of_group: list[int] = []
    for k, part in enumerate(parts):
        labels = part.score_groups
        own = np.cumsum(np.r_[0, labels[1:] != labels[:-1]])
        groups.append(own + len(fold_of_group))
        fold_of_group += [k] * (int(own[-1]) + 1)
    return np.concatenate(groups).astype(np.int64), fold_of_group


def _stacked(tables: Sequence[Mapping[str, npt.NDArray[Any]]], used: BoolArray) -> dict[str, npt.NDArray[Any]]:
    """What voxels chose, with an axis of folds before that of voxels; -1 where a voxel is not used."""
    stacked = {key: np.stack([table[key] for table in tables], axis=-2) for key in tables[0]}
    return {key: np.where(used, values, values.dtype.type(-1)) for key, values in stacked.items()}


def _meta(parts: Sequence[ProbeResult], fold_of_group: list[int]) -> dict[str, Any]:
    """What the folds share; numbers of rows by fold; and their warnings, each once, with the number of folds."""
    first = {key: value for key, value in parts[0].meta.items() if key not in OF_ROWS}
    counts = Counter(text for part in parts for text in part.lasting_warnings)
    warnings = [text if n == len(parts) else f"{n} of {len(parts)} folds: {text}" for text, n in counts.items()]
    n_fit = [int(part.meta["n_fit_trs"]) for part in parts]
    return first | {
        "score": f"{first['score']}, the predictions of all folds together",
        "n_fit_trs": round(float(np.mean(n_fit))),
        "n_fit_trs_by_fold": n_fit,
        "n_score_trs": sum(int(part.meta["n_score_trs"]) for part in parts),
        "n_score_trs_by_fold": [int(part.meta["n_score_trs"]) for part in parts],
        "n_fit_groups": max(int(part.meta["n_fit_groups"]) for part in parts),
        "n_score_groups": len(fold_of_group),
        "fold_of_group": fold_of_group,
        "rows": array_hash(*(str(part.meta["rows"]) for part in parts)),
        "temporal": _mean_weights([part.meta.get("temporal", {}) for part in parts]),
        "warnings": warnings,
    }


def _mean_weights(by_fold: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """How much each temporal part counts by band, mean over folds."""
    return {
        band: {
            part: float(np.mean([weights[band].get(part, 0.0) for weights in by_fold]))
            for part in dict.fromkeys(part for weights in by_fold for part in weights[band])
        }
        for band in by_fold[0]
    }
