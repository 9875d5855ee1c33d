"""Brain-tuning: a speech model learns to predict the fMRI of people who hear the same sound (arXiv 2410.09230)."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from brainlit.backbones import BackboneConfig
from brainlit.backbones.base import eval_mode
from brainlit.backbones.lora import LoraConfig
from brainlit.backbones.trainable import TrainableConfig, count_layer_parameters
from brainlit.tuning.anchor import AnchorConfig
from brainlit.tuning.checkpoint import RECORD, check_same, read_record, whole_checkpoint
from brainlit.tuning.front_end_cache import FrontEndCache, FrontEndCacheConfig
from brainlit.tuning.heads import HeadConfig, check_context, check_target_sizes
from brainlit.tuning.losses import LOSSES, LossConfig, TargetLoss
from brainlit.tuning.model import Batch, TunedModel
from brainlit.tuning.objectives import Objective, ObjectiveConfig, check_regime, inventory_of
from brainlit.tuning.pooling import PoolingConfig
from brainlit.tuning.precision import fused_suits, require_precision, slow_precision
from brainlit.tuning.schedule import (
    Optimizer,
    Schedule,
    count_planned_steps,
    count_steps_per_epoch,
    default_learning_rates,
    follow_plan,
    optimizer_with_schedule,
    parameter_groups,
    too_short_said,
)
from brainlit.tuning.settings import check_choice, rebuilt

log = logging.getLogger(__name__)


# --- Correlation per voxel, batch by batch ---


class RunningCorrelation:
    """Pearson's r of each column over rows that arrive in batches, in fp64.

    Parameters
    ----------
    n_targets : int
        Columns.
    device : torch.device
        Of the rows that will come.
    """

    def __init__(self, n_targets: int, device: torch.device) -> None:
        self.sums = torch.zeros(6, n_targets, dtype=torch.float64, device=device)

    def update(self, predicted: Tensor, observed: Tensor, mask: Tensor) -> None:
        """Add rows: predicted and observed (batch, n_trs, n_targets), mask bool (batch, n_trs)."""
        p, y = predicted[mask].double(), observed[mask].double()
        self.sums += torch.stack([torch.ones_like(p), p, y, p * p, y * y, p * y]).sum(1)

    def r(self) -> Tensor:
        """Correlation per column, shape (n_targets,); NaN where a column does not vary or no row came."""
        n, p, y, pp, yy, py = self.sums
        covariance = n * py - p * y
        variances = (n * pp - p * p) * (n * yy - y * y)
        return torch.where(variances > 0, covariance / variances.clamp(min=1e-300).sqrt(), torch.nan)


Mode = Literal["eval", "train"]
DEFAULT_BACKBONE, DEFAULT_LORA, DEFAULT_TRAINABLE = BackboneConfig(), LoraConfig(), TrainableConfig()
DEFAULT_POOLING, DEFAULT_HEAD, DEFAULT_LOSS = PoolingConfig(), HeadConfig(), LossConfig()
DEFAULT_OBJECTIVE, DEFAULT_ANCHOR, DEFAULT_CACHE = ObjectiveConfig(), AnchorConfig(), FrontEndCacheConfig()


class BrainTuning(TunedModel):
    """Fine-tune a speech model, except its front end, to predict targets that belong to the sound.

    Parameters
    ----------
    backbone : BackboneConfig
        The speech model to start from.
    lora : LoraConfig
        Train low-rank additions instead of the weights themselves; rank 0 trains the weights.
    trainable : TrainableConfig
        Which layers are trained, how their rates differ, and whether activations are kept.
    layer : int
        Hidden state that is read out: -1 is the last, 0 goes into the first layer.
    pooling : PoolingConfig
        How frames become rows: tr pools each scanner row and lets the head carry the haemodynamic delays (windows of
        many rows, each frame encoded about once); window pools all frames of a window to predict its one row, as in the
        paper (windows of 1 row with 8 s of sound before it).
    head : HeadConfig
        From rows to targets.
    loss : LossConfig
        Between predicted and real targets.
    objective : ObjectiveConfig
        Weights of the loss on targets, of the family's own self-supervised loss and of CTC on the transcript.
    anchor : AnchorConfig
        What keeps the model near its pretrained self.
    front_end_cache : FrontEndCacheConfig
        Keep what the frozen front end makes of each window.
    backbone_lr : float or None
        Peak learning rate of the backbone. None takes one that suits its size and the planned number of optimiser
        steps: see schedule.default_learning_rates.
    head_lr : float or None
        Peak learning rate of the head; None as for the backbone.
    weight_decay : float
        For backbone and head.
    warmup_fraction : float
        Share of the optimiser steps in which the learning rates rise, 5 steps at least; then they fall in a straight
        line to 0.
    optimizer : str
        adamw or adam.
    schedule : str
        warmup_linear, constant, or published_2410 (as the released code of the paper steps it).
    backbone_mode : str
        eval trains the backbone without its dropouts, layer drop and SpecAugment, as published brain-tuning did; train
        turns on those that the backbone's settings ask for. Set anew at the start of every epoch, and logged.
    standardise_pools : bool
        Standardise the pooled states by a mean and sd measured on the untouched backbone before the first step, then
        fixed and kept in the checkpoint.
    seed : int
        Of all initial weights that no checkpoint brings, and of what the objectives draw.
    """

    def __init__(
        self,
        backbone: BackboneConfig = DEFAULT_BACKBONE,
        lora: LoraConfig = DEFAULT_LORA,
        trainable: TrainableConfig = DEFAULT_TRAINABLE,
        layer: int = -1,
        pooling: PoolingConfig = DEFAULT_POOLING,
        head: HeadConfig = DEFAULT_HEAD,
        loss: LossConfig = DEFAULT_LOSS,
        objective: ObjectiveConfig = DEFAULT_OBJECTIVE,
        anchor: AnchorConfig = DEFAULT_ANCHOR,
        front_end_cache: FrontEndCacheConfig = DEFAULT_CACHE,
        backbone_lr: float | None = None,
        head_lr: float | None = None,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        optimizer: Optimizer = "adamw",
        schedule: Schedule = "warmup_linear",
        backbone_mode: Mode = "eval",
        standardise_pools: bool = True,
        seed: int = 0,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        for name, value, choices in (
            ("backbone_mode", backbone_mode, Mode),
            ("optimizer", optimizer, Optimizer),
            ("schedule", schedule, Schedule),
        ):
            check_choice(name, value, choices)
        if not 0 <= warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction is {warmup_fraction}; it is a share of the steps, 0 to 1.")
        dropout = rebuilt(LoraConfig, lora).dropout
        if dropout and backbone_mode == "eval":
            raise ValueError(
                f"lora.dropout is {dropout}, but backbone_mode eval leaves all dropout of the backbone out: give"
                " --model.backbone_mode train (the backbone's own dropouts are 0 unless asked for)."
            )
        self._correlations: dict[str, RunningCorrelation] = {}
        self._given_rates = backbone_lr, head_lr
        self._peak_rates: list[float] = []
        self._assemble(settings)

    # --- steps ---

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        parts = self.losses(batch)
        self._log_parts("train", parts, batch)
        for group in (group for optimizer in self.trainer.optimizers for group in optimizer.param_groups):
            self.log(f"lr-{group['name']}", float(group["lr"]), on_step=True, on_epoch=False)
        return parts["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch of the stories that choose."""
        parts, predicted = self._losses(batch)
        self._log_parts("val", parts, batch)
        if predicted:
            self._log_loss_of_mean(parts, predicted, batch)
        return parts["loss"]

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        sizes = {} if self.head is None else self.head.target_sizes
        self._correlations = {name: RunningCorrelation(size, self.device) for name, size in sizes.items()}

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch of the stories that score; adds its rows to the correlations."""
        parts, predicted = self._losses(batch)
        self._log_parts("test", parts, batch)
        for subject, correlation in self._correlations.items():
            correlation.update(predicted[subject], batch["targets"][subject], batch["target_mask"][subject])
        return parts["loss"]

    def on_test_epoch_end(self) -> None:
        """Log test/r, the mean correlation over targets, for each subject and over the targets of all."""
        per_subject = {}
        for subject, correlation in self._correlations.items():
            correlation.sums = self.trainer.strategy.reduce(correlation.sums, reduce_op="sum")
            per_subject[subject] = correlation.r()
            self.log(f"test/r/{subject}", per_subject[subject].nanmean().float())
        if per_subject:
            self.log("test/r", torch.cat(list(per_subject.values())).nanmean().float())
        self._correlations = {}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Predictions with where they belong: story, first_tr and row_mask of the batch, predictions by subject."""
        places = {name: batch[name] for name in ("story", "first_tr", "row_mask")}
        return {**places, "predictions": self(batch)}

    # --- Lightning hooks ---

    def setup(self, stage: str) -> None:
        """Build what depends on the data (head, alphabet of the transcripts), or check that it fits them.

        Raises
        ------
        ValueError
            If there is no data module that knows its target sizes, the head was made for others, the windows carry less
            context than the head reaches back, regime and objective contradict each other, or the trainer's precision
            does not suit.
        """
        require_precision(self.trainer.precision)
        data = self.datamodule
        check_regime(self.objective, str(getattr(data, "regime", "brain")))
        if self.objective.targets:
            if self.pooling_config.over == "tr":
                check_context(self.head_config, data.context_trs, data.tr_s)
            if self.head is None:
                self.build_head(data.target_sizes, getattr(data, "target_columns", None))
            else:
                check_target_sizes(self.head.target_sizes, data.target_sizes)
            ceilings = data.target_ceilings if LOSSES[self.loss_config.name].needs_ceilings else None
            self.target_loss = TargetLoss(self.loss_config, ceilings).to(self.device)
        if self.objective.ctc and "ctc" not in self.objectives:
            self._build_ctc(inventory_of(data.tuning_texts()))
        if self.cache_config.max_gb and self.cache is None:
            self.cache = FrontEndCache(self.cache_config, self.backbone)

    def on_fit_start(self) -> None:
        """Say how the backbone trains; measure what the first step needs, unless a checkpoint brought it.

        A run without a step needs nothing.
        """
        self._say_how_it_trains()
        if self._resumed or not count_planned_steps(self.trainer):
            return
        for objective in self.objectives.values():
            assert isinstance(objective, Objective)
            objective.prepare(self.backbone, self._training_batches())
        if self.head is not None and self.hparams["standardise_pools"]:
            self.head.set_standardisation(*pool_statistics(self))

    def on_train_start(self) -> None:
        """Where a checkpoint was read, go on with the learning rates of this run's plan."""
        scheduler = self.lr_schedulers()
        if self._resumed and isinstance(scheduler, LambdaLR):
            follow_plan(scheduler, self._peak_rates)

    def on_train_epoch_start(self) -> None:
        """Put backbone and head into the modes asked for, whatever ran before."""
        self.train()
        self.backbone.train(self.hparams["backbone_mode"] == "train")

    def configure_optimizers(self) -> Any:
        """Groups for the backbone's trainable parameters and for the rest; rates per step.

        Raises
        ------
        ValueError
            If the length of the run is not known.
        """
        n_steps = self.trainer.estimated_stepping_batches
        if n_steps == float("inf"):
            raise ValueError("the learning rate needs the length of the run: give --trainer.max_epochs or max_steps.")
        self._choose_rates(int(n_steps))
        others = [part for part in (self.head, self.pooling, self.objectives) if part is not None]
        groups = parameter_groups(
            self.backbone,
            [parameter for part in others for parameter in part.parameters()],
            self.hparams["backbone_lr"],
            self.hparams["head_lr"],
            self.trainable.layer_decay,
            self.hparams["weight_decay"],
        )
        self._peak_rates = [float(group["lr"]) for group in groups]
        return optimizer_with_schedule(
            groups,
            int(n_steps),
            count_steps_per_epoch(self.trainer),
            self.hparams["warmup_fraction"],
            fused=fused_suits(str(self.trainer.precision)),
            optimizer=self.hparams["optimizer"],
            schedule=self.hparams["schedule"],
        )

    def _choose_rates(self, n_steps: int) -> None:
        """Put the rates that were not given into the hyperparameters, where records and cards read them."""
        suits = default_learning_rates(count_layer_parameters(self.backbone), n_steps, self.lora.rank > 0)
        for name, given, rate in zip(("backbone_lr", "head_lr"), self._given_rates, suits, strict=True):
            self.hparams[name] = rate if given is None else given

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the model says about itself."""
        checkpoint[RECORD] = self._record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse checkpoints of other models; build what a checkpoint knows and this model does not yet.

        Raises
        ------
        CheckpointError
            If the checkpoint is not of this backbone and head.
        """
        record = read_record(checkpoint)
        check_same(record, self._record())
        self._build_recorded(record)

    # --- details ---

    @property
    def datamodule(self) -> Any:
        """The trainer's data module, which says how many targets each subject has."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "target_sizes"):
            raise ValueError(
                "BrainTuning builds its head from trainer.datamodule.target_sizes (subject -> voxels), and there is no"
                " such data module; pass one as trainer.fit(model, datamodule=...), for instance StoryDataModule."
            )
        return datamodule

    def _log_parts(self, stage: str, parts: Mapping[str, Tensor], batch: Batch) -> None:
        """Log <stage>/loss, and the parts where the loss has more than one; in training also of each step.

        Asked for both under one name, Lightning averages over processes at every step, and all of them wait for it. A
        loss is that of all processes' windows anyway: a step logs what this process has, and they meet once an epoch.
        """
        one_part = len(parts) == 2 and "targets" in parts
        whole: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True, "batch_size": _n_windows(batch)}
        for name, value in parts.items():
            if name != "loss" and one_part:
                continue
            key, shown, bar = f"{stage}/{name}", value.detach().float(), name == "loss" and stage != "test"
            if stage == "train":
                self.log(f"{key}_step", shown, on_step=True, on_epoch=False, prog_bar=bar)
                self.log(f"{key}_epoch", shown, prog_bar=bar, **whole)
            # Loggers have the two above; callbacks monitor this one.
            self.log(key, shown, prog_bar=bar and stage != "train", logger=stage != "train", **whole)

    def _log_loss_of_mean(self, parts: Mapping[str, Tensor], predicted: Mapping[str, Tensor], batch: Batch) -> None:
        """Log val/loss_of_mean: what the loss would be if every target were predicted by its mean.

        That is 0, for targets are z-scored story by story.
        """
        assert self.target_loss is not None
        means = {subject: torch.zeros_like(values) for subject, values in predicted.items()}
        of_mean = self.target_loss(means, batch["targets"], batch["target_mask"])
        value = parts["loss"] + self.objective.targets * (of_mean - parts["targets"])
        self.log("val/loss_of_mean", value.float(), on_epoch=True, sync_dist=True, batch_size=_n_windows(batch))

    def _training_batches(self) -> Iterator[Batch]:
        """Training windows on the device, the same in each process, for what is fitted before training."""
        data = self.datamodule
        undivided = getattr(data, "undivided_train_dataloader", data.train_dataloader)
        for batch in undivided():
            yield self.trainer.strategy.batch_to_device(batch)

    def _say_how_it_trains(self) -> None:
        description = self.backbone.describe()
        log.info(
            "backbone %s (%s) trains in %s mode: dropout %s, layerdrop %s, SpecAugment %s; front end frozen%s",
            description["family"],
            description["weights"],
            self.hparams["backbone_mode"],
            description["dropout"],
            description["layerdrop"],
            "on" if description["spec_augment"] else "off",
            f"; LoRA of rank {self.lora.rank}, dropout {self.lora.dropout}" if self.lora.rank else "",
        )
        log.info("learning rates: backbone %.2g, head %.2g", self.hparams["backbone_lr"], self.hparams["head_lr"])
        slow = slow_precision(str(self.trainer.precision), self.device)
        trial = getattr(self.trainer, "fast_dev_run", False)
        short = "" if trial else too_short_said(count_planned_steps(self.trainer), count_steps_per_epoch(self.trainer))
        for said in (slow, short):
            if said:
                log.warning(said)


def _n_windows(batch: Batch) -> int:
    """Windows of a batch; one alone may be there only so that its process has something to do."""
    n, rows = len(batch["audio"]), batch.get("row_mask")
    return n if n > 1 or rows is None else int(rows.any())


def load_tuned(path: str | Path) -> BrainTuning:
    """A tuned model from its checkpoint alone, on the CPU and in eval mode.

    Needs neither the weights that tuning started from, nor a network, nor the data.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged, or was not written by BrainTuning.
    """
    with whole_checkpoint(path) as checkpoint:
        record = read_record(checkpoint)
        settings = {**checkpoint["hyper_parameters"], "anchor": {"kind": "none"}}  # what it held on to is not at hand
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(record["backbone"]["architecture"]))
            asked = rebuilt(BackboneConfig, settings.pop("backbone"))
            module = BrainTuning(backbone=asked.random_like(folder), **settings)
        module.restore_record(asked, record)
        module.load_state_dict(checkpoint["state_dict"])
    return module.eval()


# --- Mean and sd of the pooled states before tuning begins ---


N_BATCHES = 16
SHOWN_AFTER_S = 2.0
"""A shorter pass has no progress bar."""


@torch.no_grad()
def pool_statistics(module: BrainTuning, n_batches: int = N_BATCHES) -> tuple[Tensor, Tensor]:
    """Mean and sd of the pooled states over rows with sound, in the first training batches of all processes.

    A pass of its own over the training windows, in eval mode; modes and random states are given back.

    Returns
    -------
    mean, sd : float32 Tensors of shape (hidden_size,)

    Raises
    ------
    ValueError
        If no row of these batches has sound.
    """
    from tqdm.auto import tqdm

    trainer = module.trainer
    totals = torch.zeros(2, module.backbone.hidden_size, dtype=torch.float64, device=module.device)
    n_rows = torch.zeros((), dtype=torch.float64, device=module.device)
    with eval_mode(module.backbone), isolate_rng():
        loader = module.datamodule.train_dataloader()
        batches = tqdm(
            islice(loader, n_batches),
            desc="Mean and sd of pooled states",
            unit="batch",
            total=min(n_batches, len(loader)),
            disable=not trainer.is_global_zero,
            delay=SHOWN_AFTER_S,
        )
        for batch in batches:
            with trainer.precision_plugin.forward_context():
                pooled, heard = module.pool(trainer.strategy.batch_to_device(batch))
            rows = pooled[heard].double()
            totals += torch.stack([rows.sum(0), rows.square().sum(0)])
            n_rows += len(rows)
    totals = trainer.strategy.reduce(totals, reduce_op="sum")
    n_rows = trainer.strategy.reduce(n_rows, reduce_op="sum")
    if not n_rows:
        raise ValueError("no training window has sound: check the stories of the tune role and the onset of the sound.")
    mean, mean_square = totals / n_rows
    return mean.float(), (mean_square - mean.square()).clamp(min=0).sqrt().float()
