"""LoRA (Hu et al. 2021, arXiv 2106.09685) on the attention of a backbone, through peft: added, switched off, merged."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from brainlit.backbones.base import SpeechBackbone
from brainlit.backbones.trainable import check_layer_order, count_layer_parameters, layer_range
from brainlit.hints import did_you_mean

log = logging.getLogger(__name__)

_ADAPTER = "default"


@dataclass(frozen=True)
class LoraConfig:
    """Train low-rank changes of linear maps instead of the backbone itself: W becomes W + alpha / rank * B A.

    The multi-participant brain-tuning of 2025 (arXiv 2510.21520) took rank 8, alpha 32, dropout 0.1 on the queries,
    keys, values and outputs of all layers; BrainWavLM (arXiv 2502.08866) rank 4, alpha 4, dropout 0.1 on the keys,
    values and queries up to layer 9, which it read out.

    Parameters
    ----------
    rank : int
        Rank of the change; 0 trains the backbone itself, without LoRA.
    alpha : float or None
        The change is scaled by alpha / rank; None is 2 x rank.
    dropout : float
        Probability of dropout on what goes into A. It acts where the backbone is in train mode only: backbone_mode eval
        leaves it off altogether, and validation always does (released code of 2025 left it on there). backbone_mode
        train with the backbone's own dropout at 0 turns on this one alone, as in that paper.
    targets : tuple of str, or None
        Names (last parts) of the linear maps in the layers; None takes those of attention.
    first_layer : int or None
        Lowest layer that gets it, counted from 1, so that hidden state k comes out of layer k; None is the first.
    last_layer : int or None
        Highest layer that gets it; None is the last.
    """

    rank: int = 0
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    first_layer: int | None = None
    last_layer: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"lora rank is {self.rank}; give a positive rank, or 0 for no LoRA.")
        if self.alpha is not None and self.alpha <= 0:
            raise ValueError(
                f"lora alpha is {self.alpha}; with 0 the change would have no effect. Leave it out for 2 x rank."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora dropout is {self.dropout}; it is a probability, 0 <= dropout < 1.")
        if self.targets is not None and not self.targets:
            raise ValueError("lora targets are empty; name linear maps, or leave targets out for those of attention.")
        check_layer_order("lora", self.first_layer, self.last_layer)


def add_lora(backbone: SpeechBackbone, config: LoraConfig, seed: int) -> None:
    """Put LoRA into the layers of a backbone, in place; nothing else of it trains any more.

    B starts at 0, so the hidden states stay exactly what they were; A starts as in peft, but from a random state of its
    own. Only modules below `backbone.layers` are touched: neither a front end nor a decoder.

    Parameters
    ----------
    backbone : SpeechBackbone
        Its mode (train or eval) is kept.
    config : LoraConfig
        Rank 0 does nothing.
    seed : int
        Of A.

    Raises
    ------
    ValueError
        If there is LoRA already, a target is no linear map in these layers, or there are not so many layers.
    """
    if config.rank == 0:
        return
    if lora_layers(backbone):
        raise ValueError("this backbone has LoRA already; merge_lora it first, or load the backbone anew.")
    import peft

    names = _target_names(backbone, config)
    n_layer_parameters = count_layer_parameters(backbone)
    backbone.requires_grad_(False)
    backbone.freeze_feature_encoder()
    alpha: Any = 2 * config.rank if config.alpha is None else config.alpha  # peft says int and takes any number
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=alpha, lora_dropout=config.dropout, target_modules=names, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        peft.inject_adapter_in_model(settings, backbone.model, adapter_name=_ADAPTER)
    _draw_weights(backbone, seed)
    backbone.train(backbone.training)
    n_lora = n_lora_parameters(backbone)
    log.info(
        "LoRA of rank %d on %d linear maps: %d parameters, %.2f %% of what its layers have",
        config.rank,
        len(names),
        n_lora,
        100 * n_lora / n_layer_parameters,
    )


def merge_lora(backbone: SpeechBackbone) -> int:
    """Add the low-rank changes to the weights and take LoRA out, in place: the model is transformers' own again.

    Its state_dict has the published keys, and `backbone.model.save_pretrained` writes what `from_pretrained` reads.
    Everything stays frozen. A backbone without LoRA is left as it is, so merging twice is merging once.

    Returns
    -------
    int
        Linear maps that were merged.
    """
    found = lora_layers(backbone)
    for name, layer in found:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    if found:
        del backbone.model.peft_config
    return len(found)


@contextmanager
def lora_switched_off(backbone: SpeechBackbone) -> Iterator[None]:
    """The pretrained backbone for the time being, exactly; LoRA and what of it trains are given back in the end.

    Examples
    --------
    Distance from the pretrained states::

        with torch.no_grad(), lora_switched_off(backbone):
            before = backbone.trunk(front.features, front.frame_mask)
    """
    layers = [layer for _, layer in lora_layers(backbone)]
    were_on = [not layer.disable_adapters for layer in layers]
    trained = [(parameter, parameter.requires_grad) for parameter in _lora_parameters(backbone)]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer, was_on in zip(layers, were_on, strict=True):
            layer.enable_adapters(was_on)
        for parameter, requires_grad in trained:  # peft changes these too
            parameter.requires_grad_(requires_grad)


def is_lora(name: str) -> bool:
    """Whether a parameter of this name belongs to LoRA."""
    return ".lora_" in name


def lora_layers(backbone: SpeechBackbone) -> list[tuple[str, Any]]:
    """Names in the backbone and modules of the linear maps that have LoRA, from the bottom; peft's LoraLayer."""
    if not any(is_lora(name) for name, _ in backbone.named_parameters()):  # and peft need not be imported
        return []
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in backbone.named_modules() if isinstance(module, LoraLayer)]


def n_lora_parameters(backbone: SpeechBackbone) -> int:
    """Numbers in all A and B."""
    return sum(parameter.numel() for parameter in _lora_parameters(backbone))


def _target_names(backbone: SpeechBackbone, config: LoraConfig) -> list[str]:
    """Full names in backbone.model of the linear maps that get LoRA."""
    chosen = layer_range("lora", config.first_layer, config.last_layer, backbone.n_layers)
    linear = _linear_names(backbone, [backbone.layers[number - 1] for number in chosen])
    names = []
    for target in backbone.lora_targets if config.targets is None else config.targets:
        matching = [full for inner, full in linear if f".{inner}".endswith(f".{target}")]
        if not matching:
            known = {inner for inner, _ in linear}
            raise ValueError(
                f"lora target {target!r} is no linear map in layers {chosen[0]} to {chosen[-1]} of the"
                f" {backbone.family} backbone. {did_you_mean(target, known)}"
            )
        names += matching
    return names


def _linear_names(backbone: SpeechBackbone, layers: Sequence[nn.Module]) -> list[tuple[str, str]]:
    """Linear maps of these layers: name in the layer, and name in backbone.model."""
    full = {id(module): name for name, module in backbone.model.named_modules()}
    return [
        (inner, full[id(module)])
        for layer in layers
        for inner, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    ]


def _lora_parameters(backbone: SpeechBackbone) -> list[nn.Parameter]:
    return [parameter for name, parameter in backbone.named_parameters() if is_lora(name)]


def _draw_weights(backbone: SpeechBackbone, seed: int) -> None:
    """A uniform as torch draws linear maps, which is peft's way, and B = 0."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora_layers(backbone):
        down, up = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
        drawn = nn.init.kaiming_uniform_(torch.empty(down.shape), a=math.sqrt(5), generator=generator)
        with torch.no_grad():
            down.copy_(drawn)
            up.zero_()
