"""Heads by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt

from brainlit.tuning.heads.base import Head
from brainlit.tuning.heads.checks import check_common_columns
from brainlit.tuning.heads.config import HeadConfig, HeadKind
from brainlit.tuning.heads.own import BottleneckHead, LinearHead
from brainlit.tuning.heads.shared import SharedHead, SharedLowRankHead
from brainlit.tuning.pooling import Over
from brainlit.tuning.settings import check_choice

HEADS: dict[HeadKind, type[LinearHead] | type[BottleneckHead] | type[SharedHead] | type[SharedLowRankHead]] = {
    "linear": LinearHead,
    "bottleneck": BottleneckHead,
    "shared": SharedHead,
    "shared_low_rank": SharedLowRankHead,
}
SAME_TARGETS = ("shared", "shared_low_rank")


def build_head(
    config: HeadConfig,
    hidden_size: int,
    target_sizes: Mapping[str, int],
    over: Over,
    seed: int,
    target_columns: Mapping[str, npt.ArrayLike] | None = None,
) -> Head:
    """A head with fresh weights.

    Parameters
    ----------
    config : HeadConfig
    hidden_size : int
        Features of the pooled states.
    target_sizes : mapping of subject to int
        Voxels to predict for each subject.
    over : str
        What is pooled over: tr looks back at the delays, window does not.
    seed : int
        Of the initial weights; the global random state is not used.
    target_columns : mapping of subject to int array of shape (n_targets,), or None
        Which columns of the responses the targets are. The kinds that share a map check with them that all subjects
        have the same ones; None (a model from a checkpoint, without its data) leaves that out.

    Raises
    ------
    ValueError
        If a subject has no targets, or the subjects cannot share a map.
    """
    check_choice("pooling over", over, Over)
    if target_columns is not None and config.kind in SAME_TARGETS:
        check_common_columns(target_columns)
    return HEADS[config.kind](config, hidden_size, target_sizes, over, seed)
