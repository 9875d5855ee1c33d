"""Banded-ridge probes of the backbone before, during and after training."""

from __future__ import annotations

import time
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from brainlit.callbacks import held_out
from brainlit.callbacks.probe_engine import ProbeEngine
from brainlit.callbacks.probe_log import log_figures, log_scores, summary_line
from brainlit.callbacks.state import borrowed_state
from brainlit.datamodules import StoryDataModule
from brainlit.results.record import ProbeRecord, load_record, record_path
from brainlit.results.tables import write_table


class BandedRidgeProbe(pl.Callback):
    """Ask, with voxelwise encoding models, what the backbone says about the brain, and whether it is low-level.

    For every subject (also those who are held out from tuning), encoding models are fitted on the stories of the role
    `fit` and scored on those of `score`; none of them is used for tuning. One layer (fixed beforehand) is compared with
    the low-level and semantic features of the store; every layer by itself gives the layer curve. Each probe leaves one
    HDF5 file per subject and one table in <run>/probes, and scalars probe/<region>/layer-<k>/<metric> (mean over
    subjects) in every logger.

    Model modes, random states and himalaya's backend are given back, also when a probe fails. A failing probe stops
    the run; a failing picture is logged. Only the first process of several probes, while the others wait at their next
    collective: give the strategy a timeout longer than a probe (`DDPStrategy(timeout=…)`).

    Parameters
    ----------
    every_n_epochs : int
        Also probe after every so many epochs; 0 probes only before and after training.
    layers : 'all' or list of int
        Hidden states of the layer curve; 0 is the input of the first layer, negative ones count from the end.
    partition_layer : int
        Hidden state that is compared with the other bands.
    delays_trs : tuple of int
        Delays of the encoding models, in TRs.
    n_gammas : dict of int to int, optional
        Mixtures tried per number of bands; the default of `encoding.ProbeConfig`.
    n_folds : int
        Folds of the ridge's cross-validation over the fit stories.
    skip_trs : int
        First rows of each span, neither fitted nor scored.
    solver : str
        'auto', 'primal' or 'himalaya' (the reference).
    max_seconds : float, optional
        Time for the probes between before and after; once it is spent they are left out. Before and after always run.
    seed : int
        Of the mixtures and of the bootstrap.
    block_trs, n_bootstraps : int
        Block bootstrap of the intervals.
    figures : bool
        Draw the figures after each probe, into <run>/figures and W&B.
    headline_region : str, optional
        Region that the headline is about; by default 'semantic' where there is one, else all voxels.
    run_dir : str, optional
        The run directory; the trainer's default_root_dir where not given.
    data : StoryDataModule, optional
        Another data set to probe on, with its own windows, subjects and stories of the roles fit and score (its role
        tune is not used); by default the one that is tuned on.
    name : str, optional
        What to call it: records go to <run>/probes/<name>/, scalars are probe/<name>/<region>/layer-<k>/<metric>, and
        the report has a section for it. Must be given with `data`, and only then.
    """

    def __init__(
        self,
        every_n_epochs: int = 0,
        layers: Literal["all"] | list[int] = "all",
        partition_layer: int = -1,
        delays_trs: tuple[int, ...] = (1, 2, 3, 4),
        n_gammas: dict[int, int] | None = None,
        n_folds: int = 4,
        skip_trs: int = 5,
        solver: Literal["auto", "primal", "himalaya"] = "auto",
        max_seconds: float | None = None,
        seed: int = 0,
        block_trs: int = 10,
        n_bootstraps: int = 1000,
        figures: bool = True,
        headline_region: str | None = None,
        run_dir: str | None = None,
        data: StoryDataModule | None = None,
        name: str | None = None,
    ) -> None:
        from brainlit.encoding.probe import ProbeConfig

        super().__init__()
        if every_n_epochs < 0:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; give 0 (before and after only) or more.")
        held_out.check_name(data, name)
        self.data, self.name = data, name
        mixtures = ProbeConfig().n_gammas if n_gammas is None else dict(n_gammas)
        config = ProbeConfig(
            delays_trs=tuple(delays_trs),
            n_folds=n_folds,
            skip_trs=skip_trs,
            solver=solver,
            seed=seed,
            n_gammas=mixtures,
        )
        bootstrap = {"block_trs": block_trs, "n_bootstraps": n_bootstraps, "seed": seed}
        self.engine = ProbeEngine(config, layers, partition_layer, bootstrap, with_window=data is not None)
        self.every_n_epochs, self.max_seconds = every_n_epochs, max_seconds
        self.figures, self.headline_region, self.run_dir = figures, headline_region, run_dir
        self._seconds_between = 0.0
        self._probed_after = False

    # --- Lightning hooks ---

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Prepare the other data set, if there is one, where it is probed."""
        if self.data is not None and stage == "fit" and trainer.is_global_zero:
            with borrowed_state(pl_module):
                held_out.set_up(self, trainer, pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe before training; a resumed run reads what it found then."""
        self._seconds_between, self._probed_after = 0.0, False
        if trainer.is_global_zero:
            self.probe(trainer, pl_module, stage="before", epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe every so many epochs, the last one excepted (that is `after`)."""
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs or trainer.should_stop
        if not trainer.is_global_zero or not self.every_n_epochs or epoch % self.every_n_epochs or last:
            return
        if self.max_seconds is not None and self._seconds_between > self.max_seconds:
            rank_zero_info(f"probe after epoch {epoch} left out: max_seconds ({self.max_seconds:g}) is spent.")
            return
        started = time.monotonic()
        self.probe(trainer, pl_module, stage="during", epoch=epoch)
        self._seconds_between += time.monotonic() - started

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe after training."""
        if trainer.is_global_zero and trainer.global_step > 0:
            self.probe(trainer, pl_module, stage="after", epoch=max(trainer.current_epoch, 1))
            self._probed_after = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe after training in a run that was killed between its last epoch and its last probe."""
        if trainer.is_global_zero and trainer.global_step > 0 and not self._probed_after:
            device = pl_module.device
            pl_module.to(trainer.strategy.root_device)
            try:
                self.on_train_end(trainer, pl_module)
            finally:
                pl_module.to(device)

    # --- The probe ---

    def probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str, epoch: int) -> list[ProbeRecord]:
        """Probe all subjects now: read or compute their records, write the table, log.

        Raises
        ------
        RuntimeError
            If a resumed run lacks its probe from before training.
        ValueError
            If there is nothing to fit or score on.
        """
        tuned: Any = trainer.datamodule  # type: ignore[attr-defined]
        datamodule: Any = tuned if self.data is None else self.data
        folder = self._probes_folder(trainer)
        weights = weights_hash(pl_module)
        subjects = list(datamodule.probed_subjects)
        found = {name: self._earlier(datamodule, folder, name, epoch, weights, trainer.ckpt_path) for name in subjects}
        missing = [name for name in subjects if found[name] is None]
        if missing:
            when: dict[str, Any] = {"stage": stage, "epoch": epoch, "step": trainer.global_step}
            facts = {"headline_region": self.headline_region, "weights": weights}
            if self.data is not None:
                facts |= held_out.more_facts(self.data, tuned.roles.stories("tune"))
            for record in self.engine.measure(pl_module, datamodule, missing, folder, facts=facts, **when):
                found[record.subject] = record
        records = [record for record in found.values() if record is not None]
        write_table(records, folder / f"epoch-{epoch:03d}.csv")
        log_scores(trainer, records, self.name)
        rank_zero_info(summary_line(records, self.headline_region, reread=not missing, name=self.name))
        if self.figures and self.name is None:
            log_figures(trainer, folder.parent)
        return records

    def _earlier(
        self, datamodule: Any, folder: Path, subject: str, epoch: int, weights: str, resumed_from: Any
    ) -> ProbeRecord | None:
        """The record from before training, if an earlier process of this run left it; None if it must be computed."""
        if epoch > 0:
            return None
        path = record_path(folder, subject, epoch)
        if not path.exists():
            if resumed_from is None:
                return None
            raise RuntimeError(
                f"the run is resumed from {resumed_from}, but its probe from before training, {path}, is missing, and"
                " the weights of that time are gone. Start a new run, or put the file back."
            )
        record = load_record(path)
        expected = self.engine.fingerprint(datamodule, subject)
        if record.fingerprint == expected and (resumed_from is not None or record.facts.get("weights") == weights):
            return record
        if resumed_from is None:
            return None
        raise RuntimeError(
            f"{path} was made with other probe settings or data (fingerprint {record.fingerprint}, now {expected}), so"
            " before and after would not compare. Resume with the settings that the run began with."
        )

    def _probes_folder(self, trainer: pl.Trainer) -> Path:
        return Path(self.run_dir or trainer.default_root_dir) / "probes" / (self.name or "")


def weights_hash(module: pl.LightningModule) -> str:
    """Short hash of the backbone's weights (of all weights, where there is no backbone)."""
    digest = blake2b(digest_size=10)
    part: Any = getattr(module, "backbone", module)
    for name, value in part.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
