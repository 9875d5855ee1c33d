"""Folders in which peft saved a LoRA adapter: their base model with the adapter merged into its weights."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brainlit.backbones.addresses import Address, WeightsError
from brainlit.backbones.state_dicts import unwrapped, weight_paths
from brainlit.files import sha256_of
from brainlit.hints import few
from brainlit.weight_files import is_path, json_damage, numbers_damage, weights_damage

log = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
_BEGINNING = "base_model.model."
_MATRIX = re.compile(r"(.+)\.lora_([AB])(?:\.[^.]+)?\.(weight|bias)")
_SAVED_BESIDE = re.compile(r"\.(base_layer|modules_to_save\.[^.]+)(?=\.)")

LEAVES_BASE_ALONE = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways of drawing the first A and B that do not change the base model's weights."""
UNKNOWN_HERE = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "use_bdlora": "BD-LoRA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "LoRA on replicated layers",
    "target_parameters": "LoRA on parameters outside of linear maps",
    "trainable_token_indices": "LoRA with trainable tokens",
}
"""Settings of peft's LoraConfig that make another change of it than W + scale B A, and what they are called."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as peft saved it.

    Parameters
    ----------
    address : Address
        Of its files.
    settings : mapping
        Its adapter_config.json.
    """

    address: Address
    settings: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The hub id, or the folder's name alone: where it lies is no one's business."""
        return Path(self.address.place).name if self.address.is_folder else self.address.location

    @property
    def base(self) -> tuple[str, str | None]:
        """The weights that it changes, and their revision, as it says itself.

        Raises
        ------
        WeightsError
            If it does not say.
        """
        weights, revision = self.settings.get("base_model_name_or_path"), self.settings.get("revision")
        if not isinstance(weights, str) or not weights:
            raise WeightsError(
                f"the adapter {self.address} does not say which model it changes (base_model_name_or_path in its"
                f" {CONFIG_FILE}); give that model with --model.backbone.adapter_base."
            )
        is_local = is_path(weights) or Path(weights).expanduser().exists()
        return weights, None if is_local or not isinstance(revision, str) else revision

    def scale(self, path: str, rank: int) -> float:
        """What B A of a linear map is multiplied by: alpha / rank, or alpha / sqrt(rank) (rank-stabilised LoRA).

        Raises
        ------
        WeightsError
            If the matrices are of another rank than the settings say.
        """
        said, alpha = (
            _of_pattern(self.settings.get(f"{what}_pattern"), path, self.settings.get(key))
            for what, key in (("rank", "r"), ("alpha", "lora_alpha"))
        )
        if said != rank or not isinstance(alpha, (int, float)):
            raise WeightsError(
                f"the adapter {self.address} has matrices of rank {rank} for {path!r}, and its {CONFIG_FILE} says rank"
                f" {said} and alpha {alpha}; take both files from the same adapter."
            )
        return alpha / math.sqrt(rank) if self.settings.get("use_rslora") else alpha / rank


def adapter_here(address: Address) -> Adapter | None:
    """The adapter whose files are here; None where there is none. The hub is not asked.

    Raises
    ------
    WeightsError
        If it cannot be read, is no LoRA that can be merged, or lies in one folder with a whole model.
    """
    path = address.file(CONFIG_FILE)
    if path is None:
        return None
    if weight_paths(path.parent):
        raise WeightsError(
            f"{path.parent} holds a whole model and an adapter ({CONFIG_FILE}), and nothing says whether the one is"
            " already in the other. Move the adapter's files away to take the model as it is, or the model's to take"
            " the adapter with its base."
        )
    if damage := json_damage(path):
        raise WeightsError(f"could not read the adapter {address}: {damage}")
    settings = json.loads(path.read_text(encoding="utf-8"))
    _refuse_other_kinds(address, settings)
    return Adapter(address, settings)


def adapter_on_hub(address: Address) -> Adapter | None:
    """The adapter that the hub, which can be reached, has under this name; None where it has none."""
    return adapter_here(address) if _downloaded(address, CONFIG_FILE) else None


@torch.no_grad()
def merge_adapter(model: nn.Module, adapter: Adapter) -> dict[str, Any]:
    """Add scale x B A to the weights of a base model, in place, and take over what was trained and saved as a whole.

    Computed as peft does (0.21, `merge_and_unload`), so the sums are the same numbers. What the adapter has for parts
    that the model here lacks, such as a head for recognition, is left out, and that is logged.

    Parameters
    ----------
    model : model of transformers
        In float32.

    Returns
    -------
    dict
        For the record: name of the adapter, SHA-256 of its file, number of linear maps, and what else was replaced.

    Raises
    ------
    WeightsError
        If its file is missing or damaged, or something in it fits nothing in the model.
    """
    path = _weights_file(adapter.address)
    tensors = _read(path)
    matrices: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    beside: set[str] = set()
    for key, value in tensors.items():
        name = unwrapped(key).removeprefix(_BEGINNING)
        if match := _MATRIX.fullmatch(name):
            matrices.setdefault(match[1], {})[f"{match[2]}.{match[3]}"] = value.float()
        elif ".lora_" in name:
            raise _fits_nothing(adapter, key, "is no matrix of a linear map (LoRA of an embedding, or a variant)")
        elif ".original_module." not in name:
            whole[_SAVED_BESIDE.sub("", name)] = value
    modules, state = dict(model.named_modules()), model.state_dict()
    for name, value in whole.items():
        own = _own_name(name, state, model)
        if own is None:
            beside.add(_beside(adapter, name, model))
        elif state[own].shape != value.shape:
            raise _fits_nothing(adapter, name, f"has shape {tuple(value.shape)}, the model's {tuple(state[own].shape)}")
        else:
            state[own].copy_(value)
    merged = 0
    for name, parts in matrices.items():
        own = _own_name(name, modules, model)
        if own is None:
            beside.add(_beside(adapter, name, model))
            continue
        _merge_into(modules[own], name, parts, adapter)
        merged += 1
    if not merged:
        raise WeightsError(
            f"the adapter {adapter.address} changes no linear map of {type(model).__name__}; it has"
            f" {few(sorted(matrices)) or 'no matrices'}. Is it of another model?"
        )
    if damage := numbers_damage(model):
        raise WeightsError(f"the adapter {adapter.address} is damaged: with it, {damage}. Take another copy of it.")
    if beside:
        log.info("%s: what the adapter has for %s is left out", adapter.address, few(sorted(beside), 5))
    log.info("%s: LoRA merged into %d linear maps", adapter.address, merged)
    replaced = sorted(name for name in whole if name not in beside)
    facts = {"name": adapter.name, "sha256": sha256_of(path), "linear_maps": merged, "replaced": replaced}
    facts |= {"rank": adapter.settings.get("r"), "alpha": adapter.settings.get("lora_alpha")}
    address = adapter.address
    known = {"revision": address.revision, "commit": address.commit, "subfolder": address.subfolder}
    return {**facts, **{key: value for key, value in known.items() if value}}


def _merge_into(module: nn.Module, name: str, parts: Mapping[str, Tensor], adapter: Adapter) -> None:
    if not isinstance(module, nn.Linear):
        raise _fits_nothing(adapter, name, f"changes a {type(module).__name__}, and linear maps alone can be merged")
    if not {"A.weight", "B.weight"} <= parts.keys():
        raise _fits_nothing(adapter, name, f"has {' and '.join(sorted(parts))} alone, of A and B")
    down, up = parts["A.weight"], parts["B.weight"]
    shape = (up.shape[0], down.shape[1])
    if down.shape[0] != up.shape[1] or shape != tuple(module.weight.shape):
        raise _fits_nothing(adapter, name, f"makes a change of {shape}, the model has {tuple(module.weight.shape)}")
    scale = adapter.scale(name, down.shape[0])
    module.weight.add_((up @ down) * scale)
    if "B.bias" in parts:
        if module.bias is None:
            raise _fits_nothing(adapter, name, "has a bias, and the model's linear map has none")
        module.bias.add_(parts["B.bias"] * scale)


def _refuse_other_kinds(address: Address, settings: Mapping[str, Any]) -> None:
    """Adapters that are not W + scale B A on the base model's own weights."""
    kind = settings.get("peft_type")
    found = None if kind == "LORA" else str(kind)
    found = found or next((words for key, words in UNKNOWN_HERE.items() if settings.get(key)), None)
    if found is None and (drawn := settings.get("init_lora_weights", True)) not in LEAVES_BASE_ALONE:
        found = f"LoRA that began from changed base weights (init_lora_weights {drawn!r})"
    if found is not None:
        raise WeightsError(
            f"the adapter {address} is {found}, and LoRA alone can be merged here. Merge it with peft"
            " (merge_and_unload), save the model with save_pretrained, and name that folder."
        )


def _of_pattern(pattern: Any, path: str, otherwise: Any) -> Any:
    """The value of the first pattern that fits the end of a linear map's name, as peft looks it up."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", path):
            return value
    return otherwise


def _own_name(name: str, known: Mapping[str, Any], model: Any) -> str | None:
    """What the model calls a part of the model that was trained, which may have been inside a larger one."""
    parts = name.split(".")
    candidates = [*(".".join(parts[k:]) for k in range(len(parts))), f"{model.base_model_prefix}.{name}"]
    return next((candidate for candidate in candidates if candidate in known), None)


def _beside(adapter: Adapter, name: str, model: nn.Module) -> str:
    """The part of the trained model that the model here lacks; an error if it should be inside."""
    if {child for child, _ in model.named_children()} & set(name.split(".")):
        raise _fits_nothing(adapter, name, f"is no part of {type(model).__name__} of this size")
    return name


def _fits_nothing(adapter: Adapter, name: str, why: str) -> WeightsError:
    return WeightsError(
        f"the adapter {adapter.address} does not fit its base: {name!r} {why}. Give the model that it was trained on"
        " with --model.backbone.adapter_base, or merge it with peft and name the merged model's folder."
    )


def _weights_file(address: Address) -> Path:
    for name in FILES:
        path = address.file(name) or (None if address.is_folder else _downloaded(address, name))
        if path is not None:
            if damage := weights_damage(path):
                raise WeightsError(f"could not read the adapter {address}: {damage}")
            return path
    raise WeightsError(f"the adapter {address} has {CONFIG_FILE} and neither {' nor '.join(FILES)}; download it again.")


def _downloaded(address: Address, name: str) -> Path | None:
    """A file of the hub, or of its cache; None where it has none."""
    from huggingface_hub import hf_hub_download

    inside = f"{address.subfolder}/{name}" if address.subfolder else name
    try:
        return Path(hf_hub_download(address.location, inside, revision=address.revision))
    except (OSError, ValueError) as error:
        log.debug("no %s at %s (%s)", name, address, error)
        return None


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return found
