"""WavLM (Chen et al. 2021, arXiv 2110.13900), through transformers' WavLMModel with an attention of our own."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.wav2vec_like import ConvolutionalBackbone


class WavLMBackbone(ConvolutionalBackbone):
    """WavLM: base, base-plus and large models.

    transformers' WavLMAttention hands the weights of its projections to a function of torch and never calls the
    projections, so that adapters put in their place (LoRA) would silently do nothing. Here every layer gets
    GatedRelativeAttention instead: the same parameters under the same names, the same numbers, projections called.
    """

    family: ClassVar[str] = "wavlm"
    model_type: ClassVar[str] = "wavlm"
    class_names: ClassVar[tuple[str, str]] = ("WavLMConfig", "WavLMModel")

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        for layer in model.encoder.layers:
            if not isinstance(layer.attention, GatedRelativeAttention):
                layer.attention = GatedRelativeAttention(layer.attention)
        super().__init__(model, config, origin)

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model; distances are in frames of 40 ms."""
        return {**super().tiny_architecture(), "num_buckets": 80, "max_bucket_distance": 200}

    def run_layers(self, hidden: Tensor, attended: Tensor | None, **options: Any) -> list[Tensor]:
        """What goes into the first layer, and what comes out of each.

        The first layer makes the position bias of all and hands it on, so layer drop never leaves it out.
        """
        states, bias = [hidden], None
        for layer in self.layers:
            if bias is not None and self._left_out():
                states.append(states[-1])
                continue
            after, bias = self._run(layer, states[-1], attention_mask=attended, position_bias=bias, **options)
            states.append(after)
        return states


class GatedRelativeAttention(nn.Module):
    """Self-attention with a gated relative position bias, out of the modules of transformers' WavLMAttention.

    The bias of a pair of frames depends on their distance, and each head of each frame decides from its own input how
    much of it to add to the scores (arXiv 2110.13900, "gated relative position bias").

    Parameters
    ----------
    published : WavLMAttention
        Parameters keep their names, so a state dict fits both.
    """

    def __init__(self, published: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim = int(published.num_heads), int(published.head_dim)
        self.num_buckets, self.max_distance = int(published.num_buckets), int(published.max_distance)
        self.dropout = float(published.dropout)
        self.q_proj: nn.Module = published.q_proj
        self.k_proj: nn.Module = published.k_proj
        self.v_proj: nn.Module = published.v_proj
        self.out_proj: nn.Module = published.out_proj
        self.gru_rel_pos_const: nn.Parameter = published.gru_rel_pos_const
        self.gru_rel_pos_linear: nn.Module = published.gru_rel_pos_linear
        if hasattr(published, "rel_attn_embed"):
            self.rel_attn_embed: nn.Module = published.rel_attn_embed

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None, Tensor]:
        """Attention of a layer, as transformers' encoder layers call it.

        Parameters
        ----------
        hidden_states : Tensor of shape (batch, n_frames, hidden_size)
        attention_mask : bool Tensor of shape (batch, n_frames), or None
            True for frames that may be attended to.
        position_bias : Tensor of shape (n_heads, n_frames, n_frames), or None
            From the first layer; None in the first layer, which makes it.

        Returns
        -------
        attended : Tensor of shape (batch, n_frames, hidden_size)
        None
            transformers has the attention weights here.
        position_bias : Tensor of shape (n_heads, n_frames, n_frames)
        """
        if position_bias is None:
            position_bias = self.position_bias(hidden_states.shape[1])
        query, key, value = (self.heads(project(hidden_states)) for project in (self.q_proj, self.k_proj, self.v_proj))
        bias = (self.gate(hidden_states) * position_bias).to(query.dtype)
        if attention_mask is not None:
            bias = bias.masked_fill(~attention_mask.bool()[:, None, None, :], -torch.inf)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None, position_bias

    def heads(self, states: Tensor) -> Tensor:
        """(batch, n_frames, hidden_size) -> (batch, n_heads, n_frames, head_dim)."""
        return states.view(*states.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def gate(self, hidden_states: Tensor) -> Tensor:
        """How much of the position bias each frame adds in each head, (batch, n_heads, n_frames, 1)."""
        logits: Tensor = self.gru_rel_pos_linear(self.heads(hidden_states))
        update, reset = torch.sigmoid(logits.view(*logits.shape[:3], 2, 4).sum(-1)).chunk(2, dim=-1)
        return update * (reset * self.gru_rel_pos_const - 1.0) + 2.0

    def position_bias(self, n_frames: int) -> Tensor:
        """Bias of every pair of frames in each head, (n_heads, n_frames, n_frames)."""
        frames = torch.arange(n_frames, device=self.gru_rel_pos_const.device)
        biases: Tensor = self.rel_attn_embed(self.buckets(frames[None, :] - frames[:, None]))
        return biases.permute(2, 0, 1)

    def buckets(self, distances: Tensor) -> Tensor:
        """Bucket of each signed distance in frames.

        Half of the buckets are for each direction; in each, half are for one distance each, and the rest grow with the
        logarithm of the distance up to max_distance, and one takes all that is farther.
        """
        n = self.num_buckets // 2
        n_exact = n // 2
        size = distances.abs()
        far = torch.log(size.clamp(min=1).float() / n_exact) / math.log(self.max_distance / n_exact) * (n - n_exact)
        far = (n_exact + far).long().clamp(max=n - 1)
        return torch.where(size < n_exact, size, far) + n * (distances > 0)
