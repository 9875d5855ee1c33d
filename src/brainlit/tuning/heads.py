"""From pooled states to the targets of each subject: linear heads that standardise, drop out, look back and map.

Subjects whose voxels need not correspond have maps of their own; those in a common space can share one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from brainlit.hints import did_you_mean
from brainlit.tuning.haemodynamics import Haemodynamic, HaemodynamicDelays, check_bin, check_reach
from brainlit.tuning.pooling import Over
from brainlit.tuning.settings import check_choice

Delays = Literal["mix", "fir", "fixed"]


@dataclass(frozen=True)
class HeadConfig:
    """How the pooled states become the responses of each subject. All heads are linear.

    Every head predicts all subjects of a batch from one pass of the backbone and learns from all of them in one step;
    published multi-subject tuning (arXiv 2510.21520) takes one step per subject in turn.

    Parameters
    ----------
    kind : str
        linear is a map of its own for each subject (a head per subject), whose voxels need not correspond. bottleneck
        goes through `rank` features common to all subjects (arXiv 2502.08866, rank 100). shared is one map for all
        subjects, who must have the same targets: vertices of a common surface (arXiv 2510.21520, section 3).
        shared_low_rank adds to it a deviation of rank `rank` for each subject, 0 at the start.
    rank : int
        Of bottleneck and shared_low_rank.
    delays_trs : tuple of int
        How many rows back the head looks; needs as many rows of context. Not used by pooling over the whole window.
    delays : str
        mix adds up the rows with one learned weight per delay, a haemodynamic response common to all voxels. fixed does
        so with weights that are not learned. fir gives each delay a map of its own, as voxelwise encoding models do:
        n_delays times the weights, starting where mix starts.
    haemodynamic : str
        fir pools per TR and looks back at the delays, as above. The others pool in bins of bin_s, have no delays and
        convolve with a haemodynamic response that is read when each volume was acquired: hrf with the canonical one,
        hrf_derivatives also with its derivatives by onset and dispersion, each with a map of its own, learned with one
        that all voxels share and that begins as the canonical one. They need at least 12 s of context.
    bin_s : float
        About how long these bins are, 0.1 to 0.5 s: a whole number of them fills a TR.
    dropout : float
        Probability of dropout on the pooled states.
    """

    kind: str = "linear"
    rank: int = 64
    delays_trs: tuple[int, ...] = (0, 1, 2, 3, 4)
    delays: Delays = "mix"
    haemodynamic: Haemodynamic = "fir"
    bin_s: float = 0.5
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in HEADS:
            raise ValueError(f"head kind is {self.kind!r}. {did_you_mean(self.kind, HEADS)}")
        check_choice("head delays", self.delays, Delays)
        check_choice("head haemodynamic", self.haemodynamic, Haemodynamic)
        check_bin(self.bin_s)
        if self.rank < 1:
            raise ValueError(f"head rank is {self.rank}; give at least 1 (100 in arXiv 2502.08866).")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"head dropout is {self.dropout}; it is a probability, 0 <= dropout < 1.")
        delays = tuple(int(delay) for delay in self.delays_trs)
        if not delays or min(delays) < 0 or len(set(delays)) < len(delays):
            raise ValueError(
                f"delays_trs are {list(delays)}; need at least one, none negative, none twice, such as [0,1,2]."
            )
        object.__setattr__(self, "delays_trs", delays)


SMALLEST_SD = 1e-6


class Head(nn.Module, ABC):
    """Responses of every subject as a linear function of the pooled states of one window.

    In order: standardise by a fixed mean and sd, dropout, look back at the given delays (or convolve with a
    haemodynamic response), and map to each subject's voxels. Rows without sound count as the mean state, 0 after
    standardising.

    Parameters
    ----------
    config : HeadConfig
    hidden_size : int
    target_sizes : mapping of subject to int
        Voxels to predict for each subject.
    over : str
        What is pooled over: tr looks back; window does not (one row in, one row out).
    seed : int
        Of the initial weights; the global random state is not used.

    Attributes
    ----------
    target_sizes : dict of subject to int
    delays_trs : tuple of int, or None
        How many rows back the head looks; None for window, and where it convolves.
    response : HaemodynamicDelays or None
        What it convolves with, if it does.
    """

    same_targets: ClassVar[bool] = False
    """Whether all subjects must have the same targets, as where they share a map; a head says so by setting it."""
    pool_mean: Tensor
    pool_sd: Tensor
    delay_weights: Tensor

    def __init__(
        self, config: HeadConfig, hidden_size: int, target_sizes: Mapping[str, int], over: Over, seed: int = 0
    ) -> None:
        super().__init__()
        if not target_sizes or min(target_sizes.values()) < 1:
            raise ValueError(
                f"target sizes are {dict(target_sizes)}; each subject needs at least one voxel. Check the subjects and"
                " the voxel selection of the data."
            )
        self.hidden_size, self.target_sizes = hidden_size, dict(target_sizes)
        check_over(config, over)
        self.response = None if config.haemodynamic == "fir" else HaemodynamicDelays(config.haemodynamic)
        self.delays_trs = config.delays_trs if over == "tr" and self.response is None else None
        self.fir = self.delays_trs is not None and config.delays == "fir"
        self.dropout = nn.Dropout(config.dropout)
        if self.delays_trs is not None and config.delays == "mix":
            self.delay_weights = nn.Parameter(initial_delay_weights(self.delays_trs))
        elif self.delays_trs is not None and config.delays == "fixed":
            self.register_buffer("delay_weights", initial_delay_weights(self.delays_trs))
        self.register_buffer("pool_mean", torch.zeros(hidden_size))
        self.register_buffer("pool_sd", torch.ones(hidden_size))
        self.add_maps(config.rank, torch.Generator().manual_seed(seed))

    @abstractmethod
    def add_maps(self, rank: int, generator: torch.Generator) -> None:
        """Make the parameters that `predict` needs; all else is there already."""

    @abstractmethod
    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """The map: rows of shape (batch, n_trs, hidden_size), or several times as wide side by side, to responses."""

    def set_standardisation(self, mean: Tensor, sd: Tensor) -> None:
        """Fix the mean and sd, each of shape (hidden_size,); features that do not vary are only centred."""
        self.pool_mean.copy_(mean)
        self.pool_sd.copy_(torch.where(sd > SMALLEST_SD, sd, torch.ones_like(sd)))

    def forward(
        self,
        pooled: Tensor,
        heard: Tensor,
        n_trs: int,
        edges_s: Tensor | None = None,
        read_s: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Predictions for the last n_trs rows of each window.

        Parameters
        ----------
        pooled : float32 Tensor of shape (batch, n_bins, hidden_size)
            n_bins - n_trs rows of context come first.
        heard : bool Tensor of shape (batch, n_bins)
            False in rows without sound.
        edges_s, read_s : Tensors of shape (batch, n_bins + 1) and (batch, n_trs), optional
            Of the bins and of when the rows were read, as HaemodynamicDelays takes them; needed where it is used.

        Returns
        -------
        dict of subject to Tensor of shape (batch, n_trs, n_targets)
            Subjects who share a map may share the tensor: do not change it in place.

        Raises
        ------
        ValueError
            If a delay, or most of the response, reaches back beyond the context.
        """
        standard = ((pooled - self.pool_mean) / self.pool_sd).masked_fill(~heard[:, :, None], 0.0)
        if self.response is None:
            return self.predict(self._look_back(self.dropout(standard), n_trs))
        assert edges_s is not None
        assert read_s is not None
        return self.predict(self.response(self.dropout(standard), edges_s, read_s))

    def _look_back(self, rows: Tensor, n_trs: int) -> Tensor:
        """sum_d weight_d x row (t - d), or all rows t - d side by side for fir."""
        if self.delays_trs is None:
            return rows
        context, furthest = rows.shape[1] - n_trs, max(self.delays_trs)
        if context < furthest:
            raise ValueError(
                f"the head reads rows up to {furthest} TRs back, but the windows carry {context} rows of context."
                f" Give --data.window.context_s at least {furthest} x TR seconds, or fewer --model.head.delays_trs."
            )
        # Row t of the last n_trs rows is row context + t of all, so its sound d rows earlier begins at context - d.
        delayed = [rows[:, context - d : context - d + n_trs] for d in self.delays_trs]
        if self.fir:
            return torch.cat(delayed, dim=2)
        return torch.einsum("d,dbth->bth", self.delay_weights.to(rows.dtype), torch.stack(delayed))

    def map_of_rows(
        self, n_outputs: int, generator: torch.Generator, gain: float = 1.0, bias: bool = True
    ) -> nn.Linear:
        """A linear map of the rows that `predict` is given; of several side by side it begins as their mix does."""
        once = initial_map(self.hidden_size, n_outputs, generator, gain, bias)
        if self.response is not None and self.response.n_blocks > 1:
            return side_by_side(once, torch.eye(self.response.n_blocks)[0])
        return side_by_side(once, initial_delay_weights(self.delays_trs or ())) if self.fir else once


DELAY_WEIGHTS = {0: 0.05, 1: 0.25, 2: 0.35, 3: 0.25, 4: 0.1}
FAR_DELAY_WEIGHT = 0.05


def initial_delay_weights(delays_trs: Sequence[int]) -> Tensor:
    """Where the haemodynamic weights start, shape (n_delays,); they add up to 1.

    .05 .25 .35 .25 .1 for delays 0..4 (a response that peaks some 5 s after the sound, at a TR of 2 s); a later delay
    counts .05, and any other choice of delays is scaled to the same sum.
    """
    weights = torch.tensor([DELAY_WEIGHTS.get(delay, FAR_DELAY_WEIGHT) for delay in delays_trs])
    return weights / weights.sum()


def initial_map(
    n_inputs: int, n_outputs: int, generator: torch.Generator, gain: float = 1.0, bias: bool = True
) -> nn.Linear:
    """A linear map with weights uniform in +-gain / sqrt(n_inputs) and a bias of 0.

    A gain of sqrt(3) keeps the variance of independent inputs, 1 makes it a third.
    """
    linear = nn.utils.skip_init(nn.Linear, n_inputs, n_outputs, bias=bias)  # type: ignore[no-untyped-call]
    bound = gain / math.sqrt(n_inputs)
    nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear  # type: ignore[no-any-return]


def side_by_side(once: nn.Linear, shares: Tensor) -> nn.Linear:
    """A map of as many delayed rows side by side as there are shares, each by its share of one and the same map."""
    n_inputs, bias = once.in_features * len(shares), once.bias is not None
    linear = nn.utils.skip_init(nn.Linear, n_inputs, once.out_features, bias=bias)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for block, share in zip(linear.weight.split(once.in_features, dim=1), shares, strict=True):
            torch.mul(once.weight, share, out=block)
        if bias:
            linear.bias.copy_(once.bias)
    return linear  # type: ignore[no-any-return]


# --- Heads for subjects whose voxels need not correspond: a map of its own for each ---


class LinearHead(Head):
    """One linear map per subject (a head per subject); the maps of all subjects are one matrix."""

    def add_maps(self, rank: int, generator: torch.Generator) -> None:
        """The map or maps; see Head."""
        self.linear = self.map_of_rows(sum(self.target_sizes.values()), generator)

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """Responses of all subjects from one product."""
        return split_subjects(self.linear(rows), self.target_sizes)


class BottleneckHead(Head):
    """`rank` features common to all subjects, then one linear map per subject (arXiv 2502.08866).

    All that is predicted passes through the few features, and a voxel costs rank weights instead of hidden_size.
    """

    def add_maps(self, rank: int, generator: torch.Generator) -> None:
        """The map or maps; see Head."""
        self.narrow = self.map_of_rows(rank, generator, gain=math.sqrt(3), bias=False)
        self.linear = initial_map(rank, sum(self.target_sizes.values()), generator)

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """Responses of all subjects from two products."""
        return split_subjects(self.linear(self.narrow(rows)), self.target_sizes)


def split_subjects(predicted: Tensor, target_sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The columns of each subject, who follow one another in the order of target_sizes."""
    return dict(zip(target_sizes, torch.split(predicted, list(target_sizes.values()), dim=2), strict=True))


# --- Do targets and head fit each other ---


COMMON_SPACE = (
    "Bring all subjects to a common space (such as fsaverage5 or fsaverage6) and give --data.common_voxels true, which"
    " keeps the vertices that are chosen in every subject (with min_ceiling null, those that have data), or choose"
    " --model.head.kind linear, a map for each subject."
)


def common_size(target_sizes: Mapping[str, int]) -> int:
    """The number of targets that all subjects have.

    Raises
    ------
    ValueError
        If they have different numbers.
    """
    sizes = set(target_sizes.values())
    if len(sizes) > 1:
        raise ValueError(
            f"a shared head predicts the same targets for all subjects, but they have {_counts(target_sizes)}."
            f" {COMMON_SPACE}"
        )
    return sizes.pop()


def check_common_columns(target_columns: Mapping[str, npt.ArrayLike]) -> None:
    """Refuse subjects whose targets are different columns of the responses, even if as many.

    Parameters
    ----------
    target_columns : mapping of subject to int array of shape (n_targets,)

    Raises
    ------
    ValueError
        Naming the subjects, how many targets they have and how many of these are common to all.
    """
    columns = {subject: np.asarray(values) for subject, values in target_columns.items()}
    first = next(iter(columns.values()))
    if all(np.array_equal(first, values) for values in columns.values()):
        return
    common = set(first.tolist()).intersection(*(values.tolist() for values in columns.values()))
    raise ValueError(
        "a shared head predicts the same targets for all subjects, but theirs are different columns of the responses,"
        f" or in another order: {_counts({subject: len(values) for subject, values in columns.items()})}, of which"
        f" {len(common)} are common to all. {COMMON_SPACE}"
    )


def check_target_sizes(head_sizes: Mapping[str, int], data_sizes: Mapping[str, int]) -> None:
    """Refuse data whose subjects or numbers of voxels are not those of the head.

    Raises
    ------
    ValueError
        Naming the subject and both numbers.
    """
    for subject in [*head_sizes, *data_sizes]:
        ours, theirs = head_sizes.get(subject), data_sizes.get(subject)
        if ours != theirs:
            raise ValueError(
                f"the head predicts {_voxels(ours)} of subject {subject!r}, but the data have {_voxels(theirs)}. Give"
                " the subjects, the store and the voxel selection (min_ceiling, ceiling_method, roles) that the model"
                " was trained with, or train a new model."
            )


def check_over(config: HeadConfig, over: Over) -> None:
    """Refuse a haemodynamic response where a whole window is one row."""
    if over == "window" and config.haemodynamic != "fir":
        raise ValueError(
            f"head.haemodynamic {config.haemodynamic} convolves bins of {config.bin_s:g} s, but pooling over the window"
            " leaves one row: give --model.pooling.over tr, or --model.head.haemodynamic fir."
        )


def check_context(config: HeadConfig, context_trs: int, tr_s: float) -> None:
    """Refuse windows too short for the delays or the response, before anything is probed or trained.

    context_trs counts the rows before the first target row of a window.
    """
    furthest = max(config.delays_trs)
    if config.haemodynamic != "fir":
        check_reach(context_trs, tr_s)
    elif context_trs < furthest:
        raise ValueError(
            f"the head reads rows up to {furthest} TRs back, but the windows carry {context_trs} rows of context. Give"
            f" --data.window.context_s at least {furthest * tr_s:g} ({furthest} TRs of {tr_s:g} s), or fewer"
            " --model.head.delays_trs."
        )


def _counts(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{subject} {size:,}" for subject, size in sizes.items())


def _voxels(size: int | None) -> str:
    return "no voxels" if size is None else f"{size:,} voxels"


# --- Heads for subjects in a common space: one map for all, with or without a deviation for each ---


class SharedHead(Head):
    """One linear map for all subjects (arXiv 2510.21520, section 3), computed once however many they are.

    Subjects with different numbers of targets are refused.
    """

    same_targets = True

    def add_maps(self, rank: int, generator: torch.Generator) -> None:
        """The map or maps; see Head."""
        self.linear = self.map_of_rows(common_size(self.target_sizes), generator)

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """The same responses for all subjects."""
        return dict.fromkeys(self.target_sizes, self.linear(rows))


class SharedLowRankHead(Head):
    """One linear map W for all subjects plus a deviation of low rank for each, W + U_s V_s.

    U_s is 0 at the start, so it begins as the shared head of the same seed, and what no subject needs alone is learned
    by W from all of them. Subjects with different numbers of targets are refused.
    """

    same_targets = True

    def add_maps(self, rank: int, generator: torch.Generator) -> None:
        """The map or maps; see Head."""
        n_subjects, n_targets = len(self.target_sizes), common_size(self.target_sizes)
        self.linear = self.map_of_rows(n_targets, generator)
        self.narrow = self.map_of_rows(n_subjects * rank, generator, bias=False)
        self.widen = nn.Parameter(torch.zeros(n_subjects, n_targets, rank))

    def predict(self, rows: Tensor) -> dict[str, Tensor]:
        """What is common to all subjects plus what is each one's own."""
        n_subjects, _, rank = self.widen.shape
        narrow = self.narrow(rows).unflatten(2, (n_subjects, rank))
        own = torch.einsum("btsr,svr->sbtv", narrow, self.widen)
        common = self.linear(rows)
        return {subject: common + deviation for subject, deviation in zip(self.target_sizes, own, strict=True)}


# --- Heads by name ---


HEADS: dict[str, type[Head]] = {
    "linear": LinearHead,
    "bottleneck": BottleneckHead,
    "shared": SharedHead,
    "shared_low_rank": SharedLowRankHead,
}


def build_head(
    config: HeadConfig,
    hidden_size: int,
    target_sizes: Mapping[str, int],
    over: Over,
    seed: int,
    target_columns: Mapping[str, npt.ArrayLike] | None = None,
) -> Head:
    """A head with fresh weights; parameters as in Head, and one more.

    Parameters
    ----------
    target_columns : mapping of subject to int array of shape (n_targets,), or None
        Which columns of the responses the targets are. The kinds that share a map check with them that all subjects
        have the same ones; None (a model from a checkpoint, without its data) leaves that out.

    Raises
    ------
    ValueError
        If a subject has no targets, or the subjects cannot share a map.
    """
    check_choice("pooling over", over, Over)
    if target_columns is not None and HEADS[config.kind].same_targets:
        check_common_columns(target_columns)
    return HEADS[config.kind](config, hidden_size, target_sizes, over, seed)
