"""The probe: how well features predict responses, and what part of that is low-level, semantic, or the backbone's own.

Bands are standardised per group, delayed inside groups and fitted by banded ridge with story-wise folds; everything is
scored on other stories. All nested models share one search: each mixture of bands (gamma) is tried once, and a model
picks among those inside its set (see `gammas`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from brainlit.encoding.assemble import NO_SUB_BANDS, assemble, own_part, predict_residuals, rows_key
from brainlit.encoding.cache import ProbeCache
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.groups import Array, FloatArray
from brainlit.encoding.join import join_results
from brainlit.encoding.probe_files import load_probe, save_probe
from brainlit.encoding.probe_rows import (
    ProbeTargets,
    check_delays,
    prepare_rows,
    prepare_targets,
    short_groups,
)
from brainlit.encoding.problem import Problem
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.sub_bands import gather_bands, has_sub_bands, score_sub_bands
from brainlit.encoding.warm import WarmStart, wanted_gammas

__all__ = [
    "ProbeCache",
    "ProbeConfig",
    "ProbeResult",
    "WarmStart",
    "join_results",
    "load_probe",
    "run_probe",
    "run_probes",
    "save_probe",
    "score_single_band",
]

CONSTANT_BAND = "band '{}' is constant on the fitted rows, so it explains nothing; check it or leave it out."


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
    warm: WarmStart | None = None,
) -> ProbeResult:
    """Fit all nested models of the bands on some groups and score them on others.

    Parameters
    ----------
    bands : mapping of 'backbone', 'low_level', 'semantic' to array of shape (n_trs, n_features)
        Raw features on the TR grid: not delayed, not scaled. What needs a missing band is absent from the result. A
        band may come in sub-bands, 'low_level/spectral' and 'low_level/rates', which make up the band side by side.
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
    warm : WarmStart, optional
        From an earlier probe of the same voxels, rows and settings: each voxel tries only the gammas that were best
        for it there.

    Raises
    ------
    LeakError
        If a group is both fitted and scored, or the warm start comes from a probe of other rows.
    ValueError
        If shapes, bands or masks make no sense, or no voxel is left.
    """
    ceilings = None if ceiling is None else {"": ceiling}
    warms = None if warm is None else {"": warm}
    return run_probes(bands, {"": Y}, groups, fit, score, config, ceilings=ceilings, cache=cache, warm=warms)[""]


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
    warm: Mapping[str, WarmStart] | None = None,
) -> dict[str, ProbeResult]:
    """Probe several subjects who heard the same rows; each gets the result that `run_probe` gives it alone.

    What does not depend on the responses (products and decompositions of features) is done once for all of them.

    Parameters
    ----------
    Ys : mapping of subject to array of shape (n_trs, n_voxels)
        Voxel counts may differ.
    ceilings : mapping of subject to array of shape (n_voxels,) or None, optional
    warm : mapping of subject to WarmStart, optional
        Subjects without one try every gamma.

    Other parameters, and errors, are those of `run_probe`.
    """
    settings = config or ProbeConfig()
    responses = {name: _checked_responses(name, Y, len(np.asarray(groups))) for name, Y in Ys.items()}
    n_trs, n_voxels = len(np.asarray(groups)), {name: Y.shape[1] for name, Y in responses.items()}
    arrays, parts = gather_bands({band: _checked(band, X, n_trs) for band, X in bands.items()})
    rows = prepare_rows(groups, fit, score, settings.skip_trs, n_trs)
    check_delays(rows, settings.delays_trs)
    targets = prepare_targets(list(responses.values()), rows)
    edges = np.cumsum([0, *n_voxels.values()])
    voxels = {name: slice(int(a), int(b)) for name, (a, b) in zip(Ys, pairwise(edges), strict=True)}
    _check_usable(targets, voxels)
    problem = Problem(rows, targets, settings, cache)
    wanted = wanted_gammas(warm or {}, n_voxels, problem.pool(len(arrays)), rows_key(rows))
    nested = problem.fit_nested(arrays, None if wanted is None else wanted[:, targets.good])
    finer = score_sub_bands(problem, parts) if settings.sub_bands and has_sub_bands(parts) else NO_SUB_BANDS
    residuals = predict_residuals(problem, arrays)
    warnings = [*short_groups(rows, settings.delays_trs), *(CONSTANT_BAND.format(band) for band in nested.constant)]
    whole = assemble(problem, nested, residuals, finer, warm_start=wanted is not None, warnings=warnings)
    return {name: own_part(whole, part, (ceilings or {}).get(name)) for name, part in voxels.items()}


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
    problem = Problem(rows, targets, settings)
    return np.asarray(targets.spread(problem.correlate(problem.predict_alone(_checked("X", X, len(Y))))))


def _check_usable(targets: ProbeTargets, voxels: Mapping[str, slice]) -> None:
    unusable = [name for name, part in voxels.items() if not targets.good[part].any()]
    if unusable:
        raise ValueError(
            f"no voxel of {', '.join(unusable)} is finite and changing on the used rows; check the responses, or leave"
            " the subject out."
        )


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
