"""LightningDataModules: TR-aligned windows of sound and the voxels they should predict."""

from brainlit.datamodules.dataset import StepLoader, TargetSource, WindowDataset
from brainlit.datamodules.story import StoryDataModule
from brainlit.datamodules.targets.config import (
    ControlConfig,
    LanguageTargetsConfig,
    RepresentationConfig,
    SpeechTargetsConfig,
)
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.datamodules.windows import EpochSteps, Step, Window, WindowBatch, WindowConfig

__all__ = [
    "ControlConfig",
    "EpochSteps",
    "LanguageTargetsConfig",
    "RepresentationConfig",
    "SpeechTargetsConfig",
    "Step",
    "StepLoader",
    "StoryDataModule",
    "TargetSource",
    "VoxelTargets",
    "Window",
    "WindowBatch",
    "WindowConfig",
    "WindowDataset",
]
