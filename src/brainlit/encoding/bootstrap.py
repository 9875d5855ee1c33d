"""Bootstraps over what was drawn: blocks of time or stories for one probe; stories, subjects and seeds for a table.

**Blocks** say how sure a region's mean correlation or R2 is.
Consecutive rows are not independent, so whole blocks of them are drawn with replacement, as if other minutes of the
same stories had been heard (`over='time'`: non-overlapping blocks within each story, Carlstein 1986, Ann. Statist.
14:1171; Künsch 1989, Ann. Statist. 17:1217), or whole stories, as if other stories had been told (`over='stories'`).
Predictions stay as they are. The draws depend only on the seed and on the stories' lengths, so two probes of the same
stories (before and after, real and permuted) share them, and the difference of two replicates is a paired replicate of
the difference. A correlation needs only five sums (three of products, two for the means, which every draw takes anew),
so each block is summed once and every replicate is a product of draw counts with block sums.

**Levels** of a table of scores say how far its mean would move with other stories, subjects and seeds. Upper levels are
drawn first, lower ones within what was drawn (Saravanan, Berman & Sober 2020, arXiv 2007.07797). What lies inside what
matters. Stories and subjects are crossed: all subjects hear the same stories, so a drawn story is drawn for every
subject, and an easy story makes all of them look better at once (the pigeonhole bootstrap, Owen 2007, Ann. Appl. Stat.
1:386). Seeds are crossed with both where one model per seed serves all subjects, and nested in subjects where each
subject's models have seeds of their own; drawing crossed levels as if they were nested gives intervals that are far too
narrow.

Such replicates err in two ways, both put right here. Levels are small: the variance of a mean of n drawn units is
(n - 1) / n of what it should be, and percentiles miss the tails of Student's t. And scatter of single cells is counted
once for every level that is drawn. So the replicates give the shape of the interval, and its width is stretched to the
unbiased variance of the mean in the crossed random-effects model (mean squares; Searle, Casella & McCulloch 1992,
Variance Components, chapter 4) and to the t of Satterthwaite's degrees of freedom (1946, Biometrics Bull. 2:110).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, BoolArray, FloatArray, IntArray, demean_within, group_slices
from brainlit.encoding.statistics import (
    MOST_LOST,
    N_VALUES_AT_ONCE,
    Score,
    lost_between_blocks,
    memory_error,
    percentile_interval,
    small_sample_factor,
    student_quantile,
)
from brainlit.hints import did_you_mean

Over = Literal["time", "stories"]
ScoreName = Literal["r", "r2"]
Blocks = tuple[IntArray, FloatArray]
N_VOXELS_AT_ONCE = 2048
LETTERS = "abcdefgh"
"""Names of levels in an einsum."""
BLOCK_TRS = 20
"""Rows per block, where few rows are scored."""
DRAWN_TRS = 200
"""Intervals: up to so many scored rows blocks have the length asked for, of more rows they are longer in proportion, so
that there are some 10. Blocks of 20 rows are 12 % short of the variance where neighbouring rows of responses and
predictions correlate by .8. Few blocks pay for that by their Student's t; many would not."""
HOW_DRAWN = "about 10 blocks, centred anew"
"""Part of what tells that replicates of two records come from the same draws; another text when blocks are cut anew."""
FEWEST_BLOCKS = 3
"""Of a story, if it is long enough for so many of the length asked for."""


@dataclass(frozen=True)
class BlockDraws:
    """How blocks are drawn.

    Parameters
    ----------
    block_trs : int
        Rows per block, of up to 200 scored rows; of more, blocks are longer: see `time_blocks`. Longer than the
        responses remember (20 TRs of 2 s are 40 s). Not used over stories.
    n_bootstraps : int
    level : float
        Coverage of the interval.
    seed : int
    over : 'time' or 'stories'
        Blocks of time within each story, or whole stories.
    """

    block_trs: int = BLOCK_TRS
    n_bootstraps: int = 2000
    level: float = 0.95
    seed: int = 0
    over: Over = "time"

    def __post_init__(self) -> None:
        _check_over(self.over)
        if self.block_trs < 1 or self.n_bootstraps < 1 or not 0.0 < self.level < 1.0:
            raise ValueError(
                f"block_trs {self.block_trs}, n_bootstraps {self.n_bootstraps}, level {self.level}; need at least 1,"
                " at least 1, and a share between 0 and 1."
            )


def time_blocks(groups: npt.ArrayLike, block_trs: int, up_to_trs: int = DRAWN_TRS) -> IntArray:
    """Number of the block of each row, (n_trs,): equal parts of each story, as near to block_trs rows as that allows.

    What a block remembers of the one before is lost, in proportion to 1 / its length, and blocks need not be many. So
    they grow with the rows: more than up_to_trs of them are cut into blocks of block_trs * n_trs / up_to_trs, but no
    story into fewer than three that could have three.

    >>> time_blocks([0, 0, 0, 0, 0, 1, 1, 1], 2).tolist()
    [0, 0, 1, 1, 2, 3, 3, 4]
    >>> np.bincount(time_blocks(np.zeros(400), 20)).tolist() == [40] * 10
    True
    """
    if block_trs < 1:
        raise ValueError(f"block_trs is {block_trs}; a block has at least 1 row.")
    labels = np.asarray(groups)
    block_of_row = np.empty(len(labels), dtype=np.int64)
    longer_trs = block_trs * max(1.0, len(labels) / up_to_trs)
    first = 0
    for rows in group_slices(labels):
        n_rows = rows.stop - rows.start
        least, n_long = (int(np.floor(n_rows / trs + 0.5)) for trs in (block_trs, longer_trs))
        n_blocks = max(1, n_long, min(FEWEST_BLOCKS, least))
        block_of_row[rows] = first + np.arange(n_rows) * n_blocks // n_rows
        first += n_blocks
    return block_of_row


def block_weights(groups: IntArray, block_trs: int, n_bootstraps: int, seed: int, over: Over = "time") -> Blocks:
    """How often each block is drawn in each bootstrap.

    Parameters
    ----------
    groups : int array of shape (n_trs,)
        Story of each scored row, contiguous.
    block_trs : int
        Rows per block; see `time_blocks`.
    over : 'time' or 'stories'
        Draw blocks of time within every story, or whole stories (each story is then one block).

    Returns
    -------
    block_of_row : int array of shape (n_trs,)
    weights : array of shape (n_bootstraps, n_blocks)
        Counts; over time the counts of a story's blocks add up to its number of blocks, over stories all counts to the
        number of stories.

    Raises
    ------
    ValueError
        If a size is not positive, or whole stories are to be drawn from a single one.
    """
    if block_trs < 1 or n_bootstraps < 1:
        raise ValueError(f"block_trs is {block_trs} and n_bootstraps {n_bootstraps}; both must be at least 1.")
    _check_over(over)
    rng = np.random.default_rng(seed)
    slices = group_slices(groups)
    if over == "stories":
        if len(slices) < 2:
            raise ValueError("one story cannot be drawn from; score more stories, or draw over='time' within it.")
        story_of_row = np.repeat(np.arange(len(slices)), [rows.stop - rows.start for rows in slices])
        return story_of_row, _counts(rng, len(slices), n_bootstraps)
    block_of_row = time_blocks(groups, block_trs)
    n_blocks = [int(block_of_row[rows.stop - 1] - block_of_row[rows.start]) + 1 for rows in slices]
    return block_of_row, np.concatenate([_counts(rng, n, n_bootstraps) for n in n_blocks], axis=1)


def region_replicates(
    observed: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    groups: IntArray,
    regions: Mapping[str, BoolArray],
    blocks: Blocks,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Bootstrap replicates of each region's mean r and mean R2.

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Scored rows.
    regions : mapping of name to bool array of shape (n_voxels,)
        Voxels to average, without those that the probe dropped.
    blocks : result of `block_weights`

    Returns
    -------
    mapping of region to (r, r2), each of shape (n_bootstraps,)
    """
    block_of_row, weights = blocks
    totals = {name: np.zeros((2, len(weights))) for name in regions}
    for start in range(0, observed.shape[1], N_VOXELS_AT_ONCE):
        part = slice(start, start + N_VOXELS_AT_ONCE)
        inside = {name: mask[part].astype(np.float64) for name, mask in regions.items()}
        keep = np.any(list(inside.values()), axis=0)
        if not keep.any():
            continue
        r, r2 = _voxel_replicates(
            observed[:, part][:, keep], predicted[:, part][:, keep], groups, block_of_row, weights
        )
        for name, mask in inside.items():
            totals[name] += np.stack([r @ mask[keep], r2 @ mask[keep]])
    counts = {name: max(int(mask.sum()), 1) for name, mask in regions.items()}
    return {name: (total[0] / counts[name], total[1] / counts[name]) for name, total in totals.items()}


def block_bootstrap(
    observed: Array,
    predicted: Array,
    groups: npt.ArrayLike,
    *,
    score: ScoreName = "r",
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Score:
    """Mean correlation or R2 over a region's voxels.

    The interval is the percentiles of the replicates, stretched by `small_sample_factor`, because blocks and stories
    are few (of one story of 291 rows, plain percentiles miss the truth in 8 to 9 % instead of 5), and by what blocks
    hide (`lost_between_blocks`).

    Parameters
    ----------
    observed, predicted : arrays of shape (n_trs, n_voxels)
        Voxels with NaN are left out.
    groups : int array of shape (n_trs,)
        Stories; each is demeaned, and no block crosses a border.
    voxels : bool array of shape (n_voxels,), optional

    Raises
    ------
    ValueError
        If shapes differ, no voxel is left, there is nothing to draw from, or rows remember too much for the blocks.
    """
    return _draw_score(observed, [predicted], groups, score, voxels, draws)


def block_bootstrap_difference(
    observed: Array,
    predicted_a: Array,
    predicted_b: Array,
    groups: npt.ArrayLike,
    *,
    score: ScoreName = "r",
    voxels: BoolArray | None = None,
    draws: BlockDraws | None = None,
) -> Score:
    """Mean correlation (or R2) over a region of predictions a minus that of predictions b, on the same rows.

    Both get the same blocks, so what makes a block easy or hard for both cancels.
    """
    return _draw_score(observed, [predicted_a, predicted_b], groups, score, voxels, draws)


def _check_over(over: str) -> None:
    if over not in get_args(Over):
        raise ValueError(f"over is {over!r}. {did_you_mean(over, get_args(Over))}")


def _counts(rng: np.random.Generator, n: int, n_bootstraps: int) -> FloatArray:
    return rng.multinomial(n, np.full(n, 1 / n), size=n_bootstraps).astype(np.float64)


def _voxel_replicates(
    observed: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    groups: IntArray,
    block_of_row: IntArray,
    weights: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Replicates of r and R2 per voxel, (n_bootstraps, n_voxels) each, from sums over blocks.

    Every replicate is demeaned anew within stories, as the scored rows were: another sample would have other means.
    Without it, replicates of short stories scatter up to 20 % too little.
    """
    o, p = (demean_within(values, groups) for values in (observed, predicted))
    starts = np.flatnonzero(np.diff(block_of_row, prepend=-1))
    sizes, sums = np.diff(np.append(starts, len(o))), [np.add.reduceat(values, starts, axis=0) for values in (o, p)]

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(weights @ np.add.reduceat(values, starts, axis=0))

    sst, spp, sop = total(o * o), total(p * p), total(o * p)
    for story in group_slices(np.asarray(groups)[starts]):
        if story.stop - story.start > 1:  # one block, drawn as often as it may be, keeps its mean of 0
            drawn = weights[:, story]
            n_rows = np.maximum(drawn @ sizes[story], 1)[:, None]
            of_o, of_p = (drawn @ values[story] for values in sums)
            sst -= of_o * of_o / n_rows
            spp -= of_p * of_p / n_rows
            sop -= of_o * of_p / n_rows
    spread = np.sqrt(np.maximum(sst, 0) * np.maximum(spp, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(spread > 0, sop / spread, 0.0)
        r2 = np.where(sst > 0, 1 - (sst - 2 * sop + spp) / sst, 0.0)
    return r, r2


def _draw_score(
    observed: Array,
    predictions: Sequence[Array],
    groups: npt.ArrayLike,
    score: ScoreName,
    voxels: BoolArray | None,
    draws: BlockDraws | None,
) -> Score:
    """The region's score of one model, or the difference of two."""
    how, labels = draws or BlockDraws(), np.asarray(groups)
    arrays = [np.asarray(array) for array in (observed, *predictions)]
    if any(array.shape != arrays[0].shape for array in arrays) or labels.shape != arrays[0].shape[:1]:
        raise ValueError(f"observed {arrays[0].shape}, predictions and groups {labels.shape} must have the same rows.")
    keep = np.all([np.isfinite(array).all(axis=0) for array in arrays], axis=0)
    keep = keep if voxels is None else keep & np.asarray(voxels, dtype=bool)
    if not keep.any():
        raise ValueError("the region has no voxel with finite responses and predictions.")
    block_of_row, weights = block_weights(labels, how.block_trs, how.n_bootstraps, how.seed, how.over)
    n_stories = len(group_slices(labels))
    if how.over == "time" and weights.shape[1] == n_stories:
        raise ValueError(f"no story is longer than a block of {how.block_trs} rows; lower block_trs.")
    # The first row of weights takes every block once: the score itself; its replicates follow.
    blocks = (block_of_row, np.concatenate([np.ones_like(weights[:1]), weights]))
    found = [region_replicates(arrays[0], array, labels, {"": keep}, blocks)[""] for array in arrays[1:]]
    scores = reduce(np.subtract, [r if score == "r" else r2 for r, r2 in found])
    over_time, n_units = how.over == "time", weights.shape[1]
    stretch = small_sample_factor(n_units, how.level, n_stories if over_time else 1)
    if over_time:
        pairs = [(arrays[0][:, keep], array[:, keep]) for array in arrays[1:]]
        lost = max(lost_between_blocks(*pair, labels, n_units) for pair in pairs)
        if lost > MOST_LOST:
            raise memory_error(lost, len(labels), n_units, how.block_trs)
        stretch /= np.sqrt(1.0 - lost)
    low, high = percentile_interval(float(scores[0]), scores[1:], how.level, stretch)
    drawn = {"blocks" if over_time else "stories": n_units}
    fixed = ("stories",) if over_time else ()
    return Score(float(scores[0]), bounds=(low, high), level=how.level, n_units=drawn, not_resampled=fixed)


# --- Stories, subjects and seeds ---


def hierarchical_bootstrap(
    scores: npt.ArrayLike,
    levels: Sequence[str] = ("stories", "subjects", "seeds"),
    *,
    nested: Mapping[str, str] | None = None,
    n_bootstraps: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> Score:
    """Interval of the mean of a table of scores, with every level that has more than one unit drawn anew.

    Parameters
    ----------
    scores : array with one axis per level
        A number of every cell, such as the difference of a region's mean r of one story, subject and seed. No cell may
        be missing.
    levels : sequence of str
        Names of the axes, upper levels first.
    nested : mapping of level to the level that it lies inside, optional
        {'seeds': 'subjects'} where every subject has seeds of its own. All levels are crossed by default.
    n_bootstraps : int
    level : float
        Coverage.
    seed : int

    Returns
    -------
    Score
        n_units has the size of each level that was drawn; not_resampled names those of size 1, which contribute no
        uncertainty: nothing is said about other stories, subjects or seeds.

    Raises
    ------
    ValueError
        If names and axes do not fit, a cell is not finite, a level is nested in a later or an unknown one or two in the
        same, or all levels have size 1.

    >>> scores = np.array([[0.10, 0.14], [0.06, 0.09], [0.12, 0.13], [0.07, 0.12]])[:, :, None]
    >>> interval = hierarchical_bootstrap(scores)
    >>> interval.not_resampled, interval.n_units
    (('seeds',), {'stories': 4, 'subjects': 2})
    """
    values, names, inside = _checked(scores, levels, nested or {})
    rng = np.random.default_rng(seed)
    width = max(1, N_VALUES_AT_ONCE // values.size)
    sizes = [min(width, n_bootstraps - start) for start in range(0, n_bootstraps, width)]
    replicates = np.concatenate([_replicates(values, names, inside, n, rng) for n in sizes])
    estimate = float(values.mean())
    # What varies inside a drawn unit is part of the scatter of these units: nested levels are averaged.
    variance, df = mean_variance(values.mean(axis=tuple(k for k, name in enumerate(names) if name in inside)))
    low, high = percentile_interval(estimate, replicates, level, _stretch(replicates, variance, df, level))
    fixed = tuple(name for name in levels if name not in names)
    units = dict(zip(names, values.shape, strict=True))
    return Score(estimate, bounds=(low, high), level=level, n_units=units, not_resampled=fixed)


def mean_variance(values: FloatArray) -> tuple[float, float]:
    """Variance of the mean of a crossed table of random levels, and its degrees of freedom.

    Mean squares of main effects minus those of interactions of two levels plus those of three, ..., over the number of
    cells: unbiased whatever interacts. It is at least the mean square of the highest interaction (the scatter of cells
    alone), which matters where chance makes the difference small or negative.

    Parameters
    ----------
    values : array with one axis per crossed level, each of size 2 or more

    Returns
    -------
    variance : float
    df : float
        Satterthwaite's.
    """
    axes = range(values.ndim)
    terms = []
    for order in range(1, values.ndim + 1):
        for effect in combinations(axes, order):
            square, df = _mean_square(values, effect)
            terms.append(((-1.0) ** (order + 1) * square / values.size, df))
    total, floor = sum(term for term, _ in terms), abs(terms[-1][0])
    if total <= floor:
        return floor, terms[-1][1]
    df = total**2 / sum(term**2 / df for term, df in terms)
    return total, max(df, min(df for _, df in terms))


def _checked(
    scores: npt.ArrayLike, levels: Sequence[str], nested: Mapping[str, str]
) -> tuple[FloatArray, list[str], dict[str, str]]:
    """The table without levels of size 1, the names of its axes, and what is still nested in what."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != len(levels) or len(set(levels)) != len(levels) or values.size == 0 or values.ndim > len(LETTERS):
        raise ValueError(f"scores have shape {values.shape} for levels {tuple(levels)}; need one axis per level.")
    for lower, upper in nested.items():
        if lower not in levels or upper not in levels or list(levels).index(upper) >= list(levels).index(lower):
            raise ValueError(f"{lower!r} nested in {upper!r}: name levels of {tuple(levels)}, the upper one first.")
    if len(set(nested.values())) < len(nested):
        raise ValueError(f"two levels are nested in the same one: {dict(nested)}. Put one of them inside the other.")
    if not np.isfinite(values).all():
        raise ValueError("a cell is missing or not finite; keep the stories that all subjects have, or fewer subjects.")
    names = [name for name, n in zip(levels, values.shape, strict=True) if n > 1]
    if not names:
        raise ValueError("every level has size 1; there is nothing to draw from.")
    inside = {lower: upper for lower, upper in nested.items() if lower in names and upper in names}
    return values.squeeze(tuple(k for k, n in enumerate(values.shape) if n == 1)), names, inside


def _replicates(
    values: FloatArray, names: list[str], inside: Mapping[str, str], n: int, rng: np.random.Generator
) -> FloatArray:
    """Means of n tables drawn anew, (n,): each cell counts as often as its units were drawn together."""
    letters = dict(zip(names, LETTERS, strict=False))
    subscripts: dict[str, str] = {}
    counts: dict[str, IntArray] = {}
    for name, size in zip(names, values.shape, strict=True):
        upper = inside.get(name)
        before, own = (counts.pop(upper), subscripts.pop(upper)) if upper else (np.ones(n, dtype=np.int64), "z")
        counts[name] = rng.multinomial(before * size, np.full(size, 1 / size))
        subscripts[name] = own + letters[name]
    equation = ",".join([*subscripts.values(), "".join(letters[name] for name in names)]) + "->z"
    weights = [count / count.sum(axis=tuple(range(1, count.ndim)), keepdims=True) for count in counts.values()]
    return np.asarray(np.einsum(equation, *weights, values, optimize="greedy"))


def _mean_square(values: FloatArray, effect: tuple[int, ...]) -> tuple[float, float]:
    """Mean square of a main effect or interaction, in units of one cell, and its degrees of freedom."""
    others = tuple(k for k in range(values.ndim) if k not in effect)
    means = values.mean(axis=others, keepdims=True)
    for axis in effect:
        means = means - means.mean(axis=axis, keepdims=True)
    df = float(np.prod([values.shape[k] - 1 for k in effect]))
    repeats = values.size / means.size
    return float(np.square(means).sum() * repeats / df), df


def _stretch(replicates: FloatArray, variance: float, df: float, level: float) -> float:
    """From the spread of the replicates to that of the mean, and from a normal curve to Student's t."""
    from scipy.stats import norm

    spread = float(replicates.std())
    if spread == 0:
        return 1.0
    return float(np.sqrt(variance) / spread * student_quantile(df, level) / norm.ppf((1.0 + level) / 2.0))
