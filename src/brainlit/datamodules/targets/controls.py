"""The control that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence

from brainlit.datamodules.targets.config import ControlConfig
from brainlit.datamodules.targets.permuted import OtherStoryTargets, PermutedTargets, ShiftedTargets
from brainlit.datamodules.targets.phase import phase_targets
from brainlit.datamodules.targets.voxels import TargetSource, VoxelTargets
from brainlit.encoding.roles import Span


def control_targets(config: ControlConfig, voxels: VoxelTargets, spans: Sequence[Span], seed: int) -> TargetSource:
    """Responses of the tuning spans without their match to the sound; one draw for the whole run.

    Parameters
    ----------
    voxels : VoxelTargets
        The responses.
    spans : sequence of Span
        The tuning spans.
    seed : int
        Of the draw.

    Raises
    ------
    ValueError
        If a subject has too few rows or stories for the control.
    """
    if config.kind == "blocks":
        return PermutedTargets(voxels, spans, config.block_trs, seed)
    if config.kind == "shift":
        return ShiftedTargets(voxels, spans, config.min_shift_trs, seed)
    if config.kind == "other_story":
        return OtherStoryTargets(voxels, spans, seed)
    return phase_targets(voxels, spans, seed)
