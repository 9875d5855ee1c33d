"""Values of a YAML mapping, taken key by key; every complaint says in which file and place it stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from brainlit.hints import did_you_mean
from brainlit.stories.base import SourceError

T = TypeVar("T")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class ManifestError(SourceError):
    """A manifest that says something wrong, or files that do not fit it; the message names file, key and cure."""


def load_yaml(path: Path) -> Any:
    """Content of a YAML file with ${oc.env:NAME} and other interpolations resolved.

    Raises
    ------
    ManifestError
        If it is not valid YAML, or an interpolation cannot be resolved.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        cure = "Set the variable, or give a default: ${oc.env:NAME,default}."
        raise ManifestError(f"{path}: {reason}. {cure if 'environment' in reason.lower() else ''}".strip()) from error
    except (yaml.YAMLError, UnicodeError, ValueError, TypeError, OSError, ArithmeticError, RecursionError) as error:
        raise ManifestError(f"{path} is not a valid YAML mapping: {error or type(error).__name__}") from error


class Keys:
    """The keys of one mapping of the manifest.

    Parameters
    ----------
    values : Any
        What stands there; refused if it is no mapping.
    where : str
        File and place, for messages.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise ManifestError(f"{where} is {values!r}; need a mapping of keys to values.")
        self.values: dict[str, Any] = {str(key): value for key, value in values.items()}
        self.where = where

    def only(self, known: Iterable[str]) -> None:
        """Refuse every key that is not known, with the nearest that is."""
        for key in self.values:
            if key not in known:
                raise ManifestError(f"{self.where}: unknown key {key!r}. {did_you_mean(key, known)}")

    def get(self, key: str, convert: Callable[[Any], T], default: Any = ...) -> T:
        """The converted value; the default (none: it is required) where the key is missing or null."""
        value = self.values.get(key)
        if value is None:
            if default is ...:
                raise ManifestError(f"{self.where}: {key!r} is missing.")
            return default  # type: ignore[no-any-return]
        try:
            return convert(value)
        except ManifestError:
            raise
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{self.where}: {key} is {value!r}; {error}.") from error

    def sub(self, key: str) -> Keys:
        """The mapping below a key; empty where the key is missing or null."""
        value = self.values.get(key)
        return Keys({} if value is None else value, f"{self.where}: {key}")


def text(value: Any) -> str:
    """One text that is not empty; numbers count as their digits."""
    if isinstance(value, (bool, Mapping, list)) or not str(value).strip():
        raise TypeError("need one text")
    return str(value)


def pattern(*names: str) -> Callable[[Any], str]:
    """Converter of a path whose {placeholders} are among the names."""

    def checked(value: Any) -> str:
        for name in _PLACEHOLDER.findall(text(value)):
            if name not in names:
                known = ", ".join(f"{{{known}}}" for known in names) or "none here"
                raise ValueError(f"{{{name}}} is no placeholder; known: {known}")
        return text(value)

    return checked


def filled(template: str, **names: str) -> str:
    """A checked pattern with its placeholders filled in.

    >>> filled("{subject}/{story}.npy", subject="anna", story="frog")
    'anna/frog.npy'
    """
    return _PLACEHOLDER.sub(lambda match: names[match[1]], template)


def placeholders(template: str) -> set[str]:
    """Names of the placeholders of a pattern."""
    return set(_PLACEHOLDER.findall(template))


def number(value: Any) -> float:
    """A finite number."""
    try:
        result = float("nan") if isinstance(value, (bool, Mapping, list)) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = float("nan")
    if not np.isfinite(result):
        raise ValueError("need a number")
    return result


def seconds(value: Any) -> float:
    """A positive number of seconds."""
    if number(value) <= 0:
        raise ValueError("need a positive number of seconds")
    return number(value)


def whole(value: Any) -> int:
    """A whole number, zero or more."""
    if number(value) < 0 or number(value) != int(number(value)):
        raise ValueError("need a whole number, zero or more")
    return int(number(value))


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise TypeError("need true or false")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, none of them twice."""
    if not isinstance(value, list) or not value:
        raise TypeError("need a list such as [a, b]")
    items = tuple(text(item) for item in value)
    doubled = [item for item in items if items.count(item) > 1]
    if doubled:
        raise ValueError(f"{doubled[0]!r} stands there twice")
    return items
