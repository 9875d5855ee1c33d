"""What is decided before a probe: how much of it there is time for, and what may not be chosen by it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from brainlit.encoding.mixtures import FEWEST_COLUMNS
from brainlit.encoding.temporal import n_delayed
from brainlit.probing.budget import Costs, ProbeScope, pilot, reduce_scope
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.layer_fits import Features, fit_rows
from brainlit.results.record import load_record
from brainlit.splits import LeakError

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule

log = logging.getLogger(__name__)

SCORED = ("probe/", "curve/", "test/")
"""What the names of numbers from scored stories begin with."""
TOO_LONG = 1.2
"""A probe that takes so many times what there is time for is warned of."""


@dataclass(frozen=True)
class ProbePlan:
    """A probe that is about to be made.

    Parameters
    ----------
    features : mapping of layer to array
    compared : int
        The layer that is compared with the other bands.
    features_s : float
        Seconds that they took.
    n_ranks : int
        Processes that share the voxels.
    """

    engine: ProbeEngine
    datamodule: StoryDataModule
    subjects: Sequence[str]
    features: Features
    compared: int
    features_s: float
    n_ranks: int = 1

    @property
    def whole(self) -> ProbeScope:
        """All that was asked for."""
        return ProbeScope(tuple(self.features), 1.0, dict(self.engine.config.n_gammas))

    def costs(self) -> Costs:
        """What it will take, from fits of the backbone alone for a few voxels of the first subject."""
        engine, config = self.engine, self.engine.config
        groups = engine.who_heard_the_same(self.datamodule, self.subjects)
        data = next(iter(groups[0].values()))
        X, good = self.features[self.compared][data.rows], np.flatnonzero(data.usable)

        def fit(n_voxels: int) -> float:
            started = time.monotonic()
            Y = data.responses[:, good[:n_voxels]]
            fit_rows(data, {"backbone": X}, {"": Y}, config)
            return time.monotonic() - started

        fixed_s, voxel_s = pilot(fit, len(good))
        n_most = int(data.fit.sum())
        bands = {"backbone": X, **data.stimulus}
        sizes = {band: min(n_delayed(values, config.delays_trs), n_most) for band, values in bands.items()}
        n_voxels = sum(int(own.usable.sum()) for together in groups for own in together.values())
        n_own = -(-n_voxels // self.n_ranks)
        is_ours = not config.solver.name.startswith("himalaya")
        coarse = config.mixture_search == "coarse" and is_ours and sum(sizes.values()) >= FEWEST_COLUMNS
        given = self.features_s, fixed_s, voxel_s, n_own, sizes, len(groups)
        return Costs(*given, n_folds=config.n_folds, coarse=coarse)


class TimeLimit:
    """Leaves out what a probe has no time for, and learns from each probe how long they take.

    Parameters
    ----------
    seconds : float, optional
        For each probe; without it nothing is left out, except what the first probe of the run left out.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.costs: Costs | None = None

    def scope(self, plan: ProbePlan, stage: str, folder: Path, begun: bool) -> ProbeScope:
        """What is done of a probe.

        Others follow the probe before training, also the rest of that one where it was `begun` by an earlier process;
        those in between may leave out more of everything but voxels.
        """
        first = scope_before(folder) if begun or stage != "before" else None
        scope = first or plan.whole
        if self.seconds is not None and (stage == "during" or (stage == "before" and not begun)):
            self.costs = self.costs or plan.costs()
            scope = reduce_scope(scope, plan.compared, self.seconds, self.costs, keep_voxels=stage == "during")
        if words := scope.left_out_words(plan.whole):
            rank_zero_info(f"probe {stage} thinned to {words}")
        if self.costs is not None and self.seconds is not None:
            expected_s = self.costs.seconds(scope)
            if expected_s > TOO_LONG * self.seconds:
                text = "the probe %s will take about %.0f s, not %.0f s, thinned or not"
                log.warning(text, stage, expected_s, self.seconds)
        return scope

    def learn(self, plan: ProbePlan, scope: ProbeScope | None) -> None:
        """Set the costs right by what the probe took, as the engine's fits say."""
        if self.costs is not None:
            fits = plan.engine.fits
            took = (plan.features_s, fits.partition_s, fits.layers_s)
            self.costs = self.costs.corrected(scope or plan.whole, *took)


def scope_before(folder: Path) -> ProbeScope | None:
    """What the probe before training did, where it left out something: the others compare with it."""
    for path in sorted(folder.glob("*/epoch-000.h5")):
        value = load_record(path).facts.get("thinned")
        if value is not None:
            return ProbeScope.from_json(value)
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
