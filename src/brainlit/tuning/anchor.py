"""Against forgetting: penalties that keep a tuned backbone near its pretrained self."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from brainlit.backbones.base import FrontEnd, SpeechBackbone, eval_mode
from brainlit.backbones.lora import is_lora, lora_layers, lora_switched_off
from brainlit.tuning.across_processes import sum_over_processes
from brainlit.tuning.settings import check_choice

AnchorKind = Literal["none", "l2_sp", "distillation"]

SMALLEST_SHARE = 1e-4
"""Pretrained states vary by at least this share of their power, or are counted so."""


@dataclass(frozen=True)
class AnchorConfig:
    """What keeps the tuned backbone near the pretrained one.

    Parameters
    ----------
    kind : str
        none; l2_sp pulls the trained weights back to where they started (Li et al. 2018, arXiv 1802.01483);
        distillation pulls the hidden states of the same sound back to the pretrained ones: one more forward pass per
        step and, without LoRA, a second copy of the model in memory.
    weight : float
        What the penalty is multiplied by. Of l2_sp that is alpha (alpha / 2 times the sum of squares). Try powers of
        ten, and watch drift/change.
    layers : tuple of int, or None
        Hidden states that distillation holds, 0 being the input of the first layer and -1 the last; None is all.
    """

    kind: AnchorKind = "none"
    weight: float = 0.1
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_choice("anchor kind", self.kind, AnchorKind)
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"anchor weight is {self.weight}; give a positive number, or anchor kind none.")
        if self.layers is not None and self.kind == "l2_sp":
            raise ValueError(
                f"anchor layers are {list(self.layers)}, but l2_sp holds all trained weights; leave layers out, or"
                " restrict what is trained."
            )
        if self.layers is not None and not self.layers:
            raise ValueError("anchor layers are empty; name hidden states, or leave layers out for all.")


class Anchor(nn.Module, ABC):
    """A penalty on the distance from the pretrained backbone; 0 before the first step.

    What it remembers of the pretrained backbone moves with `.to()`, is neither trained nor saved, and is that of the
    moment in which it was built: build it before a checkpoint is loaded into the backbone.

    Parameters
    ----------
    weight : float
        What the penalty is multiplied by.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, backbone: SpeechBackbone, states: Sequence[Tensor], front: FrontEnd) -> Tensor:
        """The penalty, times the weight.

        Parameters
        ----------
        backbone : SpeechBackbone
            The one that is trained.
        states : sequence of n_layers + 1 Tensors of shape (batch, n_frames, hidden_size)
            What its trunk made of `front`.
        front : FrontEnd
            Frames of padding do not count.

        Returns
        -------
        float32 Tensor of shape ()
        """


class L2SP(Anchor):
    """weight / 2 times the sum of squared differences of the trained weights from where they started.

    L2-SP of Li et al. 2018 (arXiv 1802.01483). The head is new, so it has no start and is not held; weight decay pulls
    the same weights to 0 beside it. With LoRA the difference of a weight is the product (alpha / rank) B A, and that is
    squared, not A and B: A is random from the start and means nothing without B.
    """

    def __init__(self, backbone: SpeechBackbone, weight: float) -> None:
        super().__init__(weight)
        self._start_of: dict[str, str] = {}
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad and not is_lora(name):
                self._start_of[name] = f"start_{len(self._start_of)}"
                self.register_buffer(self._start_of[name], parameter.detach().clone(), persistent=False)

    def forward(self, backbone: SpeechBackbone, states: Sequence[Tensor], front: FrontEnd) -> Tensor:
        """See Anchor; states and front do not matter."""
        parameters = dict(backbone.named_parameters())
        total = torch.zeros((), device=front.features.device)
        with torch.autocast(total.device.type, enabled=False):
            for name, start in self._start_of.items():
                total = total + (parameters[name].float() - getattr(self, start).float()).square().sum()
            for _, layer in lora_layers(backbone):
                total = total + _squared_lora(layer)
        return self.weight / 2 * total


class Distillation(Anchor):
    """weight times the mean over layers of the squared distance of the hidden states from the pretrained ones.

    Per layer: the sum of squared differences over real frames and features, divided by what the pretrained states vary
    around their mean frame, so that 1 is as far as the mean frame is and layers of any scale count alike. Pretrained
    states are made in eval mode. Where only LoRA is trained they come from the backbone with LoRA switched off,
    otherwise from a frozen copy of it.
    """

    def __init__(self, backbone: SpeechBackbone, weight: float, layers: tuple[int, ...] | None) -> None:
        super().__init__(weight)
        n_states = backbone.n_layers + 1
        self.layers = tuple(range(n_states)) if layers is None else tuple(_from_start(k, n_states) for k in layers)
        self._copies: list[SpeechBackbone] = []  # a list hides it from state_dict, parameters and train()
        if not all(is_lora(name) for name, parameter in backbone.named_parameters() if parameter.requires_grad):
            self._copies.append(copy.deepcopy(backbone).requires_grad_(False).eval())

    def forward(self, backbone: SpeechBackbone, states: Sequence[Tensor], front: FrontEnd) -> Tensor:
        """See Anchor."""
        before = self.pretrained_states(backbone, front)
        with torch.autocast(front.features.device.type, enabled=False):
            parts = [_distance(states[k].float(), before[k].float(), front.frame_mask) for k in self.layers]
            return self.weight * torch.stack(parts).mean()

    @torch.no_grad()
    def pretrained_states(self, backbone: SpeechBackbone, front: FrontEnd) -> tuple[Tensor, ...]:
        """Hidden states of the pretrained backbone: n_layers + 1 Tensors of shape (batch, n_frames, hidden_size)."""
        for pretrained in self._copies:
            return pretrained.trunk(front.features, front.frame_mask)
        with eval_mode(backbone), lora_switched_off(backbone):
            return backbone.trunk(front.features, front.frame_mask)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Take the copy along to another device or precision."""
        for pretrained in self._copies:
            pretrained._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]


def build_anchor(config: AnchorConfig, backbone: SpeechBackbone) -> Anchor | None:
    """The anchor that was asked for, None for kind none; it remembers the backbone as it is now.

    The backbone has its pretrained weights, LoRA and frozen parts already.

    Raises
    ------
    ValueError
        If nothing of the backbone is trained, or it has no such layers.
    """
    if config.kind == "none":
        return None
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise ValueError(
            f"anchor kind is {config.kind!r}, but nothing of the backbone is trained, so nothing can be forgotten; give"
            " --model.anchor.kind none."
        )
    if config.kind == "l2_sp":
        return L2SP(backbone, config.weight)
    return Distillation(backbone, config.weight, config.layers)


def _distance(now: Tensor, before: Tensor, frame_mask: Tensor) -> Tensor:
    """Squared distance over real frames, in units of how the pretrained states vary; all (batch, n_frames, hidden)."""
    real = frame_mask[:, :, None]
    kept = torch.where(real, before, 0.0)
    n_frames = sum_over_processes(frame_mask.sum()).clamp(min=1)
    mean = sum_over_processes(kept.sum((0, 1))) / n_frames
    changes = torch.where(real, now - before, 0.0), torch.where(real, before - mean, 0.0), kept
    change, variation, power = sum_over_processes(torch.stack([values.square().sum() for values in changes])).unbind()
    scale = torch.maximum(variation, SMALLEST_SHARE * power)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return change / scale


def _squared_lora(layer: Any) -> Tensor:
    """||scaling B A||^2 of one linear map = scaling^2 sum((B' B) * (A A')), which needs rank x rank numbers only."""
    total = torch.zeros((), device=layer.weight.device)
    for name in layer.active_adapters:
        down, up = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float()
        total = total + layer.scaling[name] ** 2 * ((up.T @ up) * (down @ down.T)).sum()
    return total


def _from_start(layer: int, n_states: int) -> int:
    if not -n_states <= layer < n_states:
        raise ValueError(f"anchor layer {layer} does not exist: the backbone has hidden states 0..{n_states - 1}.")
    return layer % n_states
