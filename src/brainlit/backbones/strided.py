"""Strided convolutions as matrix products, time before channels: the same numbers, several times faster on a CPU.

transformers' layer-normalised convolutions swap time and channels twice per layer, and most of a training step of the
tiny backbone goes into copying and into activations over memory that is not contiguous. Here the layout never changes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional


def can_run(config: Any) -> bool:
    """Whether convolutions with this configuration have the form that `conv_features` computes.

    Layer-normalised, as data2vec's always are without saying so, and each kernel a multiple of its stride.
    """
    shapes = zip(config.conv_kernel, config.conv_stride, strict=True)
    return getattr(config, "feat_extract_norm", "layer") == "layer" and all(
        kernel % stride == 0 for kernel, stride in shapes
    )


def conv_features(feature_extractor: Any, sound: Tensor) -> Tensor:
    """What transformers' feature extractor computes, transposed: (batch, n_samples) -> (batch, n_frames, conv_size)."""
    hidden = sound[:, :, None]
    for layer in feature_extractor.conv_layers:
        stride = layer.conv.stride[0]
        hidden = layer.activation(layer.layer_norm(strided_conv(hidden, layer.conv.weight, layer.conv.bias, stride)))
    return hidden


def strided_conv(signal: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolution of (batch, n_times, n_in) with weight (n_out, n_in, kernel) -> (batch, n_frames, n_out).

    Cut into blocks of `stride` times, a kernel of m blocks is m products of the block matrix, added with shifts.
    """
    n_batch, n_times, n_in = signal.shape
    n_out, _, kernel = weight.shape
    n_blocks = kernel // stride
    n_frames = (n_times - kernel) // stride + 1
    if n_in == 1:
        return functional.linear(signal[:, :, 0].unfold(1, kernel, stride), weight[:, 0], bias)
    blocks = signal[:, : (n_frames + n_blocks - 1) * stride].reshape(n_batch, -1, stride * n_in)
    taps = weight.view(n_out, n_in, n_blocks, stride).permute(2, 0, 3, 1).reshape(n_blocks * n_out, stride * n_in)
    products = functional.linear(blocks, taps)
    total = products[:, :n_frames, :n_out]
    for j in range(1, n_blocks):
        total = total + products[:, j : j + n_frames, j * n_out : (j + 1) * n_out]
    return total if bias is None else total + bias
