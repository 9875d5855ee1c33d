"""From pooled states to voxels: standardise, delay by the haemodynamic response, one linear map per subject."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

DELAY_WEIGHTS = {0: 0.05, 1: 0.25, 2: 0.35, 3: 0.25, 4: 0.1}
FAR_DELAY_WEIGHT = 0.05
SMALLEST_SD = 1e-6


class VoxelHead(nn.Module):
    """Voxel responses of every subject as a linear function of the pooled states of one window.

    In order: standardise by a fixed mean and sd, dropout, mix the rows at the given delays with one learned weight per
    delay (a haemodynamic response common to all voxels), and a linear map to each subject's voxels. Rows without sound
    count as the mean state, 0 after standardising.

    Parameters
    ----------
    hidden_size : int
    target_sizes : mapping of subject to int
        Voxels to predict for each subject; the linear maps of all subjects are one matrix.
    delays_trs : sequence of int, or None
        How many rows back each mixed row lies; None for no mixing (one row in, one row out).
    dropout : float
        Probability.
    seed : int
        Of the initial weights; the global random state is not used.
    """

    pool_mean: Tensor
    pool_sd: Tensor

    def __init__(
        self,
        hidden_size: int,
        target_sizes: Mapping[str, int],
        delays_trs: Sequence[int] | None,
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not target_sizes or min(target_sizes.values()) < 1:
            raise ValueError(
                f"target sizes are {dict(target_sizes)}; each subject needs at least one voxel. Check the subjects and"
                " the voxel selection of the data."
            )
        self.target_sizes = dict(target_sizes)
        self.delays_trs = None if delays_trs is None else check_delays(delays_trs)
        self.dropout = nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(seed)
        n_targets = sum(self.target_sizes.values())
        self.linear = nn.utils.skip_init(nn.Linear, hidden_size, n_targets)  # type: ignore[no-untyped-call]
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(self.linear.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.linear.bias)
        if self.delays_trs is not None:
            self.delay_weights = nn.Parameter(initial_delay_weights(self.delays_trs))
        self.register_buffer("pool_mean", torch.zeros(hidden_size))
        self.register_buffer("pool_sd", torch.ones(hidden_size))

    def set_standardisation(self, mean: Tensor, sd: Tensor) -> None:
        """Fix the mean and sd, each of shape (hidden_size,); features that do not vary are only centred."""
        self.pool_mean.copy_(mean)
        self.pool_sd.copy_(torch.where(sd > SMALLEST_SD, sd, torch.ones_like(sd)))

    def forward(self, pooled: Tensor, heard: Tensor, n_trs: int) -> dict[str, Tensor]:
        """Predictions for the last n_trs rows of each window.

        Parameters
        ----------
        pooled : float32 Tensor of shape (batch, n_bins, hidden_size)
            n_bins - n_trs rows of context come first.
        heard : bool Tensor of shape (batch, n_bins)
            False in rows without sound.

        Returns
        -------
        dict of subject to Tensor of shape (batch, n_trs, n_targets)
        """
        standard = ((pooled - self.pool_mean) / self.pool_sd).masked_fill(~heard[:, :, None], 0.0)
        rows = self.dropout(standard)
        if self.delays_trs is not None:
            rows = self._mix_delays(rows, n_trs)
        predicted = self.linear(rows).split(list(self.target_sizes.values()), dim=2)
        return dict(zip(self.target_sizes, predicted, strict=True))

    def _mix_delays(self, rows: Tensor, n_trs: int) -> Tensor:
        """sum_d weight_d x row (t - d): (batch, n_bins, hidden_size) -> (batch, n_trs, hidden_size)."""
        delays = self.delays_trs or ()
        context = rows.shape[1] - n_trs
        if context < max(delays):
            raise ValueError(
                f"the head mixes rows up to {max(delays)} TRs back, but the windows carry {context} rows of context."
                f" Give --data.window.context_s at least {max(delays)} x TR seconds, or fewer --model.delays_trs."
            )
        delayed = torch.stack([rows[:, context - d : context - d + n_trs] for d in delays])
        return torch.einsum("d,dbth->bth", self.delay_weights.to(rows.dtype), delayed)


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


def masked_mse(predicted: Mapping[str, Tensor], targets: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
    """Mean over subjects of the mean squared error over voxels and the rows that the subject heard; fp32.

    Parameters
    ----------
    predicted, targets : dict of subject to Tensor of shape (batch, n_trs, n_targets)
    masks : dict of subject to bool Tensor of shape (batch, n_trs)
        Rows to count. A subject with no such row in the batch counts for nothing.

    Returns
    -------
    Tensor of shape ()
        0 (with gradients of 0) if no subject heard any row.
    """
    device = next(iter(predicted.values())).device
    total, n_subjects = torch.zeros((), device=device), torch.zeros((), device=device)
    for subject, prediction in predicted.items():
        mask = masks[subject]
        error = torch.where(mask[:, :, None], prediction.float() - targets[subject].float(), 0.0)
        n_rows = mask.sum()
        total = total + error.square().mean(2).sum() / n_rows.clamp(min=1)
        n_subjects = n_subjects + (n_rows > 0)
    return total / n_subjects.clamp(min=1)
