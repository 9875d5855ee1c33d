"""LightningDataModules: TR-aligned windows of sound and the voxels they should predict."""

from brainlit.datamodules.story import StoryDataModule
from brainlit.datamodules.targets import PermutedTargets, TargetSource, VoxelTargets
from brainlit.datamodules.windows import Window, WindowBatch, WindowConfig, WindowDataset

__all__ = [
    "PermutedTargets",
    "StoryDataModule",
    "TargetSource",
    "VoxelTargets",
    "Window",
    "WindowBatch",
    "WindowConfig",
    "WindowDataset",
]
