"""How much of a backbone is trained: a range of layers, with or without what lies before them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from brainlit.backbones.base import SpeechBackbone, eval_mode

log = logging.getLogger(__name__)

PROBE_S = 1.0
"""Seconds of silence that show what acts on which hidden state."""


@dataclass(frozen=True)
class TrainableConfig:
    """Which part of the backbone is trained; the front end never is.

    Layers count from 1, so that hidden state k comes out of layer k. Layers above the hidden state that is read out
    are frozen in any case. With LoRA this limits where LoRA trains; the rest is frozen already.

    Parameters
    ----------
    first_layer : int or None
        Layers below this one are frozen; None is the first. WavLM keeps the position embedding of all layers in its
        first: a range that begins later freezes it too.
    last_layer : int or None
        Layers above this one are frozen; None is the last.
    upper_layers : int or None
        Train only so many layers, counted down from the hidden state that is read out, whatever the backbone's depth;
        in place of first_layer. 0 trains no layer: with projection false the head alone learns.
    projection : bool
        Also train what is neither front end nor layer: feature projection, positional convolution or embedding, layer
        norm.
    layer_decay : float
        Learning rate of a layer over that of the layer above it, 0 to 1; 1 is the same for all. See parameter_groups.
    gradient_checkpointing : bool
        Keep only what goes into each layer and compute the layer again in the backward pass: the same gradients with
        less memory, for the time of one more forward pass.
    """

    first_layer: int | None = None
    last_layer: int | None = None
    upper_layers: int | None = None
    projection: bool = True
    layer_decay: float = 1.0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_layer_order("trainable", self.first_layer, self.last_layer)
        if self.upper_layers is not None and (self.upper_layers < 0 or self.first_layer is not None):
            raise ValueError(
                f"trainable.upper_layers is {self.upper_layers} with first_layer {self.first_layer}; give 0 or more"
                " upper layers, or the first layer to train, not both."
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"trainable.layer_decay is {self.layer_decay}; it is a factor per layer, 0 < layer_decay <= 1 (1 for"
                " none)."
            )


def apply_trainable(backbone: SpeechBackbone, config: TrainableConfig, read_out_layer: int | None = None) -> None:
    """Freeze what is not to be trained, and set gradient checkpointing. Nothing is ever unfrozen.

    What cannot act on the hidden state that is read out is frozen too: the layers above it, and a layer norm after
    the last. Distributed training then finds no unused parameters, and weight decay does not shrink them.

    Parameters
    ----------
    backbone : SpeechBackbone
        Changed in place; LoRA must be there already where it is wanted.
    config : TrainableConfig
    read_out_layer : int or None
        Highest hidden state that any loss uses, 0 to n_layers; None is the last.

    Raises
    ------
    ValueError
        If there are no such layers, or nothing is left to train that was not meant to be frozen.
    """
    top = backbone.n_layers if read_out_layer is None else read_out_layer
    if not 0 <= top <= backbone.n_layers:
        raise ValueError(f"read_out_layer is {top}; the backbone has hidden states 0 to {backbone.n_layers}.")
    first = config.first_layer
    if config.upper_layers is not None:
        highest = min(top, backbone.n_layers if config.last_layer is None else config.last_layer)
        first = max(1, highest - config.upper_layers + 1)
    none = config.upper_layers == 0
    chosen = range(0) if none else layer_range("trainable", first, config.last_layer, backbone.n_layers)
    if config.first_layer is not None and config.first_layer > top:
        raise ValueError(
            f"trainable.first_layer is {config.first_layer}, but hidden state {top} is read out, on which only layers"
            f" up to {top} act; give a lower first_layer, or read out a higher layer."
        )
    for number, layer in enumerate(backbone.layers, start=1):
        if number not in chosen:
            layer.requires_grad_(False)
    if not config.projection:
        _freeze_outside_layers(backbone)
    if top < backbone.n_layers:
        _freeze_above(backbone, top)
    head_alone = none and not config.projection
    if not head_alone and not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise ValueError(
            f"nothing of the backbone is left to train: layers {f'{chosen[0]} to {chosen[-1]}' if chosen else 'none'}"
            f" with hidden state {top} read out, projection {'on' if config.projection else 'off'}. Train more layers,"
            " or read out a higher one."
        )
    backbone.gradient_checkpointing = config.gradient_checkpointing
    _log_what_trains(backbone)


def depths(backbone: SpeechBackbone) -> dict[str, int]:
    """The first hidden state that each trainable parameter acts on, by name; those that act on none are left out.

    0 for what comes before the layers, k for layer k, n_layers for a layer norm after the last. Read from the graph
    that autograd builds over a second of silence, so it holds whatever a family calls its parts.
    """
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    seen: set[Any] = set()
    found: dict[str, int] = {}
    for depth, state in enumerate(_silent_states(backbone)):
        for parameter in _new_leaves(state, seen):
            found[names[id(parameter)]] = depth
    return found


def check_layer_order(what: str, first_layer: int | None, last_layer: int | None) -> None:
    """Refuse a range of layers that is empty whatever the backbone.

    Raises
    ------
    ValueError
        If the first is not at least 1, or the last below the first.
    """
    first = 1 if first_layer is None else first_layer
    if first < 1:
        raise ValueError(f"{what} first_layer is {first}; layers count from 1, as hidden state 1 comes out of layer 1.")
    if last_layer is not None and last_layer < first:
        raise ValueError(
            f"{what} layers {first} to {last_layer} are out of order: give last_layer at least {first} or none."
        )


def layer_range(what: str, first_layer: int | None, last_layer: int | None, n_layers: int) -> range:
    """Layers first to last, counted from 1, of a backbone of n_layers.

    >>> list(layer_range("lora", None, 3, 12))
    [1, 2, 3]

    Raises
    ------
    ValueError
        If the backbone has no such layers.
    """
    first, last = first_layer or 1, last_layer or n_layers
    if max(first, last) > n_layers:
        raise ValueError(f"{what} layers {first} to {last} are not there: the backbone has layers 1 to {n_layers}.")
    return range(first, last + 1)


def _freeze_outside_layers(backbone: SpeechBackbone) -> None:
    in_layers = {id(parameter) for layer in backbone.layers for parameter in layer.parameters()}
    for parameter in backbone.parameters():
        if id(parameter) not in in_layers:
            parameter.requires_grad_(False)


def _freeze_above(backbone: SpeechBackbone, top: int) -> None:
    """Freeze what first acts on a hidden state above top; what acts on none in this pass (a mask) is left alone."""
    above = [name for name, depth in depths(backbone).items() if depth > top]
    for name in above:
        backbone.get_parameter(name).requires_grad_(False)
    if above:
        log.info("hidden state %d is read out: %d parameters that act only above it are frozen", top, len(above))


def _log_what_trains(backbone: SpeechBackbone) -> None:
    of_layer = {number: _n_trainable(layer) for number, layer in enumerate(backbone.layers, start=1)}
    n_trainable = _n_trainable(backbone)
    log.info(
        "%d of %d numbers of the backbone are trained: layers %s; outside the layers %d; gradient checkpointing %s",
        n_trainable,
        sum(parameter.numel() for parameter in backbone.parameters()),
        ", ".join(str(number) for number, n in of_layer.items() if n) or "none",
        n_trainable - sum(of_layer.values()),
        "on" if backbone.gradient_checkpointing else "off",
    )


def _n_trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _silent_states(backbone: SpeechBackbone) -> tuple[Tensor, ...]:
    """Hidden states with their graph, in eval mode; mode and random state are as before."""
    device = next(backbone.parameters()).device
    silence = torch.zeros(1, int(PROBE_S * backbone.sample_rate_hz), device=device)
    with eval_mode(backbone), torch.enable_grad():
        return backbone.encode(silence, torch.ones_like(silence, dtype=torch.bool)).hidden_states


def _new_leaves(state: Tensor, seen: set[Any]) -> Iterator[nn.Parameter]:
    """Parameters in the graph behind a tensor, except behind nodes seen before."""
    waiting: list[Any] = [state.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [before for before, _ in node.next_functions]


def count_layer_parameters(backbone: SpeechBackbone) -> int:
    """Numbers in the transformer layers, trained or not: no front end, and no decoder that never runs."""
    return sum(parameter.numel() for layer in backbone.layers for parameter in layer.parameters())
