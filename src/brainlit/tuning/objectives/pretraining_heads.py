"""Heads of wav2vec 2.0's own training, where a checkpoint still has them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from brainlit.backbones import SpeechBackbone, WeightsError
from brainlit.backbones.weights import checkpoint_file
from brainlit.tuning.objectives.contrastive import Contrastive

log = logging.getLogger(__name__)

FILES = ("model.safetensors", "pytorch_model.bin")


def use_pretraining_heads(backbone: SpeechBackbone, module: Contrastive) -> bool:
    """Go on with the heads of the backbone's own checkpoint; True where it has them. Says so in the log."""
    file, weights = checkpoint_file(backbone, *FILES), backbone.config.weights
    found = file is not None and load_pretraining_heads(file, module)
    if found:
        log.info("quantiser and projections of the contrastive loss: those of %s", weights)
    else:
        log.info("%s has no quantiser: it begins at random (seed %d), and so does the loss", weights, module.seed)
    return found


def load_pretraining_heads(file: Path, module: Contrastive) -> bool:
    """Load quantizer, project_hid and project_q from a Wav2Vec2ForPreTraining checkpoint; False if it lacks any.

    Parameters
    ----------
    file : Path
        model.safetensors or pytorch_model.bin.

    Raises
    ------
    WeightsError
        If the checkpoint's heads have other shapes.
    """
    wanted = module.state_dict()
    tensors = _read(file, set(wanted))
    if set(tensors) != set(wanted):
        return False
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise WeightsError(
                f"{name} has shape {tuple(tensor.shape)} in {file} and {tuple(wanted[name].shape)} here; leave"
                " --model.objective.n_groups and n_vars at null to take what the checkpoint says."
            )
    module.load_state_dict(tensors)
    return True


def _read(file: Path, names: set[str]) -> dict[str, Tensor]:
    """Those of the named tensors that are in a file."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_tensor(name) for name in names & set(tensors.keys())}
    loaded: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return {name: loaded[name] for name in names & set(loaded)}
