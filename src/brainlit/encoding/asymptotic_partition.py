"""A region's parts as shares of the joint R2 that endless data would give, with intervals that cover them.

The parts of a probe shrink where rows are few: held-out R2 pays for the noise in the weights and for the shrinkage that
ridge puts on them, more so for larger models, so unique parts shrink most. Here neither enters. Weights are fitted by
least squares, so that their mean over fit stories is what endless data would give. The score is the covariance of
held-out responses and predictions instead of a squared error: c_m, the sum over voxels and scored rows of
y * (X_m b_m). As b_m is fitted on other stories, its noise does not change the mean of c_m, which is the variance that
the bands of model m explain of the responses. The parts made of the c_m (see `partition`), over the c of the joint
model, are the shares. For prediction least squares is poor, and c_m does not say how well a finite model predicts: that
is the probe's R2. All this holds for bands that are whole: what a cut takes from one band another gets credit for, so
where rows are too few for all columns there are no shares.

Intervals are +- t sqrt(V), V being the variance of the linearised ratio. What the noise of the fit adds to c_m is a sum
over pairs of a block of scored rows a and a block of fitted rows b, k_ab = sum_v y_a' X_a (X'X)^-1 X_b' e_b, with e the
residuals of the fit times sqrt(n / (n - n_columns)). Blocks of both kinds are drawn, so

    V = sum_a s_a^2 + sum_b (sum_a k_ab)^2 - sum_ab k_ab^2,

s_a being what the scored block adds to c_m (errors clustered two ways: Cameron, Gelbach & Miller 2011). The second term
is about as large as the first where stories are few: an interval that holds the predictions fixed is too short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, Float32Array, FloatArray, IntArray, position_in_group
from brainlit.encoding.bands import prepare_band
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.partition import model_name, order_bands, partition_variance, subsets
from brainlit.encoding.probe_rows import ProbeRows, ProbeTargets, prepare_rows, prepare_targets
from brainlit.encoding.statistics import Score, cut_blocks, student_quantile
from brainlit.encoding.temporal import Band
from brainlit.encoding.temporal_choice import BandWeights, choose_weights, weighed

TRS_PER_COLUMN = 2
"""Fitted rows for every column of the joint model. 1.5 would nearly do, but intervals are then half as wide again."""
MIN_SCORED_BLOCKS = 10
CUT = 1e-6
"""A backbone whose components leave out less than this share of its variance is whole."""
NULL = 1e-9
"""Components with less than this share of the largest one's variance are rounding."""


@dataclass(frozen=True, eq=False)
class RegionShares:
    """The partition of a region with endless data.

    Parameters
    ----------
    parts : mapping of part ('backbone', 'backbone&low_level', ...) to Score
        Shares of the joint R2; their values add up to 1, each may be negative.
    joint_r2 : Score
        Share of the responses' variance that all bands together would explain with endless data; not divided by any
        ceiling.
    low_level_share : Score or None
        (R2_B + R2_L - R2_BL) / R2_B of the same quantities; None without backbone or low-level band, and where the
        backbone explains nothing.
    n_columns : mapping of band to its columns after delays, without those that only rounding tells from others
    kept_variance : float
        Share of the backbone's variance on the fitted rows that its components hold; 1 where it is whole.
    is_cut : bool
        Whether the backbone is its leading components only, as asked. Shares and intervals are then those of these
        components: 'semantic' holds what the rest of the backbone would share with meaning.
    n_voxels, n_fit_trs, n_scored_blocks : int
    """

    parts: Mapping[str, Score]
    joint_r2: Score
    low_level_share: Score | None
    n_columns: Mapping[str, int]
    kept_variance: float
    is_cut: bool
    n_voxels: int
    n_fit_trs: int
    n_scored_blocks: int


def region_shares(
    bands: Mapping[str, Band],
    Y: Array,
    groups: npt.ArrayLike,
    fit: npt.ArrayLike,
    score: npt.ArrayLike,
    config: ProbeConfig | None = None,
    *,
    weights: Mapping[str, BandWeights] | None = None,
    backbone_components: int | None = None,
    block_trs: int = 15,
    level: float = 0.95,
) -> RegionShares:
    """Parts of the joint R2 of a region as endless data would give them; see the module's text for the formulas.

    Cost: no search; one decomposition per band and per model, and n_fit x n_scored x (n_columns + n_voxels)
    multiplications per model for the interval. Of the probe's settings, delays and skipped rows count.

    The intervals say what other minutes of such stories and of the same people would give. They say nothing of other
    people, and nothing of voxels that were picked by their score on the scored rows.

    Parameters
    ----------
    bands, groups, fit, score, config
        As for `run_probe`.
    weights : mapping of band to weights, optional
        Of temporal parts, where they are to be weighed; None chooses them on these voxels.
    Y : array of shape (n_trs, n_voxels)
        The region's voxels; sums run over all of them, in units of their sd on the fitted rows. Voxels that are not
        finite or constant are left out.
    backbone_components : int, optional
        Take this many leading components of the backbone's columns in its place, learned on the groups that are neither
        fitted nor scored: shares of these components, for backbones with too many columns for the rows.
    block_trs : int
        Rows per block, longer than the responses remember.
    level : float
        Coverage of the intervals.

    Raises
    ------
    LeakError
        If a group is both fitted and scored.
    ValueError
        If shapes, bands or masks make no sense, there are fewer than TRS_PER_COLUMN fitted rows for each column (the
        error says how many it takes), fewer than MIN_SCORED_BLOCKS blocks of scored rows, or the bands explain nothing
        of the region (the joint covariance is not positive), so that there is nothing to share.
    """
    settings = config or ProbeConfig()
    names = order_bands(bands, settings.band_names)
    rows = prepare_rows(groups, fit, score, settings.skip_trs, len(Y))
    if backbone_components is not None and "backbone" not in names:
        raise ValueError(
            f"backbone_components is {backbone_components}, and there is no backbone: the bands are {', '.join(names)}."
        )
    learn = _rows_to_learn_on(rows, settings.skip_trs, backbone_components)
    targets = prepare_targets(np.asarray(Y), rows)
    labels = (rows.score_groups, rows.fit_groups)
    blocks = [np.array([block[0] for block in cut_blocks(own, block_trs)]) for own in labels]
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; the coverage of an interval is between 0 and 1.")
    if len(blocks[0]) < MIN_SCORED_BLOCKS:
        raise ValueError(
            f"{len(blocks[0])} blocks of {block_trs} scored rows; an interval needs at least {MIN_SCORED_BLOCKS}."
            " Score more rows, or read the parts of the probe without an interval."
        )
    if weights is None:
        weights = choose_weights(bands, {"": Y}, groups, fit, score, settings)[""]
    given = (rows.groups, rows.fit, rows.used | learn, settings.delays_trs)
    prepared = {band: prepare_band(X, *given) for band, X in weighed(bands, weights).items()}
    kept = 1.0
    if backbone_components is not None:
        prepared["backbone"], kept = _leading(prepared["backbone"], rows, learn, backbone_components)
    used = rows.used[rows.used | learn]
    columns = _real_components({band: prepared[band][used] for band in names}, rows)
    sums = [_covariance([columns[band] for band in members], rows, targets, blocks) for members in subsets(names)]
    variance = np.add.reduceat(np.square(targets.score, dtype=np.float64).sum(axis=1), blocks[0])
    parts, joint_r2, low_level = _share_out(names, sums, variance, level)
    return RegionShares(
        parts=parts,
        joint_r2=joint_r2,
        low_level_share=low_level,
        n_columns={band: X.shape[1] for band, X in columns.items()},
        kept_variance=kept,
        is_cut=kept < 1.0 - CUT,
        n_voxels=targets.score.shape[1],
        n_fit_trs=int(rows.fit.sum()),
        n_scored_blocks=len(blocks[0]),
    )


def _rows_to_learn_on(rows: ProbeRows, skip_trs: int, n_components: int | None) -> BoolArray:
    """Rows of the groups that are neither fitted nor scored, (n_trs,); none where no components are asked for."""
    taken = np.unique(rows.groups[rows.used])
    other = ~np.isin(rows.groups, taken) & (position_in_group(rows.groups) >= skip_trs)
    if n_components is None:
        return np.zeros_like(rows.fit)
    if not 1 <= n_components < other.sum() - np.unique(rows.groups[other]).size:
        raise ValueError(
            f"backbone_components is {n_components}, to be learned on {int(other.sum())} rows of groups that are"
            " neither fitted nor scored; need at least 1, and more rows than components. Give bands and responses of"
            " other stories as well (those that tune, say): components of fitted stories are too much their own."
        )
    return np.asarray(other)


def _leading(X: Array, rows: ProbeRows, learn: BoolArray, n_components: int) -> tuple[Float32Array, float]:
    """Leading components of a band's columns, learned on other rows, and their share of the fitted rows' variance.

    Parameters
    ----------
    X : array of shape (n_used or learned on, n_columns)

    Returns
    -------
    float32 array of shape (n_used or learned on, at most n_components), float
    """
    taken = rows.used | learn
    V = _principal(X[learn[taken]].astype(np.float64))
    leading = X @ V[:, :n_components].astype(np.float32)
    whole, part = (float(np.square(values[rows.fit[taken]], dtype=np.float64).sum()) for values in (X, leading))
    return leading, min(part / whole, 1.0) if whole else 1.0


def _real_components(prepared: Mapping[str, Array], rows: ProbeRows) -> dict[str, FloatArray]:
    """Each band's components that are more than rounding, (n_used, k), all bands together few enough for the rows.

    No band is cut to fit: components of little variance are what tells bands apart.
    """
    columns, n_needed = {}, {}
    n_fit = int(rows.fit.sum())
    for band, X in prepared.items():
        V = _principal(X[rows.fit_of_used].astype(np.float64))
        columns[band] = X.astype(np.float64) @ V
        # with fewer rows than columns, rows may limit the components; endless rows would show more of them
        limited = n_fit < X.shape[1] and 2 * V.shape[1] > n_fit
        n_needed[band] = int(X.any(axis=0).sum()) if limited else V.shape[1]
    total = sum(n_needed.values())
    if TRS_PER_COLUMN * total > n_fit:
        raise ValueError(_too_few_rows(n_needed, n_fit))
    return columns


def _too_few_rows(n_columns: Mapping[str, int], n_fit: int) -> str:
    total, others = sum(n_columns.values()), sum(n for band, n in n_columns.items() if band != "backbone")
    each = ", ".join(f"{band} {n}" for band, n in n_columns.items())
    room = n_fit // TRS_PER_COLUMN - others
    cut = f", or backbone_components={room} at most, for the shares of that many components of the backbone alone"
    return (
        f"{total} columns (features times delays or temporal parts: {each}) are too many for {n_fit} fitted rows, and"
        f" shares of bands that were cut to fewer would be wrong. Fit at least {TRS_PER_COLUMN * total} rows, or take"
        f" fewer columns: temporal 'hrf' makes one of each feature, smaller feature spaces or a narrower layer"
        f"{cut if 'backbone' in n_columns and room > 0 else ''}."
    )


def _principal(F: FloatArray) -> FloatArray:
    """Directions of the rows of F whose variance is above rounding, that of most variance first: (n_columns, k)."""
    n_rows, n_columns = F.shape
    lam, V = np.linalg.eigh(F @ F.T if n_rows < n_columns else F.T @ F)
    lam, V = lam[::-1], V[:, ::-1]
    real = lam > NULL * max(lam[0] if lam.size else 0.0, np.finfo(float).tiny)
    lam, V = lam[real], V[:, real]
    return F.T @ V / np.sqrt(lam) if n_rows < n_columns else V


def _covariance(
    Xs: Sequence[FloatArray], rows: ProbeRows, targets: ProbeTargets, blocks: Sequence[IntArray]
) -> tuple[FloatArray, FloatArray]:
    """Scored blocks' parts of c_m, (n_scored_blocks,), and k_ab, (n_scored_blocks, n_fit_blocks), of one model."""
    X = np.concatenate(Xs, axis=1)
    y_fit, y_score = targets.fit.astype(np.float64), targets.score.astype(np.float64)
    U, to_basis = _orthonormal(X[rows.fit_of_used])
    Q = X[rows.score_of_used] @ to_basis
    Z = U.T @ y_fit
    n_free = len(U) - U.shape[1] - np.unique(rows.fit_groups).size
    residuals = (y_fit - U @ Z) * np.sqrt(len(U) / max(n_free, 1))
    scored = np.add.reduceat((y_score * (Q @ Z)).sum(axis=1), blocks[0])
    return scored, _pairs(Q, U, targets.score, residuals, blocks)


def _pairs(Q: Array, U: Array, y: Array, residuals: Array, blocks: Sequence[IntArray]) -> FloatArray:
    """k_ab, scored block by scored block; float32 will do for a variance."""
    Q, U, y, residuals = (np.ascontiguousarray(values, dtype=np.float32) for values in (Q, U, y, residuals))
    rows = [slice(*edges) for edges in pairwise([*blocks[0], len(Q)])]
    sums = [((Q[block] @ U.T) * (y[block] @ residuals.T)).sum(axis=0, dtype=np.float64) for block in rows]
    return np.add.reduceat(np.stack(sums), blocks[1], axis=1)


def _orthonormal(F: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Orthonormal basis of the columns of F, and the matrix that takes columns to it."""
    lam, V = np.linalg.eigh(F.T @ F)
    real = lam > NULL * max(lam[-1] if lam.size else 0.0, np.finfo(float).tiny)
    to_basis = V[:, real] / np.sqrt(lam[real])
    return F @ to_basis, to_basis


def _share_out(
    names: tuple[str, ...], sums: Sequence[tuple[FloatArray, FloatArray]], variance: FloatArray, level: float
) -> tuple[dict[str, Score], Score, Score | None]:
    """Parts over the joint c, the joint c over the variance, and the low-level share, from the c_m of all models."""
    scored = np.stack([*(by_block for by_block, _ in sums), variance])
    pairs = np.stack([*(by_pair for _, by_pair in sums), np.zeros_like(sums[0][1])])
    *each, total = np.eye(len(scored))
    c = dict(zip(map(model_name, subsets(names)), each, strict=True))
    joint = c[model_name(names)]
    if joint @ scored.sum(axis=1) <= 0:
        raise ValueError(
            "the bands together explain nothing of these voxels on the scored rows, so there is no R2 to share out;"
            " choose voxels that the probe predicts."
        )
    parts = {part: _ratio(w, joint, scored, pairs, level) for part, w in partition_variance(c, names).items()}
    low_level = None
    if {"backbone", "low_level"} <= set(names) and c["backbone"] @ scored.sum(axis=1) > 0:
        shared = c["backbone"] + c["low_level"] - c["backbone+low_level"]
        low_level = _ratio(shared, c["backbone"], scored, pairs, level)
    return parts, _ratio(joint, total, scored, pairs, level), low_level


def _ratio(part: FloatArray, whole: FloatArray, scored: FloatArray, pairs: FloatArray, level: float) -> Score:
    """Ratio of two weighted sums of the c_m, with its t interval.

    Parameters
    ----------
    part, whole : arrays of shape (n_sums,)
        Weights of the sums in numerator and denominator.
    scored : array of shape (n_sums, n_scored_blocks)
    pairs : array of shape (n_sums, n_scored_blocks, n_fit_blocks)
    """
    totals = scored.sum(axis=1)
    value = float(part @ totals / (whole @ totals))
    # delta method: how the ratio moves with each c_m
    slope = (part - value * whole) / (whole @ totals)
    n_blocks = scored.shape[1]
    by_pair = np.tensordot(slope, pairs, axes=1)
    scored_variance = np.square(slope @ scored).sum() * n_blocks / (n_blocks - 1)
    fit_variance = np.square(by_pair.sum(axis=0)).sum()
    # scored and fitted blocks are crossed: what each (scored, fitted) pair adds is in both variances, so once too often
    variance = max(scored_variance + fit_variance - np.square(by_pair).sum(), scored_variance, fit_variance)
    half = student_quantile(n_blocks - 1, level) * float(np.sqrt(variance))
    return Score(value, bounds=(value - half, value + half), level=level, n_units={"blocks": n_blocks})
