"""Nested settings as plain values, for checkpoints, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_args

from brainlit.hints import did_you_mean

T = TypeVar("T")


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with every dataclass turned into a dict.

    >>> from brainlit.backbones import BackboneConfig
    >>> plain({"layer": -1, "backbone": BackboneConfig()})["backbone"]["family"]
    'wav2vec'
    """
    return {
        key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for key, value in settings.items()
    }


def rebuilt(config_class: type[T], value: T | Mapping[str, Any]) -> T:
    """The dataclass itself, or made from its plain form as a checkpoint keeps it; lists become tuples.

    >>> from brainlit.backbones import BackboneConfig
    >>> rebuilt(BackboneConfig, {"family": "wav2vec", "seed": 3}).seed
    3
    """
    if isinstance(value, config_class):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{config_class.__name__} is given as {value!r}; give its settings by name. A checkpoint with such a value"
            " was written by another version of brainlit, which its run's provenance.json names."
        )
    known = {field.name for field in fields(config_class)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - known)
    if unknown:
        raise ValueError(
            f"{config_class.__name__} has no setting {unknown[0]!r}; the checkpoint was written by another version of"
            " brainlit. Use the version that its run's provenance.json names."
        )
    return config_class(**{key: tuple(item) if isinstance(item, list) else item for key, item in value.items()})


def check_choice(what: str, value: str, choices: Any) -> None:
    """Refuse a value that is not one of those of a Literal.

    Raises
    ------
    ValueError
        With the nearest one.
    """
    if value not in get_args(choices):
        raise ValueError(f"{what} is {value!r}. {did_you_mean(value, get_args(choices))}")
