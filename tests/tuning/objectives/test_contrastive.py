"""The loss of wav2vec 2.0: the library's numbers, no leak from padding, and it can be learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from brainlit.backbones import BackboneConfig, SpeechBackbone, WeightsError, load_backbone
from brainlit.backbones.frames import normalise_clips
from brainlit.tuning.objectives import (
    Contrastive,
    Objective,
    ObjectiveConfig,
    build_self_supervised,
    load_pretraining_heads,
)
from brainlit.tuning.objectives.contrastive import StepDraws, gumbel_noise, new_quantiser, quantise
from tests.backbones.conftest import MINI
from tests.tuning.objectives.conftest import (
    SMALL_CODES,
    Front,
    frozen_front,
    learn,
    random_states_untouched,
    tone_batch,
    values,
)

CONFIG = ObjectiveConfig(targets=0.0, self_supervised=1.0, n_negatives=20)
GROUP_NORM = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def save_pretraining(folder: Path, **changes: Any) -> Any:
    """A random Wav2Vec2ForPreTraining saved there."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = Wav2Vec2Config(**{**MINI, **SMALL_CODES, "layerdrop": 0.0, **changes})
        model = Wav2Vec2ForPreTraining(config).eval()
    model.save_pretrained(folder)
    return model


def library_negatives(draws: StepDraws) -> torch.Tensor:
    """Our distractors as the library numbers them: frames of the whole batch, (batch, n_frames, n_negatives)."""
    n_batch, n_frames = draws.hidden.shape
    numbered = torch.zeros(n_batch, n_frames, draws.negatives.shape[2], dtype=torch.long)
    for k in range(n_batch):
        places = draws.hidden[k].nonzero()[:, 0]
        numbered[k, places] = places[draws.negatives[k, : len(places)]] + k * n_frames
    return numbered


def with_noise(noise: torch.Tensor) -> Any:
    """The hard Gumbel softmax (arXiv 1611.01144) with noise that is given instead of drawn."""

    def gumbel_softmax(logits: torch.Tensor, tau: float, hard: bool) -> torch.Tensor:
        soft = ((logits + noise.reshape(logits.shape)) / tau).softmax(-1)
        return functional.one_hot(soft.argmax(-1), logits.shape[-1]) - soft.detach() + soft

    return gumbel_softmax


@pytest.mark.parametrize("norm", [GROUP_NORM, LAYER_NORM], ids=["group", "layer"])
@pytest.mark.parametrize("training", [False, True], ids=["hard", "gumbel"])
def test_loss_is_the_librarys(
    tmp_path: Path, norm: dict[str, Any], training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = save_pretraining(tmp_path, **norm)
    backbone = frozen_front(tmp_path)
    ours = build_self_supervised(CONFIG, backbone, seed=0)
    assert isinstance(ours, Contrastive)
    batch = tone_batch()
    batch["audio_mask"][:] = True
    front = backbone.front_end(batch["audio"], batch["audio_mask"])
    draws = ours.train(training).draw(front.frame_mask, batch, step=7)
    library.quantizer.train(training)
    library.set_gumbel_temperature(1.3)
    if draws.noise is not None:
        keep_only_hidden(library.quantizer, draws.hidden)
        again = [torch.Generator().set_state(generator.get_state()) for generator in draws.noise]
        noise = gumbel_noise(again, draws.hidden.sum(1).tolist(), 2, SMALL_CODES["num_codevectors_per_group"])
        monkeypatch.setattr(functional, "gumbel_softmax", with_noise(noise))
    with torch.random.fork_rng():
        expected = library(
            normalise_clips(batch["audio"], batch["audio_mask"]),
            mask_time_indices=draws.hidden.long(),
            sampled_negative_indices=library_negatives(draws),
        )
    states = backbone.trunk(front.features, front.frame_mask, hidden_from=draws.hidden)[-1][draws.hidden]
    heard = backbone.model.feature_projection.layer_norm(front.features[draws.hidden])
    found = ours.score(states, heard, draws, temperature=1.3)
    n_hidden = draws.hidden.sum()
    assert found["n_hidden"] == n_hidden
    assert float(found["loss"].detach() * n_hidden) == pytest.approx(float(expected.loss.detach()), rel=1e-4)
    assert float(found["contrastive"] * n_hidden) == pytest.approx(float(expected.contrastive_loss.detach()), rel=1e-4)
    assert float(found["perplexity"]) == pytest.approx(float(expected.codevector_perplexity.detach()), rel=1e-4)


def keep_only_hidden(quantiser: Any, hidden: torch.Tensor) -> None:
    """Let the library quantise hidden frames alone, so that it draws its noise for the same frames as we do."""
    whole = quantiser.forward

    def forward(features: torch.Tensor, mask_time_indices: torch.Tensor) -> Any:
        codewords, perplexity = whole(features[hidden][None])
        everywhere = codewords.new_zeros(*hidden.shape, codewords.shape[-1])
        everywhere[hidden] = codewords[0]
        return everywhere, perplexity

    quantiser.forward = forward


def test_sampled_codewords_are_the_librarys_with_the_same_noise_and_gradients() -> None:
    quantiser = new_quantiser(6, 2, 5, 8, torch.Generator().manual_seed(0)).train()
    quantiser.temperature = 0.7
    features = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected, perplexity = quantiser(features[None])
    (expected[0].square().sum() + perplexity).backward()
    gradients = [p.grad.clone() for p in quantiser.parameters()]
    quantiser.zero_grad()
    found = quantise(quantiser, features, 0.7, gumbel_noise([torch.Generator().manual_seed(3)], [30], 2, 5))
    (found.vectors.square().sum() + found.perplexity).backward()
    torch.testing.assert_close(found.vectors, expected[0])
    for parameter, gradient in zip(quantiser.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_loss_is_a_plain_loop_over_hidden_frames(backbone: SpeechBackbone, front: Front) -> None:
    objective, batch = Contrastive(CONFIG, backbone, seed=0).eval(), tone_batch()
    draws = objective.draw(front(batch).frame_mask, batch, step=0)
    found = objective(backbone, front(batch), batch, step=0)
    with torch.no_grad():
        states = backbone.trunk(*front(batch)[:2], hidden_from=draws.hidden)[-1]
        heard = backbone.model.feature_projection.layer_norm(front(batch).features)
        losses = []
        for k, hidden in enumerate(draws.hidden):
            places = hidden.nonzero()[:, 0]
            vectors, codes, _ = quantise(objective.quantizer, heard[k, places])
            codewords = objective.project_q(vectors)
            for j, state in enumerate(objective.project_hid(states[k, places])):
                others = [n for n in draws.negatives[k, j].tolist() if not torch.equal(codes[n], codes[j])]
                similar = functional.cosine_similarity(state[None], codewords[[j, *others]]) / CONFIG.temperature
                losses.append(float(similar.logsumexp(0) - similar[0]))
    assert float(found["contrastive"]) == pytest.approx(np.mean(losses), rel=1e-4)


def test_distractors_are_other_hidden_real_frames_of_the_same_clip(backbone: SpeechBackbone, front: Front) -> None:
    objective, batch = Contrastive(CONFIG, backbone, seed=0), tone_batch()
    frame_mask = front(batch).frame_mask
    draws = objective.draw(frame_mask, batch, step=0)
    numbered = library_negatives(draws)
    assert not (draws.hidden & ~frame_mask).any()
    assert draws.hidden.any(1).all()
    for k, j in draws.hidden.nonzero().tolist():
        clips, frames = numbered[k, j] // frame_mask.shape[1], numbered[k, j] % frame_mask.shape[1]
        assert (clips == k).all()
        assert draws.hidden[k, frames].all()
        assert (frames != j).all()


def test_same_seed_and_step_same_loss_and_no_global_random_state(backbone: SpeechBackbone, front: Front) -> None:
    batch = tone_batch()
    with random_states_untouched():
        objective = Contrastive(CONFIG, backbone, seed=0)
        first = values(objective(backbone, front(batch), batch, step=5))
    assert values(Contrastive(CONFIG, backbone, seed=0)(backbone, front(batch), batch, step=5)) == first
    assert values(objective(backbone, front(batch), batch, step=6)) != first
    assert values(Contrastive(CONFIG, backbone, seed=1)(backbone, front(batch), batch, step=5)) != first


def test_validation_measures_the_same_at_every_step(backbone: SpeechBackbone, front: Front) -> None:
    objective, batch = Contrastive(CONFIG, backbone, seed=0).eval(), tone_batch()
    assert values(objective(backbone, front(batch), batch, 1)) == values(objective(backbone, front(batch), batch, 900))


def test_a_batch_of_silence_counts_for_nothing_and_has_gradients(backbone: SpeechBackbone, front: Front) -> None:
    objective, batch = Contrastive(CONFIG, backbone, seed=0), tone_batch()
    batch["audio_mask"][:] = False
    found = objective(backbone, front(batch), batch, 0)
    found["loss"].backward()
    assert values(found) == dict.fromkeys(found, 0.0)
    assert found.keys() == objective(backbone, front(tone_batch()), tone_batch(), 0).keys()


def test_it_can_be_learned(backbone: SpeechBackbone) -> None:
    config = ObjectiveConfig(self_supervised=1.0, n_negatives=20, mask_prob=0.3, mask_length=3, gumbel_start=0.5)
    objective = build_self_supervised(config, backbone, seed=0)
    batches = [tone_batch(seed=k, letter_s=0.25) for k in range(3)]
    untouched = backbone.mask_embedding.detach().clone()
    before = contrastive_in_eval_mode(objective, backbone, batches)
    losses = learn(objective.train(), backbone, batches, steps=40, lr=2e-2)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    assert contrastive_in_eval_mode(objective, backbone, batches) < 0.75 * before
    assert not torch.equal(untouched, backbone.mask_embedding)
    assert all(p.grad is None for module in backbone.front_end_modules() for p in module.parameters())


def contrastive_in_eval_mode(objective: Objective, backbone: SpeechBackbone, batches: list[Any]) -> float:
    """Nats per hidden frame without noise."""
    objective.eval()
    fronts = [backbone.front_end(batch["audio"], batch["audio_mask"]) for batch in batches]
    found = [objective(backbone, front, batch, 0) for front, batch in zip(fronts, batches, strict=True)]
    return float(np.mean([values(parts)["contrastive"] for parts in found]))


# --- heads of the checkpoint ---


@pytest.mark.parametrize(
    ("file", "beginning"), [("model.safetensors", ""), ("pytorch_model.bin", ""), ("pytorch_model.bin", "module.")]
)
def test_heads_of_the_checkpoint_are_used(
    tmp_path: Path, file: str, beginning: str, caplog: pytest.LogCaptureFixture
) -> None:
    library = save_pretraining(tmp_path)
    if file.endswith("bin"):
        (tmp_path / "model.safetensors").unlink()
        torch.save({beginning + name: value for name, value in library.state_dict().items()}, tmp_path / file)
    caplog.set_level("INFO")
    objective = build_self_supervised(CONFIG, frozen_front(tmp_path), seed=0)
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, library.state_dict()[name])
    assert "those of" in caplog.text


def test_without_heads_they_begin_at_random(
    folder: Path, backbone: SpeechBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    objective = build_self_supervised(CONFIG, backbone, seed=3)
    assert isinstance(objective, Contrastive)
    assert "has no quantiser: it begins at random (seed 3)" in caplog.text
    assert not load_pretraining_heads(folder / "model.safetensors", objective)


def test_heads_of_a_size_are_found_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path))
    library = save_pretraining(tmp_path / "facebook" / "wav2vec2-base")
    backbone = load_backbone(BackboneConfig(weights="base"))
    backbone.freeze_feature_encoder()
    objective = build_self_supervised(CONFIG, backbone, seed=0)
    assert torch.equal(objective.state_dict()["project_q.weight"], library.state_dict()["project_q.weight"])


def test_heads_of_other_shapes_are_refused(tmp_path: Path) -> None:
    save_pretraining(tmp_path)
    backbone = frozen_front(tmp_path)
    with pytest.raises(WeightsError, match=r"leave --model.objective.n_groups and n_vars at null"):
        build_self_supervised(ObjectiveConfig(self_supervised=1.0, n_vars=7), backbone, seed=0)


def test_codewords_that_cannot_be_cut_are_refused(backbone: SpeechBackbone) -> None:
    with pytest.raises(ValueError, match="n_groups is 5"):
        Contrastive(ObjectiveConfig(self_supervised=1.0, n_groups=5), backbone, seed=0)
