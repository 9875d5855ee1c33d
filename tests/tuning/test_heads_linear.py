"""The linear head gives, bit for bit, the numbers of the head that the published results were made with."""

import math

import pytest
import torch
from torch import nn

from brainlit.tuning.heads import HeadConfig, build_head

SIZES = {"S1": 5, "S2": 3}
DELAYS = (0, 1, 2, 3, 4)


class PublishedHead(nn.Module):
    """The head of the published results, on its own."""

    def __init__(self, hidden_size, target_sizes, delays_trs, dropout, seed):
        super().__init__()
        self.target_sizes, self.delays_trs = target_sizes, delays_trs
        self.dropout = nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.utils.skip_init(nn.Linear, hidden_size, sum(target_sizes.values()))
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(self.linear.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.linear.bias)
        if delays_trs is not None:
            known = {0: 0.05, 1: 0.25, 2: 0.35, 3: 0.25, 4: 0.1}
            weights = torch.tensor([known.get(delay, 0.05) for delay in delays_trs])
            self.delay_weights = nn.Parameter(weights / weights.sum())
        self.register_buffer("pool_mean", torch.zeros(hidden_size))
        self.register_buffer("pool_sd", torch.ones(hidden_size))

    def forward(self, pooled, heard, n_trs):
        rows = ((pooled - self.pool_mean) / self.pool_sd).masked_fill(~heard[:, :, None], 0.0)
        rows = self.dropout(rows)
        if self.delays_trs is not None:
            context = rows.shape[1] - n_trs
            delayed = torch.stack([rows[:, context - d : context - d + n_trs] for d in self.delays_trs])
            rows = torch.einsum("d,dbth->bth", self.delay_weights.to(rows.dtype), delayed)
        predicted = self.linear(rows).split(list(self.target_sizes.values()), dim=2)
        return dict(zip(self.target_sizes, predicted, strict=True))


def both(over, seed, dropout=0.1, hidden_size=32):
    config = HeadConfig(delays_trs=DELAYS, dropout=dropout)
    ours = build_head(config, hidden_size, SIZES, over, seed)
    published = PublishedHead(hidden_size, SIZES, DELAYS if over == "tr" else None, dropout, seed)
    mean, sd = torch.randn(2, hidden_size, generator=torch.Generator().manual_seed(1))
    for model in (ours, published):
        model.pool_mean.copy_(mean)
        model.pool_sd.copy_(sd.abs() + 0.5)
    return ours, published


def trained(model, n_bins, n_trs):
    """Losses and final state of some steps of AdamW with clipped gradients and dropout."""
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    pooled, heard = torch.randn(4, n_bins, 32), torch.rand(4, n_bins) > 0.1
    losses = []
    for _ in range(8):
        loss = sum((values - 1).square().mean() for values in model(pooled, heard, n_trs).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, model.state_dict()


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("over", "n_bins", "n_trs"), [("tr", 12, 8), ("window", 1, 1)])
def test_bit_identical_through_training(over, n_bins, n_trs, seed):
    ours, published = both(over, seed)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in published.named_parameters()]
    assert list(ours.state_dict()) == list(published.state_dict())
    (losses, state), (published_losses, published_state) = (trained(m, n_bins, n_trs) for m in (ours, published))
    assert losses == published_losses
    assert losses[-1] < losses[0]
    assert all(torch.equal(state[key], published_state[key]) for key in published_state)


def test_checkpoints_of_published_heads_load():
    ours, published = both("tr", 0)
    with torch.no_grad():
        published.linear.bias.add_(1.0)
    ours.load_state_dict(published.state_dict(), strict=True)
    assert (ours.linear.bias == 1).all()
