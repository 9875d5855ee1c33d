"""From values at their own times (frames of sound, words, phones) to values per TR: one way for all spaces."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from brainlit.features.config import PerTr
from brainlit.features.resample import lanczos_resample
from brainlit.timebase import TimeBase

Float32Array = npt.NDArray[np.float32]
Combine = Literal["mean", "sum"]


def to_trs(
    values: npt.ArrayLike, times_s: npt.ArrayLike, timebase: TimeBase, combine: Combine, per_tr: PerTr = "mean"
) -> Float32Array:
    """Values on the scanner's rows, (n_times, n_features) -> (n_trs, n_features).

    Parameters
    ----------
    values : array of shape (n_times, n_features)
    times_s : array of shape (n_times,)
        Middles of what the values describe, in seconds of sound.
    combine : 'mean' or 'sum'
        Mean of the values in a row (what goes on in time) or their sum (events); 0 where there are none.
    per_tr : 'mean' or 'lanczos'
        'mean': from the values whose time falls into the row, as `combine` says. 'lanczos': from all values, weighted
        by the three-lobe kernel around the middle of the row with its cut-off at 1 / (2 TR). The kernel is not
        normalised, as in published encoding models: a steady value comes out times the number of values per TR, and
        rows beside an event ring.

    Raises
    ------
    ValueError
        If values and times do not fit each other.
    """
    if per_tr == "lanczos":
        middles_s = (timebase.tr_starts_s + timebase.tr_ends_s) / 2
        rows = lanczos_resample(values, times_s, middles_s, window=3, cutoff_hz=1 / (2 * timebase.tr_s))
    elif combine == "mean":
        rows = timebase.average_per_tr(values, times_s)
    else:
        rows = timebase.sum_per_tr(values, times_s)
    return rows.astype(np.float32)


def in_words(combine: Combine, per_tr: PerTr) -> str:
    """What `to_trs` does, for the `source` of a space.

    >>> in_words("mean", "mean"), in_words("sum", "mean")
    ('mean per TR', 'sum per TR')
    """
    return "three-lobe Lanczos at the middle of each TR" if per_tr == "lanczos" else f"{combine} per TR"
