"""How far each temporal choice predicts, by the number of fitted rows: `python -m tests.benchmarks.temporal_data_size`.

Features at 10 per second drive voxels through responses of their own (three logistic steps: rise, fall, end of the
undershoot; Lindquist & Wager 2007, Human Brain Mapping 28:764), which no basis here is made of. Volumes come every 2 s,
noise is autocorrelated. In a third world the answers to some features come later than to others, which no single
response can follow. Prints the mean correlation on held-out stories and draws docs/images/temporal_data_size.svg. Half
an hour on two cores; with `--worlds 0 2`, without the wide features, some minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve, lfilter

from brainlit.encoding import ProbeConfig, TemporalBand, choose_weights, haemodynamic_rows, parts_of, run_probe
from brainlit.encoding.statistics import student_quantile
from brainlit.encoding.temporal import Temporal, TemporalPart
from brainlit.encoding.temporal_choice import BandWeights

Array = npt.NDArray[np.float64]
TR_S, BIN_S, STORY_TRS, N_SCORED_STORIES = 2.0, 0.1, 300, 3
LEAD_S = 40.0
"""Sound before the first volume, so that responses have settled."""
MOST_LATENT = 200
"""Independent courses that features are mixtures of: states of a speech model have some hundred that matter."""
NOISE_MEMORY = 0.4
SIGNAL = (0.05, 0.35)
"""Range over voxels of the share of variance that is signal."""
SIZES = (300, 1200, 4000, 9000)
SEEDS = (10, 11, 12, 13, 14)
"""Others than those on which weights and mixtures were chosen, 0 to 4."""
CONFIG = ProbeConfig(low_level_impact=False, temporal="auto")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "temporal_data_size.svg"


@dataclass(frozen=True)
class World:
    """How many columns a feature space has, and by how many seconds the answers to its courses may come later."""

    n_columns: int
    latest_s: float = 0.0

    def __str__(self) -> str:
        late = f", answers up to {self.latest_s:g} s apart" if self.latest_s else ""
        return f"{self.n_columns:,} columns{late}"


WORLDS = (World(50), World(1024), World(50, 3.0))


@dataclass(frozen=True, eq=False)
class Listener:
    """A band in all temporal forms, responses to it, and which rows are fitted and scored."""

    band: TemporalBand
    Y: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    fit: npt.NDArray[np.bool_]

    @property
    def roles(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        return self.groups, self.fit, ~self.fit

    def some(self, temporal: Temporal) -> TemporalBand:
        """The band as a temporal choice wants it."""
        return TemporalBand({part: self.band.parts[part] for part in parts_of(temporal)})


@dataclass(frozen=True)
class Found:
    """Mean held-out r over voxels of each temporal choice in one draw of a world, and the weights that `auto` chose."""

    world: World
    n_fit: int
    seed: int
    scores: Mapping[str, float]
    weights: BandWeights


@dataclass(frozen=True, eq=False)
class Line:
    """Scores of all seeds at one number of rows, how far auto is behind the best other choice, and what it chose."""

    world: World
    n_fit: int
    scores: Mapping[str, Array]
    behind: float
    chosen: str


def voxel_responses(n_voxels: int, rng: np.random.Generator) -> Array:
    """One response per voxel at lags 0, BIN_S, ..., (n_lags, n_voxels): peaks at 4 to 7 s, sometimes an undershoot."""
    lags_s = np.arange(0, LEAD_S, BIN_S)[:, None]

    def step(at_s: Array, width_s: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-(lags_s - at_s) / width_s)))

    def between(low: float, high: float) -> Array:
        return rng.uniform(low, high, n_voxels)

    rise_s, dip = between(2.6, 4.6), between(0.0, 0.35)
    fall_s = rise_s + between(3.0, 5.0)
    first, second = step(rise_s, between(0.5, 0.9)), step(fall_s, between(0.8, 1.5))
    third = step(fall_s + between(6.0, 10.0), between(1.0, 2.0))
    return first - (1 + dip) * second + dip * third


def courses(n_times: int, n_latent: int, rng: np.random.Generator) -> Array:
    """Independent courses with memories of 0.1 to 2 s, in decreasing strength: (n_times, n_latent)."""
    memory = np.exp(-BIN_S / np.exp(rng.uniform(np.log(0.1), np.log(2.0), n_latent)))
    noise = rng.standard_normal((n_times, n_latent))
    smooth = np.stack([remembering(noise[:, k], m) for k, m in enumerate(memory)], axis=1)
    return np.asarray(smooth * np.arange(1, n_latent + 1) ** -0.5)


def remembering(noise: Array, memory: float) -> Array:
    """AR(1) of unit variance."""
    return np.asarray(lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise, axis=0))


def story_rows(values: Array, n_trs: int) -> dict[TemporalPart, npt.NDArray[np.float32]]:
    """All temporal forms of one story's features, whose values begin LEAD_S before the first volume."""
    times_s = (np.arange(len(values)) + 0.5) * BIN_S - LEAD_S
    read_s = (np.arange(n_trs) + 0.5) * TR_S
    durations = np.full(len(times_s), BIN_S)
    rows = haemodynamic_rows(values, times_s, read_s, "hrf_derivatives", durations_s=durations)
    own = values[times_s > 0][: round(n_trs * TR_S / BIN_S)]
    means = own.reshape(n_trs, -1, values.shape[1]).mean(axis=1)
    return {"hrf": rows["hrf"], "derivatives": rows["derivatives"], "fir": means.astype(np.float32)}


def simulate(world: World, n_fit: int, seed: int, n_voxels: int = 60, n_scored: int = N_SCORED_STORIES) -> Listener:
    """Stories of about STORY_TRS volumes, the last ones scored."""
    rng = np.random.default_rng([seed, world.n_columns])
    n_latent = min(world.n_columns, MOST_LATENT)
    mixing = rng.standard_normal((n_latent, world.n_columns)) / np.sqrt(n_latent)
    tastes = rng.standard_normal((world.n_columns, n_voxels))
    responses, share = voxel_responses(n_voxels, rng), rng.uniform(*SIGNAL, n_voxels)
    lateness_s = rng.permutation(np.linspace(0, world.latest_s, n_latent))
    n_stories = max(1, round(n_fit / STORY_TRS))
    sizes = [n_fit // n_stories] * n_stories + [STORY_TRS] * n_scored
    forms: list[Mapping[TemporalPart, npt.NDArray[np.float32]]] = []
    signals, noises = [], []
    for n_trs in sizes:
        latent = courses(round((LEAD_S + n_trs * TR_S) / BIN_S), n_latent, rng)
        forms.append(story_rows(latent @ mixing, n_trs))
        felt = np.stack([np.roll(latent[:, k], round(late / BIN_S)) for k, late in enumerate(lateness_s)], axis=1)
        driven = fftconvolve(felt @ (mixing @ tastes), responses, axes=0)[: len(latent)]
        signals.append(driven[round((LEAD_S + TR_S / 2) / BIN_S) :: round(TR_S / BIN_S)][:n_trs])
        noises.append(remembering(rng.standard_normal((n_trs, n_voxels)), NOISE_MEMORY))
    signal = np.concatenate(signals)
    Y = np.sqrt(share) * signal / signal.std(axis=0) + np.sqrt(1 - share) * np.concatenate(noises)
    band = TemporalBand({part: np.concatenate([form[part] for form in forms]) for part in forms[0]})
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return Listener(band, Y.astype(np.float32), groups, groups < n_stories)


def measure(world: World, n_fit: int, seed: int, n_voxels: int = 60) -> Found:
    """All temporal choices in one draw."""
    heard = simulate(world, n_fit, seed, n_voxels)
    bands = {temporal: heard.some(temporal) for temporal in get_args(Temporal)}
    own = choose_weights({"backbone": bands["auto"]}, {"": heard.Y}, *heard.roles, CONFIG)[""]["backbone"]
    scores = {}
    for temporal, band in bands.items():
        # all with the purge of auto, so that they have the same rows to train on
        result = run_probe({"backbone": band}, heard.Y, *heard.roles, CONFIG, weights={"backbone": own})
        scores[temporal] = float(np.mean(result.r))
    return Found(world, n_fit, seed, scores, own)


def summarise(found: Sequence[Found]) -> list[Line]:
    """One line per world and number of rows."""
    lines = []
    for world, n_fit in dict.fromkeys((one.world, one.n_fit) for one in found):
        own = [one for one in found if (one.world, one.n_fit) == (world, n_fit)]
        scores = {name: np.array([one.scores[name] for one in own]) for name in get_args(Temporal)}
        best = np.max([r.mean() for name, r in scores.items() if name != "auto"])
        behind = float(best - scores["auto"].mean())
        chosen = Counter(" ".join(f"{part} {share:g}" for part, share in one.weights.items()) for one in own)
        lines.append(Line(world, n_fit, scores, behind, chosen.most_common(1)[0][0]))
    return lines


def half_width(values: Array) -> float:
    """Half of the 95 % interval of a mean over seeds."""
    return float(student_quantile(len(values) - 1, 0.95) * values.std(ddof=1) / np.sqrt(len(values)))


def table(lines: Sequence[Line]) -> str:
    """As Markdown; after +-, half of the 95 % interval over seeds."""
    names = get_args(Temporal)
    rows = [
        f"| world | rows | {' | '.join(names)} | best other - auto | auto chose (mostly) |",
        "| --- " * (len(names) + 4) + "|",
    ]
    for line in lines:
        cells = [f"{r.mean():.3f} ± {half_width(r):.3f}" for r in line.scores.values()]
        cells = [str(line.world), f"{line.n_fit:,}", *cells, f"{line.behind:.3f}", line.chosen]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(lines: Sequence[Line], path: Path) -> None:
    """r over fitted rows, a panel per world."""
    import matplotlib.pyplot as plt

    worlds = list(dict.fromkeys(line.world for line in lines))
    with plt.rc_context({"svg.hashsalt": "temporal", "font.size": 8}):
        figure, panels = plt.subplots(1, len(worlds), figsize=(9, 3), sharey=True, layout="constrained", squeeze=False)
        for panel, world in zip(panels[0], worlds, strict=True):
            own = [line for line in lines if line.world == world]
            for k, name in enumerate(get_args(Temporal)):
                means = [line.scores[name].mean() for line in own]
                errors = [half_width(line.scores[name]) for line in own]
                at = np.array([line.n_fit for line in own]) * 1.03**k  # beside each other, so that bars do not overlap
                style = {"lw": 2.2, "color": "black", "zorder": 3} if name == "auto" else {"lw": 1.3}
                panel.errorbar(at, means, errors, marker="o", ms=3, elinewidth=0.8, label=name, **style)
            panel.set(xscale="log", xlabel="fitted volumes", title=str(world))
            panel.set_xticks([line.n_fit for line in own], [f"{line.n_fit:,}" for line in own])
            panel.minorticks_off()
        panels[0, 0].set_ylabel("r, held-out stories")
        panels[0, 0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--worlds", type=int, nargs="+", default=range(len(WORLDS)), help="places in WORLDS")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    given = parser.parse_args()
    found = []
    for place, n_fit, seed in product(given.worlds, given.sizes, given.seeds):
        found.append(measure(WORLDS[place], n_fit, seed))
        print(found[-1], file=sys.stderr, flush=True)
    lines = summarise(found)
    print(table(lines))
    draw(lines, given.picture)


if __name__ == "__main__":
    main()
