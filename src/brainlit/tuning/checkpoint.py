"""What a checkpoint says about itself, whether it is whole, and how it is written: whole or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from brainlit.files import atomic_path
from brainlit.guard import DAMAGE
from brainlit.tuning.heads import HeadConfig
from brainlit.weight_files import zip_damage

UNREADABLE: tuple[type[Exception], ...] = (*DAMAGE, UnpicklingError)

log = logging.getLogger(__name__)

RECORD = "brainlit"
MUST_AGREE = ("family", "hidden_size", "n_layers", "frame_rate_hz")
STRUCTURE = ("layer", "pooling", "head", "lora")
"""Settings that decide which weights there are."""
SWITCHES = ("dropout", "layerdrop", "apply_spec_augment")


class CheckpointError(ValueError):
    """A checkpoint of something else than what it is loaded into."""


def read_record(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What BrainTuning wrote about itself: backbone, target_sizes, characters, layer, pooling, head, lora.

    Raises
    ------
    CheckpointError
        If the checkpoint was not written by BrainTuning.
    """
    if RECORD not in checkpoint:
        raise CheckpointError(
            f"this checkpoint has no {RECORD!r} entry, so it was not written by BrainTuning; give one from a"
            " brain-tuning run, or name a save_pretrained folder in --model.backbone.weights."
        )
    record = dict(checkpoint[RECORD])
    return {**record, "head": {**asdict(HeadConfig()), **record["head"]}}  # earlier ones lack what came later


def check_whole(path: Path | str, ending: str = "") -> None:
    """Refuse a file of a checkpoint whose content is not what its own checksums say; see zip_damage.

    Raises
    ------
    CheckpointError
        If it is damaged, cut off, empty or nothing that torch.save wrote.
    """
    if damage := zip_damage(Path(path), ending):
        raise CheckpointError(f"the checkpoint cannot be read: {damage}")


@contextmanager
def checked_beside(path: Path | str) -> Iterator[None]:
    """As `check_whole`, but a second thread compares the tensors with their checksums while the block runs.

    That takes as long as reading them. What the block makes of the file may be used once the block has ended.

    Raises
    ------
    CheckpointError
        If it is not what was written; at the end of the block, whatever else went wrong there.
    """
    check_whole(path, "data.pkl")
    with ThreadPoolExecutor(1) as second:
        checking = second.submit(zip_damage, Path(path))
        try:
            yield
        finally:
            if (damage := checking.result()) is not None:
                raise CheckpointError(f"the checkpoint cannot be read: {damage}")


@contextmanager
def whole_checkpoint(path: Path | str) -> Iterator[dict[str, Any]]:
    """All of a checkpoint of Lightning, as tensors and plain values on the CPU, `checked_beside` the block.

    Raises
    ------
    CheckpointError
        If it is not what was written, or nothing that torch reads.
    """
    with checked_beside(path):
        yield _loaded(path)


def _loaded(path: Path | str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read; take another copy of it.") from error
    return content


def read_content(path: Path) -> dict[str, Any]:
    """Epoch, step, record and the rest of a checkpoint of BrainTuning; the weights stay on disk.

    Raises
    ------
    CheckpointError
        If it cannot be read, or was not written by BrainTuning.
    """
    check_whole(path, "data.pkl")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} is no checkpoint that can be read; name one of a run.") from error
    read_record(content)
    return content


def check_same(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose backbone or head differs from the one it would be loaded into.

    Parameters
    ----------
    saved, ours : mappings
        Records of the checkpoint and of the model; 'target_sizes' is compared where both have them.

    Raises
    ------
    CheckpointError
        Naming the first thing that differs, with both values.
    """
    for key in MUST_AGREE:
        _check("backbone " + key, saved["backbone"][key], ours["backbone"][key])
    then, now = (_core(record["backbone"]["architecture"]) for record in (saved, ours))
    for key in sorted(then.keys() | now.keys()):
        _check(f"backbone architecture {key}", then.get(key), now.get(key))
    for key in STRUCTURE:
        _check(key, saved.get(key), ours.get(key))
    if saved["target_sizes"] and ours["target_sizes"]:
        _check("target voxels per subject", saved["target_sizes"], ours["target_sizes"])
    if saved["backbone"]["weights"] != ours["backbone"]["weights"]:
        log.warning(
            "the checkpoint started from weights %r and this model from %r; the checkpoint's are taken",
            saved["backbone"]["weights"],
            ours["backbone"]["weights"],
        )


def _core(architecture: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in architecture.items() if key not in SWITCHES and "dropout" not in key}


def _check(what: str, saved: Any, ours: Any) -> None:
    if _plain(saved) != _plain(ours):
        raise CheckpointError(
            f"the checkpoint is of another model: its {what} is {saved!r}, here it is {ours!r}. Load it with the"
            " settings it was trained with, or load_tuned(path), which takes them from the checkpoint."
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


# --- Writing ---


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint format, written under a temporary name in the same folder and renamed.

    Lightning gathers a checkpoint in the system's temporary folder and moves it; where that folder is on another disk
    the move is a copy, and a process killed during the copy leaves half a file under the final name.

    Pass it to the trainer: `Trainer(plugins=[AtomicCheckpointIO()])`. Addresses with a scheme (s3://…) are left to
    Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write the checkpoint; on any error the file that was there before stays as it was."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint whose content is what its checksums say; CheckpointError for others."""
        with nullcontext() if "://" in str(path) else checked_beside(path):
            content: dict[str, Any] = super().load_checkpoint(path, *arguments, **options)
        return content
