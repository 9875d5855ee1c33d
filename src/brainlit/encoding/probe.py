"""The probe: how well features predict responses, and what part of that is low-level, semantic, or the backbone's own.

Bands are standardised per group, delayed inside groups and fitted by banded ridge with story-wise folds; everything is
scored on other stories. All nested models share one search: each mixture of bands (gamma) is tried once, and a model
picks among those inside its set (see `gammas`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, Float32Array, FloatArray, naming
from brainlit.encoding.bands import gather_bands
from brainlit.encoding.ceiling import ceiling_of_rows
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.partition import (
    low_level_impact,
    model_name,
    partition_variance,
    residual_features,
    semipartial,
)
from brainlit.encoding.probe_fit import NestedFit, ProbeCache, ProbeFit, array_hash
from brainlit.encoding.probe_rows import (
    ProbeRows,
    ProbeTargets,
    check_delays,
    prepare_rows,
    prepare_targets,
    short_groups,
)
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.search import gamma_pool, inside_set
from brainlit.encoding.temporal import Band, TemporalBand, as_band
from brainlit.encoding.temporal_choice import BandWeights, SubjectWeights, choose_weights, weighed
from brainlit.encoding.warm_start import WarmStart, wanted_gammas

CONSTANT_BAND = "band '{}' is constant on the fitted rows, so it explains nothing; check it or leave it out."
NO_LOW_LEVEL = (
    "no band of the probe is named low_level, so there is neither a low-level share nor an impact; give the band that"
    " they are about this name: --probe.bands '{low_level: [SPACE, ...], ...}'."
)
ALL_SUB_BANDS = "all"
"""Name of the model of all sub-bands."""


def run_probe(
    bands: Mapping[str, Band],
    Y: Array,
    groups: npt.ArrayLike,
    fit: npt.ArrayLike,
    score: npt.ArrayLike,
    config: ProbeConfig | None = None,
    *,
    ceiling: npt.ArrayLike | None = None,
    cache: ProbeCache | None = None,
    warm: WarmStart | None = None,
    weights: Mapping[str, BandWeights] | None = None,
) -> ProbeResult:
    """Fit all nested models of the bands on some groups and score them on others.

    Parameters
    ----------
    bands : mapping of 'backbone', 'low_level', 'semantic' to array of shape (n_trs, n_features)
        Raw features on the TR grid: not delayed, not scaled. What needs a missing band is absent from the result. A
        band may come in sub-bands, 'low_level/spectral' and 'low_level/rates', which make up the band side by side,
        and in several temporal forms, as a TemporalBand.
    Y : array of shape (n_trs, n_voxels)
        On one scale in all stories: each presentation z-scored, say, and of several the mean, not z-scored again.
    groups : int array of shape (n_trs,)
        One number per story (or span); rows of a group are contiguous and in order of time.
    fit, score : bool arrays of shape (n_trs,)
        Rows fitted on and rows scored, in different groups. Rows in neither only feed the delays of their group.
    config : ProbeConfig, optional
    ceiling : array of shape (n_scored, n_voxels) or (n_voxels,), optional
        From `signal_rows` of the repeats of the scored rows (those after the first skip_trs of each story), or the
        highest reachable correlation per voxel where that is known from elsewhere. Kept beside the scores.
    cache : ProbeCache, optional
        Give the same one to probes that share stimulus bands and responses.
    warm : WarmStart, optional
        From an earlier probe of the same voxels, rows and settings: each voxel tries only the gammas that were best
        for it there.
    weights : mapping of band to weights, optional
        From `choose_weights`, of the temporal parts that are to be weighed; None chooses them here.

    Raises
    ------
    LeakError
        If a group is both fitted and scored, or the warm start comes from a probe of other rows.
    ValueError
        If shapes, bands or masks make no sense, or no voxel is left.
    """
    ceilings = None if ceiling is None else {"": ceiling}
    warms = None if warm is None else {"": warm}
    given = None if weights is None else {"": weights}
    probes = partial(run_probes, ceilings=ceilings, cache=cache, warm=warms, weights=given)
    return probes(bands, {"": Y}, groups, fit, score, config)[""]


def run_probes(
    bands: Mapping[str, Band],
    Ys: Mapping[str, Array],
    groups: npt.ArrayLike,
    fit: npt.ArrayLike,
    score: npt.ArrayLike,
    config: ProbeConfig | None = None,
    *,
    ceilings: Mapping[str, npt.ArrayLike | None] | None = None,
    cache: ProbeCache | None = None,
    warm: Mapping[str, WarmStart] | None = None,
    weights: SubjectWeights | None = None,
) -> dict[str, ProbeResult]:
    """Probe several subjects who heard the same rows; each gets the result that `run_probe` gives it alone.

    What does not depend on the responses (products and decompositions of features) is done once for all of them, or for
    those whose bands have the same weights. Other parameters than these, and errors, are those of `run_probe`.

    Parameters
    ----------
    Ys : mapping of subject to array of shape (n_trs, n_voxels)
        Voxel counts may differ.
    ceilings : mapping of subject to array or None, optional
        As `ceiling` of `run_probe`.
    warm : mapping of subject to WarmStart, optional
        Subjects without one try every gamma.
    weights : mapping of subject to mapping of band to weights, optional
    """
    settings = config or ProbeConfig()
    responses = {name: _checked_responses(name, Y, len(np.asarray(groups))) for name, Y in Ys.items()}
    n_trs = len(np.asarray(groups))
    checked = {band: _checked(band, X, n_trs) for band, X in bands.items()}
    whole, _ = gather_bands(checked, settings.band_names)
    rows = prepare_rows(groups, fit, score, settings.skip_trs, n_trs)
    if any("fir" in as_band(X).parts for X in whole.values()):
        check_delays(rows, settings.delays_trs)
    n_voxels = {name: Y.shape[1] for name, Y in responses.items()}
    pool = gamma_pool(len(whole), settings.n_gammas, settings.seed)
    wanted_gammas(warm or {}, n_voxels, pool, tuple(whole), rows_key(rows))  # refuses before anything is searched
    if weights is None:
        weights = choose_weights(checked, responses, groups, fit, score, settings, cache=cache)
    results: dict[str, ProbeResult] = {}
    for subjects, own in _alike(Ys, weights):
        ridges = ProbeFit(rows, _usable_targets(subjects, responses, rows), settings, cache)
        starts = {name: start for name, start in (warm or {}).items() if name in subjects}
        wanted = wanted_gammas(starts, {name: n_voxels[name] for name in subjects}, pool, tuple(whole), rows_key(rows))
        together = _probe_together(ridges, checked, own, wanted)
        edges = np.cumsum([0, *(n_voxels[name] for name in subjects)])
        for name, (first, last) in zip(subjects, pairwise(edges), strict=True):
            results[name] = together.select(slice(int(first), int(last)))
    n_scored = int(rows.score.sum())
    return {
        name: replace(results[name], **ceiling_fields((ceilings or {}).get(name), n_scored, n))
        for name, n in n_voxels.items()
    }


def _alike(names: Iterable[str], weights: SubjectWeights) -> Iterator[tuple[list[str], Mapping[str, BandWeights]]]:
    """Subjects whose bands have the same weights, with these."""
    left = list(names)
    while left:
        own = weights.get(left[0], {})
        alike = [name for name in left if weights.get(name, {}) == own]
        yield alike, own
        left = [name for name in left if name not in alike]


def _usable_targets(subjects: Sequence[str], responses: Mapping[str, Array], rows: ProbeRows) -> ProbeTargets:
    """The voxels of some subjects side by side; ValueError where one has none that can be used."""
    targets = prepare_targets([responses[name] for name in subjects], rows)
    edges = np.cumsum([0, *(responses[name].shape[1] for name in subjects)])
    voxels = zip(subjects, pairwise(edges), strict=True)
    if unusable := [name for name, (first, last) in voxels if not targets.good[first:last].any()]:
        raise ValueError(
            f"no voxel of {', '.join(unusable)} is finite and changing on the used rows; check the responses, or leave"
            " the subject out."
        )
    return targets


def _probe_together(
    ridges: ProbeFit, bands: Mapping[str, Band], weights: Mapping[str, BandWeights], wanted: BoolArray | None
) -> ProbeResult:
    """All scores of all voxels; `wanted` says which gammas are tried for which voxel."""
    settings, rows = ridges.settings, ridges.rows
    given, finest = gather_bands(bands, settings.band_names)
    whole, parts = weighed(given, weights), weighed(finest, weights)
    nested = ridges.fit_nested(whole, None if wanted is None else wanted[:, ridges.targets.good])
    is_finer = settings.sub_bands and len(parts) > 1 and any("/" in name for name in parts)
    more: dict[str, Mapping[str, npt.NDArray[Any]]] = dict(score_sub_bands(ridges, parts)) if is_finer else {}
    # every form of the low-level features is regressed out, also those that the low-level band has no use for
    residuals = predict_residuals(ridges, whole, given.get("low_level"))
    if "backbone" in whole:
        more["left_out"] = ridges.leave_out(whole["backbone"], nested.choices["backbone"])
    is_delayed = any("fir" in as_band(X).parts for X in whole.values())
    short = short_groups(rows, settings.delays_trs) if is_delayed else []
    warnings = [*short, *(CONSTANT_BAND.format(band) for band in nested.constant)]
    warnings += [] if "low_level" in settings.bands else [NO_LOW_LEVEL]
    temporal = {band: dict(as_band(X).prior) for band, X in whole.items()}
    meta = {"warm_start": wanted is not None, "warnings": warnings, "temporal": temporal}
    return assemble(ridges, nested, residuals, more, **meta)


def _checked_responses(name: str, Y: npt.ArrayLike, n_trs: int) -> Array:
    values = np.asarray(Y)
    if values.ndim != 2 or len(values) != n_trs:
        raise ValueError(f"Y{f' of {name}' if name else ''} has shape {values.shape}; need ({n_trs}, n_voxels).")
    return values


def _checked(name: str, X: Band | npt.ArrayLike, n_trs: int) -> Band:
    if isinstance(X, TemporalBand):
        return X.changed(lambda part: _checked_array(name, part, n_trs))
    return _checked_array(name, X, n_trs)


def _checked_array(name: str, X: npt.ArrayLike, n_trs: int) -> Array:
    values = np.asarray(X)
    if values.ndim != 2 or len(values) != n_trs:
        raise ValueError(f"band {name!r} has shape {values.shape}; need ({n_trs}, n_features), a row per row of Y.")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"band {name!r} is {values[row, column]} at row {row}, column {column}; features are finite.")
    return values


# --- From fitted models to results ---


def predict_residuals(ridges: ProbeFit, bands: Mapping[str, Band], low_level: Band | None) -> dict[str, Float32Array]:
    """What the backbone predicts once low-level features are regressed out of it; empty without both bands."""
    settings, rows = ridges.settings, ridges.rows
    if not settings.low_level_impact or "backbone" not in bands or low_level is None:
        return {}
    k = settings.impact_lags_trs
    given = bands["backbone"], low_level, rows.groups, rows.fit
    lags_trs = {"residual_lag0": (0,), "residual_lags": tuple(range(-k, k + 1))}
    predicted = {}
    for way, lags in lags_trs.items():
        with naming(f"the backbone without low-level features ({way})"):
            predicted[way] = ridges.predict_alone(residual_features(*given, lags, settings))
    return predicted


def assemble(
    ridges: ProbeFit,
    nested: NestedFit,
    residuals: Mapping[str, Float32Array],
    more: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    **meta: Any,
) -> ProbeResult:
    """Score every model and put all arrays on the full set of voxels of all subjects; `more` are tables, too."""
    spread = ridges.targets.spread
    r = {model: ridges.correlate(predicted) for model, predicted in nested.predictions.items()}
    r2 = {model: ridges.r2(predicted) for model, predicted in nested.predictions.items()}
    rest = {way: ridges.correlate(predicted) for way, predicted in residuals.items()}
    if rest:
        low = nested.predictions["low_level"]
        between = ridges.correlate(residuals["residual_lags"], low)
        rest["residual_lags"] = semipartial(rest["residual_lags"], r["low_level"], between)
        between = ridges.correlate(nested.predictions["backbone+low_level"], low)
        rest["banded_ridge"] = semipartial(r["backbone+low_level"], r["low_level"], between)
    joint = model_name(nested.n_columns)
    tables = {
        "r_by_model": r,
        "r2_by_model": r2,
        "split": nested.split,
        "partition": partition_variance(r2, tuple(nested.n_columns)),
        "impact": {way: low_level_impact(r["backbone"], left) for way, left in rest.items()},
        "r_rest": rest,
        **more,
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
        observed=spread(ridges.targets.score),
        score_groups=ridges.rows.score_groups,
        ceiling=None,
        signal=None,
        alpha_at_edge={},
        n_dropped=int((~ridges.targets.good).sum()),
        used=ridges.targets.good,
        meta=_describe(ridges, nested, joint) | meta,
    )


def rows_key(rows: ProbeRows) -> str:
    """Hash of which rows are fitted and which scored."""
    return array_hash(rows.groups, rows.fit, rows.score)


def ceiling_fields(ceiling: npt.ArrayLike | None, n_scored: int, n_voxels: int) -> dict[str, Any]:
    """The fields `ceiling` and `signal` of a result."""
    if ceiling is None:
        return {"ceiling": None, "signal": None}
    values = np.asarray(ceiling)
    if values.shape == (n_voxels,):
        return {"ceiling": values.astype(np.float64), "signal": None}
    if values.shape == (n_scored, n_voxels):
        return {"ceiling": ceiling_of_rows(values), "signal": values.astype(np.float32, copy=False)}
    raise ValueError(
        f"ceiling has shape {values.shape}; need one value for each of the {n_voxels} voxels, or for each of the"
        f" {n_scored} scored rows too ({n_scored}, {n_voxels})."
    )


def _describe(ridges: ProbeFit, nested: NestedFit, joint: str) -> dict[str, Any]:
    """Everything that is needed to say how the numbers came about, as plain values."""
    settings, rows = ridges.settings, ridges.rows
    n_fit_groups = int(np.unique(rows.fit_groups).size)
    return {
        "joint": joint,
        "solver": nested.solver,
        "score": "R2 = 1 - SSE/SST and Pearson r on the scored rows, each group demeaned",
        "seed": settings.seed,
        "delays_trs": list(settings.delays_trs),
        "alphas": list(settings.alphas),
        "gammas": nested.gammas.tolist(),
        "mixture_search": nested.mixture_search,
        "n_columns": dict(nested.n_columns),
        "keep_variance": settings.keep_variance if nested.solver == "primal" else 1.0,
        "precision": settings.solver.precision,
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


# --- A finer cut: bands that come in sub-bands, such as spectral, articulatory and phonemic features and rates ---
#
# All 2^k nested models of many sub-bands would take too long and say little. Reported are the product measure of one
# joint model in which every sub-band has its own regularisation, and what each sub-band alone adds: the R2 that is lost
# when it is left out. Models of the whole bands are fitted as ever, on the sub-bands side by side.


def sub_band_pool(names: tuple[str, ...], n_gammas: Mapping[int, int], seed: int) -> FloatArray:
    """Gammas of the joint model (corners, middle, spread points), and the same with each sub-band left out.

    A model without a sub-band may choose among the joint model's mixtures with that share set to 0, so that the two
    differ in nothing but the sub-band.

    Returns
    -------
    array of shape (n_pool, n_bands)
    """
    n_bands, n_inside = len(names), n_gammas[max(n_gammas)]
    points = gamma_pool(n_bands, {**dict.fromkeys(range(1, n_bands), 1), n_bands: n_inside}, seed)
    corners, inside = points[:n_bands], points[len(points) - n_inside :]
    pool = [corners, inside]
    for left_out in (k for k, name in enumerate(names) if "/" in name):
        without = inside.copy()
        without[:, left_out] = 0.0
        pool.append(without / without.sum(axis=1, keepdims=True))
    return np.concatenate(pool)


def score_sub_bands(ridges: ProbeFit, parts: Mapping[str, Band]) -> dict[str, Mapping[str, FloatArray]]:
    """Fit the joint model of all parts and one without each sub-band; the result's tables of sub-bands, (n_good,) each.

    Parameters
    ----------
    parts : mapping of band or sub-band to array of shape (n_trs, n_features)
        From `gather_bands`; at least two.
    """
    names = tuple(parts)
    pool = sub_band_pool(names, ridges.settings.n_gammas, ridges.settings.seed)
    sub_bands = [name for name in names if "/" in name]
    inside = {name: inside_set(pool, [k for k, other in enumerate(names) if other != name]) for name in sub_bands}
    fitted = ridges.fit_models(parts, pool, {**inside, ALL_SUB_BANDS: np.ones(len(pool), dtype=bool)})
    r2 = {model: ridges.r2(predicted) for model, predicted in fitted.predictions.items()}
    return {"sub_split": fitted.split, "sub_unique": {name: r2[ALL_SUB_BANDS] - r2[name] for name in sub_bands}}
