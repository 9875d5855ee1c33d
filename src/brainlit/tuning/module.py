"""Brain-tuning: a speech model learns to predict the fMRI of people who hear the same sound (arXiv 2410.09230)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import torch
from torch import Tensor

from brainlit.backbones import BackboneConfig, load_backbone
from brainlit.backbones.rows import pool_per_tr, pool_window
from brainlit.tuning.checkpoint import RECORD, check_same, read_record
from brainlit.tuning.heads import VoxelHead, check_delays, masked_mse
from brainlit.tuning.schedule import adamw_with_schedule
from brainlit.tuning.scores import RunningCorrelation
from brainlit.tuning.standardise import pool_statistics

log = logging.getLogger(__name__)

Batch = dict[str, Any]
Pooling = Literal["tr", "window"]
Mode = Literal["eval", "train"]
DEFAULT_BACKBONE = BackboneConfig()


class BrainTuning(pl.LightningModule):
    """Fine-tune a speech model, except its waveform convolutions, to predict voxel responses.

    Parameters
    ----------
    backbone : BackboneConfig
        The speech model to start from.
    layer : int
        Hidden state that is read out: -1 is the last, 0 goes into the first layer.
    pooling : str
        tr averages the frames of each scanner row and lets the head carry the haemodynamic delays (windows of many
        rows, each frame encoded about once); window averages all frames of a window to predict its one row, as in the
        paper (windows of 1 row with 8 s of sound before it).
    delays_trs : tuple of int
        Rows back that the head mixes, with one learned weight each; needs as many rows of context. Not used by window.
    head_dropout : float
        Probability of dropout on the pooled states.
    backbone_lr : float
        Peak learning rate of the backbone: 2e-3 suits the tiny model, 5e-5 published ones.
    head_lr : float
        Peak learning rate of the head: 3e-3 suits the tiny model, 1e-4 published ones.
    weight_decay : float
        Of AdamW, for backbone and head.
    warmup_fraction : float
        Share of the optimiser steps in which the learning rates rise; then they fall in a straight line to 0.
    backbone_mode : str
        eval trains the backbone without its dropouts, layer drop and SpecAugment, as published brain-tuning did; train
        turns on those that the backbone's settings ask for. Set anew at the start of every epoch, and logged.
    standardise_pools : bool
        Standardise the pooled states by a mean and sd measured on the untouched backbone before the first step, then
        fixed and kept in the checkpoint.
    seed : int
        Of the head's initial weights.
    """

    def __init__(
        self,
        backbone: BackboneConfig = DEFAULT_BACKBONE,
        layer: int = -1,
        pooling: Pooling = "tr",
        delays_trs: tuple[int, ...] = (0, 1, 2, 3, 4),
        head_dropout: float = 0.1,
        backbone_lr: float = 2e-3,
        head_lr: float = 3e-3,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        backbone_mode: Mode = "eval",
        standardise_pools: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        backbone = self.backbone_config(backbone)
        _check_choice("pooling", pooling, get_args(Pooling))
        _check_choice("backbone_mode", backbone_mode, get_args(Mode))
        if not 0 <= warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction is {warmup_fraction}; it is a share of the steps, 0 to 1.")
        self.save_hyperparameters(
            {
                "backbone": asdict(backbone),
                "layer": layer,
                "pooling": pooling,
                "delays_trs": check_delays(delays_trs),
                "head_dropout": head_dropout,
                "backbone_lr": backbone_lr,
                "head_lr": head_lr,
                "weight_decay": weight_decay,
                "warmup_fraction": warmup_fraction,
                "backbone_mode": backbone_mode,
                "standardise_pools": standardise_pools,
                "seed": seed,
            }
        )
        self.backbone = load_backbone(backbone)
        self.backbone.freeze_feature_encoder()
        self.layer = self._layer_index(layer)
        self.head: VoxelHead | None = None
        self._correlations: dict[str, RunningCorrelation] = {}
        self._resumed = False

    @staticmethod
    def backbone_config(backbone: BackboneConfig | Mapping[str, Any]) -> BackboneConfig:
        """The config itself, or made from its plain form as a checkpoint keeps it."""
        return BackboneConfig(**backbone) if isinstance(backbone, Mapping) else backbone

    # --- forward ---

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Predicted responses of each subject: dict of subject to fp32 Tensor of shape (batch, n_trs, n_targets)."""
        n_trs = next(iter(batch["targets"].values())).shape[1]
        pooled, heard = self.pool(batch)
        if self.hparams["pooling"] == "window" and n_trs != 1:
            raise ValueError(
                f"pooling 'window' predicts one row per window, but the windows hold {n_trs}: give"
                " --data.window.n_trs 1 (and --data.window.context_s 8), or --model.pooling tr."
            )
        with torch.autocast(pooled.device.type, enabled=False):
            predicted: dict[str, Tensor] = self._built_head()(pooled, heard, n_trs)
        return predicted

    def pool(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pooled states that the head reads, and which rows heard sound: see pool_per_tr and pool_window."""
        encoded = self.backbone.encode(batch["audio"], batch["audio_mask"])
        states = encoded.hidden_states[self.layer]
        if self.hparams["pooling"] == "window":
            return pool_window(states, encoded.frame_mask)
        return pool_per_tr(states, encoded.frame_mask, encoded.frame_times_s, batch["bin_edges_s"])

    @torch.no_grad()
    def pooled_states(self, batch: Batch, layers: Sequence[int]) -> Tensor:
        """Hidden states averaged per row, without the head, for probes; the backbone is in eval mode meanwhile.

        Parameters
        ----------
        batch : dict
            As the data module gives it; moved to the model's device.
        layers : sequence of int
            Hidden states to return, negative ones from the end.

        Returns
        -------
        float32 Tensor of shape (n_layers_asked, batch, n_bins, hidden_size)
            0 in rows without sound.
        """
        wanted = [self._layer_index(layer) for layer in layers]
        audio, audio_mask, edges = (batch[key].to(self.device) for key in ("audio", "audio_mask", "bin_edges_s"))
        was_training = self.backbone.training
        self.backbone.eval()
        try:
            encoded = self.backbone.encode(audio, audio_mask)
        finally:
            self.backbone.train(was_training)
        states = (encoded.hidden_states[index] for index in wanted)
        return torch.stack([pool_per_tr(s, encoded.frame_mask, encoded.frame_times_s, edges)[0] for s in states])

    # --- steps ---

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        loss = masked_mse(self(batch), batch["targets"], batch["target_mask"])
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(batch["audio"]))
        for group in self._param_groups():
            self.log(f"lr-{group['name']}", float(group["lr"]), on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch of the stories that choose."""
        loss = masked_mse(self(batch), batch["targets"], batch["target_mask"])
        self.log(
            "val/loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
            batch_size=len(batch["audio"]),
        )
        return loss

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        sizes = self._built_head().target_sizes
        self._correlations = {name: RunningCorrelation(size, self.device) for name, size in sizes.items()}

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch of the stories that score; adds its rows to the correlations."""
        predicted = self(batch)
        loss = masked_mse(predicted, batch["targets"], batch["target_mask"])
        self.log("test/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch["audio"]))
        for subject, correlation in self._correlations.items():
            correlation.update(predicted[subject], batch["targets"][subject], batch["target_mask"][subject])
        return loss

    def on_test_epoch_end(self) -> None:
        """Log test/r, the mean correlation over voxels, for each subject and over the voxels of all."""
        per_subject = {}
        for subject, correlation in self._correlations.items():
            correlation.sums = self.trainer.strategy.reduce(correlation.sums, reduce_op="sum")
            per_subject[subject] = correlation.r()
            self.log(f"test/r/{subject}", per_subject[subject].nanmean().float())
        self.log("test/r", torch.cat(list(per_subject.values())).nanmean().float())
        self._correlations = {}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Predictions with where they belong: story and first_tr as in the batch, predictions by subject."""
        return {"story": batch["story"], "first_tr": batch["first_tr"], "predictions": self(batch)}

    # --- Lightning hooks ---

    def setup(self, stage: str) -> None:
        """Build the head for the voxels of the data module, or check that the head fits them.

        Raises
        ------
        ValueError
            If there is no data module that knows its target sizes, the head was made for others, or its windows carry
            less context than the head's delays reach back.
        """
        sizes = dict(self.datamodule.target_sizes)
        self._check_context()
        if self.head is None:
            self._build_head(sizes)
        elif self.head.target_sizes != sizes:
            raise ValueError(
                f"this model predicts {self.head.target_sizes} voxels, but the data have {sizes}; use the data"
                " and voxel selection that it was trained with, or a new model."
            )

    def _check_context(self) -> None:
        """Windows too short for the delays are noticed here, before anything is probed or trained."""
        delays, data = self.hparams["delays_trs"], self.datamodule
        if self.hparams["pooling"] == "tr" and data.context_trs < max(delays):
            raise ValueError(
                f"the head mixes rows up to {max(delays)} TRs back, but the windows carry {data.context_trs} rows of"
                f" context. Give --data.window.context_s at least {max(delays) * data.tr_s:g} ({max(delays)} TRs of"
                f" {data.tr_s:g} s), or fewer --model.delays_trs."
            )

    def on_fit_start(self) -> None:
        """Say how the backbone trains; measure the pooled states unless a checkpoint brought their mean and sd."""
        description = self.backbone.describe()
        log.info(
            "backbone %s (%s) trains in %s mode: dropout %s, layerdrop %s, SpecAugment %s; convolutions frozen"
            " (Lightning's warning about modules in eval mode refers to this)",
            description["family"],
            description["weights"],
            self.hparams["backbone_mode"],
            description["dropout"],
            description["layerdrop"],
            "on" if description["spec_augment"] else "off",
        )
        if self.hparams["standardise_pools"] and not self._resumed:
            self._built_head().set_standardisation(*pool_statistics(self))

    def on_train_epoch_start(self) -> None:
        """Put backbone and head into the modes asked for, whatever ran before."""
        self.train()
        self.backbone.train(self.hparams["backbone_mode"] == "train")

    def configure_optimizers(self) -> Any:
        """AdamW with a group for the backbone's trainable parameters and one for the head; schedule per step.

        Raises
        ------
        ValueError
            If the length of the run is not known.
        """
        n_steps = self.trainer.estimated_stepping_batches
        if n_steps == float("inf"):
            raise ValueError("the learning rate needs the length of the run: give --trainer.max_epochs or max_steps.")
        return adamw_with_schedule(
            {"backbone": self.backbone.parameters(), "head": self._built_head().parameters()},
            {"backbone": self.hparams["backbone_lr"], "head": self.hparams["head_lr"]},
            self.hparams["weight_decay"],
            int(n_steps),
            self.hparams["warmup_fraction"],
            fused=self.trainer.precision != "16-mixed",  # the gradient scaler cannot clip with a fused optimiser
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the model says about itself."""
        checkpoint[RECORD] = self._record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse checkpoints of other models; build the head if there is none yet.

        Raises
        ------
        CheckpointError
            If the checkpoint is not of this backbone and head.
        """
        record = read_record(checkpoint)
        check_same(record, self._record())
        if self.head is None:
            self._build_head(record["target_sizes"])
        self._resumed = True

    def adopt(self, asked: BackboneConfig, record: Mapping[str, Any]) -> None:
        """Take over a checkpoint's account of itself, before its weights are loaded: see load_tuned."""
        self.hparams["backbone"] = asdict(asked)
        self.backbone.restore_description(asked, record["backbone"]["origin"])
        self._build_head(record["target_sizes"])
        self._resumed = True

    # --- details ---

    @property
    def datamodule(self) -> Any:
        """The trainer's data module, which says how many voxels each subject has."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "target_sizes"):
            raise ValueError(
                "BrainTuning builds its head from trainer.datamodule.target_sizes (subject -> voxels), and there is no"
                " such data module; pass one as trainer.fit(model, datamodule=...), for instance StoryDataModule."
            )
        return datamodule

    def _build_head(self, sizes: dict[str, int]) -> None:
        delays = self.hparams["delays_trs"] if self.hparams["pooling"] == "tr" else None
        dropout, seed = self.hparams["head_dropout"], self.hparams["seed"]
        self.head = VoxelHead(self.backbone.hidden_size, sizes, delays, dropout, seed).to(self.device)

    def _built_head(self) -> VoxelHead:
        if self.head is None:
            raise ValueError(
                "the head is not built yet: it needs the data's voxel counts. Run through a Trainer with a data module,"
                " or load a checkpoint; pooled_states works without it."
            )
        return self.head

    def _record(self) -> dict[str, Any]:
        kept = {key: self.hparams[key] for key in ("layer", "pooling", "delays_trs")}
        sizes = None if self.head is None else self.head.target_sizes
        return {"backbone": self.backbone.describe(), "target_sizes": sizes, **kept}

    def _layer_index(self, layer: int) -> int:
        n_states = self.backbone.n_layers + 1
        if not -n_states <= layer < n_states:
            raise ValueError(
                f"layer {layer} is not there: the backbone has {self.backbone.n_layers} layers, so 0..{n_states - 1} or"
                f" -{n_states}..-1."
            )
        return layer % n_states

    def _param_groups(self) -> list[dict[str, Any]]:
        optimizers = self.trainer.optimizers
        return [group for optimizer in optimizers for group in optimizer.param_groups]


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
