"""Permutation tests over time, for every voxel or region at once, with p-values over the family of all of them.

Both tests are linear in a few numbers per voxel (products at every shift of a story, or contributions of blocks), so
these are made once and every permutation is a row of a matrix times them. At 50,000 voxels and 291 rows the products at
all shifts are one Fourier transform per voxel and story, and a permutation adds two numbers of each voxel. Voxels are
taken in parts that need at most some 200 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, FloatArray, IntArray, demean_within, group_slices
from brainlit.encoding.bootstrap import BLOCK_TRS, ScoreName, time_blocks
from brainlit.encoding.statistics import (
    MOST_LOST,
    N_VALUES_AT_ONCE,
    TIE,
    column_parts,
    lost_between_blocks,
    memory_error,
)

Alternative = Literal["greater", "two-sided"]
Features = Callable[[slice], FloatArray]
MAX_VOXELS_AT_ONCE = 2048
PART_TRS = 100
"""Rows of a story that are shifted together. Where neighbouring rows of responses and predictions correlate by .8, the
seam of each shift takes 1 % of the sd of chance correlations; one seam per story would leave 291 different shifts of a
story of 291 rows, and two leave 21,170."""
MOST_LOST_AT_SEAMS = 0.06
"""Of the variance; with more, shifts at 5 % reject 6 to 8 % of true nulls."""
EXCHANGED_TRS = 300
"""Differences: up to so many scored rows blocks have the length asked for, of more rows they are longer (see
`time_blocks`), so that there are some 15."""


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
    """

    statistic: FloatArray
    p: FloatArray
    p_family: FloatArray
    smallest_p: float
    n_permutations: int
    n_blocks: int
    names: tuple[str, ...] = ()


def circular_shift_test(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    *,
    regions: Mapping[str, BoolArray] | None = None,
    part_trs: int = PART_TRS,
    n_permutations: int = 1000,
    seed: int = 0,
) -> PermutationTest:
    """Is a correlation above chance? Each story's predictions are shifted in time, and enter again where they left.

    A shifted series has the autocorrelation of the original one but for a seam, and stays in its own story with the
    mean and the length that it has there. Blocks in random order have a seam at every block: where neighbouring rows of
    responses and predictions correlate by .8, such a test at 5 % rejects 6 to 8 % of true nulls with blocks of 20 rows,
    and shifts reject 4 to 6 %, of stories of 60 rows too (docs/calibration.md).

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
    groups : int array of shape (n_trs,)
        Stories, each demeaned.
    regions : mapping of name to bool array of shape (n_voxels,), optional
        Test mean correlations over these voxels (constant ones left out) instead of every voxel.
    part_trs : int
        Stories of twice as many rows or more are cut into parts of at least so many, each shifted by a lag of its own:
        more different permutations, hence smaller p.

    Returns
    -------
    PermutationTest
        One-sided. n_blocks is the number of parts. All shifts are tried where there are at most n_permutations.

    Raises
    ------
    ValueError
        If shapes differ, part_trs is not positive, nothing can be shifted, or rows remember too much for the parts.
    """
    y, p, labels = _checked(observed, predicted, groups=groups)
    if part_trs < 1:
        raise ValueError(f"part_trs is {part_trs}; a part has at least 1 row.")
    parts = _shifted_parts(labels, part_trs)
    sizes = [rows.stop - rows.start for rows in parts]
    n_shifts = prod(sizes)
    if n_shifts < 2:
        raise ValueError(f"stories of {max(sizes, default=0)} rows cannot be shifted; score longer ones.")
    n_stories = len(group_slices(labels))
    lost = lost_between_blocks(y, p, labels, len(parts) + n_stories)  # each part has a seam, as between two blocks
    if lost > MOST_LOST_AT_SEAMS:
        longer_trs = int(np.ceil(len(labels) / len(parts) * lost / MOST_LOST_AT_SEAMS))
        raise ValueError(
            f"the seams of {len(parts)} shifted parts of {len(labels)} rows hide {lost:.0%} of the variance, because"
            f" neighbouring rows are so alike; at most {MOST_LOST_AT_SEAMS:.0%} may be hidden. Ask for parts of"
            f" {longer_trs} rows or more (part_trs), for which stories of so many rows must be scored."
        )

    def products(part: slice) -> FloatArray:
        a, b = (_unit(demean_within(values[:, part], labels)) for values in (y, p))
        return np.concatenate([_at_every_shift(a[rows], b[rows]) for rows in parts])

    if n_shifts <= n_permutations + 1:
        lags = np.stack(np.unravel_index(np.arange(n_shifts), sizes), axis=1)
    else:
        lags = np.random.default_rng(seed).integers(0, sizes, size=(n_permutations + 1, len(sizes)))
        lags[0] = 0
    starts = np.array([rows.start for rows in parts])
    moved = _gather(starts + lags, len(labels))
    return _test(products, y.shape[1], moved, regions, "greater", 1 / n_shifts, len(parts))


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

    If neither is better, a and b can be exchanged in any block, which flips the sign of the block's contribution to the
    difference, and a random half of the blocks is exchanged in each permutation (exchangeability blocks: Winkler et al.
    2014, NeuroImage 92:381). A block contributes what the difference loses when its rows are deleted, means and sds
    being taken anew (delete-a-group jackknife: Miller 1974, Biometrika 61:1; over blocks of time Kuensch 1989, Ann.
    Statist. 17:1217); contributions add up to the difference. Influence functions, which leave out that means and sds
    are estimated from the same few rows, made contributions of short stories 5 to 15 % too small. Sign flips of a few
    sums over long blocks keep their level also where these are not quite symmetric (Canay, Romano & Shaikh 2017,
    Econometrica 85:1013).

    Parameters
    ----------
    observed, predicted_a, predicted_b : arrays of shape (n_trs, n_voxels)
    groups : int array of shape (n_trs,)
        Stories, each demeaned; no block crosses a border.
    score : 'r' or 'r2'
    regions : mapping of name to bool array of shape (n_voxels,), optional
        Test mean differences over these voxels instead of every voxel.
    block_trs : int
        Rows per block, of up to 300 scored rows; of more, blocks are longer in proportion.
    alternative : 'two-sided' or 'greater'

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than two blocks, or rows remember too much for them.
    """
    y, a, b, labels = _checked(observed, predicted_a, predicted_b, groups=groups)
    block_of_row = time_blocks(labels, block_trs, EXCHANGED_TRS)
    starts, n_blocks = np.flatnonzero(np.diff(block_of_row, prepend=-1)), int(block_of_row[-1]) + 1
    if n_blocks < 2:
        raise ValueError(f"{len(labels)} rows hold {n_blocks} block of {block_trs}; lower block_trs.")
    lost = lost_between_blocks(y, np.asarray(a, np.float64) - b, labels, n_blocks)
    if lost > MOST_LOST:
        raise memory_error(lost, len(labels), n_blocks, block_trs)

    def contributions(part: slice) -> FloatArray:
        centred = [demean_within(values[:, part], labels) for values in (y, a, b)]
        return _contributions(centred, labels, starts, score)

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_permutations + 1, n_blocks))
    signs[0] = 1.0
    fewest = (2.0 if alternative == "two-sided" else 1.0) / 2.0**n_blocks
    return _test(contributions, y.shape[1], signs, regions, alternative, fewest, n_blocks)


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


def _shifted_parts(labels: IntArray, part_trs: int) -> list[slice]:
    """Stretches of rows that are shifted by one lag: stories, or equal parts of long ones."""
    parts = []
    for rows in group_slices(labels):
        n_rows = rows.stop - rows.start
        n_parts = max(1, n_rows // part_trs)
        edges = [rows.start + n_rows * k // n_parts for k in range(n_parts + 1)]
        parts += [slice(*pair) for pair in pairwise(edges)]
    return parts


def _at_every_shift(a: FloatArray, b: FloatArray) -> FloatArray:
    """Sums of products with b shifted by 0, 1, ... rows, (n_rows, n): a_t b_(t - lag), round the end."""
    spectrum = np.fft.rfft(a, axis=0) * np.fft.rfft(b, axis=0).conj()
    return np.asarray(np.fft.irfft(spectrum, n=len(a), axis=0))


def _gather(columns: IntArray, n_columns: int) -> Any:
    """Sparse matrix (m + 1, n_columns) whose rows add what stands in these columns, (m + 1, n_added)."""
    from scipy.sparse import csr_array

    n, n_added = columns.shape
    ends = np.arange(0, columns.size + 1, n_added)
    return csr_array((np.ones(columns.size), columns.ravel(), ends), shape=(n, n_columns))


def _contributions(scored: Sequence[FloatArray], labels: IntArray, starts: IntArray, score: ScoreName) -> FloatArray:
    """What each block adds to score_a - score_b, (n_blocks, n), by deleting it; y, a and b are demeaned within stories.

    Without its block a story has another mean: the sum of products over the rest is total - block, less the product of
    the two sums over the block, divided by the rows that are left.
    """
    sizes = np.diff(np.append(starts, len(labels)))
    of_story = {story: float(np.sum(labels == story)) for story in np.unique(labels)}
    left = np.array([of_story[story] for story in labels[starts]])[:, None] - sizes[:, None]
    sums = [np.add.reduceat(values, starts, axis=0) for values in scored]

    def without(i: int, j: int) -> tuple[FloatArray, FloatArray]:
        """Sum of products of two of y, a, b: of all rows (n,), and without each block (n_blocks, n)."""
        product = scored[i] * scored[j]
        total, blocks = product.sum(axis=0), np.add.reduceat(product, starts, axis=0)
        return total, total - blocks - np.where(left > 0, sums[i] * sums[j] / np.maximum(left, 1), 0.0)

    pairs = [without(i, j) for i, j in ((0, 0), (0, 1), (1, 1), (0, 2), (2, 2))]
    whole, deleted = (_difference(score, *products) for products in zip(*pairs, strict=True))
    share = (sizes / len(labels))[:, None]
    loss = (1 - share) * (whole - deleted)
    return np.asarray(loss + share * (whole - loss.sum(axis=0)))


def _difference(
    score: ScoreName, yy: FloatArray, ya: FloatArray, aa: FloatArray, yb: FloatArray, bb: FloatArray
) -> FloatArray:
    """score_a - score_b from sums of products."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if score == "r":
            return np.asarray(_ratio(ya, np.sqrt(yy * aa)) - _ratio(yb, np.sqrt(yy * bb)))
        return _ratio(2 * ya - aa - 2 * yb + bb, yy)


def _ratio(over: FloatArray, under: FloatArray) -> FloatArray:
    """NaN where it is not defined."""
    return np.where(under > 0, over / under, np.nan)


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
    found, exceed, largest = np.empty(n_voxels), np.empty(n_voxels), np.full(n_rows, -np.inf)
    for part in column_parts(n_voxels, width, "Permutations"):
        values = permutations @ features(part)
        found[part] = values[0]
        values = np.abs(values) if alternative == "two-sided" else values
        exceed[part] = (values[1:] >= values[0] - TIE).sum(axis=0)
        largest = np.fmax(largest, np.fmax.reduce(values, axis=1))
    reached = np.abs(found) if alternative == "two-sided" else found
    in_family = (n_rows - 1) - np.searchsorted(np.sort(largest[1:]), reached - TIE)
    known = np.isfinite(found)
    p, p_family = (np.where(known, (count + 1.0) / n_rows, np.nan) for count in (exceed, in_family))
    return PermutationTest(found, p, p_family, max(1 / n_rows, fewest), n_rows - 1, n_blocks, tuple(regions or ()))


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
