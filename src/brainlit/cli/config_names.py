"""Config files by name: `-c demo` is experiments/data/demo.yaml, from whatever folder brainlit is started.

A file that is there is taken as it is. A name (demo, data/demo) is looked for below experiments/ of the current folder,
then among the experiments that came with brainlit. Names stand in the order base, data, model, regime, paper whatever
the order in which they are typed; files given by path keep their places. Standard library only, so that a mistyped name
is told before anything else is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainlit.cli.errors import UsageError
from brainlit.hints import nearest
from brainlit.shipped import EXPERIMENTS, here_or_shipped, shipped_root

OPTIONS = ("-c", "--config")
BASE = "brain_tune"
FOLDERS = ("data", "model", "regime", "paper")
NOT_OF_A_FIT = ("sweeps", "grids")
"""Folders of files that are for `wandb sweep` and for `brainlit submit`."""
BEFORE_REGIME = ("quick", "published_demo")
"""Smaller forms of the demo, which the regime may shorten further; other files of no such folder come last."""
SAID = f"""\
-c takes files, and names of experiments: -c demo is {EXPERIMENTS}/data/demo.yaml of this folder or, where there is
none, the one that came with brainlit (brainlit init copies them here). Names are merged in the order {BASE} (by itself,
where a name of {", ".join(FOLDERS)} is given), data, model, quick or published_demo, regime, paper, others; files
in the places where they are typed."""
_INLINE = re.compile(r"[{}:\n]")
_ORDER = (BASE, "data", "model", *BEFORE_REGIME, "regime", "paper")


@dataclass(frozen=True)
class Experiment:
    """A file below experiments/: where it is, and its path there without .yaml (data/demo)."""

    path: Path
    name: str

    @property
    def folder(self) -> str:
        """data, model, regime or paper; empty for others."""
        first, slash, _ = self.name.partition("/")
        return first if slash and first in FOLDERS else ""

    @property
    def place(self) -> int:
        """Its place in the order of merging; others come last."""
        part = self.folder or self.name
        return _ORDER.index(part) if part in _ORDER else len(_ORDER)

    @property
    def asks_for_base(self) -> bool:
        """Whether it is one part of a run, which the base file goes before."""
        return bool(self.folder)


def expanded(arguments: Sequence[str], *, with_base: bool = False) -> list[str]:
    """The arguments with files in place of names, in the order of merging.

    Parameters
    ----------
    with_base : bool
        Whether brain_tune.yaml goes before everything, where a part of a run is named and it is not.

    Raises
    ------
    UsageError
        If there is no such file or name, or a name is that of several.
    """
    said = list(arguments)
    given = dict(_values(said))
    named = {place: found for place, value in given.items() if isinstance(found := look_up(value), Experiment)}
    ordered = sorted(named.values(), key=lambda experiment: experiment.place)
    values = given | {place: str(look_up_path(value)) for place, value in given.items() if place not in named}
    values |= {place: str(experiment.path) for place, experiment in zip(named, ordered, strict=True)}
    for place, value in values.items():
        option, equals, _ = said[place].partition("=")
        said[place] = f"{option}={value}" if equals and option in OPTIONS else value
    is_base_named = any(Path(value).name == f"{BASE}.yaml" for value in values.values())
    if with_base and not is_base_named and any(experiment.asks_for_base for experiment in ordered):
        return ["-c", str(named_file(BASE)), *said]
    return said


def look_up(value: str) -> Experiment | None:
    """The experiment that a value of -c names; None for files, and for settings written out.

    Raises
    ------
    UsageError
        If it is a name, and of none or several.
    """
    if _INLINE.search(value) or Path(value).is_file() or Path(value).suffix in (".yaml", ".yml"):
        return None
    for root in _roots():
        found = [experiment for experiment in experiments(root) if _ends_in(experiment.name, value)]
        if len(found) > 1:
            paths = " or ".join(f"-c {EXPERIMENTS}/{experiment.name}.yaml" for experiment in found)
            raise UsageError(f"{value!r} is the name of {len(found)} config files. Say which: {paths}.")
        if found:
            return found[0]
    raise UsageError(_unknown(value))


def look_up_path(value: str) -> Path | str:
    """A file that is there or came with brainlit; settings written out stay as they are.

    Raises
    ------
    UsageError
        If there is no such file.
    """
    if _INLINE.search(value):
        return value
    path = here_or_shipped(Path(value))
    if not path.is_file():
        raise UsageError(f"there is no config file {value}. {nearest_file(path)}")
    return path


def named_file(name: str) -> Path:
    """The file of an experiment, by its path below experiments/ without .yaml: of this folder, else brainlit's own."""
    return here_or_shipped(Path(EXPERIMENTS, f"{name}.yaml"))


def names_in(folder: str) -> list[str]:
    """The names that a folder of experiments/ has, here and among brainlit's own."""
    found = {experiment.name for root in _roots() for experiment in experiments(root)}
    return sorted(name.removeprefix(f"{folder}/") for name in found if name.startswith(f"{folder}/"))


def experiment_names() -> set[str]:
    """The last parts of the names of all experiments, here and among brainlit's own."""
    return {experiment.name.rpartition("/")[2] for root in _roots() for experiment in experiments(root)}


def experiments(root: Path) -> list[Experiment]:
    """All YAML files below a folder experiments/, by name, but for those that are for other commands."""
    found = ((path, path.relative_to(root).with_suffix("").as_posix()) for path in root.rglob("*.yaml"))
    named = sorted(found, key=lambda pair: pair[1])
    return [Experiment(path, name) for path, name in named if name.partition("/")[0] not in NOT_OF_A_FIT]


def config_files(arguments: Sequence[str]) -> list[str]:
    """The config files of expanded arguments, in the order of merging, as a reader may know them.

    Those that came with brainlit are called by their paths there, and that they did; settings written out by '{...}'.
    """
    return [_called(value) for _, value in _values(arguments)]


def nearest_file(path: Path) -> str:
    """What is in the folder of a file that is not there, and what was probably meant."""
    folder = path.parent if path.parent.is_dir() else shipped_root() / path.parent
    names = sorted(other.name for other in folder.glob("*.yaml")) if folder.is_dir() else []
    near = nearest(path.name, names)
    question = f"Did you mean {near}? " if near else ""
    return f"{question}{folder.name}/ holds: {', '.join(names) or 'no config files'}."


def _roots() -> list[Path]:
    """Where names are looked for: here, then among what came with brainlit; once, where that is the same."""
    here, own = Path(EXPERIMENTS), shipped_root() / EXPERIMENTS
    return [here] if here.resolve() == own.resolve() else [here, own]


def _values(arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The values of -c and their places."""
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if place and arguments[place - 1] in OPTIONS:
            yield place, argument
        elif equals and option in OPTIONS:
            yield place, value


def _ends_in(name: str, said: str) -> bool:
    parts, wanted = name.split("/"), said.split("/")
    return parts[-len(wanted) :] == wanted


def _unknown(value: str) -> str:
    known = sorted({experiment.name for root in _roots() for experiment in experiments(root)})
    stems = {name.rpartition("/")[2]: name for name in known}
    near = nearest(value, known if "/" in value else stems)
    groups = [f"  {folder}: {', '.join(names)}" for folder in FOLDERS if (names := names_in(folder))]
    others = [name for name in known if name.partition("/")[0] not in FOLDERS]
    return "\n".join(
        [
            f"there is no experiment {value!r}, and no file of this name.{f' Did you mean {near!r}?' if near else ''}",
            *groups,
            *([f"  others: {', '.join(others)}"] if others else []),
        ]
    )


def _called(value: str) -> str:
    if _INLINE.search(value):
        return "{...}"
    path, own = Path(value), shipped_root()
    if path.is_absolute() and path.is_relative_to(own):
        return f"{path.relative_to(own).as_posix()} (came with brainlit)"
    return value
