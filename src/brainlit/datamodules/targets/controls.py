"""The control that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence

from brainlit.datamodules.targets.config import ControlConfig
from brainlit.datamodules.targets.permuted import OtherStoryTargets, PermutedTargets, ShiftedTargets
from brainlit.datamodules.targets.phase import phase_targets
from brainlit.datamodules.targets.voxels import TargetSource, VoxelTargets
from brainlit.demo.streams import random_stream
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
        Of the first draw; the others follow from it (`draw_seed`).

    Raises
    ------
    ValueError
        If a subject has too few rows or stories for the control.
    """
    seed = draw_seed(seed, config.draw)
    if config.kind == "blocks":
        return PermutedTargets(voxels, spans, config.block_trs, seed)
    if config.kind == "shift":
        return ShiftedTargets(voxels, spans, config.min_shift_trs, seed)
    if config.kind == "other_story":
        return OtherStoryTargets(voxels, spans, seed)
    return phase_targets(voxels, spans, seed)


def draw_seed(seed: int, draw: int) -> int:
    """Seed of the k-th draw of a control: the seed itself for the first, one of 63 random bits for each other.

    >>> draw_seed(11, 1)
    11
    """
    return seed if draw == 1 else int(random_stream(seed, "control", draw).integers(2**63))
