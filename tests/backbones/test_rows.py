"""Frames fall into each item's own rows; padding never counts."""

import torch

from brainlit.backbones.rows import pool_per_tr, pool_window


def slow_pool(states, frame_mask, times_s, edges_s):
    n_batch, _, hidden = states.shape
    n_bins = edges_s.shape[1] - 1
    pooled, heard = torch.zeros(n_batch, n_bins, hidden), torch.zeros(n_batch, n_bins, dtype=torch.bool)
    for b in range(n_batch):
        for j in range(n_bins):
            inside = [
                k
                for k, t in enumerate(times_s.tolist())
                if float(edges_s[b, j]) <= t < float(edges_s[b, j + 1]) and frame_mask[b, k]
            ]
            if inside:
                pooled[b, j], heard[b, j] = states[b, inside].mean(0), True
    return pooled, heard


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(3, 50, 4, generator=generator)
    frame_mask = torch.rand(3, 50, generator=generator) > 0.2
    frame_mask[1, :20] = False
    times_s = 0.05 + torch.arange(50) * 0.1
    edges_s = torch.tensor([0.0, 0.13, -0.4])[:, None] + torch.arange(6) * torch.tensor([1.0, 0.75, 1.1])[:, None]
    return states, frame_mask, times_s, edges_s


def test_equals_a_slow_loop_with_edges_of_its_own_for_each_item():
    inputs = example()
    for ours, reference in zip(pool_per_tr(*inputs), slow_pool(*inputs), strict=True):
        torch.testing.assert_close(ours, reference)
    heard = pool_per_tr(*inputs)[1]
    assert not heard[1, 0]
    assert heard.any()


def test_a_frame_on_an_edge_belongs_to_the_row_that_begins():
    states = torch.tensor([[[1.0], [2.0], [4.0]]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    pooled, _ = pool_per_tr(states, mask, torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.0, 1.0, 2.0]]))
    assert pooled[0, :, 0].tolist() == [1.0, 2.0]


def test_padding_may_hold_anything():
    states, frame_mask, times_s, edges_s = example()
    clean = pool_per_tr(states, frame_mask, times_s, edges_s)[0]
    dirty = states.clone().requires_grad_()
    with torch.no_grad():
        dirty[~frame_mask] = torch.nan
    pooled, _ = pool_per_tr(dirty, frame_mask, times_s, edges_s)
    torch.testing.assert_close(pooled, clean)
    pooled.square().sum().backward()
    assert dirty.grad is not None
    assert (dirty.grad[~frame_mask] == 0).all()
    torch.testing.assert_close(pool_window(dirty.detach(), frame_mask)[0], pool_window(states, frame_mask)[0])


def test_rows_without_frames_are_zero_and_flagged():
    states, _, times_s, edges_s = example()
    nothing = torch.zeros(3, 50, dtype=torch.bool)
    pooled, heard = pool_per_tr(states, nothing, times_s, edges_s)
    assert (pooled == 0).all()
    assert not heard.any()
    pooled, heard = pool_window(states, nothing)
    assert (pooled == 0).all()
    assert not heard.any()


def test_window_is_the_mean_of_all_real_frames():
    states, frame_mask, _, _ = example()
    pooled, heard = pool_window(states, frame_mask)
    assert pooled.shape == (3, 1, 4)
    assert heard.all()
    torch.testing.assert_close(pooled[2, 0], states[2, frame_mask[2]].mean(0))


def test_fp32_whatever_the_precision_around():
    states, frame_mask, times_s, edges_s = example()
    exact = pool_per_tr(states.bfloat16().float(), frame_mask, times_s, edges_s)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool_per_tr(states.bfloat16(), frame_mask, times_s, edges_s)[0]
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, exact)
