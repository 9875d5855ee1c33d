"""Bootstrap of a table of scores over stories, subjects and seeds.

It says how far the mean of the table would move with other stories, subjects and seeds. Upper levels are
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
from itertools import combinations

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import FloatArray, IntArray
from brainlit.encoding.statistics import N_VALUES_AT_ONCE, Score, percentile_interval, student_quantile

LETTERS = "abcdefgh"
"""Names of levels in an einsum."""


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
