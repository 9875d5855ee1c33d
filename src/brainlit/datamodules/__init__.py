"""LightningDataModules: TR-aligned windows of sound and the voxels they should predict."""

from brainlit.datamodules.dataset import WindowDataset
from brainlit.datamodules.loader import StepLoader
from brainlit.datamodules.steps import EpochSteps
from brainlit.datamodules.story import StoryDataModule
from brainlit.datamodules.targets import (
    ControlConfig,
    LanguageTargetsConfig,
    PermutedTargets,
    RepresentationConfig,
    SpeechTargetsConfig,
    TargetSource,
    VoxelTargets,
)
from brainlit.datamodules.windows import Step, Window, WindowBatch, WindowConfig

__all__ = [
    "ControlConfig",
    "EpochSteps",
    "LanguageTargetsConfig",
    "PermutedTargets",
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
