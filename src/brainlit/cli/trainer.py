"""What goes into the Trainer of a verb beside what the user gives: callbacks, checkpoints, loggers; what is refused.

The user's callbacks and loggers are taken as LightningCLI takes them, in every verb. What brainlit adds to them makes
way where the two would collide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers import Logger, WandbLogger

from brainlit.callbacks.divergence import DivergenceGuard
from brainlit.callbacks.probe import BandedRidgeProbe
from brainlit.callbacks.process_watch import ProcessWatch
from brainlit.callbacks.resume import RandomState, Requeue, WithinEpoch
from brainlit.callbacks.training_bar import TrainingBar
from brainlit.cli.errors import UsageError, is_for_the_user
from brainlit.cli.refusals import missing_package, require_known_trainer
from brainlit.cli.run_options import RunOptions
from brainlit.results.loggers import MetricsLogger
from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import WandbOptions, wandb_logger
from brainlit.results.wandb_session import wandb_mode
from brainlit.tuning.precision import require_precision


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint that brainlit keeps; Lightning tells its state from that of a ModelCheckpoint of the user's."""


def require_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse settings of the trainer with which no verb works, before anything is built.

    Raises
    ------
    UsageError
        If a name is not known, or the mode leaves out what a run is made of.
    ValueError
        If the precision is none that tuning computes in.
    """
    require_known_trainer(trainer["strategy"], trainer["accelerator"])
    require_precision(trainer["precision"])
    if trainer.get("overfit_batches"):
        raise UsageError(
            f"--trainer.overfit_batches {trainer['overfit_batches']:g} cannot be used: the windows of an epoch are"
            " drawn by a sampler that Lightning cannot replace. Give --trainer.limit_train_batches, or tune on a short"
            " span (data.roles, such as tune: ['STORY[0:32]'])."
        )
    if trainer.get("barebones"):
        raise UsageError(
            "--trainer.barebones true does without checkpoints, loggers and all that is logged, and a run is made of"
            " them. Leave it out; --trainer.profiler simple says what takes the time."
        )


def trainer_of_fit(
    given: Mapping[str, Any],
    run: RunDirectory,
    options: RunOptions,
    config: Mapping[str, Any],
    resumed_step: int | None,
    wandb: WandbOptions | None = None,
) -> dict[str, Any]:
    """Callbacks, loggers and folder of the trainer that fit makes.

    Parameters
    ----------
    given : mapping
        The user's settings of the trainer; callbacks and loggers as objects.
    config : mapping
        The resolved configuration, for the loggers.
    resumed_step : int or None
        Optimiser steps behind the checkpoint that the run goes on from; None where it begins anew.
    """
    callbacks = as_list(given.get("callbacks"))
    for probe in (one for one in callbacks if isinstance(one, BandedRidgeProbe)):
        probe.share_gb = options.probe_cache_gb
    added: list[Callback] = [ProcessWatch(), RandomState(), WithinEpoch(), Requeue(), DivergenceGuard()]
    if given.get("enable_checkpointing") is not False:
        added += checkpoints(run)
    if given.get("enable_progress_bar") is not False and not any(isinstance(one, ProgressBar) for one in callbacks):
        added.append(TrainingBar())
    table = given.get("enable_model_summary")
    if table is None:  # brainlit says in a line how much of the backbone is trained
        table = any(isinstance(one, ModelSummary) for one in callbacks)
    return {
        "enable_model_summary": table,
        "default_root_dir": str(run.path),
        "callbacks": [*callbacks, *added],
        "logger": loggers(run, options, config, given.get("logger"), resumed_step, wandb),
    }


def trainer_of_others(given: Mapping[str, Any]) -> dict[str, Any]:
    """Callbacks and loggers of validate, test and predict: the user's own, without what saves checkpoints; a watch."""
    logger = given.get("logger")
    return {
        "callbacks": [
            *(one for one in as_list(given.get("callbacks")) if not isinstance(one, Checkpoint)),
            ProcessWatch(),
        ],
        "logger": False if isinstance(logger, bool) or logger is None else logger,
        "enable_checkpointing": False,
    }


def checkpoints(run: RunDirectory) -> list[Callback]:
    """last.ckpt after every epoch, best.ckpt where the validation loss is lowest."""
    shared: dict[str, Any] = {"dirpath": str(run.checkpoints), "enable_version_counter": False}
    return [
        RunCheckpoint(filename="last", save_on_train_epoch_end=True, **shared),
        RunCheckpoint(filename="best", monitor="val/loss", **shared),
    ]


def loggers(
    run: RunDirectory,
    options: RunOptions,
    config: Mapping[str, Any],
    given: Logger | Sequence[Logger] | bool | None = None,
    resumed_step: int | None = None,
    wandb: WandbOptions | None = None,
) -> list[Any] | bool:
    """The user's loggers and metrics.csv; W&B, under an id of the run's own, where it is not off and there is no other.

    Without loggers of the user's own W&B is there unless it is off or not installed; beside them only where the run
    asks for it (`offline` or `online`). False is no logger at all, and no metrics.csv.
    """
    if given is False:
        return False
    own = [] if given in (None, True) else as_list(given)
    metrics = MetricsLogger(run.path, resumed_step=resumed_step)
    if options.wandb == "off" or (own and options.wandb == "auto") or any(isinstance(one, WandbLogger) for one in own):
        return [*own, metrics]
    mode = wandb_mode() if options.wandb == "auto" else options.wandb
    ours = wandb_logger(run, config, wandb, mode, resumed_step)
    return [*own, metrics, *([ours] if ours is not None else [])]


@contextmanager
def packages_in_words() -> Iterator[None]:
    """A package that a class needs and that is not here becomes a sentence for the user."""
    try:
        yield
    except Exception as error:
        if (missing := missing_package(error)) is not None and not isinstance(error, UsageError):
            raise UsageError(
                f"a class that the options name needs a package that is not here ({missing}). Install it, or name"
                " another class."
            ) from error
        raise


@contextmanager
def refused_in_words() -> Iterator[None]:
    """What Lightning refuses when a Trainer is made becomes a sentence for the user."""
    try:
        with packages_in_words():
            yield
    except (ValueError, TypeError, RuntimeError) as error:
        if is_for_the_user(error):
            raise
        raise UsageError(f"Lightning refuses these settings of the trainer: {error}") from error


def as_list(value: Any) -> list[Any]:
    """A list of what is given: one thing, several, or none."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
