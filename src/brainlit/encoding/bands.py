"""From raw feature spaces to the columns that the ridge sees: standardised, delayed, on one scale, maybe rotated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainlit.encoding.delays import delay_within
from brainlit.encoding.groups import BoolArray, Float32Array, demean_within
from brainlit.encoding.standardise import standardise


def prepare_band(
    X: npt.ArrayLike,
    groups: npt.ArrayLike,
    fit: BoolArray,
    used: BoolArray,
    delays_trs: Sequence[int],
    *,
    rescale: bool = True,
) -> Float32Array:
    """Standardise, delay within groups, keep the used rows, centre them per group, and give the band unit size.

    Unit size: the mean squared norm of a fitted row is 1, whatever the number of features. So gamma is the share of
    the prior variance that a band gets, and alpha the ratio of noise to signal variance.

    Parameters
    ----------
    X : array of shape (n_trs, n_features)
    groups : int array of shape (n_trs,)
    fit, used : bool arrays of shape (n_trs,)
        Rows fitted on, and rows fitted on or scored.
    rescale : bool
        False skips the first scaling of the columns (they are centred all the same), for residuals whose size means
        something.

    Returns
    -------
    float32 array of shape (n_used, n_delays * n_features)
        All 0 if the band is constant.
    """
    scaled = standardise(X, groups, fit) if rescale else demean_within(X, groups).astype(np.float32)
    delayed = delay_within(scaled, groups, delays_trs)[used]
    centred = demean_within(delayed, np.asarray(groups)[used])
    row_norm = np.square(centred[fit[used]]).sum(axis=1).mean()
    return (centred / np.sqrt(row_norm) if row_norm > 0 else centred).astype(np.float32)


def rotate_band(X: Float32Array, fit_rows: BoolArray, keep_variance: float, device: str = "cpu") -> Float32Array:
    """Replace the columns by their leading principal components on the fitted rows: fewer columns, same kernel.

    A rotation alone changes no ridge; dropping the components that together hold less than 1 - keep_variance of the
    band's variance changes its kernel by at most that. Responses are not looked at.

    Parameters
    ----------
    X : array of shape (n_rows, n_features)
    fit_rows : bool array of shape (n_rows,)
    keep_variance : float in (0, 1]
        1 leaves the columns as they are.

    Returns
    -------
    float32 array of shape (n_rows, n_components)
    """
    if keep_variance >= 1.0 or not X.any():
        return X
    import torch

    data = torch.as_tensor(X, device=device)
    fitted = data[torch.from_numpy(fit_rows).to(device)]
    eigenvalues, vectors = torch.linalg.eigh(fitted.T @ fitted)
    share = torch.cumsum(eigenvalues.clamp(min=0.0).double(), dim=0) / eigenvalues.clamp(min=0.0).double().sum()
    n_dropped = int((share <= 1.0 - keep_variance).sum())
    return np.asarray((data @ vectors[:, n_dropped:]).cpu().numpy(), dtype=np.float32)
