"""Which objectives a config asks for, which families can have them, and the mask embedding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from brainlit.backbones import SpeechBackbone
from brainlit.tuning.objectives import (
    SELF_SUPERVISED,
    CharacterCtc,
    Contrastive,
    MaskedPrediction,
    ObjectiveConfig,
    build_ctc,
    build_self_supervised,
    check_family,
    check_regime,
    for_family,
)
from tests.backbones.conftest import save_mini
from tests.tuning.objectives.conftest import Front, frozen_front, random_states_untouched, tone_batch

CURE = r"--model.objective.ctc 1 --model.objective.self_supervised 0"


def test_the_family_decides_the_self_supervised_loss(backbone: SpeechBackbone) -> None:
    assert not backbone.mask_embedding.requires_grad
    with random_states_untouched():
        built = build_self_supervised(ObjectiveConfig(self_supervised=0.5), backbone, seed=0)
    assert isinstance(built, Contrastive)
    assert backbone.mask_embedding.requires_grad


def test_the_alphabet_of_the_stories_is_taken_where_none_is_given(backbone: SpeechBackbone) -> None:
    with random_states_untouched():
        built = build_ctc(ObjectiveConfig(ctc=1.0), backbone, " abc", seed=0)
    assert isinstance(built, CharacterCtc)
    assert built.characters == " abc"
    assert build_ctc(ObjectiveConfig(ctc=1.0, characters=" xyz"), backbone, " abc", seed=0).characters == " xyz"
    assert not backbone.mask_embedding.requires_grad
    with pytest.raises(ValueError, match="CTC needs an alphabet"):
        build_ctc(ObjectiveConfig(ctc=1.0), backbone, None, seed=0)


def test_stimulus_is_the_loss_that_the_family_knows() -> None:
    config = ObjectiveConfig(targets=0.0, stimulus=2.0)
    own = {family: for_family(config, family) for family in ("wav2vec", "hubert", "whisper", "speecht5")}
    assert [own[f].self_supervised for f in ("wav2vec", "hubert")] == [2.0, 2.0]
    assert [own[f].ctc for f in ("whisper", "speecht5")] == [2.0, 2.0]
    assert all(c.stimulus == 0 and c.self_supervised + c.ctc == 2 for c in own.values())
    joint = ObjectiveConfig(targets=1.0, self_supervised=0.5)
    assert for_family(joint, "wav2vec") is joint


@pytest.mark.parametrize(
    ("config", "regime", "match"),
    [
        (ObjectiveConfig(), "stimulus", r"--model\.objective\.targets 0"),
        (ObjectiveConfig(targets=0.0, ctc=1.0), "brain", r"--data\.regime stimulus"),
        (ObjectiveConfig(targets=0.0, ctc=1.0), "permuted", "regime 'permuted' trains on targets"),
    ],
)
def test_an_objective_that_contradicts_the_regime_is_refused(config: ObjectiveConfig, regime: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_regime(config, regime)


def test_objectives_that_fit_their_regime() -> None:
    check_regime(ObjectiveConfig(targets=0.0, ctc=1.0), "stimulus")
    check_regime(ObjectiveConfig(), "pretrained")
    check_regime(ObjectiveConfig(ctc=1.0), "brain")


def test_each_family_continues_its_own_training() -> None:
    assert SELF_SUPERVISED["wav2vec"] is Contrastive
    masked = [name for name, objective in SELF_SUPERVISED.items() if objective is MaskedPrediction]
    assert sorted(masked) == ["data2vec", "hubert", "unispeech-sat", "wavlm"]


@pytest.mark.parametrize("family", ["whisper", "speecht5", "w2v-bert"])
def test_families_without_such_a_loss_are_refused_with_the_cure(family: str) -> None:
    check_family(ObjectiveConfig(ctc=1.0), family)
    with pytest.raises(ValueError, match=f"'{family}' has no self-supervised loss .*{CURE}"):
        check_family(ObjectiveConfig(self_supervised=1.0), family)


def test_checkpoints_without_a_mask_embedding_are_refused(tmp_path: Path) -> None:
    save_mini(tmp_path, mask_time_prob=0.0)
    with pytest.raises(ValueError, match=f"no mask embedding .*{CURE}"):
        build_self_supervised(ObjectiveConfig(self_supervised=1.0), frozen_front(tmp_path), seed=0)


def test_objectives_of_a_batch_can_be_added_up(backbone: SpeechBackbone, front: Front) -> None:
    config = ObjectiveConfig(self_supervised=0.5, ctc=2.0)
    own, ctc = build_self_supervised(config, backbone, seed=0), build_ctc(config, backbone, " abc", seed=0)
    objectives, batch = nn.ModuleDict({"self_supervised": own, "ctc": ctc}), tone_batch()
    weights = {"self_supervised": config.self_supervised, "ctc": config.ctc}
    parts = {name: objective(backbone, front(batch), batch, 0) for name, objective in objectives.items()}
    sum(weights[name] * part["loss"] for name, part in parts.items()).backward()
    without = [name for name, p in objectives.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
