"""Looking back through a haemodynamic response: states in fine bins, convolved and read at the volumes.

The head's delays weigh whole TRs. Here states are pooled in bins of some tenths of a second, and row t of a window is

    x_t = sum over bins i of h(T_t - m_i) d_i s_i / sum over bins i of h(T_t - m_i) d_i,

with T_t the moment at which the volume is read, m_i and d_i the middle and length of bin i, s_i its standardised state
and h the canonical response of `brainlit.encoding.temporal`. Lags are those of the batch's own clock, so slow, fast and
irregular volumes are right. What lies before the window is cut off; the denominator gives what is left the area 1, so
that a steady state comes out as it went in.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from brainlit.encoding.temporal import ONSET_STEP_S, HaemodynamicResponse

Haemodynamic = Literal["fir", "hrf", "hrf_derivatives", "learned"]

SHORTEST_BIN_S, LONGEST_BIN_S = 0.1, 0.5
SHORTEST_CONTEXT_S = 12.0
"""Peak and most of its flank: what lies further back is the undershoot."""
SHIFTS_S = (-2.0, 2.0, 4.0)
"""Onsets of the further responses that a learned one is made of."""
_STEP_S = 0.01
_LEAST_AREA = 0.5


def fine_edges_s(row_edges_s: Tensor, bin_s: float) -> Tensor:
    """Edges of bins of about bin_s, round(row / bin_s) equal ones in every row.

    Rows of an irregular clock may hold different numbers of bins; those with fewer get bins of no length at their end,
    into which no frame falls and which weigh nothing, so that what comes out does not depend on the rest of the batch.

    Parameters
    ----------
    row_edges_s : Tensor of shape (batch, n_rows + 1)
    bin_s : float

    Returns
    -------
    Tensor of shape (batch, n_rows x most bins of a row + 1)
    """
    starts_s, ends_s = row_edges_s[:, :-1, None], row_edges_s[:, 1:, None]
    n_bins = ((ends_s - starts_s) / bin_s).round().clamp(min=1)
    k = torch.arange(int(n_bins.max()), device=row_edges_s.device)
    inner = torch.where(k < n_bins, starts_s + k / n_bins * (ends_s - starts_s), ends_s)
    return torch.cat([inner.flatten(1), row_edges_s[:, -1:]], dim=1)


class HaemodynamicDelays(nn.Module):
    """Convolves the bins of a window with one or several responses and reads them at each volume.

    Parameters
    ----------
    kind : str
        hrf is the canonical response. hrf_derivatives adds its derivatives by onset and by dispersion, side by side.
        learned is one response with a weight for each of these three and of canonical ones that come 2 s earlier, 2 s
        later and 4 s later; it begins as the canonical one.
    response : HaemodynamicResponse, optional
        The canonical response.

    Attributes
    ----------
    n_blocks : int
        How many times as wide as the states the rows are.
    weights : Parameter of shape (6,)
        For learned only.
    """

    table: Tensor

    def __init__(self, kind: Haemodynamic, response: HaemodynamicResponse | None = None) -> None:
        super().__init__()
        h = response or HaemodynamicResponse()
        reach_s = h.length_s + max(ONSET_STEP_S, *SHIFTS_S)
        lags_s = np.arange(math.ceil(reach_s / _STEP_S) + 2) * _STEP_S
        shapes = [h.at(lags_s)]
        if kind != "hrf":
            shapes += [h.by_onset(lags_s), h.by_dispersion(lags_s)]
        if kind == "learned":
            shapes += [h.at(lags_s - shift_s) for shift_s in SHIFTS_S]
            self.weights = nn.Parameter(torch.eye(len(shapes))[0])
        self.n_blocks = 3 if kind == "hrf_derivatives" else 1
        # Looked up, not computed, at every step: linear between steps of .01 s it is right to 1e-6 on any device.
        self.register_buffer("table", torch.tensor(np.stack(shapes), dtype=torch.float32), persistent=False)

    def forward(self, states: Tensor, edges_s: Tensor, read_s: Tensor) -> Tensor:
        """Rows that the map is given.

        Parameters
        ----------
        states : Tensor of shape (batch, n_bins, hidden_size)
        edges_s : Tensor of shape (batch, n_bins + 1)
            Of the bins, in seconds from the window's first sample.
        read_s : Tensor of shape (batch, n_trs)
            When each row was read, on the same clock.

        Returns
        -------
        Tensor of shape (batch, n_trs, n_blocks x hidden_size)

        Raises
        ------
        ValueError
            If less than half of the response lies within the window.
        """
        if (edges_s == edges_s[:1]).all() and (read_s == read_s[:1]).all():
            edges_s, read_s = edges_s[:1], read_s[:1]  # windows on one clock share their kernels
        return torch.cat([kernel.to(states.dtype) @ states for kernel in self.kernels(edges_s, read_s)], dim=2)

    def kernels(self, edges_s: Tensor, read_s: Tensor) -> Tensor:
        """What each bin weighs in each row: (n_blocks, batch, n_trs, n_bins); 0 for bins after the row was read."""
        middles_s = (edges_s[:, 1:] + edges_s[:, :-1]) / 2
        values = self._at(read_s[:, :, None] - middles_s[:, None]) * edges_s.diff()[:, None]
        area = values[0].sum(2, keepdim=True)
        if (area < _LEAST_AREA).any():
            raise ValueError(
                "less than half of the haemodynamic response lies within a window. Give --data.window.context_s at"
                f" least {SHORTEST_CONTEXT_S:g} seconds, or --model.head.haemodynamic fir."
            )
        kernels = values / area
        if hasattr(self, "weights"):
            return torch.einsum("k,kbti->bti", self.weights, kernels)[None]
        return kernels

    def _at(self, lags_s: Tensor) -> Tensor:
        """Every response of the table at these lags; a further first dimension."""
        last = self.table.shape[1] - 1
        steps = (lags_s / _STEP_S).clamp(0, last)  # the last step of the table is 0, the first not for all
        below = steps.long().clamp(max=last - 1)
        return torch.lerp(self.table[:, below], self.table[:, below + 1], steps - below) * (lags_s >= 0)


def check_reach(context_trs: int, tr_s: float) -> None:
    """Refuse windows whose context is too short for a haemodynamic response, before anything is probed or trained.

    context_trs counts the rows before the first target row of a window.
    """
    needed = math.ceil(SHORTEST_CONTEXT_S / tr_s - 1e-9)
    if context_trs < needed:
        raise ValueError(
            f"the head convolves with a haemodynamic response, which needs {SHORTEST_CONTEXT_S:g} s of sound before the"
            f" first row, but the windows carry {context_trs} rows ({context_trs * tr_s:g} s) of context. Give"
            f" --data.window.context_s at least {needed * tr_s:g} (20 for nearly all of it), or"
            " --model.head.haemodynamic fir."
        )


def check_bin(bin_s: float) -> None:
    """Refuse bins that are too short to hold frames or too long to follow the response."""
    if not SHORTEST_BIN_S <= bin_s <= LONGEST_BIN_S:
        raise ValueError(f"head bin_s is {bin_s}; give {SHORTEST_BIN_S} to {LONGEST_BIN_S} seconds.")
