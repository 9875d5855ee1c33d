"""What a probe costs, and what it leaves out to stay within a time: layers first, then voxels, then mixtures.

One band of one layer is fitted for a few voxels and for four times as many; that gives a part that every fit has and a
part that grows with voxels. More columns make the first grow with their third power (eigenvectors) and the second with
their square (measured from 1,600 to 2,800 columns). After each probe the estimate is set right by what it took.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from brainlit.encoding.arrays import BoolArray, IntArray
from brainlit.encoding.mixtures import SHARE_TRIED

VOXEL_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Shares of the voxels that are tried."""
FEWEST_PER_REGION = 20
"""Voxels that stay of each region (of those with the same regions), where it has as many."""
PILOT_VOXELS = 256


@dataclass(frozen=True)
class ProbeScope:
    """What of a probe is done.

    Parameters
    ----------
    layers : tuple of int
        Of the layer curve, with the compared one.
    voxel_share : float
        Of each region's voxels; see `sample_voxels`.
    n_gammas : mapping of number of bands to number of mixtures
    """

    layers: tuple[int, ...]
    voxel_share: float
    n_gammas: Mapping[int, int]

    def json(self) -> dict[str, Any]:
        """As plain JSON."""
        n_gammas = {str(size): number for size, number in self.n_gammas.items()}
        return {"layers": list(self.layers), "voxel_share": self.voxel_share, "n_gammas": n_gammas}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ProbeScope:
        """What `json` gave."""
        n_gammas = {int(size): int(number) for size, number in value["n_gammas"].items()}
        return cls(tuple(value["layers"]), float(value["voxel_share"]), n_gammas)

    def left_out_words(self, whole: ProbeScope) -> str:
        """What is left out of the whole probe; empty if nothing is.

        >>> whole = ProbeScope((0, 1, 2, 3), 1.0, {1: 1, 2: 4, 3: 8})
        >>> ProbeScope((0, 3), 0.25, {1: 1, 2: 4, 3: 8}).left_out_words(whole)
        '2 of 4 layers, 25 % of the voxels'
        """
        parts = []
        if len(self.layers) < len(whole.layers):
            parts.append(f"{len(self.layers)} of {len(whole.layers)} layers")
        if self.voxel_share < whole.voxel_share:
            parts.append(f"{100 * self.voxel_share:g} % of the voxels")
        if dict(self.n_gammas) != dict(whole.n_gammas):
            parts.append(f"mixtures per number of bands {dict(self.n_gammas)} instead of {dict(whole.n_gammas)}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a probe.

    Parameters
    ----------
    features_s : float
        The hidden states of all layers.
    fixed_s, voxel_s : float
        One mixture of the backbone's columns alone: whatever the number of voxels, and per voxel.
    n_voxels : int
        Of all subjects together, in one process.
    sizes : mapping of band to number of columns (at most rows) that the ridge sees; the backbone's comes first
    n_searches : int
        Groups of subjects with the same rows.
    n_folds : int
    coarse : bool
        Whether mixtures are searched coarse to fine.
    partition_scale, layer_scale : float
        By how much the last probe was slower than this said.
    """

    features_s: float
    fixed_s: float
    voxel_s: float
    n_voxels: int
    sizes: Mapping[str, int]
    n_searches: int = 1
    n_folds: int = 4
    coarse: bool = False
    partition_scale: float = 1.0
    layer_scale: float = 1.0

    def partition_s(self, scope: ProbeScope) -> float:
        """Seconds of the compared layer with all other bands: search, final fits, two residuals."""
        unit, largest = next(iter(self.sizes.values())), max(scope.n_gammas)
        fixed = voxel = 2.0  # the two residuals: the backbone alone, one mixture each
        for n_bands in range(1, len(self.sizes) + 1):
            wanted = 1 if n_bands == 1 else scope.n_gammas.get(n_bands, scope.n_gammas[largest])
            first = 1 if n_bands <= 2 or n_bands == len(self.sizes) else 0
            tried = first + SHARE_TRIED * (wanted - first) if self.coarse else wanted
            for sizes in combinations(self.sizes.values(), n_bands):
                fixed += wanted * (sum(sizes) / unit) ** 3
                voxel += tried * (sum(sizes) / unit) ** 2
        n_voxels, refit = self.n_voxels * scope.voxel_share, 1 + 1 / self.n_folds
        fits_s = self.n_searches * self.fixed_s * fixed + self.voxel_s * n_voxels * voxel
        return self.partition_scale * refit * fits_s

    def layer_s(self, scope: ProbeScope) -> float:
        """Seconds of one layer alone."""
        n_voxels = self.n_voxels * scope.voxel_share
        return self.layer_scale * (self.n_searches * self.fixed_s + self.voxel_s * n_voxels)

    def seconds(self, scope: ProbeScope) -> float:
        """Seconds of the whole probe."""
        return self.features_s + self.partition_s(scope) + (len(scope.layers) - 1) * self.layer_s(scope)

    def corrected(self, scope: ProbeScope, features_s: float, partition_s: float, layers_s: float) -> Costs:
        """With the seconds that a probe took."""
        said, n_others = self.partition_s(scope), len(scope.layers) - 1
        scale = self.partition_scale * (partition_s / said if said > 0 else 1.0)
        said = n_others * self.layer_s(scope)
        alone = self.layer_scale * (layers_s / said if said > 0 else 1.0)
        return replace(self, features_s=features_s, partition_scale=scale, layer_scale=alone)


def pilot(fit: Callable[[int], float], n_voxels: int) -> tuple[float, float]:
    """Fixed seconds, and seconds per voxel, from two fits; `fit(n)` fits n voxels and returns its seconds."""
    few = min(PILOT_VOXELS, max(1, n_voxels // 4))
    many = min(n_voxels, 4 * few)
    fit(few)  # the first call also loads libraries
    seconds = fit(few)
    slope = max(0.0, (fit(many) - seconds) / (many - few)) if many > few else 0.0
    return max(0.0, seconds - slope * few), slope


def reduce_scope(
    whole: ProbeScope, chosen: int, budget_s: float, costs: Costs, keep_voxels: bool = False
) -> ProbeScope:
    """The most of a probe that fits into the budget, or the least if nothing does.

    Layers of the curve go first (the compared one stays, the others are spread evenly), then voxels (unless they are
    to stay), then mixtures.
    """

    def fits(scope: ProbeScope) -> bool:
        return costs.seconds(scope) <= budget_s

    scope = whole
    for n_layers in range(len(whole.layers), 0, -1):
        scope = replace(whole, layers=spread_layers(whole.layers, chosen, n_layers))
        if fits(scope):
            return scope
    for share in () if keep_voxels else VOXEL_SHARES[1:]:
        scope = replace(scope, voxel_share=whole.voxel_share * share)
        if fits(scope):
            return scope
    while max(scope.n_gammas.values()) > 1:
        scope = replace(scope, n_gammas={size: max(1, number // 2) for size, number in scope.n_gammas.items()})
        if fits(scope):
            return scope
    return scope


def spread_layers(layers: Sequence[int], chosen: int, n_layers: int) -> tuple[int, ...]:
    """The chosen layer and n_layers - 1 others, spread evenly.

    >>> spread_layers(range(13), 9, 4)
    (0, 6, 9, 12)
    >>> spread_layers(range(13), 12, 1)
    (12,)
    """
    others = [layer for layer in layers if layer != chosen]
    places = np.linspace(0, len(others) - 1, n_layers - 1).round().astype(int)
    return tuple(sorted({chosen, *(others[place] for place in places)}))


def sample_voxels(regions: Mapping[str, BoolArray], usable: BoolArray, share: float, seed: int) -> IntArray:
    """Evenly spaced voxels of every region, by their places and the seed alone: no response is looked at.

    Parameters
    ----------
    regions : mapping of name to bool array of shape (n_voxels,)
    usable : bool array of shape (n_voxels,)
        Voxels to choose from.
    share : float
        Of the voxels of each region; at least FEWEST_PER_REGION stay.

    Returns
    -------
    int array of shape (n_chosen,), increasing
    """
    if share >= 1.0:
        return np.flatnonzero(usable)
    member = np.stack([np.zeros_like(usable), *regions.values()]).astype(np.int64)
    # Voxels with the same regions are one kind: sampling kind by kind thins every region, and every overlap, alike.
    _, kind = np.unique(member, axis=1, return_inverse=True)
    rng = np.random.default_rng(seed)
    chosen = []
    for number in range(int(kind.max()) + 1):
        own = np.flatnonzero((kind.reshape(-1) == number) & usable)
        n = min(len(own), max(round(share * len(own)), FEWEST_PER_REGION))
        first = rng.random()  # where the even steps through the kind's voxels begin
        chosen.append(own[((np.arange(n) + first) * len(own) / max(n, 1)).astype(np.int64)])
    return np.sort(np.concatenate(chosen))
