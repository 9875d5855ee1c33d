"""Voxelwise encoding models over plain arrays: FIR delays, (banded) ridge, variance partition, ceilings, statistics.

Nothing here knows audio, backbones or Lightning: arrays go in, arrays and small result objects come out. The labels in
`__all__` below say what belongs together.
"""

from brainlit.encoding.backend import himalaya_backend
from brainlit.encoding.banded import DEFAULT_ALPHAS, BandedRidge, banded_ridge_cv
from brainlit.encoding.bootstrap import (
    BlockDraws,
    block_bootstrap,
    block_bootstrap_difference,
    block_bootstrap_share,
    block_bootstrap_share_difference,
    block_weights,
    region_replicates,
)
from brainlit.encoding.cache import ProbeCache
from brainlit.encoding.ceiling import Ceiling, noise_ceiling
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.delays import delay_within
from brainlit.encoding.equivalence import Equivalence, equivalence_from_replicates, equivalence_paired
from brainlit.encoding.folds import Fold, make_folds
from brainlit.encoding.gammas import DEFAULT_N_GAMMAS, gamma_pool
from brainlit.encoding.hierarchical import hierarchical_bootstrap
from brainlit.encoding.impact import IMPACTS, banded_rest, low_level_impact, residual_features
from brainlit.encoding.intervals import Interval
from brainlit.encoding.join import join_results
from brainlit.encoding.normalise import Normalised, mean_of_ratios, normalise, ratio_of_means
from brainlit.encoding.paired import PairedTest, paired_sign_flip, paired_wilcoxon
from brainlit.encoding.partition import BANDS, model_name, part_name, partition_variance, split_r2, subsets
from brainlit.encoding.permutation import (
    PermutationTest,
    block_difference_test,
    block_permutation_p,
    block_permutation_test,
)
from brainlit.encoding.probe import run_probe, run_probes, score_single_band
from brainlit.encoding.probe_files import load_probe, save_probe
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.ridge import ridge_cv
from brainlit.encoding.roles import LeakError, Roles, Span, make_roles, parse_span
from brainlit.encoding.standardise import standardise
from brainlit.encoding.statistics import (
    correlation,
    correlation_within,
    fdr,
    permutation_p,
    r2_within,
)
from brainlit.encoding.warm import WarmStart

__all__ = [  # noqa: RUF022 - grouped by what belongs together
    # who may see which rows
    "LeakError",
    "Roles",
    "Span",
    "make_roles",
    "parse_span",
    # the probe: all scores of one set of features
    "ProbeCache",
    "ProbeConfig",
    "ProbeResult",
    "WarmStart",
    "join_results",
    "load_probe",
    "run_probe",
    "run_probes",
    "save_probe",
    "score_single_band",
    # preparing features
    "delay_within",
    "standardise",
    # ridge
    "BandedRidge",
    "DEFAULT_ALPHAS",
    "DEFAULT_N_GAMMAS",
    "Fold",
    "banded_ridge_cv",
    "gamma_pool",
    "himalaya_backend",
    "make_folds",
    "ridge_cv",
    # who explains what
    "BANDS",
    "IMPACTS",
    "banded_rest",
    "low_level_impact",
    "model_name",
    "part_name",
    "partition_variance",
    "residual_features",
    "split_r2",
    "subsets",
    # ceilings
    "Ceiling",
    "Normalised",
    "mean_of_ratios",
    "noise_ceiling",
    "normalise",
    "ratio_of_means",
    # how sure: over time, stories, subjects, seeds
    "BlockDraws",
    "Interval",
    "block_bootstrap",
    "block_bootstrap_difference",
    "block_bootstrap_share",
    "block_bootstrap_share_difference",
    "block_weights",
    "hierarchical_bootstrap",
    "region_replicates",
    # tests, of voxels and of people
    "Equivalence",
    "PairedTest",
    "PermutationTest",
    "block_difference_test",
    "block_permutation_p",
    "block_permutation_test",
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
