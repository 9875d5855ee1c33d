"""What `brainlit probe` understands: the probe's settings, and everything that `brainlit fit` knows about data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

from brainlit.cli.probe_settings import CALLBACK, ProbeSettings, flat, words_of_fields
from brainlit.cli.training import ParsingCLI, built
from brainlit.cli.trust import run_config
from brainlit.datamodules import StoryDataModule
from brainlit.encoding.config import ProbeConfig
from brainlit.results.run_directory import RunDirectory

OWN = ("model", "weights", "compare", "trust", "help", "help-all")
"""Options of the verb that its parser does not see."""


class ProbeCLI(ParsingCLI):
    """Parses what follows `brainlit probe`, and builds nothing.

    Parameters
    ----------
    arguments : sequence of str
        Options only.
    defaults : mapping
        Settings of the probe that hold where no option says otherwise.
    """

    def __init__(self, arguments: Sequence[str], defaults: Mapping[str, Any]) -> None:
        self._probe_defaults = {f"probe.{name}": value for name, value in defaults.items()}
        super().__init__("fit", arguments, also=OWN)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the group `probe` and what is the verb's own."""
        super().add_arguments_to_parser(parser)
        add_probe_options(parser)
        parser.set_defaults(self._probe_defaults)

    @property
    def settings(self) -> ProbeSettings:
        """The settings of the probe, checked."""
        return built("probe", ProbeSettings, self.resolved["probe"])


class DataCLI(ParsingCLI):
    """Parses for verbs that only want the data; files of `brainlit probe`, which have a group `probe`, are read too."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the group `probe`."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(ProbeSettings, "probe")


def parsed_datamodule(arguments: Sequence[str], also: Sequence[str] = ()) -> StoryDataModule:
    """The data module that options of `brainlit fit` or `brainlit probe` describe; no model is built, no run made."""
    return built("data", StoryDataModule, DataCLI("fit", arguments, also=also).resolved["data"])


def add_probe_options(parser: ArgumentParser) -> None:
    """Add --probe.*, --checkpoint, --features, --output and --shares."""
    texts = {
        "checkpoint": "Of a run: best (the default; last where there is none), last, or a checkpoint file.",
        "features": "File of features, .h5 or .npz, to probe instead of a model.",
        "output": "Folder to write; a new one beside what is probed by default.",
    }
    for name, text in texts.items():
        parser.add_argument(f"--{name}", type=str | None, default=None, help=text)
    shares = "true: also each region's parts as endless data would give them, with calibrated intervals."
    parser.add_argument("--shares", type=bool, default=False, help=shares)
    parser.add_class_arguments(ProbeSettings, "probe")


def options_help() -> str:
    """The verb's own options with their defaults, without those of `brainlit fit`."""
    parser = ArgumentParser(prog="brainlit probe", usage="", add_help=False)
    with words_of_fields():
        add_probe_options(parser)
    return str(parser.format_help()).partition("\n")[2].strip()


def settings_of_run(run: RunDirectory) -> dict[str, Any]:
    """The settings of a run's own probe, as far as `ProbeSettings` has them; empty where the run had no probe."""
    config = run_config(run.path)
    own = {field.name for field in fields(ProbeSettings)} - {field.name for field in fields(ProbeConfig)}
    callbacks = (config.get("trainer") or {}).get("callbacks")
    for callback in callbacks if isinstance(callbacks, list) else []:
        said = callback if isinstance(callback, Mapping) else {}
        given = said.get("init_args") or {}
        if str(said.get("class_path", "")).endswith(f".{CALLBACK}") and not given.get("name"):
            beside = {key: value for key, value in given.items() if key in own and value is not None}
            return {**flat(given.get("probe") or {}), **beside}
    return {}
