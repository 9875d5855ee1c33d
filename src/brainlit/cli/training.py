"""fit, validate, test and predict: LightningCLI with a run directory, loggers and checkpoints of our own.

What predict computes becomes one file in the run's folder; and a process that trains keeps the memory that a step
frees, which every step needs again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentParser, set_dumper
from lightning.fabric.utilities import move_data_to_device
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from brainlit.cli.computed import about_test_r, predicted_sentence
from brainlit.cli.config_names import SAID, config_files
from brainlit.cli.continuing import BEST, LAST, Start, asked_start, say_where
from brainlit.cli.errors import UsageError, quieten
from brainlit.cli.probe_settings import FitParser, words_of_fields
from brainlit.cli.refusals import HintingParser
from brainlit.cli.reports import chosen_checkpoint
from brainlit.cli.run_options import RUN_VARIABLE, RunOptions, follow_run, open_run
from brainlit.cli.short_help import ALL
from brainlit.cli.trainer import (
    as_list,
    packages_in_words,
    refused_in_words,
    require_trainer,
    trainer_of_fit,
    trainer_of_others,
)
from brainlit.cli.trust import check_config_files, config_argument, require_store, without_trust
from brainlit.cli.yaml_names import dump_yaml
from brainlit.datamodules import StoryDataModule
from brainlit.results.run_directory import RunDirectory
from brainlit.results.wandb_logger import WandbOptions
from brainlit.tuning import BrainTuning
from brainlit.tuning.across_processes import gather_in_first
from brainlit.tuning.checkpoint import AtomicCheckpointIO

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

Built = TypeVar("Built")

_IRRELEVANT_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # Reading a window takes a thousandth of what encoding it takes; workers would only cost memory.
    (".*does not have many workers.*", PossibleUserWarning),
    # The run directory is ours from the start, and what it holds is meant to be there when a run is resumed.
    (".*Checkpoint directory .* exists and is not empty.*", UserWarning),
    # BrainTuning puts the backbone into the mode that was asked for, and says which one that is.
    (".*module.s. in eval mode at the start of training.*", PossibleUserWarning),
    # Short epochs are usual here; the epoch's means are logged all the same.
    (".*smaller than the logging interval.*", PossibleUserWarning),
    # What only computes needs none of the callbacks of fit.
    (".*callbacks used to create the checkpoint need to be provided.*", UserWarning),
    # Lightning's use of torch, which no user can change.
    (".*treespec, LeafSpec.*", FutureWarning),
)
"""Warnings of Lightning's that do not apply here, and their kinds."""
_IRRELEVANT_RECORDS = re.compile(
    r"[GT]PU available: False|Loading `train_dataloader` to estimate|`Trainer\.fit` stopped: `max_(epochs|steps)="
    r"|Restoring states from the checkpoint path"
)
"""What Lightning logs that is neither news nor anybody's to act on: a run ends when it has done what it was asked."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_LARGEST_BYTES = 2**31 - 4096


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Run fit, validate, test or predict; returns the exit status."""
    _make_quiet(trains=verb == "fit")
    if ALL in arguments:
        with words_of_fields():
            ParsingCLI(verb, ["--help"])
    cli = BrainlitCLI(verb, *_expanded(verb, list(arguments)))
    if cli.run is not None:
        return _fit(cli, cli.run)
    checkpoint = cli.config.ckpt_path  # it is there: the command was refused before anything was built, if not
    result = getattr(cli.trainer, verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    if said := _said_at_the_end(verb, cli, result):
        print(said)
    return 0


def tuned_model_of(run: Path, checkpoint: Path, options: Sequence[str], trust: bool) -> BrainlitCLI:
    """Model, data module and trainer as `predict RUN` makes them; the weights come when the trainer predicts."""
    _make_quiet(trains=False)
    of_run = config_argument(run, trust)
    given = [*of_run, "--trainer.devices", "1", *options, "--ckpt_path", str(checkpoint)]
    return BrainlitCLI("predict", given, None if trust else run)


def _make_quiet(trains: bool) -> None:
    """What a process that trains or computes is to say, and that it keeps the memory that it has."""
    quieten(trains=trains)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)
    for message, category in _IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)
    keep_freed_memory()


def _said_at_the_end(verb: str, cli: BrainlitCLI, result: Any) -> str:
    """What test and predict have to say, and predict to write; the first process does it, for all of them."""
    checkpoint = Path(str(cli.config.ckpt_path))
    if verb == "predict" and result is not None:
        batches = gather_in_first(move_data_to_device(result, "cpu"))
        return predicted_sentence(cli.trainer, batches, cli.datamodule, checkpoint) if batches else ""
    if verb == "test" and _is_first_process():
        return about_test_r(cli.trainer, cli.model, cli.datamodule, checkpoint)
    return ""


def _is_news(record: logging.LogRecord) -> bool:
    return _IRRELEVANT_RECORDS.match(str(record.msg).strip()) is None and "Tip:" not in str(record.msg)


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
    also : sequence of str
        Options that the verb takes itself, without dashes before them; what is refused may have meant one of them.

    Attributes
    ----------
    run : RunDirectory or None
        The run that fit records.
    start : Start or None
        The checkpoint of another run that it goes on from.
    """

    def __init__(self, verb: str, arguments: Sequence[str], sent: Path | None = None, also: Sequence[str] = ()) -> None:
        self.verb, self.sent, self.also = verb, sent, also
        set_dumper("yaml", dump_yaml)
        self.run: RunDirectory | None = None
        self.start: Start | None = None
        super().__init__(
            BrainTuning,
            StoryDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=FitParser,
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
            with packages_in_words():
                super().instantiate_classes()
        except Exception:
            if self.run is not None and _is_first_process():
                self.run.discard_unused()
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the groups `run` and `wandb`, and the checkpoint."""
        parser.add_class_arguments(RunOptions, "run")
        parser.add_class_arguments(WandbOptions, "wandb")
        use = "go on from: last (the interrupted run) or a file" if self.verb == "fit" else "load"
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=f"Checkpoint to {use}.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given to the verb, after a look at the files that they name."""
        check_config_files(args)
        self.config_files = config_files(args)
        if isinstance(parser, HintingParser):
            parser.typed, parser.also = list(args), self.also
        self.config = parser.parse_args(args)

    @property
    def resolved(self) -> dict[str, Any]:
        """The configuration with everything filled in, as plain values.

        Without `ckpt_path: last`, which says only what happens anyway: the run is the same.
        """
        found = dict(yaml.safe_load(self.parser.dump(self.config, skip_validation=True)))
        if found.get("ckpt_path") in (None, LAST):
            found.pop("ckpt_path", None)
        return found

    def before_instantiate_classes(self) -> None:
        """Open the run, or see that the checkpoint is there, before anything is built."""
        trainer, asked = self.config.trainer.as_dict(), self.config.ckpt_path
        require_trainer(trainer)
        if self.verb != "fit":
            _require_checkpoint(self.verb, asked)
            if self.sent is not None:
                require_store(self.resolved, self.sent)
        else:
            options = RunOptions(**self.config.run.as_dict())
            self.start = asked_start(asked, options, trainer)
            self.run = open_run(options, self.resolved) if _is_first_process() else follow_run(options)
            say_where(asked, self.run)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer, which logs and saves into the run directory; the other verbs only compute."""
        given = self.config_init.trainer
        if self.run is None:
            kwargs.update(trainer_of_others(given))
        else:
            options, step = RunOptions(**self.config.run.as_dict()), self.run.resumed_step
            if self.start is not None and self.run.last_checkpoint is None:
                step = self.start.step
            wandb = WandbOptions(**self.config.wandb.as_dict())
            config = {**self.resolved, "config_files": self.config_files}
            kwargs.update(trainer_of_fit(given, self.run, options, config, step, wandb))
            kwargs["plugins"] = [*as_list(given.plugins), AtomicCheckpointIO()]
        with refused_in_words():
            trainer = super().instantiate_trainer(**kwargs)
        for callback in getattr(trainer, "callbacks", []):
            if hasattr(callback, "config_files"):
                callback.config_files = self.config_files
        return trainer


def _fit(cli: BrainlitCLI, run: RunDirectory) -> int:
    path, start = run.last_checkpoint, cli.start
    try:
        if path is None and start is not None:
            path = start.path
            start = start.bring_records(run) if _is_first_process() else start
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=str(path) if path else None)
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
            if start is not None and run.last_checkpoint is None:
                start.take_back()
            run.discard_unused()
        raise
    finally:
        run.release()
        os.environ.pop(RUN_VARIABLE, None)  # what this process starts later is no part of this run
    return 0


def _is_first_process() -> bool:
    """Whether this process records the run: the only one, or the first of a distributed run."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def _require_checkpoint(verb: str, path: str | None) -> None:
    if path in (None, LAST, BEST):
        raise UsageError(
            f"brainlit {verb} needs a tuned model: brainlit {verb} runs/<experiment>/<id>, which takes the best"
            " checkpoint of that run unless --ckpt_path says another (last, or a file)."
        )
    if not Path(str(path)).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}. Look into the run's folder checkpoints/.")


def _expanded(verb: str, arguments: list[str]) -> tuple[list[str], Path | None]:
    """`brainlit test RUN` stands for the configuration and the best (else last) checkpoint of that run.

    `--ckpt_path` behind it names another one: last, a file, or a file of the run's. Also the run, where its
    configuration is not trusted.
    """
    arguments, trust = without_trust(arguments)
    if verb == "fit" or not arguments or arguments[0].startswith("-"):
        return arguments, None
    path, more, name = Path(arguments[0]), list[str](), BEST
    words = iter(arguments[1:])
    for word in words:
        option, equals, value = word.partition("=")
        if option == "--ckpt_path":
            name = value if equals else next(words, "")
        else:
            more.append(word)
    checkpoint = chosen_checkpoint(RunDirectory.open(path), name)
    options = [*config_argument(path, trust), "--ckpt_path", str(checkpoint), *more]
    return options, None if trust else path


class ParsingCLI(BrainlitCLI):
    """Only parses; nothing is built or written."""

    def _set_seed(self) -> None:
        """Nothing random happens."""

    def before_instantiate_classes(self) -> None:
        """No run."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""


def parsed(verb: str, arguments: Sequence[str], also: Sequence[str] = ()) -> ParsingCLI:
    """The configuration that the arguments describe, in `config` and `resolved`; `also` as in `BrainlitCLI`."""
    return ParsingCLI(verb, arguments, also=also)


def built(group: str, kind: type[Built], settings: Mapping[str, Any]) -> Built:
    """An object of a class from the plain settings of a group of options; errors name the group."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, group)
    made: Built = parser.instantiate_classes(parser.parse_object({group: dict(settings)}))[group]
    return made


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
