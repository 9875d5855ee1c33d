"""One probe's rows, responses and settings, and the ridges fitted on them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import BoolArray, Float32Array, FloatArray, IntArray, naming, refuse_not_finite
from brainlit.encoding.banded import open_search
from brainlit.encoding.bands import prepare_band, rotate_band
from brainlit.encoding.config import MixtureSearch, ProbeConfig, SolverName
from brainlit.encoding.left_out import left_out_scores
from brainlit.encoding.mixtures import ErrorSurface, can_begin_coarse, first_mixtures, worth_trying
from brainlit.encoding.partition import model_name, split_r2, subsets
from brainlit.encoding.probe_rows import ProbeRows, ProbeTargets
from brainlit.encoding.result import Int16Array
from brainlit.encoding.search import (
    LOOK,
    Choice,
    Fold,
    LossSearch,
    RidgeSearch,
    SearchTable,
    best_alphas,
    choose,
    gamma_pool,
    inside_set,
    make_folds,
    refuse_leaking_folds,
)
from brainlit.encoding.statistics import correlation_within, r2_within
from brainlit.encoding.temporal import Band, TemporalBand, as_band, n_delayed
from brainlit.encoding.warm_start import N_RANKED

if TYPE_CHECKING:
    from tqdm.auto import tqdm

T = TypeVar("T")

SLOW_S = 5.0
"""A search that takes longer shows how far it is."""
VOXELS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Prepared:
    """Bands as the ridge sees them: names, columns of all used rows, hashes (empty without a cache), and the solver."""

    names: tuple[str, ...]
    columns: list[Float32Array]
    keys: list[str]
    solver: SolverName


@dataclass(frozen=True, eq=False)
class NestedFit:
    """All models of some bands.

    Parameters
    ----------
    predictions : mapping of model to float32 array of shape (n_score, n_voxels)
        On the scored rows; NaN where a voxel was dropped. The last model is the joint one.
    split : mapping of band to array of shape (n_good,)
        Product measure of the joint model.
    choices : mapping of model to what each voxel chose
    rankings : mapping of model to int16 array of shape (n_ranked, n_good)
        The best gammas of each voxel, the chosen one first; -1 for none.
    gammas : array of shape (n_pool, n_bands)
    n_columns : mapping of band to its number of columns in the ridge
    constant : tuple of str
        Bands without any variance on the used rows.
    solver : str
    mixture_search : str
        As it was done.
    """

    predictions: Mapping[str, Float32Array]
    split: Mapping[str, FloatArray]
    choices: Mapping[str, Choice]
    rankings: Mapping[str, Int16Array]
    gammas: FloatArray
    n_columns: Mapping[str, int]
    constant: tuple[str, ...]
    solver: str
    mixture_search: MixtureSearch


class ProbeFit:
    """Fits features to the responses of one probe, as its settings say."""

    def __init__(
        self, rows: ProbeRows, targets: ProbeTargets, settings: ProbeConfig, cache: ProbeCache | None = None
    ) -> None:
        self.rows, self.targets, self.settings, self.cache = rows, targets, settings, cache
        self.folds: list[Fold] = make_folds(rows.fit_groups, settings.n_folds, settings.purge, rows.fit_times)
        refuse_leaking_folds(self.folds, rows.fit_groups, rows.fit_times, settings.purge)
        self.alphas = np.asarray(settings.alphas, dtype=np.float64)

    # --- Fitting ---

    def pool(self, n_bands: int) -> FloatArray:
        """Gammas of all sets of so many bands."""
        return gamma_pool(n_bands, self.settings.n_gammas, self.settings.seed)

    def fit_nested(self, bands: Mapping[str, Band], wanted: BoolArray | None = None) -> NestedFit:
        """Search the nested pool once and fit every model with its own choice from it.

        Parameters
        ----------
        wanted : bool array of shape (n_pool, n_good), optional
            Which gammas are tried for which voxel; all by default.
        """
        names = tuple(bands)
        pool = self.pool(len(names))
        inside = {model_name(some): inside_set(pool, [names.index(band) for band in some]) for some in subsets(names)}
        return self.fit_models(bands, pool, inside, wanted)

    def fit_models(
        self,
        bands: Mapping[str, Band],
        pool: FloatArray,
        inside: Mapping[str, BoolArray],
        wanted: BoolArray | None = None,
    ) -> NestedFit:
        """Fit models that each choose among some gammas of the pool; the last one is the joint model.

        Parameters
        ----------
        pool : array of shape (n_pool, n_bands)
        inside : mapping of model to bool array of shape (n_pool,)
            The gammas that the model may choose.
        """
        prepared = self.prepare(bands)
        with naming(f"ridge of {' + '.join(prepared.names)}"):
            return self._fit_prepared(prepared, pool, inside, wanted)

    def _fit_prepared(
        self, prepared: Prepared, pool: FloatArray, inside: Mapping[str, BoolArray], wanted: BoolArray | None
    ) -> NestedFit:
        search = self.open(prepared)
        coarse = self.begins_coarse(search, pool, prepared)
        table = self.search(search, pool, prepared.keys, wanted, list(inside.values()) if coarse else ())
        choices = {model: choose(table, allowed) for model, allowed in inside.items()}
        rankings = {model: _ranked(table.scores, np.flatnonzero(allowed)) for model, allowed in inside.items()}
        predictions, split = self._predict(search, table, choices, prepared)
        columns = dict(zip(prepared.names, prepared.columns, strict=True))
        n_columns = {name: X.shape[1] for name, X in columns.items()}
        constant = tuple(name for name, X in columns.items() if not X.any())
        how: MixtureSearch = "coarse" if coarse else "all"
        return NestedFit(predictions, split, choices, rankings, pool, n_columns, constant, search.name, how)

    def predict_alone(self, X: Band) -> Float32Array:
        """What one feature space predicts on the scored rows, (n_score, n_voxels); its columns keep their scale."""
        prepared = self.prepare({"X": X}, rescale=False, remember=False)
        search = self.open(prepared)
        table = self.search(search, np.ones((1, 1)))
        return self._predict(search, table, {"X": choose(table)}, prepared)[0]["X"]

    def leave_out(self, X: Band, choice: Choice) -> dict[str, Float32Array]:
        """Scores of one feature space without each fit story in turn, (n_parts, n_good); empty if not asked for."""
        if not self.settings.leave_out_fit:
            return {}
        (columns,) = self.prepare({"X": X}, remember=False).columns
        rows, targets = self.rows, self.targets
        return left_out_scores(
            (columns[rows.fit_of_used], columns[rows.score_of_used]),
            (targets.fit, targets.score),
            (rows.fit_groups, rows.score_groups),
            self.alphas[choice.alpha_index],
            self.settings.solver.memory_gb,
        )

    # --- Scoring ---

    def correlate(self, predicted: Float32Array, other: Float32Array | None = None) -> FloatArray:
        """Correlation with the scored responses or another prediction, (n_good,); 0 where a prediction is constant."""
        r = self._by_block(correlation_within, predicted, other)
        return np.where(np.isnan(r), 0.0, r)

    def r2(self, predicted: Float32Array) -> FloatArray:
        """1 - SSE / SST on the scored rows, (n_good,)."""
        return self._by_block(r2_within, predicted)

    def _by_block(
        self, measure: Callable[..., FloatArray], predicted: Float32Array, other: Float32Array | None = None
    ) -> FloatArray:
        columns, groups = self.targets.columns, self.rows.score_groups
        against, own = (self.targets.score, np.arange(columns.size)) if other is None else (other, columns)
        blocks = (slice(at, at + VOXELS_AT_ONCE) for at in range(0, columns.size, VOXELS_AT_ONCE))
        return np.concatenate([measure(against[:, own[b]], predicted[:, columns[b]], groups) for b in blocks])

    # --- Parts of fitting ---

    def prepare(self, bands: Mapping[str, Band], *, rescale: bool = True, remember: bool = True) -> Prepared:
        """Bring bands into the form that the ridge sees.

        Where bands have more columns than there are rows to train on, the parts of temporal bands are rotated all the
        same: they overlap, and what is left of them may be fewer columns than rows.
        """
        solver = self.solver_for(sum(n_delayed(X, self.settings.delays_trs) for X in bands.values()))
        keys = [self._band_key(X, solver) if remember else "" for X in bands.values()]
        columns = []
        for (name, X), key in zip(bands.items(), keys, strict=True):
            with naming(f"band {name!r}"):
                columns.append(self._prepare(X, solver, key, rescale))
        return Prepared(tuple(bands), columns, keys, solver)

    @staticmethod
    def _is_rotated(X: Band, solver: SolverName) -> bool:
        return solver == "primal" or (solver == "auto" and isinstance(X, TemporalBand))

    def solver_for(self, n_columns: int) -> SolverName:
        """'primal' where 'auto' finds fewer (delayed) columns than rows to train on, for its bands are rotated."""
        if self.settings.solver.name != "auto":
            return self.settings.solver.name
        n_train = min(fold.train.size for fold in self.folds)
        return "primal" if n_columns < n_train else "auto"

    def open(self, prepared: Prepared) -> RidgeSearch:
        """The search on the fitted rows."""
        settings = self.settings
        return open_search(
            [X[self.rows.fit_of_used] for X in prepared.columns],
            self.targets.fit,
            self.folds,
            settings.alphas,
            replace(settings.solver, name=prepared.solver),
        )

    def search(
        self,
        search: RidgeSearch,
        pool: FloatArray,
        keys: Sequence[str] = (),
        wanted: BoolArray | None = None,
        models: Sequence[BoolArray] = (),
    ) -> SearchTable:
        """Score the gammas of the pool, each for the voxels that want it; minus infinity for the others.

        With models, the gammas of the pool that each of them may choose, a voxel that wants all gammas gets the first
        ones and those that may be the best of a model; see `begins_coarse`.
        """
        shape = (len(pool), self.targets.columns.size)
        table = SearchTable(pool, np.full(shape, -np.inf), np.zeros(shape, dtype=np.int64))
        left = np.ones(shape, dtype=bool) if wanted is None else wanted.copy()
        from tqdm.auto import tqdm

        with tqdm(total=len(pool), desc="gammas", unit="gamma", leave=False, delay=SLOW_S) as bar:
            whole = np.flatnonzero(left.all(axis=0))
            if models and whole.size and isinstance(search, LossSearch):
                left[:, whole] = self._begin_coarse(search, table, keys, whole, models, bar)
            for row in np.flatnonzero(left.any(axis=1)):
                targets = np.flatnonzero(left[row])
                found = self._ask("search", search.cv_scores, pool[row], keys, targets)
                table.scores[row, targets], table.alpha_index[row, targets] = found
                bar.update()
        return table

    def begins_coarse(self, search: RidgeSearch, pool: FloatArray, prepared: Prepared) -> bool:
        """Whether the settings ask for a search from coarse to fine, and solver, pool and bands allow it."""
        n_columns = sum(X.shape[1] for X in prepared.columns)
        asked = self.settings.mixture_search == "coarse" and isinstance(search, LossSearch)
        return asked and can_begin_coarse(pool, n_columns)

    def _begin_coarse(
        self,
        search: LossSearch,
        table: SearchTable,
        keys: Sequence[str],
        targets: IntArray,
        models: Sequence[BoolArray],
        bar: tqdm[Any],
    ) -> BoolArray:
        """Score the first gammas for some voxels, into the table; which others they try, (n_pool, n_targets)."""
        first = np.flatnonzero(first_mixtures(table.gammas))
        errors = np.empty((first.size, self.alphas.size, targets.size))
        for row, losses in zip(first, errors, strict=True):
            (losses[:],) = self._ask("losses", lambda *of: (search.cv_losses(*of),), table.gammas[row], keys, targets)
            table.scores[row, targets], table.alpha_index[row, targets] = best_alphas(losses, self.alphas)
            bar.update()
        surface = ErrorSurface(table.gammas, self.alphas, len(self.targets.fit))
        return worth_trying(surface, errors, models)

    def _ask(
        self,
        what: str,
        ask: Callable[..., tuple[npt.NDArray[Any], ...]],
        gamma: FloatArray,
        keys: Sequence[str],
        targets: IntArray,
    ) -> tuple[npt.NDArray[Any], ...]:
        """What a search says of a gamma and some voxels, remembered; an answer for all voxels also serves some."""
        is_all = targets.size == self.targets.columns.size
        make = partial(ask, gamma) if is_all else partial(ask, gamma, targets)
        if self.cache is None or not any(keys):
            return make()
        support = [(key, float(share)) for key, share in zip(keys, gamma, strict=True) if share > 0]
        key = (what, self._target_key, *support)
        if is_all:
            return self._remember(key, make, _bytes_of)
        if key in self.cache:
            return tuple(part[..., targets] for part in self._remember(key, make, _bytes_of))
        return self._remember((*key, array_hash(targets)), make, _bytes_of)

    def _predict(
        self, search: RidgeSearch, table: SearchTable, choices: Mapping[str, Choice], prepared: Prepared
    ) -> tuple[dict[str, Float32Array], dict[str, FloatArray]]:
        """Predictions of every model, and the product measure of the last one.

        A voxel's weights depend on its gamma and the alpha that goes with it, not on the model that chose them, so each
        (gamma, voxel) is fitted once for all models. Weights are held for a batch of voxels at a time.
        """
        targets, scored = self.targets, [X[self.rows.score_of_used] for X in prepared.columns]
        predictions = {
            model: np.full((len(targets.score), targets.good.size), np.nan, dtype=np.float32) for model in choices
        }
        split = {band: np.zeros(targets.columns.size) for band in prepared.names}
        chosen = np.stack([choice.gamma_index for choice in choices.values()])
        for gamma in np.unique(chosen):
            for voxels in self._batches(np.flatnonzero((chosen == gamma).any(axis=0)), prepared):
                weights = search.weights(table.gammas[gamma], self.alphas[table.alpha_index[gamma, voxels]], voxels)
                parts = {b: X @ w for b, X, w in zip(prepared.names, scored, weights, strict=True)}
                whole = np.sum(list(parts.values()), axis=0)
                # a NaN here would read as a prediction that is constant, which scores 0
                refuse_not_finite(whole, "predictions", LOOK)
                for predicted, gammas in zip(predictions.values(), chosen, strict=True):
                    own = gammas[voxels] == gamma
                    predicted[:, targets.columns[voxels[own]]] = whole[:, own]
                own = chosen[-1][voxels] == gamma
                shares = split_r2(targets.score[:, voxels[own]], {band: part[:, own] for band, part in parts.items()})
                for band, share in shares.items():
                    split[band][voxels[own]] = share
        return predictions, split

    def _batches(self, voxels: IntArray, prepared: Prepared) -> Iterator[IntArray]:
        """Voxels in batches whose weights and predictions fit into the memory budget."""
        n_bands, n_columns = len(prepared.columns), sum(X.shape[1] for X in prepared.columns)
        bytes_per_voxel = 20 * n_columns + 8 * len(self.targets.score) * (2 * n_bands + 4)
        n_at_once = max(1, int(self.settings.solver.memory_gb * 2**30 / bytes_per_voxel))
        for start in range(0, voxels.size, n_at_once):
            yield voxels[start : start + n_at_once]

    def _prepare(self, X: Band, solver: SolverName, key: str, rescale: bool) -> Float32Array:
        def make() -> Float32Array:
            rows, settings = self.rows, self.settings
            if isinstance(X, TemporalBand) and len(X.prior) > 1:
                band = self._side_by_side(X, solver, bool(key), rescale)
            else:
                given = (X, rows.groups, rows.fit, rows.used, settings.delays_trs)
                band = prepare_band(*given, rescale=rescale)
            if not self._is_rotated(X, solver):
                return band
            return rotate_band(band, rows.fit_of_used, settings.keep_variance, settings.solver.device)

        return self._remember(("band", key), make, lambda band: band.nbytes) if key else make()

    def _side_by_side(self, X: TemporalBand, solver: SolverName, remember: bool, rescale: bool) -> Float32Array:
        """The parts of a band, each rotated (and remembered) on its own: all columns at once would be many."""
        columns = []
        for name, share in X.prior.items():
            part = X.only(name)
            key = self._band_key(part, solver) if remember else ""
            columns.append(self._prepare(part, solver, key, rescale) * np.float32(np.sqrt(share)))
        return np.concatenate(columns, axis=1)

    def _remember(self, key: tuple[object, ...], make: Callable[[], T], size: Callable[[T], int]) -> T:
        return make() if self.cache is None else self.cache.get(key, make, size)

    def _band_key(self, X: Band, solver: SolverName) -> str:
        """Hash of everything that a prepared band depends on; empty without a cache."""
        if self.cache is None:
            return ""
        settings, band = self.settings, as_band(X)
        parts = [value for name, share in band.prior.items() for value in (f"{name} {share}", band.parts[name])]
        delays_trs = () if band.is_delayed else settings.delays_trs
        text = f"{solver} {delays_trs} {band.keeps_scale} {settings.keep_variance} {settings.solver.device}"
        return array_hash(*parts, self.rows.groups, self.rows.fit, self.rows.score, text)

    @cached_property
    def _target_key(self) -> str:
        """Hash of the responses, the folds and the grid."""
        folds = [part for fold in self.folds for part in (fold.train, fold.held_out)]
        return array_hash(self.targets.fit, self.alphas, *folds, self.settings.solver.precision)


def _ranked(scores: FloatArray, allowed: npt.NDArray[np.intp]) -> Int16Array:
    """The best rows of the pool among the allowed ones, (at most N_RANKED, n_good); -1 where nothing was tried."""
    own = scores[allowed]
    order = np.argsort(-own, axis=0, kind="stable")[:N_RANKED]
    tried = np.isfinite(np.take_along_axis(own, order, axis=0))
    return np.where(tried, allowed[order], -1).astype(np.int16)


def _bytes_of(parts: tuple[npt.NDArray[Any], ...]) -> int:
    return sum(part.nbytes for part in parts)


# --- What does not change between checkpoints is remembered ---


class ProbeCache:
    """Results of earlier probes, found again by the content of everything that they depend on.

    Low-level and semantic bands are the same for every checkpoint, layer and regime; the backbone is not. A probe that
    is given a cache looks up prepared bands and the search results of all gammas that put nothing on a changed band.
    Keys are hashes of the arrays and settings themselves, so a changed input is a miss and never a wrong answer.

    Parameters
    ----------
    max_bytes : int
        Arrays beyond this size are forgotten, longest unused first.
    """

    def __init__(self, max_bytes: int = 512 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._entries: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()

    def get(self, key: tuple[Any, ...], make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The remembered value of a key, or make() remembered under it; size tells its bytes."""
        if key in self._entries:
            self.hits += 1
            self._entries.move_to_end(key)
            found: T = self._entries[key][0]
            return found
        self.misses += 1
        value = make()
        self._entries[key] = (value, size(value))
        while self.n_bytes > self.max_bytes and len(self._entries) > 1:
            self._entries.popitem(last=False)
        return value

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._entries

    @property
    def n_bytes(self) -> int:
        """Bytes held at present."""
        return sum(size for _, size in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)


def array_hash(*parts: npt.NDArray[Any] | str) -> str:
    """Hash of arrays (values, shape, dtype) and texts, in order."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            digest.update(b"text" + part.encode())
        else:
            array = np.ascontiguousarray(part)
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.hexdigest()
