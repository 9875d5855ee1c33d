"""Which mixtures of bands are tried: a nested pool of gammas.

A gamma is a point of the simplex: how the prior variance is shared between the bands (himalaya's word). The pool holds
points for every non-empty set of bands: its corner for one band, its middle and some more for two or three. A model of
some bands may use every gamma that lies inside its set, so the pool of a larger model includes that of each smaller
one: the cross-validated score can only rise from a model to a larger one that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType

import numpy as np

from brainlit.encoding.groups import BoolArray, FloatArray

DEFAULT_N_GAMMAS: Mapping[int, int] = MappingProxyType({1: 1, 2: 4, 3: 8})
N_CANDIDATES = 512


def gamma_pool(n_bands: int, n_gammas: Mapping[int, int] = DEFAULT_N_GAMMAS, seed: int = 0) -> FloatArray:
    """All gammas of all sets of bands, smaller sets first.

    Inside each set the first gamma shares equally; the others are drawn from the flat Dirichlet distribution, taking
    from many draws the one farthest from those already there, so that a handful covers the simplex. The draws of a
    set depend on the seed and on which bands it holds, not on what other bands there are.

    Parameters
    ----------
    n_gammas : mapping of set size to number of gammas
        One band has one gamma whatever is asked; sizes that are missing get the number of the largest size given.

    Returns
    -------
    array of shape (n_pool, n_bands)
        Rows are not negative and sum to 1.

    >>> gamma_pool(2, {1: 1, 2: 1}).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    if n_bands < 1 or not n_gammas or min(n_gammas.values()) < 1:
        raise ValueError(f"{n_bands} bands with n_gammas {dict(n_gammas)}; need a band and at least one gamma per set.")
    rows = []
    for size in range(1, n_bands + 1):
        wanted = 1 if size == 1 else n_gammas.get(size, n_gammas[max(n_gammas)])
        for members in combinations(range(n_bands), size):
            inside = np.zeros((wanted, n_bands))
            inside[:, members] = _spread_points(size, wanted, [seed, *members])
            rows.append(inside)
    return np.concatenate(rows)


def inside_set(gammas: FloatArray, members: list[int]) -> BoolArray:
    """Which gammas put nothing on bands outside the set, shape (n_pool,)."""
    outside = np.setdiff1d(np.arange(gammas.shape[1]), members)
    return np.asarray((gammas[:, outside] == 0).all(axis=1))


def _spread_points(size: int, wanted: int, seed: list[int]) -> FloatArray:
    draws = np.random.default_rng(seed).dirichlet(np.ones(size), N_CANDIDATES)
    taken = np.concatenate([np.eye(size), np.full((1, size), 1.0 / size)])
    while len(taken) < size + wanted:
        distance = np.linalg.norm(draws[:, None] - taken[None], axis=2).min(axis=1)
        taken = np.concatenate([taken, draws[[int(np.argmax(distance))]]])
    return taken[size : size + wanted]
