"""The settings of a probe, and of the solver that it uses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from brainlit.encoding.temporal import HaemodynamicResponse, Temporal, parts_of
from brainlit.hints import did_you_mean

DEFAULT_BANDS: Mapping[str, None] = MappingProxyType({"low_level": None, "semantic": None})
"""The bands beside the backbone, each with all feature spaces of its kind."""
BANDS: tuple[str, ...] = ("backbone", *DEFAULT_BANDS)
"""Bands of a probe for which nobody chose any, in the order that all names and arrays keep."""
MOST_BANDS = 5
"""With the backbone: 31 nested models, whose mixtures are eight times those of three bands."""
BAND_NAME = re.compile(r"(?!backbone|low_level_|shared_|rest|(joint|together|over_ceiling)$)[a-z][a-z0-9_]*")
"""What a band may be called: names of numbers ('r_joint', 'r2_<band>', 'partition_<band>&<band>') stay unmistakable."""
SolverName = Literal["auto", "primal", "kernel", "himalaya", "himalaya_group"]
Precision = Literal["float32", "float64"]
MixtureSearch = Literal["coarse", "all"]
DEFAULT_ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(-3, 4, 15))
"""Half-decade steps. With bands scaled to unit mean row norm, alpha is the ratio of noise to signal variance."""
DEFAULT_TEMPORAL: Temporal = "hrf_derivatives"
"""As good as 'auto' up to some thousand rows, and with a quarter fewer columns than means per TR at four delays."""
HAEMODYNAMIC_PURGE_TRS = 10
"""Rows that a haemodynamic response reaches back: 20 s at a TR of 2 s; only the tail of the undershoot is longer."""
DEFAULT_N_GAMMAS: Mapping[int, int] = MappingProxyType({1: 1, 2: 4, 3: 8})


@dataclass(frozen=True)
class SolverConfig:
    """How a ridge is solved: handed over whole, from YAML down to the solvers.

    Raises
    ------
    ValueError
        At construction, if a setting makes no sense.
    """

    name: SolverName = "auto"
    """'primal' works in the space of features, 'kernel' in that of rows; 'auto' takes the smaller one. 'himalaya'
    (multiple-kernel ridge) and 'himalaya_group' (group ridge) are himalaya's random searches, the reference: same
    answers, slower."""
    precision: Precision = "float32"
    """Of the search and the final weights; scores are always float64."""
    device: str = "cpu"
    """torch device of the solver: 'cpu', 'cuda', 'cuda:1'."""
    n_targets_batch: int | None = None
    """Voxels that are scored at once; None takes as many as fit into memory_gb. A GPU that runs out of memory halves
    it."""
    memory_gb: float = 4.0
    """What solvers and predictions may hold besides the responses, in 1e9 bytes; voxels are taken in batches that fit.
    Features and decompositions are held whatever it is."""

    def __post_init__(self) -> None:
        for what, value, known in (("solver", self.name, SolverName), ("precision", self.precision, Precision)):
            if value not in get_args(known):
                raise ValueError(f"unknown {what} {value!r}. {did_you_mean(value, get_args(known))}")
        check_device(self.device)
        if not self.memory_gb > 0:
            raise ValueError(f"memory_gb is {self.memory_gb}; give more than 0, enough for a voxel at a time.")
        if self.n_targets_batch is not None and self.n_targets_batch < 1:
            raise ValueError(f"n_targets_batch is {self.n_targets_batch}; give 1 or more, or leave it out.")


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe delays, cross-validates and solves.

    Raises
    ------
    ValueError
        At construction, if a setting makes no sense.
    """

    delays_trs: tuple[int, ...] = (1, 2, 3, 4)
    """Delays of every feature, in TRs: 2 to 8 s at a TR of 2 s, the rise and fall of the haemodynamic response."""
    alphas: tuple[float, ...] = DEFAULT_ALPHAS
    """Ratios of noise to signal variance that are tried, increasing."""
    bands: Mapping[str, Sequence[str] | None] = field(default_factory=lambda: dict(DEFAULT_BANDS))
    """Bands beside the backbone: the feature spaces of the store that each holds ('word_vectors: [glove]'), null for
    all spaces of the kind low_level or semantic. At most four; share and impacts are about the one named low_level."""
    n_gammas: Mapping[int, int] = field(default_factory=lambda: dict(DEFAULT_N_GAMMAS))
    """How many mixtures are tried for each set of 1, 2 and 3 bands; of more bands as many as of the largest set given.
    Larger models may use all of the smaller ones'."""
    mixture_search: MixtureSearch = "all"
    """Which mixtures are scored: 'all' of them for every voxel, or 'coarse' to fine: each band alone, each two and
    all of them in equal shares first, then for each voxel those that may still be the best by what the first ones say.
    The same choice in all but a few voxels, at about half the cost where voxels are many (docs/probe.md). With
    fewer than 200 columns, and by himalaya's solvers, all are scored."""
    n_folds: int = 4
    """Folds of the cross-validation: whole stories where there are enough."""
    purge_trs: int | None = None
    """Rows left out around held-out blocks where there are fewer stories than folds; None: twice the longest delay, and
    at least 10 where `temporal` convolves (20 s at a TR of 2 s; give more for shorter TRs)."""
    skip_trs: int = 5
    """First rows of every group that are neither fitted nor scored (onset transients, incomplete delays)."""
    seed: int = 0
    """Seed of the gammas."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    """Which solver computes, where, and within how much memory."""
    keep_variance: float = 0.999
    """Share of a band's variance that the primal solver keeps in its principal components; 1 rotates nothing."""
    low_level_impact: bool = True
    """Whether the three low-level impacts are computed (two more ridges of the backbone)."""
    impact_lags_trs: int = 4
    """k of the impact that regresses out low-level features at lags -k .. k."""
    sub_bands: bool = False
    """Whether bands that come in parts ('low_level/spectral') are also split finer; see `score_sub_bands`."""
    temporal: Temporal | Mapping[str, Temporal] = DEFAULT_TEMPORAL
    """How features reach the volumes: 'fir' (means per TR at `delays_trs`), 'hrf' (convolved with `response`),
    'hrf_derivatives' (and with its derivatives), 'auto' (all three, weighed by cross-validation per band and subject).
    One for all bands, or one per band ('low_level: auto'); bands that are not named get the default. Arrays of one's
    own count as means per TR."""
    response: HaemodynamicResponse = field(default_factory=HaemodynamicResponse)
    """The response that features are convolved with, in seconds; SPM's by default."""
    keep_scale: tuple[str, ...] = ()
    """Bands whose columns keep their variances, instead of unit variance each: word vectors, whose distances mean
    something (word vectors of GloVe predict real listeners better so; docs/time.md)."""
    matched_filter: bool = True
    """Whether features pass, story by story, what the responses passed (drifts taken out), where that is known."""
    tuned_sound: bool = False
    """Whether shares are computed a second time with a low-level band that has seen the tuning stories, too: what
    tuning could have learned from sound alone (twice the time of the compared layer)."""
    leave_out_fit: bool = True
    """Whether the backbone alone is also scored without each fit story in turn, so that comparisons of two probes count
    the fit (one more decomposition of the compared layer; needs 4 fit stories)."""
    bin_s: float = 0.1
    """Seconds over which frames of the backbone are averaged before they are convolved."""

    def __post_init__(self) -> None:
        check_bands(self.bands)
        for temporal in self.temporal.values() if isinstance(self.temporal, Mapping) else [self.temporal]:
            parts_of(temporal)
        if not 0.02 <= self.bin_s <= 1.0:
            raise ValueError(f"bin_s is {self.bin_s}; give 0.02 (the frames of a speech model) to 1 second.")
        named = [("keep_scale", name) for name in self.keep_scale]
        named += [("temporal", name) for name in self.temporal] if isinstance(self.temporal, Mapping) else []
        for setting, name in named:
            if name not in self.band_names:
                known = did_you_mean(name, self.band_names)
                raise ValueError(f"{setting} names a band {name!r} that does not exist. {known}")
        check_alphas(self.alphas)
        if not self.delays_trs or len(set(self.delays_trs)) != len(self.delays_trs):
            raise ValueError(f"delays_trs is {self.delays_trs}; need at least one delay, each once.")
        if self.mixture_search not in get_args(MixtureSearch):
            known = did_you_mean(self.mixture_search, get_args(MixtureSearch))
            raise ValueError(f"unknown mixture_search {self.mixture_search!r}. {known}")
        if self.n_folds < 2:
            raise ValueError(f"n_folds is {self.n_folds}; cross-validation needs at least 2.")
        if self.skip_trs < 0 or self.impact_lags_trs < 0 or (self.purge_trs or 0) < 0:
            raise ValueError(
                f"skip_trs {self.skip_trs}, impact_lags_trs {self.impact_lags_trs} and purge_trs {self.purge_trs}"
                " are numbers of rows and not negative."
            )
        if not 0.0 < self.keep_variance <= 1.0:
            raise ValueError(f"keep_variance is {self.keep_variance}; it is a share in (0, 1].")

    @property
    def band_names(self) -> tuple[str, ...]:
        """All bands, the backbone first."""
        return ("backbone", *self.bands)

    def keeps_scale(self, band: str) -> bool:
        """Whether the columns of a band, or of a part of it, keep their variances."""
        return band.split("/")[0] in self.keep_scale

    @property
    def purge(self) -> int:
        """Rows purged around held-out blocks, with the default filled in."""
        if self.purge_trs is not None:
            return self.purge_trs
        convolves = any(self.temporal_of(band) != "fir" for band in self.band_names)
        return max(2 * max(abs(delay) for delay in self.delays_trs), HAEMODYNAMIC_PURGE_TRS if convolves else 0)

    def temporal_of(self, band: str) -> Temporal:
        """How a band reaches the volumes; a sub-band ('low_level/spectral') does so as its band.

        >>> ProbeConfig(temporal={"low_level": "hrf"}).temporal_of("low_level/spectral")
        'hrf'
        """
        if not isinstance(self.temporal, Mapping):
            return self.temporal
        return self.temporal.get(band.split("/")[0], DEFAULT_TEMPORAL)


def check_bands(bands: Mapping[str, Sequence[str] | None]) -> None:
    """ValueError unless names and lists of spaces make sense by themselves, whatever a store holds."""
    if len(bands) >= MOST_BANDS:
        raise ValueError(
            f"bands has {len(bands)} beside the backbone ({', '.join(bands)}), which makes {2 ** (len(bands) + 1) - 1}"
            f" nested models; give at most {MOST_BANDS - 1}, with spaces that belong together in one."
        )
    band_of: dict[str, str] = {}
    for band, spaces in bands.items():
        if not BAND_NAME.fullmatch(band):
            raise ValueError(
                f"bands has a band {band!r}; a name has small letters, digits and _, begins with a letter, and is none"
                " that numbers have already (backbone..., low_level_..., shared_..., rest..., joint, together,"
                " over_ceiling)."
            )
        if spaces is None and band not in DEFAULT_BANDS:
            raise ValueError(
                f"bands.{band} is null, which stands for all spaces of a kind, and only {' and '.join(DEFAULT_BANDS)}"
                f" are kinds; list the feature spaces that it holds, such as {band}: [word_vectors]."
            )
        if isinstance(spaces, str) or (spaces is not None and not spaces):
            raise ValueError(f"bands.{band} is {spaces!r}; give a list with at least one feature space of the store.")
        for space in spaces or ():
            if space in band_of:
                raise ValueError(
                    f"bands has the feature space {space!r} twice, in {band_of[space]} and {band}; what both hold"
                    " could not be told apart: list it once."
                )
            band_of[space] = band


def check_alphas(alphas: Sequence[float]) -> npt.NDArray[np.float64]:
    """The grid as an array; ValueError unless positive and increasing."""
    grid = np.asarray(alphas, dtype=np.float64)
    if grid.ndim != 1 or grid.size == 0 or not (grid > 0).all() or not (np.diff(grid) > 0).all():
        raise ValueError(f"alphas are {grid.tolist()}; need positive numbers in increasing order.")
    return grid


def check_device(device: str) -> None:
    """ValueError unless torch knows a device of this name (whether the machine has it shows when it is used)."""
    if device in ("cpu", "cuda"):
        return
    import torch

    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"{device!r} is no device that torch knows; write 'cpu', 'cuda', or 'cuda:1'.") from error
