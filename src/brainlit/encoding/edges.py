"""Voxels whose best alpha lies at an end of the grid: how many, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from brainlit.encoding.result import Int16Array

MAX_AT_EDGE = 0.05
"""Share of voxels at one end of the grid above which a result warns."""
DECADES_MORE = 2.0

Shares = dict[str, float]


def alpha_edges(alpha_index: Mapping[str, Int16Array], n_alphas: int) -> tuple[Shares, Shares, Shares]:
    """Share of the used voxels of each model at either end of the grid, at the low end, and at the high end."""
    used = {model: index[index >= 0] for model, index in alpha_index.items()}
    low = {model: _share(index == 0) for model, index in used.items()}
    high = {model: _share(index == n_alphas - 1) for model, index in used.items()}
    either = {model: _share((index == 0) | (index == n_alphas - 1)) for model, index in used.items()}
    return either, low, high


def edge_warnings(low: Mapping[str, float], high: Mapping[str, float], alphas: Sequence[float]) -> list[str]:
    """One sentence for each end of the grid at which more than MAX_AT_EDGE of the voxels of some model lie."""
    if len(alphas) < 2:
        return []
    texts = []
    for shares, end, meaning in (
        (low, "smallest", "they would be regularised less if they could"),
        (high, "largest", "right where the features predict nothing, and too weak elsewhere"),
    ):
        many = {model: share for model, share in shares.items() if share > MAX_AT_EDGE}
        if many:
            worst = max(many, key=lambda model: many[model])
            others = f" (and more than {100 * MAX_AT_EDGE:.0f} % in {len(many) - 1} others)" if len(many) > 1 else ""
            at = alphas[0] if end == "smallest" else alphas[-1]
            texts.append(
                f"{100 * many[worst]:.0f} % of the voxels of the model {worst}{others} chose the {end} alpha, {at:g}:"
                f" {meaning}. Give a longer grid: alphas from {_longer(alphas, end)}."
            )
    return texts


def _longer(alphas: Sequence[float], end: str) -> str:
    """The grid two decades longer at one end, with its own step, in words."""
    low, high = np.log10(alphas[0]), np.log10(alphas[-1])
    step = (high - low) / (len(alphas) - 1)
    low, high = (low - DECADES_MORE, high) if end == "smallest" else (low, high + DECADES_MORE)
    n_alphas = round((high - low) / step) + 1
    return f"{10**low:g} to {10**high:g}, np.logspace({low:g}, {high:g}, {n_alphas})"


def _share(which: npt.NDArray[np.bool_]) -> float:
    return float(which.mean()) if which.size else float("nan")
