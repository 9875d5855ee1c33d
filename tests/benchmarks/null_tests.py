"""Does every test keep its level? python -m tests.benchmarks.null_tests [--n 2000] [--quick]

For each test, data sets in which the null is true by construction: the share that is rejected at 5 % should be 5 %,
within 1.5. Responses and predictions are AR(1): neighbours correlate by .5 in 291 rows of one story or 100 of each of
three, and by .8 in stories of many lengths. A level that ranks and signs of few subjects cannot reach exactly is
computed and printed as what is expected. Rows marked `naive` do what should not be done, and have to fail.
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
    block_weights,
    circular_shift_test,
    correlation,
    correlation_within,
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
ONE_STORY, THREE_STORIES = (N_TRS,), (100, 100, 100)
STRONG = 0.8
STORIES = {
    "60 rows": (60,),
    "100 rows": (100,),
    "150 rows": (150,),
    "291 rows": ONE_STORY,
    "1,500 rows": (1500,),
    "3 x 60 rows": (60, 60, 60),
    "3 x 100 rows": THREE_STORIES,
    "200, 45 and 45 rows": (200, 45, 45),
    "150, 30 and 30 rows": (150, 30, 30),
    "25 x 60 rows": (60,) * 25,
}
"""Where neighbours correlate by .8."""
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


def of_stories(lengths: tuple[int, ...], n: int, rng: np.random.Generator, phi: float = PHI) -> np.ndarray:
    """The same for several stories, one below the other, (sum of lengths, n)."""
    return np.concatenate([autocorrelated((n_trs, n), rng, phi) for n_trs in lengths])


def labels_of(lengths: tuple[int, ...]) -> np.ndarray:
    """The story of each row."""
    return np.repeat(np.arange(len(lengths)), lengths)


def independent_sample_p(n: int, rng: np.random.Generator) -> Rejections:
    """The naive one: Pearson's r as if rows were independent."""
    r = correlation(autocorrelated((N_TRS, n), rng), autocorrelated((N_TRS, n), rng))
    return np.asarray(student.sf(r * np.sqrt((N_TRS - 2) / (1 - r**2)), N_TRS - 2) <= ALPHA)


def shifted(lengths: tuple[int, ...], phi: float = PHI, m: int = 999) -> Simulation:
    """Responses and predictions that have nothing to do with each other."""

    def rejects(n: int, rng: np.random.Generator) -> Rejections:
        y, p = (of_stories(lengths, n, rng, phi) for _ in range(2))
        test = circular_shift_test(y, p, labels_of(lengths), n_permutations=m, seed=int(rng.integers(2**31)))
        return np.asarray(test.p <= ALPHA)

    return in_chunks(rejects)


def two_models(lengths: tuple[int, ...], n: int, rng: np.random.Generator, phi: float = PHI) -> tuple[np.ndarray, ...]:
    """Responses, and two predictions that are equally good in different ways (r = .57 each)."""
    signal, *noise = (of_stories(lengths, n, rng, phi) for _ in range(4))
    return signal + noise[0], signal + 0.75 * noise[1], signal + 0.75 * noise[2]


def block_difference(lengths: tuple[int, ...], score: str = "r", phi: float = PHI, m: int = 999) -> Simulation:
    """Two equally good models."""

    def rejects(n: int, rng: np.random.Generator) -> Rejections:
        how = {"score": score, "n_permutations": m, "seed": int(rng.integers(2**31))}
        test = block_difference_test(*two_models(lengths, n, rng, phi), labels_of(lengths), **how)  # type: ignore[arg-type]
        return np.asarray(test.p <= ALPHA)

    return in_chunks(rejects)


def rows_exchanged(n: int, rng: np.random.Generator) -> Rejections:
    """The naive one: two equally good models, exchanged row by row as if rows were independent."""
    centred = [values - values.mean(axis=0) for values in two_models(ONE_STORY, n, rng)]
    y, a, b = (values / values.std(axis=0) for values in centred)
    r = (y * (a + b)).mean(axis=0) / 2
    rows = y * (a - b) - r / 2 * (a * a - b * b)
    null = np.abs(rng.choice([-1.0, 1.0], size=(999, N_TRS)) @ rows)
    return np.asarray(((null >= np.abs(rows.sum(axis=0))).sum(axis=0) + 1) / 1000 <= ALPHA)


def family(
    kind: str, lengths: tuple[int, ...] = ONE_STORY, phi: float = PHI, n_voxels: int = 40, m: int = 199
) -> Simulation:
    """Any of 40 correlated voxels, nothing being true: by the largest statistic, by FDR, or (naive) uncorrected."""

    def one(rng: np.random.Generator) -> bool:
        common = of_stories(lengths, 1, rng, phi)
        y, a, b = (of_stories(lengths, n_voxels, rng, phi) for _ in range(3))
        seed, labels = int(rng.integers(2**31)), labels_of(lengths)
        if kind == "difference":
            test = block_difference_test(y + common, a, b, labels, n_permutations=m, seed=seed)
        else:
            test = circular_shift_test(y + common, a, labels, n_permutations=m, seed=seed)
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


def replicates_at_bound(lengths: tuple[int, ...] = ONE_STORY, phi: float = PHI) -> Simulation:
    """Two predictions whose true difference of correlations, .5 - .4, is the upper bound, by block bootstrap."""

    def rejects(n: int, rng: np.random.Generator) -> Rejections:
        y, *noise = (of_stories(lengths, n, rng, phi) for _ in range(3))
        predicted = [r * y + np.sqrt(1 - r**2) * e for r, e in zip((0.5, 0.4), noise, strict=True)]
        labels = labels_of(lengths)
        blocks = block_weights(labels, BLOCK_TRS, 999, int(rng.integers(2**31)))
        regions = {str(k): one for k, one in enumerate(np.eye(n, dtype=bool))}
        drawn = [region_replicates(y, p, labels, regions, blocks) for p in predicted]
        difference = np.stack([drawn[0][name][0] - drawn[1][name][0] for name in regions], axis=1)
        found = correlation_within(y, predicted[0], labels) - correlation_within(y, predicted[1], labels)
        stretch = small_sample_factor(blocks[1].shape[1], 1 - 2 * ALPHA, len(lengths))
        return equivalence_from_replicates(found, difference, (-0.9, 0.1), stretch=stretch).equivalent

    return in_chunks(rejects)


def interval_of_r(over: str, lengths: tuple[int, ...], phi: float = PHI) -> Simulation:
    """Intervals of one voxel's r that miss the truth, .5."""

    def one(rng: np.random.Generator) -> bool:
        y, noise = (of_stories(lengths, 1, rng, phi) for _ in range(2))
        draws = BlockDraws(n_bootstraps=999, seed=int(rng.integers(2**31)), over=over)  # type: ignore[arg-type]
        interval = block_bootstrap(y, 0.5 * y + np.sqrt(0.75) * noise, labels_of(lengths), draws=draws)
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
    yield Row("r, shifts, one story", shifted(ONE_STORY))
    yield Row("r, shifts, three stories", shifted(THREE_STORIES))
    yield Row("r, shifts, neighbours correlate by .7", shifted(ONE_STORY, 0.7))
    yield Row("difference, rows exchanged", in_chunks(rows_exchanged), naive=True)
    yield Row("difference of r, blocks exchanged", block_difference(ONE_STORY))
    yield Row("difference of R2, blocks exchanged", block_difference(ONE_STORY, "r2"))
    yield Row("difference of r, neighbours correlate by .7", block_difference(ONE_STORY, phi=0.7))
    yield Row("40 voxels uncorrected", family("uncorrected"), naive=True)
    yield Row("40 voxels, max statistic of r", family("r"))
    yield Row("40 voxels, max statistic of differences", family("difference"))
    yield Row("40 voxels, FDR", family("fdr", m=3999), note="nothing is true: any discovery is a false one")
    few = "ranks of so few subjects have no level nearer to 5 %"
    for n in (6, 10, 20):
        yield Row(f"Wilcoxon, {n} subjects", over_subjects(paired_wilcoxon, n), wilcoxon_level(n), few)
    for n in (6, 10):
        note = f"p is a multiple of 2 / 2^{n}"
        yield Row(f"sign flips, {n} subjects", over_subjects(paired_sign_flip, n), sign_flip_level(n), note)
    yield Row("sign flips, 20 subjects", over_subjects(lambda d: paired_sign_flip(d, n_flips=999), 20))
    yield Row("equivalence over subjects, at its bound", equivalence_at_bound)
    yield Row("equivalence by block bootstrap, at its bound", replicates_at_bound())
    yield Row("interval of r, blocks of time", interval_of_r("time", ONE_STORY))
    yield Row("interval of r, six stories", interval_of_r("stories", (60,) * 6))
    yield Row("interval, 6 x 5 x 3 cells as independent", hierarchical((6, 5, 3), naive=True), naive=True)
    yield Row("interval, 6 stories x 5 subjects x 3 seeds", hierarchical((6, 5, 3)))
    yield Row("interval, seeds nested in 8 subjects", hierarchical((10, 8, 3), nested=True))
    yield Row("interval, 8 subjects, one story and seed", hierarchical((1, 8, 1)))


def strong_rows() -> Iterator[Row]:
    """Rows where neighbours correlate by .8, for stories of many lengths; with too few blocks there is no test."""
    for name, lengths in STORIES.items():
        yield Row(f"r, shifts, {name}", shifted(lengths, STRONG))
    for name, lengths in STORIES.items():
        if name not in ("60 rows", "100 rows"):
            yield Row(f"difference of r, {name}", block_difference(lengths, phi=STRONG))
            yield Row(f"difference of R2, {name}", block_difference(lengths, "r2", phi=STRONG))
    for name in ("150 rows", "200, 45 and 45 rows"):
        yield Row(f"40 voxels, max statistic of r, {name}", family("r", STORIES[name], STRONG))
        yield Row(f"40 voxels, max statistic of differences, {name}", family("difference", STORIES[name], STRONG))
    for name, lengths in STORIES.items():
        yield Row(f"interval of r, {name}", interval_of_r("time", lengths, STRONG))
    for name, lengths in STORIES.items():
        yield Row(f"equivalence at its bound, {name}", replicates_at_bound(lengths, STRONG))


def main() -> None:
    """Simulate, print a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="data sets per test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strong", action="store_true", help="the rows where neighbours correlate by .8")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--quick", action="store_true", help="200 data sets: shows that all runs")
    given = parser.parse_args()
    n = 200 if given.quick else given.n
    print(f"| rejected at 5 % under a true null, {n} data sets | rate | s.e. | expected | keeps it | |")
    print("|---|---|---|---|---|---|")
    for k, row in enumerate(strong_rows() if given.strong else all_rows()):
        if given.only not in row.name:
            continue
        rejected = row.rejects(n, np.random.default_rng([given.seed, k, given.strong]))
        rate, error = rejected.mean(), np.sqrt(row.level * (1 - row.level) / n)
        verdict = "yes" if abs(rate - row.level) <= TOLERANCE else "NO"
        note = "naive: must fail" if row.naive else row.note if row.level != ALPHA or row.note else ""
        print(
            f"| {row.name} | {100 * rate:.1f} % | {100 * error:.1f} | {100 * row.level:.2f} % | {verdict} | {note} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
