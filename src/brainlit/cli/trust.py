"""What the configuration of a run folder may do, which somebody else may have sent; docs/security.md says it in words.

A configuration names classes, and whoever builds it imports them. So of a run's own configuration only plain settings
are taken, and data sources of brainlit's; its trainer, with callbacks, loggers, profilers and plugins, is left out.
`--trust` takes all of it, as `brainlit fit -c` does.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

from brainlit.cli.errors import UsageError
from brainlit.guard import (
    UnreadableFileError,
    check_environment,
    check_interpolations,
    has_interpolation,
    read_yaml,
)
from brainlit.results.run_directory import CONFIG_FILE

TRUST = "--trust"
PACKAGE = "brainlit"
GROUPS = ("data", "model")
MACHINE: Mapping[str, type | tuple[type, ...]] = {
    "accelerator": str,
    "devices": (str, int, list),
    "precision": (str, int),
}
"""Settings of a trainer that the verbs which only compute take from the run."""
WRITES = {"model": ("front_end_cache",)}
"""Settings that say where something is written besides the run; such verbs need none of them."""
_LONGEST_PATH = 1024
_WORD = re.compile(r"[\w-]+")


class UntrustedError(UsageError):
    """A run's configuration asks for more than a run that somebody sent may have."""


def config_file(run: Path) -> Path:
    """The configuration that a run was started with.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    path = run / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{run} has no {CONFIG_FILE}: its data are not known. Say which: -c CONFIG.")
    return path


def run_config(run: Path) -> dict[str, Any]:
    """What is written in a run's configuration, as plain values: nothing is imported or filled in.

    Raises
    ------
    FileNotFoundError
        If there is none.
    UnreadableFileError
        If it is no YAML mapping within the limits, or lacks the groups data and model.
    """
    path = config_file(run)
    cure = "Fetch the run again, or give its settings by -c CONFIG."
    config = read_yaml(path, "the configuration of a run", cure)
    for group in (*GROUPS, "trainer", "run"):
        said = config.get(group, {} if group not in GROUPS else None)
        if (said is not None and not isinstance(said, Mapping)) or (said is None and group in GROUPS):
            raise UnreadableFileError(f"{path}: {group} is {_short(said)}, not a group of settings. {cure}")
    return config


def config_argument(run: Path, trust: bool) -> list[str]:
    """Options that stand for a run's configuration: the file itself where it is trusted, else its plain settings.

    Raises
    ------
    UntrustedError
        If it names a class that is not brainlit's own, or a file or an expression in place of settings.
    """
    path = config_file(run)
    return ["-c", str(path) if trust else json.dumps(plain_settings(run_config(run), path))]


def plain_settings(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The part of a configuration that runs no foreign code: data, model, seed, and what machine.

    Parameters
    ----------
    path : Path
        The file, for messages.

    Raises
    ------
    UntrustedError
    """
    from brainlit.datamodules import StoryDataModule
    from brainlit.tuning import BrainTuning

    if has_interpolation({group: config[group] for group in GROUPS}):
        raise UntrustedError(f"{path} holds ${{...}}, which the configuration of a run never does. {_cure()}")
    for group, kind in zip(GROUPS, (StoryDataModule, BrainTuning), strict=True):
        _require_plain(config[group], kind, f"{path}: {group}")
    kept = {group: {k: v for k, v in config[group].items() if k not in WRITES.get(group, ())} for group in GROUPS}
    seed = config.get("seed_everything")
    machine = {
        name: value
        for name, value in (config.get("trainer") or {}).items()
        if name in MACHINE and isinstance(value, MACHINE[name]) and _is_word(value)
    }
    return {**kept, "trainer": machine, **({"seed_everything": seed} if isinstance(seed, int) else {})}


def check_config_files(arguments: Sequence[str]) -> None:
    """See that the files behind -c are YAML within the limits, alone and filled in together.

    Raises
    ------
    UnreadableFileError
    """
    merged: dict[str, Any] = {}
    files = _config_files(arguments)
    for file in files:
        content = read_yaml(file, "a config file", "Look at the line that is named, or take another file.")
        check_environment(content, str(file))
        merged = _merged(merged, content)
    together = " with ".join(map(str, files))
    check_environment(merged, together)
    check_interpolations(merged, together)


def _config_files(arguments: Sequence[str]) -> list[Path]:
    """What follows -c and --config, as far as it is a file; the parser speaks of what is none."""
    given = [after for option, after in itertools.pairwise(arguments) if option in ("-c", "--config")]
    given += [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]
    return [Path(value) for value in given if len(value) < _LONGEST_PATH and Path(value).is_file()]


def _merged(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings key by key, the later value in place of the earlier."""
    both = {
        key: _merged(first[key], value) if isinstance(value, Mapping) and isinstance(first.get(key), Mapping) else value
        for key, value in then.items()
    }
    return {**first, **both}


def require_store(config: Mapping[str, Any], run: Path) -> None:
    """See that the story store is there: a command on a run that is not trusted writes none.

    Raises
    ------
    UntrustedError
    """
    from brainlit.store.schema import INDEX_FILE

    folder = Path(str(config["data"]["store_dir"]))
    if not (folder / INDEX_FILE).is_file():
        raise UntrustedError(
            f"{run} was made with the story store {folder}, which is not there, and this command writes nothing outside"
            f" the run. Make it: brainlit data prepare -c {run / CONFIG_FILE}, or say {TRUST}."
        )


def without_trust(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without --trust, and whether it was among them."""
    return [argument for argument in arguments if argument != TRUST], TRUST in arguments


def _require_plain(value: Any, kind: Any, where: str) -> None:
    """Settings that hold others are mappings (a text would be taken for a file), and classes are ours."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise UntrustedError(f"{where} is {_short(value)}; a run's own configuration has settings there. {_cure()}")
    if not is_dataclass(kind) and "class_path" in value:
        kind = _our_class(value["class_path"], where)
        value = value.get("init_args") or {}
        if not isinstance(value, Mapping):
            raise UntrustedError(f"{where}.init_args is {_short(value)}, not settings. {_cure()}")
    hints = get_type_hints(kind.__init__)
    for name, own in value.items():
        inside = [one for one in (hints.get(name), *get_args(hints.get(name))) if _is_ours(one)]
        if inside:
            _require_plain(own, inside[0], f"{where}.{name}")
        elif _holds_class(own):
            raise UntrustedError(f"{where}.{name} names a class, where none belongs. {_cure()}")


def _our_class(class_path: Any, where: str) -> type:
    """A class of this package, by its dotted name; nothing else is imported."""
    module, _, name = str(class_path).rpartition(".")
    found: Any = None
    if module == PACKAGE or module.startswith(f"{PACKAGE}."):
        try:
            found = getattr(import_module(module), name, None)
        except ImportError:
            found = None
    if not _is_ours(found):
        raise UntrustedError(f"{where} names the class {_short(class_path)}, which is none of {PACKAGE}'s. {_cure()}")
    return type(found) if not isinstance(found, type) else found


def _is_ours(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__.partition(".")[0] == PACKAGE


def _holds_class(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" in value or any(map(_holds_class, value.values()))
    return isinstance(value, list) and any(map(_holds_class, value))


def _is_word(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, int) for item in value)
    return isinstance(value, int) or _WORD.fullmatch(value) is not None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _cure() -> str:
    return f"If you know where this run is from, say {TRUST}: then it may run any code."
