"""What a probe returns: scores per voxel; cut, put in place, joined and kept on disk; and their summary over a region.

What a result holds per voxel is named once, in the fields of `ProbeResult`: everything below goes by their metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, Float32Array, FloatArray, IntArray
from brainlit.encoding.bootstrap import BLOCK_TRS, time_blocks
from brainlit.encoding.ceiling import region_ratio
from brainlit.encoding.partition import low_level_impact, semipartial
from brainlit.encoding.statistics import correlation_within
from brainlit.files import atomic_path
from brainlit.guard import UnreadableFileError, file_guard
from brainlit.hdf5 import members, new_file, read_json_text, refuse_outside, write_array, write_json_text, write_text

Int16Array = npt.NDArray[np.int16]

MAX_AT_EDGE = 0.05
"""Share of the voxels whose prediction matters, at one end of the grid of alphas, above which a result warns."""
LEAST_R2 = 0.01
"""R2 beyond which, on either side of 0, a prediction matters. A voxel without signal chooses the largest alpha, which
makes its prediction nearly constant: no longer grid could change its R2 by more than it is from 0."""
DECADES_MORE = 2.0
GRID_CURE = "Give a longer grid: "
FORMAT = "brainlit-probe"
VERSION = 2
"""Of files and formulas. Until 1 the banded impact took roots of differences of each voxel's squared correlations, and
that of residuals over lags kept what the regression had left of low-level features."""
SLASH = ":"
"""For the slash in names of sub-bands, which would make groups in a file."""
SAVED_PREDICTIONS = ("backbone", "low_level", "backbone+low_level")
"""Models whose predictions are saved besides the joint one: those that bootstraps of the low-level share need."""


PER_VOXEL = {"voxels": "array"}
"""Metadata of an array whose last axis are the voxels."""
TABLE = {"voxels": "table"}
"""Metadata of a mapping of names to such arrays; 'region_mean': its means over a region are '<that>/<name>'."""


@dataclass(frozen=True, eq=False, kw_only=True)
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
        The correlation that is left; regions average it and r of the backbone before dividing. That of 'banded_ridge'
        and of 'residual_lags' is `semipartial`.
    predictions : mapping of model to float32 array of shape (n_score_trs, n_voxels)
        Of every model; a file keeps those of the backbone, the low-level features, both together, and the joint model.
    observed : float32 array of shape (n_score_trs, n_voxels)
        Responses scored against: demeaned per group, in units of their sd on the fitted rows.
    score_groups : int array of shape (n_score_trs,)
    ceiling : array or None
        Highest reachable correlation; NaN where unknown.
    signal : float32 array of shape (n_score_trs, n_voxels), or None
        What the repeats of the scored rows say of the share of signal, from `encoding.ceiling.signal_rows`; None where
        ceilings were given as numbers.
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
    left_out : mapping of 'r', 'r2' to float32 array of shape (n_parts, n_voxels)
        Of the backbone alone without each fit story in turn (`encoding.left_out`); empty where it was not computed.
    """

    r: FloatArray = field(metadata=PER_VOXEL)
    r2: FloatArray = field(metadata=PER_VOXEL)
    observed: Float32Array = field(metadata=PER_VOXEL)
    used: BoolArray = field(metadata=PER_VOXEL)
    ceiling: FloatArray | None = field(metadata=PER_VOXEL)
    signal: Float32Array | None = field(default=None, metadata=PER_VOXEL)
    r_by_model: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE | {"region_mean": "r"})
    r2_by_model: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE | {"region_mean": "r2"})
    split: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE | {"region_mean": "split"})
    partition: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE | {"region_mean": "partition"})
    impact: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE)
    r_rest: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE)
    predictions: Mapping[str, Float32Array] = field(default_factory=dict, metadata=TABLE)
    rest_predictions: Mapping[str, Float32Array] = field(default_factory=dict, metadata=TABLE)
    gamma_ranking: Mapping[str, Int16Array] = field(default_factory=dict, metadata=TABLE)
    alpha_index: Mapping[str, Int16Array] = field(default_factory=dict, metadata=TABLE)
    sub_split: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE)
    sub_unique: Mapping[str, FloatArray] = field(default_factory=dict, metadata=TABLE)
    left_out: Mapping[str, Float32Array] = field(default_factory=dict, metadata=TABLE)
    score_groups: IntArray
    alpha_at_edge: Mapping[str, float]
    n_dropped: int
    meta: Mapping[str, Any]

    @property
    def gamma_index(self) -> dict[str, Int16Array]:
        """The chosen gamma of every model, a row of meta['gammas'], (n_voxels,); -1 where a voxel was dropped."""
        return {model: ranking[0] for model, ranking in self.gamma_ranking.items()}

    @property
    def joint(self) -> str:
        """Name of the model of all bands."""
        return str(self.meta["joint"])

    @property
    def fold_of_group(self) -> IntArray | None:
        """The fold of each scored group, (n_groups,); None where fixed rows were fitted and scored."""
        found = self.meta.get("fold_of_group")
        return None if found is None else np.asarray(found, dtype=np.int64)

    @property
    def overlap_factor(self) -> float:
        """How much wider an interval must be because folds are fitted on much the same rows; 1 without folds.

        Folds that scored and erred independently would give a mean over k of them the variance s^2 / k. As they are, it
        is about s^2 (1 / k + n_scored / n_fitted), rows of one fold (Nadeau & Bengio 2003, Machine Learning 52:239).
        """
        if self.fold_of_group is None:
            return 1.0
        return float(np.sqrt(1.0 + len(self.score_groups) / np.mean(self.meta["n_fit_trs_by_fold"])))

    @property
    def r_over_ceiling(self) -> FloatArray | None:
        """r / ceiling of each voxel, never clipped; None without a ceiling.

        Wild where ceilings are low, and biased where they come from few repeats of weak signals: see `region`.
        """
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

    # --- Regions ---

    def region(self, voxels: BoolArray | None = None) -> dict[str, float]:
        """Means over a region (all used voxels by default); ratios are ratios of means.

        Parameters
        ----------
        voxels : bool array of shape (n_voxels,), optional

        Returns
        -------
        dict
            'n_voxels', 'r', 'r2', 'r/<model>', 'r2/<model>', 'split/<band>', 'partition/<part>', 'impact/<way>'
            (percent), 'low_level_share', 'r_together', 'ceiling' and 'r_over_ceiling' (of all rows and voxels together,
            see `encoding.ceiling.region_ratio`), as far as they exist. NaN for an empty region.

        Raises
        ------
        ValueError
            If the mask does not fit the voxels.
        """
        mask = self.used if voxels is None else np.asarray(voxels, dtype=bool)
        if mask.shape != self.used.shape:
            raise ValueError(f"region mask has shape {mask.shape}; this probe has voxels {self.used.shape}.")
        inside = mask & self.used
        summary = {"n_voxels": float(inside.sum()), "r": _mean(self.r[inside]), "r2": _mean(self.r2[inside])}
        for name, called in _REGION_MEANS.items():
            summary |= {f"{called}/{key}": _mean(values[inside]) for key, values in getattr(self, name).items()}
        return summary | self._region_ratios(inside)

    def _region_ratios(self, inside: BoolArray) -> dict[str, float]:
        ratios: dict[str, float] = {}
        if self.r_rest:
            r_b = _mean(self.r_by_model["backbone"][inside])
            ratios = {f"impact/{k}": 100.0 * _ratio(r_b - _mean(rest[inside]), r_b) for k, rest in self.r_rest.items()}
        shared = self._shared_with_low_level()
        if shared is not None:
            ratios["low_level_share"] = _ratio(_mean(shared[inside]), _mean(self.r2_by_model["backbone"][inside]))
        if self.ceiling is not None:
            ceiling = self.ceiling if self.signal is None else self.signal
            of_row = time_blocks(self.score_groups, BLOCK_TRS)
            once = of_row, np.ones((1, of_row[-1] + 1))
            given = self.observed, self.predictions[self.joint], self.score_groups, ceiling
            found = region_ratio(*given, inside, once)
            ratios |= {
                name: found[name].value if name in found else float("nan")
                for name in ("r_together", "ceiling", "r_over_ceiling")
            }
        return ratios

    def _shared_with_low_level(self) -> FloatArray | None:
        r2 = self.r2_by_model
        if "backbone+low_level" not in r2:
            return None
        return np.asarray(r2["backbone"] + r2["low_level"] - r2["backbone+low_level"])

    # --- Some voxels of many ---

    def select(self, voxels: slice | npt.NDArray[Any]) -> ProbeResult:
        """The result of some of its voxels: what a probe of these alone gives.

        Parameters
        ----------
        voxels : slice, bool array of shape (n_voxels,) or int array
        """
        part = self._each(lambda values: values[..., voxels])
        return replace(part, n_dropped=int((~part.used).sum())).with_grid_ends()

    def place(self, columns: IntArray, n_voxels: int, n_left_out: int = 0) -> ProbeResult:
        """The result on a full set of voxels: NaN (False, -1) for the others.

        Parameters
        ----------
        columns : int array of shape (n_probed,)
            Which voxels the result is about.
        n_left_out : int
            How many of the others were left out to save time; the rest counts as dropped.
        """

        def put(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            fill: Any = {"b": False, "i": -1}.get(values.dtype.kind, np.nan)
            whole = np.full((*values.shape[:-1], n_voxels), fill, dtype=values.dtype)
            whole[..., columns] = values
            return whole

        return replace(self._each(put), n_dropped=n_voxels - int(self.used.sum()) - n_left_out)

    @classmethod
    def join(cls, parts: Sequence[ProbeResult]) -> ProbeResult:
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
        for part in parts[1:]:
            parts[0]._refuse_other(part)
        joined = {name: _side_by_side(name, parts) for name in _VOXEL_ARRAYS}
        for name in _VOXEL_TABLES:
            tables = [getattr(part, name) for part in parts]
            joined[name] = {key: _concatenated([table[key] for table in tables]) for key in tables[0]}
        whole = replace(parts[0], **joined, n_dropped=sum(part.n_dropped for part in parts))
        return whole.with_grid_ends()

    def _each(self, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> ProbeResult:
        """The same with every per-voxel array changed."""
        arrays = {name: getattr(self, name) for name in _VOXEL_ARRAYS}
        new: dict[str, Any] = {name: change(values) for name, values in arrays.items() if values is not None}
        for name in _VOXEL_TABLES:
            new[name] = {key: change(values) for key, values in getattr(self, name).items()}
        return replace(self, **new)

    @property
    def lasting_warnings(self) -> list[str]:
        """Warnings that are not about the ends of the grid."""
        return [text for text in self.meta["warnings"] if GRID_CURE not in text]

    def with_grid_ends(self) -> ProbeResult:
        """With what these voxels chose at the ends of the grid, and its warnings; other warnings stay."""
        alphas, lasting = self.meta["alphas"], self.lasting_warnings
        used = {model: index[index >= 0] for model, index in self.alpha_index.items()}
        low = {model: _mean(index == 0) for model, index in used.items()}
        high = {model: _mean(index == len(alphas) - 1) for model, index in used.items()}
        either = {model: _mean((index == 0) | (index == len(alphas) - 1)) for model, index in used.items()}
        warnings = [*lasting, *_grid_end_warnings({model: self._mattering(model) for model in used}, alphas)]
        meta = {**self.meta, "alpha_at_low_edge": low, "alpha_at_high_edge": high, "warnings": warnings}
        return replace(self, alpha_at_edge=either, meta=meta)

    def _mattering(self, model: str) -> IntArray:
        """Indices of the alphas that the voxels chose whose prediction by this model matters."""
        index = self.alpha_index[model][..., np.abs(self.r2_by_model[model]) > LEAST_R2]  # of folds: (n_folds, ...)
        return np.asarray(index[index >= 0])

    def _refuse_other(self, part: ProbeResult) -> None:
        of_voxels = ("alpha_at_low_edge", "alpha_at_high_edge", "warnings")
        keys = {*self.meta, *part.meta}.difference(of_voxels)
        different = sorted(key for key in keys if self.meta.get(key) != part.meta.get(key))
        different += [name for name in _VOXEL_TABLES if list(getattr(self, name)) != list(getattr(part, name))]
        if not np.array_equal(self.score_groups, part.score_groups):
            different.append("score_groups")
        if different:
            raise ValueError(
                f"the parts of a probe differ in {', '.join(different)}; join only results of the same features, rows"
                " and settings."
            )

    # --- On disk ---

    def save(self, path: str | Path) -> Path:
        """Write one HDF5 file (plain arrays and JSON, no pickle); an existing one is replaced at once, or stays whole.

        Predictions are those of SAVED_PREDICTIONS and of the joint model.
        """
        kept = {*SAVED_PREDICTIONS, self.joint}
        with atomic_path(Path(path)) as temporary, new_file(temporary) as file:
            write_text(file, "format", FORMAT)
            file.attrs["version"] = VERSION
            write_json_text(file, "meta", dict(self.meta))
            write_json_text(file, "alpha_at_edge", dict(self.alpha_at_edge))
            file.attrs["n_dropped"] = self.n_dropped
            for name in ("score_groups", *_VOXEL_ARRAYS):
                if getattr(self, name) is not None:
                    write_array(file, name, getattr(self, name))
            for name in _VOXEL_TABLES:
                group = file.create_group(name, track_order=True)
                for key, values in getattr(self, name).items():
                    if name != "predictions" or key in kept:
                        write_array(group, key.replace("/", SLASH), values)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> ProbeResult:
        """Read what `save` wrote, here or in an earlier brainlit: tables that a file does not have are empty.

        Impacts of a file of version 1 are computed anew from its predictions.

        Raises
        ------
        FileNotFoundError
            If there is no file.
        UnreadableFileError
            If the file is something else, of a later version, or not what was written.
        """
        import h5py

        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"no probe at {source}; it is written when a run's probe has finished.")
        cure = "Probe again, or fetch the file again from where it is whole."
        with file_guard(source, "a probe", cure), h5py.File(source, "r") as file:
            refuse_outside(file)
            form, version = file.attrs.get("format"), int(file.attrs.get("version", 0))
            if form != FORMAT or version > VERSION:
                raise UnreadableFileError(
                    f"{source} is {form!r} version {version}; this brainlit reads {FORMAT!r} up to version {VERSION}."
                )
            values: dict[str, Any] = {
                name: np.asarray(file[name]) if name in file or name not in ("ceiling", "signal") else None
                for name in ("score_groups", *_VOXEL_ARRAYS)
            }
            for name in _VOXEL_TABLES:
                group = file.get(name, {})
                values[name] = {key.replace(SLASH, "/"): np.asarray(stored) for key, stored in members(group)}
            found = cls(
                **values,
                alpha_at_edge=read_json_text(file, "alpha_at_edge"),
                n_dropped=int(file.attrs["n_dropped"]),
                meta=read_json_text(file, "meta"),
            )
        return found if version > 1 else found._with_impacts_of_now()

    def _with_impacts_of_now(self) -> ProbeResult:
        """The same with the impacts whose formulas have changed, as far as their predictions are there."""
        if "banded_ridge" not in self.r_rest:
            return self
        predicted = {way: self.rest_predictions[way] for way in ("residual_lags",) if way in self.rest_predictions}
        predicted["banded_ridge"] = self.predictions["backbone+low_level"]
        rest, r_by_model = dict(self.r_rest), self.r_by_model
        for way, values in predicted.items():
            pairs = (self.observed, values), (self.predictions["low_level"], values)
            r, between = (np.nan_to_num(correlation_within(*pair, self.score_groups)) for pair in pairs)
            rest[way] = np.where(self.used, semipartial(r, r_by_model["low_level"], between), np.nan)
        impact = {way: low_level_impact(r_by_model["backbone"], left) for way, left in rest.items()}
        return replace(self, r_rest=rest, impact=impact)


_METADATA = {own.name: own.metadata for own in fields(ProbeResult)}
_VOXEL_ARRAYS = tuple(name for name, said in _METADATA.items() if said.get("voxels") == "array")
_VOXEL_TABLES = tuple(name for name, said in _METADATA.items() if said.get("voxels") == "table")
_REGION_MEANS = {name: said["region_mean"] for name, said in _METADATA.items() if "region_mean" in said}


# --- The ends of the grid of alphas ---


def _grid_end_warnings(chosen: Mapping[str, IntArray], alphas: Sequence[float]) -> list[str]:
    """One sentence for each end of the grid at which too many of the voxels lie whose prediction matters.

    Parameters
    ----------
    chosen : mapping of model to int array
        Index of the alpha that each such voxel chose.
    """
    if len(alphas) < 2:
        return []
    texts = []
    for end, at, more in (("smallest", 0, "less"), ("largest", len(alphas) - 1, "more")):
        shares = {model: _mean(index == at) for model, index in chosen.items() if index.size}
        many = {model: share for model, share in shares.items() if share > MAX_AT_EDGE}
        if many:
            worst = max(many, key=lambda model: many[model])
            others = f" (and more than {100 * MAX_AT_EDGE:.0f} % in {len(many) - 1} others)" if len(many) > 1 else ""
            texts.append(
                f"{100 * many[worst]:.0f} % of the voxels where R2 of the model {worst} is beyond {LEAST_R2:g} on"
                f" either side of 0{others} chose the {end} alpha, {alphas[at]:g}: they would be regularised {more} if"
                f" they could. {GRID_CURE}--probe.alphas {_longer(alphas, end)}"
            )
    return texts


def _longer(alphas: Sequence[float], end: str) -> str:
    """The grid two decades longer at one end, with its own step, as it is typed."""
    step = float(np.log10(alphas[-1] / alphas[0]) / (len(alphas) - 1))
    factors = 10.0 ** (step * np.arange(1, round(DECADES_MORE / step) + 1 if step < DECADES_MORE else 2))
    more = alphas[0] / factors[::-1] if end == "smallest" else alphas[-1] * factors
    grid = [*more, *alphas] if end == "smallest" else [*alphas, *more]
    numbers = (np.format_float_positional(alpha, 3, fractional=False, trim="-") for alpha in grid)
    return f"[{','.join(numbers)}]"


def _side_by_side(name: str, parts: Sequence[ProbeResult]) -> Any:
    """The arrays of one name; NaN for parts that lack what others have, None where all lack it."""
    given = [getattr(part, name) for part in parts]
    first = next((values for values in given if values is not None), None)
    if first is None:
        return None
    shapes = [(*first.shape[:-1], part.r.size) for part in parts]
    filled = [
        np.full(shape, np.nan, first.dtype) if own is None else own for shape, own in zip(shapes, given, strict=True)
    ]
    return _concatenated(filled)


def _concatenated(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts, axis=-1)


def _mean(values: FloatArray | BoolArray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
