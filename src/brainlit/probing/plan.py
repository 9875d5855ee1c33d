"""What is decided before a probe: how much of it there is time for, and what may not be chosen by it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt

from brainlit.encoding.result import usable_voxels
from brainlit.probing.budget import Costs, Thinning, pilot
from brainlit.probing.engine import Features, ProbeEngine
from brainlit.probing.inputs import ProbeData
from brainlit.results.record import load_record
from brainlit.splits import LeakError

SCORED = ("probe/", "curve/", "test/")
"""What the names of numbers from scored stories begin with."""


@dataclass(frozen=True)
class Plan:
    """A probe that is about to be made.

    Parameters
    ----------
    features : mapping of layer to array
    chosen : int
        The layer that is compared with the other bands.
    features_s : float
        Seconds that they took.
    n_ranks : int
        Processes that share the voxels.
    """

    engine: ProbeEngine
    datamodule: Any
    subjects: Sequence[str]
    features: Features
    chosen: int
    features_s: float
    n_ranks: int = 1

    @property
    def whole(self) -> Thinning:
        """All that was asked for."""
        return Thinning(tuple(self.features), 1.0, dict(self.engine.config.n_gammas))

    def costs(self) -> Costs:
        """What it will take, from fits of the backbone alone for a few voxels of the first subject."""
        from brainlit.encoding.probe import run_probes

        engine, config = self.engine, self.engine.config
        groups = engine.who_heard_the_same(self.datamodule, self.subjects)
        data = engine.subject_data(self.datamodule, groups[0][0])
        X, good = self.features[self.chosen][data.rows], np.flatnonzero(_usable(data))

        def fit(n_voxels: int) -> float:
            started = time.monotonic()
            Y = data.responses[:, good[:n_voxels]]
            run_probes({"backbone": X}, {"": Y}, data.groups, data.fit, data.score, config)
            return time.monotonic() - started

        fixed_s, voxel_s = pilot(fit, len(good))
        n_delays, n_most = len(config.delays_trs), int(data.fit.sum())
        bands = {"backbone": X, **data.stimulus}
        sizes = {band: min(n_delays * values.shape[1], n_most) for band, values in bands.items()}
        n_voxels = sum(int(_usable(engine.subject_data(self.datamodule, name)).sum()) for name in self.subjects)
        n_own = -(-n_voxels // self.n_ranks)
        return Costs(self.features_s, fixed_s, voxel_s, n_own, sizes, len(groups), n_folds=config.n_folds)

    def corrected(self, costs: Costs, thinning: Thinning | None) -> Costs:
        """Costs after the probe, which took what the engine's fits say."""
        fits = self.engine.fits
        return costs.corrected(thinning or self.whole, self.features_s, fits.partition_s, fits.layers_s)


def thinned_before(folder: Path) -> Thinning | None:
    """What the probe before training left out: the others compare with it; None if that was nothing."""
    for path in sorted(folder.glob("*/epoch-000.h5")):
        value = load_record(path).facts.get("thinned")
        if value is not None:
            return Thinning.from_json(value)
    return None


def refuse_scored_monitors(trainer: pl.Trainer) -> None:
    """No checkpoint is kept, and no training stopped, by what the scored stories say.

    Raises
    ------
    LeakError
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith(SCORED):
            raise LeakError(
                f"{type(callback).__name__} monitors {monitor!r}, which is of the stories that are scored: what it"
                " chooses would look better than it is. Monitor val/loss, or add the callback ChooseCheckpoint, which"
                " goes by the stories of the role 'choose'."
            )


def _usable(data: ProbeData) -> npt.NDArray[np.bool_]:
    return usable_voxels(data.responses, data.fit)
