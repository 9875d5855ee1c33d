"""What a window should predict: responses, controls that lost their match with the sound, or another model's states."""

from brainlit.datamodules.targets.config import (
    ControlConfig,
    LanguageTargetsConfig,
    RepresentationConfig,
    SpeechTargetsConfig,
)
from brainlit.datamodules.targets.controls import (
    OtherStoryTargets,
    PermutedTargets,
    ShiftedTargets,
    control_targets,
    permute_blocks,
    phase_targets,
    randomise_phases,
)
from brainlit.datamodules.targets.stored import StoredTargets, VoxelTargets

__all__ = [
    "ControlConfig",
    "LanguageTargetsConfig",
    "OtherStoryTargets",
    "PermutedTargets",
    "RepresentationConfig",
    "ShiftedTargets",
    "SpeechTargetsConfig",
    "StoredTargets",
    "VoxelTargets",
    "control_targets",
    "permute_blocks",
    "phase_targets",
    "randomise_phases",
]
