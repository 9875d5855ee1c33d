"""fit, validate, test and predict: LightningCLI with a run directory, loggers and checkpoints of our own.

What predict computes becomes one file in the run's folder; and a process that trains keeps the memory that a step
frees, which every step needs again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import yaml
from jsonargparse import ArgumentParser, set_dumper
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from brainlit.callbacks.divergence import DivergenceGuard
from brainlit.callbacks.resume import RandomState, Requeue, WithinEpoch
from brainlit.cli.config_names import SAID, config_files
from brainlit.cli.errors import UsageError, quieten
from brainlit.cli.refusals import HintingParser, missing_package, require_known_trainer
from brainlit.cli.reports import chosen_checkpoint
from brainlit.cli.run_options import RunOptions, follow_run, open_run
from brainlit.cli.trust import check_config_files, config_argument, require_store, without_trust
from brainlit.cli.yaml_names import dump_yaml
from brainlit.datamodules import StoryDataModule
from brainlit.files import atomic_path
from brainlit.hdf5 import new_file, write_array, write_text
from brainlit.results.loggers import MetricsLogger, wandb_logger
from brainlit.results.run_directory import RunDirectory
from brainlit.splits import Span
from brainlit.tuning import BrainTuning
from brainlit.tuning.checkpoint import AtomicCheckpointIO

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

Built = TypeVar("Built")
PREDICTIONS_FILE = "predictions.h5"

_IRRELEVANT_WARNINGS = (
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

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_LARGEST_BYTES = 2**31 - 4096


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Run fit, validate, test or predict; returns the exit status."""
    quieten()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.msg)
    for message in _IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    keep_freed_memory()
    cli = BrainlitCLI(verb, *_expanded(verb, list(arguments)))
    if cli.run is not None:
        return _fit(cli, cli.run)
    checkpoint = cli.config.ckpt_path  # it is there: the command was refused before anything was built, if not
    result = getattr(cli.trainer, verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    if verb == "predict":
        print(f"Predictions: {write_predictions(result, cli.datamodule, Path(checkpoint))}")
    return 0


class BrainlitCLI(LightningCLI):
    """Parse, open the run directory, build model, data and trainer.

    Parameters
    ----------
    verb : str
        fit, validate, test or predict. Only fit makes a run directory.
    arguments : sequence of str
        What follows the verb.
    sent : Path, optional
        The run whose own configuration is among them and is not trusted: its story store must be there.

    Attributes
    ----------
    run : RunDirectory or None
        The run that fit records.
    """

    def __init__(self, verb: str, arguments: Sequence[str], sent: Path | None = None) -> None:
        self.verb, self.sent = verb, sent
        set_dumper("yaml", dump_yaml)
        self.run: RunDirectory | None = None
        super().__init__(
            BrainTuning,
            StoryDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=HintingParser,
            parser_kwargs={
                "prog": f"brainlit {verb}",
                "description": f"{getattr(pl.Trainer, verb).__doc__.strip().splitlines()[0]} {SAID}",
                "parser_mode": "omegaconf+",
                "allow_abbrev": False,
            },
            args=list(arguments),
            run=False,
            auto_configure_optimizers=False,
        )

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; a new run that fails before that leaves no folder."""
        try:
            super().instantiate_classes()
        except Exception as error:
            if self.run is not None and _is_first_process():
                self.run.discard_unused()
            if (missing := missing_package(error)) is not None:
                raise UsageError(
                    f"a class that the options name needs a package that is not here ({missing}). Install it, or name"
                    " another class."
                ) from error
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the group `run`, and the checkpoint for the verbs that need one."""
        parser.add_class_arguments(RunOptions, "run")
        if self.verb != "fit":
            parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to load.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given to the verb, after a look at the files that they name."""
        check_config_files(args)
        self.config_files = config_files(args)
        if isinstance(parser, HintingParser):
            parser.typed = list(args)
        self.config = parser.parse_args(args)

    @property
    def resolved(self) -> dict[str, Any]:
        """The configuration with everything filled in, as plain values."""
        return dict(yaml.safe_load(self.parser.dump(self.config, skip_validation=True)))

    def before_instantiate_classes(self) -> None:
        """Open the run, or see that the checkpoint is there, before anything is built."""
        require_known_trainer(self.config.trainer.strategy, self.config.trainer.accelerator)
        if self.verb != "fit":
            _require_checkpoint(self.verb, self.config.ckpt_path)
            if self.sent is not None:
                require_store(self.resolved, self.sent)
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
        trainer = super().instantiate_trainer(**kwargs)
        for callback in getattr(trainer, "callbacks", []):
            if hasattr(callback, "config_files"):
                callback.config_files = self.config_files
        return trainer


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
    except Exception:
        if _is_first_process():
            run.discard_unused()
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


def _expanded(verb: str, arguments: list[str]) -> tuple[list[str], Path | None]:
    """`brainlit test RUN` stands for the configuration and the best (else last) checkpoint of that run.

    Also the run, where its configuration is not trusted.
    """
    arguments, trust = without_trust(arguments)
    if verb == "fit" or not arguments or arguments[0].startswith("-"):
        return arguments, None
    path = Path(arguments[0])
    checkpoint = chosen_checkpoint(RunDirectory.open(path), "best")
    options = [*config_argument(path, trust), "--ckpt_path", str(checkpoint), *arguments[1:]]
    return options, None if trust else path


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


class ParsingCLI(BrainlitCLI):
    """Only parses; nothing is built or written."""

    def _set_seed(self) -> None:
        """Nothing random happens."""

    def before_instantiate_classes(self) -> None:
        """No run."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""


def parsed(verb: str, arguments: Sequence[str]) -> ParsingCLI:
    """The configuration that the arguments describe, in `config` and `resolved`."""
    return ParsingCLI(verb, arguments)


def parsed_datamodule(arguments: Sequence[str]) -> StoryDataModule:
    """The data module that the options of `brainlit fit` describe; no model is built, no run directory made."""
    return built("data", StoryDataModule, parsed("fit", arguments).resolved["data"])


def built(group: str, kind: type[Built], settings: Mapping[str, Any]) -> Built:
    """An object of a class from the plain settings of a group of options; errors name the group."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, group)
    made: Built = parser.instantiate_classes(parser.parse_object({group: dict(settings)}))[group]
    return made


# --- Predictions ---


def write_predictions(batches: Sequence[dict[str, Any]], datamodule: Any, checkpoint: Path) -> Path:
    """Write <subject>/<story>, float32 (n_trs, n_targets), NaN outside the scored spans, and <subject>/voxels.

    Parameters
    ----------
    batches : sequence of dict
        What Trainer.predict returns: story, first_tr and predictions by subject, per batch.
    datamodule : StoryDataModule
        Set up; names the stories, spans and target voxels.
    checkpoint : Path
        The file goes into the folder of its run, <run>/checkpoints/<checkpoint>.

    Returns
    -------
    Path
        <run>/predictions.h5.
    """
    path = checkpoint.resolve().parent.parent / PREDICTIONS_FILE
    rows = collect_rows(batches, datamodule.story_names, datamodule.roles.spans("score"), datamodule.store.n_trs)
    with atomic_path(path) as temporary, new_file(temporary) as file:
        write_text(file, "checkpoint", str(checkpoint))
        for (subject, story), values in rows.items():
            write_array(file, f"{subject}/{story}", values)
        write_text(file, "regime", datamodule.regime)
        if datamodule.regime in ("brain", "permuted"):  # the others predict representations, which are no voxels
            for subject, voxels in datamodule.target_voxels.items():
                write_array(file, f"{subject}/voxels", voxels)
    return path


def collect_rows(
    batches: Sequence[dict[str, Any]], story_names: Sequence[str], spans: Sequence[Span], n_trs_of: Any
) -> dict[tuple[str, str], npt.NDArray[np.float32]]:
    """Put windows back in their places: (subject, story) -> (n_trs, n_targets), NaN where nothing was predicted."""
    rows: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
    for batch in batches:
        for k, (index, first) in enumerate(zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)):
            story = story_names[index]
            stop = next(s.stop_tr for s in spans if s.story == story and s.start_tr <= first < s.stop_tr)
            for subject, predicted in batch["predictions"].items():
                values = predicted[k].float().cpu().numpy()
                shape = (n_trs_of(story), values.shape[1])
                target = rows.setdefault((subject, story), np.full(shape, np.nan, dtype=np.float32))
                n_rows = min(len(values), stop - first)
                target[first : first + n_rows] = values[:n_rows]
    return rows


# --- Memory ---


def keep_freed_memory() -> bool:
    """Ask glibc to reuse large freed blocks instead of handing them back to the kernel; True where it understood.

    Every step on a CPU frees and asks again for hundreds of MB; fetched from the kernel each time, they cost a page
    fault per 4 kB, and a step of the tiny model takes about twice as long. A process that was asked keeps its peak
    memory until it ends, so only commands that train do this, never the library.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_BYTES))
