"""Brain-tuning: heads, losses, schedule and the LightningModule."""

from brainlit.backbones.rows import pool_per_tr, pool_window
from brainlit.tuning.checkpoint import CheckpointError, load_tuned
from brainlit.tuning.heads import VoxelHead, masked_mse
from brainlit.tuning.module import BrainTuning

__all__ = ["BrainTuning", "CheckpointError", "VoxelHead", "load_tuned", "masked_mse", "pool_per_tr", "pool_window"]
