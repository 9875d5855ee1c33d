"""Correlations as a share of what any model could reach, raw and ceiling always beside them.

Two numbers go by that name. The mean of ratios gives every voxel the same say, and voxels with a low ceiling, whose
ratio is a small number over a small number, most of the scatter. The ratio of means is what a region reaches of what it
could (as in Schoppe et al. 2016, Front. Comput. Neurosci. 10:10, the ceiling is the highest expected correlation with
the mean of the repeats). Neither is clipped: sampling can put both above 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import BoolArray, FloatArray


@dataclass(frozen=True)
class Normalised:
    """Alignment of a region against its ceiling; NaN where no voxel has one.

    Parameters
    ----------
    raw, ceiling : float
        Means over the voxels that count.
    mean_of_ratios, ratio_of_means : float
    n_used, n_dropped : int
        Voxels that count, and voxels of the region whose r or ceiling is unknown or whose ceiling is below min_ceiling.
    min_ceiling : float
    """

    raw: float
    ceiling: float
    mean_of_ratios: float
    ratio_of_means: float
    n_used: int
    n_dropped: int
    min_ceiling: float


def mean_of_ratios(r: FloatArray, ceiling: FloatArray) -> float:
    """Mean over voxels of r / ceiling; NaN without voxels.

    >>> mean_of_ratios(np.array([0.25, 0.5]), np.array([0.25, 1.0]))
    0.75
    """
    return float(np.mean(r / ceiling)) if len(r) else float("nan")


def ratio_of_means(r: FloatArray, ceiling: FloatArray) -> float:
    """Mean r over mean ceiling; NaN without voxels.

    >>> ratio_of_means(np.array([0.25, 0.5]), np.array([0.25, 1.0]))
    0.6
    """
    return float(np.mean(r) / np.mean(ceiling)) if len(r) else float("nan")


def normalise(
    r: npt.ArrayLike, ceiling: npt.ArrayLike, voxels: BoolArray | None = None, min_ceiling: float = 0.1
) -> Normalised:
    """Raw, ceiling and both normalised correlations of a region.

    Parameters
    ----------
    r, ceiling : arrays of shape (n_voxels,)
        Ceilings are NaN where none can be given (`Ceiling.ceiling_r`).
    voxels : bool array of shape (n_voxels,), optional
        The region; all voxels by default. For voxels chosen by reliability, `Ceiling.reliable` of data that are not
        scored, or else the choice favours voxels whose scored noise happens to repeat.
    min_ceiling : positive float
        Voxels with a lower ceiling are dropped and counted.

    Raises
    ------
    ValueError
        If shapes differ or min_ceiling is not positive.
    """
    scores, ceilings = np.asarray(r, dtype=np.float64), np.asarray(ceiling, dtype=np.float64)
    region = np.ones(scores.shape, dtype=bool) if voxels is None else np.asarray(voxels, dtype=bool)
    if scores.ndim != 1 or scores.shape != ceilings.shape or scores.shape != region.shape:
        raise ValueError(f"r {scores.shape}, ceiling {ceilings.shape}, voxels {region.shape}; need one per voxel.")
    if not min_ceiling > 0:
        raise ValueError(f"min_ceiling is {min_ceiling}; a ceiling of 0 divides by 0: give a positive one.")
    with np.errstate(invalid="ignore"):
        used = region & np.isfinite(scores) & (ceilings >= min_ceiling)
    own, highest = scores[used], ceilings[used]
    raw, mean_ceiling = (float(x.mean()) if len(x) else float("nan") for x in (own, highest))
    n_used = int(used.sum())
    ratios = mean_of_ratios(own, highest), ratio_of_means(own, highest)
    return Normalised(raw, mean_ceiling, *ratios, n_used, int(region.sum()) - n_used, float(min_ceiling))
