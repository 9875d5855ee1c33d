"""Losses that need no brain: the families' own self-supervised ones, and CTC on the transcript."""

from brainlit.tuning.objectives.base import Objective, ObjectiveConfig
from brainlit.tuning.objectives.build import (
    SELF_SUPERVISED,
    build_ctc,
    build_self_supervised,
    check_family,
    check_regime,
    for_family,
    train_mask_embedding,
)
from brainlit.tuning.objectives.contrastive import Contrastive, load_pretraining_heads
from brainlit.tuning.objectives.ctc import CharacterCtc, inventory_of
from brainlit.tuning.objectives.masked_prediction import MaskedPrediction

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
