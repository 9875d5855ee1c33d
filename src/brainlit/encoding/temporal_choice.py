"""How much a band trusts each of its temporal forms: weights chosen by cross-validation, pooled over voxels.

Under `auto` a band holds its features convolved with the canonical response, convolved with its derivatives, and per
TR for delays. Prior variance is shared between the three as one of a few MIXTURES says. Each mixture is a ridge of
that band alone, cross-validated on the fitted rows; the one with the best mean score over a subject's voxels is taken
for all of them. Where rows are few, a choice per voxel would follow noise; a pooled one does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, FloatArray
from brainlit.encoding.bands import gather_bands
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.probe_fit import ProbeCache, ProbeFit
from brainlit.encoding.probe_rows import ProbeRows, prepare_rows, prepare_targets
from brainlit.encoding.temporal import Band, TemporalBand, TemporalPart

MIXTURES: tuple[Mapping[TemporalPart, float], ...] = (
    {"hrf": 1.0},
    {"hrf": 0.8, "derivatives": 0.2},
    {"hrf": 0.5, "derivatives": 0.5},
    {"hrf": 0.5, "derivatives": 0.25, "fir": 0.25},
    {"hrf": 0.2, "derivatives": 0.2, "fir": 0.6},
    {"fir": 1.0},
)
"""Shares of the prior variance that are tried, fewer columns first: of equal scores the first wins."""
MOST_VOXELS = 500
"""Voxels of a subject whose scores are averaged; more change a mean over a sample of them little."""

BandWeights = Mapping[TemporalPart, float]
SubjectWeights = Mapping[str, Mapping[str, BandWeights]]
"""Weights of the parts, by subject and band."""


def choose_weights(
    bands: Mapping[str, Band],
    Ys: Mapping[str, Array],
    groups: npt.ArrayLike,
    fit: npt.ArrayLike,
    score: npt.ArrayLike,
    config: ProbeConfig | None = None,
    *,
    cache: ProbeCache | None = None,
) -> dict[str, dict[str, BandWeights]]:
    """Choose the weights of all bands whose parts are still to be weighed, for every subject on its own.

    Only responses of fitted rows are looked at, those of at most MOST_VOXELS voxels per subject, the same ones whenever
    a subject has so many voxels. It costs one search of len(MIXTURES) gammas per band. Give the result to `run_probes`
    where voxels of a subject are later probed apart, or where many layers can share what was chosen for one. Parameters
    are as for `run_probes`.

    Returns
    -------
    dict of subject to dict of band to weights
        Without bands that have nothing to choose.
    """
    settings = config or ProbeConfig()
    whole, _ = gather_bands(bands, settings.band_names)
    open_bands = {name: X for name, X in whole.items() if isinstance(X, TemporalBand) and X.is_open}
    if not open_bands:
        return {name: {} for name in Ys}
    rows = prepare_rows(groups, fit, score, settings.skip_trs, len(np.asarray(groups)))
    sampled = [_sample(np.asarray(Y), rows, settings.seed) for Y in Ys.values()]
    ridges = ProbeFit(rows, prepare_targets(sampled, rows), settings, cache)
    edges = np.cumsum([0, *(Y.shape[1] for Y in sampled)])
    found = {band: mixture_scores(ridges, X) for band, X in open_bands.items()}
    chosen: dict[str, dict[str, BandWeights]] = {}
    for subject, (first, last) in zip(Ys, pairwise(edges), strict=True):
        own = (ridges.targets.columns >= first) & (ridges.targets.columns < last)
        chosen[subject] = {
            band: dict(mixtures[int(np.argmax(scores[:, own].sum(axis=1)))])
            for band, (mixtures, scores) in found.items()
        }
    return chosen


def mixture_scores(ridges: ProbeFit, band: TemporalBand) -> tuple[Sequence[BandWeights], FloatArray]:
    """The mixtures that a band can have, and their cross-validated scores, (n_mixtures, n_good).

    Parts as bands of one banded ridge, with mixtures as gammas, are the same ridge as columns times root weights: so
    they are prepared and decomposed once, and remembered in the cache of the probe.
    """
    mixtures = [mixture for mixture in MIXTURES if set(mixture) <= set(band.parts)]
    prepared = ridges.prepare({name: band.only(name) for name in band.parts})
    pool = np.array([[mixture.get(part, 0.0) for part in band.parts] for mixture in mixtures])
    return mixtures, ridges.search(ridges.open(prepared), pool, prepared.keys).scores


def weighed(bands: Mapping[str, Band], weights: Mapping[str, BandWeights]) -> dict[str, Band]:
    """The bands with what was chosen for them, without parts of no weight; a band of delays alone as a plain array.

    A sub-band gets the weights of its band.

    Raises
    ------
    ValueError
        If weights are missing for a band.
    """
    return {name: _weighed(name, X, weights) for name, X in bands.items()}


def _weighed(name: str, X: Band, weights: Mapping[str, BandWeights]) -> Band:
    if not isinstance(X, TemporalBand):
        return X
    if X.is_open:
        own = weights.get(name.split("/")[0])
        if own is None:
            raise ValueError(
                f"weights for the temporal parts of band {name!r} are missing; there are some for"
                f" {', '.join(weights) or 'none'}. Take them from `choose_weights` with the same bands."
            )
        X = replace(X, weights=own)
    used = X.used_parts()
    return used.parts["fir"] if list(used.parts) == ["fir"] and not used.is_delayed else used


def _sample(Y: Array, rows: ProbeRows, seed: int) -> Array:
    """At most MOST_VOXELS voxels, drawn anew where none of those drawn first can be used."""
    order = np.random.default_rng(seed).permutation(Y.shape[1])
    for voxels in _stretches(order):
        taken = Y[:, np.sort(voxels)]
        used = taken[rows.used]
        if (np.isfinite(used).all(axis=0) & (np.ptp(used, axis=0) > 0)).any():
            return taken
    return Y


def _stretches(order: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, order.size, MOST_VOXELS):
        yield order[start : start + MOST_VOXELS]
