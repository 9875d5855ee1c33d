"""What LoRA must do in every family: no change at the start, an effect of each map, and a plain model when merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainlit.backbones import SpeechBackbone
from brainlit.backbones.lora import lora_layers, lora_switched_off, merge_lora


def states(backbone: SpeechBackbone, audio: Tensor) -> tuple[Tensor, ...]:
    """Hidden states of clips without padding."""
    return backbone.encode(audio, torch.ones_like(audio, dtype=torch.bool)).hidden_states


def draw_b(backbone: SpeechBackbone, seed: int = 3) -> None:
    """Random B, as if LoRA had learned something."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora_layers(backbone):
        weight = layer.lora_B["default"].weight
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)


def assert_lora_acts(backbone: SpeechBackbone, audio: Tensor) -> None:
    """Every LoRA map changes the output and is trained by it: fails where attention reads the weights past the module.

    The backbone has LoRA in all layers; its B are drawn anew here.
    """
    assert lora_layers(backbone), "this backbone has no LoRA"
    draw_b(backbone)
    loss = states(backbone, audio)[-1].square().sum()
    loss.backward()
    for name, layer in lora_layers(backbone):
        for part in (layer.lora_A, layer.lora_B):
            gradient = part["default"].weight.grad
            assert gradient is not None, f"{name} gets no gradient"
            assert gradient.abs().max() > 0, f"{name} gets no gradient"
            part["default"].weight.grad = None
    with torch.no_grad(), lora_switched_off(backbone):
        before = states(backbone, audio)
    with torch.no_grad():
        after = states(backbone, audio)
    assert torch.equal(before[0], after[0])
    for depth, (old, new) in enumerate(zip(before[1:], after[1:], strict=True), start=1):
        assert (old - new).abs().max() > 1e-4, f"hidden state {depth} does not feel LoRA"


def assert_merge_gives_a_plain_model(
    backbone: SpeechBackbone, audio: Tensor, keys: list[str], folder: Path, model_class: Any, tolerance: float = 1e-6
) -> None:
    """Merged: the same states, the keys of the model before LoRA, and a folder that transformers reads completely."""
    draw_b(backbone)
    with torch.no_grad():
        wanted = states(backbone, audio)
        assert merge_lora(backbone) > 0
        merged = states(backbone, audio)
    for old, new in zip(wanted, merged, strict=True):
        torch.testing.assert_close(new, old, rtol=tolerance, atol=tolerance)
    assert list(backbone.model.state_dict()) == keys
    backbone.model.save_pretrained(folder)
    assert not (folder / "adapter_config.json").exists()
    read, report = model_class.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(read.state_dict()[key], value), key
