"""Which objectives a config asks for, which families can have them, and the mask embedding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brainlit.backbones import SpeechBackbone
from brainlit.tuning.objectives import (
    SELF_SUPERVISED,
    CharacterCtc,
    Contrastive,
    MaskedPrediction,
    ObjectiveConfig,
    build_objectives,
    check_family,
)
from tests.backbones.conftest import save_mini
from tests.tuning.objectives.conftest import Front, frozen_front, random_states_untouched, tone_batch

CURE = r"--model.objective.ctc 1 --model.objective.self_supervised 0"


def test_the_targets_alone_need_no_objective(backbone: SpeechBackbone) -> None:
    assert len(build_objectives(ObjectiveConfig(), backbone, seed=0)) == 0
    assert not backbone.mask_embedding.requires_grad


def test_weights_above_zero_are_built(backbone: SpeechBackbone) -> None:
    config = ObjectiveConfig(targets=1.0, self_supervised=0.5, ctc=0.5, characters=" xyz")
    with random_states_untouched():
        built = build_objectives(config, backbone, seed=0, characters=" abc")
    assert set(built) == {"self_supervised", "ctc"}
    assert isinstance(built["self_supervised"], Contrastive)
    assert isinstance(built["ctc"], CharacterCtc)
    assert built["ctc"].characters == " xyz"
    assert backbone.mask_embedding.requires_grad


def test_the_alphabet_of_the_stories_is_taken_where_none_is_given(backbone: SpeechBackbone) -> None:
    built = build_objectives(ObjectiveConfig(ctc=1.0), backbone, seed=0, characters=" abc")
    assert set(built) == {"ctc"}
    assert built["ctc"].characters == " abc"
    assert not backbone.mask_embedding.requires_grad
    with pytest.raises(ValueError, match="CTC needs an alphabet"):
        build_objectives(ObjectiveConfig(ctc=1.0), backbone, seed=0)


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
        build_objectives(ObjectiveConfig(self_supervised=1.0), frozen_front(tmp_path), seed=0)


def test_objectives_of_a_batch_can_be_added_up(backbone: SpeechBackbone, front: Front) -> None:
    config = ObjectiveConfig(self_supervised=0.5, ctc=2.0)
    objectives, batch = build_objectives(config, backbone, seed=0, characters=" abc"), tone_batch()
    weights = {"self_supervised": config.self_supervised, "ctc": config.ctc}
    parts = {name: objective(backbone, front(batch), batch, 0) for name, objective in objectives.items()}
    sum(weights[name] * part["loss"] for name, part in parts.items()).backward()
    without = [name for name, p in objectives.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
