"""What a step takes, against counts by hand and against steps of other sizes."""

from __future__ import annotations

import pytest
import torch

from brainlit.backbones import BackboneConfig
from brainlit.backbones.lora import LoraConfig
from brainlit.backbones.trainable import TrainableConfig
from brainlit.tuning import BrainTuning, HeadConfig
from brainlit.tuning.footprint import AllocatedMemory, Clip, Footprint, _peak_bytes, measure_step
from brainlit.tuning.model import Batch

CLIP = Clip(n_trs=6, tr_s=2.0, context_s=14.0)
SIZES = {"S1": 40, "S2": 60}


def tiny(family: str = "wav2vec", **settings: object) -> BrainTuning:
    head = HeadConfig(haemodynamic="hrf")
    return BrainTuning(BackboneConfig(family=family, weights="random:tiny"), head=head, **settings)  # type: ignore[arg-type]


def test_memory_that_comes_and_goes_is_counted() -> None:
    with AllocatedMemory() as memory:
        first = torch.zeros(1000)
        second = first + 1
        view = second[10:]  # no memory of its own
        first.add_(1)  # in place
        assert memory.now == 8000
        del first
        assert memory.now == 4000
        third = torch.zeros(100, dtype=torch.float64) + view.sum()
    assert memory.peak == 8000
    assert memory.now == 4000 + third.nbytes


@pytest.mark.parametrize("family", ["wav2vec", "whisper"])
def test_memory_of_more_windows_follows_from_one_and_two(family: str) -> None:
    module = tiny(family)
    found = measure_step(module, CLIP, SIZES)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert found.n_trained == trained
    assert found.state_bytes == 4 * found.n_parameters + 8 * trained
    forward, backward = _peak_bytes(module, CLIP.noise(5, SIZES))
    assert found.memory_bytes(5) - found.state_bytes == pytest.approx(max(forward, backward), rel=0.02)
    assert backward > 4 * trained, "gradients are part of it"
    assert all(parameter.grad is None for parameter in module.parameters())


def test_half_precision_keeps_what_autograd_keeps() -> None:
    """What the backward pass will read, asked of autograd itself, and not of every block that came and went."""
    module, of_one_window = tiny(), {}
    module.build_head(SIZES)
    for precision in ("32-true", "bf16-mixed"):
        one, two = (_peak_bytes(module, CLIP.noise(n, SIZES), precision)[1] for n in (1, 2))
        of_one_window[precision] = two - one
        kept = [saved_bytes(module, CLIP.noise(n, SIZES), precision) for n in (1, 2)]
        assert two - one == pytest.approx(kept[1] - kept[0], rel=0.3), precision
    assert 0.45 < of_one_window["bf16-mixed"] / of_one_window["32-true"] < 0.8


def saved_bytes(module: BrainTuning, batch: Batch, precision: str) -> int:
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        if saved.untyped_storage().data_ptr() not in weights:
            kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
    ):
        loss = module.losses(batch)["loss"]
    del loss
    return sum(kept.values())


def test_operations_are_six_for_each_weight_and_frame_and_those_of_attention() -> None:
    module = tiny()
    found = measure_step(module, CLIP, SIZES)
    n_frames, size = round(CLIP.window_s * module.backbone.frame_rate_hz), module.backbone.hidden_size
    weights = sum(p.numel() for layer in module.backbone.layers for p in layer.parameters())
    # attention: 4 forward; backward 8, and 2 for the scores, which are not kept but computed again
    layers = 6 * n_frames * weights + 14 * module.backbone.n_layers * n_frames**2 * size
    assert found.flops == pytest.approx(layers + front_end_operations(module), rel=0.1)


def front_end_operations(module: BrainTuning) -> float:
    """Two for each weight of a convolution and each of its outputs, forward only."""
    n, total = CLIP.window_s * 16_000, 0.0
    for name, layer in module.backbone.named_modules():
        if isinstance(layer, torch.nn.Conv1d) and "feature_extractor" in name:
            n /= layer.stride[0]
            total += 2 * n * layer.weight.numel()
    return total


def test_checkpoints_and_lora_take_less() -> None:
    plain, checkpointed, lora = (
        measure_step(tiny(**settings), CLIP, SIZES)
        for settings in (
            {},
            {"trainable": TrainableConfig(gradient_checkpointing=True)},
            {"lora": LoraConfig(rank=4)},
        )
    )
    assert checkpointed.backward_bytes[1] < plain.backward_bytes[1] / 2
    assert checkpointed.memory_bytes(8) < plain.memory_bytes(8)
    assert checkpointed.flops > plain.flops, "layers are computed twice"
    assert lora.state_bytes < plain.state_bytes / 2
    assert lora.n_trained < plain.n_trained / 5


def test_nothing_fits_into_too_little() -> None:
    found = Footprint(10**9, 10**9, (0.0, 1e9), (4e9, 1e9), flops=1.0, wall_s=1.0, cpu_s=1.0)
    assert found.windows_within(8e9) == 0
    assert found.windows_within(80e9) == 62  # (80 - 1.5 - 12 - 4) / 1
