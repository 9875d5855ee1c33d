"""What the command line refuses, and what was probably meant: the nearest thing that the parser or Lightning knows."""

from __future__ import annotations

import importlib
import inspect
import re
from argparse import SUPPRESS
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from brainlit.cli.config_names import nearest_file
from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import argument_hints, meant
from brainlit.cli.yaml_names import quotes_hints
from brainlit.hints import MOST_LISTED, did_you_mean, few, nearest

_NO_FILE = re.compile(r"File does not exist: '([^']+)'")
_NO_OPTION = re.compile(r"^Option '([^']+)' is not accepted")
_NO_OPTION_IN_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_NO_OPTION_OF_CLASS = re.compile(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted")
_NO_OPTION_OF_LAST = re.compile(r"Given value: NestedArg\(key='([\w.]+)'")
_LITERALS = re.compile(r"typing\.Literal\[([^\]]*)\]")
_GIVEN = re.compile(r"(?:Got|Given) value: (\S+)\s*$")
_KEY = re.compile(r'[Pp]arser key "([\w.]+)"')
_NO_PATH = re.compile(r"Expected a dot import path string: (\w+)")
_CLASSES = ("brainlit.demo", "brainlit.stories", "brainlit.callbacks")
_NO_CLASS = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")


class HintingParser(LightningArgumentParser):
    """LightningCLI's parser with short errors, and a hint where something like the refused name exists."""

    typed: Sequence[str] = ()
    """The command line, as far as it is known."""
    also: Sequence[str] = ()
    """Options that the verb takes itself, before this parser sees any, without dashes before them."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message with hints (the help of jsonargparse, a screen of options, is left out)."""
        if not self.exit_on_error:
            super().error(message, ex)
        hints = list(dict.fromkeys(hints_for(message, self.known_keys(), self.typed)))
        raise UsageError("\n  ".join([message.strip(), *hints])) from ex

    def known_keys(self) -> list[str]:
        """All dotted keys that the parser has an option for; the help of classes (--data.source.help) is none."""
        shown = (action for action in self._actions if action.help != SUPPRESS)
        options = (option for action in shown for option in action.option_strings)
        keys = {option[2:] for option in options if option.startswith("--")} | set(self.also)
        return sorted(key for key in keys if not key.endswith(".help"))


def hints_for(message: str, keys: Iterable[str], arguments: Sequence[str] = ()) -> Iterable[str]:
    """What was probably meant, one sentence each; nothing where nothing is near.

    Parameters
    ----------
    message : str
        What jsonargparse says.
    keys : iterable of str
        The dotted keys that exist.
    arguments : sequence of str
        The command line, to say how it is typed right.
    """
    known = list(keys)
    yield from quotes_hints(message, arguments)
    if (match := _NO_OPTION_OF_LAST.search(message)) and (key := _KEY.search(message)):
        yield from meant(f"{key[1]}.{match[1]}", known, "--")
        return
    yield from argument_hints(message, known)
    if match := _NO_OPTION_IN_GROUP.search(message):
        yield from meant(f"{match[1]}.{match[2]}", known, "")
    if match := _NO_OPTION_OF_CLASS.search(message):
        parameters = _parameters_of(match[1])
        yield from list(meant(match[2], parameters, "")) or [f"{match[1]} takes {few(parameters, MOST_LISTED)}."]
    elif match := _NO_OPTION.search(message):
        yield from meant(match[1], known, "")
    if match := _NO_CLASS.search(message):
        module = importlib.import_module(match[1])
        yield from meant(match[2], (name for name in dir(module) if not name.startswith("_")), f"{match[1]}.")
    if match := _NO_PATH.search(message):
        yield from _nearest_class(match[1])
    yield from _nearest_choice(message)
    if match := _NO_FILE.search(message):
        yield nearest_file(Path(match[1]))
    if "data.source" in message and "required" in message:
        yield "A data set is missing: add for instance -c demo"


def _parameters_of(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    found: Any = getattr(importlib.import_module(module), name)
    return [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]


def _nearest_class(name: str) -> Iterable[str]:
    """The class of brainlit's own whose name is nearest."""
    places = {known: module for module in _CLASSES for known in dir(importlib.import_module(module))}
    names = [known for known in places if known[:1].isupper()]
    if near := name if name in names else nearest(name, names):
        yield f"Did you mean {places[near]}.{near}?"


def _nearest_choice(message: str) -> Iterable[str]:
    """The nearest of the words that a setting may have."""
    given, key = _GIVEN.search(message), _KEY.search(message)
    choices = [word for words in _LITERALS.findall(message) for word in re.findall(r"'([^']+)'", words)]
    if given and (near := nearest(given[1].strip("'\""), choices)):
        yield f"Did you mean {f'{key[1]}: ' if key else ''}{near}?"


def require_known_trainer(strategy: Any, accelerator: Any) -> None:
    """Refuse names that Lightning does not know now; it looks after model and data were made.

    Raises
    ------
    UsageError
        With the nearest name.
    """
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    for option, name, known in (
        ("strategy", strategy, ["auto", *StrategyRegistry.available_strategies()]),
        ("accelerator", accelerator, ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]),
    ):
        if isinstance(name, str) and name not in known:
            raise UsageError(f"--trainer.{option} {name}: there is no such {option}. {did_you_mean(name, known)}")


def missing_package(error: BaseException) -> str | None:
    """What an import that failed said, wherever it is among an error's causes; None where none failed."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, ModuleNotFoundError):
        link = link.__cause__ or link.__context__
    return None if link is None else " ".join(str(link).split())
