"""Permutation tests by blocks of time, for every voxel or region at once, with p-values over the family of all of them.

Both tests are linear in sums over blocks, so the data are summed once and every permutation is a row of a matrix times
these sums. At 50,000 voxels, 291 rows and 1,000 permutations of 14 blocks of 20, all pairs of blocks cost 14 x 291
multiply-adds per voxel and a permutation 14 additions: 9e8 together, where moving all rows takes 1.5e10 and as much
copying. The difference of two models costs 7e8. Voxels are taken in parts that need at most some 200 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import factorial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, FloatArray, IntArray, demean_within
from brainlit.encoding.bootstrap import BLOCK_TRS, ScoreName, time_blocks
from brainlit.encoding.statistics import N_VALUES_AT_ONCE, TIE, column_parts, cut_blocks

Alternative = Literal["greater", "two-sided"]
Features = Callable[[slice], FloatArray]
MAX_VOXELS_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """Result of a permutation test of n voxels (or regions).

    Parameters
    ----------
    statistic : array of shape (n,)
        Correlation, or difference of scores, as observed; NaN where it is not defined, and p-values too.
    p : array of shape (n,)
        (b + 1) / (m + 1), b of m permutations reaching the observed value: never 0 (Phipson & Smyth 2010, Stat. Appl.
        Genet. Mol. Biol. 9:39).
    p_family : array of shape (n,)
        The same against the largest value over all voxels of each permutation, so that the chance of one or more false
        positives among all of them is at most p_family (Nichols & Holmes 2002, Hum. Brain Mapp. 15:1).
    smallest_p : float
        What p can reach: 1 / (m + 1), or the inverse of the number of different permutations if that is larger.
    n_permutations, n_blocks : int
    names : tuple of str
        Of the regions; empty for voxels.
    null_sd : array of shape (n,)
        Standard deviation of the statistic over the permutations.
    """

    statistic: FloatArray
    p: FloatArray
    p_family: FloatArray
    smallest_p: float
    n_permutations: int
    n_blocks: int
    names: tuple[str, ...] = ()
    null_sd: FloatArray = field(default_factory=lambda: np.zeros(0))


def block_permutation_test(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    *,
    regions: Mapping[str, BoolArray] | None = None,
    block_trs: int = BLOCK_TRS,
    n_permutations: int = 1000,
    seed: int = 0,
) -> PermutationTest:
    """Is a correlation above chance? Blocks of the predictions are put in random order, without replacement.

    Blocks keep the autocorrelation inside them (Adolf et al. 2014, Front. Neuroinform. 8:72); what is lost between
    them makes the test slightly liberal, less so the longer the blocks. Where neighbouring rows of responses and
    predictions correlate by .7, the sd of chance correlations is 7 % too small with blocks of 10, 3 % with 20.

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
    groups : int array of shape (n_trs,)
        Stories, each demeaned. Blocks are cut inside them; rows left over at a story's end, fewer than a block, take no
        part. Any block can come to any place, also of another story.
    regions : mapping of name to bool array of shape (n_voxels,), optional
        Test mean correlations over these voxels (constant ones left out) instead of every voxel.

    Returns
    -------
    PermutationTest
        One-sided.

    Raises
    ------
    ValueError
        If shapes differ or there are fewer than two whole blocks.
    """
    y, p, labels = _checked(observed, predicted, groups=groups)
    whole = [block for block in cut_blocks(labels, block_trs) if len(block) == block_trs]
    n_blocks, rows = len(whole), np.concatenate([np.zeros(0, dtype=np.int64), *whole])
    if n_blocks < 2:
        raise ValueError(f"{len(labels)} rows hold {n_blocks} whole blocks of {block_trs}; lower block_trs.")

    def pairs(part: slice) -> FloatArray:
        a, b = (_unit(demean_within(values[rows, part], labels[rows])) for values in (y, p))
        a, b = (values.reshape(n_blocks, block_trs, -1) for values in (a, b))
        return np.asarray(np.einsum("isv,jsv->ijv", a, b).reshape(n_blocks**2, -1))

    orders = np.tile(np.arange(n_blocks), (n_permutations + 1, 1))
    np.random.default_rng(seed).permuted(orders[1:], axis=1, out=orders[1:])
    fewest = 1 / factorial(min(n_blocks, 20))
    return _test(pairs, y.shape[1], _gather(orders), regions, "greater", fewest, n_blocks)


def block_difference_test(
    observed: Array,
    predicted_a: Array,
    predicted_b: Array,
    groups: npt.ArrayLike,
    *,
    score: ScoreName = "r",
    regions: Mapping[str, BoolArray] | None = None,
    block_trs: int = BLOCK_TRS,
    n_permutations: int = 1000,
    seed: int = 0,
    alternative: Alternative = "two-sided",
) -> PermutationTest:
    """Do predictions a follow the responses better than predictions b, on the same rows?

    If neither is better, a and b can be exchanged in any block, so a random half of the blocks is exchanged in each
    permutation (exchangeability blocks: Winkler et al. 2014, NeuroImage 92:381). With both in units of their own sd,
    an exchange flips the sign of the block's sum of

        y (a - b) - (r_a + r_b) / 4 (a^2 - b^2)

    whose sum over all rows is r_a - r_b: the second term (influence function of a correlation, Devlin et al. 1975,
    Biometrika 62:531) sums to 0 and says what an exchange does to the sds. For R2 it is the difference of squared
    errors over SST. Sign flips of a few sums over long blocks keep their level also where these are not quite symmetric
    (Canay, Romano & Shaikh 2017, Econometrica 85:1013). As above, blocks must outlast the autocorrelation.

    Parameters
    ----------
    observed, predicted_a, predicted_b : arrays of shape (n_trs, n_voxels)
    groups : int array of shape (n_trs,)
        Stories, each demeaned; no block crosses a border, and rests shorter than half a block join the one before.
    score : 'r' or 'r2'
    regions : mapping of name to bool array of shape (n_voxels,), optional
        Test mean differences over these voxels instead of every voxel.
    alternative : 'two-sided' or 'greater'

    Raises
    ------
    ValueError
        If shapes differ or there are fewer than two blocks.
    """
    y, a, b, labels = _checked(observed, predicted_a, predicted_b, groups=groups)
    block_of_row = time_blocks(labels, block_trs)
    starts, n_blocks = np.flatnonzero(np.diff(block_of_row, prepend=-1)), int(block_of_row[-1]) + 1
    if n_blocks < 2:
        raise ValueError(f"{len(labels)} rows hold {n_blocks} block of {block_trs}; lower block_trs.")
    difference = _difference_of_r if score == "r" else _difference_of_r2

    def sums(part: slice) -> FloatArray:
        rows = difference(*(demean_within(values[:, part], labels) for values in (y, a, b)))
        return np.asarray(np.add.reduceat(rows, starts, axis=0))

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_permutations + 1, n_blocks))
    signs[0] = 1.0
    fewest = (2.0 if alternative == "two-sided" else 1.0) / 2.0**n_blocks
    return _test(sums, y.shape[1], signs, regions, alternative, fewest, n_blocks)


def _checked(*arrays: Array, groups: npt.ArrayLike) -> list[Any]:
    values, labels = [np.asarray(array) for array in arrays], np.asarray(groups)
    if any(a.ndim != 2 or a.shape != values[0].shape for a in values) or labels.shape != values[0].shape[:1]:
        shapes = ", ".join(str(a.shape) for a in values)
        raise ValueError(f"shapes {shapes} and groups {labels.shape}; need the same (n_trs, n_voxels) and (n_trs,).")
    return [*values, labels]


def _unit(centred: FloatArray) -> FloatArray:
    """Columns at norm 1; NaN where constant."""
    norm = np.sqrt(np.square(centred).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 0, centred / norm, np.nan)


def _difference_of_r(y: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """Contribution of each row to r_a - r_b, antisymmetric in a and b, (n_trs, n)."""
    y, a, b = _unit(y), _unit(a), _unit(b)
    r_mean = ((a + b) * y).sum(axis=0) / 2
    return np.asarray(y * (a - b) - r_mean / 2 * (a * a - b * b))


def _difference_of_r2(y: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """Contribution of each row to R2_a - R2_b, (n_trs, n)."""
    sst = np.square(y).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sst > 0, (np.square(y - b) - np.square(y - a)) / sst, np.nan)


def _gather(orders: IntArray) -> Any:
    """Sparse matrix (m + 1, n_blocks^2) that adds the products of each place with the block that is put there."""
    from scipy.sparse import csr_array

    n, n_blocks = orders.shape
    columns = (np.arange(n_blocks) * n_blocks + orders).ravel()
    return csr_array((np.ones(columns.size), columns, np.arange(0, columns.size + 1, n_blocks)), shape=(n, n_blocks**2))


def _test(
    features: Features,
    n_voxels: int,
    permutations: Any,
    regions: Mapping[str, BoolArray] | None,
    alternative: Alternative,
    fewest: float,
    n_blocks: int,
) -> PermutationTest:
    """Compare row 0 of permutations @ features, the data as they are, with its other rows."""
    n_rows, width = permutations.shape[0], max(1, min(MAX_VOXELS_AT_ONCE, N_VALUES_AT_ONCE // max(permutations.shape)))
    if regions is not None:
        summed = _region_means(features, regions, n_voxels, width)
        features, n_voxels, width = (lambda part: summed[:, part]), len(regions), len(regions)
    (found, exceed, sd), largest = np.empty((3, n_voxels)), np.full(n_rows, -np.inf)
    for part in column_parts(n_voxels, width, "Permutations"):
        values = permutations @ features(part)
        found[part], sd[part] = values[0], values[1:].std(axis=0)
        values = np.abs(values) if alternative == "two-sided" else values
        exceed[part] = (values[1:] >= values[0] - TIE).sum(axis=0)
        largest = np.fmax(largest, np.fmax.reduce(values, axis=1))
    reached = np.abs(found) if alternative == "two-sided" else found
    in_family = (n_rows - 1) - np.searchsorted(np.sort(largest[1:]), reached - TIE)
    known = np.isfinite(found)
    p, p_family = (np.where(known, (count + 1.0) / n_rows, np.nan) for count in (exceed, in_family))
    smallest = max(1 / n_rows, fewest)
    return PermutationTest(found, p, p_family, smallest, n_rows - 1, n_blocks, tuple(regions or ()), sd)


def _region_means(features: Features, regions: Mapping[str, BoolArray], n_voxels: int, width: int) -> FloatArray:
    """Mean features over each region's voxels that have any, (n_features, n_regions)."""
    masks = np.array(list(regions.values()), dtype=np.float64).reshape(len(regions), n_voxels).T
    total, count = np.zeros(len(regions)), np.zeros(len(regions))
    for part in column_parts(n_voxels, width, "Regions"):
        values = features(part)
        known = np.isfinite(values).all(axis=0)
        total = total + values[:, known] @ masks[part][known]
        count += masks[part][known].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan))
