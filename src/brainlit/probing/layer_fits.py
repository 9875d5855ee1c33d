"""The encoding models of one probe: fitted here, or shared out over processes by voxels and put together again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.probe_fit import narrow_start
from brainlit.encoding.result import ProbeResult, usable_voxels
from brainlit.probing.budget import Thinning, sample_voxels
from brainlit.probing.inputs import ProbeData
from brainlit.probing.process_group import Meeting

if TYPE_CHECKING:
    from brainlit.encoding.config import ProbeConfig
    from brainlit.encoding.probe_fit import ProbeCache, WarmStart
    from brainlit.encoding.result import ProbeResult


Features = Mapping[int, npt.NDArray[np.float32]]
Results = dict[str, "ProbeResult"]
IntArray = npt.NDArray[np.int64]


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
            return self.start if columns is None else narrow_start(self.start, columns)
        return self.start if columns is not None and np.array_equal(columns, self.columns) else None


@dataclass
class Fits:
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
        regions: Mapping[str, Mapping[str, npt.NDArray[np.bool_]]],
        features: Features,
        chosen: int,
        thinning: Thinning | None,
        warm: bool,
        meeting: Meeting,
        bar: Any,
    ) -> Iterator[tuple[int, Results]]:
        """Each layer with the results of all subjects on all their voxels, the compared one first.

        With several processes each fits its share of the voxels and leaves it in the meeting's folder; the first puts
        the shares together once all are there, and the others get nothing.
        """
        config = self.config if thinning is None else replace(self.config, n_gammas=dict(thinning.n_gammas))
        columns = self._columns(data, regions, thinning, meeting.n_ranks > 1)
        own = {
            name: None if some is None else np.array_split(some, meeting.n_ranks)[meeting.rank]
            for name, some in columns.items()
        }
        layers = [chosen, *(layer for layer in features if layer != chosen)]
        for layer in layers:
            found = self._fit(data, own, features[layer], layer == chosen, config, warm)
            bar.update()
            if meeting.n_ranks == 1:
                yield layer, _placed(found, data, columns, thinning)
            for name, result in found.items() if meeting.n_ranks > 1 else ():
                result.save(meeting.path(_part(layer, name), meeting.rank), all_predictions=True)
        if meeting.n_ranks > 1:
            yield from self._joined(layers, data, columns, thinning, meeting)

    def read_start(self, subject: str, path: Path) -> None:
        """Take the start of a subject from the file of an earlier probe, if it says what its voxels chose."""
        from brainlit.encoding.probe_fit import WarmStart
        from brainlit.results.record import load_record

        result, thinned = ProbeResult.load(path), load_record(path).facts.get("thinned")
        n_gammas = self.config.n_gammas if thinned is None else Thinning.from_json(thinned).n_gammas
        if result.gamma_ranking:
            self.starts[subject] = Start(WarmStart.from_result(result), None, dict(n_gammas))

    def _fit(
        self,
        data: Mapping[str, ProbeData],
        columns: Mapping[str, IntArray | None],
        features: npt.NDArray[np.float32],
        compared: bool,
        config: ProbeConfig,
        warm: bool,
    ) -> Results:
        """The results of one layer for the given voxels; subjects of whom there are none are left out."""
        from brainlit.encoding.probe import run_probes

        started = time.monotonic()
        some = {name: own for name, own in data.items() if _n_voxels(columns[name]) != 0}
        if not some:
            return {}
        first = next(iter(some.values()))
        Ys = {name: _of(own.responses, columns[name]) for name, own in some.items()}
        roles = (Ys, first.groups, first.fit, first.score, config)
        if not compared:
            results = run_probes({"backbone": features[first.rows]}, *roles)
            self.layers_s += time.monotonic() - started
            return results
        bands = {"backbone": features[first.rows], **first.stimulus}
        ceilings = {n: None if own.ceiling is None else _of(own.ceiling, columns[n]) for n, own in some.items()}
        starts = self._starts(columns, config) if warm else {}
        results = run_probes(bands, *roles, ceilings=ceilings, cache=self.cache, warm=starts)
        self._remember(results, columns, config)
        self.partition_s += time.monotonic() - started
        return results

    def _joined(
        self,
        layers: Sequence[int],
        data: Mapping[str, ProbeData],
        columns: Mapping[str, IntArray | None],
        thinning: Thinning | None,
        meeting: Meeting,
    ) -> Iterator[tuple[int, Results]]:

        mark = f"fitted-{'-'.join(data)}"
        meeting.put(mark)
        if not meeting.is_first:
            return
        meeting.wait(mark, range(meeting.n_ranks))
        for layer in layers:
            joined = {}
            for name in data:
                paths = [meeting.path(_part(layer, name), rank) for rank in range(meeting.n_ranks)]
                parts = [path for path in paths if path.exists()]
                joined[name] = ProbeResult.join([ProbeResult.load(path) for path in parts])
                for path in parts:
                    path.unlink()
            yield layer, _placed(joined, data, columns, thinning)

    def _columns(
        self,
        data: Mapping[str, ProbeData],
        regions: Mapping[str, Mapping[str, npt.NDArray[np.bool_]]],
        thinning: Thinning | None,
        shared: bool,
    ) -> dict[str, IntArray | None]:
        """Which voxels are probed, by subject; None where all are, here."""
        share = 1.0 if thinning is None else thinning.voxel_share
        if share >= 1.0 and not shared:
            return dict.fromkeys(data)
        return {
            name: sample_voxels(regions[name], usable_voxels(own.responses, own.fit), share, self.config.seed)
            for name, own in data.items()
        }

    def _starts(self, columns: Mapping[str, IntArray | None], config: ProbeConfig) -> dict[str, WarmStart]:
        found = {n: self.starts[n].of(own, config.n_gammas) for n, own in columns.items() if n in self.starts}
        return {name: start for name, start in found.items() if start is not None}

    def _remember(self, results: Results, columns: Mapping[str, IntArray | None], config: ProbeConfig) -> None:
        from brainlit.encoding.probe_fit import WarmStart

        for name, result in results.items():
            self.starts[name] = Start(WarmStart.from_result(result), columns[name], dict(config.n_gammas))


def _placed(
    results: Results,
    data: Mapping[str, ProbeData],
    columns: Mapping[str, IntArray | None],
    thinning: Thinning | None,
) -> Results:
    """Results on all voxels of their subjects."""
    placed = {}
    for name, result in results.items():
        own, n_voxels, n_left_out = columns[name], data[name].responses.shape[1], 0
        if own is not None and thinning is not None and thinning.voxel_share < 1.0:
            n_left_out = int(usable_voxels(data[name].responses, data[name].fit).sum()) - len(own)
        placed[name] = result if own is None else result.place(own, n_voxels, n_left_out)
    return placed


def _of(values: npt.NDArray[Any], columns: IntArray | None) -> npt.NDArray[Any]:
    return values if columns is None else values[..., columns]


def _n_voxels(columns: IntArray | None) -> int | None:
    return None if columns is None else len(columns)


def _part(layer: int, subject: str) -> str:
    return f"part-{subject}-{layer}"
