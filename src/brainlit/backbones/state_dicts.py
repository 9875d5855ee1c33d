"""Names of parameters in files of weights, where a wrapper (DataParallel, peft, Lightning) has changed them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainlit.backbones.addresses import WeightsError
from brainlit.hints import few
from brainlit.weight_files import SINGLE_FILES, is_from_readers_of_weights

WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that torch.compile, FSDP and activation checkpointing put in, wherever they wrap something."""
_OLD_NAMES = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
"""Of weight normalisation before torch 2, which transformers renames by itself."""
_INSIDE = ("state_dict", "model_state_dict", "model", "module")
"""Where programs that save more than weights put these; Lightning: state_dict."""


@dataclass(frozen=True)
class Renaming:
    """How a file's names become a model's.

    Parameters
    ----------
    removed : str
        What all of them begin with in the file and not in the model, with its last dot.
    added : str
        What all of them begin with in the model and not in the file.
    wrapped : tuple of str
        Parts that wrappers put in.
    """

    removed: str = ""
    added: str = ""
    wrapped: tuple[str, ...] = ()

    def __call__(self, name: str) -> str | None:
        """The model's name; None for what is beside the model."""
        plain = unwrapped(name)
        return f"{self.added}{plain.removeprefix(self.removed)}" if plain.startswith(self.removed) else None

    def __str__(self) -> str:
        """In words, for the log."""
        left_out = [repr(part) for part in (self.removed, *self.wrapped) if part]
        words = [f"without {' and '.join(left_out)}"] if left_out else []
        return ", ".join([*words, *([f"with {self.added!r} before them"] if self.added else [])]) or "as they are"


def unwrapped(name: str) -> str:
    """A parameter's name without what wrappers put into it.

    >>> unwrapped("_orig_mod.encoder.layers.0._orig_mod.fc1.weight")
    'encoder.layers.0.fc1.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def find_renaming(names: Collection[str], needed: Collection[str], weights: str) -> Renaming | None:
    """The one renaming by which the names hold all that is needed; None if there is none.

    Parameters
    ----------
    names : collection of str
        Of the file.
    needed : collection of str
        Of the model.
    weights : str
        For the error.

    Raises
    ------
    WeightsError
        If several beginnings lead to the whole model: the file holds several.
    """
    wrapped = tuple(sorted({part for name in names for part in name.split(".") if part in WRAPPERS}))
    there, wanted = {_as_now(unwrapped(name)) for name in names}, {_as_now(name) for name in needed}
    if wanted <= there:
        return Renaming(wrapped=wrapped)
    whole = [beginning for beginning, n in _beginnings(there, wanted).items() if n == len(wanted)]
    if len(whole) > 1:
        raise WeightsError(
            f"weights {weights!r} hold {len(whole)} such models, under {few([f'{one}.' for one in sorted(whole)])} (a"
            " teacher beside a student, or averaged weights?). Save the one that is meant with save_pretrained."
        )
    if whole:
        return Renaming(removed=f"{whole[0]}.", wrapped=wrapped)
    parts = [part for part, n in _beginnings(wanted, there).items() if n == len(wanted)]
    return Renaming(added=f"{parts[0]}.", wrapped=wrapped) if len(parts) == 1 else None


def lacking(names: Collection[str], needed: Collection[str]) -> tuple[list[str], str]:
    """Which of the needed parameters a file lacks; and in words how many it has, and what it has instead."""
    there = {_as_now(unwrapped(name)) for name in names}
    wanted = {_as_now(name): name for name in needed}
    begin = max(("", *(f"{one}." for one in _beginnings(there, wanted))), key=lambda one: _n_found(one, there, wanted))
    missing = sorted(name for now, name in wanted.items() if f"{begin}{now}" not in there)
    others = sorted(name for name in names if _as_now(unwrapped(name)).removeprefix(begin) not in wanted)
    if missing:  # those from the same place first
        others.sort(key=lambda name: -_n_shared(f"{begin}{missing[0]}", name))
    n_there = len(wanted) - len(missing)
    under = f" (under {begin!r})" if begin and n_there else ""
    return missing, (
        f"{n_there} of the {len(wanted)} parameters are in the file{under}; missing: {few(missing)}; what it has"
        f" instead: {few(others) or 'nothing'}"
    )


def refuse_adapters(names: Iterable[str], weights: str) -> None:
    """Refuse a whole model with LoRA beside its matrices: what it is scaled by is not in the file.

    Raises
    ------
    WeightsError
        Naming the first such parameter.
    """
    found = next((name for name in names if ".lora_A." in name), None)
    if found is not None:
        raise WeightsError(
            f"weights {weights!r} hold a LoRA adapter that is not merged ({found!r}), and not what it is scaled by."
            " Save the model after merge_and_unload(), or the adapter alone with save_pretrained of peft."
        )


def read_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder of weights by name: of the files that from_pretrained would take."""
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for path in weight_paths(folder):
        state |= load_file(path) if path.suffix == ".safetensors" else inner_state(_torch_content(path))
    return state


def read_names(folder: Path) -> list[str]:
    """Names of all tensors of a folder of weights; the numbers stay on disk."""
    from safetensors import safe_open

    names: list[str] = []
    for path in weight_paths(folder):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                names += tensors.keys()
        else:
            names += inner_state(_torch_content(path))
    return names


def weight_paths(folder: Path) -> list[Path]:
    """The files of weights that from_pretrained would take from a folder; empty where there are none."""
    for name in SINGLE_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return [folder / shard for shard in sorted(set(shards.values()))]
    return []


def is_nested(folder: Path) -> bool:
    """Whether a folder's weights lie inside something else that torch.save wrote, as Lightning saves them."""
    paths = weight_paths(folder)
    if [path.name for path in paths] != [SINGLE_FILES[1]]:
        return False
    try:
        content = _torch_content(paths[0])
    except Exception as error:
        if isinstance(error, (OSError, ValueError)) or is_from_readers_of_weights(error):
            return False  # what is wrong with it is said by whoever asks
        raise
    return inner_state(content) is not content


def inner_state(content: Any) -> Any:
    """The tensors by name in what torch.save wrote; the content itself where they lie at its top, or nowhere."""
    if isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        for key in _INSIDE:
            inner = content.get(key)
            if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
                return {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    return content


def _torch_content(path: Path) -> Any:
    import zipfile

    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _as_now(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_OLD_NAMES[last]}" if stem and last in _OLD_NAMES else name


def _beginnings(longer: Iterable[str], shorter: Collection[str]) -> Counter[str]:
    """What stands before each of the shorter names in the longer ones, and before how many of them."""
    found: Counter[str] = Counter()
    for name in longer:
        parts = name.split(".")
        for k in range(1, len(parts)):
            if ".".join(parts[k:]) in shorter:
                found[".".join(parts[:k])] += 1
    return found


def _n_shared(one: str, other: str) -> int:
    """How many parts two names share from their beginning."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _n_found(beginning: str, there: Collection[str], wanted: Iterable[str]) -> int:
    return sum(f"{beginning}{name}" in there for name in wanted)
