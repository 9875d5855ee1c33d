"""The model that is tuned: backbone, pooling, head, objectives and anchor, and what a batch costs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from brainlit.backbones import BackboneConfig, FrontEnd, load_backbone
from brainlit.backbones.base import eval_mode
from brainlit.backbones.frames import pool_per_tr
from brainlit.backbones.lora import LoraConfig, add_lora
from brainlit.backbones.trainable import TrainableConfig, apply_trainable
from brainlit.tuning.anchor import AnchorConfig, build_anchor
from brainlit.tuning.front_end_cache import FrontEndCache, FrontEndCacheConfig
from brainlit.tuning.haemodynamics import fine_edges_s
from brainlit.tuning.heads import Head, HeadConfig, build_head, check_over
from brainlit.tuning.losses import LOSSES, LossConfig, TargetLoss
from brainlit.tuning.objectives import (
    ObjectiveConfig,
    build_ctc,
    build_self_supervised,
    for_family,
    train_mask_embedding,
)
from brainlit.tuning.pooling import Pooling, PoolingConfig
from brainlit.tuning.settings import plain, rebuilt

Batch = dict[str, Any]


class TunedModel(pl.LightningModule):
    """A speech model with what reads its hidden states; BrainTuning adds how it is trained.

    Attributes
    ----------
    backbone : SpeechBackbone
        With its front end frozen, and LoRA in it where that was asked for.
    layer : int
        Hidden state that is read out, counted from 0.
    objectives : nn.ModuleDict
        Losses that need no targets, by the name of their weight.
    head : Head or None
        None before the numbers of targets are known, and where there are none.
    """

    def _assemble(self, settings: dict[str, Any]) -> None:
        """Build all that needs no data, from settings as BrainTuning takes them.

        LoRA and objectives come before anything is frozen, and the anchor last: it remembers the backbone as it is now.
        """
        configs = {
            "backbone": BackboneConfig,
            "lora": LoraConfig,
            "trainable": TrainableConfig,
            "pooling": PoolingConfig,
            "head": HeadConfig,
            "loss": LossConfig,
            "objective": ObjectiveConfig,
            "anchor": AnchorConfig,
            "front_end_cache": FrontEndCacheConfig,
        }
        made: dict[str, Any] = {key: rebuilt(kind, settings[key]) for key, kind in configs.items()}
        backbone, seed = made["backbone"], settings["seed"]
        made["objective"] = for_family(made["objective"], backbone.family)
        self.save_hyperparameters(plain({**settings, **made}))
        self.lora: LoraConfig = made["lora"]
        self.trainable: TrainableConfig = made["trainable"]
        self.pooling_config: PoolingConfig = made["pooling"]
        self.head_config: HeadConfig = made["head"]
        check_over(self.head_config, self.pooling_config.over)
        self.loss_config: LossConfig = made["loss"]
        self.objective: ObjectiveConfig = made["objective"]
        self.cache_config: FrontEndCacheConfig = made["front_end_cache"]
        self.backbone = load_backbone(backbone)
        self.backbone.freeze_feature_encoder()
        self.layer = self._layer_index(settings["layer"])
        if self.lora.rank:
            add_lora(self.backbone, self.lora, seed)
        self.objectives = nn.ModuleDict()
        if self.objective.self_supervised:
            self.objectives["self_supervised"] = build_self_supervised(self.objective, self.backbone, seed)
        if self.objective.ctc and self.objective.characters:
            self._build_ctc(self.objective.characters)
        apply_trainable(self.backbone, self.trainable, self._highest_layer())
        if self.objective.self_supervised:
            train_mask_embedding(self.backbone)
        self.anchor = build_anchor(made["anchor"], self.backbone)
        self.pooling = Pooling(self.pooling_config, self.backbone.hidden_size)
        self.head: Head | None = None
        self.target_loss: TargetLoss | None = None
        self.cache: FrontEndCache | None = None
        self._resumed = False

    # --- forward ---

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Predicted targets of each subject: dict of subject to fp32 Tensor of shape (batch, n_trs, n_targets)."""
        front = self.front_end(batch)
        return self._read_out(self.backbone.trunk(front.features, front.frame_mask), front, batch)

    def front_end(self, batch: Batch) -> FrontEnd:
        """What the frozen front end makes of the windows, computed or from the cache."""
        source = self.backbone if self.cache is None else self.cache
        return source.front_end(batch["audio"], batch["audio_mask"])

    def pool(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pooled states that the head reads, and which rows heard sound."""
        front = self.front_end(batch)
        return self._pooled(self.backbone.trunk(front.features, front.frame_mask), front, batch)

    def _read_out(self, states: Sequence[Tensor], front: FrontEnd, batch: Batch) -> dict[str, Tensor]:
        """From hidden states to predicted targets."""
        n_trs = next(iter(batch["targets"].values())).shape[1]
        pooled, heard = self._pooled(states, front, batch)
        if self.pooling_config.over == "window" and n_trs != 1:
            raise ValueError(
                f"pooling over the window predicts one row per window, but the windows hold {n_trs}: give"
                " --data.window.n_trs 1 (and --data.window.context_s 8), or --model.pooling.over tr."
            )
        with torch.autocast(pooled.device.type, enabled=False):
            predicted: dict[str, Tensor] = self._built_head()(pooled, heard, n_trs, *self._times(batch))
        return predicted

    def _times(self, batch: Batch) -> tuple[Tensor, ...]:
        """Edges of the bins and when the rows are read, for a head that convolves; nothing for one with delays."""
        if self.head_config.haemodynamic == "fir":
            return ()
        return fine_edges_s(batch["bin_edges_s"], self.head_config.bin_s), batch["read_s"]

    def _pooled(self, states: Sequence[Tensor], front: FrontEnd, batch: Batch) -> tuple[Tensor, Tensor]:
        edges_s = next(iter(self._times(batch)), batch["bin_edges_s"])
        pooled: tuple[Tensor, Tensor] = self.pooling(states[self.layer], front.frame_mask, front.frame_times_s, edges_s)
        return pooled

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
        with eval_mode(self.backbone):
            encoded = self.backbone.encode(audio, audio_mask)
        states = (encoded.hidden_states[index] for index in wanted)
        return torch.stack([pool_per_tr(s, encoded.frame_mask, encoded.frame_times_s, edges)[0] for s in states])

    # --- losses ---

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch and its parts.

        Returns
        -------
        dict of name to Tensor of shape ()
            `loss`, the weighted sum; those of `targets`, `self_supervised`, `ctc` and `anchor` that are on; and what
            the objectives say about themselves, such as `ctc/error_rate`.
        """
        return self._losses(batch)[0]

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses, and the predicted targets as far as there are any."""
        front, objective = self.front_end(batch), self.objective
        states = self.backbone.trunk(front.features, front.frame_mask) if self._needs_clear_states() else None
        parts: dict[str, Tensor] = {}
        predicted: dict[str, Tensor] = {}
        total = torch.zeros((), device=front.features.device)
        if objective.targets:
            assert states is not None
            assert self.target_loss is not None
            predicted = self._read_out(states, front, batch)
            parts["targets"] = self.target_loss(predicted, batch["targets"], batch["target_mask"])
            total = total + objective.targets * parts["targets"]
        for name, module in self.objectives.items():
            said = module(self.backbone, front, batch, self.global_step, states)
            parts |= {f"{name}/{key}": value for key, value in said.items() if key != "loss"}
            parts[name] = said["loss"]
            total = total + getattr(objective, name) * said["loss"]
        if self.anchor is not None and self.training:
            assert states is not None
            parts["anchor"] = self.anchor(self.backbone, states, front)
            total = total + parts["anchor"]
        return {"loss": total, **parts}, predicted

    def _needs_clear_states(self) -> bool:
        """Whether anything reads the hidden states of the sound with nothing hidden."""
        return bool(self.objective.targets or self.objective.ctc or self.anchor is not None)

    # --- parts that the data or a checkpoint decide ---

    def build_head(self, sizes: Mapping[str, int], columns: Mapping[str, Any] | None = None) -> None:
        """Make the head and the loss for these numbers of targets per subject; `setup` does so from the data."""
        over, seed = self.pooling_config.over, self.hparams["seed"]
        hidden_size = self.backbone.hidden_size
        self.head = build_head(self.head_config, hidden_size, dict(sizes), over, seed, columns).to(self.device)
        if not LOSSES[self.loss_config.name].needs_ceilings:
            self.target_loss = TargetLoss(self.loss_config)

    def _build_recorded(self, record: Mapping[str, Any]) -> None:
        if self.head is None and record["target_sizes"]:
            self.build_head(record["target_sizes"])
        if record["characters"] and "ctc" not in self.objectives:
            self._build_ctc(record["characters"])
        self._resumed = True

    def _build_ctc(self, characters: str) -> None:
        self.objectives["ctc"] = build_ctc(self.objective, self.backbone, characters, self.hparams["seed"]).to(
            self.device
        )

    def _built_head(self) -> Head:
        if self.head is None:
            raise ValueError(
                "the head is not built yet: it needs the data's voxel counts. Run through a Trainer with a data module,"
                " or load a checkpoint; pooled_states works without it. A model trained without targets"
                " (objective.targets 0) never has one and predicts nothing."
            )
        return self.head

    def _record(self) -> dict[str, Any]:
        kept = {key: self.hparams[key] for key in ("layer", "pooling", "head", "lora")}
        ctc: Any = dict(self.objectives.items()).get("ctc")
        return {
            "backbone": self.backbone.describe(),
            "target_sizes": None if self.head is None else self.head.target_sizes,
            "characters": None if ctc is None else ctc.characters,
            **kept,
        }

    def _highest_layer(self) -> int:
        """The highest hidden state that any loss reads."""
        whole = self.objective.self_supervised or self.objective.ctc
        return self.backbone.n_layers if whole else self.layer

    def _layer_index(self, layer: int) -> int:
        n_states = self.backbone.n_layers + 1
        if not -n_states <= layer < n_states:
            raise ValueError(
                f"layer {layer} is not there: the backbone has {self.backbone.n_layers} layers, so 0..{n_states - 1} or"
                f" -{n_states}..-1."
            )
        return layer % n_states

    def restore_record(self, asked: BackboneConfig, record: Mapping[str, Any]) -> None:
        """Take over a checkpoint's account of itself, before its weights are loaded: see load_tuned."""
        self.hparams["backbone"] = plain({"backbone": asked})["backbone"]
        self.backbone.restore_description(asked, record["backbone"]["origin"])
        self._build_recorded(record)
