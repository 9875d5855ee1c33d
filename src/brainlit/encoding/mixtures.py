"""Coarse to fine: a few mixtures are scored for every voxel, and tell which of the others are worth scoring for it.

With theta_b = gamma_b / alpha, the prior variance of band b, the held-out error of a ridge is a smooth function of
log(theta_1), log(theta_2), ...: a mixture and its alphas are a line through this space, and the lines of a pool lie
close together. A few of them, each band alone, each two and all of them in equal shares, are scored for every voxel. A
Gaussian process through their errors at all alphas guesses the errors of the other mixtures, and says how far off a
guess may be. A voxel then tries the mixtures that may be the best of one of its models, and chooses among all that were
scored. Guesses decide what is tried; no chosen score is a guess.

The guesses of a voxel use its own errors in the folds of the search and nothing else. The kernel is the same for all
voxels and data (its constants were chosen on simulated voxels, and others give nearly the same), so that guesses are
one matrix times the errors. All bands in equal shares are among the first because bands of real stories overlap: what
three such bands do together cannot be told from what they do by twos, and voxels would miss mixtures of all three.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brainlit.encoding.arrays import BoolArray, FloatArray

WIDTH = 6.0
"""Of the Matern kernel, in natural logarithms of theta: 2.6 decades, about what a ridge takes from 10 to 90 %."""
INTERPLAY = 0.3
"""Variance of the errors' dependence on one more band, relative to that on one fewer."""
JITTER = 1e-9
"""Added to the variance of the errors: their rounding."""
CEILING = 0.1
"""Errors are graded relative to that of predicting nothing; what is above it goes to this bound. Ridges that overfit
may err many times as much, which says nothing about where the best ones are."""
DOUBT = 1.2
"""Standard deviations by which a guess may be too high. 0 tries the best guess of every model alone."""
FEWEST_COLUMNS = 200
"""Of all bands together. With fewer, errors may change within a decade of theta, which guesses miss; and scoring all
mixtures is quick."""
SHARE_TRIED = 0.3
"""Part of the other mixtures that a voxel tries, for estimates of time (simulated: 0.26 to 0.35)."""
TARGETS_AT_ONCE = 4096
FIRST_MIXTURES = "single bands, equal shares of two and of all"
"""What `first_mixtures` are, for the hash of a record's settings: with others it has other numbers."""


def first_mixtures(gammas: FloatArray) -> BoolArray:
    """Mixtures that are scored for every voxel, (n_pool,): each band alone, each two and all of them in equal shares.

    >>> first_mixtures(np.array([[1, 0], [0, 1], [0.5, 0.5], [0.2, 0.8]])).tolist()
    [True, True, True, False]
    """
    n_used = (gammas > 0).sum(axis=1)
    equal = np.isclose(gammas.max(axis=1) * n_used, 1.0)
    return np.asarray(equal & ((n_used <= 2) | (n_used == gammas.shape[1])))


def can_begin_coarse(gammas: FloatArray, n_columns: int) -> bool:
    """Whether guesses help: a pool with single bands, equal shares of two and of all, and others; enough columns."""
    n_bands, n_first = gammas.shape[1], int(first_mixtures(gammas).sum())
    n_wanted = n_bands * (n_bands + 1) // 2 + (n_bands > 2)
    return n_columns >= FEWEST_COLUMNS and n_first == n_wanted < len(gammas)


def grade(errors: FloatArray) -> FloatArray:
    """Errors relative to that of the first mixture's largest alpha, less 1; compressed above 0, in the same order.

    With the largest alpha a ridge predicts next to nothing, whatever the mixture.

    Parameters
    ----------
    errors : array of shape (n_first, n_alphas, n_targets)
    """
    level = np.maximum(errors[0, -1], np.finfo(np.float64).tiny)
    excess = errors / level - 1.0
    return np.asarray(excess / (1.0 + np.maximum(excess, 0.0) / CEILING))


class ErrorSurface:
    """Guesses graded errors of the other mixtures from those of the first ones.

    Parameters
    ----------
    gammas : array of shape (n_pool, n_bands)
    alphas : array of shape (n_alphas,)
    n_rows : int
        Rows fitted on. Bands have unit mean row norm, so no direction of a band has more than n_rows of variance: one
        with theta far below 1 / n_rows counts as absent.
    """

    def __init__(self, gammas: FloatArray, alphas: FloatArray, n_rows: int) -> None:
        self.first = first_mixtures(gammas)
        self._shape = int((~self.first).sum()), alphas.size
        places = np.log(gammas[:, None, :] / alphas[None, :, None] + 1.0 / n_rows)
        known, unknown = (places[rows].reshape(-1, gammas.shape[1]) for rows in (self.first, ~self.first))
        between = _kernel(unknown, known)
        self._inverse = np.linalg.inv(_kernel(known, known) + JITTER * np.eye(len(known)))
        self._weights = between @ self._inverse
        left_over = 1.0 - (self._weights * between).sum(axis=1)
        self._deviation = np.sqrt(np.maximum(left_over, 0.0)).reshape(self._shape)

    def guess(self, graded: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Smallest error over alphas of each other mixture, and the standard deviation of the guess.

        Parameters
        ----------
        graded : array of shape (n_first, n_alphas, n_targets)
            From `grade`.

        Returns
        -------
        two arrays of shape (n_pool - n_first, n_targets)
        """
        known = graded.reshape(-1, graded.shape[2])
        guessed = (self._weights @ known).reshape(*self._shape, -1)
        scale = np.sqrt(np.maximum((known * (self._inverse @ known)).mean(axis=0), 0.0))
        best = guessed.argmin(axis=1)
        lowest = np.take_along_axis(guessed, best[:, None], axis=1)[:, 0]
        return lowest, np.take_along_axis(self._deviation, best, axis=1) * scale


def worth_trying(surface: ErrorSurface, errors: FloatArray, models: Sequence[BoolArray]) -> BoolArray:
    """Which mixtures may be the best of a model for which voxel, (n_pool, n_targets); the first ones never are.

    Parameters
    ----------
    errors : array of shape (n_first, n_alphas, n_targets)
        Of the first mixtures, in the order of the pool.
    models : sequence of bool arrays of shape (n_pool,)
        The mixtures that each model may choose.
    """
    n_pool, n_targets = surface.first.size, errors.shape[2]
    wanted = np.zeros((n_pool, n_targets), dtype=bool)
    for start in range(0, n_targets, TARGETS_AT_ONCE):
        batch = slice(start, start + TARGETS_AT_ONCE)
        lowest = np.empty((n_pool, errors[0, 0, batch].size))
        hopeful = lowest.copy()
        graded = grade(errors[:, :, batch])
        lowest[surface.first] = graded.min(axis=1)
        lowest[~surface.first], deviation = surface.guess(graded)
        hopeful[~surface.first] = lowest[~surface.first] - DOUBT * deviation
        for inside in models:
            others = inside & ~surface.first
            wanted[others, batch] |= hopeful[others] <= lowest[inside].min(axis=0)
    return wanted


def _kernel(some: FloatArray, others: FloatArray) -> FloatArray:
    """Covariance of errors at places of shape (n, n_bands) and (m, n_bands), 1 on the diagonal: (n, m).

    The product over bands of 1 + INTERPLAY times a Matern kernel (5/2): a sum of functions of no band, each band, each
    two, ..., the higher ones smaller, so that what the bands do alone is carried over to what they do together.
    """
    whole = np.ones((len(some), len(others)))
    for own, other in zip(some.T, others.T, strict=True):
        distance = np.abs(own[:, None] - other[None]) * (np.sqrt(5.0) / WIDTH)
        whole *= (1.0 + INTERPLAY * (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)) / (1.0 + INTERPLAY)
    return whole
