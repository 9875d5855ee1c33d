"""AXES.yaml: runs that differ along axes, one cell for each combination of their values.

An axis is a folder of experiments (data, model, regime, paper), whose values are names in it, or an option of a fit by
its dotted name; `seed` and `subjects` are short for two of them. A cell is the command `brainlit fit` with what its
values say, in a folder of its own below that of the file; the same cell is meant whoever starts it: this machine,
Slurm, or an agent of W&B.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from brainlit.cli.config_names import FOLDERS, look_up, look_up_path, names_in
from brainlit.cli.errors import UsageError
from brainlit.cli.reproduce import PRETRAINED, SET_BY_PLANS
from brainlit.cli.run_many import Run
from brainlit.cli.slurm import check_settings as check_slurm_settings
from brainlit.guard import read_yaml
from brainlit.hints import did_you_mean

SHORT: Mapping[str, str] = {"seed": "seed_everything", "subjects": "data.subjects"}
"""What axes and options may be called besides their dotted names."""
KEYS = ("experiment", "axes", "options", "folder", "slurm")
CURE = "docs/cluster.md describes such files, experiments/grids/demo.yaml is one."
COMPARED = ("model", "model.backbone.weights", "regime", "data.regime", "data.control.draw", "seed")
"""Axes whose runs stand beside each other in one comparison; each combination of the others has one of its own."""
_SETS = tuple(key for key in SET_BY_PLANS if key.startswith("run."))
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n|nan|inf)$)[A-Za-z][\w-]*", re.IGNORECASE)
"""What YAML reads as text, whichever version it is of."""
_OPTION = re.compile(r"[A-Za-z_]\w*(\.\w+)+\+?")
LONGEST_NAME = 200


@dataclass(frozen=True)
class Cell:
    """One combination of values.

    Parameters
    ----------
    values : mapping of axis to value
    run : Run
        Its command and its folder.
    """

    values: Mapping[str, Any]
    run: Run

    @property
    def name(self) -> str:
        """That of its folder: its values in the order of the axes."""
        return self.run.path.name


@dataclass(frozen=True)
class Axes:
    """What a file of axes says.

    Parameters
    ----------
    path : Path
        The file.
    experiment : tuple of str
        Config files of all cells, by name or path.
    axes : mapping of axis to its values
    options : mapping of option to value
        Of all cells.
    folder : Path
        Of the runs, which have folders below it.
    slurm : mapping
        What each job asks for (`slurm.SETTINGS`).
    """

    path: Path
    experiment: tuple[str, ...]
    axes: Mapping[str, Sequence[Any]]
    options: Mapping[str, Any]
    folder: Path
    slurm: Mapping[str, Any]

    @cached_property
    def cells(self) -> list[Cell]:
        """All combinations, the last axis fastest."""
        combinations = itertools.product(*self.axes.values())
        return [self._cell(dict(zip(self.axes, values, strict=True))) for values in combinations]

    @property
    def runs(self) -> list[Run]:
        """Those of the cells."""
        return [cell.run for cell in self.cells]

    def groups(self) -> dict[str, list[Cell]]:
        """The cells of each comparison, by the values of the axes that are not compared ('' where all are)."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            others = {axis: value for axis, value in cell.values.items() if axis not in COMPARED}
            found.setdefault(_name(others.values()), []).append(cell)
        return found

    def cell_of(self, words: Sequence[str]) -> Cell:
        """The cell that `--axis=value` of every axis says.

        Raises
        ------
        UsageError
            If there is no such axis or value, or an axis is missing.
        """
        left = self.cells
        for text in words:
            axis, equals, said = text.removeprefix("--").partition("=")
            if not (text.startswith("--") and equals) or axis not in self.axes:
                raise UsageError(f"--cell takes --AXIS=VALUE; {text!r} is none. {did_you_mean(axis, self.axes)}")
            left = [cell for cell in left if word(cell.values[axis]) == said]
            if not left:
                raise UsageError(f"--{axis} is {said!r}. {did_you_mean(said, map(word, self.axes[axis]))}")
        if len(left) != 1:
            raise UsageError(f"--cell needs one value of each axis ({', '.join(self.axes)}): {len(left)} cells remain.")
        return left[0]

    def _cell(self, values: Mapping[str, Any]) -> Cell:
        files = [*self.experiment, *(f"{axis}/{value}" for axis, value in values.items() if axis in FOLDERS)]
        options = {**self.options, **{axis: value for axis, value in values.items() if axis not in FOLDERS}}
        path = self.folder / (_name(values.values()) or "run")
        own: dict[str, Any] = {
            "run.root": str(path.parents[1]),
            "run.experiment": path.parent.name,
            "run.id": path.name,
        }
        if values.get("regime", "") == PRETRAINED:
            own["trainer.max_epochs"] = 0  # whatever the options say of those that are tuned
        given = {**options, **own}
        fit = [
            *("fit", *(part for file in files for part in ("-c", file))),
            *(f"--{SHORT.get(key, key)}={_value(key, value)}" for key, value in given.items()),
        ]
        others = {axis: value for axis, value in values.items() if axis != "seed"}
        return Cell(values, Run(path, _name(others.values()), int(options.get("seed", 0)), tuple(fit)))


def read_axes(path: Path, folder: Path | None = None) -> Axes:
    """Read a file of axes; names of files and settings of Slurm are looked at, options are not.

    Parameters
    ----------
    folder : Path, optional
        Where the runs are, if not where the file says.

    Raises
    ------
    UsageError
        If something in it cannot be; the message names the file and the key.
    UnreadableFileError
        If it is no YAML.
    FileNotFoundError
        If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. {CURE}")
    return _Reader(path, read_yaml(path, "a file of axes", CURE)).axes(folder)


def word(value: Any) -> str:
    """A value as one word of a command line; texts stay as they are, in lists those are quoted that need it.

    >>> [word(value) for value in ("wav2vec", "010", 3, 1e-3, True, None, ["UTS01", "010", 2])]
    ['wav2vec', '010', '3', '0.001', 'true', 'null', '[UTS01,"010",2]']
    """
    if isinstance(value, list):
        return f"[{','.join(_listed(part) for part in value)}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def wandb_sweep(axes: Axes, project: str) -> dict[str, Any]:
    """A sweep over the same cells for `wandb sweep`: its agents start each by `brainlit submit FILE --cell`."""
    return {
        "project": project,
        "name": axes.folder.name,
        "method": "grid",
        "metric": {"name": "headline/alignment/difference", "goal": "maximize"},
        "parameters": {axis: {"values": list(map(_plain, values))} for axis, values in axes.axes.items()},
        "program": "brainlit",
        "command": ["${program}", "submit", str(axes.path), "--cell", "${args}"],
    }


@dataclass(frozen=True)
class _Reader:
    path: Path
    said: Mapping[str, Any]

    def axes(self, folder: Path | None) -> Axes:
        for key in self.said:
            if key not in KEYS:
                self.refuse(f"there is no key {key!r}. {did_you_mean(str(key), KEYS)}")
        axes, options = self._axes(), self._options()
        counts = Counter(SHORT.get(key, key) for key in [*axes, *options])
        if twice := [key for key, n in counts.items() if n > 1]:
            self.refuse(f"{', '.join(twice)}: said twice among axes and options. Leave one of them out.")
        slurm = self._mapping("slurm")
        if problem := check_slurm_settings(slurm):
            self.refuse(f"slurm.{problem}")
        found = Axes(self.path, self._experiment(axes), axes, options, folder or self._folder(), slurm)
        self._check_names(found.cells)
        return found

    def refuse(self, problem: str) -> NoReturn:
        raise UsageError(f"{self.path}: {problem}")

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.said.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            self.refuse(f"{key} is {value!r}; give a mapping of names.")
        return value

    def _axes(self) -> dict[str, list[Any]]:
        found = self._mapping("axes")
        if not found:
            self.refuse("axes is missing: give the values along which runs differ, as axes: {seed: [11, 12]}.")
        for axis, values in found.items():
            self._check_key("axes", axis, (*FOLDERS, *SHORT))
            if not isinstance(values, list) or not values:
                self.refuse(f"axes.{axis} is {values!r}; give a list of values.")
            if axis in FOLDERS:
                known = names_in(axis)
                for value in values:
                    if value not in known:
                        self.refuse(f"axes.{axis}: there is no {axis} {value!r}. {did_you_mean(str(value), known)}")
            if axis == "seed":
                self._check_seeds("axes.seed", values)
            if len(set(map(word, values))) < len(values):
                self.refuse(f"axes.{axis} has a value twice: {', '.join(map(word, values))}.")
        return found

    def _options(self) -> dict[str, Any]:
        found = self._mapping("options")
        for key, value in found.items():
            self._check_key("options", key, tuple(SHORT))
            if key == "seed":
                self._check_seeds("options.seed", [value])
        return found

    def _check_key(self, where: str, key: str, names: Sequence[str]) -> None:
        if key in _SETS or (where == "options" and key.startswith("run.") and key in SET_BY_PLANS):
            self.refuse(f"{where}.{key} is set for each cell; folder says where the runs lie.")
        if key not in names and not _OPTION.fullmatch(key):
            further = "or an option of a fit by its dotted name (trainer.max_epochs)."
            self.refuse(f"{where}.{key}: there is no such name. {did_you_mean(key, names)[:-1]}, {further}")

    def _check_seeds(self, where: str, values: Iterable[Any]) -> None:
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.refuse(f"{where} is {value!r}; give whole numbers from 0 on.")

    def _experiment(self, axes: Mapping[str, Any]) -> tuple[str, ...]:
        said = self.said.get("experiment") or []
        names = [said] if isinstance(said, str) else said
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.refuse(f"experiment is {said!r}; give a list of config files, as experiment: [demo].")
        for name in names:
            try:
                found = look_up(name)
                look_up_path(name) if found is None else None
            except UsageError as error:
                raise UsageError(f"{self.path}: experiment: {error}") from error
            if found is not None and found.folder in axes:
                self.refuse(f"experiment names {found.name}, and {found.folder} is an axis. Leave one of them out.")
        return tuple(names)

    def _folder(self) -> Path:
        said = self.said.get("folder")
        if not isinstance(said, str) or not _FOLDER_NAME.fullmatch(Path(said).name):
            self.refuse(f"folder is {said!r}; give that of the runs, as folder: runs/grid.")
        return Path(said)

    def _check_names(self, cells: Sequence[Cell]) -> None:
        seen: dict[str, Cell] = {}
        for cell in cells:
            if not _FOLDER_NAME.fullmatch(cell.name) or len(cell.name) > LONGEST_NAME:
                self.refuse(
                    f"axes make {cell.name!r}, which is no name of a folder. Give shorter values, or plain ones."
                )
            other = seen.setdefault(cell.name.lower(), cell)
            if other is not cell:
                self.refuse(
                    f"axes: {_said(other.values)} and {_said(cell.values)} would share the folder {cell.name}."
                    " Give values that make different folder names."
                )


def _name(values: Iterable[Any]) -> str:
    """A folder's name for values: what is no letter, digit, dot or hyphen becomes one underscore."""
    return "-".join(re.sub(r"[^A-Za-z0-9.-]+", "_", word(value)).strip("_.-") or "_" for value in values)


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {word(value)}" for axis, value in values.items())


def _value(key: str, value: Any) -> str:
    """Subjects stand in a list, also a single one."""
    return word([value] if SHORT.get(key, key) == SHORT["subjects"] and isinstance(value, str | int) else value)


def _plain(value: Any) -> Any:
    """As W&B hands it back in the words of `word`: numbers as they are, others as text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else word(value)


def _listed(value: Any) -> str:
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
