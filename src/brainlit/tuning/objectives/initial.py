"""Initial weights from an explicit generator."""

from __future__ import annotations

import math

import torch
from torch import nn


def new_linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear map with torch's usual initial weights and a bias of 0; the global random state is not used."""
    linear = nn.utils.skip_init(nn.Linear, n_in, n_out)  # type: ignore[no-untyped-call]
    bound = 1 / math.sqrt(n_in)
    nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
    nn.init.zeros_(linear.bias)
    assert isinstance(linear, nn.Linear)
    return linear
