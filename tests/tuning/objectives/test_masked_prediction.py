"""HuBERT's loss: clusters of the untuned model, found once, by seed; labels that do not move; it can be learned."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from brainlit.backbones import BackboneConfig, SpeechBackbone
from brainlit.backbones.wav2vec_like import ConvolutionalBackbone
from brainlit.tuning.objectives import MaskedPrediction, ObjectiveConfig, build_self_supervised
from brainlit.tuning.objectives.masked_prediction import (
    clip_generators,
    draw_others,
    find_clusters,
    hide_spans,
    mask_settings,
    span_mask,
)
from tests.backbones.conftest import MINI
from tests.tuning.objectives.conftest import Front, learn, random_states_untouched, tone_batch, values

CONFIG = ObjectiveConfig(self_supervised=1.0, n_clusters=6, kmeans_frames=500)
BATCHES = [tone_batch(seed=k, letter_s=0.25) for k in range(3)]


class SmallHubert(ConvolutionalBackbone):
    """HuBERT as far as these tests need it."""

    family: ClassVar[str] = "hubert"
    model_type: ClassVar[str] = "hubert"
    class_names: ClassVar[tuple[str, str]] = ("HubertConfig", "HubertModel")


@pytest.fixture(params=["post-norm", "pre-norm"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> SpeechBackbone:
    from transformers import HubertConfig, HubertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = HubertConfig(**MINI, do_stable_layer_norm=request.param == "pre-norm")
        HubertModel(config).save_pretrained(tmp_path)
    found = SmallHubert.load(BackboneConfig(family="hubert", weights=str(tmp_path)))
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
    changed = SmallHubert.load(BackboneConfig(family="hubert", weights=backbone.config.weights))
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


# --- masking
# Which frames are hidden, and who is whose distractor.


def plain_span_mask(n_frames: int, mask_prob: float, mask_length: int, source: random.Random) -> list[bool]:
    """The same rule in plain words."""
    exact = mask_prob * n_frames / mask_length
    n_spans = int(exact) + (source.random() < exact - int(exact))
    starts = source.sample(range(n_frames - mask_length + 1), min(max(1, n_spans), n_frames // mask_length))
    return [any(start <= frame < start + mask_length for start in starts) for frame in range(n_frames)]


@pytest.mark.parametrize(("mask_prob", "mask_length"), [(0.65, 10), (0.8, 10), (0.3, 3)])
def test_as_many_frames_are_hidden_as_the_plain_rule_hides(mask_prob: float, mask_length: int) -> None:
    rng, source = np.random.default_rng(0), random.Random(0)
    real = np.ones(400, dtype=bool)
    ours = np.mean([span_mask(real, mask_prob, mask_length, rng).mean() for _ in range(150)])
    plain = np.mean([plain_span_mask(400, mask_prob, mask_length, source) for _ in range(150)])
    assert ours == pytest.approx(plain, abs=0.01)
    assert ours == pytest.approx(1 - np.exp(-mask_prob), abs=0.025)


def test_hidden_frames_come_in_spans_and_never_from_padding() -> None:
    real = np.zeros(100, dtype=bool)
    real[20:90] = True
    for seed in range(50):
        hidden = span_mask(real, 0.5, 7, np.random.default_rng(seed))
        assert hidden.any()
        assert not (hidden & ~real).any()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
        assert (edges[1::2] - edges[::2] >= 7).all()


def test_every_real_frame_can_be_hidden() -> None:
    real = np.arange(40) >= 10
    often = np.mean([span_mask(real, 0.5, 5, np.random.default_rng(seed)) for seed in range(400)], axis=0)
    assert (often[10:] > 0).all()


@pytest.mark.parametrize(("n_real", "some"), [(0, False), (10, False), (11, True)])
def test_a_clip_no_longer_than_one_span_is_left_alone(n_real: int, some: bool) -> None:
    assert span_mask(np.arange(30) < n_real, 0.01, 10, np.random.default_rng(0)).any() == some


def test_the_draws_of_a_window_depend_on_seed_step_and_window_alone() -> None:
    batch = tone_batch()
    frames = torch.ones(4, 120, dtype=torch.bool)

    def hidden(seed: int, step: int | None, rows: slice = slice(None)) -> torch.Tensor:
        part = {key: batch[key][rows] for key in ("story", "first_tr")}
        return hide_spans(frames[rows], 0.65, 10, clip_generators(seed, step, part))

    with random_states_untouched():
        all_windows = hidden(0, 3)
    assert torch.equal(all_windows, hidden(0, 3))
    assert torch.equal(all_windows[2:3], hidden(0, 3, slice(2, 3)))
    assert not torch.equal(all_windows[0], all_windows[1])
    for other in (hidden(1, 3), hidden(0, 4), hidden(0, None)):
        assert not torch.equal(all_windows, other)


def test_distractors_are_the_others_each_as_often() -> None:
    drawn = draw_others(5, 4000, np.random.default_rng(0))
    for k, row in enumerate(drawn):
        counts = np.bincount(row, minlength=5)
        assert counts[k] == 0
        assert np.delete(counts, k) == pytest.approx(1000, abs=120)


def test_one_alone_has_no_distractors() -> None:
    assert draw_others(1, 3, np.random.default_rng(0)).tolist() == [[0, 0, 0]]


def test_span_length_follows_the_frame_rate_and_share_the_family(backbone: SpeechBackbone) -> None:
    assert mask_settings(ObjectiveConfig(), backbone) == (0.65, 10)
    backbone.frame_rate_hz, backbone.family = 25.0, "hubert"
    assert mask_settings(ObjectiveConfig(), backbone) == (0.8, 5)
    assert mask_settings(ObjectiveConfig(mask_prob=0.1, mask_length=2), backbone) == (0.1, 2)
