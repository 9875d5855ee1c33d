"""What a head is asked to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from brainlit.tuning.heads.delays import check_delays
from brainlit.tuning.settings import check_choice

HeadKind = Literal["linear", "bottleneck", "shared", "shared_low_rank"]
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
    dropout : float
        Probability of dropout on the pooled states.
    """

    kind: HeadKind = "linear"
    rank: int = 64
    delays_trs: tuple[int, ...] = (0, 1, 2, 3, 4)
    delays: Delays = "mix"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_choice("head kind", self.kind, HeadKind)
        check_choice("head delays", self.delays, Delays)
        if self.rank < 1:
            raise ValueError(f"head rank is {self.rank}; give at least 1 (100 in arXiv 2502.08866).")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"head dropout is {self.dropout}; it is a probability, 0 <= dropout < 1.")
        object.__setattr__(self, "delays_trs", check_delays(self.delays_trs))
