"""How often is a true null called supported over seeds? python -m tests.benchmarks.shared_seeds [--n 1000]

Regimes A and B are made alike, so neither aligns better: what a claim of a rise says about A - B is false. Each data
set is five seeds of both regimes, probed on two stories of 150 TRs and 12 voxels of each subject. The predictions of
a regime err in three ways: as all its seeds do (it was tuned on the same data), as one seed does, and by how well it
suits a person or came out in a seed. `shared` seeds are scored on the same responses, as on real data; of `own` ones
each has stories and people of its own. 'before' is the rule that took seeds as independent experiments in both cases.

Both directions count, so that a rate is the mean of rises and falls called supported; the smallest effect of interest
is 0 here: an interval beyond 0 is enough. Rules were chosen on seeds below 2,000; the table is of seeds from 50,000 on.

`--fits` measures one more thing: encoding models that are fitted, on 4 or 12 stories of 100 TRs that seeds share too.
Their weights are held fixed in the intervals of claims.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.stats import t as student

from brainlit.comparison.effects import Key, SeedEvidence, mean_over_seeds
from brainlit.encoding import run_probe
from brainlit.encoding.bootstrap import block_weights, region_replicates
from brainlit.encoding.statistics import Score
from brainlit.results.scores import stretch_of
from brainlit.results.tables import markdown_table
from tests.benchmarks import refitted_probes

Array = npt.NDArray[np.float64]
FIRST_SEED = 50_000
N_SEEDS, N_VOXELS, N_BOOTSTRAPS, PHI = 5, 12, 200, 0.5
GROUPS = np.repeat([0, 1], 150)
KEY = Key("r_backbone", "region")


class Cell(NamedTuple):
    """One kind of data set.

    `common` is the share of a regime's error that its seeds have in common, `luck` and `taste` how much (log scale) a
    seed and a subject favour one of the regimes.
    """

    shared: bool
    n_subjects: int
    common: float = 0.7
    luck: float = 0.05
    taste: float = 0.1


CELLS = tuple(
    Cell(shared, n, common, taste=0.1 if n > 1 else 0.0)
    for shared in (True, False)
    for n in (1, 3, 8)
    for common in (0.3, 0.9)
)


def series(rng: np.random.Generator, *shape: int) -> Array:
    """AR(1) along the last axis, stationary, of unit variance."""
    white = rng.standard_normal((*shape, len(GROUPS) + 30))
    return np.asarray(np.sqrt(1 - PHI**2) * lfilter([1.0], [1.0, -PHI], white, axis=-1)[..., 30:])


def seeds_of(cell: Cell, rng: np.random.Generator) -> list[SeedEvidence]:
    """Five seeds of both regimes, probed."""
    found, world = [], None
    for seed in range(N_SEEDS):
        if world is None or not cell.shared:
            world = responses(cell, rng)
        found.append(one_seed(cell, rng, seed, world))
    return found


class World(NamedTuple):
    """Stories and people: loadings of voxels on three signals, responses, common errors of both regimes, tastes."""

    loadings: Array
    signals: Array
    y: Array
    common: Array
    tastes: Array


def responses(cell: Cell, rng: np.random.Generator) -> World:
    """All subjects hear the same stories; a third of their noise is common to their voxels."""
    n = cell.n_subjects
    loadings, signals = rng.standard_normal((n, N_VOXELS, 3)) + 0.7, series(rng, 3)
    noise = series(rng, n, N_VOXELS) + np.sqrt(0.5) * series(rng, n, 1)
    y = loadings @ signals + 2.0 * noise
    return World(loadings, signals, y, series(rng, 2, 3), cell.taste * rng.standard_normal(n))


def one_seed(cell: Cell, rng: np.random.Generator, seed: int, world: World) -> SeedEvidence:
    """The errors of regimes are in the signals, as those of a model that hears the stories are; voxels mix them."""
    luck = cell.luck * rng.standard_normal()
    blocks = block_weights(GROUPS, 20, N_BOOTSTRAPS, int(rng.integers(2**31)))
    errors = np.sqrt(cell.common) * world.common + np.sqrt(1 - cell.common) * series(rng, 2, 3)
    states: list[dict[Key, dict[str, Score]]] = [{KEY: {}}, {KEY: {}}]
    for subject in range(cell.n_subjects):
        for which, side in enumerate((1.0, -1.0)):
            size = np.exp(side * (luck + world.tastes[subject]))
            predicted = world.loadings[subject] @ (world.signals + size * errors[which])
            y, region = world.y[subject].T, {"": np.ones(N_VOXELS, dtype=bool)}
            drawn = region_replicates(y, predicted.T, GROUPS, region, blocks)[""][0]
            stretch = stretch_of(GROUPS, blocks, y, predicted.T)
            score = Score(mean_r(y, predicted.T), drawn).stretched(stretch)
            states[which][KEY][f"subject_{subject}"] = score
    named = {"brain": (states[0],), "permuted": (states[1],)}
    return SeedEvidence("m", seed, named, data={"probe": "all" if cell.shared else f"{seed}"})


def mean_r(y: Array, predicted: Array) -> float:
    """Mean over voxels of the correlation, each story centred."""
    a, b = (np.concatenate([part - part.mean(axis=0) for part in np.split(v, 2)]) for v in (y, predicted))
    return float(((a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))).mean())


def fitted_seeds(n_fit_stories: int, rng: np.random.Generator, n_features: int = 40) -> list[SeedEvidence]:
    """Five seeds of one person whose features are fitted: 90 % of what is a regime's own are in all of its seeds."""
    lengths = [*(100,) * n_fit_stories, 150, 150]
    groups = np.repeat(np.arange(len(lengths)), lengths)
    fit, region = groups < n_fit_stories, {"": np.ones(N_VOXELS, dtype=bool)}
    signals = refitted_probes.series(rng, len(groups), 3)
    Y = signals @ (rng.standard_normal((3, N_VOXELS)) + 0.7)
    Y += 2.5 * refitted_probes.series(rng, len(groups), N_VOXELS) + 1.5 * refitted_probes.series(rng, len(groups), 1)
    mixture = rng.standard_normal((3, n_features))
    common = [refitted_probes.series(rng, len(groups), n_features) for _ in range(2)]
    found = []
    for seed in range(N_SEEDS):
        states: list[dict[Key, dict[str, Score]]] = []
        blocks = block_weights(GROUPS, 20, N_BOOTSTRAPS, int(rng.integers(2**31)))
        for which in range(2):
            own = np.sqrt(0.1) * refitted_probes.series(rng, len(groups), n_features) + np.sqrt(0.9) * common[which]
            result = run_probe({"backbone": signals @ mixture + 1.5 * own}, Y, groups, fit, ~fit, refitted_probes.PROBE)
            y, predicted = result.observed, result.predictions["backbone"]
            drawn = region_replicates(y, predicted, GROUPS, region, blocks)[""][0]
            stretch = stretch_of(GROUPS, blocks, y, predicted)
            score = Score(float(result.r_by_model["backbone"].mean()), drawn).stretched(stretch)
            states.append({KEY: {"subject": score}})
        found.append(SeedEvidence("m", seed, {"brain": (states[0],), "permuted": (states[1],)}))
    return found


def rule_before(found: list[Score]) -> tuple[float, float]:
    """Seeds as independent experiments: Student's t over them, at least as wide as their own intervals make it."""
    values, halves = [one.value for one in found], [(one.high - one.low) / 2 for one in found]
    n = len(values)
    over = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    half = max(over, np.sqrt(np.sum(np.square(halves))) / n)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def measure(cell: Cell | int, n: int, first_seed: int = FIRST_SEED) -> Iterator[tuple[bool, bool]]:
    """Of n data sets: whether the interval before, and that of today, lies beyond 0; a number is one of fit stories."""
    for k in range(n):
        rng = np.random.default_rng(first_seed + k)
        seeds = fitted_seeds(cell, rng) if isinstance(cell, int) else seeds_of(cell, rng)
        own = [one for seed in seeds if (one := seed.difference("brain", "permuted", KEY)) is not None]
        mean = mean_over_seeds(seeds, KEY, "brain", "permuted")
        assert mean is not None
        assert mean.interval is not None
        yield beyond(rule_before(own)), beyond(mean.interval)


def beyond(interval: tuple[float, float]) -> bool:
    """Whether it leaves 0 out."""
    return interval[0] > 0 or interval[1] < 0


def said(flags: list[bool]) -> str:
    """Rate of one direction in percent, with its standard error."""
    rate = float(np.mean(flags))
    return f"{50 * rate:.1f} +- {50 * np.sqrt(max(rate * (1 - rate), 1e-9) / len(flags)):.1f} %"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="data sets in each row (default: 1000)")
    parser.add_argument("--first_seed", type=int, default=FIRST_SEED)
    parser.add_argument("--fits", action="store_true", help="encoding models that are fitted, one subject")
    given = parser.parse_args()
    rows = []
    for n_fit in (4, 12) if given.fits else ():
        before, now = zip(*measure(n_fit, given.n, given.first_seed), strict=True)
        print(f"{n_fit} fit stories: before {said(list(before))}, now {said(list(now))}", flush=True)
    for cell in () if given.fits else CELLS:
        before, now = zip(*measure(cell, given.n, given.first_seed), strict=True)
        whose = "the same" if cell.shared else "their own"
        rows.append([whose, str(cell.n_subjects), f"{cell.common:.0%}", said(list(before)), said(list(now))])
        print(rows[-1], flush=True)
    heads = ["five seeds score", "subjects", "error common to seeds", "before", "now"]
    if rows:
        print("\n".join(markdown_table(heads, rows)))


if __name__ == "__main__":
    main()
