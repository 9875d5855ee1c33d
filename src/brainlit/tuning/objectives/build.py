"""Which self-supervised loss each family has, and the objectives that a config asks for."""

from __future__ import annotations

from dataclasses import replace

from brainlit.backbones import SpeechBackbone
from brainlit.backbones.families import FAMILIES, OwnLoss
from brainlit.tuning.objectives.base import Objective, ObjectiveConfig
from brainlit.tuning.objectives.contrastive import Contrastive, use_pretraining_heads
from brainlit.tuning.objectives.ctc import CharacterCtc
from brainlit.tuning.objectives.masked_prediction import MaskedPrediction

_OWN_LOSSES: dict[OwnLoss, type[Contrastive] | type[MaskedPrediction]] = {
    "contrastive": Contrastive,
    "masked_prediction": MaskedPrediction,
}
SELF_SUPERVISED = {name: _OWN_LOSSES[family.own_loss] for name, family in FAMILIES.items() if family.own_loss}
"""Objectives of the families that have a self-supervised loss here."""


def for_family(config: ObjectiveConfig, family: str) -> ObjectiveConfig:
    """The config with its stimulus weight given to the family's own loss.

    >>> for_family(ObjectiveConfig(targets=0, stimulus=1), "whisper").ctc
    1.0
    """
    if not config.stimulus:
        return config
    own = "self_supervised" if family in SELF_SUPERVISED else "ctc"
    return replace(config, stimulus=0.0, **{own: getattr(config, own) + config.stimulus})


def check_regime(config: ObjectiveConfig, regime: str) -> None:
    """Refuse an objective that contradicts the data module's regime."""
    if regime == "stimulus" and config.targets:
        raise ValueError(
            f"regime 'stimulus' trains on the sound alone, but objective.targets is {config.targets:g}: give"
            " --model.objective.targets 0 and --model.objective.stimulus 1 (-c stimulus), or"
            " another regime for a joint objective."
        )
    if regime not in ("stimulus", "pretrained") and not config.targets:
        raise ValueError(
            f"regime {regime!r} trains on targets, but objective.targets is 0: give it a weight, or"
            " --data.regime stimulus."
        )


def check_family(config: ObjectiveConfig, family: str) -> None:
    """Refuse a self-supervised weight for a family that has no such loss here; needs no weights loaded."""
    if config.self_supervised and family not in SELF_SUPERVISED:
        raise ValueError(
            f"family {family!r} has no self-supervised loss here (only {', '.join(SELF_SUPERVISED)} have); train it on"
            " the transcript: --model.objective.ctc 1 --model.objective.self_supervised 0."
        )


def build_self_supervised(config: ObjectiveConfig, backbone: SpeechBackbone, seed: int) -> Objective:
    """The family's self-supervised loss, with the checkpoint's own heads where it has them.

    Raises
    ------
    ValueError
        If the family has none, or the checkpoint has no mask embedding.
    """
    check_family(config, backbone.family)
    train_mask_embedding(backbone)
    objective = SELF_SUPERVISED[backbone.family](config, backbone, seed)
    if isinstance(objective, Contrastive):
        use_pretraining_heads(backbone, objective)
    return objective


def build_ctc(config: ObjectiveConfig, backbone: SpeechBackbone, characters: str | None, seed: int) -> CharacterCtc:
    """CTC with the config's alphabet, or else the one given.

    Raises
    ------
    ValueError
        If neither is there.
    """
    alphabet = config.characters or characters
    if alphabet is None:
        raise ValueError(
            "CTC needs an alphabet: give --model.objective.characters, or stories with a transcript to take it from."
        )
    return CharacterCtc(alphabet, backbone.hidden_size, seed)


def train_mask_embedding(backbone: SpeechBackbone) -> None:
    """Let the mask embedding learn, which is frozen otherwise; call it again after anything that freezes parameters.

    Raises
    ------
    ValueError
        If the checkpoint has none.
    """
    if backbone.mask_embedding is None:
        raise ValueError(
            f"weights {backbone.config.named!r} have no mask embedding (mask_time_prob is 0 in their config), so"
            " nothing can be hidden from them; choose another checkpoint, or train on the transcript:"
            " --model.objective.ctc 1 --model.objective.self_supervised 0."
        )
    backbone.mask_embedding.requires_grad_(True)
