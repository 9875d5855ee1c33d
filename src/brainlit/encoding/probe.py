"""The probe: how well features predict responses, and what part of that is low-level, semantic, or the backbone's own.

Bands are standardised per group, delayed inside groups and fitted by banded ridge with story-wise folds; everything is
scored on other stories. All nested models share one search: each mixture of bands (gamma) is tried once, and a model
picks among those inside its set (see `gammas`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.cache import ProbeCache
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.groups import Array, FloatArray
from brainlit.encoding.impact import banded_rest, low_level_impact, residual_features
from brainlit.encoding.partition import model_name, order_bands, partition_variance, split_r2
from brainlit.encoding.probe_files import load_probe, save_probe
from brainlit.encoding.probe_rows import prepare_rows, prepare_targets
from brainlit.encoding.problem import NestedFit, Problem
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.statistics import r2_within

__all__ = [
    "ProbeCache",
    "ProbeConfig",
    "ProbeResult",
    "load_probe",
    "run_probe",
    "run_probes",
    "save_probe",
    "score_single_band",
]


def run_probe(
    bands: Mapping[str, Array],
    Y: Array,
    groups: npt.ArrayLike,
    fit: npt.ArrayLike,
    score: npt.ArrayLike,
    config: ProbeConfig | None = None,
    *,
    ceiling: npt.ArrayLike | None = None,
    cache: ProbeCache | None = None,
) -> ProbeResult:
    """Fit all nested models of the bands on some groups and score them on others.

    Parameters
    ----------
    bands : mapping of 'backbone', 'low_level', 'semantic' to array of shape (n_trs, n_features)
        Raw features on the TR grid: not delayed, not scaled. What needs a missing band is absent from the result.
    Y : array of shape (n_trs, n_voxels)
    groups : int array of shape (n_trs,)
        One number per story (or span); rows of a group are contiguous and in order of time.
    fit, score : bool arrays of shape (n_trs,)
        Rows fitted on and rows scored, in different groups. Rows in neither only feed the delays of their group.
    config : ProbeConfig, optional
    ceiling : array of shape (n_voxels,), optional
        Highest reachable correlation per voxel, kept beside the scores.
    cache : ProbeCache, optional
        Give the same one to probes that share stimulus bands and responses.

    Raises
    ------
    LeakError
        If a group is both fitted and scored.
    ValueError
        If shapes, bands or masks make no sense, or no voxel is left.
    """
    ceilings = None if ceiling is None else {"": ceiling}
    return run_probes(bands, {"": Y}, groups, fit, score, config, ceilings=ceilings, cache=cache)[""]


def run_probes(
    bands: Mapping[str, Array],
    Ys: Mapping[str, Array],
    groups: npt.ArrayLike,
    fit: npt.ArrayLike,
    score: npt.ArrayLike,
    config: ProbeConfig | None = None,
    *,
    ceilings: Mapping[str, npt.ArrayLike | None] | None = None,
    cache: ProbeCache | None = None,
) -> dict[str, ProbeResult]:
    """Probe several subjects who heard the same rows; each gets the result that `run_probe` gives it alone.

    What does not depend on the responses (products and decompositions of features) is done once for all of them.

    Parameters
    ----------
    Ys : mapping of subject to array of shape (n_trs, n_voxels)
        Voxel counts may differ.
    ceilings : mapping of subject to array of shape (n_voxels,) or None, optional

    Other parameters, and errors, are those of `run_probe`.
    """
    settings = config or ProbeConfig()
    responses = [_checked_responses(name, Y, len(np.asarray(groups))) for name, Y in Ys.items()]
    Y = np.concatenate(responses, axis=1)
    arrays = {band: _checked(band, bands[band], len(Y)) for band in order_bands(bands)}
    rows = prepare_rows(groups, fit, score, settings.skip_trs, len(Y))
    targets = prepare_targets(Y, rows)
    edges = np.cumsum([0, *(own.shape[1] for own in responses)])
    voxels = [slice(int(start), int(stop)) for start, stop in pairwise(edges)]
    unusable = [name for name, part in zip(Ys, voxels, strict=True) if not targets.good[part].any()]
    if unusable:
        raise ValueError(
            f"no voxel of {', '.join(unusable)} is finite and changing on the used rows; check the responses, or leave"
            " the subject out."
        )
    problem = Problem(rows, targets, settings, cache)
    nested = problem.fit_nested(arrays)
    rest = _rest_correlations(problem, nested, arrays) if settings.low_level_impact else {}
    whole = _assemble(problem, nested, rest)
    return {
        subject: _own_part(whole, nested, part, (ceilings or {}).get(subject))
        for subject, part in zip(Ys, voxels, strict=True)
    }


def score_single_band(
    X: Array,
    Y: Array,
    groups: npt.ArrayLike,
    fit: npt.ArrayLike,
    score: npt.ArrayLike,
    config: ProbeConfig | None = None,
) -> FloatArray:
    """Correlation per voxel of one feature space alone, (n_voxels,); NaN where a voxel was dropped. For layer curves.

    Parameters are those of `run_probe`, X being (n_trs, n_features); the same number as a probe of that band alone.
    """
    settings = config or ProbeConfig()
    rows = prepare_rows(groups, fit, score, settings.skip_trs, len(Y))
    targets = prepare_targets(np.asarray(Y), rows)
    return np.asarray(targets.spread(Problem(rows, targets, settings).score_features(_checked("X", X, len(Y)))))


def _checked_responses(name: str, Y: npt.ArrayLike, n_trs: int) -> Array:
    values = np.asarray(Y)
    if values.ndim != 2 or len(values) != n_trs:
        raise ValueError(f"Y{f' of {name}' if name else ''} has shape {values.shape}; need ({n_trs}, n_voxels).")
    return values


def _checked(name: str, X: npt.ArrayLike, n_trs: int) -> Array:
    values = np.asarray(X)
    if values.ndim != 2 or len(values) != n_trs:
        raise ValueError(f"band {name!r} has shape {values.shape}; need ({n_trs}, n_features), a row per row of Y.")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"band {name!r} is {values[row, column]} at row {row}, column {column}; features are finite.")
    return values


def _rest_correlations(problem: Problem, nested: NestedFit, arrays: Mapping[str, Array]) -> dict[str, FloatArray]:
    """What correlation is left by the three ways of taking low-level features out; empty without both bands."""
    if not {"backbone", "low_level"} <= set(arrays):
        return {}
    settings, rows = problem.settings, problem.rows
    k = settings.impact_lags_trs
    rest = {}
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
        rest[way] = problem.score_features(residual, rescale=False)
    r_both = problem.correlate(nested.predictions("backbone+low_level"))
    rest["banded_ridge"] = banded_rest(r_both, problem.correlate(nested.predictions("low_level")))
    return rest


def _assemble(problem: Problem, nested: NestedFit, rest: Mapping[str, FloatArray]) -> ProbeResult:
    """Score every model and put all arrays on the full set of voxels of all subjects."""
    targets, score_groups = problem.targets, problem.rows.score_groups
    joint = model_name(nested.n_columns)
    predicted = {model: nested.predictions(model) for model in nested.parts}
    r = {model: problem.correlate(p) for model, p in predicted.items()}
    r2 = {model: r2_within(targets.score, p, score_groups) for model, p in predicted.items()}
    impact = {way: low_level_impact(r["backbone"], left) for way, left in rest.items()}
    spread = targets.spread
    return ProbeResult(
        r=spread(r[joint]),
        r2=spread(r2[joint]),
        r_by_model={model: spread(values) for model, values in r.items()},
        r2_by_model={model: spread(values) for model, values in r2.items()},
        split={band: spread(v) for band, v in split_r2(targets.score, nested.parts[joint]).items()},
        partition={part: spread(v) for part, v in partition_variance(r2, tuple(nested.n_columns)).items()},
        impact={way: spread(values) for way, values in impact.items()},
        r_rest={way: spread(values) for way, values in rest.items()},
        predictions={model: spread(p.astype(np.float32)) for model, p in predicted.items()},
        observed=spread(targets.score),
        score_groups=score_groups,
        ceiling=None,
        alpha_at_edge={},
        n_dropped=int((~targets.good).sum()),
        used=targets.good,
        meta=_describe(problem, nested, joint),
    )


def _own_part(whole: ProbeResult, nested: NestedFit, voxels: slice, ceiling: npt.ArrayLike | None) -> ProbeResult:
    """One subject's voxels out of the result of all, with how often they chose the grid's ends."""
    used = whole.used[voxels]
    chosen = np.cumsum(whole.used)[voxels][used] - 1
    alphas = {model: choice.alpha_index[chosen] for model, choice in nested.choices.items()}
    top = len(whole.meta["alphas"]) - 1
    low, high = ({model: _share(index == edge) for model, index in alphas.items()} for edge in (0, top))

    def cut(table: Mapping[str, Any]) -> dict[str, Any]:
        return {key: values[..., voxels] for key, values in table.items()}

    return ProbeResult(
        r=whole.r[voxels],
        r2=whole.r2[voxels],
        r_by_model=cut(whole.r_by_model),
        r2_by_model=cut(whole.r2_by_model),
        split=cut(whole.split),
        partition=cut(whole.partition),
        impact=cut(whole.impact),
        r_rest=cut(whole.r_rest),
        predictions=cut(whole.predictions),
        observed=whole.observed[:, voxels],
        score_groups=whole.score_groups,
        ceiling=_checked_ceiling(ceiling, used.size),
        alpha_at_edge={model: _share((index == 0) | (index == top)) for model, index in alphas.items()},
        n_dropped=int((~used).sum()),
        used=used,
        meta={**whole.meta, "alpha_at_low_edge": low, "alpha_at_high_edge": high},
    )


def _checked_ceiling(ceiling: npt.ArrayLike | None, n_voxels: int) -> FloatArray | None:
    if ceiling is None:
        return None
    values = np.asarray(ceiling, dtype=np.float64)
    if values.shape != (n_voxels,):
        raise ValueError(f"ceiling has shape {values.shape}; need one value for each of the {n_voxels} voxels.")
    return values


def _share(which: npt.NDArray[np.bool_]) -> float:
    return float(which.mean()) if which.size else float("nan")


def _describe(problem: Problem, nested: NestedFit, joint: str) -> dict[str, Any]:
    """Everything that is needed to say how the numbers came about, as plain values."""
    settings, rows = problem.settings, problem.rows
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
        "purge_trs": settings.purge,
        "skip_trs": settings.skip_trs,
        "impact_lags_trs": settings.impact_lags_trs,
        "n_fit_trs": int(rows.fit.sum()),
        "n_score_trs": int(rows.score.sum()),
        "n_fit_groups": int(np.unique(rows.fit_groups).size),
        "n_score_groups": int(np.unique(rows.score_groups).size),
    }
