"""A resumed run ends as the uninterrupted one would have: random numbers, the rest of an epoch, requeued jobs."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from brainlit.results.run_directory import slurm_job

log = logging.getLogger(__name__)

RANDOM_STATES = "random_states"
EPOCH_SO_FAR = "epoch_so_far"
"""Entries of a checkpoint."""
REQUEUED_CHECKPOINT = "hpc_ckpt_1.ckpt"
"""In the run's folder; a name by which Lightning would find it, too."""


# --- Random numbers ---


class RandomState(Callback):
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

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the states of all processes."""
        states = gathered(random_states(), trainer.world_size)
        checkpoint[RANDOM_STATES] = {"within_epoch": self._within_epoch, "processes": states}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint that was written between two epochs; checkpoints without states are said."""
        found = checkpoint.get(RANDOM_STATES)
        if found is None:
            log.warning("the checkpoint holds no random states: dropout goes on with other numbers than it would have.")
        elif len(found["processes"]) != trainer.world_size:
            n_then, n_now = len(found["processes"]), trainer.world_size
            log.warning("the run had %d processes and has %d now: their random states start anew.", n_then, n_now)
        elif found["within_epoch"]:
            self._waiting = found["processes"][trainer.global_rank]
        else:
            set_random_states(found["processes"][trainer.global_rank])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from a checkpoint that was written within an epoch."""
        self._within_epoch = self._waiting is not None
        if self._waiting is not None:
            set_random_states(self._waiting)
        self._waiting = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, checkpoints are written within an epoch."""
        self._within_epoch = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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


# --- The rest of an epoch ---


class WithinEpoch(Callback):
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

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the sums of the epoch so far."""
        checkpoint[EPOCH_SO_FAR] = {key: _sums(metric) for key, metric in _epoch_metrics(trainer).items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the sums until there are new ones to add them to."""
        self._so_far = dict(checkpoint.get(EPOCH_SO_FAR, {}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the loader its place back, before the first batch is asked for, and the module its modes."""
        trainer.fit_loop._load_combined_loader_states()
        if trainer.fit_loop.restarted_mid_epoch:
            pl_module.on_train_epoch_start()
        else:
            self._so_far = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the sums of before to those of the first batch after the resume."""
        for key, metric in _epoch_metrics(trainer).items():
            for name, value in self._so_far.pop(key, {}).items():
                setattr(metric, name, getattr(metric, name) + value.to(metric.value.device))


def _epoch_metrics(trainer: Trainer) -> dict[str, Any]:
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


# --- Jobs that the scheduler ends ---


class Requeue(Callback):
    """Save a checkpoint when SLURM announces the end of the job (SIGUSR1), then requeue it; save on SIGTERM anywhere.

    Lightning does so too, but in the signal handler itself, wherever the training happens to be: in the middle of an
    optimiser step, say. Here the running step is finished first, so a run that goes on from this checkpoint is the run
    that was not interrupted. Where no step is running (while a probe or a validation takes its time), and after the
    last step of an epoch, the job is requeued at once and goes on from the checkpoint that there is.

    Ask SLURM for the signal with `#SBATCH --signal=SIGUSR1@120 --requeue` and start with srun. A plugin
    `SLURMEnvironment(auto_requeue=False)` switches the requeueing off. The checkpoint is removed when the run is done.

    Where there are several processes, one signal to one of them is enough: all save, and on SIGTERM all end, after the
    same step. On a SIGTERM that comes while no step is running the process ends at once, as if it had no handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trainer: Trainer | None = None
        self._process: int | None = None
        self._previous: Any = None
        self._signal: signal.Signals | None = None
        self._training = self._asked = self._ends = self._saved = self._done = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signal before Lightning does (it leaves alone a signal that has a handler)."""
        self._process = os.getpid()
        environment = trainer._accelerator_connector.cluster_environment
        slurm = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        if stage == "fit" and slurm and threading.current_thread() is threading.main_thread():
            assert isinstance(environment, SLURMEnvironment)
            self._trainer, self._signal = trainer, environment.requeue_signal or signal.SIGUSR1
            self._previous = signal.signal(self._signal, self._on_signal)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signal back."""
        if self._signal is not None:
            signal.signal(self._signal, self._previous)
            self._signal = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there are steps."""
        self._trainer, self._training, self._ends = trainer, True, False
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            # Lightning's handler, which it takes back, waits for all processes within itself, wherever each of them is:
            # if they are in different exchanges, or one has no signal, they wait for ever.
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done: save now, if any process was asked to."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return  # gathered gradients are in no checkpoint, and after the last batch Lightning cannot go on
        ends = self._ends or trainer.received_sigterm
        if not _any_process(trainer, ends or (self._asked and not self._done)):
            return
        if not self._done:
            self._done = self._saved = True
            trainer.save_checkpoint(_checkpoint(trainer))
            log.info("saved %s after step %d", _checkpoint(trainer), trainer.global_step)
        if _any_process(trainer, ends):
            trainer._signal_connector.received_sigterm = True  # Lightning ends the run after this step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """What the step logged is written, too: SLURM may end the job now."""
        if self._saved and self._asked and trainer.is_global_zero:
            self._saved = False
            requeue()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The signal came during the last step of an epoch."""
        self._requeue_unsaved(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there are no steps; a SIGTERM that came during the last one has its way."""
        self._training = False
        if self._ends:
            self._end_at_once()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The run is done: its last checkpoint is newer than this one."""
        if trainer.is_global_zero:
            _checkpoint(trainer).unlink(missing_ok=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # SLURM signals every process of the job, and workers of loaders are copies of this one
        assert self._trainer is not None
        self._asked = True
        if not self._a_step_will_end(self._trainer):
            self._requeue_unsaved(self._trainer)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._end_at_once()  # a copy of the training has no step to finish
            return
        assert self._trainer is not None
        self._ends = True
        if not self._a_step_will_end(self._trainer):
            self._end_at_once()

    def _end_at_once(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def _a_step_will_end(self, trainer: Trainer) -> bool:
        """Whether a training step is running or the next thing to come: not while probing, validating, preparing."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        running = progress.current.completed < progress.current.ready
        return self._training and bool(trainer.training) and (running or not progress.is_last_batch)

    def _requeue_unsaved(self, trainer: Trainer) -> None:
        if self._asked and not self._done:
            self._done = True
            if trainer.is_global_zero:
                log.info("the scheduler is about to end this job while no step is running: its last checkpoint stands")
                requeue()


def requeue() -> bool:
    """Ask SLURM to start this job again; returns whether it agreed. A failure is logged: the run itself is safe."""
    job = slurm_job()
    if job is None:
        return False
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("could not requeue job %s: %s. Submit it again; it goes on where it was.", job, error)
        return False
    if done.returncode:
        log.warning("could not requeue job %s: %s Submit it again; it goes on where it was.", job, done.stderr.strip())
    else:
        log.info("requeued job %s", job)
    return done.returncode == 0


def _any_process(trainer: Trainer, asked: bool) -> bool:
    """The scheduler's signal reaches processes in different steps; they all save after the same one."""
    return bool(trainer.strategy.reduce_boolean_decision(asked, all=False))


def _checkpoint(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / REQUEUED_CHECKPOINT
