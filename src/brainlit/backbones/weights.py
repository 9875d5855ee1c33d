"""Weights of published models: from a folder, from the hub, tiny, or random when asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.hub import WeightsError as WeightsError
from brainlit.backbones.hub import commit_of, fetch, local_folder
from brainlit.backbones.sizes import ARCHITECTURES, SIZES
from brainlit.hints import did_you_mean

if TYPE_CHECKING:
    from brainlit.backbones.base import SpeechBackbone

RANDOM_PREFIX = "random:"
MAY_BE_MISSING = ("masked_spec_embed",)


@dataclass(frozen=True)
class Checkpoint:
    """A place that `from_pretrained` understands, with the settings found there.

    Parameters
    ----------
    location : str
        Folder or hub id.
    settings : dict
        Its config.json.
    """

    location: str
    settings: dict[str, Any]


def load_model(
    family: type[SpeechBackbone], config: BackboneConfig, switches: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The transformers model that a config asks for, in fp32 and eval mode, and where its weights came from.

    Parameters
    ----------
    family : subclass of SpeechBackbone
        Its class_names and model_type say what to load.
    config : BackboneConfig
    switches : mapping
        Settings of the model that replace the checkpoint's own: dropouts and the like.

    Returns
    -------
    model : transformers model
    origin : dict
        For the record; plain JSON values.

    Raises
    ------
    WeightsError
        If the weights are not there, incomplete, or another family's.
    """
    import transformers

    config_class, model_class = (getattr(transformers, name) for name in family.class_names)
    if config.weights.startswith(RANDOM_PREFIX):
        settings = named_architecture(family, config.weights.removeprefix(RANDOM_PREFIX))
        model = random_model(model_class, config_class(**with_switches(settings, switches)), config.seed)
        return model, {"kind": "random", "seed": config.seed}
    location, origin = resolve_weights(family, config)
    checkpoint = find_checkpoint(location, family.model_type)
    model_config = config_class(**with_switches(checkpoint.settings, switches))
    model = load_checkpoint(model_class, checkpoint, model_config)
    commit = commit_of(checkpoint.location)
    return model, origin if commit is None else {**origin, "commit": commit}


def resolve_weights(family: type[SpeechBackbone], config: BackboneConfig) -> tuple[str, dict[str, Any]]:
    """Where the weights are that a config asks for by name: a folder or a hub id; and their origin, for the record.

    A tiny model that is not there yet is made now.

    Raises
    ------
    WeightsError
        If the name is no size of the family, nor a folder, nor a hub id.
    """
    from brainlit.backbones.tiny import TINY_SIZES, tiny_folder, tiny_record

    if config.weights in TINY_SIZES:
        folder = str(tiny_folder(config.seed, family.family, config.weights))
        return folder, {"kind": config.weights, "seed": config.seed, **tiny_record(folder)}
    return _locate(family, config.weights)


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


def named_architecture(family: type[SpeechBackbone], name: str) -> dict[str, Any]:
    """Settings of a published size or a tiny one by name, or those of a folder or hub id.

    Raises
    ------
    WeightsError
        If the name is none of these.
    """
    from brainlit.backbones.tiny import TINY_SIZES, tiny_architecture

    if name in TINY_SIZES:
        return tiny_architecture(family.family, name)
    known = ARCHITECTURES.get(family.family, {})
    if name in known:
        return dict(known[name])
    location, _ = _locate(family, name)
    return find_checkpoint(location, family.model_type).settings


def find_checkpoint(location: str, model_type: str) -> Checkpoint:
    """Read the settings of a folder or hub id, and check that it holds the family that was asked for.

    Parameters
    ----------
    location : str
        A save_pretrained folder, or a hub id.
    model_type : str
        What config.json must say: 'wav2vec2' for the wav2vec family.

    Raises
    ------
    WeightsError
        If there is no such folder, the hub has no such model or cannot be reached, or the model is another family's.
    """
    from transformers import PretrainedConfig

    folder = Path(location).expanduser()
    if folder.is_dir():
        location = str(folder)
        if not (folder / "config.json").is_file():
            raise WeightsError(
                f"{folder} has no config.json, so it is no save_pretrained folder; name the folder in it."
            )
    elif folder.exists() or location.startswith(("/", ".", "~")) or location.count("/") > 1:
        raise WeightsError(f"weights {location!r}: there is no such folder. Give a folder written by save_pretrained.")
    settings, _ = fetch(location, lambda local: PretrainedConfig.get_config_dict(location, local_files_only=local))
    found = settings.get("model_type")
    if found != model_type:
        raise WeightsError(
            f"weights {location!r} are a {found!r} model, and this family needs {model_type!r}; choose the family that"
            " fits the weights, or other weights."
        )
    return Checkpoint(location, settings)


def load_checkpoint(model_class: Any, checkpoint: Checkpoint, config: Any) -> Any:
    """The model in fp32 and eval mode; nothing in it is left at random values.

    Parameters
    ----------
    model_class : class of transformers
        For instance Wav2Vec2Model.
    config : its configuration
        With the switches as they are wanted.

    Raises
    ------
    WeightsError
        If the files are missing or cannot be fetched, or lack parameters of the model.
    """
    options = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    with torch.random.fork_rng(devices=[]):
        model, report = fetch(
            checkpoint.location,
            lambda local: model_class.from_pretrained(checkpoint.location, local_files_only=local, **options),
        )
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(MAY_BE_MISSING))
    if missing:
        raise WeightsError(
            f"weights {checkpoint.location!r} lack {len(missing)} parameters of {model_class.__name__}, for instance"
            f" {missing[0]!r}; they would start at random. Use a complete checkpoint, or say"
            f" {RANDOM_PREFIX}{checkpoint.location} if random weights are wanted."
        )
    return model.eval()


def random_model(model_class: Any, config: Any, seed: int) -> Any:
    """The architecture with random weights, in eval mode; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


def with_switches(settings: Mapping[str, Any], switches: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint with ours in place of its own."""
    return {**settings, **switches}


def _locate(family: type[SpeechBackbone], name: str) -> tuple[str, dict[str, Any]]:
    """The folder or hub id that a size, a hub id or a folder stands for, and where it came from."""
    from brainlit.backbones.tiny import TINY_SIZES

    sizes = SIZES.get(family.family, {})
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
