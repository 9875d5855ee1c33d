"""What a temporal basis and a matched filter give on ten real listeners: `python -m tests.benchmarks.alice_time`.

Word rate (an impulse at the middle of every word) predicts the mean of the ten intact listeners to one chapter, six
regions: ridge, five purged folds of contiguous rows, strength chosen by purged folds inside the fitted rows. Prints the
table of docs/time.md. Needs the recordings (BRAINLIT_ALICE; data/alice.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.encoding import delay_within, haemodynamic_rows, take_out
from brainlit.features import word_rate
from brainlit.stories import ManifestSource
from brainlit.stories.readers.cleaning import drift_basis

MANIFEST = Path(__file__).parents[2] / "data" / "alice" / "manifest.yaml"
ALPHAS = np.logspace(-1, 5, 13)
GAP_TRS = 6
Array = npt.NDArray[np.float64]


def stretches(rows: npt.NDArray[np.int64], n: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Fitted and held-out rows: n contiguous stretches, each with a gap on both sides."""
    cut = np.array_split(rows, n)
    return [(rows[(rows < own[0] - GAP_TRS) | (rows > own[-1] + GAP_TRS)], own) for own in cut]


def ridge(X: Array, Y: Array, fit: npt.NDArray[np.int64], held_out: npt.NDArray[np.int64]) -> Array:
    """Predictions for every strength, (n_alphas, n_held_out, n_columns)."""
    mean_x, mean_y = X[fit].mean(axis=0), Y[fit].mean(axis=0)
    u, s, vt = np.linalg.svd(X[fit] - mean_x, full_matrices=False)
    shrunk = (s / (s**2 + ALPHAS[:, None]))[:, :, None] * (u.T @ (Y[fit] - mean_y))
    return np.asarray((X[held_out] - mean_x) @ vt.T @ shrunk + mean_y)


def held_out_r(X: npt.ArrayLike, Y: Array) -> Array:
    """Correlation with held-out time by column of Y."""
    scaled = np.asarray(X, dtype=np.float64)
    scaled = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0)
    predicted, columns = np.empty_like(Y), np.arange(Y.shape[1])
    for fit, held_out in stretches(np.arange(len(Y)), 5):
        errors = sum(np.square(ridge(scaled, Y, f, h) - Y[h]).sum(axis=1) for f, h in stretches(fit, 4))
        best = np.argmin(errors, axis=0)
        predicted[held_out] = ridge(scaled, Y, fit, held_out)[best, :, columns].T
    return np.array([np.corrcoef(predicted[:, k], Y[:, k])[0, 1] for k in columns])


def measure() -> dict[str, Array]:
    """Held-out r by region for each way to bring words to volumes."""
    source = ManifestSource(str(MANIFEST))
    story = source.story("alice")
    found = [source.responses(name, "alice") for name in source.subject_names() if name != "s33"]
    Y = np.mean([one.values for one in found if one is not None], axis=0, dtype=np.float64)
    groups, clock = np.zeros(len(Y), dtype=np.int64), story.timebase
    nuisance = [drift_basis(len(Y), clock.tr_s, 128.0)]
    middles_s = story.words.start_s + story.words.duration_s / 2
    fir = delay_within(word_rate(story).values, groups, (1, 2, 3, 4))
    bases = haemodynamic_rows(
        np.ones((len(middles_s), 1)), middles_s, clock.tr_starts_s + clock.tr_s / 2, "hrf_derivatives"
    )
    ways = {
        "means per TR, delays 1 to 4": np.asarray(fir),
        "the same, filtered": take_out(fir, groups, nuisance),
        "hrf, filtered": take_out(bases["hrf"], groups, nuisance),
        "hrf and derivatives, filtered": take_out(np.concatenate(list(bases.values()), axis=1), groups, nuisance),
        "hrf, filtered, 3 TRs late": np.roll(take_out(bases["hrf"], groups, nuisance), 3, axis=0),
    }
    return {name: held_out_r(X, Y) for name, X in ways.items()}


def table(scores: dict[str, Array]) -> str:
    """As Markdown."""
    lines = ["| word rate | r, mean of six regions | by region |", "| --- | --- | --- |"]
    lines += [f"| {name} | {r.mean():.3f} | {', '.join(f'{one:.2f}' for one in r)} |" for name, r in scores.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
