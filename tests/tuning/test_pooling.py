"""Poolings by name: which frames they take, what they learn, what they refuse."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from brainlit.backbones.frames import attention_of_rows, max_of_rows, pool_per_tr, pool_window, rows_of_frames
from brainlit.tuning.pooling import Pooling, PoolingConfig

HOWS = ["mean", "max", "last", "attention", "first"]


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    states, frame_mask = torch.randn(3, 40, 4, generator=generator), torch.rand(3, 40, generator=generator) > 0.2
    frame_mask[0, 30:] = False
    return (
        states,
        frame_mask,
        torch.arange(40) * 0.1,
        torch.arange(5).expand(3, 5) * torch.tensor([[1.0], [0.8], [0.9]]),
    )


def pooling(over="tr", how="mean"):
    return Pooling(PoolingConfig(over, how), hidden_size=4)


def test_the_mean_is_bit_for_bit_that_of_probes():
    inputs = example()
    for over, reference in (("tr", pool_per_tr(*inputs)), ("window", pool_window(*inputs[:2]))):
        assert all(torch.equal(a, b) for a, b in zip(pooling(over)(*inputs), reference, strict=True))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("over", "n_rows"), [("tr", 4), ("window", 1)])
def test_one_row_per_tr_or_window(over, n_rows, how):
    pooled, heard = pooling(over, how)(*example())
    assert pooled.shape == (3, n_rows, 4)
    assert heard.shape == (3, n_rows)
    assert pooled.dtype == torch.float32


def test_last_and_first_are_of_the_sound_and_not_of_the_padding():
    states, frame_mask, *others = example()
    for b in range(3):
        real = frame_mask[b].nonzero()[:, 0]
        for how, place in (("last", real[-1]), ("first", real[0])):
            assert torch.equal(pooling("window", how)(states, frame_mask, *others)[0][b, 0], states[b, place])
    silence = torch.full((3, 500, 4), 9.0)  # a model that pads to half a minute
    padded = torch.cat([states, silence], 1), torch.cat([frame_mask, torch.zeros(3, 500, dtype=torch.bool)], 1)
    for how in HOWS:
        short, _ = pooling("window", how)(states, frame_mask, *others)
        long, _ = pooling("window", how)(*padded, torch.arange(540) * 0.1, others[1])
        torch.testing.assert_close(long, short)


@pytest.mark.parametrize("over", ["tr", "window"])
def test_attention_begins_as_the_mean_and_has_the_only_parameter(over):
    inputs = example()
    attention = pooling(over, "attention")
    torch.testing.assert_close(attention(*inputs)[0], pooling(over, "mean")(*inputs)[0])
    assert [name for name, _ in attention.named_parameters()] == ["query"]
    assert not any(list(pooling(over, how).parameters()) for how in HOWS if how != "attention")


def test_gradients_of_attention_are_those_of_finite_differences():
    states, frame_mask, times_s, edges_s = example()
    frame_mask[1] = False
    rows = rows_of_frames(frame_mask, times_s, edges_s)
    query = torch.randn(4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3))

    def total(q):
        return (attention_of_rows(states, rows, 4, q)[0] * weights).sum()

    total(query).backward()
    with torch.no_grad():
        steps = 1e-2 * torch.eye(4)
        numeric = torch.stack([(total(query + step) - total(query - step)) / 2e-2 for step in steps])
    assert query.grad.abs().min() > 1e-3
    torch.testing.assert_close(query.grad, numeric, rtol=0.01, atol=1e-3)


def test_attention_learns_which_frames_count():
    """The answer lies in the frames that carry a mark; the mean drowns it."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(16, 40, 4, generator=generator)
    marked = torch.arange(40) % 10 == 3
    states[:, :, 0] = torch.where(marked, 3.0, 0.0)
    inputs = states, torch.ones(16, 40, dtype=torch.bool), torch.arange(40) * 0.1, torch.arange(5.0).expand(16, 5)
    answer = states[:, marked, 1]
    attention = pooling("tr", "attention")
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.3)

    def error():
        return (attention(*inputs)[0][:, :, 1] - answer).square().mean()

    before = float(error().detach())
    for _ in range(60):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert float(error().detach()) < 0.05 * before


def test_attention_survives_states_as_large_as_half_precision_allows():
    states, *others = example()
    attention = pooling("tr", "attention")
    with torch.no_grad():
        attention.query.fill_(3.0)
    large = (states * 1e4).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled, _ = attention(large, *others)
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert large.grad.isfinite().all()
    assert attention.query.grad.isfinite().all()


@pytest.mark.parametrize("how", HOWS)
def test_nothing_of_the_size_of_rows_times_frames_times_features_is_made(how):
    n_frames, hidden_size = 100, 64
    states = torch.randn(2, n_frames, hidden_size, requires_grad=True)
    mask, edges = torch.ones(2, n_frames, dtype=torch.bool), torch.arange(6.0).expand(2, 6)
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            outs = out if isinstance(out, tuple | list) else [out]
            largest = max([largest, *(value.untyped_storage().nbytes() for value in outs if torch.is_tensor(value))])
            return out

    model = Pooling(PoolingConfig("tr", how), hidden_size)
    with Sizes():
        model(states, mask, torch.arange(n_frames) * 0.05, edges)[0].sum().backward()
    assert largest <= 2 * states.numel() * 4


def test_the_largest_value_may_be_negative():
    states, frame_mask, times_s, edges_s = example()
    pooled, heard = pooling("tr", "max")(-1 - states.abs(), frame_mask, times_s, edges_s)
    assert (pooled[heard] <= -1).all()
    assert torch.equal(pooled, max_of_rows(-1 - states.abs(), rows_of_frames(frame_mask, times_s, edges_s), 4)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"over": "trs"}, "pooling over is 'trs'. Did you mean 'tr'"),
        ({"how": "avg"}, "pooling how is 'avg'.*Known: attention, first, last, max, mean"),
    ],
)
def test_unknown_poolings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PoolingConfig(**settings)
