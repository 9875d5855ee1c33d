"""Banded-ridge probes of the backbone before, during and after training."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from brainlit.callbacks import held_out
from brainlit.callbacks.probe_log import log_figures, log_scores, summary_line
from brainlit.callbacks.training_bar import show_alignment
from brainlit.datamodules import StoryDataModule
from brainlit.encoding.bootstrap import BLOCK_TRS
from brainlit.encoding.config import ProbeConfig
from brainlit.hints import did_you_mean
from brainlit.probing.engine import ProbeContext, ProbeEngine
from brainlit.probing.inputs import borrowed_state, datamodule_of, probed, weights_hash
from brainlit.probing.plan import ProbePlan, TimeLimit, refuse_scored_monitors
from brainlit.probing.process_group import ProcessGroup
from brainlit.probing.shared import SharedProbe, what_decides
from brainlit.probing.word_rows import tuning_words
from brainlit.results.record import READ_FROM, ProbeRecord, load_record, record_path, tuned_facts, write_table

log = logging.getLogger(__name__)

WarmStarts = Literal["never", "during", "during and after"]
DEFAULT_PROBE = ProbeConfig()


class BandedRidgeProbe(pl.Callback):
    """Ask, with voxelwise encoding models, what the backbone says about the brain, and whether it is low-level.

    For every subject (also those who are held out from tuning), encoding models are fitted on the stories of the role
    `fit` and scored on those of `score`; none of them is used for tuning. One layer (fixed beforehand) is compared with
    the low-level and semantic features of the store; every layer by itself gives the layer curve. Each probe leaves one
    HDF5 file per subject and one table in <run>/probes, and scalars probe/<stage>/<region>/layer-<k>/<metric> (of all
    subjects together) in every logger.

    Model modes, random states and himalaya's backend are given back, also when a probe fails. A failing probe stops
    the run; a failing picture is logged. Several processes share the voxels out among them; a probe may take
    longer than the time-out of their collectives, and one that fails stops all.

    Parameters
    ----------
    every_n_epochs : int
        Also probe after every so many epochs; 0 probes only before and after training.
    layers : 'all' or list of int
        Hidden states of the layer curve; 0 is the input of the first layer, negative ones count from the end.
    partition_layer : int
        Hidden state that is compared with the other bands.
    probe : ProbeConfig
        Delays, alphas, mixtures, folds, solver and all else that decides how encoding models are fitted.
    max_seconds : float, optional
        Time for the probes between before and after; once it is spent they are left out. Before and after always run.
    max_seconds_per_probe : float, optional
        Time for each probe. One that would take longer is thinned: first layers of the curve (the compared one stays,
        the others are spread evenly), then voxels (evenly, in every region, chosen without looking at responses), then
        mixtures. What was left out is in the records and the report. The last probe leaves out what the first did, so
        that they compare; those between keep its voxels.
    warm_start : 'never', 'during' or 'during and after'
        Which probes try, for each voxel, only the three mixtures that were best for it in the probe before. 'after' is
        searched in full by default, as 'before' is: a difference between the two is then none of search.
    block_trs : int
        Rows per block of the bootstrap over time that gives the intervals.
    n_bootstraps : int
        Draws of that bootstrap.
    seed : int
        Seed of that bootstrap; that of the mixtures is the probe's own.
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
        What to call it: records go to <run>/probes/<name>/, scalars are probe/<name>/<stage>/<region>/..., and
        the report has a section for it. Must be given with `data`, and only then.

    Attributes
    ----------
    share_gb : float
        Disk in brainlit's cache, in 10^9 bytes, for probes before training, which runs of the same model, data and
        settings read instead of making them again (see `probing.shared`); 0 makes each anew. `brainlit fit` sets it by
        --run.probe_cache_gb. A probe with `max_seconds_per_probe` is made anew, for it leaves out what the clock says.
    before : str
        Where the probe before training came from, in words; empty where an earlier process of this run made it.
    """

    def __init__(
        self,
        every_n_epochs: int = 0,
        layers: Literal["all"] | list[int] = "all",
        partition_layer: int = -1,
        probe: ProbeConfig = DEFAULT_PROBE,
        max_seconds: float | None = None,
        max_seconds_per_probe: float | None = None,
        warm_start: WarmStarts = "during",
        block_trs: int = BLOCK_TRS,
        n_bootstraps: int = 1000,
        seed: int = 0,
        figures: bool = True,
        headline_region: str | None = None,
        run_dir: str | None = None,
        data: StoryDataModule | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if every_n_epochs < 0:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; give 0 (before and after only) or more.")
        if max_seconds_per_probe is not None and max_seconds_per_probe <= 0:
            raise ValueError(f"max_seconds_per_probe is {max_seconds_per_probe}; give a time, or leave it out.")
        if warm_start not in get_args(WarmStarts):
            raise ValueError(f"warm_start is {warm_start!r}. {did_you_mean(warm_start, get_args(WarmStarts))}")
        held_out.check_name(data, name)
        self.data, self.name = data, name
        bootstrap = {"block_trs": block_trs, "n_bootstraps": n_bootstraps, "seed": seed}
        self.engine = ProbeEngine(probe, layers, partition_layer, bootstrap, with_window=data is not None)
        self.every_n_epochs, self.max_seconds, self.warm_start = every_n_epochs, max_seconds, warm_start
        self.figures, self.headline_region, self.run_dir = figures, headline_region, run_dir
        self.max_seconds_per_probe = max_seconds_per_probe
        self._processes, self._time = ProcessGroup(), TimeLimit(max_seconds_per_probe)
        self._seconds_between = 0.0
        self._probed_after = False
        self.share_gb, self.before = 0.0, ""
        self._shared: SharedProbe | None = None

    # --- Lightning hooks ---

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse checkpoints chosen on scored stories; prepare the other data set, if there is one."""
        if stage != "fit":
            return
        refuse_scored_monitors(trainer)
        self.engine.progress = trainer.progress_bar_callback is not None
        self._processes = ProcessGroup.of_trainer(trainer)
        if self.data is not None:
            others = [
                other.name
                for other in trainer.callbacks  # type: ignore[attr-defined]
                if isinstance(other, BandedRidgeProbe) and other is not self
            ]
            with borrowed_state(pl_module):
                held_out.set_up(self.data, str(self.name), others, datamodule_of(trainer), pl_module.backbone)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe before training; a resumed run reads what it found then."""
        self._seconds_between, self._probed_after = 0.0, False
        self._time = TimeLimit(self.max_seconds_per_probe)
        self.engine.fits.starts.clear()
        self.probe(trainer, pl_module, stage="before", epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe every so many epochs, the last one excepted (that is `after`)."""
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs or trainer.should_stop
        if self.every_n_epochs and not epoch % self.every_n_epochs and not last:
            self.probe(trainer, pl_module, stage="during", epoch=epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe after training."""
        if trainer.global_step > 0:
            self.probe(trainer, pl_module, stage="after", epoch=max(trainer.current_epoch, 1))
            self._probed_after = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe after training in a run that was killed between its last epoch and its last probe."""
        if trainer.global_step > 0 and not self._probed_after:
            device = pl_module.device
            pl_module.to(trainer.strategy.root_device)
            try:
                self.on_train_end(trainer, pl_module)
            finally:
                pl_module.to(device)

    # --- The probe ---

    def probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str, epoch: int) -> list[ProbeRecord]:
        """Probe all subjects now: read or compute their records, write the table, log; to be called in all processes.

        Returns
        -------
        list of ProbeRecord
            None in other processes than the first, or if there was no time.

        Raises
        ------
        RuntimeError
            If a resumed run lacks its probe from before training.
        ElsewhereError
            If another process failed.
        ValueError
            If there is nothing to fit or score on.
        """
        started, folder = time.monotonic(), self._probes_folder(trainer)
        found: dict[str, ProbeRecord] = {}
        with borrowed_state(pl_module), self._processes as group, ExitStack() as held:
            agenda = group.broadcast(lambda: self._agenda(trainer, pl_module, stage, epoch, found, held))
            if agenda is None:
                return []
            if agenda["subjects"]:
                self._compute(trainer, pl_module, stage, epoch, agenda, found, group)
                self._leave_for_others(folder)
            held.close()
            if not group.is_first:
                return []
            records = [found[name] for name in agenda["order"]]
            write_table(records, folder / f"epoch-{epoch:03d}.csv")
            log_scores(trainer, records, self.name)
            if self.name is None:
                show_alignment(trainer, records)
            line = summary_line(records, self.headline_region, read_from=agenda["read_from"], name=self.name)
            rank_zero_info(f"trial run, no result: {line}" if getattr(trainer, "fast_dev_run", False) else line)
            if self.figures and self.name is None:
                log_figures(trainer, folder.parent)
        self._seconds_between += time.monotonic() - started if stage == "during" else 0.0
        return records

    def _agenda(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str,
        epoch: int,
        found: dict[str, ProbeRecord],
        held: ExitStack,
    ) -> dict[str, Any] | None:
        """Who is to be probed; None if there is no time. Records that are there already are put into `found`.

        Where other runs share the probe, it is locked until `held` is closed.
        """
        if stage == "during" and self.max_seconds is not None and self._seconds_between > self.max_seconds:
            rank_zero_info(f"probe after epoch {epoch} left out: max_seconds ({self.max_seconds:g}) is spent.")
            return None
        datamodule, folder = self._datamodule(trainer), self._probes_folder(trainer)
        weights, order = weights_hash(pl_module), list(datamodule.probed_subjects)
        for name in order:
            record = self._earlier(datamodule, folder, name, epoch, weights, trainer.ckpt_path)
            if record is not None:
                found[name] = record
        read_from, self._shared = "the run directory", None
        if stage == "before" and not found:
            self.before = "computed"
            self._shared = self._shared_probe(trainer, pl_module, order, weights)
            if self._shared is not None:
                held.enter_context(self._shared.alone())
                found |= self._shared.read(folder)
                if found:
                    read_from = str(self._shared.path)
                    self.before = READ_FROM + read_from
        missing = [name for name in order if name not in found]
        return {"order": order, "subjects": missing, "weights": weights, "read_from": "" if missing else read_from}

    def _shared_probe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, subjects: list[str], weights: str
    ) -> SharedProbe | None:
        """The probe before training as other runs may have left it; None where it is not shared."""
        if not self.share_gb or self.max_seconds_per_probe is not None or trainer.global_step:
            return None
        settings = what_decides(
            self.engine,
            probed(pl_module),
            self._datamodule(trainer),
            subjects,
            facts=self._facts(trainer, weights),
            tuned=datamodule_of(trainer),
            more={"precision": str(trainer.precision), "n_processes": trainer.world_size},
        )
        return None if settings is None else SharedProbe(settings, self.share_gb)

    def _leave_for_others(self, folder: Path) -> None:
        """Keep the probe that was just made, where runs share it; only the first process knows of it."""
        entry = None if self._shared is None else self._shared.keep(folder)
        if entry is not None:
            log.info("the probe before training is kept for other runs of this model and data: %s", entry)

    def _facts(self, trainer: pl.Trainer, weights: str) -> dict[str, Any]:
        """What records say beside the numbers."""
        tuned, facts = datamodule_of(trainer), {"headline_region": self.headline_region, "weights": weights}
        if self.data is not None:
            return facts | held_out.more_facts(self.data, tuned.roles.stories("tune"))
        if getattr(tuned, "regime", "brain") != "pretrained" and trainer.max_epochs != 0:
            return facts | tuned_facts(tuned.roles.spans("fit"), tuned.roles.spans("tune"))
        return facts

    def _compute(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str,
        epoch: int,
        agenda: dict[str, Any],
        found: dict[str, ProbeRecord],
        group: ProcessGroup,
    ) -> None:
        """Probe who is on the agenda; their records are put into `found`."""
        datamodule, folder, engine = self._datamodule(trainer), self._probes_folder(trainer), self.engine
        module, subjects = probed(pl_module), agenda["subjects"]
        features, features_s = engine.features(module, datamodule)
        compared = engine.resolve_layers(module)[1]
        plan = ProbePlan(engine, datamodule, subjects, features, compared, features_s, group.n_ranks)
        scope = group.broadcast(lambda: self._time.scope(plan, stage, folder, bool(found)))
        words = scope.left_out_words(plan.whole)
        facts = {**self._facts(trainer, agenda["weights"]), "thinned_words": words}
        warm = stage != "before" and stage in self.warm_start
        heard = None if self.data is None else tuning_words(datamodule_of(trainer))
        context = ProbeContext(stage, epoch, trainer.global_step, facts, scope if words else None, warm, heard)
        if warm:
            engine.remember(folder, subjects, epoch)
        ready: dict[str, Any] = {"partition_layer": compared, "features_s": features_s, "group": group}
        records = engine.measure_features(features, datamodule, subjects, folder, context, **ready)
        # As the files have them (replicates in single precision): a run that reads them has the same numbers then.
        found |= {one.subject: load_record(record_path(folder, one.subject, epoch)) for one in records}
        self._time.learn(plan, context.scope)

    def _earlier(
        self, datamodule: StoryDataModule, folder: Path, subject: str, epoch: int, weights: str, resumed_from: Any
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

    def _datamodule(self, trainer: pl.Trainer) -> StoryDataModule:
        return datamodule_of(trainer) if self.data is None else self.data

    def _probes_folder(self, trainer: pl.Trainer) -> Path:
        return Path(self.run_dir or trainer.default_root_dir) / "probes" / (self.name or "")
