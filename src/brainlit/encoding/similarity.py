"""How alike two sets of features of the same rows are: linear CKA, and how far one moved from the other.

In some layers of transformers a few dimensions are far larger than all others: massive activations (Sun et al. 2024,
arXiv 2402.17762). Norms and CKA of such states are those of these dimensions, whatever the others do. `standardised`
counts each dimension in units of its own sd, the remedy of Timkey & van Schijndel (2021, arXiv 2109.04404), and
`massive_dimensions` says how many there were.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, FloatArray

SMALLEST_SD = 0.1
"""Of the median dimension's sd: what varies less is counted as if it varied so much, for its sd is next to nothing."""


def linear_cka(x: npt.ArrayLike, y: npt.ArrayLike, debiased: bool = False) -> float:
    """Linear centred kernel alignment: 1 for features that are rotations, scalings or shifts of each other.

    ||Yc' Xc||^2 / (||Xc' Xc|| ||Yc' Yc||), Frobenius norms of features with their means removed (Kornblith et al. 2019,
    arXiv 1905.00414, section 3). That is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the Gram matrices K = X X' and
    L = Y Y', and computed from those where there are fewer rows than features.

    Its expectation for independent features is above 0, and near 1 where there are fewer rows than features. `debiased`
    takes the unbiased estimator of HSIC instead (Song et al. 2012, JMLR 13:1393; for CKA: Nguyen et al. 2021, arXiv
    2010.15327), which is about 0 there and may be negative.

    Parameters
    ----------
    x : array of shape (n_rows, n_features_x)
    y : array of shape (n_rows, n_features_y)
    debiased : bool
        Needs at least 4 rows; otherwise 2 are enough.

    Returns
    -------
    float
        NaN where x or y does not vary (or, debiased, not more than by chance).

    Raises
    ------
    ValueError
        If the shapes do not fit, there are too few rows, or a value is not finite.

    >>> linear_cka([[1.0], [2.0], [4.0]], [[0.0, -3.0], [0.0, -6.0], [0.0, -12.0]])
    1.0
    """
    a, b = _rows(x), _rows(y)
    fewest = 4 if debiased else 2
    if len(a) != len(b) or len(a) < fewest:
        raise ValueError(f"x has {len(a)} rows and y {len(b)}; CKA needs the same rows, at least {fewest}.")
    a, b = _centred(a), _centred(b)
    both, alone_a, alone_b = (_hsic(*pair, debiased) for pair in ((a, b), (a, a), (b, b)))
    if alone_a <= 0 or alone_b <= 0:
        return float("nan")
    return float(both / np.sqrt(alone_a * alone_b))


def relative_change(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """||after - before|| / ||before||, Frobenius norms; NaN where `before` is all 0.

    >>> relative_change([[3.0, 4.0]], [[3.0, 4.5]])
    0.1
    """
    x, y = _rows(before), _rows(after)
    if x.shape != y.shape:
        raise ValueError(f"shapes {x.shape} and {y.shape}; a change needs the same rows and features.")
    norm = np.linalg.norm(x)
    return float(np.linalg.norm(y - x) / norm) if norm > 0 else float("nan")


def standardised(x: npt.ArrayLike, like: npt.ArrayLike | None = None) -> FloatArray:
    """Each dimension in units of its sd over rows, its mean removed; of another set of features where one is given.

    Parameters
    ----------
    x : array of shape (n_rows, n_features)
    like : array of shape (n_rows, n_features), optional
        Whose means and sds are taken: of states before tuning, say, for those before and after.

    Returns
    -------
    float64 array of shape (n_rows, n_features)
        All 0 where nothing varies.

    >>> standardised([[0.0, 4.0, 500.0], [2.0, 8.0, 900.0]]).tolist()
    [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    """
    a = _rows(x)
    reference = a if like is None else _rows(like)
    if reference.shape[1] != a.shape[1]:
        raise ValueError(f"{a.shape[1]} features in units of {reference.shape[1]} others; need the same ones.")
    sd = _sd(reference)
    varying = sd[sd > 0]
    if not varying.size:
        return np.zeros_like(a)
    return np.asarray((a - reference.mean(axis=0)) / np.maximum(sd, SMALLEST_SD * np.median(varying)))


def massive_dimensions(x: npt.ArrayLike) -> BoolArray:
    """Dimensions that vary as much as all ordinary ones together: variance >= n_features x the median, (n_features,).

    Sun et al. call an activation massive from 100 and a thousand times the median magnitude of its state on. That is
    about single frames; means over rows of many frames hold a part of it, and the variance over rows is what counts
    here.
    """
    variance = np.square(_sd(_rows(x)))
    return np.asarray((variance >= len(variance) * np.median(variance)) & (variance > 0) & (len(variance) > 2))


def _sd(a: FloatArray) -> FloatArray:
    """Of each dimension over rows; 0 where it varies by rounding errors only."""
    sd = a.std(axis=0)
    return np.asarray(np.where(sd > 1e-12 * np.abs(a).max(axis=0, initial=0.0), sd, 0.0))


def _rows(values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"features have shape {array.shape}; need (n_rows, n_features).")
    if not np.isfinite(array).all():
        raise ValueError("features hold NaN or infinite values; leave such rows out.")
    return array


def _centred(a: FloatArray) -> FloatArray:
    """Means removed and scaled to a largest value of 1; what varies by rounding errors only becomes 0."""
    centred = a - a.mean(axis=0)
    largest = np.abs(centred).max(initial=0.0)
    if largest <= 1e-12 * np.abs(a).max(initial=0.0):
        return np.zeros_like(a)
    return np.asarray(centred / largest)


def _hsic(a: FloatArray, b: FloatArray, debiased: bool) -> float:
    """HSIC of two centred sets of features, up to a factor that depends on n_rows only."""
    n, fewer_rows = len(a), len(a) <= min(a.shape[1], b.shape[1])
    product = float(np.sum((a @ a.T) * (b @ b.T)) if fewer_rows else np.square(a.T @ b).sum())
    if not debiased:
        return product
    k, m = np.square(a).sum(axis=1), np.square(b).sum(axis=1)  # diagonals of the Gram matrices, which do not count
    return product - n / (n - 2) * float(k @ m) + float(k.sum() * m.sum()) / ((n - 1) * (n - 2))
