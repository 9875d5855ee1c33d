"""Who explains what: nested models, the variance partition, the product-measure split, and the low-level impact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import (
    Array,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    column_scale,
    delay_within,
    demean_within,
    position_in_group,
)
from brainlit.encoding.banded import open_search
from brainlit.encoding.config import BANDS, ProbeConfig, check_alphas
from brainlit.encoding.search import choose, make_folds, refit_weights, search_pool
from brainlit.encoding.temporal import Band, TemporalBand, as_band

IMPACTS: tuple[str, ...] = ("residual_lag0", "residual_lags", "banded_ridge")
EXPLAINED = 1e-4
"""A backbone column with less than this share of its variance left is wholly low-level: its residual is set to 0."""
ROUNDING = 1e-10
"""Share of a float32 prediction's power that is rounding."""


def order_bands(names: Iterable[str], known: Iterable[str] | None = None) -> tuple[str, ...]:
    """The bands in their fixed order: backbone, low_level, and all others by name.

    The order is that of the names alone, so that a model is called the same whatever other bands a probe has.

    Parameters
    ----------
    known : names, optional
        The bands that a probe has (`ProbeConfig.band_names`).

    Raises
    ------
    ValueError
        If there is none, or one is not a band of the probe.

    >>> order_bands({"word_vectors", "context", "low_level", "backbone"})
    ('backbone', 'low_level', 'context', 'word_vectors')
    """
    given = set(names)
    probed = given if known is None else set(known)
    if given - probed or not given:
        raise ValueError(
            f"bands are {sorted(given)}; need at least one of {', '.join(order_bands(probed or BANDS))} and no other."
            " Others are named in the probe's setting bands."
        )
    return tuple(sorted(given, key=lambda band: (band != "backbone", band != "low_level", band)))


def model_name(bands: Iterable[str]) -> str:
    """Key of the model of some bands: 'backbone+low_level'."""
    return "+".join(order_bands(bands))


def part_name(bands: Iterable[str]) -> str:
    """Key of the part that some bands explain together: 'backbone&low_level'; of one band: what only it explains."""
    return "&".join(order_bands(bands))


def subsets(bands: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty sets of the bands, smaller first: the nested models.

    >>> subsets(("backbone", "low_level"))
    [('backbone',), ('low_level',), ('backbone', 'low_level')]
    """
    ordered = order_bands(bands)
    return [members for size in range(1, len(ordered) + 1) for members in combinations(ordered, size)]


def partition_variance(r2_by_model: Mapping[str, Array], bands: Sequence[str]) -> dict[str, FloatArray]:
    """Unique and shared parts of the joint R2, from the R2 of all nested models.

    The part that exactly the bands T explain is sum over U in T of (-1)^(|U| + 1) R2(others + U), others being all
    bands but T and R2 of no band 0. For three bands these are the seven areas of the usual picture of three circles.
    They add up to the joint R2 exactly. A part can be negative: where models do not generalise, or where bands help
    each other (suppression); it is reported as it is.

    Parameters
    ----------
    r2_by_model : mapping of model name to R2, arrays of shape (n_voxels,)
    bands : the bands of the joint model

    Returns
    -------
    dict of part name to array of shape (n_voxels,)
    """
    ordered = order_bands(bands)
    parts = {}
    for members in subsets(ordered):
        others = [band for band in ordered if band not in members]
        total = np.zeros_like(np.asarray(r2_by_model[model_name(ordered)], dtype=np.float64))
        for size in range(len(members) + 1):
            for added in combinations(members, size):
                if others or added:
                    total += (-1) ** (size + 1) * np.asarray(r2_by_model[model_name([*others, *added])])
        parts[part_name(members)] = total
    return parts


def split_r2(observed: Array, parts: Mapping[str, Array]) -> dict[str, FloatArray]:
    """Product measure: what each band's part of the joint prediction contributes to the joint R2.

    With p the joint prediction, p_b the part of band b and y the observed response (all zero-mean within groups),
    band b contributes sum_t p_b (2 y - p) / sum_t y^2; the contributions sum to R2 = 1 - |y - p|^2 / |y|^2. This is
    himalaya's `r2_score_split`.

    Parameters
    ----------
    observed : array of shape (n_trs, n_voxels)
    parts : mapping of band to array of shape (n_trs, n_voxels)

    Returns
    -------
    dict of band to array of shape (n_voxels,)
    """
    y = np.asarray(observed, dtype=np.float64)
    joint = np.sum([np.asarray(part, dtype=np.float64) for part in parts.values()], axis=0)
    weight = (2.0 * y - joint) / np.square(y).sum(axis=0)
    return {band: np.einsum("tv,tv->v", np.asarray(part, dtype=np.float64), weight) for band, part in parts.items()}


# --- Low-level impact, three ways: how much of the alignment goes when low-level features are accounted for ---
#
# All three are 100 (r_B - r_rest) / r_B, with r_B the correlation of the backbone alone; they differ in r_rest.
#
# residual_lag0
#     As published (Oota et al. 2024; Moussa et al. 2025): low-level features at the same TR are regressed out of the
#     backbone's, the residual is delayed and fitted. Low-level information that the backbone holds at another lag
#     stays, so this impact is too small for backbones with a long context.
# residual_lags
#     The same with low-level features at all lags -k .. k regressed out; and r_rest is the correlation with what the
#     residual predicts beyond low-level features (`semipartial`). For a ridge on hundreds of columns leaves some
#     low-level information in the residual, the more the fewer rows it was fitted on.
# banded_ridge
#     Nothing is regressed out of features: r_rest is the correlation with what the joint banded model of backbone and
#     low-level features predicts beyond the low-level features alone (`semipartial`).
#     With endless data r_rest^2 = r_BL^2 - r_L^2. That difference is not taken of a voxel's noisy correlations: the
#     mean over voxels of a signed root of it is far too near 0, and its bootstrap twice as far.


def low_level_impact(r_backbone: npt.ArrayLike, r_rest: npt.ArrayLike) -> FloatArray:
    """Percent of the alignment that is lost: 100 (r_B - r_rest) / r_B; NaN where r_B is not positive.

    Per voxel this ratio is wild where r_B is small: for a region, divide the means (`ProbeResult.region`).
    Above 100 where r_rest is negative, below 0 where the residual predicts better.

    >>> low_level_impact([0.5, 0.0], [0.1, 0.1]).tolist()
    [80.0, nan]
    """
    r_b, rest = np.asarray(r_backbone, dtype=np.float64), np.asarray(r_rest, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(r_b > 0, 100.0 * (r_b - rest) / r_b, np.nan))


def semipartial(r: npt.ArrayLike, r_low_level: npt.ArrayLike, r_between: npt.ArrayLike) -> FloatArray:
    """Correlation of the response with what a model predicts beyond low-level features: (r - r_L c) / sqrt(1 - c^2).

    That is the correlation with the model's prediction minus its regression on the low-level prediction. With endless
    data, of the joint model of backbone and low-level features, it is sqrt(R2_BL - R2_L). Where low-level features
    predict nothing it is r (an impact of 0 where the joint model is the backbone's); where the backbone adds nothing to
    them it is 0 (an impact of 100).

    Parameters
    ----------
    r, r_low_level : arrays
        Correlations of the response with the model's prediction and with that of low-level features.
    r_between : array
        Correlation c of the two predictions; where it is 1, but for rounding, the result is 0.

    >>> semipartial([0.5, 0.5, 0.3], [0.3, 0.0, 0.3], [0.6, 0.0, 1.0]).round(3).tolist()
    [0.4, 0.5, 0.0]
    """
    own, low, between = (np.asarray(values, dtype=np.float64) for values in (r, r_low_level, r_between))
    left = 1.0 - np.square(between)
    # where both models are the same, what is left of one is rounding, and its correlation would be chance
    same = left <= ROUNDING
    return np.where(same, 0.0, (own - low * between) / np.sqrt(np.where(same, 1.0, left)))


def residual_features(
    backbone: Band,
    low_level: Band,
    groups: npt.ArrayLike,
    fit: BoolArray,
    lags_trs: Sequence[int],
    config: ProbeConfig,
) -> Band:
    """Backbone features minus what a ridge on low-level features at the given lags predicts of them.

    The ridge is fitted on the fitted rows only (one alpha per feature) and applied to all rows. Of a temporal band each
    part is predicted, from all parts of the low-level band side by side.

    Parameters
    ----------
    backbone : array of shape (n_trs, d_backbone), or TemporalBand
    low_level : array of shape (n_trs, d_low_level), or TemporalBand
    groups : int array of shape (n_trs,)
    fit : bool array of shape (n_trs,)
    lags_trs : sequence of int
        (0,) for the published form; positive lags look back, negative ones ahead.
    config : ProbeConfig
        Its alphas, folds, purge and solver are used.

    Returns
    -------
    float32 array of shape (n_trs, d_backbone), or TemporalBand of the same parts
        In units of the standardised features: not rescaled, so that what is left stays as small as it is. Columns
        that low-level features explain wholly (see EXPLAINED) are 0.
    """
    labels, band = np.asarray(groups), as_band(backbone)
    edges = np.cumsum([0, *(part.shape[1] for part in band.parts.values())])
    targets = np.concatenate([_unit_columns(part, labels, fit) for part in band.parts.values()], axis=1)
    lagged = [_lagged(part, labels, fit, lags_trs) for part in as_band(low_level).parts.values()]
    left = _residual(targets, [part for part in lagged if part.any()], labels, fit, config)
    if not isinstance(backbone, TemporalBand):
        return left
    columns = dict(zip(band.parts, pairwise(edges), strict=True))
    return replace(band, parts={part: left[:, a:b] for part, (a, b) in columns.items()})


def _unit_columns(X: Array, groups: IntArray, fit: BoolArray) -> Float32Array:
    scaled: FloatArray = demean_within(X, groups) * column_scale(X, groups, fit)
    return scaled.astype(np.float32)


def _lagged(X: Array, groups: IntArray, fit: BoolArray, lags_trs: Sequence[int]) -> Float32Array:
    """All columns at all lags, with a mean squared norm of 1 of a fitted row; all 0 if constant."""
    lagged = demean_within(delay_within(_unit_columns(X, groups, fit), groups, lags_trs), groups)
    row_norm = np.square(lagged[fit]).sum(axis=1).mean()
    unit: FloatArray = lagged / np.sqrt(row_norm or 1.0)
    return unit.astype(np.float32)


def _residual(
    targets: Float32Array,
    lagged: Sequence[Float32Array],
    labels: IntArray,
    fit: BoolArray,
    config: ProbeConfig,
) -> Float32Array:
    if not lagged:
        return targets
    predictors = lagged[0] if len(lagged) == 1 else np.concatenate(lagged, axis=1) / np.float32(np.sqrt(len(lagged)))
    seen, aims = predictors[fit], targets[fit]
    folds = make_folds(labels[fit], config.n_folds, config.purge, position_in_group(labels)[fit])
    search = open_search([seen], aims, folds, config.alphas, config.solver)
    table = search_pool(search, np.ones((1, 1)))
    weights = refit_weights(search, table, choose(table), check_alphas(config.alphas))[0]
    residual = targets - predictors @ weights
    left, whole = np.square(aims - seen @ weights).sum(axis=0), np.square(aims).sum(axis=0)
    return np.where(left > EXPLAINED * whole, residual, 0.0).astype(np.float32)
