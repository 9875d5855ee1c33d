"""What Lightning forgets when a run goes on in the middle of an epoch: the loader's place, modes, the epoch's means."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

KEY = "epoch_so_far"


class WithinEpoch(pl.Callback):
    """Let a run that is resumed in the middle of an epoch end that epoch as if nothing had happened.

    Lightning keeps the states of resumable loaders, but does not give them back where the optimiser's settings asked
    for the length of the run (`trainer.estimated_stepping_batches`), for then the loader is made before the checkpoint
    is read to its end. It leaves out the module's on_train_epoch_start, which puts the model into train mode. And it
    keeps no sums of what is logged per epoch, so the mean over the interrupted epoch would be that over its last part.
    Put it before every callback that saves checkpoints.
    """

    def __init__(self) -> None:
        super().__init__()
        self._so_far: dict[str, dict[str, Any]] = {}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the sums of the epoch so far."""
        checkpoint[KEY] = {key: _sums(metric) for key, metric in _epoch_metrics(trainer).items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the sums until there are new ones to add them to."""
        self._so_far = dict(checkpoint.get(KEY, {}))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the loader its place back, before the first batch is asked for, and the module its modes."""
        trainer.fit_loop._load_combined_loader_states()
        if trainer.fit_loop.restarted_mid_epoch:
            pl_module.on_train_epoch_start()
        else:
            self._so_far = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the sums of before to those of the first batch after the resume."""
        for key, metric in _epoch_metrics(trainer).items():
            for name, value in self._so_far.pop(key, {}).items():
                setattr(metric, name, getattr(metric, name) + value.to(metric.value.device))


def _epoch_metrics(trainer: pl.Trainer) -> dict[str, Any]:
    """What training steps log as a mean or sum over the epoch, by Lightning's key."""
    results: dict[str, Any] = trainer.fit_loop.epoch_loop._results
    return {
        key: metric
        for key, metric in results.items()
        if metric.is_tensor and metric.meta.on_epoch and (metric.meta.is_mean_reduction or metric.meta.is_sum_reduction)
    }


def _sums(metric: Any) -> dict[str, Any]:
    names = ["value", "cumulated_batch_size"] if metric.meta.is_mean_reduction else ["value"]
    return {name: getattr(metric, name).detach().cpu().clone() for name in names}
