"""What a probe's ridge costs: himalaya and the field's bootstrap ridge beside ours, alternating in one process.

Run as `python -m tests.benchmarks.probe_speed`; `--quick` for small shapes, `--what banded` for one table. Everything
is simulated: stories of 300 TRs, correlated bands with falling spectra, four delays, voxels with their own mixture and
autocorrelated noise, one story held out for the agreement that stands beside each time. Seconds are those of the
processor, which other programs on the same cores change least, and of the wall.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from brainlit.encoding import (
    DEFAULT_ALPHAS,
    Fold,
    ProbeCache,
    ProbeConfig,
    ProbeResult,
    SolverConfig,
    correlation,
    gamma_pool,
    himalaya_backend,
    make_folds,
    run_probe,
    subsets,
)
from brainlit.encoding.arrays import Array, FloatArray
from brainlit.encoding.banded import open_search
from brainlit.encoding.bands import prepare_band, rotate_band
from brainlit.encoding.config import BANDS
from brainlit.encoding.probe_fit import ProbeFit
from brainlit.encoding.search import SearchTable, choose, inside_set, refit_weights, search_pool

STORY_TRS = 300
DELAYS_TRS = (1, 2, 3, 4)
KEEP_VARIANCE = 0.99
DECAY = 0.68
"""Singular values of a band fall with this power of their rank: 99 % of the variance of 256 + 102 + 256 features at
four delays is in about 1,600 components."""
N_TARGETS_BATCH = 2000
T = TypeVar("T")
Seconds = tuple[float, float]
"""Processor, wall."""
Variant = Callable[[], FloatArray]
"""Fits and returns the held-out correlation of every voxel (or of every model and voxel)."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """Bands and responses; the last story is held out.

    Parameters
    ----------
    raw : mapping of band to array of shape (n_trs, n_features)
    Y : array of shape (n_trs, n_voxels)
    groups : int array of shape (n_trs,)
    """

    raw: Mapping[str, Array]
    Y: Array
    groups: np.ndarray

    @property
    def fit(self) -> np.ndarray:
        """Rows fitted on."""
        return self.groups < self.groups[-1]

    @cached_property
    def bands(self) -> list[Array]:
        """Standardised and delayed."""
        every = np.ones_like(self.fit)
        return [prepare_band(X, self.groups, self.fit, every, DELAYS_TRS) for X in self.raw.values()]

    def rotated(self) -> list[Array]:
        """Principal components of each band."""
        return [rotate_band(X, self.fit, KEEP_VARIANCE) for X in self.bands]

    def folds(self, n_folds: int) -> list[Fold]:
        """Whole stories."""
        return make_folds(self.groups[self.fit], n_folds)

    def score(self, predicted: Array) -> FloatArray:
        """Correlation with the held-out story."""
        return np.asarray(correlation(self.Y[~self.fit], predicted))


def simulate(
    n_trs: int, n_voxels: int, sizes: Sequence[int], seed: int = 0, story_trs: int = STORY_TRS, shared: float = 0.5
) -> Simulation:
    """Bands with falling singular values, a part of each shared, so many times its own; SNR from 0.02 to 0.5."""
    rng = np.random.default_rng(seed)
    n_all = n_trs + story_trs
    groups = np.repeat(np.arange(-(-n_all // story_trs)), story_trs)[:n_all]
    common = _smooth(rng, n_all, max(sizes))
    raw = {}
    for band, size in zip(BANDS, sizes, strict=False):
        latent = _smooth(rng, n_all, size) + shared * common[:, :size]
        turn = np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
        raw[band] = (latent * np.arange(1, size + 1, dtype=np.float32) ** -DECAY) @ turn
    simulated = Simulation(raw, np.empty((n_all, n_voxels), dtype=np.float32), groups)
    for start in tqdm(range(0, n_voxels, 2000), desc="Responses", leave=False):
        simulated.Y[:, start : start + 2000] = _responses(simulated, min(2000, n_voxels - start), rng)
    return simulated


def _smooth(rng: np.random.Generator, n_trs: int, size: int) -> Array:
    white = rng.standard_normal((n_trs + 1, size), dtype=np.float32)
    return np.asarray(white[1:] + 0.7 * white[:-1])


def _responses(simulated: Simulation, n_voxels: int, rng: np.random.Generator) -> Array:
    shares = np.sqrt(rng.dirichlet(np.ones(len(simulated.bands)), n_voxels)).T.astype(np.float32)
    signal = np.zeros((len(simulated.groups), n_voxels), dtype=np.float32)
    for X, share in zip(simulated.bands, shares, strict=True):
        part = X @ rng.standard_normal((X.shape[1], n_voxels), dtype=np.float32)
        signal += part / part.std(axis=0) * share
    noise = _smooth(rng, len(signal), n_voxels)
    values = signal / signal.std(axis=0) * np.sqrt(rng.uniform(0.02, 0.5, n_voxels)) + noise / noise.std(axis=0)
    for story in np.unique(simulated.groups):
        values[simulated.groups == story] -= values[simulated.groups == story].mean(axis=0)
    return np.asarray(values, dtype=np.float32)


def ours(data: Simulation, gammas: FloatArray, n_folds: int, *, rotate: bool, models: bool = False) -> FloatArray:
    """Search the pool once, and fit the best of it; with models, one fit for each set of bands."""
    bands = data.rotated() if rotate else data.bands
    search = open_search([X[data.fit] for X in bands], data.Y[data.fit], data.folds(n_folds), DEFAULT_ALPHAS)
    table = search_pool(search, gammas)
    sets = subsets(BANDS[: len(bands)]) if models else [BANDS[: len(bands)]]
    scores = []
    for members in sets:
        choice = choose(table, inside_set(gammas, [BANDS.index(band) for band in members]))
        weights = refit_weights(search, table, choice, np.asarray(DEFAULT_ALPHAS))
        scores.append(data.score(sum(X[~data.fit] @ w for X, w in zip(bands, weights, strict=True))))
    return np.array(scores)


def himalaya(data: Simulation, gammas: FloatArray, n_folds: int, *, models: bool = False) -> FloatArray:
    """MultipleKernelRidgeCV, random search over the same gammas, one fit for each set of bands."""
    sets = subsets(BANDS[: len(data.bands)]) if models else [BANDS[: len(data.bands)]]
    members = [[BANDS.index(band) for band in own] for own in sets]
    return np.array([_himalaya_model(data, gammas[inside_set(gammas, own)][:, own], n_folds, own) for own in members])


def _himalaya_model(data: Simulation, gammas: FloatArray, n_folds: int, members: list[int]) -> FloatArray:
    from himalaya.kernel_ridge import MultipleKernelRidgeCV

    cv = [(fold.train, fold.held_out) for fold in data.folds(n_folds)]
    with himalaya_backend("torch") as backend:
        bands = [torch.from_numpy(data.bands[band]) for band in members]
        fit = torch.from_numpy(data.fit)
        options = {
            "n_iter": backend.asarray(gammas.astype(np.float32)),
            "alphas": backend.asarray(np.array(DEFAULT_ALPHAS, dtype=np.float32)),
            "n_targets_batch": N_TARGETS_BATCH,
            "progress_bar": False,
        }
        model = MultipleKernelRidgeCV(kernels="precomputed", solver="random_search", solver_params=options, cv=cv)
        model.fit(torch.stack([X[fit] @ X[fit].T for X in bands]), torch.from_numpy(data.Y[data.fit]))
        predicted = model.predict(torch.stack([X[~fit] @ X[fit].T for X in bands]))
    return data.score(predicted.numpy())


def chunk_folds(n_rows: int, n_boots: int = 3, chunk_trs: int = 20, share: float = 0.25, seed: int = 0) -> list[Fold]:
    """Random chunks of rows held out, as the bootstrap ridge draws them."""
    rng = np.random.default_rng(seed)
    chunks = np.arange(n_rows - n_rows % chunk_trs).reshape(-1, chunk_trs)
    held = [np.sort(chunks[rng.permutation(len(chunks))[: round(share * len(chunks))]].ravel()) for _ in range(n_boots)]
    return [Fold(np.setdiff1d(np.arange(n_rows), rows), rows) for rows in held]


def bootstrap_ridge(data: Simulation, folds: Sequence[Fold]) -> FloatArray:
    """As the field writes it: float64, a singular value decomposition per draw, correlation of each alpha, one refit.

    The alpha of each voxel is the one with the best mean correlation over the draws.
    """
    X, Y = (values[data.fit].astype(np.float64) for values in (data.bands[0], data.Y))
    scores = np.zeros((len(DEFAULT_ALPHAS), Y.shape[1]))
    for fold in folds:
        U, sizes, Vt = np.linalg.svd(X[fold.train], full_matrices=False)
        projected, rotated = U.T @ Y[fold.train], X[fold.held_out] @ Vt.T
        wanted = _zscore(Y[fold.held_out])
        for k, alpha in enumerate(DEFAULT_ALPHAS):
            predicted = (rotated * (sizes / (sizes**2 + alpha))) @ projected
            scores[k] += (wanted * _zscore(predicted)).mean(axis=0)
    best = scores.argmax(axis=0)
    U, sizes, Vt = np.linalg.svd(X, full_matrices=False)
    projected, weights = U.T @ Y, np.zeros((X.shape[1], Y.shape[1]))
    for k in np.unique(best):
        weights[:, best == k] = (Vt.T * (sizes / (sizes**2 + DEFAULT_ALPHAS[k]))) @ projected[:, best == k]
    return data.score(data.bands[0][~data.fit] @ weights)


def _zscore(values: FloatArray) -> FloatArray:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0))


def our_single(data: Simulation, folds: Sequence[Fold], *, rotate: bool = False) -> FloatArray:
    """One band with the same chunks held out."""
    X = data.rotated()[0] if rotate else data.bands[0]
    search = open_search([X[data.fit]], data.Y[data.fit], folds, DEFAULT_ALPHAS)
    table = search_pool(search, np.ones((1, 1)))
    weights = refit_weights(search, table, choose(table), np.asarray(DEFAULT_ALPHAS))[0]
    return data.score(X[~data.fit] @ weights)


def banded(options: argparse.Namespace) -> None:
    """Three bands, three gammas, five folds."""
    n_trs, n_voxels, sizes = (600, 200, (48, 20, 48)) if options.quick else (3000, 2000, (256, 102, 256))
    data, gammas = simulate(n_trs, n_voxels, sizes), gamma_pool(3, {1: 1, 2: 1, 3: 3})[-3:]
    title("Banded search, 3 gammas, 5 folds, 15 alphas", data)
    variants: dict[str, Variant] = {
        "himalaya MultipleKernelRidgeCV, float32": partial(himalaya, data, gammas, 5),
        "ours, all components": partial(ours, data, gammas, 5, rotate=False),
        "ours, components of 99 % of the variance": partial(ours, data, gammas, 5, rotate=True),
    }
    table(*alternate(variants, options.repeats))


def partition(options: argparse.Namespace) -> None:
    """Seven nested models of three bands, 23 gammas."""
    n_trs, n_voxels, sizes = (600, 200, (24, 20, 24)) if options.quick else (1800, 2000, (128, 102, 128))
    data, gammas = simulate(n_trs, n_voxels, sizes), gamma_pool(3)
    title(f"Seven models, {len(gammas)} gammas, 4 folds, 15 alphas", data)
    variants: dict[str, Variant] = {
        "himalaya MultipleKernelRidgeCV, 7 fits": partial(himalaya, data, gammas, 4, models=True),
        "ours, all components": partial(ours, data, gammas, 4, rotate=False, models=True),
        "ours, components of 99 % of the variance": partial(ours, data, gammas, 4, rotate=True, models=True),
    }
    table(*alternate(variants, options.repeats))


def mixtures(options: argparse.Namespace) -> None:
    """All mixtures for every voxel beside coarse to fine, in whole probes of three bands; three in ten voxels are null.

    Seeds are those of `--seeds`; the constants of the search were chosen on others (1, 2, 3, 11 to 15).
    """
    shape = {"trs": 600, "voxels": 200, "sizes": (24, 20, 24)} if options.quick else vars(options)
    for seed in options.seeds:
        data = simulate(shape["trs"], shape["voxels"], tuple(shape["sizes"]), seed, shared=options.shared)
        silence(data, share=0.3, seed=seed)
        plain = {"temporal": "fir", "low_level_impact": False, "leave_out_fit": False, "skip_trs": 0, "purge_trs": 0}
        config = ProbeConfig(**plain, keep_variance=options.keep_variance)
        title(f"Seed {seed}, {len(gamma_pool(3))} mixtures, {config.n_folds} folds, 15 alphas", data)
        probe = partial(run_probe, data.raw, data.Y, data.groups, data.fit, ~data.fit)
        ways = {"all": "all", "coarse to fine": "coarse"}
        variants = {name: partial(timed, probe, replace(config, mixture_search=way)) for name, way in ways.items()}
        seconds, both = alternate(variants, options.repeats)
        found = {name: result for name, (result, _) in both.items()}
        if options.himalaya:
            himalaya_seconds, reference = alternate({"": partial(himalaya, data, gamma_pool(3), config.n_folds)}, 1)
            print(f"himalaya, the joint model alone: {himalaya_seconds[''][0][0]:.1f} s of CPU")
            for name, result in found.items():
                compare(f"  ours, {name}, from himalaya", result.r, reference[""][0])
        for what, cpu in (
            ("whole probe", [statistics.median(column[0] for column in values) for values in seconds.values()]),
            ("search (last round)", [search_s for _, search_s in both.values()]),
        ):
            print(f"{what}, CPU: all {cpu[0]:.1f} s, coarse to fine {cpu[1]:.1f} s: {100 * cpu[1] / cpu[0]:.0f} %")
        for model, r in found["all"].r_by_model.items():
            compare(f"  r of {model}", found["coarse to fine"].r_by_model[model], r)
        for part, r2 in found["all"].partition.items():
            compare(f"  partition, {part}", found["coarse to fine"].partition[part], r2)


def timed(probe: Callable[[ProbeConfig], ProbeResult], config: ProbeConfig) -> tuple[ProbeResult, float]:
    """A probe, and the processor seconds of its search."""
    whole, seconds = ProbeFit.search, []

    def search(*args: Any, **options: Any) -> SearchTable:
        started = time.process_time()
        table = whole(*args, **options)
        seconds.append(time.process_time() - started)
        return table

    with patch.object(ProbeFit, "search", search):
        return probe(config), sum(seconds)


def silence(data: Simulation, share: float, seed: int) -> None:
    """Make a share of the voxels noise, z-scored as responses are."""
    rng = np.random.default_rng([seed, 1])
    null = rng.random(data.Y.shape[1]) < share
    data.Y[:, null] = _smooth(rng, len(data.Y), int(null.sum()))
    for story in np.unique(data.groups):
        data.Y[data.groups == story] -= data.Y[data.groups == story].mean(axis=0)


def compare(what: str, found: FloatArray, reference: FloatArray) -> None:
    """Mean, mean difference, and the share of voxels within .01."""
    difference = found - reference
    near = 100 * (np.abs(difference) < 0.01).mean()
    print(f"{what:48} mean {reference.mean():+.5f} ({difference.mean():+.6f}), {near:.2f} % within .01", flush=True)


def single(options: argparse.Namespace) -> None:
    """One band, chunks of 20 TRs held out three times."""
    n_trs, n_voxels, size = (600, 400, 32) if options.quick else (3000, 4000, 256)
    data = simulate(n_trs, n_voxels, (size,))
    folds = chunk_folds(int(data.fit.sum()))
    title("Single band, 3 draws of chunks of 20 TRs, 15 alphas", data)
    variants: dict[str, Variant] = {
        "bootstrap ridge, float64": partial(bootstrap_ridge, data, folds),
        "ours": partial(our_single, data, folds),
        "ours, components of 99 % of the variance": partial(our_single, data, folds, rotate=True),
    }
    table(*alternate(variants, options.repeats))


def growth(options: argparse.Namespace) -> None:
    """Seconds of the processor over voxels, TRs and layers, in one figure."""
    unit = 1 if options.quick else 10
    sizes = (12 * unit, 10 * unit, 12 * unit)
    gammas = gamma_pool(3, {1: 1, 2: 1, 3: 2})[-2:]
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {"voxels": {}, "TRs": {}, "layers": {}}
    for what, steps in (("voxels", (50, 100, 200, 400)), ("TRs", (120, 180, 300, 450))):
        for step in tqdm(steps, desc=f"Growth in {what}"):
            n_trs, n_voxels = (180, step) if what == "voxels" else (step, 100)
            data = simulate(max(n_trs * unit, 1200), n_voxels * unit, sizes)
            for name, fit in (("himalaya", himalaya), ("ours", partial(ours, rotate=True))):
                seconds = alternate({name: partial(fit, data, gammas, 4)}, 1)[0][name][0][0]
                curves[what].setdefault(name, []).append((step * unit, seconds))
    data = simulate(max(180 * unit, 1200), 50 * unit, sizes)
    curves["layers"]["ours, 7 models, stimulus bands kept"] = list(_layers(data, (1, 2, 4, 8)))
    for what, lines in curves.items():
        for name, points in lines.items():
            said = "  ".join(f"{size}: {seconds:.2f} s" for size, seconds in points)
            print(f"{what:8} {name:38} {said}")
    _draw(curves, options.figure)


def _layers(data: Simulation, counts: Sequence[int]) -> list[tuple[int, float]]:
    rng = np.random.default_rng(1)
    config, cache = ProbeConfig(n_gammas={1: 1, 2: 1, 3: 2}, low_level_impact=False), ProbeCache()
    points, started = [], time.process_time()
    for k in tqdm(range(1, max(counts) + 1), desc="Layers"):
        backbone = data.raw["backbone"] + rng.standard_normal(data.raw["backbone"].shape) * 0.1
        bands = {**data.raw, "backbone": backbone}
        run_probe(bands, data.Y, data.groups, data.fit, ~data.fit, config, cache=cache)
        if k in counts:
            points.append((k, time.process_time() - started))
    return points


def _draw(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], path: Path) -> None:
    from brainlit.results.style import OTHER_COLOURS, house_style, new_figure

    with house_style():
        figure = new_figure(10, 3.2)
        for axes, (what, lines) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
            for name, points in lines.items():
                look = (OTHER_COLOURS[0], "o") if name.startswith("ours") else (OTHER_COLOURS[1], "s")
                axes.loglog(*zip(*points, strict=True), color=look[0], marker=look[1], markersize=4.5, label=name)
            axes.set(xlabel=what, ylabel="processor seconds", xlim=(None, points[-1][0] * 1.3))
            axes.set_xticks([size for size, _ in points], [f"{size:,}" for size, _ in points])
            axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
            axes.minorticks_off()
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        figure.savefig(path, dpi=150)
    print(f"drawn in {path}")


def brain(options: argparse.Namespace) -> None:
    """One layer of a whole brain: 9,000 TRs, 50,732 voxels; seconds of each part and the most memory."""
    n_trs, n_voxels, sizes = (900, 2000, (76, 20, 76)) if options.quick else (9000, 50_732, (768, 102, 768))
    data = simulate(n_trs, n_voxels, sizes)
    title(f"A whole brain, {options.gammas} gammas, 4 folds, 15 alphas, {options.memory_gb:g} GB", data)
    gammas = gamma_pool(3, {1: 1, 2: 1, 3: options.gammas})[-options.gammas :]
    before = _rss_gb()
    Y = data.Y[: int(data.fit.sum())]
    with Stopwatch("components of 99 % of the variance"):
        bands = data.rotated()
    print(f"{sum(X.shape[1] for X in bands)} components; responses take {data.Y.nbytes / 1e9:.1f} GB", flush=True)
    with Stopwatch("products"):
        solver = SolverConfig(memory_gb=options.memory_gb)
        search = open_search([X[data.fit] for X in bands], Y, data.folds(4), DEFAULT_ALPHAS, solver)
    with Stopwatch(f"search of {len(gammas)} gammas"):
        found = [search.cv_scores(gamma) for gamma in tqdm(gammas, desc="Gammas")]
    scores, index = (np.stack(part) for part in zip(*found, strict=True))
    best = scores.argmax(axis=0)
    with Stopwatch("weights and held-out correlation"):
        r = np.zeros(n_voxels)
        for k in np.unique(best):
            own = np.flatnonzero(best == k)
            weights = search.weights(gammas[k], np.asarray(DEFAULT_ALPHAS)[index[k, own]], own)
            predicted = sum(X[~data.fit] @ w for X, w in zip(bands, weights, strict=True))
            r[own] = correlation(data.Y[~data.fit][:, own], predicted)
    print(f"mean held-out r {r.mean():.4f}; most memory {_rss_gb():.2f} GB, {before:.2f} GB with the simulation alone")


class Stopwatch:
    """Prints processor and wall seconds of a block."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._started = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        cpu, wall = time.process_time() - self._started[0], time.perf_counter() - self._started[1]
        print(f"{self._what:44} {cpu:8.1f} s of CPU {wall:8.1f} s", flush=True)


def alternate(variants: Mapping[str, Callable[[], T]], repeats: int) -> tuple[dict[str, list[Seconds]], dict[str, T]]:
    """Seconds of each variant, one after the other, and what it found."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in variants}
    found = {}
    for _, name in tqdm([(k, name) for k in range(repeats) for name in variants], desc="Fits", leave=False):
        cpu_started, started = time.process_time(), time.perf_counter()
        found[name] = variants[name]()
        seconds[name].append((time.process_time() - cpu_started, time.perf_counter() - started))
    return seconds, found


def table(seconds: Mapping[str, Sequence[Seconds]], found: Mapping[str, FloatArray]) -> None:
    """Median seconds, how many times faster than the first, and how far its correlations are from the first's."""
    first, reference = next(iter(seconds)), next(iter(found.values()))
    slowest = [statistics.median(column) for column in zip(*seconds[first], strict=True)]
    for name, values in seconds.items():
        cpu, wall = (statistics.median(column) for column in zip(*values, strict=True))
        spread = f"({min(values)[0]:.2f} to {max(values)[0]:.2f})"
        difference = found[name] - reference
        far = np.quantile(np.abs(difference), 0.99)
        agreement = f"mean r {found[name].mean():.5f} ({difference.mean():+.5f}), 99 % of voxels within {far:.4f}"
        print(
            f"{name:42} {cpu:8.2f} s of CPU {spread:18} {slowest[0] / cpu:6.2f} x"
            f" | {wall:8.2f} s {slowest[1] / wall:6.2f} x | {agreement}",
            flush=True,
        )


def title(what: str, data: Simulation) -> None:
    """Heading of a table."""
    columns = " + ".join(str(X.shape[1]) for X in data.bands)
    print(f"\n{what}: {int(data.fit.sum())} TRs, {columns} features, {data.Y.shape[1]} voxels", flush=True)


def _rss_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def processor() -> str:
    """Name of the processor, and which vector instructions torch uses."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "banded": banded,
    "partition": partition,
    "mixtures": mixtures,
    "single": single,
    "growth": growth,
    "brain": brain,
}


def main() -> None:
    """Print the tables that were asked for."""
    options = _options()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        print(f"{processor()}, {options.threads} threads, torch {torch.__version__}")
        for section in options.what:
            SECTIONS[section](options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="which tables")
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that it runs")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="threads of every library")
    parser.add_argument("--figure", type=Path, default=Path("probe_speed.png"), help="where growth is drawn")
    parser.add_argument("--gammas", type=int, default=4, help="pool of 'brain'")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="simulations of 'mixtures'")
    parser.add_argument("--trs", type=int, default=3000, help="of 'mixtures'")
    parser.add_argument("--voxels", type=int, default=20_000, help="of 'mixtures'")
    parser.add_argument("--sizes", type=int, nargs=3, default=[256, 102, 256], help="features per band of 'mixtures'")
    parser.add_argument("--shared", type=float, default=0.5, help="part that bands share, times their own ('mixtures')")
    parser.add_argument("--keep-variance", type=float, default=KEEP_VARIANCE, help="of 'mixtures'")
    parser.add_argument("--himalaya", action="store_true", help="also himalaya's search of all mixtures ('mixtures')")
    parser.add_argument("--memory-gb", type=float, default=4.0, help="what the search of 'brain' may hold")
    return parser.parse_args()


if __name__ == "__main__":
    main()
