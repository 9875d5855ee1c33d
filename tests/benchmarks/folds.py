"""Does an interval over folds cover? `python -m tests.benchmarks.folds --n 200` prints the table of docs/probe.md.

One story (or ten) is predicted in five purged folds, again and again from new data. An interval should hold what these
five fits reach on endless other minutes, for which each fold gets rows that no other one has; and it may or may not
hold what such a study finds on average, whose fits differ too: they share three quarters of their rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from brainlit.encoding import ProbeConfig, ProbeResult, block_weights
from brainlit.encoding.folds import FoldRows, run_folds
from brainlit.encoding.statistics import Score
from brainlit.results.scores import ALL_VOXELS, FOLD_MEAN, curve_rows, fold_mean_scores, stretch_of

Array = npt.NDArray[np.float64]
N_FOLDS, PURGE_TRS, LEAD_TRS, N_NEW, N_VOXELS, N_FEATURES = 5, 12, 5, 400, 10, 8
CONFIG = ProbeConfig(temporal="fir", delays_trs=(1, 2, 3), alphas=tuple(np.logspace(-1, 4, 11)), leave_out_fit=False)


@dataclass(frozen=True)
class Case:
    """Lengths of the stories, share of signal in the variance of a voxel, and how alike neighbouring rows are."""

    name: str
    stories_trs: tuple[int, ...]
    signal: float
    neighbours: float


CASES = (
    Case("362 rows of one story", (362,), 0.2, 0.5),
    Case("the same, neighbours .7", (362,), 0.2, 0.7),
    Case("the same, nothing to find", (362,), 0.0, 0.5),
    Case("150 rows of one story", (150,), 0.2, 0.5),
    Case("ten stories of 100 rows", (100,) * 10, 0.2, 0.5),
)


def smooth(rng: np.random.Generator, n_trs: int, n_columns: int, neighbours: float) -> Array:
    """Autoregressive rows of variance 1."""
    noise = rng.standard_normal((n_trs, n_columns)) * np.sqrt(1 - neighbours**2)
    rows = np.empty_like(noise)
    rows[0] = rng.standard_normal(n_columns)
    for t in range(1, n_trs):
        rows[t] = neighbours * rows[t - 1] + noise[t]
    return rows


def data_set(rng: np.random.Generator, case: Case, weights: Array) -> tuple[Array, Array]:
    """Features and responses of the stories, then of new rows for every fold; nothing goes from one to the next."""
    X, Y = [], []
    for n_trs in (*case.stories_trs, *(N_NEW,) * N_FOLDS):
        x = smooth(rng, n_trs, N_FEATURES, case.neighbours)
        delayed = np.concatenate([np.vstack([np.zeros((d, N_FEATURES)), x[:-d]]) for d in CONFIG.delays_trs], axis=1)
        signal, noise = delayed @ weights, smooth(rng, n_trs, N_VOXELS, case.neighbours)
        X.append(x)
        Y.append(np.sqrt(case.signal) * signal + np.sqrt(1 - case.signal) * noise)
    return np.concatenate(X), np.concatenate(Y)


def fold_rows(case: Case) -> Iterator[FoldRows]:
    """Every fold with its own stretch of new rows, which it scores too."""
    starts = np.cumsum([0, *case.stories_trs])
    for k in range(N_FOLDS):
        stretches = []  # first row with what feeds its delays, first row, row after the last, whether it is scored
        if len(case.stories_trs) == 1:
            n = case.stories_trs[0]
            a, b = k * n // N_FOLDS, (k + 1) * n // N_FOLDS
            spans = ((0, a - PURGE_TRS, False), (a, b, True), (b + PURGE_TRS, n, False))
            stretches += [(max(0, i - LEAD_TRS), i, j, own) for i, j, own in spans if j > i]
        else:
            stretches += [(i, i, j, s % N_FOLDS == k) for s, (i, j) in enumerate(pairwise(starts))]
        new = int(starts[-1]) + k * N_NEW
        stretches.append((new, new, new + N_NEW, True))
        rows = np.concatenate([np.arange(first, j) for first, _, j, _ in stretches])
        groups = np.repeat(np.arange(len(stretches)), [j - first for first, _, j, _ in stretches])
        inside = np.concatenate([np.arange(first, j) >= i for first, i, j, _ in stretches])
        scored = np.array([own for *_, own in stretches])[groups]
        yield FoldRows(rows, groups, inside & ~scored, inside & scored)


def split(result: ProbeResult, n_stretches: int) -> tuple[ProbeResult, float]:
    """The result without the new rows, and the joined r on the new rows, mean over voxels.

    New rows are centred in stretches as long as those that are scored: longer ones would keep slower waves.
    """
    fold = np.asarray(result.meta["fold_of_group"])
    last = np.append(fold[1:] != fold[:-1], True)  # the last stretch of each fold is new
    kept = ~last[result.score_groups]
    predicted = result.predictions["backbone"]
    length = int(kept.sum()) // n_stretches
    new = [values[~kept].reshape(N_FOLDS, -1, N_VOXELS) for values in (result.observed, predicted)]
    new = [rows[:, : rows.shape[1] // length * length].reshape(-1, length, N_VOXELS).astype(float) for rows in new]
    o, p = (values - values.mean(axis=1, keepdims=True) for values in new)
    truth = (o * p).sum(axis=(0, 1)) / np.sqrt((o**2).sum(axis=(0, 1)) * (p**2).sum(axis=(0, 1)))
    groups = np.unique(result.score_groups[kept], return_inverse=True)[1].astype(np.int64)
    assert groups.max() + 1 == n_stretches
    o, p = (values[kept].astype(float) for values in (result.observed, predicted))
    for group in range(n_stretches):
        own = groups == group
        o[own], p[own] = o[own] - o[own].mean(axis=0), p[own] - p[own].mean(axis=0)
    r = (o * p).sum(axis=0) / np.sqrt((o**2).sum(axis=0) * (p**2).sum(axis=0))
    meta = {
        **result.meta,
        "fold_of_group": fold[~last].tolist(),
    }  # rows that are fitted on are the same without new ones
    rows = {"observed": result.observed[kept], "predictions": {"backbone": predicted[kept]}, "score_groups": groups}
    return replace(result, r=r, r_by_model={"backbone": r}, meta=meta, **rows), float(truth.mean())


def scores(result: ProbeResult) -> tuple[Score, Score]:
    """r of the joined rows, and the mean over folds, both with their intervals, as a record has them."""
    regions = {ALL_VOXELS: result.used}
    blocks = block_weights(result.score_groups, 20, 500, 0)
    joined = next(row.score for row in curve_rows(result, regions, 0, blocks) if row.metric == "r_backbone")
    given = result.score_groups, blocks, result.observed, result.predictions["backbone"]
    stretch = stretch_of(*given, factor=result.overlap_factor)
    return joined, fold_mean_scores(result, regions, blocks)[ALL_VOXELS].stretched(stretch)


def row(case: Case, n: int, seed: int) -> str:
    """One line of the table."""
    found = []
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        weights = np.random.default_rng(seed).standard_normal((3 * N_FEATURES, N_VOXELS))
        weights /= np.sqrt(np.square(weights).sum(axis=0))
        X, Y = data_set(rng, case, weights)
        whole = run_folds({"backbone": X}, {"": Y.astype(np.float32)}, list(fold_rows(case)), CONFIG)[""]
        result, truth = split(whole, max(N_FOLDS, len(case.stories_trs)))
        joined, mean = scores(result)
        low, high = joined.interval or (np.nan, np.nan)
        mean_low, mean_high = mean.interval or (np.nan, np.nan)
        found.append((joined.value, low, high, mean.value, mean_low, mean_high, truth))
    r, low, high, mean_r, mean_low, mean_high, truth = np.array(found).T
    has = np.isfinite(low)
    hit = ((low <= truth) & (truth <= high))[has].mean()
    average = ((low <= r.mean()) & (r.mean() <= high))[has].mean()
    of_mean = ((mean_low <= mean_r.mean()) & (mean_r.mean() <= mean_high))[has].mean()
    cells = [
        case.name,
        f"{r.mean():.3f}",
        f"{truth.mean():.3f}",
        f"{mean_r.mean():.3f}",
        f"{(high - low)[has].mean():.3f}",
    ]
    return f"| {' | '.join([*cells, *(f'{100 * share:.1f} %' for share in (hit, average, of_mean))])} |"


HEADER = (
    "data",
    "r of all folds together",
    "the same fits, endless other minutes",
    FOLD_MEAN.removeprefix("r_backbone_").replace("_", " "),
    "width",
    "holds what these fits reach",
    "holds the average study",
    "mean of folds: holds its average",
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n{'| --- ' * len(HEADER)}|")
    for case in CASES:
        print(row(case, given.n, given.seed), flush=True)
