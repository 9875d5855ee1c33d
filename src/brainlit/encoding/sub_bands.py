"""A finer cut: bands that come in sub-bands, such as low-level features in spectral, articulatory, phonemic and rates.

All 2^k nested models of many sub-bands would take too long and say little. Reported are the product measure of one
joint model in which every sub-band has its own regularisation, and what each sub-band alone adds: the R2 that is lost
when it is left out. Models of the whole bands are fitted as ever, on the sub-bands side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brainlit.encoding.gammas import gamma_pool, inside_set
from brainlit.encoding.groups import Array, FloatArray
from brainlit.encoding.partition import BANDS, order_bands
from brainlit.encoding.problem import Problem

JOINT = "all"
"""Name of the model of all sub-bands."""


@dataclass(frozen=True, eq=False)
class SubBandScores:
    """Product measure of each band or sub-band, and unique R2 of each sub-band, (n_good,) each."""

    split: Mapping[str, FloatArray]
    unique: Mapping[str, FloatArray]


def gather_bands(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Whole bands, and the parts that they come in, both in the fixed order of the bands.

    Parameters
    ----------
    arrays : mapping of band ('semantic') or sub-band ('low_level/spectral') to array of shape (n_trs, n_features)

    Raises
    ------
    ValueError
        If a band is unknown, or given both whole and in sub-bands.
    """
    order = order_bands(name.split("/")[0] for name in arrays)
    parts = {band: [name for name in arrays if name.split("/")[0] == band] for band in order}
    for band, names in parts.items():
        if band in names and len(names) > 1:
            raise ValueError(f"band {band!r} is given whole and as {', '.join(names[1:])}; give one or the other.")
    whole = {
        band: arrays[names[0]] if len(names) == 1 else np.concatenate([arrays[name] for name in names], axis=1)
        for band, names in parts.items()
    }
    return whole, {name: arrays[name] for names in parts.values() for name in names}


def sub_band_pool(names: tuple[str, ...], n_gammas: Mapping[int, int], seed: int) -> FloatArray:
    """Gammas of the joint model (corners, middle, spread points), and the same with each sub-band left out.

    A model without a sub-band may choose among the joint model's mixtures with that share set to 0, so that the two
    differ in nothing but the sub-band.

    Returns
    -------
    array of shape (n_pool, n_bands)
    """
    n_bands, n_inside = len(names), n_gammas[max(n_gammas)]
    points = gamma_pool(n_bands, {**dict.fromkeys(range(1, n_bands), 1), n_bands: n_inside}, seed)
    corners, inside = points[:n_bands], points[len(points) - n_inside :]
    pool = [corners, inside]
    for left_out in (k for k, name in enumerate(names) if "/" in name):
        without = inside.copy()
        without[:, left_out] = 0.0
        pool.append(without / without.sum(axis=1, keepdims=True))
    return np.concatenate(pool)


def score_sub_bands(problem: Problem, parts: Mapping[str, Array]) -> SubBandScores:
    """Fit the joint model of all parts and one without each sub-band.

    Parameters
    ----------
    parts : mapping of band or sub-band to array of shape (n_trs, n_features)
        From `gather_bands`; at least two.
    """
    names = tuple(parts)
    pool = sub_band_pool(names, problem.settings.n_gammas, problem.settings.seed)
    sub_bands = [name for name in names if "/" in name]
    inside = {name: inside_set(pool, [k for k, other in enumerate(names) if other != name]) for name in sub_bands}
    fitted = problem.fit_models(parts, pool, {**inside, JOINT: np.ones(len(pool), dtype=bool)})
    r2 = {model: problem.r2(predicted) for model, predicted in fitted.predictions.items()}
    return SubBandScores(fitted.split, {name: r2[JOINT] - r2[name] for name in sub_bands})


def has_sub_bands(parts: Mapping[str, Array]) -> bool:
    """Whether there is something to cut finer: a sub-band, besides anything else.

    >>> has_sub_bands({"backbone": np.ones((3, 1)), "low_level/rates": np.ones((3, 1))})
    True
    """
    return len(parts) > 1 and any(name.partition("/")[0] in BANDS and "/" in name for name in parts)
