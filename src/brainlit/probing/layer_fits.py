"""The encoding models of one probe: fitted here, or shared out over processes by voxels and put together again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.encoding import probe
from brainlit.encoding.arrays import Array, Float32Array, IntArray
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.folds import run_folds
from brainlit.encoding.probe_fit import ProbeCache
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.temporal import Band, TemporalBand
from brainlit.encoding.temporal_choice import SubjectWeights, choose_weights
from brainlit.encoding.warm_start import WarmStart
from brainlit.probing.budget import ProbeScope, sample_voxels
from brainlit.probing.inputs import ProbeData
from brainlit.probing.process_group import ProcessGroup
from brainlit.results.record import load_record

Features = Mapping[int, Float32Array | TemporalBand]
Results = dict[str, ProbeResult]
Columns = Mapping[str, IntArray | None]
"""Voxels by subject; None where all of them are meant."""
Weights = Sequence[SubjectWeights]
"""Of the temporal parts, for every fold; of one fold where fixed rows are fitted and scored."""


def fit_rows(
    data: ProbeData,
    bands: Mapping[str, Band],
    Ys: Mapping[str, Array],
    config: ProbeConfig,
    *,
    ceilings: Mapping[str, npt.ArrayLike | None] | None = None,
    cache: ProbeCache | None = None,
    warm: Mapping[str, WarmStart] | None = None,
    weights: Weights | None = None,
) -> Results:
    """Fit and score what the data say: fixed rows, or fold by fold, where there is no warm start.

    Parameters
    ----------
    data : ProbeData
        Of any of the subjects, who heard the same rows.
    bands : mapping of band to array, or TemporalBand, of the rows of the data
    Ys : mapping of subject to array of shape (n_rows, n_voxels)
    """
    if data.folds:
        return run_folds(bands, Ys, data.folds, config, ceilings=ceilings, cache=cache, weights=weights)
    rows = (data.groups, data.fit, data.score, config)
    own = None if weights is None else weights[0]
    return probe.run_probes(bands, Ys, *rows, ceilings=ceilings, cache=cache, warm=warm, weights=own)


@dataclass
class Start:
    """Where a later search of a subject begins: which voxels it is about (None: all of them) and how it searched."""

    start: WarmStart
    columns: IntArray | None
    n_gammas: Mapping[int, int]

    def of(self, columns: IntArray | None, n_gammas: Mapping[int, int]) -> WarmStart | None:
        """The warm start for these voxels; None if it is about others, or another pool was searched."""
        if dict(n_gammas) != dict(self.n_gammas):
            return None
        if self.columns is None:
            return self.start if columns is None else self.start.narrow(columns)
        return self.start if columns is not None and np.array_equal(columns, self.columns) else None


@dataclass
class LayerFits:
    """Fits the models of subjects who heard the same rows.

    Parameters
    ----------
    config : ProbeConfig
    cache : ProbeCache
    starts : mapping of subject to Start
        Read where a warm start is asked for; the starts of the next probe are written into it.
    partition_s, layers_s : float
        Seconds that the compared layer and the others took in this process.
    """

    config: ProbeConfig
    cache: ProbeCache
    starts: dict[str, Start] = field(default_factory=dict)
    partition_s: float = 0.0
    layers_s: float = 0.0

    def results(
        self,
        data: Mapping[str, ProbeData],
        features: Features,
        compared: int,
        scope: ProbeScope | None,
        warm: bool,
        group: ProcessGroup,
    ) -> Iterator[tuple[int, Results]]:
        """Each layer with the results of all subjects on all their voxels, the compared one first.

        With several processes each fits its share of the voxels; the first puts the shares of a layer together, and the
        others get nothing.
        """
        config = self.config if scope is None else replace(self.config, n_gammas=dict(scope.n_gammas))
        columns = self._columns(data, scope, group.n_ranks > 1)
        own = {
            name: None if chosen is None else np.array_split(chosen, group.n_ranks)[group.rank]
            for name, chosen in columns.items()
        }
        weights = self._weights(data, features[compared], config)
        for layer in [compared, *(layer for layer in features if layer != compared)]:
            found = self._fit(data, own, features[layer], layer == compared, config, warm, weights)
            shares = group.gather(found)
            yield layer, _placed(_joined(shares), data, columns, scope)

    def read_start(self, subject: str, path: Path) -> None:
        """Take the start of a subject from the file of an earlier probe, if it says what its voxels chose."""
        result, value = ProbeResult.load(path), load_record(path).facts.get("thinned")
        n_gammas = self.config.n_gammas if value is None else ProbeScope.from_json(value).n_gammas
        if result.gamma_ranking and result.fold_of_group is None:  # folds search anew
            self.starts[subject] = Start(WarmStart.from_result(result), None, dict(n_gammas))

    def _fit(
        self,
        data: Mapping[str, ProbeData],
        columns: Columns,
        features: Float32Array | TemporalBand,
        compared: bool,
        config: ProbeConfig,
        warm: bool,
        weights: Weights | None,
    ) -> Results:
        """The results of one layer for the given voxels; subjects of whom there are none are left out."""
        started = time.monotonic()
        some = {name: own for name, own in data.items() if (voxels := columns[name]) is None or voxels.size}
        if not some:
            return {}
        first = next(iter(some.values()))
        Ys = {name: _of(own.responses, columns[name]) for name, own in some.items()}
        if not compared:
            alone = replace(config, leave_out_fit=False)
            results = fit_rows(first, {"backbone": features[first.rows]}, Ys, alone, weights=weights)
            self.layers_s += time.monotonic() - started
            return results
        bands = {"backbone": features[first.rows], **first.stimulus}
        ceilings = {n: None if own.ceiling is None else _of(own.ceiling, columns[n]) for n, own in some.items()}
        starts = self._starts(columns, config) if warm else {}
        how = {"cache": self.cache, "warm": starts, "weights": weights}
        results = fit_rows(first, bands, Ys, config, ceilings=ceilings, **how)  # type: ignore[arg-type]
        for name, result in results.items() if not first.folds else ():
            self.starts[name] = Start(WarmStart.from_result(result), columns[name], dict(config.n_gammas))
        self.partition_s += time.monotonic() - started
        return results

    def _weights(
        self, data: Mapping[str, ProbeData], features: Float32Array | TemporalBand, config: ProbeConfig
    ) -> Weights | None:
        """How much each temporal part counts, from all of a subject's voxels, wherever they are fitted.

        The compared layer chooses for all layers, so that their curve differs in nothing but the layer.
        """
        first = next(iter(data.values()))
        bands = {"backbone": features[first.rows], **first.stimulus}
        if not any(isinstance(band, TemporalBand) for band in bands.values()):
            return None
        Ys = {name: own.responses for name, own in data.items()}
        if not first.folds:
            return [choose_weights(bands, Ys, first.groups, first.fit, first.score, config, cache=self.cache)]
        return [
            choose_weights(
                {name: X[fold.rows] for name, X in bands.items()},
                {name: Y[fold.rows] for name, Y in Ys.items()},
                *(fold.groups, fold.fit, fold.score, config),
                cache=self.cache,
            )
            for fold in first.folds
        ]

    def _columns(self, data: Mapping[str, ProbeData], scope: ProbeScope | None, shared: bool) -> Columns:
        """Which voxels are probed, by subject; None where all are, here."""
        share = 1.0 if scope is None else scope.voxel_share
        if share >= 1.0 and not shared:
            return dict.fromkeys(data)
        return {name: sample_voxels(own.regions, own.usable, share, self.config.seed) for name, own in data.items()}

    def _starts(self, columns: Columns, config: ProbeConfig) -> dict[str, WarmStart]:
        found = {n: self.starts[n].of(own, config.n_gammas) for n, own in columns.items() if n in self.starts}
        return {name: start for name, start in found.items() if start is not None}


def _joined(shares: list[Results]) -> Results:
    """The results of each subject from the shares of all processes; in one that has no voxels it is missing."""
    if len(shares) == 1:
        return shares[0]
    names = dict.fromkeys(name for share in shares for name in share)
    return {name: ProbeResult.join([share[name] for share in shares if name in share]) for name in names}


def _placed(results: Results, data: Mapping[str, ProbeData], columns: Columns, scope: ProbeScope | None) -> Results:
    """Results on all voxels of their subjects."""
    placed = {}
    for name, result in results.items():
        own, n_voxels, n_left_out = columns[name], data[name].responses.shape[1], 0
        if own is not None and scope is not None and scope.voxel_share < 1.0:
            n_left_out = int(data[name].usable.sum()) - len(own)
        placed[name] = result if own is None else result.place(own, n_voxels, n_left_out)
    return placed


def _of(values: Array, columns: IntArray | None) -> Array:
    return values if columns is None else values[..., columns]
