"""What a probe returns: scores per voxel, and their summary over a region."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, Float32Array, FloatArray, IntArray

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


# --- edges
# Voxels whose best alpha lies at an end of the grid: how many, and what to do about it.


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
                f" {meaning}. Give a longer grid: probe.alphas from {_longer(alphas, end)}."
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


# --- probe_shares
# Some voxels at a time: a probe's result for a share of them, put back in place, and carried between processes.


PER_VOXEL = ("r", "r2", "observed", "used", "ceiling")
PER_VOXEL_TABLES = (
    *("r_by_model", "r2_by_model", "split", "partition", "impact", "r_rest", "predictions", "rest_predictions"),
    *("gamma_ranking", "alpha_index", "sub_split", "sub_unique"),
)


def usable_voxels(responses: npt.NDArray[np.floating], fit: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Voxels that are finite and change on the rows that are fitted on, (n_voxels,); scored rows are not looked at."""
    rows = responses[fit]
    return np.asarray(np.isfinite(rows).all(axis=0) & (rows != rows[:1]).any(axis=0))


def share_of(columns: IntArray, rank: int, n_ranks: int) -> IntArray:
    """The voxels of one process: neighbours, as many as those of the others but for one."""
    return np.asarray(np.array_split(columns, n_ranks)[rank])


def spread_result(result: ProbeResult, columns: IntArray, n_voxels: int, n_left_out: int = 0) -> ProbeResult:
    """The result of some voxels on the full set: NaN (False, -1) for the others.

    Parameters
    ----------
    columns : int array of shape (n_probed,)
        Which voxels the result is about.
    n_left_out : int
        How many of the others were left out to save time; the rest counts as dropped.
    """

    def place(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        fill: Any = {"b": False, "i": -1}.get(values.dtype.kind, np.nan)
        whole = np.full((*values.shape[:-1], n_voxels), fill, dtype=values.dtype)
        whole[..., columns] = values
        return whole

    arrays: dict[str, Any] = {
        name: None if (own := getattr(result, name)) is None else place(own) for name in PER_VOXEL
    }
    tables: dict[str, Any] = {
        name: {key: place(v) for key, v in getattr(result, name).items()} for name in PER_VOXEL_TABLES
    }
    n_dropped = n_voxels - int(result.used.sum()) - n_left_out
    return replace(result, **arrays, **tables, n_dropped=n_dropped)


# --- join
# One result out of several: processes that each probed a share of the voxels put their parts together.


_PER_VOXEL = ("r", "r2", "observed", "used")
_TABLES = (
    *("r_by_model", "r2_by_model", "split", "partition", "impact", "r_rest", "predictions", "rest_predictions"),
    *("gamma_ranking", "alpha_index", "sub_split", "sub_unique"),
)
_OF_PARTS = ("alpha_at_low_edge", "alpha_at_high_edge", "warnings")
"""What meta says about a part's voxels; made anew for all of them."""


def join_results(parts: Sequence[ProbeResult]) -> ProbeResult:
    """Concatenate results along voxels: what one probe of all these voxels gives.

    Parameters
    ----------
    parts : sequence of ProbeResult
        Of the same features, rows and settings, in the order of the voxels.

    Raises
    ------
    ValueError
        If there is no part, or parts differ in anything but their voxels.
    """
    if not parts:
        raise ValueError("no results to join; give at least one.")
    first = parts[0]
    for part in parts[1:]:
        _check_alike(first, part)
    tables: dict[str, Any] = {name: _join_table([getattr(part, name) for part in parts]) for name in _TABLES}
    at_edge, low, high = alpha_edges(tables["alpha_index"], len(first.meta["alphas"]))
    lasting = [text for text in first.meta["warnings"] if text not in _edge_texts(first)]
    meta = {**first.meta, "alpha_at_low_edge": low, "alpha_at_high_edge": high}
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in _PER_VOXEL
    }
    return replace(
        first,
        **arrays,
        **tables,
        ceiling=_join_ceilings(parts),
        alpha_at_edge=at_edge,
        n_dropped=sum(part.n_dropped for part in parts),
        meta={**meta, "warnings": [*lasting, *edge_warnings(low, high, first.meta["alphas"])]},
    )


def _join_table(tables: Sequence[Any]) -> dict[str, Any]:
    return {key: np.concatenate([table[key] for table in tables], axis=-1) for key in tables[0]}


def _join_ceilings(parts: Sequence[ProbeResult]) -> FloatArray | None:
    if all(part.ceiling is None for part in parts):
        return None
    return np.concatenate([np.full(p.r.size, np.nan) if p.ceiling is None else p.ceiling for p in parts])


def _edge_texts(part: ProbeResult) -> list[str]:
    meta = part.meta
    return edge_warnings(meta["alpha_at_low_edge"], meta["alpha_at_high_edge"], meta["alphas"])


def _lasting_meta(part: ProbeResult) -> dict[str, Any]:
    return {key: value for key, value in part.meta.items() if key not in _OF_PARTS}


def _check_alike(first: ProbeResult, part: ProbeResult) -> None:
    ours, theirs = _lasting_meta(first), _lasting_meta(part)
    different = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    different += [name for name in _TABLES if list(getattr(first, name)) != list(getattr(part, name))]
    if not np.array_equal(first.score_groups, part.score_groups):
        different.append("score_groups")
    if different:
        raise ValueError(
            f"the parts of a probe differ in {', '.join(different)}; join only results of the same features, rows and"
            " settings."
        )


# --- probe_files
# A probe's result as one HDF5 file: plain arrays and JSON, no pickle, written under a temporary name and renamed.


FORMAT = "brainlit-probe"
VERSION = 1
SLASH = ":"
"""For the slash in names of sub-bands, which would make groups in a file."""
_ARRAYS = ("r", "r2", "observed", "score_groups", "used")
_SAVED_PREDICTIONS = ("backbone", "low_level", "backbone+low_level")
"""Models whose predictions are saved besides the joint one: those that bootstraps of the low-level share need."""
_TABLES_probe_files = ("r_by_model", "r2_by_model", "split", "partition", "impact", "r_rest", "predictions")
_LATER_TABLES = ("rest_predictions", "gamma_ranking", "alpha_index", "sub_split", "sub_unique")
"""Tables that files of earlier versions of brainlit do not have; they are empty then."""


def save_probe(result: ProbeResult, path: str | Path) -> Path:
    """Write the result; an existing file is replaced at once and never left half written.

    Returns
    -------
    Path
        The file.
    """
    import h5py

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            _write(result, file)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def load_probe(path: str | Path) -> ProbeResult:
    """Read what `save_probe` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file is something else, or of a later version.
    """
    import h5py

    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no probe at {source}; it is written when a run's probe has finished.")
    with h5py.File(source, "r") as file:
        form, version = file.attrs.get("format"), int(file.attrs.get("version", 0))
        if form != FORMAT or version > VERSION:
            raise ValueError(
                f"{source} is {form!r} version {version}; this brainlit reads {FORMAT!r} up to version {VERSION}."
            )
        return _read(file)


def _write(result: ProbeResult, file: Any) -> None:
    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    file.attrs["meta"] = json.dumps(dict(result.meta))
    file.attrs["alpha_at_edge"] = json.dumps(dict(result.alpha_at_edge))
    file.attrs["n_dropped"] = result.n_dropped
    for name in _ARRAYS:
        file.create_dataset(name, data=getattr(result, name))
    if result.ceiling is not None:
        file.create_dataset("ceiling", data=result.ceiling)
    for name in (*_TABLES_probe_files, *_LATER_TABLES):
        table = file.create_group(name, track_order=True)
        for key, values in getattr(result, name).items():
            if name != "predictions" or key in (*_SAVED_PREDICTIONS, result.joint):
                table.create_dataset(key.replace("/", SLASH), data=values)


def _read(file: Any) -> ProbeResult:
    fields: dict[str, Any] = {name: np.asarray(file[name]) for name in _ARRAYS}
    for name in (*_TABLES_probe_files, *_LATER_TABLES):
        fields[name] = _read_table(file[name]) if name in file else {}
    return ProbeResult(
        **fields,
        ceiling=np.asarray(file["ceiling"]) if "ceiling" in file else None,
        alpha_at_edge=json.loads(file.attrs["alpha_at_edge"]),
        n_dropped=int(file.attrs["n_dropped"]),
        meta=json.loads(file.attrs["meta"]),
    )


def _read_table(group: Any) -> dict[str, Any]:
    return {key.replace(SLASH, "/"): np.asarray(values) for key, values in group.items()}
