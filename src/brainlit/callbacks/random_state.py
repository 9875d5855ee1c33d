"""A resumed run draws the random numbers that the uninterrupted one would have drawn."""

from __future__ import annotations

import logging
import random
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

log = logging.getLogger(__name__)

KEY = "random_states"


class RandomState(pl.Callback):
    """Keep the random states of python, numpy and torch in every checkpoint, and go on from them after a resume.

    Lightning keeps weights, optimiser, schedule and progress; dropout and SpecAugment draw from torch's global state,
    which it does not. Each process of a distributed run keeps its own state.

    A checkpoint from between two epochs is gone on with as soon as it is loaded, before the loader is asked for an
    iterator (which draws from torch's global state if the loader has no generator of its own), as in the run that was
    not interrupted; one from within an epoch after that, since there the iterator was made long before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._within_epoch = False
        self._waiting: dict[str, Any] | None = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states of all processes."""
        states = gathered(random_states(), trainer.world_size)
        checkpoint[KEY] = {"within_epoch": self._within_epoch, "processes": states}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from a checkpoint that was written between two epochs; checkpoints without states are said."""
        found = checkpoint.get(KEY)
        if found is None:
            log.warning("the checkpoint holds no random states: dropout goes on with other numbers than it would have.")
        elif len(found["processes"]) != trainer.world_size:
            n_then, n_now = len(found["processes"]), trainer.world_size
            log.warning("the run had %d processes and has %d now: their random states start anew.", n_then, n_now)
        elif found["within_epoch"]:
            self._waiting = found["processes"][trainer.global_rank]
        else:
            set_random_states(found["processes"][trainer.global_rank])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on from a checkpoint that was written within an epoch."""
        self._within_epoch = self._waiting is not None
        if self._waiting is not None:
            set_random_states(self._waiting)
        self._waiting = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, checkpoints are written within an epoch."""
        self._within_epoch = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, they are not."""
        self._within_epoch = False


def random_states() -> dict[str, Any]:
    """The global random states of this process, as tensors and plain values that a checkpoint may hold."""
    found: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state is meant
    name, keys, position, has_gauss, gauss = found
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Give back what `random_states` returned; a CUDA state is left out where there is no such device now."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def gathered(states: dict[str, Any], world_size: int) -> list[dict[str, Any]]:
    """The states of all processes, in order of their rank; called by all of them."""
    if world_size == 1:
        return [states]
    everyones: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(everyones, states)
    return everyones
