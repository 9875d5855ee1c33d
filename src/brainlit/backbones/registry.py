"""From a config to a backbone: the family's class, where its weights are, and the model with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from brainlit.backbones.base import SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.families import FAMILIES
from brainlit.backbones.preparation import extractor_settings, prepare_as_said
from brainlit.backbones.tiny import TINY_SIZES, tiny_architecture, tiny_folder, tiny_record
from brainlit.backbones.weights import (
    RANDOM_PREFIX,
    WeightsError,
    commit_of,
    find_checkpoint,
    load_checkpoint,
    local_folder,
    random_model,
)
from brainlit.hints import did_you_mean

log = logging.getLogger(__name__)


class BackboneClasses(Mapping[str, type[SpeechBackbone]]):
    """Backbone classes by family name; each is imported when it is first asked for.

    Parameters
    ----------
    paths : mapping of str to str
        Family name -> "module:Class", the module within brainlit.backbones.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = dict(paths)

    def __getitem__(self, family: str) -> type[SpeechBackbone]:
        module, name = self._paths[family].split(":")
        found: type[SpeechBackbone] = getattr(import_module(f"brainlit.backbones.{module}"), name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, family: object) -> bool:
        return family in self._paths


BACKBONES: Mapping[str, type[SpeechBackbone]] = BackboneClasses(
    {name: family.path for name, family in FAMILIES.items()}
)


def load_backbone(config: BackboneConfig) -> SpeechBackbone:
    """The backbone that the config asks for, in fp32 and eval mode, every parameter that takes part trainable.

    Raises
    ------
    ValueError
        If the family is not known.
    WeightsError
        If its weights are not there, incomplete, or another family's.
    """
    if config.family not in BACKBONES:
        raise ValueError(f"backbone family {config.family!r} is not known. {did_you_mean(config.family, BACKBONES)}")
    family = BACKBONES[config.family]
    config_class, model_class = family.transformers_classes()
    switches = family.switches(config)
    if config.weights.startswith(RANDOM_PREFIX):
        name = config.weights.removeprefix(RANDOM_PREFIX)
        model_config = config_class(**{**named_architecture(family, name), **switches})
        if name not in TINY_SIZES and name not in FAMILIES[config.family].architectures:
            location = str(Path(_locate(family, name)[0]).expanduser())
            if extractor_settings(location) is not None:
                prepare_as_said(family, location, model_config)
        model = random_model(model_class, model_config, config.seed)
        return family(model, config, {"kind": "random", "seed": config.seed})
    location, origin = resolve_weights(family, config)
    location, settings = find_checkpoint(location, family.model_type)
    refusal = family.refusal(settings)
    if refusal is not None:
        raise WeightsError(f"weights {config.weights!r} {refusal}")
    model_config = config_class(**{**settings, **switches})
    if origin["kind"] == "pretrained":  # tiny models were taught what their families usually hear
        prepare_as_said(family, location, model_config)
    model, lacks = load_checkpoint(model_class, location, model_config, family.never_run)
    if lacks:
        log.warning(
            "weights %r have no %s: enough to tune and probe; what an export of it needs for recognition is missing",
            config.weights,
            " and ".join(lacks),
        )
        origin = {**origin, "lacks": list(lacks)}
    commit = commit_of(location)
    return family(model, config, origin if commit is None else {**origin, "commit": commit})


def resolve_weights(family: type[SpeechBackbone], config: BackboneConfig) -> tuple[str, dict[str, Any]]:
    """Where the weights are that a config asks for by name: a folder or a hub id; and their origin, for the record.

    A tiny model that is not there yet is made now.

    Raises
    ------
    WeightsError
        If the name is no size of the family, nor a folder, nor a hub id.
    """
    if config.weights in TINY_SIZES:
        folder = str(tiny_folder(family, config.seed, config.weights))
        return folder, {"kind": config.weights, "seed": config.seed, **tiny_record(folder)}
    return _locate(family, config.weights)


def named_architecture(family: type[SpeechBackbone], name: str) -> dict[str, Any]:
    """Settings of a published size or a tiny one by name, or those of a folder or hub id.

    Raises
    ------
    WeightsError
        If the name is none of these.
    """
    if name in TINY_SIZES:
        return tiny_architecture(family, name)
    known = FAMILIES[family.family].architectures
    if name in known:
        return dict(known[name])
    location, _ = _locate(family, name)
    return find_checkpoint(location, family.model_type)[1]


def checkpoint_file(backbone: SpeechBackbone, *names: str) -> Path | None:
    """The first of some files that is there beside a backbone's published weights; never looks on the network.

    Parameters
    ----------
    names : str
        Such as preprocessor_config.json.

    Returns
    -------
    Path, or None where there is no such file, or the weights were not published
    """
    from huggingface_hub import try_to_load_from_cache

    if backbone.origin.get("kind") != "pretrained":
        return None
    try:
        location, _ = _locate(type(backbone), backbone.config.weights)
    except WeightsError:  # a folder that is no longer there
        return None
    folder = Path(location).expanduser()
    for name in names:
        found = folder / name if folder.is_absolute() or folder.is_dir() else try_to_load_from_cache(location, name)
        if isinstance(found, (str, Path)) and Path(found).is_file():
            return Path(found)
    return None


def _locate(family: type[SpeechBackbone], name: str) -> tuple[str, dict[str, Any]]:
    """The folder or hub id that a size, a hub id or a folder stands for, and where it came from."""
    sizes = FAMILIES[family.family].sizes
    location = sizes.get(name, name)
    if name not in sizes and (Path(name).expanduser().exists() or name.startswith(("~", ".", "/"))):
        return name, {"kind": "pretrained"}
    if "/" not in location:
        raise WeightsError(
            f"weights {name!r} are no size of {family.family}, no folder here, and no hub id, which has a slash."
            f" {did_you_mean(name, [*TINY_SIZES, *sizes])}"
        )
    origin: dict[str, Any] = {"kind": "pretrained", "hub_id": location}
    folder = local_folder(location)
    return str(folder) if folder.is_dir() else location, origin
