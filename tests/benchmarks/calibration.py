"""Are a region's shares right, and do their intervals cover? Simulated data sets with a partition that can be computed.

Run as `python -m tests.benchmarks.calibration`; prints three tables and draws the parts over the number of fitted TRs
with `--figure`. Data sets have seeds from 40,000 on; estimators and their settings were chosen on seeds below 2,000.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brainlit.encoding import BANDS, ProbeConfig, ProbeResult, model_name, partition_variance, run_probe, subsets
from brainlit.encoding.arrays import FloatArray, demean_within
from brainlit.encoding.asymptotic_partition import region_shares
from brainlit.encoding.statistics import cut_blocks
from tests.encoding.simulate import Setting, Simulated, population_split, simulate, truth

FIRST_SEED = 40_000
MIXTURES = ((0.5, 0.3, 0.2), (1.0, 0.0, 0.0), (0.3, 0.7, 0.0), (0.0, 0.5, 0.5))
SMALL = Setting(n_features=6, n_voxels=12)
LOW_LEVEL_ONLY = replace(SMALL, fractions=(1.0, 0.0, 0.0), backbone=(1.0, 0.0, 0.0))
JOINT = model_name(BANDS)
OFFERED, PROBE, PRODUCT = "region_shares", "probe, partition", "probe, product measure"


@dataclass(frozen=True)
class Cell:
    """How much is fitted and scored, of what; mixtures of planted fractions take turns if it says so."""

    name: str
    n_fit: int
    n_score: int
    setting: Setting = SMALL
    mixed: bool = True

    def data(self, k: int) -> Simulated:
        """The k-th data set."""
        fractions = MIXTURES[k % len(MIXTURES)] if self.mixed else self.setting.fractions
        return simulate(FIRST_SEED + k, self.n_fit, self.n_score, replace(self.setting, fractions=fractions))


CELLS = (
    Cell("600 fitted TRs, 1 story scored", 600, 225),
    Cell("600 fitted TRs, 10 stories scored", 600, 2250),
    Cell("1,500 fitted TRs, 2 stories scored", 1500, 450),
    Cell("6,000 fitted TRs, 2 stories scored", 6000, 450),
)
PROBED = CELLS[1:4]
ONLY = Cell("backbone of low-level information only", 1500, 450, LOW_LEVEL_ONLY, mixed=False)
SIZES = (600, 1000, 1800, 3200, 6000)


@dataclass(frozen=True)
class Row:
    """One number of one data set."""

    estimator: str
    part: str
    truth: float
    value: float
    low: float = float("nan")
    high: float = float("nan")


def offered_rows(data: Simulated) -> list[Row]:
    """The shares that brainlit offers."""
    known = truth(data.population)
    found = region_shares(data.bands, data.Y, data.groups, data.fit, data.score)
    return [Row(OFFERED, part, known[part], s.value, s.low, s.high) for part, s in found.parts.items()]


def probe_rows(data: Simulated) -> list[Row]:
    """The parts of the probe as shares of its joint R2, intervals over scored blocks with predictions held fixed."""
    known, split = truth(data.population), population_split(data.population)
    result = run_probe(data.bands, data.Y, data.groups, data.fit, data.score)
    r2 = replicated_r2(result)
    parts = {part: values / r2[JOINT] for part, values in partition_variance(r2, BANDS).items()}
    rows = [Row(PROBE, part, known[part], v[0], *np.quantile(v[1:], (0.025, 0.975))) for part, v in parts.items()]
    joint = result.r2.sum()
    rows += [Row(PRODUCT, band, split[band], float(v.sum() / joint)) for band, v in result.split.items()]
    if not any(data.population.setting.backbone[1:]):
        r = result.r_by_model["backbone"].mean()
        rows += [Row(f"impact, {way}", "left of r", 0.0, float(v.mean() / r)) for way, v in result.r_rest.items()]
    return rows


def replicated_r2(result: ProbeResult, block_trs: int = 10, n_boot: int = 1000) -> dict[str, FloatArray]:
    """R2 of each model, mean over voxels: the value, then replicates with scored blocks drawn with replacement."""
    groups = result.score_groups
    y = demean_within(result.observed, groups)
    starts = [block[0] for block in cut_blocks(groups, block_trs)]
    drawn = np.random.default_rng(0).multinomial(len(starts), np.full(len(starts), 1 / len(starts)), n_boot)
    counts = np.concatenate([np.ones((1, len(starts)), dtype=np.int64), drawn])
    sst = counts @ np.add.reduceat(y * y, starts)

    def r2(predicted: FloatArray) -> FloatArray:
        sse = counts @ np.add.reduceat(np.square(y - demean_within(predicted, groups)), starts)
        return np.asarray((1 - sse / sst).mean(axis=1))

    return {model_name(m): r2(np.asarray(result.predictions[model_name(m)], dtype=np.float64)) for m in subsets(BANDS)}


def curve_rows(n_fit: int, k: int) -> list[Row]:
    """Parts in units of R2 for one number of fitted TRs, over the joint R2 of endless data."""
    data = Cell("", n_fit, 900, mixed=False).data(k)
    signal, known = float(data.population.signal.mean()), truth(data.population)
    result = run_probe(data.bands, data.Y, data.groups, data.fit, data.score, ProbeConfig(low_level_impact=False))
    found = region_shares(data.bands, data.Y, data.groups, data.fit, data.score)
    joint = signal * population_split(data.population)["joint"]
    rows = [Row(PROBE, part, known[part], float(v.mean() / joint)) for part, v in result.partition.items()]
    rows += [Row(OFFERED, p, known[p], s.value * found.joint_r2.value / joint) for p, s in found.parts.items()]
    return rows


def measure(make: Callable[[int], list[Row]], n: int, jobs: int, what: str) -> list[list[Row]]:
    """Rows of n data sets, with progress."""
    if jobs == 1:
        return [make(k) for k in tqdm(range(n), desc=what, mininterval=5)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        return list(tqdm(pool.imap(make, range(n)), desc=what, total=n, mininterval=5))


def _of_cell(make: Callable[[Simulated], list[Row]], cell: Cell, k: int) -> list[Row]:
    return make(cell.data(k))


def table(found: Sequence[Sequence[Row]]) -> Iterator[str]:
    """A line per estimator and part, and one over the parts of each estimator that has intervals.

    The last one gives the largest bias of any part, over all data sets and over those of one mixture.
    """
    yield "| estimator | part | sets | truth | estimate | bias | sd | coverage | width |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    keys = dict.fromkeys((row.estimator, row.part) for rows in found for row in rows)
    for key in keys:
        yield _line(*key, [[row for row in rows if (row.estimator, row.part) == key] for rows in found])
    for estimator in dict.fromkeys(name for name, _ in keys):
        rows = [[row for row in rows if row.estimator == estimator] for rows in found]
        if np.isfinite([row.low for own in rows for row in own]).any():
            yield _line(estimator, "all parts", rows)


def _line(estimator: str, part: str, found: Sequence[Sequence[Row]]) -> str:
    """Means over data sets; the error of a coverage is that of the mean over data sets of its parts' hits."""
    found = [rows for rows in found if rows]
    known, value, low, high = (
        np.array([[getattr(row, name) for row in rows] for rows in found]) for name in ("truth", "value", "low", "high")
    )
    error, hit = value - known, ((low <= known) & (known <= high)).mean(axis=1)
    cover = f"{100 * hit.mean():.1f} +- {100 * hit.std() / np.sqrt(len(hit)):.1f} %" if np.isfinite(low).all() else ""
    width = f"{(high - low).mean():.3f}" if cover else ""
    numbers = f"{known.mean():.3f} | {value.mean():.3f} | {error.mean():+.3f} | {error.std():.3f}"
    if part == "all parts":
        worst = max(np.abs(error[k :: len(MIXTURES)].mean(axis=0)).max() for k in range(len(MIXTURES)))
        numbers = f" | | at most {np.abs(error.mean(axis=0)).max():.3f}, {worst:.3f} | {error.std():.3f}"
    return f"| {estimator} | {part} | {len(found)} | {numbers} | {cover} | {width} |"


def draw(curves: dict[int, list[list[Row]]], path: Path) -> None:
    """Parts over the number of fitted TRs: the probe's, and those that region_shares gives."""
    from brainlit.results.style import MARKS, house_style, new_figure, part_colours, part_label

    parts = [row.part for row in next(iter(curves.values()))[0] if row.estimator == PROBE]
    colours, marks = part_colours(parts), itertools.cycle((*MARKS, "P", "X"))
    with house_style():
        figure = new_figure(10, 3.8)
        axes = figure.subplots(1, 2, sharey=True)
        for part, mark in zip(parts, marks, strict=False):
            look = {"color": colours[part], "marker": mark, "markersize": 4.5, "label": part_label(part)}
            for axis, estimator in zip(axes, (PROBE, OFFERED), strict=True):
                axis.plot(list(curves), [_mean(rows, estimator, part) for rows in curves.values()], **look)
                truth = _mean(curves[SIZES[-1]], estimator, part, "truth")
                axis.axhline(truth, color=colours[part], linestyle=":", linewidth=1)
        for axis, estimator in zip(axes, (PROBE, OFFERED), strict=True):
            axis.set(xscale="log", xlabel="fitted TRs")
            axis.set_title(estimator)
            axis.set_xticks(list(curves), [f"{n:,}" for n in curves])
            axis.minorticks_off()
        axes[0].set_ylabel("R2 of the part / joint R2 of endless data")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(path, dpi=120)


def _mean(found: Sequence[Sequence[Row]], estimator: str, part: str, of: str = "value") -> float:
    return float(
        np.mean([getattr(r, of) for rows in found for r in rows if (r.estimator, r.part) == (estimator, part)])
    )


def curve_table(curves: dict[int, list[list[Row]]]) -> Iterator[str]:
    """The numbers behind the drawing."""
    yield f"| estimator | part | truth | {' | '.join(f'{n:,} TRs' for n in curves)} |"
    yield "| --- | --- | --- |" + " --- |" * len(curves)
    for estimator, part in dict.fromkeys((row.estimator, row.part) for row in curves[SIZES[0]][0]):
        known = _mean(curves[SIZES[-1]], estimator, part, "truth")
        values = " | ".join(f"{_mean(rows, estimator, part):.3f}" for rows in curves.values())
        yield f"| {estimator} | {part} | {known:.3f} | {values} |"


def main() -> None:
    """Run the cells, the backbone of low-level information only, and the curve."""
    given = _options()
    n_probe = min(given.n, given.n_probe)
    for cell in (*CELLS, ONLY):
        found = measure(functools.partial(_of_cell, offered_rows, cell), given.n, given.jobs, cell.name)
        print(f"\n{cell.name}\n", *table(found), sep="\n", flush=True)
    for cell in (*PROBED, ONLY):
        found = measure(functools.partial(_of_cell, probe_rows, cell), n_probe, given.jobs, f"{cell.name}, probe")
        print(f"\n{cell.name}, of the probe\n", *table(found), sep="\n", flush=True)
    curves = {n: measure(functools.partial(curve_rows, n), given.n_curve, given.jobs, f"{n} fitted TRs") for n in SIZES}
    print("\nparts over the number of fitted TRs\n", *curve_table(curves), sep="\n", flush=True)
    if given.figure:
        draw(curves, given.figure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="data sets per table")
    parser.add_argument("--n-probe", type=int, default=40, help="of these, how many are probed, which takes longest")
    parser.add_argument("--n-curve", type=int, default=6, help="data sets per number of fitted TRs")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--figure", type=Path, help="where the drawing over fitted TRs goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
