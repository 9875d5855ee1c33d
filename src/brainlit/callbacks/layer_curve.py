"""Alignment over layers as training goes on: every layer alone, at chosen epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl

from brainlit.callbacks.probe import DEFAULT_PROBE
from brainlit.encoding.bootstrap import BLOCK_TRS
from brainlit.encoding.config import ProbeConfig
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.inputs import borrowed_state, datamodule_of, probed
from brainlit.probing.layer_scores import LayerScore, score_layers
from brainlit.probing.plan import refuse_scored_monitors
from brainlit.probing.process_group import ProcessGroup
from brainlit.results.layer_curve import TABLE_FILE, CurveRow, read_curve, write_curve


class LayerCurve(pl.Callback):
    """Ask at chosen epochs how well each layer by itself predicts the scored stories: quicker than a whole probe.

    One ridge per layer, without other bands, partition or ceilings, for all probed subjects. Rows go into
    <run>/layer_curve.csv, scalars curve/<region>/layer-<k> into every logger, and the report draws layers over epochs.
    These numbers are of scored stories: nothing may be chosen by them (`ChooseCheckpoint` is for that).

    Several processes take layers in turn.

    Parameters
    ----------
    every_n_epochs : int
        After how many epochs; the time before training and the end are always there. 0 takes only `epochs`.
    epochs : list of int, optional
        Further epochs after which to do so (1 is the first).
    layers : 'all' or list of int
        Hidden states; 0 is the input of the first layer, negative ones count from the end.
    probe : ProbeConfig
        How the encoding models are fitted, as in BandedRidgeProbe.
    block_trs : int
        Rows per block of the bootstrap over time that gives the intervals.
    n_bootstraps : int
        Draws of that bootstrap.
    seed : int
        Seed of that bootstrap.
    run_dir : str, optional
        The run directory; the trainer's default_root_dir where not given.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        epochs: list[int] | None = None,
        layers: Literal["all"] | list[int] = "all",
        probe: ProbeConfig = DEFAULT_PROBE,
        block_trs: int = BLOCK_TRS,
        n_bootstraps: int = 200,
        seed: int = 0,
        run_dir: str | None = None,
    ) -> None:
        super().__init__()
        if every_n_epochs < 0:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; give 0 (only the epochs listed) or more.")
        bootstrap = {"block_trs": block_trs, "n_bootstraps": n_bootstraps, "seed": seed}
        self.engine = ProbeEngine(probe, layers, layers[0] if layers != "all" and layers else -1, bootstrap)
        self.every_n_epochs, self.epochs, self.run_dir = every_n_epochs, tuple(epochs or ()), run_dir
        self._processes = ProcessGroup()
        self._drawn_epoch = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse checkpoints chosen on scored stories."""
        if stage == "fit":
            refuse_scored_monitors(trainer)
            self.engine.progress = trainer.progress_bar_callback is not None
            self._processes = ProcessGroup.of_trainer(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The curve before training; a resumed run has it already."""
        self._drawn_epoch = -1
        if trainer.ckpt_path is None:
            self.draw(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The curve of the epochs that were asked for."""
        epoch = trainer.current_epoch + 1
        if epoch in self.epochs or (self.every_n_epochs and epoch % self.every_n_epochs == 0):
            self.draw(trainer, pl_module, epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The curve after training, unless it was just drawn."""
        if trainer.current_epoch > 0 and self._drawn_epoch != trainer.current_epoch:
            self.draw(trainer, pl_module, trainer.current_epoch)

    def draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> list[LayerScore]:
        """Measure now: log, and write the table with the rows of this epoch; to be called in all processes."""
        self._drawn_epoch = epoch
        datamodule = datamodule_of(trainer)
        with borrowed_state(pl_module), self._processes as group:
            features, _ = self.engine.features(probed(pl_module), datamodule)
            scores = score_layers(self.engine, features, datamodule, list(datamodule.probed_subjects), group)
            if group.is_first:
                self._write(trainer, scores, epoch)
        return scores

    def _write(self, trainer: pl.Trainer, scores: list[LayerScore], epoch: int) -> None:
        path = Path(self.run_dir or trainer.default_root_dir) / TABLE_FILE
        rows = [row for row in read_curve(path) if row.epoch < epoch]
        for own in scores:
            low, high = own.score.interval or (None, None)
            place = (epoch, trainer.global_step, own.layer, own.region)
            rows.append(CurveRow(*place, own.score.value, low, high, own.n_voxels))
        write_curve(path, rows)
        values = {
            f"curve/{score.region.replace(' ', '_')}/layer-{score.layer}": score.score.value
            for score in scores
            if math.isfinite(score.score.value)
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
