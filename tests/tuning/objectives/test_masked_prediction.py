"""HuBERT's loss: clusters of the untuned model, found once, by seed; labels that do not move; it can be learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from brainlit.backbones import BackboneConfig, SpeechBackbone, load_backbone
from brainlit.tuning.objectives import MaskedPrediction, ObjectiveConfig, build_self_supervised
from brainlit.tuning.objectives.masked_prediction import find_clusters
from tests.backbones.conftest import MINI
from tests.tuning.objectives.conftest import Front, learn, random_states_untouched, tone_batch, values

CONFIG = ObjectiveConfig(self_supervised=1.0, n_clusters=6, kmeans_frames=500)
BATCHES = [tone_batch(seed=k, letter_s=0.25) for k in range(3)]


@pytest.fixture(params=["post-norm", "pre-norm"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> SpeechBackbone:
    from transformers import HubertConfig, HubertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = HubertConfig(**MINI, do_stable_layer_norm=request.param == "pre-norm")
        HubertModel(config).save_pretrained(tmp_path)
    found = load_backbone(BackboneConfig(family="hubert", weights=str(tmp_path)))
    found.freeze_feature_encoder()
    return found


def prepared(backbone: SpeechBackbone, config: ObjectiveConfig = CONFIG, seed: int = 0) -> MaskedPrediction:
    objective = build_self_supervised(config, backbone, seed)
    assert isinstance(objective, MaskedPrediction)
    objective.prepare(backbone, BATCHES)
    return objective


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_teacher_states_are_those_of_the_untuned_model(backbone: SpeechBackbone, front: Front, layer: int) -> None:
    config = ObjectiveConfig(self_supervised=1.0, kmeans_layer=layer)
    objective = MaskedPrediction(config, backbone, seed=0)
    sound = front(BATCHES[0])
    expected = backbone.trunk(sound.features, sound.frame_mask)[layer].detach()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.1
    objective.train()
    torch.testing.assert_close(objective.teacher_states(sound), expected)
    assert not any(parameter.requires_grad for parameter in objective.teacher.parameters())
    assert not [name for name, _ in objective.teacher.named_parameters() if "feature_extractor" in name]


def test_clusters_have_the_states_that_are_nearest(backbone: SpeechBackbone, front: Front) -> None:
    objective = prepared(backbone)
    states = objective.teacher_states(front(BATCHES[1]))[0]
    distances = torch.cdist(states, objective.centroids)
    assert torch.equal(objective.labels(states), distances.argmin(1))
    assert len(objective.labels(states).unique()) > 1


def test_clusters_come_from_real_frames_alone_and_as_many_as_asked(
    backbone: SpeechBackbone, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def spy(states: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
        seen.append(states)
        return find_clusters(states, n_clusters, seed)

    monkeypatch.setattr("brainlit.tuning.objectives.masked_prediction.find_clusters", spy)
    objective = prepared(backbone)
    fronts = [front(batch) for batch in BATCHES]
    real = torch.cat([objective.teacher_states(f)[f.frame_mask] for f in fronts])
    np.testing.assert_allclose(seen[0], real[:500], atol=1e-6)


def test_clusters_go_by_seed_and_no_global_random_state(backbone: SpeechBackbone, front: Front) -> None:
    with random_states_untouched():
        objective = prepared(backbone)
        found = values(objective(backbone, front(BATCHES[0]), BATCHES[0], step=2))
    again = prepared(backbone)
    assert torch.equal(objective.centroids, again.centroids)
    assert found == values(again(backbone, front(BATCHES[0]), BATCHES[0], step=2))
    assert found != values(again(backbone, front(BATCHES[0]), BATCHES[0], step=3))
    assert not torch.equal(objective.centroids, prepared(backbone, seed=1).centroids)


def test_a_resumed_run_keeps_clusters_and_teacher(backbone: SpeechBackbone, front: Front) -> None:
    objective = prepared(backbone).eval()
    expected = values(objective(backbone, front(BATCHES[0]), BATCHES[0], 0))
    changed = load_backbone(BackboneConfig(family="hubert", weights=backbone.config.weights))
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter *= 0.5
    resumed = MaskedPrediction(CONFIG, changed, seed=5).eval()
    assert not resumed.prepared
    resumed.load_state_dict(objective.state_dict())
    resumed.seed = objective.seed
    resumed.prepare(backbone, [])
    assert values(resumed(backbone, front(BATCHES[0]), BATCHES[0], 0)) == expected


def test_loss_counts_hidden_real_frames_alone(backbone: SpeechBackbone) -> None:
    objective = prepared(backbone)
    states, labels = torch.randn(7, 16, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 6
    found = objective.score(states, labels)
    losses = []
    for state, label in zip(objective.project(states), labels, strict=True):
        similar = torch.cosine_similarity(state[None], objective.codes) / 0.1
        losses.append(float((similar.logsumexp(0) - similar[label]).detach()))
    assert values(found)["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert values(found)["n_hidden"] == 7


def test_a_batch_of_silence_counts_for_nothing_and_has_gradients(backbone: SpeechBackbone, front: Front) -> None:
    objective, batch = prepared(backbone), tone_batch()
    batch["audio_mask"][:] = False
    found = objective(backbone, front(batch), batch, 0)
    found["loss"].backward()
    assert values(found) == {"loss": 0.0, "accuracy": 0.0, "n_hidden": 0.0}


def test_validation_measures_the_same_at_every_step(backbone: SpeechBackbone, front: Front) -> None:
    objective, sound = prepared(backbone).eval(), front(BATCHES[0])
    assert values(objective(backbone, sound, BATCHES[0], 1)) == values(objective(backbone, sound, BATCHES[0], 80))


def test_it_can_be_learned(backbone: SpeechBackbone) -> None:
    objective = prepared(backbone, ObjectiveConfig(self_supervised=1.0, n_clusters=6, mask_prob=0.4, mask_length=5))
    labels = objective.centroids.clone()
    losses = learn(objective, backbone, BATCHES, steps=30, lr=1e-2)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:3])
    assert torch.equal(labels, objective.centroids)


def test_fewer_frames_than_clusters_are_refused(backbone: SpeechBackbone) -> None:
    few = ObjectiveConfig(self_supervised=1.0, n_clusters=500, kmeans_frames=40)
    with pytest.raises(ValueError, match=r"40 frames .* too few for 500 clusters; give fewer --model.objective"):
        prepared(backbone, few)
    with pytest.raises(ValueError, match="0 frames of sound"):
        MaskedPrediction(few, backbone, seed=0).prepare(backbone, [])


def test_without_clusters_there_is_no_loss(backbone: SpeechBackbone, front: Front) -> None:
    objective = MaskedPrediction(CONFIG, backbone, seed=0)
    with pytest.raises(RuntimeError, match="call prepare"):
        objective(backbone, front(BATCHES[0]), BATCHES[0], 0)


def test_a_layer_that_is_not_there_is_refused(backbone: SpeechBackbone) -> None:
    with pytest.raises(ValueError, match=r"kmeans_layer is 3; the backbone has hidden states 0..2"):
        MaskedPrediction(ObjectiveConfig(self_supervised=1.0, kmeans_layer=3), backbone, seed=0)


def test_number_of_clusters_and_layer_go_by_the_models_size(backbone: SpeechBackbone) -> None:
    small = MaskedPrediction(ObjectiveConfig(self_supervised=1.0), backbone, seed=0)
    assert (small.n_clusters, small.kmeans_layer) == (100, 1)
    backbone.n_layers = 12
    published = MaskedPrediction(ObjectiveConfig(self_supervised=1.0), backbone, seed=0)
    assert (published.n_clusters, published.kmeans_layer) == (500, 6)
