"""Cross-validated encoding models in plain numpy, sharing no code with brainlit: what its folds are held against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import gamma

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
ALPHAS = np.logspace(-3, 4, 15)
INNER_PURGE_TRS = 10


def fir(x: Array, delays: Sequence[int] = (1, 2, 3, 4)) -> Array:
    """Every column at every delay, 0 before the story: (n, d) -> (n, n_delays d)."""
    late = [np.vstack([np.zeros((delay, x.shape[1])), x[: len(x) - delay]]) for delay in delays]
    return np.hstack(late)


def response(t: Array, dispersion_s: float = 1.0) -> Array:
    """SPM's: gamma densities with means of 6 and 16 s, the second a sixth of the first; its size is arbitrary."""
    t, a = np.maximum(t, 0.0), 6.0 / dispersion_s
    peak = t ** (a - 1) * np.exp(-t / dispersion_s) / (gamma(a) * dispersion_s**a)
    return np.asarray(peak - t**15 * np.exp(-t) / gamma(16) / 6.0)


def convolved(events_s: Array, read_s: Array) -> Array:
    """Events through the response, and through its derivatives by onset and dispersion: (n_read, 3)."""
    t = read_s[:, None] - events_s[None, :]
    bases = response(t), response(t) - response(t - 1.0), response(t) - response(t, 1.01)
    return np.stack([basis.sum(axis=1) for basis in bases], axis=1)


def without_drift(rows: Array, tr_s: float, longest_s: float) -> Array:
    """Rows less their mean, a straight line, and all cosines with periods of at least so many seconds."""
    n = len(rows)
    time, orders = np.arange(n)[:, None], np.arange(int(2 * n * tr_s / longest_s) + 1)
    basis = np.hstack([np.cos(np.pi * orders * (time + 0.5) / n), time / n])
    return np.asarray(rows - basis @ np.linalg.lstsq(basis, rows, rcond=None)[0])


def centred(values: Array, rows: Rows) -> Array:
    """Rows without the mean of their stretch: a stretch is what has no gap."""
    parts = np.split(values[rows], np.flatnonzero(np.diff(rows) > 1) + 1)
    return np.concatenate([part - part.mean(axis=0) for part in parts])


def ridge(x: Array, y: Array, alpha: float) -> Array:
    return np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ y)


def predicted(X: Array, Y: Array, shares: Array, fit: Rows, score: Rows, purge_trs: int) -> Array:
    """What a ridge fitted on some rows says of others; each column of Y takes the alpha that is best inside the fit."""
    X = X / centred(X, fit).std(axis=0) * np.sqrt(shares)  # the mean squared norm of a fitted row is 1
    errors = np.zeros((len(ALPHAS), Y.shape[1]))
    for held in np.split(fit, [round(k * len(fit) / 4) for k in (1, 2, 3)]):
        train = fit[(fit <= held[0] - purge_trs) | (fit >= held[-1] + purge_trs)]
        x, y, x_held, y_held = (centred(values, rows) for rows in (train, held) for values in (X, Y))
        errors += [((y_held - x_held @ ridge(x, y, alpha)) ** 2).sum(axis=0) for alpha in ALPHAS]
    x, y = centred(X, fit), centred(Y, fit)
    weights = [ridge(x, y, ALPHAS[best])[:, k] for k, best in enumerate(errors.argmin(axis=0))]
    return np.asarray(centred(X, score) @ np.stack(weights, axis=1))


def fold_r(
    X: Array, Y: Array, n_folds: int, purge_trs: int, skip_trs: int, shares: Sequence[float] | None = None
) -> Array:
    """Correlation of Y with what purged folds predict, all rows together, by column of Y.

    `shares` are each column's part of the prior variance, equal by default.
    """
    n, d = len(Y), X.shape[1]
    edges = [k * n // n_folds for k in range(n_folds + 1)]
    rows, observed, guessed = np.arange(skip_trs, n), [], []
    for start, stop in pairwise(edges):
        score = rows[(rows >= start) & (rows < stop)]
        fit = rows[(rows < start - purge_trs) | (rows >= stop + purge_trs)]
        guessed.append(predicted(X, Y, np.array(shares or [1 / d] * d), fit, score, INNER_PURGE_TRS))
        observed.append(centred(Y, score))
    y, p = np.concatenate(observed), np.concatenate(guessed)
    return np.asarray((y * p).sum(axis=0) / np.sqrt((y**2).sum(axis=0) * (p**2).sum(axis=0)))
