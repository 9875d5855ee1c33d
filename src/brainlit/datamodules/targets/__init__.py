"""What a window should predict: responses, controls that lost their match with the sound, or another model's states."""

from brainlit.datamodules.targets.config import (
    ControlConfig,
    LanguageTargetsConfig,
    RepresentationConfig,
    SpeechTargetsConfig,
)
from brainlit.datamodules.targets.controls import control_targets
from brainlit.datamodules.targets.permuted import OtherStoryTargets, PermutedTargets, ShiftedTargets, permute_blocks
from brainlit.datamodules.targets.phase import phase_targets, randomise_phases
from brainlit.datamodules.targets.stored import StoredTargets
from brainlit.datamodules.targets.voxels import TargetSource, VoxelTargets

__all__ = [
    "ControlConfig",
    "LanguageTargetsConfig",
    "OtherStoryTargets",
    "PermutedTargets",
    "RepresentationConfig",
    "ShiftedTargets",
    "SpeechTargetsConfig",
    "StoredTargets",
    "TargetSource",
    "VoxelTargets",
    "control_targets",
    "permute_blocks",
    "phase_targets",
    "randomise_phases",
]
