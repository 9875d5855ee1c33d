"""The parser of the training verbs: what it refuses, it refuses with the nearest thing that it knows."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from brainlit.cli.errors import UsageError
from brainlit.hints import nearest

_UNRECOGNISED = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
_NO_FILE = re.compile(r"File does not exist: '([^']+)'")
_NO_OPTION = re.compile(r"^Option '([^']+)' is not accepted")
_NO_OPTION_IN_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_NO_OPTION_OF_CLASS = re.compile(r"class_path '([^']+)':\s+Option '([^']+)' is not accepted")
_NO_CLASS = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")


class HintingParser(LightningArgumentParser):
    """LightningCLI's parser with short errors, and a hint where something like the refused name exists."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message with hints (the help of jsonargparse, a screen of options, is left out)."""
        if not self.exit_on_error:
            super().error(message, ex)
        hints = list(dict.fromkeys(hints_for(message, self.known_keys())))
        raise UsageError("\n  ".join([message.strip(), *hints])) from ex

    def known_keys(self) -> list[str]:
        """All dotted keys that the parser has an option for."""
        options = (option for action in self._actions for option in action.option_strings)
        return sorted({option.lstrip("-") for option in options if option.startswith("--")})


def hints_for(message: str, keys: Iterable[str]) -> Iterable[str]:
    """What was probably meant, one sentence each; nothing where nothing is near.

    Parameters
    ----------
    message : str
        What jsonargparse says.
    keys : iterable of str
        The dotted keys that exist.
    """
    known = list(keys)
    if match := _UNRECOGNISED.search(message):
        for token in match[1].split():
            if token.startswith("--"):
                yield from _meant(token[2:].partition("=")[0], known, "--")
    if match := _NO_OPTION_IN_GROUP.search(message):
        yield from _meant(f"{match[1]}.{match[2]}", known, "")
    if match := _NO_OPTION_OF_CLASS.search(message):
        yield from _meant(match[2], _parameters_of(match[1]), "")
    elif match := _NO_OPTION.search(message):
        yield from _meant(match[1], known, "")
    if match := _NO_CLASS.search(message):
        module = importlib.import_module(match[1])
        yield from _meant(match[2], (name for name in dir(module) if not name.startswith("_")), f"{match[1]}.")
    if match := _NO_FILE.search(message):
        yield _nearest_file(Path(match[1]))
    if "data.source" in message and "required" in message:
        yield "A data set is missing: add for instance -c experiments/data/demo.yaml"


def _meant(key: str, known: Iterable[str], prefix: str) -> Iterable[str]:
    """The known key that is nearest part by part (what lies below an option is kept), or ends in the same part."""
    names = list(known)
    parts = key.split(".")
    found: list[str] = []
    for k, part in enumerate(parts):
        below = {name.split(".")[k] for name in names if name.split(".")[:k] == found and name.count(".") >= k}
        near = nearest(part, below)
        if near is None:
            break
        found.append(near)
    complete = ".".join(found) in names
    if found and (complete or len(found) == len(parts)):
        yield f"Did you mean {prefix}{'.'.join([*found, *parts[len(found) :]])}?"
    elif same := [name for name in names if name.split(".")[-1] == parts[-1]]:
        yield f"Did you mean {' or '.join(prefix + name for name in same[:3])}?"


def _parameters_of(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    found: Any = getattr(importlib.import_module(module), name)
    return [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]


def _nearest_file(path: Path) -> str:
    folder = path.parent
    names = sorted(other.name for other in folder.glob("*.yaml")) if folder.is_dir() else []
    near = nearest(path.name, names)
    question = f"Did you mean {near}? " if near else ""
    return f"{question}{folder.name}/ holds: {', '.join(names) or 'no config files'}."
