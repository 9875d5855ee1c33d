"""Does every test keep its level? python -m tests.benchmarks.null_tests [--n 2000] [--quick]

For each test, data sets in which the null is true by construction: the share that is rejected at 5 % should be 5 %,
within 1.5. Responses and predictions are AR(1) (neighbours correlate by .5), 291 rows of one story, or 100 of each of
three. A level that ranks and signs of few subjects cannot reach exactly is computed and printed as what is expected.
Rows marked `naive` do what should not be done, and have to fail.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.stats import t as student
from tqdm import tqdm

from brainlit.encoding import (
    BlockDraws,
    block_bootstrap,
    block_difference_test,
    block_permutation_test,
    block_weights,
    correlation,
    equivalence_from_replicates,
    equivalence_paired,
    fdr,
    hierarchical_bootstrap,
    paired_sign_flip,
    paired_wilcoxon,
    region_replicates,
)
from brainlit.encoding.bootstrap import BLOCK_TRS
from brainlit.encoding.statistics import small_sample_factor

ALPHA, TOLERANCE, PHI, N_TRS = 0.05, 0.015, 0.5, 291
ONE_STORY, THREE_STORIES = np.zeros(N_TRS, dtype=np.int64), np.repeat([0, 1, 2], 100)
Rejections = np.ndarray
Simulation = Callable[[int, np.random.Generator], Rejections]


@dataclass(frozen=True)
class Row:
    """A test under a true null: which of n data sets it rejects, at what level it can, and why that is not 5 %."""

    name: str
    rejects: Simulation
    level: float = ALPHA
    note: str = ""
    naive: bool = False


def keeps_level(rejected: Rejections, level: float = ALPHA, tolerance: float = TOLERANCE) -> bool:
    """Whether the rate is within the tolerance of the level, give or take two Monte Carlo standard errors."""
    return bool(abs(rejected.mean() - level) <= tolerance + 2 * np.sqrt(level * (1 - level) / len(rejected)))


def autocorrelated(shape: tuple[int, ...], rng: np.random.Generator, phi: float = PHI) -> np.ndarray:
    """AR(1) along the first axis, stationary, of unit variance."""
    white = rng.standard_normal((shape[0] + 30, *shape[1:]))
    return np.asarray(np.sqrt(1 - phi**2) * lfilter([1.0], [1.0, -phi], white, axis=0)[30:])


def independent_sample_p(n: int, rng: np.random.Generator) -> Rejections:
    """The naive one: Pearson's r as if rows were independent."""
    r = correlation(autocorrelated((N_TRS, n), rng), autocorrelated((N_TRS, n), rng))
    return np.asarray(student.sf(r * np.sqrt((N_TRS - 2) / (1 - r**2)), N_TRS - 2) <= ALPHA)


def block_permutation(groups: np.ndarray, block_trs: int = BLOCK_TRS, phi: float = PHI, m: int = 999) -> Simulation:
    """Responses and predictions that have nothing to do with each other."""

    def rejects(n: int, rng: np.random.Generator) -> Rejections:
        y, p = (autocorrelated((len(groups), n), rng, phi) for _ in range(2))
        seed = int(rng.integers(2**31))
        test = block_permutation_test(y, p, groups, block_trs=block_trs, n_permutations=m, seed=seed)
        return np.asarray(test.p <= ALPHA)

    return in_chunks(rejects)


def two_models(n_trs: int, n: int, rng: np.random.Generator, phi: float = PHI) -> tuple[np.ndarray, ...]:
    """Responses, and two predictions that are equally good in different ways (r = .57 each)."""
    signal, *noise = (autocorrelated((n_trs, n), rng, phi) for _ in range(4))
    return signal + noise[0], signal + 0.75 * noise[1], signal + 0.75 * noise[2]


def block_difference(score: str = "r", block_trs: int = BLOCK_TRS, phi: float = PHI, m: int = 999) -> Simulation:
    """Two equally good models; block_trs 1 is the naive form."""

    def rejects(n: int, rng: np.random.Generator) -> Rejections:
        how = {"score": score, "block_trs": block_trs, "n_permutations": m, "seed": int(rng.integers(2**31))}
        return np.asarray(block_difference_test(*two_models(N_TRS, n, rng, phi), ONE_STORY, **how).p <= ALPHA)

    return in_chunks(rejects)


def family(kind: str, n_voxels: int = 40, m: int = 199) -> Simulation:
    """Any of 40 correlated voxels, nothing being true: by the largest statistic, by FDR, or (naive) uncorrected."""

    def one(rng: np.random.Generator) -> bool:
        common = autocorrelated((N_TRS, 1), rng)
        y, a, b = (autocorrelated((N_TRS, n_voxels), rng) for _ in range(3))
        seed = int(rng.integers(2**31))
        if kind == "difference":
            test = block_difference_test(y + common, a, b, ONE_STORY, n_permutations=m, seed=seed)
        else:
            test = block_permutation_test(y + common, a, ONE_STORY, n_permutations=m, seed=seed)
        p = {"fdr": fdr(test.p), "uncorrected": test.p}.get(kind, test.p_family)
        return bool((p <= ALPHA).any())

    return one_by_one(one)


def in_chunks(rejects: Simulation, size: int = 50) -> Simulation:
    """The same with other permutations for every 50 data sets, so that their luck is averaged too."""

    def chunked(n: int, rng: np.random.Generator) -> Rejections:
        return np.concatenate([rejects(min(size, n - start), rng) for start in range(0, n, size)])

    return chunked


def one_by_one(one: Callable[[np.random.Generator], bool]) -> Simulation:
    """A simulation of n data sets out of one of a single one."""

    def rejects(n: int, rng: np.random.Generator) -> Rejections:
        return np.array([one(rng) for _ in tqdm(range(n), leave=False, delay=3)])

    return rejects


def over_subjects(test: Callable[..., object], n_subjects: int) -> Simulation:
    """Differences of subjects that scatter around 0, with heavy tails."""

    def rejects(n: int, rng: np.random.Generator) -> Rejections:
        return np.asarray(test(rng.standard_t(4, (n_subjects, n))).p <= ALPHA)  # type: ignore[attr-defined]

    return rejects


def wilcoxon_level(n_subjects: int) -> float:
    """The largest level up to 5 % that the exact test can have: ranks have few sums."""
    pattern = (np.arange(2**n_subjects)[:, None] >> np.arange(n_subjects)) & 1
    below = np.cumsum(np.bincount(pattern @ np.arange(1, n_subjects + 1))) / 2.0**n_subjects
    return float(2 * below[2 * below <= ALPHA].max(initial=0.0))


def sign_flip_level(n_subjects: int) -> float:
    """As `wilcoxon_level`: p-values are even multiples of 1 / 2^n."""
    return 2 * int(ALPHA * 2**n_subjects / 2) / 2**n_subjects


def equivalence_at_bound(n: int, rng: np.random.Generator) -> Rejections:
    """Ten subjects whose true mean difference is the upper bound."""
    return np.asarray(equivalence_paired(0.01 + 0.005 * rng.standard_normal((10, n)), (-0.01, 0.01)).equivalent)


def replicates_at_bound(n: int, rng: np.random.Generator) -> Rejections:
    """Two predictions whose true difference of correlations, .5 - .4, is the upper bound, by block bootstrap."""
    y, *noise = (autocorrelated((N_TRS, n), rng) for _ in range(3))
    predicted = [r * y + np.sqrt(1 - r**2) * e for r, e in zip((0.5, 0.4), noise, strict=True)]
    blocks = block_weights(ONE_STORY, BLOCK_TRS, 999, int(rng.integers(2**31)))
    regions = {str(k): one for k, one in enumerate(np.eye(n, dtype=bool))}
    drawn = [region_replicates(y, p, ONE_STORY, regions, blocks) for p in predicted]
    difference = np.stack([drawn[0][name][0] - drawn[1][name][0] for name in regions], axis=1)
    stretch = small_sample_factor(blocks[1].shape[1], 1 - 2 * ALPHA)
    return equivalence_from_replicates(difference.mean(axis=0), difference, (-0.9, 0.1), stretch=stretch).equivalent


def interval_of_r(over: str, n_stories: int, n_trs: int) -> Simulation:
    """Intervals of one voxel's r that miss the truth, .5."""
    groups = np.repeat(np.arange(n_stories), n_trs)

    def one(rng: np.random.Generator) -> bool:
        y, noise = (autocorrelated((len(groups), 1), rng) for _ in range(2))
        draws = BlockDraws(n_bootstraps=999, seed=int(rng.integers(2**31)), over=over)  # type: ignore[arg-type]
        interval = block_bootstrap(y, 0.5 * y + np.sqrt(0.75) * noise, groups, draws=draws)
        return not interval.low <= 0.5 <= interval.high

    return one_by_one(one)


def hierarchical(shape: tuple[int, int, int], nested: bool = False, naive: bool = False) -> Simulation:
    """Intervals of a mean that miss the truth, 0: stories, subjects and seeds add their own, and so do cells."""

    def one(rng: np.random.Generator) -> bool:
        scores = rng.standard_normal(shape)
        for axes in ([0], [1], [1, 2] if nested else [2]):
            effect = rng.standard_normal([n if k in axes else 1 for k, n in enumerate(shape)])
            scores = scores + effect * (effect.size > 1)
        seed = int(rng.integers(2**31))
        if naive:
            interval = hierarchical_bootstrap(scores.ravel(), ("cells",), n_bootstraps=500, seed=seed)
        else:
            inside = {"seeds": "subjects"} if nested else None
            interval = hierarchical_bootstrap(scores, nested=inside, n_bootstraps=500, seed=seed)
        return not interval.low <= 0 <= interval.high

    return one_by_one(one)


def all_rows() -> Iterator[Row]:
    """The table's rows."""
    yield Row("r, rows taken as independent", independent_sample_p, naive=True)
    yield Row("r, block permutation, one story", block_permutation(ONE_STORY))
    yield Row("r, block permutation, three stories", block_permutation(THREE_STORIES))
    yield Row("r, block permutation, neighbours correlate by .7", block_permutation(ONE_STORY, phi=0.7))
    yield Row("difference, rows exchanged", block_difference(block_trs=1), naive=True)
    yield Row("difference of r, blocks exchanged", block_difference())
    yield Row("difference of R2, blocks exchanged", block_difference("r2"))
    yield Row("difference of r, neighbours correlate by .7", block_difference(phi=0.7))
    yield Row("40 voxels uncorrected", family("uncorrected"), naive=True)
    yield Row("40 voxels, max statistic of r", family("r"))
    yield Row("40 voxels, max statistic of differences", family("difference"))
    yield Row("40 voxels, FDR", family("fdr", m=999), note="nothing is true: any discovery is a false one")
    few = "ranks of so few subjects have no level nearer to 5 %"
    for n in (6, 10, 20):
        yield Row(f"Wilcoxon, {n} subjects", over_subjects(paired_wilcoxon, n), wilcoxon_level(n), few)
    for n in (6, 10):
        note = f"p is a multiple of 2 / 2^{n}"
        yield Row(f"sign flips, {n} subjects", over_subjects(paired_sign_flip, n), sign_flip_level(n), note)
    yield Row("sign flips, 20 subjects", over_subjects(lambda d: paired_sign_flip(d, n_flips=999), 20))
    yield Row("equivalence over subjects, at its bound", equivalence_at_bound)
    yield Row("equivalence by block bootstrap, at its bound", in_chunks(replicates_at_bound))
    yield Row("interval of r, blocks of time", interval_of_r("time", 1, N_TRS))
    yield Row("interval of r, six stories", interval_of_r("stories", 6, 60))
    yield Row("interval, 6 x 5 x 3 cells as independent", hierarchical((6, 5, 3), naive=True), naive=True)
    yield Row("interval, 6 stories x 5 subjects x 3 seeds", hierarchical((6, 5, 3)))
    yield Row("interval, seeds nested in 8 subjects", hierarchical((10, 8, 3), nested=True))
    yield Row("interval, 8 subjects, one story and seed", hierarchical((1, 8, 1)))


def main() -> None:
    """Simulate, print a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="data sets per test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--quick", action="store_true", help="200 data sets: shows that all runs")
    given = parser.parse_args()
    n = 200 if given.quick else given.n
    print(f"| rejected at 5 % under a true null, {n} data sets | rate | s.e. | expected | keeps it | |")
    print("|---|---|---|---|---|---|")
    for k, row in enumerate(all_rows()):
        if given.only not in row.name:
            continue
        rejected = row.rejects(n, np.random.default_rng([given.seed, k]))
        rate, error = rejected.mean(), np.sqrt(row.level * (1 - row.level) / n)
        verdict = "yes" if abs(rate - row.level) <= TOLERANCE else "NO"
        note = "naive: must fail" if row.naive else row.note if row.level != ALPHA or row.note else ""
        print(
            f"| {row.name} | {100 * rate:.1f} % | {100 * error:.1f} | {100 * row.level:.2f} % | {verdict} | {note} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
