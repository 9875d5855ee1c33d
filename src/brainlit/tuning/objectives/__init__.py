"""Losses that need no brain: the families' own self-supervised ones, and CTC on the transcript."""

from brainlit.tuning.objectives.base import Objective
from brainlit.tuning.objectives.build import (
    SELF_SUPERVISED,
    build_ctc,
    build_self_supervised,
    check_family,
    check_regime,
    for_family,
    train_mask_embedding,
)
from brainlit.tuning.objectives.characters import inventory_of
from brainlit.tuning.objectives.config import ObjectiveConfig
from brainlit.tuning.objectives.contrastive import Contrastive
from brainlit.tuning.objectives.ctc import CharacterCtc
from brainlit.tuning.objectives.masked_prediction import MaskedPrediction
from brainlit.tuning.objectives.pretraining_heads import load_pretraining_heads

__all__ = [
    "SELF_SUPERVISED",
    "CharacterCtc",
    "Contrastive",
    "MaskedPrediction",
    "Objective",
    "ObjectiveConfig",
    "build_ctc",
    "build_self_supervised",
    "check_family",
    "check_regime",
    "for_family",
    "inventory_of",
    "load_pretraining_heads",
    "train_mask_embedding",
]
