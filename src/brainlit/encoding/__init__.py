"""Voxelwise encoding models over plain arrays: FIR delays, (banded) ridge, variance partition, ceilings, statistics.

Nothing here knows audio, backbones or Lightning: arrays go in, arrays and small result objects come out. The labels in
`__all__` below say what belongs together.
"""

from typing import TYPE_CHECKING, Any

from brainlit.encoding.arrays import delay_within, standardise
from brainlit.encoding.asymptotic_partition import region_shares
from brainlit.encoding.banded import banded_ridge_cv
from brainlit.encoding.bootstrap import (
    BlockDraws,
    block_bootstrap,
    block_bootstrap_difference,
    block_weights,
    region_replicates,
)
from brainlit.encoding.ceiling import (
    Normalised,
    mean_of_ratios,
    noise_ceiling,
    normalise,
    ratio_of_means,
    region_ratio,
    signal_rows,
)
from brainlit.encoding.config import BANDS, DEFAULT_ALPHAS, ProbeConfig, SolverConfig
from brainlit.encoding.difference_tests import (
    equivalence_from_replicates,
    equivalence_paired,
    paired_sign_flip,
    paired_wilcoxon,
)
from brainlit.encoding.estimators import EncodingModel
from brainlit.encoding.hierarchical import hierarchical_bootstrap
from brainlit.encoding.partition import (
    low_level_impact,
    model_name,
    part_name,
    partition_variance,
    residual_features,
    semipartial,
    split_r2,
    subsets,
)
from brainlit.encoding.permutation import block_difference_test, circular_shift_test
from brainlit.encoding.probe import run_probe, run_probes
from brainlit.encoding.probe_fit import ProbeCache
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.search import Fold, gamma_pool, make_folds, refuse_leaking_folds
from brainlit.encoding.statistics import (
    Score,
    correlation,
    correlation_within,
    fdr,
    mean_score,
    percentiles,
    permutation_p,
    r2_within,
)
from brainlit.encoding.temporal import HaemodynamicResponse, TemporalBand, haemodynamic_rows, parts_of, take_out
from brainlit.encoding.temporal_choice import choose_weights
from brainlit.encoding.warm_start import WarmStart
from brainlit.splits import LeakError, Roles, Span, make_roles, parse_span, refuse_scored, refuse_tuned

if TYPE_CHECKING:
    from brainlit.encoding.himalaya_solvers import himalaya_backend

__all__ = [  # noqa: RUF022 - grouped by what belongs together
    # who may see which rows
    "LeakError",
    "Roles",
    "Span",
    "make_roles",
    "parse_span",
    "refuse_leaking_folds",
    "refuse_scored",
    "refuse_tuned",
    # the probe: all scores of one set of features
    "ProbeCache",
    "ProbeConfig",
    "SolverConfig",
    "ProbeResult",
    "WarmStart",
    "run_probe",
    "run_probes",
    # one encoding model, step by step
    "EncodingModel",
    # preparing features
    "HaemodynamicResponse",
    "TemporalBand",
    "choose_weights",
    "delay_within",
    "haemodynamic_rows",
    "parts_of",
    "standardise",
    "take_out",
    # ridge
    "DEFAULT_ALPHAS",
    "Fold",
    "banded_ridge_cv",
    "gamma_pool",
    "himalaya_backend",
    "make_folds",
    # who explains what
    "BANDS",
    "low_level_impact",
    "model_name",
    "part_name",
    "partition_variance",
    "region_shares",
    "residual_features",
    "semipartial",
    "split_r2",
    "subsets",
    # ceilings
    "Normalised",
    "mean_of_ratios",
    "noise_ceiling",
    "normalise",
    "ratio_of_means",
    "region_ratio",
    "signal_rows",
    # how sure: over time, stories, subjects, seeds
    "BlockDraws",
    "Score",
    "block_bootstrap",
    "block_bootstrap_difference",
    "block_weights",
    "hierarchical_bootstrap",
    "mean_score",
    "percentiles",
    "region_replicates",
    # tests, of voxels and of people
    "block_difference_test",
    "circular_shift_test",
    "correlation",
    "correlation_within",
    "equivalence_from_replicates",
    "equivalence_paired",
    "fdr",
    "paired_sign_flip",
    "paired_wilcoxon",
    "permutation_p",
    "r2_within",
]


def __getattr__(name: str) -> Any:
    """himalaya_backend, the one name here that needs torch; who reads results needs none."""
    if name != "himalaya_backend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from brainlit.encoding.himalaya_solvers import himalaya_backend

    return himalaya_backend
