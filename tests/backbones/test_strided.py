"""Convolution as matrix products is convolution."""

import pytest
import torch
from torch.nn import functional
from transformers import Wav2Vec2Config

from brainlit.backbones.strided import can_run, strided_conv
from brainlit.backbones.wav2vec import Wav2vecBackbone


@pytest.mark.parametrize("n_in", [1, 3])
@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (4, 4), (6, 2), (20, 10)])
@pytest.mark.parametrize("n_times", [40, 41, 63])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_conv1d_with_its_gradients(n_in, kernel, stride, n_times, with_bias):
    generator = torch.Generator().manual_seed(kernel)
    signal = torch.randn(2, n_times, n_in, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(5, n_in, kernel, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, generator=generator) if with_bias else None
    ours = strided_conv(signal, weight, bias, stride)
    reference = functional.conv1d(signal.transpose(1, 2), weight, bias, stride).transpose(1, 2)
    torch.testing.assert_close(ours, reference)
    for mine, theirs in zip(
        torch.autograd.grad(ours.square().sum(), (signal, weight)),
        torch.autograd.grad(reference.square().sum(), (signal, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_only_layer_normalised_kernels_that_are_multiples_of_their_stride():
    assert can_run(Wav2Vec2Config(**Wav2vecBackbone.tiny_architecture()))
    assert not can_run(Wav2Vec2Config())
    assert not can_run(Wav2Vec2Config(feat_extract_norm="layer"))
