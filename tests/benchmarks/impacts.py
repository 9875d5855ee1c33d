"""Is the low-level impact by banded ridge unbiased, and do its intervals cover? `python -m tests.benchmarks.impacts`.

Predictions that are right, as endless fitted rows give them, of responses with a known impact: each voxel follows
signals that backbone and low-level features share, one that the backbone alone has, and one that low-level features
alone have; all are autocorrelated, and the noise of voxels is correlated. With q the backbone's own part of its
correlation, r_B|L / r_B is q in every voxel, and the impact 100 (1 - q). Until version 1 of a probe's files the impact
was made of the mean over voxels of sign(U) sqrt(|U|), U = r_BL |r_BL| - r_L |r_L|: the rows called before.

A second table is of whole probes, with ridges fitted on some rows (`tests/encoding/simulate.py`; the truth is that of
endless data). A third is of the residual over lags where everything that the backbone holds, or nothing, is low-level;
before, low-level information that the regression left in the residual counted as the backbone's own.
Data sets have seeds from 60,000 on; formulas were chosen on seeds below 2,000.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from brainlit.encoding import ProbeConfig, ProbeResult, residual_features, run_probe, semipartial
from brainlit.encoding.arrays import FloatArray, IntArray, demean_within
from brainlit.encoding.bootstrap import BLOCK_TRS, block_weights
from brainlit.encoding.probe_fit import ProbeFit
from brainlit.encoding.probe_rows import prepare_rows, prepare_targets
from brainlit.encoding.statistics import LEVEL, correlation_within, small_sample_factor
from brainlit.results.scores import probe_rows
from tests.encoding.simulate import Setting, Simulated, population_r2, simulate

FIRST_SEED = 60_000
TRUTHS = (100 / 7, 300 / 7, 500 / 7, 600 / 7)
N_BOOTSTRAPS = 1000
ROUNDING = 1e-3
"""Points of percent: truths of exactly 100 are known to about that."""
WAYS = ("residual_lag0", "residual_lags", "banded_ridge")
MODELS = ("backbone", "low_level", "backbone+low_level")
NOW, BEFORE = "now", "before"


@dataclass(frozen=True)
class Scored:
    """What is scored, and the range of the voxels' correlation with the backbone's prediction."""

    n_trs: int
    n_stories: int
    n_voxels: int = 12
    r: tuple[float, float] = (0.2, 0.5)

    def __str__(self) -> str:
        stories = "1 story" if self.n_stories == 1 else f"{self.n_stories} stories"
        return f"{self.n_trs:,} TRs of {stories}, {self.n_voxels} voxels"


CELLS = (Scored(300, 1), Scored(1500, 5), Scored(1500, 5, 60))


@dataclass(frozen=True)
class Found:
    """One impact of one data set, in percent, with its interval."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def ar1(rng: np.random.Generator, how: Scored, memory: float, shared: float = 0.0) -> FloatArray:
    """Unit-variance series of every story, (n_trs, n_voxels); `shared` is the correlation of voxels."""
    each = how.n_trs // how.n_stories
    shape = (how.n_stories, each, how.n_voxels)
    drawn = np.sqrt(1 - shared) * rng.standard_normal(shape) + np.sqrt(shared) * rng.standard_normal((*shape[:2], 1))
    series = np.empty(shape)
    series[:, 0] = drawn[:, 0]
    for t in range(1, each):
        series[:, t] = memory * series[:, t - 1] + np.sqrt(1 - memory**2) * drawn[:, t]
    return series.reshape(-1, how.n_voxels)


def planted(seed: int, truth: float, how: Scored) -> tuple[FloatArray, dict[str, FloatArray], IntArray]:
    """Responses, right predictions of every model, and stories."""
    rng = np.random.default_rng([seed, 3])
    q, r = 1 - truth / 100, rng.uniform(*how.r, how.n_voxels)
    both, own, other = (ar1(rng, how, 0.6) for _ in range(3))
    noise = ar1(rng, how, 0.4, shared=0.3)
    low, left = r * np.sqrt(1 - q**2) * both, r * q * own
    rest = 0.2 * other  # what low-level features alone have
    Y = low + left + rest + np.sqrt(1 - r**2 - 0.04) * noise  # of variance 1
    predictions = {"backbone": low + left, "low_level": low + rest, "backbone+low_level": low + left + rest}
    return Y, predictions, np.repeat(np.arange(how.n_stories), how.n_trs // how.n_stories)


def as_result(Y: FloatArray, predictions: Mapping[str, FloatArray], groups: IntArray) -> ProbeResult:
    """What a probe with these predictions returns of them."""
    observed = demean_within(Y, groups).astype(np.float32)
    kept = {model: predicted.astype(np.float32) for model, predicted in predictions.items()}
    r = {model: correlation_within(observed, predicted, groups) for model, predicted in kept.items()}
    power = np.square(observed).sum(axis=0)
    r2 = {model: 1 - np.square(observed - demean_within(p, groups)).sum(axis=0) / power for model, p in kept.items()}
    joint = MODELS[-1]
    result = ProbeResult(
        r=r[joint], r2=r2[joint], observed=observed, used=np.ones(Y.shape[1], dtype=bool), ceiling=None,
        r_by_model=r, r2_by_model=r2, predictions=kept, r_rest={},
        score_groups=groups, alpha_at_edge={}, n_dropped=0, meta={"joint": joint},
    )  # fmt: skip
    return replace(result, r_rest={"banded_ridge": banded_left(result)})


def banded_left(result: ProbeResult) -> FloatArray:
    """The correlation that the banded impact leaves, per voxel."""
    low, both = (result.predictions[model] for model in MODELS[1:])
    between = np.nan_to_num(correlation_within(both, low, result.score_groups))
    return semipartial(result.r_by_model[MODELS[2]], result.r_by_model["low_level"], between)


def impacts_now(result: ProbeResult, seed: int) -> dict[str, Found]:
    """As reports say them, over all voxels; without those that are left out."""
    blocks = block_weights(result.score_groups, BLOCK_TRS, N_BOOTSTRAPS, seed)
    rows = {row.metric: row.score for row in probe_rows(result, {"all": result.used}, 0, blocks)}
    found = {way: rows[name] for way in WAYS if (name := f"impact_{way}") in rows}
    return {way: Found(score.value, score.low, score.high) for way, score in found.items()}


def impact_before(result: ProbeResult, seed: int) -> Found:
    """The mean over voxels of signed roots, and its replicates, as reports had them."""
    block_of_row, weights = block_weights(result.score_groups, BLOCK_TRS, N_BOOTSTRAPS, seed)
    counts = np.concatenate([np.ones_like(weights[:1]), weights])
    starts = np.flatnonzero(np.diff(block_of_row, prepend=-1))
    y, *predicted = (
        demean_within(values, result.score_groups)
        for values in (result.observed, *(result.predictions[model] for model in MODELS))
    )

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(counts @ np.add.reduceat(values, starts, axis=0))

    r_b, r_l, r_bl = (total(y * p) / np.sqrt(total(y * y) * total(p * p)) for p in predicted)
    added = r_bl * np.abs(r_bl) - r_l * np.abs(r_l)
    left = (np.sign(added) * np.sqrt(np.abs(added))).mean(axis=1)
    value, *drawn = 100 * (1 - left / r_b.mean(axis=1))
    stretch = small_sample_factor(weights.shape[1], LEVEL, len(np.unique(result.score_groups)))  # as it was then
    low, high = value + stretch * (np.quantile(drawn, (0.025, 0.975)) - value)
    return Found(float(value), float(low), float(high))


def intervals(truth: float, how: Scored, n: int) -> dict[str, list[Found]]:
    """Both impacts of n data sets."""
    found: dict[str, list[Found]] = {BEFORE: [], NOW: []}
    for seed in tqdm(range(FIRST_SEED, FIRST_SEED + n), desc=f"{how}, {truth:.0f} %", mininterval=5):
        result = as_result(*planted(seed, truth, how))
        found[BEFORE].append(impact_before(result, seed))
        found[NOW].append(impacts_now(result, seed).get("banded_ridge", Found(float("nan"))))
    return found


def line(truth: FloatArray, found: Sequence[Found]) -> str:
    """Bias, scatter, coverage and width over the data sets that have a number."""
    value, low, high = np.array([(one.value, one.low, one.high) for one in found]).T
    known = np.isfinite(value)
    error, hit = (value - truth)[known], ((low <= truth) & (truth <= high))[known]
    cover, width = 100 * hit.mean(), float(np.mean((high - low)[known]))
    spread = 100 * hit.std() / np.sqrt(hit.size)
    said = f"{error.mean():+.1f} | {error.std():.1f} | {cover:.1f} +- {spread:.1f} % | {width:.1f} |"
    return said if known.all() else f"{said} {(~known).sum()} of {known.size} left out"


def interval_table(n: int, cells: Sequence[Scored] = CELLS) -> Iterator[str]:
    """Bias and coverage by truth."""
    yield "| scored | truth | impact | bias | sd of the error | 95 % interval covers | its width |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for how in cells:
        for truth in TRUTHS:
            for name, found in intervals(truth, how, n).items():
                yield f"| {how} | {truth:.0f} | {name} | {line(np.full(n, truth), found)}"


# --- Whole probes ---

SMALL = Setting(n_features=6, n_voxels=12)
WORLDS = {
    "half is the backbone's own": replace(SMALL, fractions=(0.5, 0.0, 0.5)),
    "a tenth is the backbone's own": replace(SMALL, fractions=(0.9, 0.0, 0.1)),
    "nothing is the backbone's own": replace(SMALL, fractions=(1.0, 0.0, 0.0)),
}
EXTREMES = {
    100.0: replace(SMALL, fractions=(1.0, 0.0, 0.0), n_features=12),
    0.0: replace(SMALL, fractions=(0.0, 0.0, 1.0), backbone=(0.0, 0.0, 1.0), n_features=12),
}


def probe_of(seed: int, n_fit: int, setting: Setting, config: ProbeConfig) -> tuple[ProbeResult, float]:
    """A probe without a semantic band, and the banded impact of endless data."""
    data = simulate(seed, n_fit, 900, setting)
    bands = {band: data.bands[band] for band in ("backbone", "low_level")}
    result = run_probe(bands, data.Y, data.groups, data.fit, data.score, config)
    result = replace(result, r_rest={"banded_ridge": banded_left(result)})
    r2 = {model: values * data.population.signal for model, values in population_r2(data.population).items()}
    left = np.sqrt(np.maximum(r2["backbone+low_level"] - r2["low_level"], 0)).mean()
    return result, float(100 * (1 - left / np.sqrt(r2["backbone"]).mean()))


def fitted_table(n: int, sizes: Sequence[int] = (600, 1500)) -> Iterator[str]:
    """Banded impacts of ridges fitted on so many rows against those of endless data."""
    yield "| responses | fitted TRs | truth | bias before (sd) | bias now (sd) | 95 % interval covers the truth |"
    yield "| --- | --- | --- | --- | --- | --- |"
    config = ProbeConfig(n_gammas={1: 1, 2: 4}, low_level_impact=False)
    for world, setting in WORLDS.items():
        for n_fit in sizes:
            truths, old, new = [], [], []
            for seed in tqdm(range(FIRST_SEED, FIRST_SEED + n), desc=f"{world}, {n_fit}", mininterval=5):
                result, truth = probe_of(seed, n_fit, setting, config)
                truths.append(truth)
                old.append(impact_before(result, seed).value - truth)
                new.append(impacts_now(result, seed).get("banded_ridge", Found(float("nan"))))
            known = np.array([np.isfinite(one.value) for one in new])
            errors = np.array([one.value for one in new]) - truths
            hit = np.array(
                [one.low - ROUNDING <= truth <= one.high + ROUNDING for one, truth in zip(new, truths, strict=True)]
            )[known]
            yield (
                f"| {world} | {n_fit:,} | {np.mean(truths):.0f} | {np.mean(old):+.1f} ({np.std(old):.1f}) |"
                f" {errors[known].mean():+.1f} ({errors[known].std():.1f}) | {100 * hit.mean():.0f} % |"
            )


def residual_table(n: int, sizes: Sequence[int] = (300, 600)) -> Iterator[str]:
    """Impacts by residuals, at lag 0 (as published) and over lags, as they were and are; truths are 100 and 0."""
    yield "| truth | fitted TRs | lag 0: bias (sd) | lags, before: bias (sd) | lags, now: bias (sd) |"
    yield "| --- | --- | --- | --- | --- |"
    config = ProbeConfig(n_gammas={1: 1, 2: 1})
    for truth, setting in EXTREMES.items():
        for n_fit in sizes:
            errors = np.zeros((n, 3))
            for k in tqdm(range(n), desc=f"{truth:.0f} %, {n_fit}", mininterval=5):
                data = simulate(FIRST_SEED + k, n_fit, 900, setting)
                result, before = probe_and_old_residual(data, config)
                r = result.r_by_model["backbone"].mean()
                left = result.r_rest["residual_lag0"], before, result.r_rest["residual_lags"]
                errors[k] = [100 * (1 - rest.mean() / r) - truth for rest in left]
            said = [f"{own.mean():+.1f} ({own.std():.1f})" for own in errors.T]
            yield f"| {truth:.0f} | {n_fit:,} | {' | '.join(said)} |"


def probe_and_old_residual(data: Simulated, config: ProbeConfig) -> tuple[ProbeResult, FloatArray]:
    """A probe, and the correlation of responses with all that the residual over lags predicts."""
    bands = {band: data.bands[band] for band in ("backbone", "low_level")}
    result = run_probe(bands, data.Y, data.groups, data.fit, data.score, config)
    rows = prepare_rows(data.groups, data.fit, data.score, config.skip_trs, len(data.Y))
    ridges = ProbeFit(rows, prepare_targets(data.Y, rows), config)
    k = config.impact_lags_trs
    left = residual_features(*bands.values(), rows.groups, rows.fit, range(-k, k + 1), config)
    return result, ridges.correlate(ridges.predict_alone(left))


def main() -> None:
    """The three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="data sets per row")
    parser.add_argument("--n-probe", type=int, default=200, help="the same, of the tables of whole probes")
    given = parser.parse_args()
    for table in (interval_table(given.n), fitted_table(given.n_probe), residual_table(given.n_probe)):
        print("\n")
        for row in table:
            print(row, flush=True)


if __name__ == "__main__":
    main()
