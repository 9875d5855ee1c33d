"""A job that the scheduler is about to end saves itself between two steps, and asks to be started again."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from brainlit.results.run_directory import slurm_job

log = logging.getLogger(__name__)

CHECKPOINT = "hpc_ckpt_1.ckpt"
"""In the run's folder; a name by which Lightning would find it, too."""


class Requeue(pl.Callback):
    """Save a checkpoint when SLURM announces the end of the job (SIGUSR1), then requeue it; save on SIGTERM anywhere.

    Lightning does so too, but in the signal handler itself, wherever the training happens to be: in the middle of an
    optimiser step, say. Here the running step is finished first, so a run that goes on from this checkpoint is the run
    that was not interrupted. Where no step is running (while a probe or a validation takes its time), and after the
    last step of an epoch, the job is requeued at once and goes on from the checkpoint that there is.

    Ask SLURM for the signal with `#SBATCH --signal=SIGUSR1@120 --requeue` and start with srun. A plugin
    `SLURMEnvironment(auto_requeue=False)` switches the requeueing off. The checkpoint is removed when the run is done.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trainer: pl.Trainer | None = None
        self._previous: Any = None
        self._signal: signal.Signals | None = None
        self._training = self._asked = self._saved = self._done = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the signal before Lightning does (it leaves alone a signal that has a handler)."""
        environment = trainer._accelerator_connector.cluster_environment
        slurm = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        if stage == "fit" and slurm and threading.current_thread() is threading.main_thread():
            assert isinstance(environment, SLURMEnvironment)
            self._trainer, self._signal = trainer, environment.requeue_signal or signal.SIGUSR1
            self._previous = signal.signal(self._signal, self._on_signal)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signal back."""
        if self._signal is not None:
            signal.signal(self._signal, self._previous)
            self._signal = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on there are steps."""
        self._training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done: save now, if any process was asked to."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return  # gathered gradients are in no checkpoint, and after the last batch Lightning cannot go on
        if not _any_process(trainer, not self._done and (self._asked or trainer.received_sigterm)):
            return
        self._done = True
        trainer.save_checkpoint(_checkpoint(trainer))
        self._saved = True
        log.info("saved %s after step %d", _checkpoint(trainer), trainer.global_step)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What the step logged is written, too: SLURM may end the job now."""
        if self._saved and self._asked and trainer.is_global_zero:
            self._saved = False
            requeue()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The signal came during the last step of an epoch."""
        self._requeue_unsaved(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on there are no steps."""
        self._training = False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The run is done: its last checkpoint is newer than this one."""
        if trainer.is_global_zero:
            _checkpoint(trainer).unlink(missing_ok=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        assert self._trainer is not None
        self._asked = True
        if not self._a_step_will_end(self._trainer):
            self._requeue_unsaved(self._trainer)

    def _a_step_will_end(self, trainer: pl.Trainer) -> bool:
        """Whether a training step is running or the next thing to come: not while probing, validating, preparing."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        running = progress.current.completed < progress.current.ready
        return self._training and bool(trainer.training) and (running or not progress.is_last_batch)

    def _requeue_unsaved(self, trainer: pl.Trainer) -> None:
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


def _any_process(trainer: pl.Trainer, asked: bool) -> bool:
    """The scheduler's signal reaches processes in different steps; they all save after the same one."""
    return bool(trainer.strategy.reduce_boolean_decision(asked, all=False))


def _checkpoint(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir) / CHECKPOINT
