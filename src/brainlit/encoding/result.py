"""What a probe returns: scores per voxel, and their summary over a region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.groups import BoolArray, Float32Array, FloatArray, IntArray

Int16Array = npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Scores of one set of features on one subject. Per-voxel arrays are (n_voxels,), NaN where a voxel was dropped.

    Models are named by their bands, 'backbone+low_level'; parts of the partition by 'backbone&low_level'.

    Parameters
    ----------
    r, r2 : arrays
        Of the joint model of all bands, on the scored rows, each group demeaned. R2 = 1 - SSE / SST.
    r_by_model, r2_by_model : mapping of model to array
    split : mapping of band to array
        Product measure; sums to r2.
    partition : mapping of part to array
        Unique and shared R2; sums to r2.
    impact : mapping of 'residual_lag0', 'residual_lags', 'banded_ridge' to array
        Low-level impact in percent; empty if not computed.
    r_rest : mapping of the same keys to array
        The correlation that is left; regions average it and r of the backbone before dividing.
    predictions : mapping of model to float32 array of shape (n_score_trs, n_voxels)
        Of every model; a file keeps those of the backbone, the low-level features, both together, and the joint model.
    observed : float32 array of shape (n_score_trs, n_voxels)
        Responses scored against: demeaned per group, in units of their sd on the fitted rows.
    score_groups : int array of shape (n_score_trs,)
    ceiling : array or None
        Highest reachable correlation, as given; NaN where unknown.
    alpha_at_edge : mapping of model to share of voxels whose best alpha is the smallest or largest of the grid.
    n_dropped : int
        Voxels left out because they are not finite or constant.
    used : bool array of shape (n_voxels,)
    meta : dict of plain values
        Solver, seed, delays, grid, numbers of rows, warnings, ...
    rest_predictions : mapping of 'residual_lag0', 'residual_lags' to float32 array of shape (n_score_trs, n_voxels)
        What the residuals predict; for intervals of the impacts.
    gamma_ranking : mapping of model to int16 array of shape (n_ranked, n_voxels)
        Rows of meta['gammas'] by cross-validated score, the chosen one first; -1 where there is none.
    alpha_index : mapping of model to int16 array of shape (n_voxels,)
        The chosen alpha, an index into meta['alphas']; -1 where a voxel was dropped.
    sub_split, sub_unique : mapping of band or sub-band to array
        Product measure of the joint model in which bands are cut into sub-bands, and R2 that is lost without each
        sub-band; empty unless asked for (`ProbeConfig.sub_bands`).
    """

    r: FloatArray
    r2: FloatArray
    r_by_model: Mapping[str, FloatArray]
    r2_by_model: Mapping[str, FloatArray]
    split: Mapping[str, FloatArray]
    partition: Mapping[str, FloatArray]
    impact: Mapping[str, FloatArray]
    r_rest: Mapping[str, FloatArray]
    predictions: Mapping[str, Float32Array]
    observed: Float32Array
    score_groups: IntArray
    ceiling: FloatArray | None
    alpha_at_edge: Mapping[str, float]
    n_dropped: int
    used: BoolArray
    meta: Mapping[str, Any]
    rest_predictions: Mapping[str, Float32Array] = field(default_factory=dict)
    gamma_ranking: Mapping[str, Int16Array] = field(default_factory=dict)
    alpha_index: Mapping[str, Int16Array] = field(default_factory=dict)
    sub_split: Mapping[str, FloatArray] = field(default_factory=dict)
    sub_unique: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def gamma_index(self) -> dict[str, Int16Array]:
        """The chosen gamma of every model, a row of meta['gammas'], (n_voxels,); -1 where a voxel was dropped."""
        return {model: ranking[0] for model, ranking in self.gamma_ranking.items()}

    @property
    def joint(self) -> str:
        """Name of the model of all bands."""
        return str(self.meta["joint"])

    @property
    def r_over_ceiling(self) -> FloatArray | None:
        """r / ceiling, never clipped (sampling can put it above 1); None without a ceiling."""
        return None if self.ceiling is None else self.r / self.ceiling

    @property
    def low_level_share(self) -> FloatArray | None:
        """Share of the backbone's R2 that low-level features explain too: (R2_B + R2_L - R2_BL) / R2_B.

        None without the two bands. Per voxel it is wild where R2_B is small; use `region` for a region.
        """
        shared = self._shared_with_low_level()
        if shared is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(shared / self.r2_by_model["backbone"])

    def region(self, voxels: BoolArray | None = None) -> dict[str, float]:
        """Means over a region (all used voxels by default); ratios are ratios of means.

        Parameters
        ----------
        voxels : bool array of shape (n_voxels,), optional

        Returns
        -------
        dict
            'n_voxels', 'r', 'r2', 'r/<model>', 'r2/<model>', 'split/<band>', 'partition/<part>', 'impact/<way>'
            (percent), 'low_level_share', 'ceiling' and 'r_over_ceiling' (mean r over mean ceiling where it is known),
            as far as they exist. NaN for an empty region.

        Raises
        ------
        ValueError
            If the mask does not fit the voxels.
        """
        mask = self.used if voxels is None else np.asarray(voxels, dtype=bool)
        if mask.shape != self.used.shape:
            raise ValueError(f"region mask has shape {mask.shape}; this probe has voxels {self.used.shape}.")
        inside = mask & self.used
        summary = {"n_voxels": float(inside.sum()), "r": _mean(self.r, inside), "r2": _mean(self.r2, inside)}
        tables = {"r": self.r_by_model, "r2": self.r2_by_model, "split": self.split, "partition": self.partition}
        for table, columns in tables.items():
            summary |= {f"{table}/{key}": _mean(values, inside) for key, values in columns.items()}
        return summary | self._region_ratios(inside)

    def _region_ratios(self, inside: BoolArray) -> dict[str, float]:
        ratios: dict[str, float] = {}
        if self.r_rest:
            r_b = _mean(self.r_by_model["backbone"], inside)
            ratios = {f"impact/{k}": 100.0 * _ratio(r_b - _mean(rest, inside), r_b) for k, rest in self.r_rest.items()}
        shared = self._shared_with_low_level()
        if shared is not None:
            ratios["low_level_share"] = _ratio(_mean(shared, inside), _mean(self.r2_by_model["backbone"], inside))
        if self.ceiling is not None:
            known = inside & np.isfinite(self.ceiling)
            ratios["ceiling"] = _mean(self.ceiling, known)
            ratios["r_over_ceiling"] = _ratio(_mean(self.r, known), ratios["ceiling"])
        return ratios

    def _shared_with_low_level(self) -> FloatArray | None:
        r2 = self.r2_by_model
        if "backbone+low_level" not in r2:
            return None
        return np.asarray(r2["backbone"] + r2["low_level"] - r2["backbone+low_level"])


def _mean(values: FloatArray, mask: BoolArray) -> float:
    return float(values[mask].mean()) if mask.any() else float("nan")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
