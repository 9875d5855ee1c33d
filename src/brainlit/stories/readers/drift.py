"""Scanner drift: slow changes that no story causes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def drift_basis(n_trs: int, tr_s: float, high_pass_s: float) -> FloatArray:
    """Orthonormal constant, straight line and cosines with periods of high_pass_s and more, shape (n_trs, n_slow).

    Cosine k of the discrete cosine transform has the period 2 n_trs tr_s / k, so k runs to 2 n_trs tr_s / high_pass_s
    (the set of SPM); the line is what is left of a trend in a recording too short for any cosine.
    """
    n_cosines = int(min(2 * n_trs * tr_s / high_pass_s, n_trs - 2))
    t = (2 * np.arange(n_trs) + 1) / (2 * n_trs)
    slow = np.cos(np.pi * np.outer(t, np.arange(n_cosines + 1)))
    return np.asarray(np.linalg.qr(np.column_stack([slow, t]))[0])


def zscore(values: FloatArray) -> FloatArray:
    """Each column at mean 0 and standard deviation 1 over time; constant columns and those with a NaN become NaN.

    >>> zscore(np.array([[0.0, 5.0], [2.0, 5.0]])).tolist()
    [[-1.0, nan], [1.0, nan]]
    """
    varies = values.max(axis=0) > values.min(axis=0)
    scale = np.where(varies, values.std(axis=0), np.nan)
    return np.asarray((values - values.mean(axis=0)) / scale)
