"""Anchors: nothing before the first step, the distance afterwards, from the weights that were there first."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brainlit.backbones import BackboneConfig, SpeechBackbone, load_backbone
from brainlit.backbones.base import FrontEnd
from brainlit.tuning.anchor import Anchor, AnchorConfig, Distillation, build_anchor

RANK, ALPHA = 2, 6


@pytest.fixture
def backbone(mini_folder: Path) -> SpeechBackbone:
    loaded = load_backbone(BackboneConfig(weights=str(mini_folder), dropout=0.1))
    loaded.freeze_feature_encoder()
    return loaded


@pytest.fixture
def with_lora(backbone: SpeechBackbone) -> SpeechBackbone:
    """LoRA on queries and values, B = 0, nothing else trained."""
    import peft

    settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone.requires_grad_(False)
        peft.inject_adapter_in_model(settings, backbone.model)
    return backbone.eval()


def front_of(backbone: SpeechBackbone, seed: int = 0) -> FrontEnd:
    """Two windows of half a second, the second one half padding."""
    sound = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(2, 8_000, dtype=torch.bool)
    mask[1, 4_000:] = False
    return backbone.front_end(sound * mask, mask)


def penalty(anchor: Anchor | None, backbone: SpeechBackbone, front: FrontEnd) -> Tensor:
    assert anchor is not None
    return anchor(backbone, backbone.trunk(front.features, front.frame_mask), front)


def trained(backbone: SpeechBackbone) -> list[nn.Parameter]:
    return [parameter for parameter in backbone.parameters() if parameter.requires_grad]


def move(backbone: SpeechBackbone, scale: float = 0.05) -> None:
    """Change all that is trained, as an optimiser would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained(backbone):
            parameter += scale * torch.randn(parameter.shape, generator=generator)


KINDS: list[dict[str, Any]] = [{"kind": "l2_sp"}, {"kind": "distillation"}, {"kind": "distillation", "layers": (-1,)}]


@pytest.mark.parametrize("settings", KINDS)
def test_nothing_at_the_start_then_a_penalty_whose_gradient_leads_back(
    backbone: SpeechBackbone, settings: dict[str, Any]
) -> None:
    anchor, front = build_anchor(AnchorConfig(**settings), backbone), front_of(backbone)
    start = penalty(anchor, backbone, front)
    assert start == 0
    assert not any(g.any() for g in torch.autograd.grad(start, trained(backbone), allow_unused=True) if g is not None)
    move(backbone)
    before = penalty(anchor, backbone, front)
    assert before > 0
    gradients = torch.autograd.grad(before, trained(backbone), allow_unused=True)
    length = torch.stack([g.square().sum() for g in gradients if g is not None]).sum()
    with torch.no_grad():
        for parameter, gradient in zip(trained(backbone), gradients, strict=True):
            if gradient is not None:
                parameter -= 0.01 * before / length * gradient
    assert float(penalty(anchor, backbone, front).detach() / before.detach()) == pytest.approx(0.99, abs=0.002)


def test_l2_sp_is_half_the_squared_distance_of_what_is_trained(backbone: SpeechBackbone) -> None:
    backbone.layers[0].requires_grad_(False)
    start = [parameter.detach().clone() for parameter in trained(backbone)]
    anchor, front = build_anchor(AnchorConfig("l2_sp", weight=0.4), backbone), front_of(backbone)
    move(backbone)
    with torch.no_grad():
        next(iter(backbone.layers[0].parameters())).add_(1.0)
    pairs = list(zip(trained(backbone), start, strict=True))
    expected = 0.2 * sum(float((now.detach() - then).square().sum()) for now, then in pairs)
    value = penalty(anchor, backbone, front)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    for (now, then), gradient in zip(pairs, torch.autograd.grad(value, trained(backbone)), strict=True):
        torch.testing.assert_close(gradient, 0.4 * (now - then))


def test_l2_sp_of_lora_is_of_the_product(with_lora: SpeechBackbone) -> None:
    anchor, front = build_anchor(AnchorConfig("l2_sp", weight=1.0), with_lora), front_of(with_lora)
    assert penalty(anchor, with_lora, front) == 0
    move(with_lora)
    layers = [module for module in with_lora.modules() if hasattr(module, "lora_A")]
    assert len(layers) == 4
    products = [ALPHA / RANK * layer.lora_B["default"].weight @ layer.lora_A["default"].weight for layer in layers]
    slow = sum(product.square().sum() for product in products) / 2
    value = penalty(anchor, with_lora, front)
    torch.testing.assert_close(value, slow)
    for fast, expected in zip(*(torch.autograd.grad(v, trained(with_lora)) for v in (value, slow)), strict=True):
        torch.testing.assert_close(fast, expected)


def slow_distance(now: Tensor, before: Tensor, frame_mask: Tensor) -> float:
    real_now, real = now[frame_mask], before[frame_mask]
    return float((real_now - real).square().sum() / (real - real.mean(0)).square().sum())


def test_distillation_is_the_distance_of_the_states_per_layer(backbone: SpeechBackbone) -> None:
    pretrained = copy.deepcopy(backbone)
    anchor = build_anchor(AnchorConfig("distillation", weight=2.0, layers=(0, -1)), backbone)
    front = front_of(backbone)
    move(backbone)
    with torch.no_grad():
        then, now = (model.trunk(front.features, front.frame_mask) for model in (pretrained, backbone))
    expected = [slow_distance(now[k], then[k], front.frame_mask) for k in (0, 2)]
    assert expected[0] != pytest.approx(expected[1], rel=0.1)
    assert penalty(anchor, backbone, front).item() == pytest.approx(sum(expected), rel=1e-4)


@pytest.mark.parametrize("kind", ["l2_sp", "distillation"])
def test_masked_frames_do_not_count(backbone: SpeechBackbone, kind: str) -> None:
    anchor, front = build_anchor(AnchorConfig(kind), backbone), front_of(backbone)
    move(backbone)
    states = backbone.trunk(front.features, front.frame_mask)
    assert anchor is not None
    value = anchor(backbone, states, front)
    poisoned = [torch.where(front.frame_mask[:, :, None], state, torch.nan) for state in states]
    assert torch.equal(anchor(backbone, poisoned, front), value)
    silent = front._replace(frame_mask=torch.zeros_like(front.frame_mask))
    assert torch.isfinite(anchor(backbone, states, silent))


@pytest.mark.parametrize("kind", ["l2_sp", "distillation"])
def test_the_anchor_is_what_was_there_first_also_after_other_weights_were_loaded(
    backbone: SpeechBackbone, kind: str
) -> None:
    """As on a resume, where the checkpoint comes after the anchor was built."""
    tuned = copy.deepcopy(backbone)
    move(tuned, 0.1)
    front = front_of(backbone)
    before = build_anchor(AnchorConfig(kind), backbone)
    backbone.load_state_dict(tuned.state_dict())
    uninterrupted = penalty(before, backbone, front)
    assert uninterrupted > 0
    assert penalty(build_anchor(AnchorConfig(kind), tuned), tuned, front) == 0


@pytest.mark.parametrize("kind", ["l2_sp", "distillation"])
def test_what_it_remembers_is_not_saved_not_trained_and_moves_along(backbone: SpeechBackbone, kind: str) -> None:
    anchor = build_anchor(AnchorConfig(kind), backbone)
    assert anchor is not None
    assert not anchor.state_dict()
    assert not list(anchor.parameters())
    whole = nn.ModuleDict({"backbone": backbone, "anchor": anchor}).train()
    front = front_of(backbone)
    if isinstance(anchor, Distillation):
        state = torch.get_rng_state()
        anchor.pretrained_states(backbone, front)
        assert torch.equal(torch.get_rng_state(), state), "there is dropout in the pretrained copy"
    whole.eval().double()
    value = penalty(anchor, backbone, front._replace(features=front.features.double()))
    assert value == 0


def test_distillation_of_lora_needs_no_copy(with_lora: SpeechBackbone) -> None:
    pytest.importorskip("brainlit.backbones.lora")
    pretrained, front = copy.deepcopy(with_lora), front_of(with_lora)
    anchor = build_anchor(AnchorConfig("distillation", weight=1.0), with_lora)
    assert penalty(anchor, with_lora, front) == 0
    move(with_lora)
    with_lora.layers[0].train()
    modes = [part.training for part in with_lora.modules()]
    with torch.no_grad():
        then = pretrained.trunk(front.features, front.frame_mask)
    assert isinstance(anchor, Distillation)
    assert torch.equal(anchor.pretrained_states(with_lora, front)[-1], then[-1])
    assert [part.training for part in with_lora.modules()] == modes
    with_lora.eval()
    value = penalty(anchor, with_lora, front)
    assert all(gradient.any() for gradient in torch.autograd.grad(value, trained(with_lora)))


def test_settings_are_checked(backbone: SpeechBackbone) -> None:
    assert build_anchor(AnchorConfig(), backbone) is None
    for settings, message in (
        ({"kind": "distilation"}, "Did you mean 'distillation'"),
        ({"kind": "l2_sp", "weight": 0.0}, "weight is 0.0"),
        ({"kind": "l2_sp", "layers": (1,)}, "l2_sp holds all trained weights"),
        ({"kind": "distillation", "layers": ()}, "layers are empty"),
    ):
        with pytest.raises(ValueError, match=message):
            AnchorConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"layer 3 does not exist.*0\.\.2"):
        build_anchor(AnchorConfig("distillation", layers=(3,)), backbone)
    backbone.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing of the backbone is trained"):
        build_anchor(AnchorConfig("distillation"), backbone)
