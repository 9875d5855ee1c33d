"""LightningDataModules: TR-aligned windows of sound and the voxels they should predict."""

from brainlit.datamodules.dataset import StepLoader, TargetSource
from brainlit.datamodules.story import StoryDataModule
from brainlit.datamodules.targets.config import (
    ControlConfig,
    LanguageTargetsConfig,
    RepresentationConfig,
    SpeechTargetsConfig,
)
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.datamodules.windows import WindowBatch, WindowConfig

__all__ = [
    "ControlConfig",
    "LanguageTargetsConfig",
    "RepresentationConfig",
    "SpeechTargetsConfig",
    "StepLoader",
    "StoryDataModule",
    "TargetSource",
    "VoxelTargets",
    "WindowBatch",
    "WindowConfig",
]
