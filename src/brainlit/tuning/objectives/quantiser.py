"""Product quantisation with a Gumbel softmax, as wav2vec 2.0 makes its targets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Quantised(NamedTuple):
    """Codewords of some frames.

    Parameters
    ----------
    vectors : Tensor of shape (n_frames, codevector_dim)
    codes : int64 Tensor of shape (n_frames, n_groups)
        Which entry of each codebook.
    perplexity : Tensor of shape ()
        How many entries are in use, added up over codebooks: n_groups at least, n_groups x n_vars at most.
    """

    vectors: Tensor
    codes: Tensor
    perplexity: Tensor


def new_quantiser(n_features: int, n_groups: int, n_vars: int, codevector_dim: int, generator: torch.Generator) -> Any:
    """transformers' Wav2Vec2GumbelVectorQuantizer, so that parameters have the names and shapes of checkpoints.

    Initialised as there, from the generator.
    """
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    settings = SimpleNamespace(
        num_codevector_groups=n_groups,
        num_codevectors_per_group=n_vars,
        codevector_dim=codevector_dim,
        conv_dim=[n_features],
    )
    with torch.random.fork_rng(devices=[]):
        quantiser = Wav2Vec2GumbelVectorQuantizer(settings)  # type: ignore[no-untyped-call]
    nn.init.normal_(quantiser.weight_proj.weight, generator=generator)
    nn.init.zeros_(quantiser.weight_proj.bias)
    nn.init.uniform_(quantiser.codevectors, generator=generator)
    return quantiser


def quantise(
    quantiser: Any, features: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Quantised:
    """The nearest codewords, or with a generator a sample of them that gradients pass through (arXiv 1611.01144).

    The numbers of the library's own forward, which cannot be used here: its noise comes from the global random state,
    and it multiplies every codeword by its 0 or 1 for every frame, gigabytes for a batch of long windows.

    Parameters
    ----------
    quantiser : Wav2Vec2GumbelVectorQuantizer
    features : float32 Tensor of shape (n_frames, n_features)
    temperature : float
        Of the Gumbel softmax.
    generator : torch.Generator or None
        Draws the Gumbel noise, on the device of the features; None for no noise and no gradients through the choice.
    """
    n_groups, n_vars = quantiser.num_groups, quantiser.num_vars
    logits = quantiser.weight_proj(features).view(len(features), n_groups, n_vars)
    if generator is None:
        codes = logits.argmax(-1)
        chosen = functional.one_hot(codes, n_vars).to(logits.dtype)
        shares = chosen.mean(0)
    else:
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        soft = ((logits + noise) / temperature).softmax(-1)
        codes = soft.argmax(-1)
        chosen = functional.one_hot(codes, n_vars).to(logits.dtype) - soft.detach() + soft
        shares = logits.softmax(-1).mean(0)
    vectors = torch.einsum("ngv,gvd->ngd", chosen, quantiser.codevectors.view(n_groups, n_vars, -1))
    perplexity = torch.exp(-torch.xlogy(shares, shares).sum(-1)).sum()
    return Quantised(vectors.flatten(1), codes, perplexity)
