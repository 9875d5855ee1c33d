"""Mean and sd of the pooled states before tuning begins."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

if TYPE_CHECKING:
    from brainlit.tuning.module import BrainTuning

N_BATCHES = 16


@torch.no_grad()
def pool_statistics(module: BrainTuning, n_batches: int = N_BATCHES) -> tuple[Tensor, Tensor]:
    """Mean and sd of the pooled states over rows with sound, in the first training batches of all processes.

    A pass of its own over the training windows, in eval mode; modes and random states are given back.

    Returns
    -------
    mean, sd : float32 Tensors of shape (hidden_size,)

    Raises
    ------
    ValueError
        If no row of these batches has sound.
    """
    trainer = module.trainer
    totals = torch.zeros(2, module.backbone.hidden_size, dtype=torch.float64, device=module.device)
    n_rows = torch.zeros((), dtype=torch.float64, device=module.device)
    was_training = module.backbone.training
    module.backbone.eval()
    try:
        with isolate_rng():
            for batch in islice(module.datamodule.train_dataloader(), n_batches):
                with trainer.precision_plugin.forward_context():
                    pooled, heard = module.pool(trainer.strategy.batch_to_device(batch))
                rows = pooled[heard].double()
                totals += torch.stack([rows.sum(0), rows.square().sum(0)])
                n_rows += len(rows)
    finally:
        module.backbone.train(was_training)
    totals = trainer.strategy.reduce(totals, reduce_op="sum")
    n_rows = trainer.strategy.reduce(n_rows, reduce_op="sum")
    if not n_rows:
        raise ValueError("no training window has sound: check the stories of the tune role and the onset of the sound.")
    mean, mean_square = totals / n_rows
    return mean.float(), (mean_square - mean.square()).clamp(min=0).sqrt().float()
