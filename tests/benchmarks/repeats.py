"""Stories that were heard several times: are R2, shares and r / ceiling of their mean right? Two tables.

Run as `python -m tests.benchmarks.repeats [--n 200]`. Signals and noise are AR(1) (neighbouring rows correlate by .5);
a fifth of the noise is the same in all voxels; every presentation is z-scored over its story, as sources give it.
Stories have 300 rows, and each its own number of presentations. "Before" is what was done to them earlier: the mean was
z-scored once more, and ceilings were those of as many presentations as the least repeated story had, averaged over the
voxels that had one. Data sets have seeds from 60,000 on; MIN_SIGNAL of `encoding.ceiling` was chosen on seeds below
2,000.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from tqdm import tqdm

from brainlit.encoding import ProbeConfig, block_weights, region_shares
from brainlit.encoding.bootstrap import BLOCK_TRS
from brainlit.encoding.ceiling import region_ratio, signal_rows
from brainlit.results.scores import stretch_of

FIRST_SEED, N_TRS, SHARED_NOISE = 60_000, 300, 0.2
REPEATS = ((10, 5), (10, 2), (5, 1), (2, 2))
SIGNALS = (0.05, 0.1, 0.3, 0.6)


def autocorrelated(n_trs: int, n_columns: int, rng: np.random.Generator, phi: float = 0.5) -> np.ndarray:
    """AR(1) of unit variance, (n_trs, n_columns)."""
    white = rng.standard_normal((n_trs + 30, n_columns))
    return np.asarray(np.sqrt(1 - phi**2) * lfilter([1.0], [1.0, -phi], white, axis=0)[30:])


def unit(values: np.ndarray) -> np.ndarray:
    """Columns at mean 0 and standard deviation 1."""
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0))


def presentations(signal: np.ndarray, share: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n z-scored presentations of a signal of unit variance, (n, n_trs, n_voxels)."""
    each = []
    for _ in range(n):
        own, common = autocorrelated(*signal.shape, rng), autocorrelated(len(signal), 1, rng)
        noise = unit(np.sqrt(1 - SHARED_NOISE) * own + np.sqrt(SHARED_NOISE) * common)
        each.append(unit(np.sqrt(share) * signal + np.sqrt(1 - share) * noise))
    return np.stack(each)


# --- R2 and shares ---


@dataclass(frozen=True)
class Averaged:
    """Fitted on stories heard once, scored on two heard several times; half of the signal is semantic."""

    repeats: tuple[int, ...]
    n_fit: int = 5
    n_voxels: int = 12

    def estimates(self, seed: int) -> np.ndarray:
        """(before, after) x (joint R2, both ends of its interval, R2 of the noise-free signal, semantic share)."""
        rng = np.random.default_rng(seed)
        share = np.linspace(0.1, 0.5, self.n_voxels)
        weights = rng.standard_normal((2, 4, self.n_voxels))
        heard = (*[1] * self.n_fit, *self.repeats)
        bands: dict[str, list[np.ndarray]] = {"low_level": [], "semantic": []}
        signals, means = [], []
        for n in heard:
            features = [autocorrelated(N_TRS, 4, rng) for _ in bands]
            for band, values in zip(bands, features, strict=True):
                bands[band].append(values)
            parts = [
                np.roll(x, 1, axis=0) @ (w / np.linalg.norm(w, axis=0)) for x, w in zip(features, weights, strict=True)
            ]
            signal = (parts[0] + parts[1]) / np.sqrt(2)
            signal = signal - signal.mean(axis=0)
            signals.append(np.sqrt(share) * signal)
            means.append(presentations(signal, share, n, rng).mean(axis=0))
        groups = np.repeat(np.arange(len(heard)), N_TRS)
        fit = groups < self.n_fit
        found = []
        for scored in ([unit(mean) for mean in means], means):
            Y = np.concatenate(scored)
            y, s = (np.concatenate(rows[self.n_fit :]) for rows in (scored, signals))
            X = {band: np.concatenate(values) for band, values in bands.items()}
            shares = region_shares(X, Y, groups, fit, ~fit, ProbeConfig(temporal="fir", delays_trs=(1,)))
            joint = shares.joint_r2
            r2 = 1 - np.square(y - s).sum() / np.square(y).sum()
            found.append((joint.value, joint.low, joint.high, r2, shares.parts["semantic"].value))
        return np.array(found)

    @property
    def planted(self) -> float:
        """Share of signal in what is scored, summed over voxels and stories, of endless stories."""
        share = np.linspace(0.1, 0.5, self.n_voxels)
        scored = [share + (1 - share) / n for n in self.repeats]
        return float(len(self.repeats) * share.sum() / np.sum(scored))

    def truth(self, n: int = 400) -> float:
        """The same of stories of N_TRS rows, in which chance makes signals more and less and noise go with them.

        What endlessly many single presentations tell of the signal, times the scored responses, over their square; by n
        other data sets with known signals.
        """
        rng = np.random.default_rng(1)
        share = np.linspace(0.1, 0.5, self.n_voxels)
        gain, products, squares = np.zeros((3, self.n_voxels))
        for _ in range(n):
            for k, n_presentations in enumerate((1, *self.repeats)):
                weights = rng.standard_normal((8, self.n_voxels))
                signal = autocorrelated(N_TRS, 8, rng) @ (weights / np.linalg.norm(weights, axis=0))
                signal -= signal.mean(axis=0)
                y = presentations(signal, share, n_presentations, rng).mean(axis=0)
                if k == 0:
                    gain += (y * signal).sum(axis=0) / np.square(signal).sum(axis=0) / n
                else:
                    products += (y * signal).sum(axis=0)
                    squares += np.square(y).sum(axis=0)
        return float((gain * products).sum() / squares.sum())


def averaged_rows(n: int, first_seed: int = FIRST_SEED) -> Iterator[str]:
    """The lines of the first table."""
    yield (
        "| presentations of the scored stories | truth | joint R2, before | covers | joint R2, after | covers"
        " | R2 of the noise-free signal, before | after |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for repeats in ((1, 1), (5, 5), (10, 10), (10, 5), (10, 1), (2, 1)):
        cell = Averaged(repeats)
        found = np.stack([cell.estimates(first_seed + k) for k in tqdm(range(n), leave=False)])
        truth = cell.truth()
        covers = (found[:, :, 1] < truth) & (truth < found[:, :, 2])
        (b, _, _, b_r2, _), (a, _, _, a_r2, _) = found.mean(axis=0)
        rate, error = covers.mean(axis=0), covers.std(axis=0) / np.sqrt(n)
        yield (
            f"| {repeats[0]} and {repeats[1]} | {truth:.3f} | {b:.3f} | {100 * rate[0]:.0f} % | {a:.3f} |"
            f" {100 * rate[1]:.1f} +- {100 * error[1]:.1f} % | {b_r2:.3f} | {a_r2:.3f} |"
        )


# --- r / ceiling ---


@dataclass(frozen=True)
class Scored:
    """A region's voxels with one share of signal, or every second without; predictions that correlate by `model`."""

    repeats: tuple[int, ...]
    signal: float
    half: bool = False
    model: float = 1.0
    n_voxels: int = 60

    def data(self, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Presentations of each story, and predictions of all rows."""
        rng = np.random.default_rng(seed)
        share = np.where(np.arange(self.n_voxels) % 2 == 0, self.signal, 0.0 if self.half else self.signal)
        weights = rng.standard_normal((12, self.n_voxels))
        stories, predictions = [], []
        for n in self.repeats:
            signal = unit(autocorrelated(N_TRS, 12, rng) @ weights)
            stories.append(presentations(signal, share, n, rng))
            other = unit(autocorrelated(N_TRS, self.n_voxels, rng))
            predictions.append(np.sqrt(share) * (self.model * signal + np.sqrt(1 - self.model**2) * other))
        return stories, np.concatenate(predictions)


def after(stories: Sequence[np.ndarray], predicted: np.ndarray, n_bootstraps: int = 500) -> tuple[float, float, float]:
    """r / ceiling with both ends of its interval; NaN where it is refused."""
    observed = np.concatenate([each.mean(axis=0) for each in stories])
    groups = np.repeat(np.arange(len(stories)), N_TRS)
    blocks = block_weights(groups, BLOCK_TRS, n_bootstraps, 0)
    voxels = np.ones(observed.shape[1], dtype=bool)
    found = region_ratio(observed, predicted, groups, signal_rows(stories), voxels, blocks)
    if "r_over_ceiling" not in found:
        return float("nan"), float("nan"), float("nan")
    score = found["r_over_ceiling"].stretched(stretch_of(groups, blocks, observed, predicted))
    return score.value, score.low, score.high


def before(stories: Sequence[np.ndarray], predicted: np.ndarray) -> float:
    """Mean r over mean ceiling of the voxels with one, by as many presentations as the least repeated story had."""
    observed = np.concatenate([unit(each.mean(axis=0)) for each in stories])
    pieces = [unit(one) for one in np.split(predicted, len(stories))] if predicted.any(axis=0).all() else None
    p = np.concatenate(pieces) if pieces else predicted
    lengths = np.sqrt(np.square(p).sum(axis=0) * np.square(observed).sum(axis=0))
    r = np.where(lengths > 0, (p * observed).sum(axis=0) / np.where(lengths > 0, lengths, 1), 0.0)
    repeated = [each for each in stories if len(each) > 1]
    n = min(len(each) for each in repeated)
    each = np.concatenate([one[:n] for one in repeated], axis=1)
    power, of_mean = np.square(each).mean(axis=(0, 1)), np.square(each.mean(axis=0)).mean(axis=0)
    share = (n * of_mean - power) / (n - 1) / of_mean
    return float(r[share > 0].mean() / np.sqrt(share[share > 0]).mean())


def ceiling_rows(n: int, first_seed: int = FIRST_SEED) -> Iterator[str]:
    """The lines of the second table."""
    yield "| presentations | signal | model | before | after | interval covers | refused |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    cells = [Scored(repeats, signal) for repeats in REPEATS for signal in SIGNALS]
    cells += [Scored(repeats, signal, half=True) for repeats in REPEATS for signal in (0.1, 0.3)]
    cells += [Scored(repeats, signal, model=0.7) for repeats in REPEATS for signal in (0.1, 0.3)]
    for cell in cells:
        data = (cell.data(first_seed + k) for k in tqdm(range(n), leave=False))
        found = np.array([(before(*one), *after(*one)) for one in data])
        ratio, low, high = found[:, 1:].T
        given = np.isfinite(ratio)
        covers = (low[given] < cell.model) & (cell.model < high[given])
        error = ratio[given].std() / np.sqrt(max(given.sum(), 1))
        yield (
            f"| {' and '.join(map(str, cell.repeats))} | {cell.signal:g}{', half of the voxels' if cell.half else ''} |"
            f" {cell.model:.2f} | {found[:, 0].mean():.3f} | {ratio[given].mean():.3f} +- {error:.3f} |"
            f" {100 * covers.mean():.1f} % | {100 * (1 - given.mean()):.1f} % |"
        )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="data sets per row")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first data set")
    tables = {"shares": averaged_rows, "ceilings": ceiling_rows}
    parser.add_argument("--what", choices=tables, action="append", help="one table only")
    options = parser.parse_args()
    for what in options.what or tables:
        for line in tables[what](options.n, options.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
