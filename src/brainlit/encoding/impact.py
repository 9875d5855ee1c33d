"""Low-level impact, three ways: how much of a backbone's alignment goes when low-level features are accounted for.

All three are 100 (r_B - r_rest) / r_B, with r_B the correlation of the backbone alone; they differ in r_rest.

residual_lag0
    As published (Oota et al. 2024; Moussa et al. 2025): low-level features at the same TR are regressed out of the
    backbone's, the residual is delayed and fitted. Low-level information that the backbone holds at another lag
    stays, so this impact is too small for backbones with a long context.
residual_lags
    The same with low-level features at all lags -k .. k regressed out.
banded_ridge
    Nothing is regressed out of features: r_rest^2 = r_BL^2 - r_L^2 is what the joint banded model of backbone and
    low-level features adds to the low-level features alone (squares keep their sign).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainlit.encoding.delays import delay_within
from brainlit.encoding.folds import make_folds
from brainlit.encoding.groups import Array, BoolArray, Float32Array, FloatArray, demean_within, position_in_group
from brainlit.encoding.search import SolverName, check_alphas, choose, open_search, refit_weights, search_pool
from brainlit.encoding.standardise import standardise

IMPACTS: tuple[str, ...] = ("residual_lag0", "residual_lags", "banded_ridge")
EXPLAINED = 1e-4
"""A backbone column with less than this share of its variance left is wholly low-level: its residual is set to 0."""


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


def banded_rest(r_both: npt.ArrayLike, r_low_level: npt.ArrayLike) -> FloatArray:
    """Correlation that the backbone adds: sign(U) sqrt(|U|) with U = r_BL |r_BL| - r_L |r_L|.

    If low-level features predict nothing it is r_BL (an impact of 0 where the joint model is the backbone's); if
    the backbone adds nothing to them it is 0 (an impact of 100).

    >>> banded_rest([0.5, 0.3], [0.3, 0.5]).round(3).tolist()
    [0.4, -0.4]
    """
    both, low = np.asarray(r_both, dtype=np.float64), np.asarray(r_low_level, dtype=np.float64)
    unique = both * np.abs(both) - low * np.abs(low)
    return np.asarray(np.sign(unique) * np.sqrt(np.abs(unique)))


def residual_features(
    backbone: npt.ArrayLike,
    low_level: npt.ArrayLike,
    groups: npt.ArrayLike,
    fit: BoolArray,
    lags_trs: Sequence[int],
    *,
    alphas: Sequence[float],
    n_folds: int,
    purge_trs: int,
    solver: SolverName = "auto",
) -> Float32Array:
    """Backbone features minus what a ridge on low-level features at the given lags predicts of them.

    The ridge is fitted on the fitted rows only (one alpha per feature) and applied to all rows.

    Parameters
    ----------
    backbone : array of shape (n_trs, d_backbone)
    low_level : array of shape (n_trs, d_low_level)
    groups : int array of shape (n_trs,)
    fit : bool array of shape (n_trs,)
    lags_trs : sequence of int
        (0,) for the published form; positive lags look back, negative ones ahead.

    Returns
    -------
    float32 array of shape (n_trs, d_backbone)
        In units of the standardised features: not rescaled, so that what is left stays as small as it is. Columns
        that low-level features explain wholly (see EXPLAINED) are 0.
    """
    labels = np.asarray(groups)
    targets = standardise(backbone, labels, fit)
    lagged = demean_within(delay_within(standardise(low_level, labels, fit), labels, lags_trs), labels)
    row_norm = np.square(lagged[fit]).sum(axis=1).mean()
    if row_norm == 0:
        return targets
    predictors = (lagged / np.sqrt(row_norm)).astype(np.float32)
    folds = make_folds(labels[fit], n_folds, purge_trs, position_in_group(labels)[fit])
    search = open_search([predictors[fit]], targets[fit], folds, alphas, solver=solver)
    table = search_pool(search, np.ones((1, 1)))
    weights = refit_weights(search, table, choose(table), check_alphas(alphas))[0]
    return _zero_if_explained(targets - predictors @ weights, targets, fit)


def _zero_if_explained(residual: Array, targets: Array, fit: BoolArray) -> Float32Array:
    left, whole = np.square(residual[fit]).sum(axis=0), np.square(targets[fit]).sum(axis=0)
    return np.where(left > EXPLAINED * whole, residual, 0.0).astype(np.float32)
