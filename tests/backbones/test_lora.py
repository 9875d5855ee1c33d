"""LoRA: exactly nothing at the start, only where it was asked for, and gone when merged."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from transformers import Wav2Vec2Model

from brainlit.backbones import BackboneConfig, load_backbone
from brainlit.backbones.lora import LoraConfig, add_lora, lora_layers, lora_switched_off, merge_lora, n_lora_parameters
from brainlit.backbones.trainable import TrainableConfig, apply_trainable
from tests.backbones.conftest import save_mini
from tests.backbones.lora_checks import assert_lora_acts, assert_merge_gives_a_plain_model, draw_b, states

N_LAYERS = 6  # with four maps each more than twenty names, from where on peft shortens them
NORMS = {"group": {"feat_extract_norm": "group"}, "stable": {"do_stable_layer_norm": True}}


@pytest.fixture(scope="module", params=NORMS)
def folder(request, tmp_path_factory):
    """A small base (group norm) and a small large one (layer norm first)."""
    path = tmp_path_factory.mktemp(request.param) / "mini"
    save_mini(path, num_hidden_layers=N_LAYERS, **NORMS[request.param])
    return path


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "mini"
    save_mini(path, num_hidden_layers=N_LAYERS)
    return path


def sound(seed=0, n_samples=8000):
    return (torch.randn(2, n_samples, generator=torch.Generator().manual_seed(seed)) * 3000).to(torch.int16)


def plain(folder, **switches):
    return load_backbone(BackboneConfig(weights=str(folder), **switches))


def with_lora(folder, seed=0, **settings):
    backbone = plain(folder)
    add_lora(backbone, LoraConfig(**{"rank": 2, **settings}), seed)
    return backbone


def test_the_states_are_exactly_the_same_at_the_start_and_each_map_acts_later(folder):
    audio = sound()
    backbone = with_lora(folder)
    for old, new in zip(states(plain(folder), audio), states(backbone, audio), strict=True):
        assert torch.equal(old, new)
    assert len(lora_layers(backbone)) == 4 * N_LAYERS
    assert_lora_acts(backbone, audio)


def test_the_share_is_of_the_layers_whatever_else_the_model_has(tmp_path, caplog):
    """Whisper's decoder is part of the model and holds most of its weights; nothing here ever goes through it."""
    save_mini(tmp_path / "mini", "whisper", encoder_attention_heads=2, decoder_attention_heads=2)
    with caplog.at_level(logging.INFO, logger="brainlit"):
        backbone = load_backbone(BackboneConfig(family="whisper", weights=str(tmp_path / "mini")))
        n_weights = sum(w.numel() for name, w in backbone.named_parameters() if "encoder.layers." in name)
        add_lora(backbone, LoraConfig(rank=2), 0)
    n_lora = sum(weight.numel() for name, weight in backbone.named_parameters() if "lora_" in name)
    assert f"{n_lora} parameters, {100 * n_lora / n_weights:.2f} % of what its layers have" in caplog.text


def test_what_acts_is_noticed_where_a_weight_is_read_past_the_module(one_folder):
    """The check itself: an attention that uses q_proj.weight directly, as WavLM's does in transformers."""
    backbone = with_lora(one_folder)
    attention = backbone.layers[0].attention
    wrapped = attention.q_proj
    wrapped.forward = lambda x: nn.functional.linear(x, wrapped.weight, wrapped.bias)
    with pytest.raises(AssertionError, match=r"layers\.0\.attention\.q_proj gets no gradient"):
        assert_lora_acts(backbone, sound())


def test_the_change_is_alpha_over_rank_times_b_a(one_folder):
    backbone = with_lora(one_folder, rank=4, alpha=6.0)
    draw_b(backbone)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    layer = backbone.layers[1].attention.k_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    base = layer.base_layer
    wanted = x @ base.weight.T + base.bias + 6.0 / 4 * (x @ a.T @ b.T)
    torch.testing.assert_close(layer(x), wanted)
    default = with_lora(one_folder, rank=4).layers[1].attention.k_proj
    assert default.scaling["default"] == 2.0


def test_nothing_else_trains_and_the_numbers_are_counted(folder, caplog):
    with caplog.at_level(logging.INFO, "brainlit"):
        backbone = with_lora(folder, rank=3)
    trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name for name in trained)
    assert n_lora_parameters(backbone) == N_LAYERS * 4 * 3 * (16 + 16)
    assert sum(backbone.get_parameter(name).numel() for name in trained) == n_lora_parameters(backbone)
    assert f"{n_lora_parameters(backbone)} parameters" in caplog.text
    assert backbone.feature_encoder_frozen


def test_the_size_that_the_paper_reports(one_folder):
    """Rank 8 on q, k, v and out of a base model's 12 layers: 0.625 % of its parameters (arXiv 2510.21520)."""
    with torch.device("meta"):
        from transformers import Wav2Vec2Config

        n_base = sum(p.numel() for p in Wav2Vec2Model(Wav2Vec2Config()).parameters())
    n_mini = n_lora_parameters(with_lora(one_folder, rank=8))
    n_lora = n_mini // N_LAYERS // 16 * 12 * 768
    assert n_lora / n_base == pytest.approx(0.00625, abs=5e-5)


def test_layers_and_targets_can_be_chosen(one_folder):
    backbone = with_lora(one_folder, targets=("v_proj", "feed_forward.output_dense"), first_layer=2, last_layer=3)
    names = [name.removeprefix("model.encoder.layers.") for name, _ in lora_layers(backbone)]
    expected = ("attention.v_proj", "feed_forward.output_dense")
    assert sorted(names) == [f"{layer}.{name}" for layer in (1, 2) for name in expected]


def test_only_backbone_layers_are_touched(one_folder):
    """A decoder with the same names beside the encoder, as Whisper and SpeechT5 have, stays as it is."""
    backbone = plain(one_folder)
    backbone.model.decoder = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"q_proj": nn.Linear(4, 4)})])})
    add_lora(backbone, LoraConfig(rank=1), 0)
    assert len(lora_layers(backbone)) == 4 * N_LAYERS
    assert type(backbone.model.decoder["layers"][0]["q_proj"]) is nn.Linear


def test_rank_0_is_no_lora(one_folder):
    backbone = plain(one_folder)
    keys, trained = list(backbone.state_dict()), [p.requires_grad for p in backbone.parameters()]
    add_lora(backbone, LoraConfig(), 0)
    assert list(backbone.state_dict()) == keys
    assert [p.requires_grad for p in backbone.parameters()] == trained
    assert n_lora_parameters(backbone) == 0
    assert merge_lora(backbone) == 0


def test_the_seed_decides_and_the_global_random_state_does_not(one_folder):
    def downs(seed):
        return [layer.lora_A["default"].weight for _, layer in lora_layers(with_lora(one_folder, seed))]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = downs(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, downs(5), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, downs(6), strict=True))
    assert not torch.equal(first[0], first[1])
    assert max(float(a.detach().abs().max()) for a in first) <= 16**-0.5


def test_dropout_acts_in_train_mode_only(one_folder):
    backbone, audio = with_lora(one_folder, dropout=0.5), sound()
    draw_b(backbone)
    assert not any(module.training for module in backbone.modules())
    with torch.no_grad():
        quiet = [states(backbone, audio)[-1] for _ in range(2)]
        backbone.train()
        noisy = [states(backbone, audio)[-1] for _ in range(2)]
        backbone.eval()
        again = states(backbone, audio)[-1]
    assert torch.equal(*quiet)
    assert not torch.equal(*noisy)
    assert torch.equal(again, quiet[0])


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_kept(one_folder, training):
    backbone = plain(one_folder).train(training)
    add_lora(backbone, LoraConfig(rank=1, dropout=0.1), 0)
    assert {module.training for module in backbone.modules()} == {training}


def test_merging_gives_the_plain_model_back(folder, tmp_path):
    keys = list(plain(folder).model.state_dict())
    backbone = with_lora(folder)
    assert_merge_gives_a_plain_model(backbone, sound(), keys, tmp_path / "merged", Wav2Vec2Model)
    assert merge_lora(backbone) == 0
    assert not hasattr(backbone.model, "peft_config")
    assert type(backbone.layers[0].attention.q_proj) is nn.Linear
    assert not torch.equal(backbone.layers[0].attention.q_proj.weight, plain(folder).layers[0].attention.q_proj.weight)
    add_lora(backbone, LoraConfig(rank=1), 0)
    assert len(lora_layers(backbone)) == 4 * N_LAYERS


def test_switched_off_it_is_the_pretrained_model(folder):
    backbone, audio = with_lora(folder), sound()
    draw_b(backbone)
    with torch.no_grad():
        tuned = states(backbone, audio)
        with lora_switched_off(backbone):
            off = states(backbone, audio)
            with lora_switched_off(backbone):
                pass
            assert torch.equal(states(backbone, audio)[-1], off[-1])
        back = states(backbone, audio)
        pretrained = states(plain(folder), audio)
    assert all(torch.equal(a, b) for a, b in zip(off, pretrained, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(back, tuned, strict=True))
    assert not torch.equal(tuned[-1], off[-1])


def test_switched_off_gives_back_what_trains_also_after_an_exception(one_folder):
    backbone, audio = with_lora(one_folder), sound()
    draw_b(backbone)
    apply_trainable(backbone, TrainableConfig(last_layer=2))
    trained = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    with torch.no_grad():
        tuned = states(backbone, audio)[-1]
    with pytest.raises(RuntimeError, match="on purpose"), lora_switched_off(backbone):
        raise RuntimeError("on purpose")
    assert {name: parameter.requires_grad for name, parameter in backbone.named_parameters()} == trained
    with torch.no_grad():
        assert torch.equal(states(backbone, audio)[-1], tuned)


def test_gradients_flow_past_a_pass_that_was_switched_off(one_folder):
    """As an anchor to the pretrained states uses it, between forward and backward."""
    backbone, audio = with_lora(one_folder), sound()
    draw_b(backbone)
    loss = states(backbone, audio)[-1].square().sum()
    with torch.no_grad(), lora_switched_off(backbone):
        states(backbone, audio)
    loss.backward()
    assert all(layer.lora_B["default"].weight.grad is not None for _, layer in lora_layers(backbone))


def test_a_state_dict_goes_into_a_fresh_model(one_folder):
    tuned, audio = with_lora(one_folder), sound()
    draw_b(tuned)
    fresh = with_lora(one_folder, seed=9)
    fresh.load_state_dict(tuned.state_dict())
    with torch.no_grad():
        assert torch.equal(states(fresh, audio)[-1], states(tuned, audio)[-1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": -1}, "rank is -1"),
        ({"alpha": 0.0}, "alpha is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"targets": ()}, "targets are empty"),
        ({"first_layer": 0}, "layers count from 1"),
        ({"first_layer": 3, "last_layer": 2}, "3 to 2 are out of order"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**settings)


def test_what_matches_nothing_is_refused_with_what_there_is(one_folder):
    with pytest.raises(ValueError, match=r"'q_prj' is no linear map .* wav2vec .*attention\.q_proj.*output_dense"):
        with_lora(one_folder, targets=("q_prj",))
    with pytest.raises(ValueError, match="'layer_norm' is no linear map"):
        with_lora(one_folder, targets=("v_proj", "layer_norm"))
    with pytest.raises(ValueError, match="'proj' is no linear map"):
        with_lora(one_folder, targets=("proj",))
    with pytest.raises(ValueError, match="layers 1 to 7 are not there: the backbone has layers 1 to 6"):
        with_lora(one_folder, last_layer=7)
    with pytest.raises(ValueError, match="has LoRA already"):
        add_lora(with_lora(one_folder), LoraConfig(rank=1), 0)


def test_a_refused_target_leaves_the_backbone_as_it_was(one_folder):
    backbone = plain(one_folder)
    trained = [p.requires_grad for p in backbone.parameters()]
    with pytest.raises(ValueError, match="'nothing'"):
        add_lora(backbone, LoraConfig(rank=1, targets=("q_proj", "nothing")), 0)
    assert [p.requires_grad for p in backbone.parameters()] == trained
    assert not lora_layers(backbone)
