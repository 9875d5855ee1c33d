"""From a config to a backbone: the family's class, where its weights are, and the model with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from brainlit.backbones.adapters import Adapter, adapter_here, adapter_on_hub, merge_adapter
from brainlit.backbones.addresses import (
    RANDOM_PREFIX,
    Address,
    WeightsError,
    asked_revision,
    folder_address,
    hub_address,
    is_named_folder,
)
from brainlit.backbones.base import SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.families import FAMILIES
from brainlit.backbones.preparation import extractor_settings, prepare_as_said
from brainlit.backbones.state_dicts import weight_paths
from brainlit.backbones.tiny import TINY_SIZES, tiny_architecture, tiny_folder, tiny_record
from brainlit.backbones.weights import (
    UnreachableHubError,
    find_checkpoint,
    load_checkpoint,
    random_model,
    why_unreachable,
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
        return _with_random_weights(family, config)
    address, origin = resolve_weights(family, config)
    adapter = _adapter_at(address, family)
    if adapter is not None:
        address, origin = _base_of(adapter, family, config)
    elif config.adapter_base is not None:
        raise WeightsError(
            f"adapter_base is {config.adapter_base!r}, and weights {config.weights!r} are no adapter; leave it out."
        )
    own_way = adapter is not None and extractor_settings(adapter.address) is not None
    sound_address = adapter.address if adapter is not None and own_way else address
    address, settings = find_checkpoint(address, family.model_type)
    refusal = family.refusal(settings)
    if refusal is not None:
        raise WeightsError(f"weights {config.named!r} {refusal}")
    model_config = config_class(**{**settings, **switches})
    if origin["kind"] == "pretrained":  # tiny models were taught what their families usually hear
        prepare_as_said(family, sound_address, model_config)
    model, notes = load_checkpoint(model_class, address, model_config, family.never_run)
    if "lacks" in notes:
        log.warning(
            "weights %r have no %s: enough to tune and probe; what an export of it needs for recognition is missing",
            config.named,
            " and ".join(notes["lacks"]),
        )
    if adapter is not None:
        notes["adapter"] = merge_adapter(model, adapter)
    commit = address.commit
    return family(model, config, {**origin, **notes, **({} if commit is None else {"commit": commit})})


def _adapter_at(address: Address, family: type[SpeechBackbone]) -> Adapter | None:
    """The adapter that weights are, in place of a whole model; the hub is asked where no weights of either are here."""
    found, folder = adapter_here(address), address.folder
    if found is not None or address.is_folder or (folder is not None and weight_paths(folder)):
        return found
    try:
        find_checkpoint(address, family.model_type)
    except UnreachableHubError:
        raise
    except WeightsError:  # no config.json there
        found = adapter_on_hub(address) if why_unreachable() is None else None
        if found is None:
            raise
        return found
    return adapter_on_hub(address) if why_unreachable() is None else None


def _base_of(adapter: Adapter, family: type[SpeechBackbone], config: BackboneConfig) -> tuple[Address, dict[str, Any]]:
    """Where the model is that an adapter changes, and where it came from."""
    weights, revision = adapter.base if config.adapter_base is None else (config.adapter_base, None)
    base = replace(config, weights=weights, revision=revision, subfolder=None, adapter_base=None)
    try:
        address, origin = resolve_weights(family, base)
    except WeightsError as error:
        raise WeightsError(
            f"the adapter {adapter.address} changes {weights!r}, and that is not here: {error} Give the model that it"
            " changes with --model.backbone.adapter_base."
        ) from error
    if adapter_here(address) is not None:
        raise WeightsError(
            f"the adapter {adapter.address} changes {weights!r}, which is an adapter itself; merge that one with peft"
            " first, and name the merged model with --model.backbone.adapter_base."
        )
    return address, origin


def _with_random_weights(family: type[SpeechBackbone], config: BackboneConfig) -> SpeechBackbone:
    """The architecture of what follows `random:`, which hears sound as that does."""
    config_class, model_class = family.transformers_classes()
    name = config.weights.removeprefix(RANDOM_PREFIX)
    settings = named_architecture(family, name, config.revision, config.subfolder)
    model_config = config_class(**{**settings, **family.switches(config)})
    if name not in TINY_SIZES and name not in FAMILIES[config.family].architectures:
        address, _ = _locate(family, name, config.revision, config.subfolder)
        if extractor_settings(address) is not None:
            prepare_as_said(family, address, model_config)
    model = random_model(model_class, model_config, config.seed)
    return family(model, config, {"kind": "random", "seed": config.seed})


def resolve_weights(family: type[SpeechBackbone], config: BackboneConfig) -> tuple[Address, dict[str, Any]]:
    """Where the weights are that a config asks for by name, and their origin, for the record.

    A tiny model that is not there yet is made now.

    Raises
    ------
    WeightsError
        If the name is no size of the family, nor a folder, nor a hub id, or it has no such revision or subfolder.
    """
    if config.weights in TINY_SIZES:
        _refuse_at_tiny(config.weights, config.revision, config.subfolder)
        folder = str(tiny_folder(family, config.seed, config.weights))
        return Address(folder), {"kind": config.weights, "seed": config.seed, **tiny_record(folder)}
    return _locate(family, config.weights, config.revision, config.subfolder)


def named_architecture(
    family: type[SpeechBackbone], name: str, revision: str | None = None, subfolder: str | None = None
) -> dict[str, Any]:
    """Settings of a published size or a tiny one by name, or those of a folder or hub id.

    Raises
    ------
    WeightsError
        If the name is none of these.
    """
    if name in TINY_SIZES:
        _refuse_at_tiny(name, revision, subfolder)
        return tiny_architecture(family, name)
    known = FAMILIES[family.family].architectures
    if name in known and revision is None and subfolder is None:
        return dict(known[name])
    address, _ = _locate(family, name, revision, subfolder)
    return find_checkpoint(address, family.model_type)[1]


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
    config, origin = backbone.config, backbone.origin
    if origin.get("kind") != "pretrained":
        return None
    try:
        address, _ = _locate(type(backbone), config.weights, config.revision, config.subfolder)
        adapter = adapter_here(address)
        if adapter is not None:
            address, _ = _base_of(adapter, type(backbone), config)
    except WeightsError:  # a folder that is no longer there, or not as it was
        return None
    if not address.is_folder and "commit" in origin:  # the branch may have moved on since
        address = replace(address, revision=origin["commit"])
    places = [address] if adapter is None else [adapter.address, address]
    return next((found for name in names for place in places if (found := place.file(name))), None)


def _refuse_at_tiny(name: str, revision: str | None, subfolder: str | None) -> None:
    if revision is not None or subfolder is not None:
        what, value = ("revision", revision) if revision is not None else ("subfolder", subfolder)
        raise WeightsError(f"weights {name!r} are made on this machine and have no {what} {value!r}; leave it out.")


def _locate(
    family: type[SpeechBackbone], weights: str, revision: str | None, subfolder: str | None
) -> tuple[Address, dict[str, Any]]:
    """The address that a size, a hub id or a folder stands for, and where it came from."""
    sizes = FAMILIES[family.family].sizes
    name, asked = asked_revision(weights, revision)
    if name in TINY_SIZES:
        _refuse_at_tiny(name, asked, subfolder)
    if name not in sizes and is_named_folder(name):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise WeightsError(_no_folder_words(weights))
        origin = {"kind": "pretrained", **({"subfolder": subfolder} if subfolder else {})}
        return folder_address(folder, weights, asked, subfolder), origin
    location = sizes.get(name, name)
    if "/" not in location:
        raise WeightsError(
            f"weights {weights!r} are no size of {family.family}, no folder here, and no hub id, which has a slash."
            f" {did_you_mean(name, [*TINY_SIZES, *sizes])}"
        )
    given = {"hub_id": location, "revision": asked, "subfolder": subfolder}
    origin = {"kind": "pretrained", **{key: value for key, value in given.items() if value}}
    return hub_address(location, weights, asked, subfolder), origin


def _no_folder_words(weights: str) -> str:
    before, at, revision = weights.rpartition("@")
    if at and Path(before).expanduser().is_dir():
        return (
            f"weights {weights!r} are the folder {before}, and revision {revision!r} is asked for: a folder has no"
            " revision. Leave it out, or give the hub id ORG/NAME."
        )
    if Path(weights).expanduser().is_file():
        return (
            f"weights {weights!r} are a file, and a folder is needed: give one with config.json and this file as"
            " model.safetensors or pytorch_model.bin. `brainlit export` makes one of a checkpoint of tuning."
        )
    return f"weights {weights!r}: there is no such folder. Give a folder written by save_pretrained."
