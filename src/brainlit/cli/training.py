"""fit, validate, test and predict: LightningCLI with a run directory, loggers and checkpoints of our own."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import lightning.pytorch as pl
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from brainlit.callbacks.divergence import DivergenceGuard
from brainlit.callbacks.random_state import RandomState
from brainlit.callbacks.requeue import Requeue
from brainlit.callbacks.within_epoch import WithinEpoch
from brainlit.cli.allocator import keep_freed_memory
from brainlit.cli.errors import UsageError
from brainlit.cli.parser import HintingParser
from brainlit.cli.predictions import write_predictions
from brainlit.cli.run_options import CONFIG_FILE, RunOptions, follow_run, open_run
from brainlit.datamodules import StoryDataModule
from brainlit.results.checkpoint_io import AtomicCheckpointIO
from brainlit.results.loggers import MetricsLogger, wandb_logger
from brainlit.results.run_directory import RunDirectory
from brainlit.tuning import BrainTuning

log = logging.getLogger(__name__)

NOT_NEWS = (
    # Reading a window takes a thousandth of what encoding it takes; workers would only cost memory.
    ".*does not have many workers.*",
    # The run directory is ours from the start, and what it holds is meant to be there when a run is resumed.
    ".*Checkpoint directory .* exists and is not empty.*",
    # BrainTuning puts the backbone into the mode that was asked for, and says which one that is.
    ".*module.s. in eval mode at the start of training.*",
    # Short epochs are usual here; the epoch's means are logged all the same.
    ".*smaller than the logging interval.*",
    # What only computes needs none of the callbacks of fit.
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*treespec, LeafSpec.*",
)
"""Warnings of Lightning's that do not apply here."""


class BrainlitCLI(LightningCLI):
    """Parse, open the run directory, build model, data and trainer.

    Parameters
    ----------
    verb : str
        fit, validate, test or predict. Only fit makes a run directory.
    arguments : sequence of str
        What follows the verb.

    Attributes
    ----------
    run : RunDirectory or None
        The run that fit records.
    """

    def __init__(self, verb: str, arguments: Sequence[str]) -> None:
        self.verb = verb
        self.run: RunDirectory | None = None
        super().__init__(
            BrainTuning,
            StoryDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=HintingParser,
            parser_kwargs={
                "prog": f"brainlit {verb}",
                "description": getattr(pl.Trainer, verb).__doc__.strip().splitlines()[0],
                "parser_mode": "omegaconf+",
                "allow_abbrev": False,
            },
            args=list(arguments),
            run=False,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the group `run`, and the checkpoint for the verbs that need one."""
        parser.add_class_arguments(RunOptions, "run")
        if self.verb != "fit":
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to load.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given to the verb."""
        self.config = parser.parse_args(args)

    @property
    def resolved(self) -> dict[str, Any]:
        """The configuration with everything filled in, as plain values."""
        return dict(yaml.safe_load(self.parser.dump(self.config, skip_validation=True)))

    def before_instantiate_classes(self) -> None:
        """Open the run, or see that the checkpoint is there, before anything is built."""
        if self.verb != "fit":
            _require_checkpoint(self.verb, self.config.ckpt_path)
        else:
            options = RunOptions(**self.config.run.as_dict())
            self.run = open_run(options, self.resolved) if _is_first_process() else follow_run(options)
            bar = [] if self.config.trainer.enable_progress_bar is False else [TQDMProgressBar()]
            exact = [RandomState(), WithinEpoch(), Requeue(), DivergenceGuard()]
            self.trainer_defaults["callbacks"] = [*exact, *checkpoints(self.run), *bar]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, which logs and saves into the run directory; the other verbs only compute."""
        given = self.config_init.trainer
        if self.run is None:
            kwargs.update(logger=False, callbacks=None, enable_checkpointing=False)
            return super().instantiate_trainer(**kwargs)
        kwargs["default_root_dir"] = str(self.run.path)
        kwargs["plugins"] = [*_as_list(given.plugins), AtomicCheckpointIO()]
        if given.logger in (None, True):
            kwargs["logger"] = loggers(self.run, RunOptions(**self.config.run.as_dict()), self.resolved)
        return super().instantiate_trainer(**kwargs)


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Run fit, validate, test or predict; returns the exit status."""
    _quieten()
    keep_freed_memory()
    cli = BrainlitCLI(verb, _expanded(verb, list(arguments)))
    if cli.run is not None:
        return _fit(cli, cli.run)
    checkpoint = cli.config.ckpt_path
    if checkpoint is None:
        raise UsageError(
            f"brainlit {verb} needs a tuned model: brainlit {verb} runs/<experiment>/<id>, or --ckpt_path."
        )
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}. Look into the run's folder checkpoints/.")
    result = getattr(cli.trainer, verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    if verb == "predict":
        print(f"Predictions: {write_predictions(result, cli.datamodule, Path(checkpoint))}")
    return 0


def checkpoints(run: RunDirectory) -> list[Callback]:
    """last.ckpt after every epoch, best.ckpt where the validation loss is lowest."""
    shared: dict[str, Any] = {"dirpath": str(run.checkpoints), "enable_version_counter": False}
    return [
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **shared),
        ModelCheckpoint(filename="best", monitor="val/loss", **shared),
    ]


def loggers(run: RunDirectory, options: RunOptions, config: dict[str, Any]) -> list[Any]:
    """metrics.csv always; W&B, under the id of the run, unless it is off or not installed."""
    metrics = MetricsLogger(run.path, resumed_step=run.resumed_step)
    if options.wandb == "off":
        return [metrics]
    with _wandb_mode(options.wandb):
        wandb = wandb_logger(run.path, run_id=run.run_id, config=config, tags=[run.experiment])
    return [metrics, wandb] if wandb is not None else [metrics]


@contextmanager
def _wandb_mode(mode: str) -> Iterator[None]:
    """W&B's own variable for its mode, given back afterwards; auto leaves it as it is."""
    before = os.environ.get("WANDB_MODE")
    if mode != "auto":
        os.environ["WANDB_MODE"] = mode
    try:
        yield
    finally:
        os.environ.pop("WANDB_MODE", None)
        if before is not None:
            os.environ["WANDB_MODE"] = before


def _fit(cli: BrainlitCLI, run: RunDirectory) -> int:
    start = run.last_checkpoint
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=str(start) if start else None)
        if cli.trainer.interrupted:
            raise KeyboardInterrupt
        if _is_first_process() and run.state != "finished":
            run.finish()
    except SystemExit as exit_:  # Lightning's way of ending after Ctrl-C
        if cli.trainer.interrupted:
            raise KeyboardInterrupt from exit_
        raise
    finally:
        run.release()
    return 0


def _is_first_process() -> bool:
    """Whether this process records the run: the only one, or the first of a distributed run."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def _require_checkpoint(verb: str, path: str | None) -> None:
    if path is None:
        raise UsageError(
            f"brainlit {verb} needs a tuned model: brainlit {verb} runs/<experiment>/<id>, or --ckpt_path."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}. Look into the run's folder checkpoints/.")


def _expanded(verb: str, arguments: list[str]) -> list[str]:
    """`brainlit test RUN` stands for the configuration and the best (else last) checkpoint of that run."""
    if verb == "fit" or not arguments or arguments[0].startswith("-"):
        return arguments
    path = Path(arguments[0])
    run = RunDirectory.open(path)
    best = run.checkpoints / "best.ckpt"
    checkpoint = best if best.is_file() else run.last_checkpoint
    if checkpoint is None:
        raise FileNotFoundError(f"{path} has no checkpoint: it was stopped before its first epoch ended.")
    return ["-c", str(path / CONFIG_FILE), "--ckpt_path", str(checkpoint), *arguments[1:]]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _quieten() -> None:
    """Log our own messages plainly; leave out Lightning's advice that does not apply here."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "matplotlib", "fontTools", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.msg)
    for message in NOT_NEWS:
        warnings.filterwarnings("ignore", message=message)


class _Parsed(BrainlitCLI):
    """Only parses."""

    def _set_seed(self) -> None:
        """Nothing random happens."""

    def before_instantiate_classes(self) -> None:
        """No run."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""


def parsed(verb: str, arguments: Sequence[str]) -> BrainlitCLI:
    """The configuration that the arguments describe, in `config` and `resolved`; nothing is built or written."""
    return _Parsed(verb, arguments)


def parsed_datamodule(arguments: Sequence[str]) -> StoryDataModule:
    """The data module that the options of `brainlit fit` describe; no model is built, no run directory made."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(StoryDataModule, "data")
    built = parser.instantiate_classes(parser.parse_object({"data": parsed("fit", arguments).resolved["data"]}))
    datamodule: StoryDataModule = built.data
    return datamodule
