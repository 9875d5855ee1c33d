"""The per-voxel numbers of a run's probes by name, what each of them is, and which probes there are of a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.encoding.arrays import FloatArray
from brainlit.guard import file_guard
from brainlit.hdf5 import members, refuse_outside
from brainlit.results.record import ProbeRecord, load_record, record_files
from brainlit.results.run_directory import RunDirectory
from brainlit.results.scores import FORMULAS

STAGES = ("before", "after", "difference")
ALIGNMENT = "r_backbone"
CEILING = "ceiling"
"""Says something of the responses alone: it is the same before and after."""
_TABLES = {
    "r_by_model": "r",
    "r2_by_model": "r2",
    "partition": "partition",
    "split": "split",
    "impact": "impact",
    "r_rest": "r_rest",
    "sub_split": "sub_split",
    "sub_unique": "sub_unique",
}
"""Tables of `ProbeResult` and what their measures' names begin with."""
_OLD_FORMULAS = ("impact", "r_rest")
_PEARSON = "Pearson r of measured and predicted response over the scored rows, both without their mean per story"
_FORMULAS = {
    "r": f"{_PEARSON}; predicted from {{of}}",
    "r2": "1 - SSE / SST over the scored rows, both without their mean per story; predicted from {of}",
    CEILING: "highest r that any model could reach in the voxel, from the repeats of the scored stories",
    "low_level_share": "(R2_B + R2_L - R2_BL) / R2_B; no number where R2_B is not above 0",
    "r2_shared_low_level": "R2_B + R2_L - R2_BL",
    "impact": "100 (r_B - r_B|L) / r_B; r_B|L {of}",
    "r_rest": "r_B|L {of}",
}
"""Of one voxel, where `scores.FORMULAS` speaks of a region."""
_WAYS = {
    "residual_lag0": "after low-level features were regressed out of the backbone's features at lag 0",
    "residual_lags": "after low-level features were regressed out over lags -k..k, beyond what they predict themselves",
    "banded_ridge": "of what backbone and low-level features predict together beyond low-level features alone",
}


class MapsError(ValueError):
    """Maps that cannot be written, or not as asked; the message says what is missing."""


def formula_of(measure: str) -> str:
    """How the number of one voxel comes about.

    >>> formula_of("r_backbone+low_level").partition("; ")[2]
    'predicted from backbone + low_level'
    """
    families = sorted(("low_level_share", "r2_shared_low_level", CEILING, *_TABLES.values()), key=len, reverse=True)
    family = next(one for one in families if measure == one or measure.startswith(f"{one}_"))
    of = measure.removeprefix(f"{family}_")
    of_region = FORMULAS.get(family, "").replace(", mean over voxels", "").replace("mean over voxels; ", "")
    return _FORMULAS.get(family, of_region).format(of=_WAYS.get(of, of.replace("+", " + ")))


class ProbeFile:
    """The per-voxel numbers of one probe of one subject, read one at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.record = path, load_record(path)

    @cached_property
    def measures(self) -> dict[str, Callable[[], FloatArray]]:
        """How to read each number of the compared layer, by its name."""
        with self._open() as file:
            old = int(file.attrs.get("version", 0)) < 2
            found = {
                f"{prefix}_{key.replace(':', '.')}": (table, key)
                for table, prefix in _TABLES.items()
                if not (old and prefix in _OLD_FORMULAS)
                for key, _ in members(file.get(table, {}))
            }
        bands = [name for name in found if name.startswith("r2_") and "+" not in name]
        if len(bands) == 1:  # nothing is parted or split where there is nothing beside the backbone
            found = {name: place for name, place in found.items() if name.startswith(("r_", "r2_"))}
        how: dict[str, Callable[[], FloatArray]] = {
            name: lambda place=place: self._read(*place)  # type: ignore[misc]
            for name, place in found.items()
        }
        if self.record.ceiling is not None:
            how[CEILING] = lambda: np.asarray(self.record.ceiling, dtype=np.float64)
        if "r2_backbone+low_level" in how:
            how |= {"r2_shared_low_level": self._shared, "low_level_share": self._share}
        return how

    def layers(self, asked: Sequence[int] | str) -> list[int]:
        """The layers that are asked for, from 0; of another than the compared one only r is kept."""
        known = sorted({self.record.layer, *self.record.r_by_layer})
        if not asked:
            return [self.record.layer]
        chosen = known if asked == "all" else [k + known[-1] + 1 if k < 0 else k for k in map(int, asked)]
        missing = [k for k in chosen if k not in known]
        if missing or (asked == "all" and not self.record.r_by_layer):
            raise MapsError(
                f"{self.path} keeps the voxels of layer {', '.join(map(str, known))} alone"
                f"{f', not of {missing[0]}' if missing else ''}: others were not probed, or it was written when records"
                " kept those of the compared layer only. Probe again: brainlit probe RUN."
            )
        return chosen

    def read(self, measure: str, layers: Sequence[int]) -> FloatArray:
        """One measure, shape (n_layers, n_voxels)."""
        if measure == ALIGNMENT:
            of_layer = {**self.record.r_by_layer, self.record.layer: self.record.r}
            return np.stack([np.asarray(of_layer[layer], dtype=np.float64) for layer in layers])
        values = self.measures[measure]()
        return np.where(np.isfinite(values), values, np.nan)[None]

    def _shared(self) -> FloatArray:
        r2 = {model: self._read("r2_by_model", model) for model in ("backbone", "low_level", "backbone+low_level")}
        return np.asarray(r2["backbone"] + r2["low_level"] - r2["backbone+low_level"])

    def _share(self) -> FloatArray:
        whole = self._read("r2_by_model", "backbone")
        return np.divide(self._shared(), whole, out=np.full_like(whole, np.nan), where=whole > 0)

    def _read(self, table: str, key: str) -> FloatArray:
        with self._open() as file:
            return np.asarray(file[table][key], dtype=np.float64)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        cure = "Probe again, or fetch the file again from where it is whole."
        with file_guard(self.path, "a probe", cure), h5py.File(self.path, "r") as file:
            refuse_outside(file)
            yield file


@dataclass(frozen=True)
class SubjectProbes:
    """A subject's probe before and after tuning; one of them where there is one."""

    before: ProbeFile | None
    after: ProbeFile | None

    @property
    def last(self) -> ProbeFile:
        """After tuning, where there is that."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def measures(self) -> list[str]:
        """Numbers that all probes hold."""
        others = [probe.measures for probe in (self.before, self.after) if probe is not None]
        return [name for name in self.last.measures if all(name in own for own in others)]

    @property
    def stages(self) -> list[str]:
        """Stages that there are numbers of; a difference needs two probes that were made alike."""
        pair = [probe.record for probe in (self.before, self.after) if probe is not None]
        alike = len(pair) == 2 and pair[0].fingerprint == pair[1].fingerprint
        return [stage for stage, there in zip(STAGES, (self.before, self.after, alike), strict=True) if there]

    def read(self, measure: str, stage: str, layers: Sequence[int]) -> FloatArray:
        """One measure at one stage, shape (n_layers, n_voxels)."""
        if stage == "difference":
            return self.read(measure, "after", layers) - self.read(measure, "before", layers)
        probe = self.before if stage == "before" else self.after
        return (probe or self.last).read(measure, layers)

    def records(self, stage: str) -> list[ProbeRecord]:
        """The records that a stage's numbers come from."""
        probes = {"before": [self.before], "after": [self.after], "difference": [self.before, self.after]}
        return [probe.record for probe in probes.get(stage, [self.last]) if probe is not None]


def find_probes(run: RunDirectory) -> dict[str, SubjectProbes]:
    """The probes of each subject of a run, or of a folder of `brainlit probe`; those during training are not mapped.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found: dict[str, dict[str, ProbeFile]] = {}
    for path in record_files(run.probes):
        probe = ProbeFile(path)
        if probe.record.stage in ("before", "after"):
            found.setdefault(probe.record.subject, {})[probe.record.stage] = probe
    if not found:
        raise FileNotFoundError(
            f"{run.path} holds no probe from before or after training. Probe it: brainlit probe {run.path}."
        )
    return {name: SubjectProbes(own.get("before"), own.get("after")) for name, own in sorted(found.items())}
