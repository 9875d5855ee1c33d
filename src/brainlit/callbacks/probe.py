"""Banded-ridge probes of the backbone before, during and after training."""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from brainlit.callbacks import held_out
from brainlit.datamodules import StoryDataModule
from brainlit.encoding.bootstrap import BLOCK_TRS
from brainlit.encoding.search import SolverName
from brainlit.encoding.statistics import mean_score
from brainlit.hints import did_you_mean
from brainlit.probing.budget import Costs, Thinning, thin
from brainlit.probing.engine import Moment, ProbeEngine
from brainlit.probing.inputs import borrowed_state
from brainlit.probing.plan import Plan, refuse_scored_monitors, thinned_before
from brainlit.probing.process_group import Meeting, Meetings
from brainlit.results.record import (
    COLUMNS,
    ProbeRecord,
    find_records,
    load_record,
    record_path,
    table_rows,
    write_table,
)
from brainlit.results.report import draw_figures
from brainlit.results.run_directory import RunDirectory
from brainlit.results.scores import ALL_VOXELS
from brainlit.results.style import Figure
from brainlit.results.summary import build_summary

# --- probe_log
# What a probe shows while the run goes on: scalars in the loggers, pictures in W&B, one line on the screen.


LOGGED = ("r_backbone", "r_joint", "r2_backbone", "r_over_ceiling", "ceiling", "low_level_share")
_log = logging.getLogger(__name__)


def scalars(records: Sequence[ProbeRecord], name: str | None = None) -> dict[str, float]:
    """probe/<region>/layer-<k>/<metric>: finite values of the main metrics, mean over the subjects that have them.

    Those of a held-out data set are called probe/<name>/<region>/layer-<k>/<metric>.
    """
    values: dict[str, float] = {}
    keys = {key: None for record in records for key in record.table.keys if key[2] in LOGGED}
    for region, layer, metric in keys:
        rows = [row for record in records if (row := record.table.get(region, layer, metric)) is not None]
        value = mean_score([row.score for row in rows]).value
        if math.isfinite(value):
            values[f"{_prefix(name)}/{region.replace(' ', '_')}/layer-{layer}/{metric}"] = value
    return values


def log_scores(trainer: pl.Trainer, records: Sequence[ProbeRecord], name: str | None = None) -> None:
    """Give the scalars to every logger at the current step, and the whole table to W&B."""
    values, step = scalars(records, name), trainer.global_step
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)
        logger.save()
    for logger in _wandb_loggers(trainer):
        data = [[row[column] for column in COLUMNS] for row in table_rows(records)]
        logger.log_table(f"{_prefix(name)}/table-epoch-{records[0].epoch:03d}", columns=list(COLUMNS), data=data)


def log_figures(trainer: pl.Trainer, run_path: Path) -> None:
    """Draw the figures of the run so far and give them to W&B; whatever goes wrong here never stops a run."""
    try:
        run = RunDirectory(run_path)
        records = find_records(run.probes)
        figures, _ = draw_figures(run, build_summary(run, records), records, brains=False)
        for figure in figures.values():
            figure.save(run.figures)
        for logger in _wandb_loggers(trainer):
            _send(logger, figures)
    except Exception:  # noqa: BLE001 - a picture must not cost hours of training
        _log.warning("the figures of the probe could not be drawn or sent; the numbers are safe:", exc_info=True)


def summary_line(
    records: Sequence[ProbeRecord], headline_region: str | None, reread: bool = False, name: str | None = None
) -> str:
    """One line: alignment of the region of interest with its interval, and the low-level share."""
    first = records[0]
    regions = dict.fromkeys(region for record in records for region, _, _ in record.table.keys)
    region = next((name for name in (headline_region, "semantic") if name in regions), ALL_VOXELS)
    parts = []
    for metric, label in (("r_backbone", "r"), ("r_over_ceiling", "r/ceiling"), ("low_level_share", "low-level share")):
        rows = [row for record in records if (row := record.table.get(str(region), first.layer, metric)) is not None]
        if rows:
            score = mean_score([row.score for row in rows])
            bounds = "" if score.interval is None else " [{:.3f}, {:.3f}]".format(*score.interval)
            parts.append(f"{label} {score.value:.3f}{bounds}")
    seconds = sum(record.facts.get("seconds", 0.0) for record in records)
    how = "read from the run directory" if reread else f"{seconds:.0f} s"
    words = first.facts.get("thinned_words")
    how += f", thinned to {words}" if words else ""
    return (
        f"probe {f'of {name} ' if name else ''}{first.stage} (epoch {first.epoch}), {region}, layer {first.layer},"
        f" {len(records)} subject{'s' if len(records) > 1 else ''}: {', '.join(parts)} ({how})"
    )


def _prefix(name: str | None) -> str:
    return "probe" if name is None else f"probe/{name}"


def _wandb_loggers(trainer: pl.Trainer) -> Iterable[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _send(logger: WandbLogger, figures: Mapping[str, Figure]) -> None:
    from PIL import Image

    for name, figure in figures.items():
        image: Any = Image.open(io.BytesIO(figure.png))
        logger.log_image(f"figures/{name}", [image], caption=[figure.alt])


WarmStarts = Literal["never", "during", "during and after"]
log = logging.getLogger(__name__)


class BandedRidgeProbe(pl.Callback):
    """Ask, with voxelwise encoding models, what the backbone says about the brain, and whether it is low-level.

    For every subject (also those who are held out from tuning), encoding models are fitted on the stories of the role
    `fit` and scored on those of `score`; none of them is used for tuning. One layer (fixed beforehand) is compared with
    the low-level and semantic features of the store; every layer by itself gives the layer curve. Each probe leaves one
    HDF5 file per subject and one table in <run>/probes, and scalars probe/<region>/layer-<k>/<metric> (mean over
    subjects) in every logger.

    Model modes, random states and himalaya's backend are given back, also when a probe fails. A failing probe stops
    the run; a failing picture is logged. Several processes share the voxels out among them. They meet through files in
    the run directory, so a probe may take longer than the time-out of their collectives; one that fails stops all.

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
    sub_bands : bool
        Also split the low-level band into spectral, articulatory, phonemic features and rates.
    solver : str
        'auto' takes one of ours by the smaller space; 'himalaya' is the reference.
    device : str
        torch device of the solvers: 'cpu' or 'cuda' (the GPU of each process).
    max_seconds : float, optional
        Time for the probes between before and after; once it is spent they are left out. Before and after always run.
    max_seconds_per_probe : float, optional
        Time for each probe. One that would take longer is thinned: first layers of the curve (the compared one stays,
        the others are spread evenly), then voxels (evenly, in every region, chosen without looking at responses), then
        mixtures. What was left out is in the records and the report. The last probe leaves out what the first did, so
        that they compare; those between keep its voxels.
    memory_gb : float
        What the solvers and predictions may hold besides the responses; voxels are taken in batches that fit.
    warm_start : 'never', 'during' or 'during and after'
        Which probes try, for each voxel, only the three mixtures that were best for it in the probe before. 'after' is
        searched in full by default, as 'before' is: a difference between the two is then none of search.
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
        sub_bands: bool = False,
        solver: SolverName = "auto",
        device: str = "cpu",
        max_seconds: float | None = None,
        max_seconds_per_probe: float | None = None,
        memory_gb: float = 4.0,
        warm_start: WarmStarts = "during",
        seed: int = 0,
        block_trs: int = BLOCK_TRS,
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
        if max_seconds_per_probe is not None and max_seconds_per_probe <= 0:
            raise ValueError(f"max_seconds_per_probe is {max_seconds_per_probe}; give a time, or leave it out.")
        if warm_start not in get_args(WarmStarts):
            raise ValueError(f"warm_start is {warm_start!r}. {did_you_mean(warm_start, get_args(WarmStarts))}")
        held_out.check_name(data, name)
        self.data, self.name = data, name
        mixtures = ProbeConfig().n_gammas if n_gammas is None else dict(n_gammas)
        config = ProbeConfig(
            delays_trs=tuple(delays_trs),
            n_folds=n_folds,
            skip_trs=skip_trs,
            sub_bands=sub_bands,
            solver=solver,
            seed=seed,
            n_gammas=mixtures,
            memory_gb=memory_gb,
            device=device,
        )
        bootstrap = {"block_trs": block_trs, "n_bootstraps": n_bootstraps, "seed": seed}
        self.engine = ProbeEngine(config, layers, partition_layer, bootstrap, with_window=data is not None)
        self.every_n_epochs, self.max_seconds = every_n_epochs, max_seconds
        self.figures, self.headline_region, self.run_dir = figures, headline_region, run_dir
        self.max_seconds_per_probe, self.warm_start = max_seconds_per_probe, warm_start
        self._meetings = Meetings()
        self._costs: Costs | None = None
        self._seconds_between = 0.0
        self._probed_after = False

    # --- Lightning hooks ---

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse checkpoints chosen on scored stories; prepare the other data set, if there is one."""
        if stage != "fit":
            return
        refuse_scored_monitors(trainer)
        self._meetings.set_up(trainer)
        if self.data is not None:
            with borrowed_state(pl_module):
                held_out.set_up(self, trainer, pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe before training; a resumed run reads what it found then."""
        self._seconds_between, self._probed_after, self._costs = 0.0, False, None
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
        with borrowed_state(pl_module), self._meetings.next(trainer) as meeting:
            agenda = meeting.tell("agenda", lambda: self._agenda(trainer, pl_module, stage, epoch, found))
            if agenda is None:
                return []
            if agenda["subjects"]:
                self._compute(trainer, pl_module, stage, epoch, agenda, found, meeting)
            if not meeting.is_first:
                return []
            records = [found[name] for name in agenda["order"]]
            write_table(records, folder / f"epoch-{epoch:03d}.csv")
            log_scores(trainer, records, self.name)
            reread = not agenda["subjects"]
            rank_zero_info(summary_line(records, self.headline_region, reread=reread, name=self.name))
            if self.figures and self.name is None:
                log_figures(trainer, folder.parent)
        self._seconds_between += time.monotonic() - started if stage == "during" else 0.0
        return records

    def _agenda(
        self, trainer: pl.Trainer, pl_module: Any, stage: str, epoch: int, found: dict[str, ProbeRecord]
    ) -> dict[str, Any] | None:
        """Who is to be probed; None if there is no time. Records that are there already are put into `found`."""
        if stage == "during" and self.max_seconds is not None and self._seconds_between > self.max_seconds:
            rank_zero_info(f"probe after epoch {epoch} left out: max_seconds ({self.max_seconds:g}) is spent.")
            return None
        datamodule, folder = self._datamodule(trainer), self._probes_folder(trainer)
        weights, order = weights_hash(pl_module), list(datamodule.probed_subjects)
        for name in order:
            record = self._earlier(datamodule, folder, name, epoch, weights, trainer.ckpt_path)
            if record is not None:
                found[name] = record
        return {"order": order, "subjects": [name for name in order if name not in found], "weights": weights}

    def _compute(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        stage: str,
        epoch: int,
        agenda: dict[str, Any],
        found: dict[str, ProbeRecord],
        meeting: Meeting,
    ) -> None:
        """Probe who is on the agenda; their records are put into `found`."""
        datamodule, folder, engine = self._datamodule(trainer), self._probes_folder(trainer), self.engine
        module: Any = pl_module
        features, features_s = engine.features(module, datamodule)
        chosen = engine.resolve_layers(int(module.backbone.n_layers) + 1)[1]
        plan = Plan(engine, datamodule, agenda["subjects"], features, chosen, features_s, meeting.n_ranks)
        thinning, words = meeting.tell("thinning", lambda: self._thinning(plan, stage, folder, bool(found)))
        facts = {"headline_region": self.headline_region, "weights": agenda["weights"], "thinned_words": words}
        if self.data is not None:
            tuned: Any = trainer.datamodule  # type: ignore[attr-defined]
            facts |= held_out.more_facts(self.data, tuned.roles.stories("tune"))
        moment = Moment(
            stage,
            epoch,
            trainer.global_step,
            facts,
            None if thinning is None else Thinning.from_json(thinning),
            stage != "before" and stage in self.warm_start,
            features_s,
        )
        if moment.warm:
            engine.remember(folder, agenda["subjects"], epoch)
        for record in engine.probe(features, datamodule, agenda["subjects"], folder, moment, meeting, chosen):
            found[record.subject] = record
        if self._costs is not None:
            self._costs = plan.corrected(self._costs, moment.thinning)

    def _thinning(self, plan: Plan, stage: str, folder: Path, begun: bool) -> tuple[dict[str, Any] | None, str]:
        """What this probe leaves out, as plain JSON (None: nothing), and in words.

        Others follow the probe before training, also the rest of that one where it was `begun` by an earlier process.
        """
        first = thinned_before(folder) if begun or stage != "before" else None
        budget_s, thinning = self.max_seconds_per_probe, first or plan.whole
        if budget_s is not None and (stage == "during" or (stage == "before" and not begun)):
            self._costs = self._costs or plan.costs()
            thinning = thin(thinning, plan.chosen, budget_s, self._costs, keep_voxels=stage == "during")
        words = thinning.words(plan.whole)
        if words:
            rank_zero_info(f"probe {stage} thinned to {words}")
        if self._costs is not None and budget_s is not None and self._costs.seconds(thinning) > 1.2 * budget_s:
            seconds = self._costs.seconds(thinning)
            log.warning("the probe %s will take about %.0f s, not %.0f s, thinned or not", stage, seconds, budget_s)
        return (thinning.json() if words else None), words

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

    def _datamodule(self, trainer: pl.Trainer) -> Any:
        return trainer.datamodule if self.data is None else self.data  # type: ignore[attr-defined]

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
