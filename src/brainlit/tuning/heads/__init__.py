"""From pooled states to voxels: standardise, look back by the haemodynamic response, map to each subject."""

from brainlit.tuning.heads.base import Head
from brainlit.tuning.heads.build import HEADS, build_head
from brainlit.tuning.heads.checks import check_context, check_target_sizes, check_targets
from brainlit.tuning.heads.config import HeadConfig
from brainlit.tuning.heads.delays import check_delays, initial_delay_weights
from brainlit.tuning.heads.own import BottleneckHead, LinearHead
from brainlit.tuning.heads.shared import SharedHead, SharedLowRankHead

__all__ = [
    "HEADS",
    "BottleneckHead",
    "Head",
    "HeadConfig",
    "LinearHead",
    "SharedHead",
    "SharedLowRankHead",
    "build_head",
    "check_context",
    "check_delays",
    "check_target_sizes",
    "check_targets",
    "initial_delay_weights",
]
