"""Brain-tuning: heads, losses, objectives, schedule and the LightningModule."""

from brainlit.tuning.anchor import AnchorConfig
from brainlit.tuning.checkpoint import CheckpointError
from brainlit.tuning.front_end_cache import FrontEndCacheConfig
from brainlit.tuning.heads import HeadConfig
from brainlit.tuning.losses import LossConfig
from brainlit.tuning.module import BrainTuning, load_tuned
from brainlit.tuning.objectives import ObjectiveConfig
from brainlit.tuning.pooling import PoolingConfig

__all__ = [
    "AnchorConfig",
    "BrainTuning",
    "CheckpointError",
    "FrontEndCacheConfig",
    "HeadConfig",
    "LossConfig",
    "ObjectiveConfig",
    "PoolingConfig",
    "load_tuned",
]
