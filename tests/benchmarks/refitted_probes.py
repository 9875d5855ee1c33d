"""How often do two equally good models come out different? python -m tests.benchmarks.refitted_probes [--n 400]

`brainlit probe --compare` on models A and B that predict equally well on average: the share of data sets in which p is
at most 5 %, and in which the 95 % interval leaves 0 out. Responses are three signals and noise; the features of a model
are a mixture of the signals and as much of its own, which the responses do not have. Neighbouring rows correlate by .5.

`equal`: both mixtures are the same, and what is a model's own is drawn alike, so A and B are equally good. Every data
set has other stories to fit and to score. `another training run`: each model has every signal louder or softer by
chance, as two runs of one recipe do; then a pair is not equal, only the recipes are. That is in no interval of one
pair.

'fits held' is the comparison with fixed weights, 'fits drawn' adds the jackknife over fit stories.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from brainlit.comparison.probe_pairs import ProbePair
from brainlit.comparison.two_probes import CompareConfig, subject_rows
from brainlit.encoding import ProbeConfig, run_probe
from brainlit.results.tables import markdown_table

Array = npt.NDArray[np.float64]
FIRST_SEED = 60_000
N_VOXELS, N_SIGNALS, PHI = 12, 3, 0.5
SCORED = (150, 150)
PROBE = ProbeConfig(
    delays_trs=(0,), temporal="fir", skip_trs=0, low_level_impact=False, alphas=tuple(np.logspace(-2, 3, 6))
)
HELD = CompareConfig(n_bootstraps=300, n_permutations=400, hold_fits=True)
DRAWN = CompareConfig(n_bootstraps=300, n_permutations=400)


class Cell(NamedTuple):
    """How much is fitted, how many features, and how far (log scale) signals differ between two training runs."""

    n_fit_stories: int
    n_fit_trs: int
    n_features: int
    apart: float = 0.0


CELLS = tuple(Cell(*size, apart) for apart in (0.0, 0.5) for size in ((4, 100, 20), (12, 100, 40), (24, 100, 40)))


def series(rng: np.random.Generator, n_trs: int, n: int) -> Array:
    """AR(1) along the first axis, stationary, of unit variance."""
    white = rng.standard_normal((n_trs + 30, n))
    return np.asarray(np.sqrt(1 - PHI**2) * lfilter([1.0], [1.0, -PHI], white, axis=0)[30:])


def pair(cell: Cell, rng: np.random.Generator) -> ProbePair:
    """Both models fitted and scored."""
    lengths = [*(cell.n_fit_trs,) * cell.n_fit_stories, *SCORED]
    n_trs, groups = sum(lengths), np.repeat(np.arange(len(lengths)), lengths)
    signals = series(rng, n_trs, N_SIGNALS)
    Y = signals @ (rng.standard_normal((N_SIGNALS, N_VOXELS)) + 0.7) + 2.5 * series(rng, n_trs, N_VOXELS)
    Y += 1.5 * series(rng, n_trs, 1)
    fit, mixture = groups < cell.n_fit_stories, rng.standard_normal((N_SIGNALS, cell.n_features))
    results = []
    for _ in range(2):
        own = mixture * np.exp(cell.apart * rng.standard_normal((N_SIGNALS, 1)))
        X = signals @ own + 1.5 * series(rng, n_trs, cell.n_features)
        results.append(run_probe({"backbone": X}, Y, groups, fit, ~fit, PROBE))
    a, b = results
    norm = np.sqrt(np.square(a.observed.astype(np.float64)).sum(axis=0))
    observed, p_a, p_b = (
        np.asarray(v, dtype=np.float64) / norm for v in (a.observed, *(r.predictions["backbone"] for r in results))
    )
    numbered, region = a.score_groups - a.score_groups[0], {"all": np.ones(N_VOXELS, dtype=bool)}
    return ProbePair(observed, p_a, p_b, numbered, region, len(SCORED), (a.left_out, b.left_out))


def rejections(cell: Cell, n: int, first_seed: int = FIRST_SEED) -> npt.NDArray[np.bool_]:
    """Of n data sets: by p and by interval, with fits held and drawn, (n, 4)."""
    found = []
    for k in range(n):
        own = pair(cell, np.random.default_rng(first_seed + k))
        flags = []
        for config in (HELD, DRAWN):
            (row,) = subject_rows("subject", own, config)
            assert row.difference.interval is not None
            low, high = row.difference.interval
            flags += [row.p <= 0.05, low > 0 or high < 0]
        found.append(flags)
    return np.array(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=400, help="data sets in each row (default: 400)")
    parser.add_argument("--first_seed", type=int, default=FIRST_SEED)
    given = parser.parse_args()
    rows = []
    for cell in CELLS:
        rates = rejections(cell, given.n, given.first_seed).mean(axis=0)
        said = [f"{100 * rate:.1f} +- {100 * np.sqrt(rate * (1 - rate) / given.n):.1f} %" for rate in rates]
        what = "another training run" if cell.apart else "equal"
        rows.append([what, f"{cell.n_fit_stories} x {cell.n_fit_trs}", str(cell.n_features), *said])
        print(rows[-1], flush=True)
    heads = ["A and B", "fitted TRs", "features", "fits held: p", "interval", "fits drawn: p", "interval"]
    print("\n".join(markdown_table(heads, rows)))


if __name__ == "__main__":
    main()
