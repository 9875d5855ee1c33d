"""What the command line refuses, and what was probably meant: the nearest thing that the parser or Lightning knows."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from brainlit.cli.config_names import nearest_file
from brainlit.cli.errors import UsageError
from brainlit.cli.yaml_names import quotes_hints
from brainlit.hints import MOST_LISTED, did_you_mean, few, nearest

_UNRECOGNISED = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
_NO_FILE = re.compile(r"File does not exist: '([^']+)'")
_NO_OPTION = re.compile(r"^Option '([^']+)' is not accepted")
_NO_OPTION_IN_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_NO_OPTION_OF_CLASS = re.compile(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted")
_NO_CLASS = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")


class HintingParser(LightningArgumentParser):
    """LightningCLI's parser with short errors, and a hint where something like the refused name exists."""

    typed: Sequence[str] = ()
    """The command line, as far as it is known."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message with hints (the help of jsonargparse, a screen of options, is left out)."""
        if not self.exit_on_error:
            super().error(message, ex)
        hints = list(dict.fromkeys(hints_for(message, self.known_keys(), self.typed)))
        raise UsageError("\n  ".join([message.strip(), *hints])) from ex

    def known_keys(self) -> list[str]:
        """All dotted keys that the parser has an option for; the help of classes (--data.source.help) is none."""
        options = (option for action in self._actions for option in action.option_strings)
        keys = {option.lstrip("-") for option in options if option.startswith("--")}
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
    if match := _UNRECOGNISED.search(message):
        for token in match[1].split():
            if token.startswith("--"):
                yield from _meant(token[2:].partition("=")[0], known, "--")
    if match := _NO_OPTION_IN_GROUP.search(message):
        yield from _meant(f"{match[1]}.{match[2]}", known, "")
    if match := _NO_OPTION_OF_CLASS.search(message):
        parameters = _parameters_of(match[1])
        yield from list(_meant(match[2], parameters, "")) or [f"{match[1]} takes {few(parameters, MOST_LISTED)}."]
    elif match := _NO_OPTION.search(message):
        yield from _meant(match[1], known, "")
    if match := _NO_CLASS.search(message):
        module = importlib.import_module(match[1])
        yield from _meant(match[2], (name for name in dir(module) if not name.startswith("_")), f"{match[1]}.")
    if match := _NO_FILE.search(message):
        yield nearest_file(Path(match[1]))
    if "data.source" in message and "required" in message:
        yield "A data set is missing: add for instance -c demo"


def _meant(key: str, known: Iterable[str], prefix: str) -> Iterable[str]:
    """The known key that is nearest part by part, or ends in the same part; else what its group takes. Never the key.

    What lies below an option that is no group is kept: it belongs to a class or a mapping, which the parser knows.
    """
    names = set(known) - {key}
    parts, found = key.split("."), list[str]()
    for part in parts:
        below = _below(found, names)
        near = part if part in below else nearest(part, below)
        if near is None:
            break
        found.append(near)
    stem, below = ".".join(found), _below(found, names)
    rest = [] if found == parts[: len(found)] else parts[len(found) :]
    if stem in names and (len(found) == len(parts) or not below):
        yield f"Did you mean {prefix}{'.'.join([stem, *rest])}?"
    elif same := sorted(name for name in names if name.split(".")[-1] == parts[-1]):
        yield f"Did you mean {' or '.join(prefix + name for name in same[:3])}?"
    elif found and below:
        yield f"{prefix}{stem} takes {few(sorted(below), MOST_LISTED)}."


def _below(group: Sequence[str], names: Iterable[str]) -> set[str]:
    """The next parts of the names that begin with these parts."""
    split = (name.split(".") for name in names)
    return {parts[len(group)] for parts in split if parts[: len(group)] == list(group) and len(parts) > len(group)}


def _parameters_of(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    found: Any = getattr(importlib.import_module(module), name)
    return [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]


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
