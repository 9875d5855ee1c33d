"""The squared error of all subjects."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


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
