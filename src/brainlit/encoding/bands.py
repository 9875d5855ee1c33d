"""From raw feature spaces to the columns that the ridge sees: standardised, delayed, on one scale, maybe rotated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import (
    BoolArray,
    Float32Array,
    FloatArray,
    column_scale,
    delay_within,
    demean_within,
    refuse_not_finite,
)
from brainlit.encoding.config import BANDS
from brainlit.encoding.partition import order_bands
from brainlit.encoding.temporal import (
    Band,
    TemporalBand,
    as_band,
)


def prepare_band(
    X: Band | npt.ArrayLike,
    groups: npt.ArrayLike,
    fit: BoolArray,
    used: BoolArray,
    delays_trs: Sequence[int],
    *,
    rescale: bool = True,
) -> Float32Array:
    """Standardise, delay within groups, keep the used rows, centre them per group, and give unit size.

    Unit size: the mean squared norm of a fitted row is 1, whatever the number of features. So gamma is the share of
    the prior variance that a band gets, and alpha the ratio of noise to signal variance. The parts of a temporal band
    get unit size each and then the root of their weight, so that weights are shares of the band's prior variance.

    Parameters
    ----------
    X : array of shape (n_trs, n_features), or TemporalBand
        Of a temporal band only 'fir' is delayed.
    groups : int array of shape (n_trs,)
    fit, used : bool arrays of shape (n_trs,)
        Rows fitted on, and rows fitted on or scored.
    rescale : bool
        False skips the first scaling of the columns (they are centred all the same), for residuals whose size means
        something; a band that keeps its scale does so by itself.

    Returns
    -------
    float32 array of shape (n_used, n_delays * n_features), the parts of a temporal band side by side
        All 0 if the band is constant.

    Raises
    ------
    NotFiniteError
        If a column that keeps its scale is too large for float32.
    """
    band, columns = as_band(X), []
    for name, share in band.prior.items():
        part = band.parts[name]
        scale = column_scale(part, groups, fit) if rescale and not band.keeps_scale else None
        centred = _centred(part, groups, used, scale, band.delays(name, delays_trs))
        unit = (centred / _row_size(centred[fit[used]])).astype(np.float32)
        columns.append(unit if share == 1.0 else unit * np.float32(np.sqrt(share)))
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)


def gather_bands(bands: Mapping[str, Band], known: Iterable[str] = BANDS) -> tuple[dict[str, Band], dict[str, Band]]:
    """Whole bands, and the sub-bands that they come in, both in the fixed order of the bands.

    Parameters
    ----------
    bands : mapping of band ('semantic') or sub-band ('low_level/spectral') to array of shape (n_trs, n_features), or
        TemporalBand
    known : names, optional
        The bands that there may be: `ProbeConfig.band_names`.

    Raises
    ------
    ValueError
        If a band is unknown, given both whole and in sub-bands, or its sub-bands differ in their temporal parts.
    """
    order = order_bands((name.split("/")[0] for name in bands), known)
    parts = {band: [name for name in bands if name.split("/")[0] == band] for band in order}
    for band, names in parts.items():
        if band in names and len(names) > 1:
            raise ValueError(f"band {band!r} is given whole and as {', '.join(names[1:])}; give one or the other.")
    whole = {band: _side_by_side({name: bands[name] for name in names}) for band, names in parts.items()}
    return whole, {name: bands[name] for names in parts.values() for name in names}


def _side_by_side(bands: Mapping[str, Band]) -> Band:
    first, *others = bands.values()
    if not others:
        return first
    if not any(isinstance(X, TemporalBand) for X in bands.values()):
        return np.concatenate([np.asarray(X) for X in bands.values()], axis=1)
    forms = [as_band(X) for X in bands.values()]
    if any(form.parts.keys() != forms[0].parts.keys() or form.weights != forms[0].weights for form in forms):
        raise ValueError(
            f"{', '.join(bands)} differ in their temporal parts or weights; sub-bands of a band share them."
        )
    columns = {name: np.concatenate([form.parts[name] for form in forms], axis=1) for name in forms[0].parts}
    return replace(forms[0], parts=columns)


@dataclass(frozen=True, eq=False)
class BandScaler:
    """What a band takes from its fitted rows to other stories; made by `learn_band`.

    Parameters
    ----------
    scale : array of shape (n_features,)
        1 / sd of each feature on the fitted rows.
    size : float
        Root mean squared norm of a fitted row.
    rotation : array of shape (n_delays * n_features, n_components) or None
    delays_trs : tuple of int
    """

    scale: FloatArray
    size: float
    rotation: Float32Array | None
    delays_trs: tuple[int, ...]

    def columns(self, X: npt.ArrayLike, groups: npt.ArrayLike) -> Float32Array:
        """The columns of other stories, (n_trs, n_columns); each story is centred by its own mean.

        Raises
        ------
        ValueError
            If X has another number of features.
        """
        n_features = np.shape(X)[-1]
        if n_features != self.scale.size:
            raise ValueError(f"X has {n_features} features; the band was fitted with {self.scale.size}.")
        every = np.ones(len(np.asarray(groups)), dtype=bool)
        unit = (_centred(X, groups, every, self.scale, self.delays_trs) / self.size).astype(np.float32)
        return unit if self.rotation is None else unit @ self.rotation


def learn_band(
    X: npt.ArrayLike,
    groups: npt.ArrayLike,
    fit: BoolArray,
    delays_trs: Sequence[int],
    keep_variance: float = 1.0,
    device: str = "cpu",
) -> tuple[BandScaler, Float32Array]:
    """What `prepare_band` and `rotate_band` make of the fitted rows, and how to do the same to other stories."""
    scale = column_scale(X, groups, fit)
    centred = _centred(X, groups, fit, scale, delays_trs)
    size = _row_size(centred)
    unit = (centred / size).astype(np.float32)
    rotation = principal_axes(unit, keep_variance, device)
    columns = unit if rotation is None else unit @ rotation
    return BandScaler(scale, size, rotation, tuple(delays_trs)), columns


def _centred(
    X: npt.ArrayLike,
    groups: npt.ArrayLike,
    used: BoolArray,
    scale: FloatArray | None,
    delays_trs: Sequence[int],
) -> FloatArray:
    """Scaled, delayed inside groups, and on the used rows centred per group: (n_used, n_delays * n_features)."""
    centred = demean_within(X, groups)
    with np.errstate(over="ignore"):
        scaled = (centred if scale is None else centred * scale).astype(np.float32)
    refuse_not_finite(scaled, "columns", "they are NaN, or too large for float32: divide them by their scale")
    return demean_within(delay_within(scaled, groups, delays_trs)[used], np.asarray(groups)[used])


def _row_size(fitted: FloatArray) -> float:
    """Root mean squared norm of a row; 1 if all are 0."""
    mean_square = float(np.square(fitted).sum(axis=1).mean())
    return float(np.sqrt(mean_square)) if mean_square > 0 else 1.0


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
    axes = principal_axes(X[fit_rows], keep_variance, device)
    return X if axes is None else X @ axes


def principal_axes(fitted: Float32Array, keep_variance: float, device: str = "cpu") -> Float32Array | None:
    """The axes that `rotate_band` keeps, (n_columns, n_components), or None where it rotates nothing.

    Raises
    ------
    NotFiniteError
        If the columns have no decomposition that is finite and gives them back.
    """
    if keep_variance >= 1.0 or not fitted.any():
        return None
    import torch

    from brainlit.encoding.decompositions import checked_eigh

    data = torch.as_tensor(fitted, device=device)
    is_wide = fitted.shape[1] > fitted.shape[0]
    eigenvalues, vectors = checked_eigh(data @ data.T if is_wide else data.T @ data, "the products of its columns")
    # eigenvalues come in increasing order: summed from the smallest, in float64, until the share that may go is reached
    share = torch.cumsum(eigenvalues.clamp(min=0.0).double(), dim=0) / eigenvalues.clamp(min=0.0).double().sum()
    n_dropped = int((share <= 1.0 - keep_variance).sum())
    axes = vectors[:, n_dropped:]
    if is_wide:  # axes of the rows, brought to those of the columns, which have the same eigenvalues
        axes = data.T @ (axes / eigenvalues[n_dropped:].sqrt())
    return np.asarray(axes.cpu().numpy(), dtype=np.float32)
