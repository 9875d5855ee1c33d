"""Frames fall into each item's own rows; padding never counts; each way of pooling against a loop."""

import pytest
import torch

from brainlit.backbones.rows import (
    attention_of_rows,
    end_of_rows,
    max_of_rows,
    mean_of_rows,
    one_row,
    pool_per_tr,
    pool_window,
    rows_of_frames,
)

QUERY = torch.tensor([0.5, -1.0, 2.0, 0.0])
WAYS = {
    "mean": mean_of_rows,
    "max": max_of_rows,
    "first": lambda *args: end_of_rows(*args, "first"),
    "last": lambda *args: end_of_rows(*args, "last"),
    "attention": lambda *args: attention_of_rows(*args, QUERY),
}


def slow_attention(frames):
    weights = [torch.exp(frame @ QUERY / 2) for frame in frames]  # 2 is the root of the hidden size
    return sum(weight * frame for weight, frame in zip(weights, frames, strict=True)) / sum(weights)


SLOW = {
    "mean": lambda frames: sum(frames) / len(frames),
    "max": lambda frames: torch.stack(frames).amax(0),
    "first": lambda frames: frames[0],
    "last": lambda frames: frames[-1],
    "attention": slow_attention,
}


def slow_pool(states, frame_mask, times_s, edges_s, how="mean"):
    n_batch, _, hidden = states.shape
    n_bins = edges_s.shape[1] - 1
    pooled, heard = torch.zeros(n_batch, n_bins, hidden), torch.zeros(n_batch, n_bins, dtype=torch.bool)
    for b in range(n_batch):
        for j in range(n_bins):
            inside = [
                states[b, k]
                for k, t in enumerate(times_s.tolist())
                if float(edges_s[b, j]) <= t < float(edges_s[b, j + 1]) and frame_mask[b, k]
            ]
            if inside:
                pooled[b, j], heard[b, j] = SLOW[how](inside), True
    return pooled, heard


def example(seed=0):
    """Masks with holes, rows of other lengths for each item, frames exactly on edges, frames before and after all."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(4, 48, 4, generator=generator)
    frame_mask = torch.rand(4, 48, generator=generator) > 0.2
    frame_mask[1, :20] = False
    times_s = 0.0625 + torch.arange(48) * 0.125
    edges_s = torch.tensor([0.0, 0.13, -0.4])[:, None] + torch.arange(6) * torch.tensor([1.0, 0.75, 1.1])[:, None]
    on_frames = times_s[[2, 3, 11, 12, 30, 41]][None]
    return states, frame_mask, times_s, torch.cat([edges_s, on_frames])


def pool(how, states, frame_mask, times_s, edges_s):
    return WAYS[how](states, rows_of_frames(frame_mask, times_s, edges_s), edges_s.shape[1] - 1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("how", WAYS)
def test_equals_a_slow_loop_with_edges_of_its_own_for_each_item(how, seed):
    inputs = example(seed)
    for ours, reference in zip(pool(how, *inputs), slow_pool(*inputs, how), strict=True):
        torch.testing.assert_close(ours, reference)
    heard = pool(how, *inputs)[1]
    assert not heard[1, 0]
    assert heard.any()


@pytest.mark.parametrize("how", WAYS)
def test_a_whole_window_is_one_row(how):
    states, frame_mask, times_s, _ = example()
    frame_mask[2] = False
    everything = torch.tensor([[-1.0, 100.0]]).expand(4, 2)
    pooled, heard = WAYS[how](states, one_row(frame_mask), 1)
    torch.testing.assert_close(pooled, slow_pool(states, frame_mask, times_s, everything, how)[0])
    assert heard[:, 0].tolist() == [True, True, False, True]


def test_the_published_pooling_bit_for_bit():
    """As one sum over frames weighted by belonging, which the published results were computed with."""

    def published(states, frame_mask, belongs):
        counts = belongs.sum(2)
        real = torch.where(frame_mask[:, :, None], states.float(), 0.0)
        return torch.bmm(belongs.float(), real) / counts.clamp(min=1)[:, :, None], counts > 0

    states, frame_mask, times_s, edges_s = example()
    rows = torch.searchsorted(edges_s, times_s.expand(4, 48).contiguous(), right=True) - 1
    belongs = rows.masked_fill(~frame_mask, -1)[:, None, :] == torch.arange(5)[None, :, None]
    pairs = [
        (pool_per_tr(states, frame_mask, times_s, edges_s), published(states, frame_mask, belongs)),
        (pool_window(states, frame_mask), published(states, frame_mask, frame_mask[:, None, :])),
    ]
    for ours, reference in pairs:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, reference, strict=True))


def test_a_frame_on_an_edge_belongs_to_the_row_that_begins():
    states = torch.tensor([[[1.0], [2.0], [4.0]]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    pooled, _ = pool_per_tr(states, mask, torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.0, 1.0, 2.0]]))
    assert pooled[0, :, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("how", WAYS)
def test_padding_and_frames_outside_all_rows_may_hold_anything(how):
    states, *others = example()
    frame_mask, times_s, edges_s = others
    counts = frame_mask & (times_s >= edges_s[:, :1]) & (times_s < edges_s[:, -1:])
    clean = pool(how, states, *others)[0]
    dirty = states.clone().requires_grad_()
    with torch.no_grad():
        dirty[~counts] = torch.nan
    pooled, _ = pool(how, dirty, *others)
    torch.testing.assert_close(pooled, clean)
    pooled.square().sum().backward()
    assert (dirty.grad[~counts] == 0).all()
    assert (dirty.grad[counts] != 0).any()
    assert dirty.grad.isfinite().all()


@pytest.mark.parametrize("how", WAYS)
def test_rows_without_frames_are_zero_and_flagged_and_have_no_gradient(how):
    states, _, times_s, edges_s = example()
    states = states.requires_grad_()
    nothing = torch.zeros(4, 48, dtype=torch.bool)
    for rows, n_rows in ((rows_of_frames(nothing, times_s, edges_s), 5), (one_row(nothing), 1)):
        pooled, heard = WAYS[how](states, rows, n_rows)
        assert (pooled == 0).all()
        assert not heard.any()
        (gradient,) = torch.autograd.grad(pooled.sum(), states)
        assert (gradient == 0).all()


@pytest.mark.parametrize("how", WAYS)
def test_gradients_are_those_of_the_slow_loop(how):
    states, *others = example()
    ours, slow = (states.clone().requires_grad_() for _ in range(2))
    pool(how, ours, *others)[0].square().sum().backward()
    slow_pool(slow, *others, how)[0].square().sum().backward()
    torch.testing.assert_close(ours.grad, slow.grad)


@pytest.mark.parametrize("how", WAYS)
def test_fp32_whatever_the_precision_around(how):
    states, *others = example()
    exact = pool(how, states.bfloat16().float(), *others)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(how, states.bfloat16(), *others)[0]
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, exact)
