"""How much of a backbone trains: what was asked for, and nothing that cannot act on what is read out."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from brainlit.backbones import BackboneConfig, load_backbone
from brainlit.backbones.lora import LoraConfig, add_lora
from brainlit.backbones.trainable import TrainableConfig, apply_trainable, depths
from tests.backbones.conftest import save_mini
from tests.backbones.lora_checks import draw_b, states

N_LAYERS = 4
NORMS = {"group": {"feat_extract_norm": "group"}, "stable": {"do_stable_layer_norm": True}}
OUTSIDE = {"feature_projection", "pos_conv_embed", "layer_norm"}


@pytest.fixture(scope="module", params=NORMS)
def norm(request):
    return request.param


@pytest.fixture(scope="module")
def folder(norm, tmp_path_factory):
    """A small base (group norm) and a small large one (layer norm last)."""
    path = tmp_path_factory.mktemp(norm) / "mini"
    save_mini(path, num_hidden_layers=N_LAYERS, **NORMS[norm])
    return path


def sound(n_samples=8000):
    return (torch.randn(2, n_samples, generator=torch.Generator().manual_seed(0)) * 3000).to(torch.int16)


def load(folder, **switches):
    backbone = load_backbone(BackboneConfig(weights=str(folder), **switches))
    backbone.freeze_feature_encoder()
    return backbone


def part(name):
    """Layer number, or the part outside the layers."""
    below = name.removeprefix("model.").removeprefix("encoder.").split(".")
    return int(below[1]) + 1 if below[0] == "layers" else below[0]


def trained_parts(backbone):
    return {part(name) for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def parts_with_gradient(backbone, read_out):
    """The slow reference: a backward pass from what is read out."""
    backbone.zero_grad()
    states(backbone, sound())[read_out].square().sum().backward()
    return {part(name) for name, parameter in backbone.named_parameters() if parameter.grad is not None}


def test_by_default_everything_but_the_front_end_trains(folder):
    backbone = load(folder)
    before = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    apply_trainable(backbone, TrainableConfig())
    assert {name: parameter.requires_grad for name, parameter in backbone.named_parameters()} == before
    assert trained_parts(backbone) == OUTSIDE | {1, 2, 3, 4}
    assert not backbone.gradient_checkpointing


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"first_layer": 3}, OUTSIDE | {3, 4}),
        ({"first_layer": 2, "last_layer": 3, "projection": False}, {2, 3}),
        ({"last_layer": 1}, OUTSIDE | {1}),
        ({"projection": False}, {1, 2, 3, 4}),
        ({"upper_layers": 2, "projection": False}, {3, 4}),
        ({"upper_layers": 2, "last_layer": 3, "projection": False}, {2, 3}),
        ({"upper_layers": 9}, OUTSIDE | {1, 2, 3, 4}),
        ({"upper_layers": 0}, OUTSIDE),
    ],
)
def test_a_range_of_layers(folder, settings, expected):
    backbone = load(folder)
    apply_trainable(backbone, TrainableConfig(**settings))
    assert trained_parts(backbone) == expected
    assert parts_with_gradient(backbone, -1) == expected


@pytest.mark.parametrize("read_out", range(N_LAYERS + 1))
def test_exactly_what_trains_gets_a_gradient_from_what_is_read_out(folder, norm, read_out, caplog):
    backbone = load(folder)
    random_state = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "brainlit"):
        apply_trainable(backbone, TrainableConfig(), read_out)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    states(backbone, sound())[read_out].square().sum().backward()
    assert {name for name, parameter in backbone.named_parameters() if parameter.grad is not None} == trained
    last_norm_trains = norm == "group" or read_out == N_LAYERS
    assert trained_parts(backbone) == OUTSIDE - (set() if last_norm_trains else {"layer_norm"}) | set(
        range(1, read_out + 1)
    )
    assert (f"hidden state {read_out} is read out" in caplog.text) == (read_out < N_LAYERS)
    assert f"layers {', '.join(map(str, range(1, read_out + 1))) or 'none'}; " in caplog.text
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not backbone.training


def test_lora_above_what_is_read_out_is_frozen_and_the_rest_stays_lora(folder):
    backbone = load(folder)
    add_lora(backbone, LoraConfig(rank=2), 0)
    apply_trainable(backbone, TrainableConfig(first_layer=2), 3)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert {part(name) for name in trained} == {2, 3}
    assert all("lora_" in name for name in trained)
    states(backbone, sound())[3].square().sum().backward()
    assert {name for name, parameter in backbone.named_parameters() if parameter.grad is not None} == trained


def test_a_mask_embedding_that_trains_goes_on_training(folder):
    """It acts only where frames are hidden, so silence does not show it."""
    backbone = load(folder, spec_augment=True).train()
    apply_trainable(backbone, TrainableConfig(), 2)
    assert backbone.mask_embedding.requires_grad
    assert backbone.training


def test_layer_drop_and_dropout_do_not_hide_what_acts(folder):
    backbone = load(folder, layerdrop=0.9, dropout=0.5).train()
    random_state = torch.get_rng_state()
    apply_trainable(backbone, TrainableConfig(), 2)
    assert trained_parts(backbone) & {1, 2, 3, 4} == {1, 2}
    assert set(depths(backbone).values()) == {0, 1, 2}
    assert torch.equal(torch.get_rng_state(), random_state)
    assert backbone.training


@pytest.mark.parametrize("norm_name", ["group", "stable"])
def test_depths_are_those_of_a_backward_pass_from_each_state(tmp_path, norm_name):
    save_mini(tmp_path / "mini", num_hidden_layers=N_LAYERS, **NORMS[norm_name])
    backbone = load(tmp_path / "mini")
    expected: dict[str, int] = {}
    for depth in range(N_LAYERS + 1):
        backbone.zero_grad()
        states(backbone, sound())[depth].square().sum().backward()
        for name, parameter in backbone.named_parameters():
            if parameter.grad is not None:
                expected.setdefault(name, depth)
    assert depths(backbone) == expected
    assert set(expected.values()) == set(range(N_LAYERS + 1))


def test_no_upper_layer_and_no_projection_leave_the_head_alone(folder, caplog):
    backbone = load(folder)
    with caplog.at_level(logging.INFO, "brainlit"):
        apply_trainable(backbone, TrainableConfig(upper_layers=0, projection=False))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(state.requires_grad for state in states(backbone, sound()))
    assert "0 of " in caplog.text
    assert "layers none" in caplog.text


def test_what_cannot_be_is_refused(folder):
    with pytest.raises(ValueError, match="3 to 2 are out of order: give last_layer at least 3"):
        TrainableConfig(first_layer=3, last_layer=2)
    with pytest.raises(ValueError, match="first_layer is 0; layers count from 1"):
        TrainableConfig(first_layer=0)
    for settings in ({"upper_layers": -1}, {"upper_layers": 2, "first_layer": 1}):
        with pytest.raises(ValueError, match=r"upper_layers is -?\d with first_layer (None|1); give 0 or more"):
            TrainableConfig(**settings)
    with pytest.raises(ValueError, match=r"layer_decay is 1\.5"):
        TrainableConfig(layer_decay=1.5)
    with pytest.raises(ValueError, match="layers 1 to 9 are not there: the backbone has layers 1 to 4"):
        apply_trainable(load(folder), TrainableConfig(last_layer=9))
    with pytest.raises(ValueError, match="hidden states 0 to 4"):
        apply_trainable(load(folder), TrainableConfig(), 5)
    with pytest.raises(ValueError, match="first_layer is 4, but hidden state 3 is read out"):
        apply_trainable(load(folder), TrainableConfig(first_layer=4), 3)
    with pytest.raises(ValueError, match=r"nothing of the backbone is left to train: .* hidden state 0 .* off"):
        apply_trainable(load(folder), TrainableConfig(projection=False), 0)


def kept_bytes_and_gradients(folder, checkpointing, lora, dropout):
    """What a forward pass keeps for the backward pass, and the gradients of one in train mode."""
    backbone = load(folder, dropout=dropout).train()
    if lora:
        add_lora(backbone, LoraConfig(rank=2, dropout=dropout), 0)
        draw_b(backbone)
    apply_trainable(backbone, TrainableConfig(gradient_checkpointing=checkpointing))
    assert backbone.gradient_checkpointing == checkpointing
    kept = []

    def keep(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    torch.manual_seed(4)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = states(backbone, sound())[-1]
    out.square().sum().backward()
    return sum(kept), {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("lora", [False, True])
def test_checkpointing_keeps_less_and_gives_the_same_gradients(folder, lora, dropout):
    n_plain, plain = kept_bytes_and_gradients(folder, False, lora, dropout)
    n_checkpointed, checkpointed = kept_bytes_and_gradients(folder, True, lora, dropout)
    assert n_checkpointed < n_plain / 2
    assert set(plain) == set(checkpointed)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-6, atol=1e-6, msg=name)
    assert any(gradient.abs().max() > 0 for gradient in plain.values())
