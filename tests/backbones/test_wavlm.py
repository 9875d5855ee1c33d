"""WavLM's attention: transformers' numbers, but through its projections."""

import pytest
import torch
from transformers import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from brainlit.backbones.wavlm import GatedRelativeAttention
from tests.backbones.conftest import everything, load, save_mini, sound


@pytest.fixture
def published():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = WavLMAttention(32, 4, num_buckets=32, max_distance=40).eval()
        attention.gru_rel_pos_const.data.normal_()
        attention.rel_attn_embed.weight.data.normal_()
    return attention


@pytest.mark.parametrize("n_frames", [1, 7, 150])
@pytest.mark.parametrize("masked", [False, True])
def test_the_same_numbers_and_gradients_as_transformers(published, n_frames, masked):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(3, n_frames, 32, generator=generator, requires_grad=True)
    mask = torch.ones(3, n_frames, dtype=torch.bool)
    if masked:
        mask[1, n_frames // 2 + 1 :] = False
    theirs, _, their_bias = published(hidden, attention_mask=mask if masked else None)
    (reference,) = torch.autograd.grad(theirs.square().sum(), hidden)
    ours, _, bias = GatedRelativeAttention(published)(hidden, attention_mask=mask if masked else None)
    (gradient,) = torch.autograd.grad(ours.square().sum(), hidden)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias, their_bias.view(3, 4, n_frames, n_frames)[0])


def test_buckets_are_those_of_transformers_at_any_distance(published):
    distances = torch.arange(-3000, 3001)
    ours = GatedRelativeAttention(published).buckets(distances)
    assert torch.equal(ours, published._relative_positions_bucket(distances))
    assert ours.unique().tolist() == list(range(16)) + list(range(17, 32))


def test_parameters_keep_their_names(tmp_path):
    model = save_mini(tmp_path / "weights", "wavlm")
    backbone = load(tmp_path / "weights", "wavlm")
    assert backbone.model.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        x = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            backbone.model(x).last_hidden_state, model(x).last_hidden_state, rtol=1e-5, atol=1e-5
        )


def test_the_first_layer_is_never_dropped(tmp_path):
    save_mini(tmp_path / "weights", "wavlm", num_hidden_layers=4)
    backbone = load(tmp_path / "weights", "wavlm", layerdrop=0.999).train()
    audio = sound()
    states = backbone.encode(audio, everything(audio)).hidden_states
    assert len(states) == 5
    assert not torch.equal(states[1], states[0])
    assert all(torch.equal(later, states[1]) for later in states[2:])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_layers_teach_the_position_bias_of_the_first(tmp_path, checkpointing):
    save_mini(tmp_path / "weights", "wavlm", num_hidden_layers=3)
    backbone = load(tmp_path / "weights", "wavlm")
    backbone.gradient_checkpointing = checkpointing
    embedding = backbone.layers[0].attention.rel_attn_embed.weight
    audio = sound()
    gradients = []
    for k in (1, 3):
        states = backbone.encode(audio, everything(audio)).hidden_states
        gradients.append(torch.autograd.grad(states[k].square().sum(), embedding)[0])
    assert not torch.allclose(gradients[0], gradients[1])


def test_attention_dropout_acts_in_train_mode(tmp_path):
    save_mini(tmp_path / "weights", "wavlm")
    settings = WavLMConfig.from_pretrained(tmp_path / "weights")
    assert settings.attention_dropout == 0.1
    backbone = load(tmp_path / "weights", "wavlm", dropout=0.3)
    attention = backbone.layers[0].attention
    hidden = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(0))
    assert attention.dropout == 0.3
    assert torch.equal(attention(hidden)[0], attention(hidden)[0])
    attention.train()
    assert not torch.equal(attention(hidden)[0], attention(hidden)[0])
