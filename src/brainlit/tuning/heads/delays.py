"""How a head looks back: rows at several delays, mixed by haemodynamic weights or side by side (FIR)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DELAY_WEIGHTS = {0: 0.05, 1: 0.25, 2: 0.35, 3: 0.25, 4: 0.1}
FAR_DELAY_WEIGHT = 0.05


def check_delays(delays_trs: Sequence[int]) -> tuple[int, ...]:
    """The delays as a tuple.

    Raises
    ------
    ValueError
        If there is none, one is negative or one comes twice.
    """
    delays = tuple(int(delay) for delay in delays_trs)
    if not delays or min(delays) < 0 or len(set(delays)) < len(delays):
        raise ValueError(
            f"delays_trs are {list(delays)}; need at least one, none negative, none twice, such as [0,1,2]."
        )
    return delays


def initial_delay_weights(delays_trs: Sequence[int]) -> Tensor:
    """Where the haemodynamic weights start, shape (n_delays,); they add up to 1.

    .05 .25 .35 .25 .1 for delays 0..4 (a response that peaks some 5 s after the sound, at a TR of 2 s); a later delay
    counts .05, and any other choice of delays is scaled to the same sum.
    """
    weights = torch.tensor([DELAY_WEIGHTS.get(delay, FAR_DELAY_WEIGHT) for delay in delays_trs])
    return weights / weights.sum()


def delayed_rows(rows: Tensor, delays_trs: Sequence[int], n_trs: int) -> list[Tensor]:
    """For each delay d the rows t - d of the last n_trs rows t.

    Parameters
    ----------
    rows : Tensor of shape (batch, n_bins, hidden_size)
        n_bins - n_trs rows of context come first.

    Returns
    -------
    list of n_delays Tensors of shape (batch, n_trs, hidden_size)

    Raises
    ------
    ValueError
        If a delay reaches back beyond the context.
    """
    context, furthest = rows.shape[1] - n_trs, max(delays_trs)
    if context < furthest:
        raise ValueError(
            f"the head reads rows up to {furthest} TRs back, but the windows carry {context} rows of context."
            f" Give --data.window.context_s at least {furthest} x TR seconds, or fewer --model.head.delays_trs."
        )
    return [rows[:, context - d : context - d + n_trs] for d in delays_trs]
