"""From fitted models to results: scores per voxel of all subjects, cut into one result for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.cache import fingerprint
from brainlit.encoding.edges import alpha_edges, edge_warnings
from brainlit.encoding.groups import Array, Float32Array, FloatArray
from brainlit.encoding.impact import banded_rest, low_level_impact, residual_features
from brainlit.encoding.partition import model_name, partition_variance
from brainlit.encoding.probe_rows import ProbeRows
from brainlit.encoding.problem import NestedFit, Problem
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.sub_bands import SubBandScores

NO_SUB_BANDS = SubBandScores({}, {})


def predict_residuals(problem: Problem, arrays: Mapping[str, Array]) -> dict[str, Float32Array]:
    """What the backbone predicts once low-level features are regressed out of it; empty without both bands."""
    settings, rows = problem.settings, problem.rows
    if not settings.low_level_impact or not {"backbone", "low_level"} <= set(arrays):
        return {}
    k = settings.impact_lags_trs
    predicted = {}
    for way, lags_trs in (("residual_lag0", (0,)), ("residual_lags", tuple(range(-k, k + 1)))):
        residual = residual_features(
            arrays["backbone"],
            arrays["low_level"],
            rows.groups,
            rows.fit,
            lags_trs,
            alphas=settings.alphas,
            n_folds=settings.n_folds,
            purge_trs=settings.purge,
            solver=settings.solver,
        )
        predicted[way] = problem.predict_alone(residual, rescale=False)
    return predicted


def assemble(
    problem: Problem,
    nested: NestedFit,
    residuals: Mapping[str, Float32Array],
    finer: SubBandScores = NO_SUB_BANDS,
    **meta: Any,
) -> ProbeResult:
    """Score every model and put all arrays on the full set of voxels of all subjects."""
    spread = problem.targets.spread
    r = {model: problem.correlate(predicted) for model, predicted in nested.predictions.items()}
    r2 = {model: problem.r2(predicted) for model, predicted in nested.predictions.items()}
    rest = {way: problem.correlate(predicted) for way, predicted in residuals.items()}
    if rest:
        rest["banded_ridge"] = banded_rest(r["backbone+low_level"], r["low_level"])
    joint = model_name(nested.n_columns)
    tables = {
        "r_by_model": r,
        "r2_by_model": r2,
        "split": nested.split,
        "partition": partition_variance(r2, tuple(nested.n_columns)),
        "impact": {way: low_level_impact(r["backbone"], left) for way, left in rest.items()},
        "r_rest": rest,
        "sub_split": finer.split,
        "sub_unique": finer.unique,
    }
    chosen = {model: choice.alpha_index.astype(np.int16) for model, choice in nested.choices.items()}
    return ProbeResult(
        r=spread(r[joint]),
        r2=spread(r2[joint]),
        **{name: {key: spread(values) for key, values in table.items()} for name, table in tables.items()},
        predictions=nested.predictions,
        rest_predictions=residuals,
        gamma_ranking={model: spread(best, fill=-1) for model, best in nested.rankings.items()},
        alpha_index={model: spread(index, fill=-1) for model, index in chosen.items()},
        observed=spread(problem.targets.score),
        score_groups=problem.rows.score_groups,
        ceiling=None,
        alpha_at_edge={},
        n_dropped=int((~problem.targets.good).sum()),
        used=problem.targets.good,
        meta=_describe(problem, nested, joint) | meta,
    )


def own_part(whole: ProbeResult, voxels: slice, ceiling: npt.ArrayLike | None) -> ProbeResult:
    """One subject's voxels out of the result of all, with how often they chose the grid's ends."""
    used, alphas = whole.used[voxels], whole.meta["alphas"]

    def cut(table: Mapping[str, Any]) -> dict[str, Any]:
        return {key: values[..., voxels] for key, values in table.items()}

    alpha_index = cut(whole.alpha_index)
    at_edge, low, high = alpha_edges(alpha_index, len(alphas))
    warnings = [*whole.meta["warnings"], *edge_warnings(low, high, alphas)]
    return replace(
        whole,
        r=whole.r[voxels],
        r2=whole.r2[voxels],
        r_by_model=cut(whole.r_by_model),
        r2_by_model=cut(whole.r2_by_model),
        split=cut(whole.split),
        partition=cut(whole.partition),
        impact=cut(whole.impact),
        r_rest=cut(whole.r_rest),
        predictions=cut(whole.predictions),
        rest_predictions=cut(whole.rest_predictions),
        gamma_ranking=cut(whole.gamma_ranking),
        alpha_index=alpha_index,
        sub_split=cut(whole.sub_split),
        sub_unique=cut(whole.sub_unique),
        observed=whole.observed[:, voxels],
        ceiling=_checked_ceiling(ceiling, used.size),
        alpha_at_edge=at_edge,
        n_dropped=int((~used).sum()),
        used=used,
        meta={**whole.meta, "alpha_at_low_edge": low, "alpha_at_high_edge": high, "warnings": warnings},
    )


def rows_key(rows: ProbeRows) -> str:
    """Hash of which rows are fitted and which scored."""
    return fingerprint(rows.groups, rows.fit, rows.score)


def _checked_ceiling(ceiling: npt.ArrayLike | None, n_voxels: int) -> FloatArray | None:
    if ceiling is None:
        return None
    values = np.asarray(ceiling, dtype=np.float64)
    if values.shape != (n_voxels,):
        raise ValueError(f"ceiling has shape {values.shape}; need one value for each of the {n_voxels} voxels.")
    return values


def _describe(problem: Problem, nested: NestedFit, joint: str) -> dict[str, Any]:
    """Everything that is needed to say how the numbers came about, as plain values."""
    settings, rows = problem.settings, problem.rows
    n_fit_groups = int(np.unique(rows.fit_groups).size)
    return {
        "joint": joint,
        "solver": nested.solver,
        "score": "R2 = 1 - SSE/SST and Pearson r on the scored rows, each group demeaned",
        "seed": settings.seed,
        "delays_trs": list(settings.delays_trs),
        "alphas": list(settings.alphas),
        "gammas": nested.gammas.tolist(),
        "n_columns": dict(nested.n_columns),
        "keep_variance": settings.keep_variance if nested.solver == "primal" else 1.0,
        "precision": settings.precision,
        "n_folds": settings.n_folds,
        "folds": "whole groups" if n_fit_groups >= settings.n_folds else f"blocks with {settings.purge} TRs purged",
        "purge_trs": settings.purge,
        "skip_trs": settings.skip_trs,
        "impact_lags_trs": settings.impact_lags_trs,
        "n_fit_trs": int(rows.fit.sum()),
        "n_score_trs": int(rows.score.sum()),
        "n_fit_groups": n_fit_groups,
        "n_score_groups": int(np.unique(rows.score_groups).size),
        "rows": rows_key(rows),
        "warnings": [],
    }
