"""Every family: when its frames happen, and that adapters, checkpointing and layer drop reach all of its layers."""

import pytest
import torch
from torch import nn

from tests.backbones.conftest import everything, load, save_mini, sound


def last_state(backbone, audio):
    return backbone.encode(audio, everything(audio)).hidden_states[-1]


def add_lora(backbone):
    from peft import LoraConfig, inject_adapter_in_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = LoraConfig(r=2, target_modules=list(backbone.lora_targets), init_lora_weights=False)
        inject_adapter_in_model(settings, backbone.model)
    return {name: weight for name, weight in backbone.model.named_parameters() if "lora_" in name}


@pytest.mark.parametrize(
    ("kernels", "strides"),
    [((20, 8, 8, 4, 4), (10, 4, 4, 2, 2)), ((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))],
    ids=["tiny", "published"],
)
def test_an_impulse_is_heard_at_its_time(family, tmp_path, kernels, strides):
    n = len(kernels)
    convolutions = {"conv_kernel": kernels, "conv_stride": strides, "conv_dim": [4] * n, "num_feat_extract_layers": n}
    save_mini(tmp_path / "weights", family, **convolutions)
    backbone = load(tmp_path / "weights", family)
    half_frame_s = 0.5 / backbone.frame_rate_hz
    half_field_s = backbone.frames.field_samples / 2 / backbone.sample_rate_hz
    times_s = backbone.frame_times_s(16_000)
    for sample in (4_000, 8_123, 11_999):
        noise, impulse = sound(1).float() / 32768, nn.functional.one_hot(torch.tensor([sample]), 16_000)
        nearest = int((times_s - sample / 16_000).abs().argmin())
        assert abs(float(times_s[nearest]) - sample / 16_000) <= half_frame_s
        with torch.no_grad():
            before, after = backbone.conv_features(noise), backbone.conv_features(noise + 0.5 * impulse)
        changed = (after - before).abs().sum(2)[0] > 0
        covers = (times_s - (sample + 0.5) / 16_000).abs() < half_field_s
        assert torch.equal(changed, covers)
        assert changed[nearest]


def test_a_frame_listens_around_its_time(family, family_folder):
    backbone = load(family_folder, family)
    heard = sound(1).float().requires_grad_()
    times_s = backbone.frame_times_s(heard.shape[1])
    for k in (10, 25, 40):
        (gradient,) = torch.autograd.grad(backbone.conv_features(heard)[0, k].square().sum(), heard)
        middle = gradient[0].nonzero().double().mean() + 0.5
        assert abs(float(middle) / 16_000 - float(times_s[k])) < 0.5 / backbone.frame_rate_hz


@pytest.mark.parametrize("stable", [False, True])
def test_every_linear_map_is_called(family, tmp_path, stable):
    save_mini(tmp_path / "weights", family, do_stable_layer_norm=stable)
    backbone = load(tmp_path / "weights", family)
    linear = {name: module for name, module in backbone.model.named_modules() if isinstance(module, nn.Linear)}
    called = set()
    for name, module in linear.items():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    last_state(backbone, sound())
    assert called == set(linear)
    assert len(linear) >= 2 * 6 + 1


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_reaches_every_target(family, tmp_path, stable, checkpointing):
    save_mini(tmp_path / "weights", family, do_stable_layer_norm=stable)
    backbone = load(tmp_path / "weights", family)
    audio = sound()
    plain = last_state(backbone, audio).detach()
    weights = add_lora(backbone)
    assert len(weights) == 2 * 2 * len(backbone.lora_targets)
    backbone.gradient_checkpointing = checkpointing
    adapted = last_state(backbone, audio)
    assert not torch.allclose(adapted, plain, atol=1e-4)
    adapted.square().sum().backward()
    for name, weight in weights.items():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
    for name, weight in weights.items():
        kept = weight.data.clone()
        weight.data.zero_()
        assert not torch.allclose(last_state(backbone, audio), adapted, atol=1e-6), name
        weight.data = kept


def test_checkpointing_changes_no_number(family, family_folder):
    audio = sound()
    gradients = []
    for checkpointing in (False, True):
        backbone = load(family_folder, family)
        backbone.gradient_checkpointing = checkpointing
        last_state(backbone, audio).square().sum().backward()
        gradients.append({n: p.grad for n, p in backbone.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)


def test_lower_layers_can_be_frozen(family, family_folder):
    backbone = load(family_folder, family)
    backbone.freeze_feature_encoder()
    backbone.model.feature_projection.requires_grad_(False)
    backbone.encoder.pos_conv_embed.requires_grad_(False)
    backbone.encoder.layer_norm.requires_grad_(False)
    backbone.layers[0].requires_grad_(False)
    last_state(backbone, sound()).square().sum().backward()
    trained = {name for name, parameter in backbone.model.named_parameters() if parameter.grad is not None}
    assert trained
    assert all("layers.1." in name for name in trained)


def test_frames_can_be_hidden_behind_the_mask_embedding(family, family_folder):
    backbone = load(family_folder, family)
    audio = sound()
    front = backbone.front_end(audio, everything(audio))
    hide = torch.zeros_like(front.frame_mask)
    hide[0, 10:15] = True
    with torch.no_grad():
        shown = backbone.trunk(front.features, front.frame_mask)[-1]
        hidden = backbone.trunk(front.features, front.frame_mask, hide)[-1]
        other = backbone.trunk(torch.where(hide[:, :, None], 0.0, front.features), front.frame_mask, hide)[-1]
    assert not torch.allclose(hidden[0], shown[0], atol=1e-3)
    torch.testing.assert_close(hidden[1], shown[1])
    torch.testing.assert_close(hidden, other)


def test_saving_the_model_gives_the_same_backbone_back(family, family_folder, tmp_path):
    backbone = load(family_folder, family)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.01
    backbone.model.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again", family)
    audio = sound()
    torch.testing.assert_close(last_state(again, audio), last_state(backbone, audio), rtol=0, atol=0)
