"""Who explains what: nested models, the variance partition, and the product-measure split of the joint model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from brainlit.encoding.groups import Array, FloatArray

BANDS: tuple[str, ...] = ("backbone", "low_level", "semantic")
"""Bands of the probe, in the order that all names and arrays keep."""


def order_bands(names: Iterable[str]) -> tuple[str, ...]:
    """The bands in their fixed order.

    Raises
    ------
    ValueError
        If there is none, or one is not a band of the probe.
    """
    given = set(names)
    unknown = sorted(given - set(BANDS))
    if unknown or not given:
        raise ValueError(f"bands are {sorted(given)}; need at least one of {', '.join(BANDS)} and no other.")
    return tuple(band for band in BANDS if band in given)


def model_name(bands: Iterable[str]) -> str:
    """Key of the model of some bands: 'backbone+low_level'."""
    return "+".join(order_bands(bands))


def part_name(bands: Iterable[str]) -> str:
    """Key of the part that some bands explain together: 'backbone&low_level'; of one band: what only it explains."""
    return "&".join(order_bands(bands))


def subsets(bands: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty sets of the bands, smaller first: the nested models.

    >>> subsets(("backbone", "low_level"))
    [('backbone',), ('low_level',), ('backbone', 'low_level')]
    """
    ordered = order_bands(bands)
    return [members for size in range(1, len(ordered) + 1) for members in combinations(ordered, size)]


def partition_variance(r2_by_model: Mapping[str, Array], bands: Sequence[str]) -> dict[str, FloatArray]:
    """Unique and shared parts of the joint R2, from the R2 of all nested models.

    The part that exactly the bands T explain is sum over U in T of (-1)^(|U| + 1) R2(others + U), others being all
    bands but T and R2 of no band 0. For three bands these are the seven areas of the usual picture of three circles.
    They add up to the joint R2 exactly. A part can be negative: where models do not generalise, or where bands help
    each other (suppression); it is reported as it is.

    Parameters
    ----------
    r2_by_model : mapping of model name to R2, arrays of shape (n_voxels,)
    bands : the bands of the joint model

    Returns
    -------
    dict of part name to array of shape (n_voxels,)
    """
    ordered = order_bands(bands)
    parts = {}
    for members in subsets(ordered):
        others = [band for band in ordered if band not in members]
        total = np.zeros_like(np.asarray(r2_by_model[model_name(ordered)], dtype=np.float64))
        for size in range(len(members) + 1):
            for added in combinations(members, size):
                if others or added:
                    total += (-1) ** (size + 1) * np.asarray(r2_by_model[model_name([*others, *added])])
        parts[part_name(members)] = total
    return parts


def split_r2(observed: Array, parts: Mapping[str, Array]) -> dict[str, FloatArray]:
    """Product measure: what each band's part of the joint prediction contributes to the joint R2.

    With p the joint prediction, p_b the part of band b and y the observed response (all zero-mean within groups),
    band b contributes sum_t p_b (2 y - p) / sum_t y^2; the contributions sum to R2 = 1 - |y - p|^2 / |y|^2. This is
    himalaya's `r2_score_split`.

    Parameters
    ----------
    observed : array of shape (n_trs, n_voxels)
    parts : mapping of band to array of shape (n_trs, n_voxels)

    Returns
    -------
    dict of band to array of shape (n_voxels,)
    """
    y = np.asarray(observed, dtype=np.float64)
    joint = np.sum([np.asarray(part, dtype=np.float64) for part in parts.values()], axis=0)
    weight = (2.0 * y - joint) / np.square(y).sum(axis=0)
    return {band: np.einsum("tv,tv->v", np.asarray(part, dtype=np.float64), weight) for band, part in parts.items()}
