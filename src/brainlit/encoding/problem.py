"""One probe's rows, responses and settings, and the ridges fitted on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np

from brainlit.encoding.bands import prepare_band, rotate_band
from brainlit.encoding.cache import ProbeCache, fingerprint
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.folds import Fold, make_folds
from brainlit.encoding.gammas import gamma_pool, inside_set
from brainlit.encoding.groups import Array, Float32Array, FloatArray, IntArray
from brainlit.encoding.partition import model_name, subsets
from brainlit.encoding.probe_rows import ProbeRows, ProbeTargets
from brainlit.encoding.search import Choice, RidgeSearch, SearchTable, SolverName, choose, open_search, refit_weights
from brainlit.encoding.statistics import correlation_within

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class NestedFit:
    """All nested models of some bands.

    Parameters
    ----------
    parts : mapping of model to mapping of band to array of shape (n_score, n_good)
        Each band's part of the model's prediction on the scored rows.
    choices : mapping of model to what each voxel chose
    gammas : array of shape (n_pool, n_bands)
    n_columns : mapping of band to its number of columns in the ridge
    solver : str
    """

    parts: Mapping[str, Mapping[str, Array]]
    choices: Mapping[str, Choice]
    gammas: FloatArray
    n_columns: Mapping[str, int]
    solver: str

    def predictions(self, model: str) -> Array:
        """The model's prediction on the scored rows, (n_score, n_good)."""
        return np.asarray(sum(self.parts[model].values()))


class Problem:
    """Fits features to the responses of one probe, as its settings say."""

    def __init__(
        self, rows: ProbeRows, targets: ProbeTargets, settings: ProbeConfig, cache: ProbeCache | None = None
    ) -> None:
        self.rows, self.targets, self.settings, self.cache = rows, targets, settings, cache
        self.folds: list[Fold] = make_folds(rows.fit_groups, settings.n_folds, settings.purge, rows.fit_times)
        self.alphas = np.asarray(settings.alphas, dtype=np.float64)

    def fit_nested(self, bands: Mapping[str, Array]) -> NestedFit:
        """Search the nested pool once and fit every model with its own choice from it."""
        names = tuple(bands)
        solver = self.solver_for(sum(X.shape[1] for X in bands.values()))
        keys = [self._band_key(X, solver) for X in bands.values()]
        prepared = [self._prepare(X, solver, key) for X, key in zip(bands.values(), keys, strict=True)]
        search = self._open(prepared, solver)
        pool = gamma_pool(len(names), self.settings.n_gammas, self.settings.seed)
        table = self._search(search, pool, keys)
        parts, choices = {}, {}
        for members in subsets(names):
            inside = [names.index(band) for band in members]
            choice = choose(table, inside_set(pool, inside))
            weights = refit_weights(search, table, choice, self.alphas)
            parts[model_name(members)] = {names[b]: self._scored(prepared[b]) @ weights[b] for b in inside}
            choices[model_name(members)] = choice
        n_columns = {name: X.shape[1] for name, X in zip(names, prepared, strict=True)}
        return NestedFit(parts, choices, pool, n_columns, search.name)

    def score_features(self, X: Array, *, rescale: bool = True) -> FloatArray:
        """Correlation on the scored rows of one feature space alone, (n_good,)."""
        solver = self.solver_for(X.shape[1])
        prepared = self._prepare(X, solver, None, rescale=rescale)
        search = self._open([prepared], solver)
        table = self._search(search, np.ones((1, 1)), None)
        weights = refit_weights(search, table, choose(table), self.alphas)[0]
        return self.correlate(self._scored(prepared) @ weights)

    def correlate(self, predicted: Array) -> FloatArray:
        """Correlation with the scored responses; 0 where the prediction is constant, for it predicts nothing."""
        r = correlation_within(self.targets.score, predicted, self.rows.score_groups)
        return np.where(np.isnan(r), 0.0, r)

    def solver_for(self, n_features: int) -> SolverName:
        """What 'auto' stands for with so many undelayed features: the smaller of the two spaces."""
        if self.settings.solver != "auto":
            return self.settings.solver
        n_train = min(fold.train.size for fold in self.folds)
        return "primal" if n_features * len(self.settings.delays_trs) < n_train else "himalaya"

    def _scored(self, prepared: Float32Array) -> Float32Array:
        return np.asarray(prepared[self.rows.score_of_used])

    def _prepare(self, X: Array, solver: SolverName, key: str | None, *, rescale: bool = True) -> Float32Array:
        def make() -> Float32Array:
            rows, settings = self.rows, self.settings
            band = prepare_band(X, rows.groups, rows.fit, rows.used, settings.delays_trs, rescale=rescale)
            if solver != "primal":
                return band
            return rotate_band(band, rows.fit_of_used, settings.keep_variance, settings.device)

        return make() if key is None else self._remember(("band", key), make, lambda band: band.nbytes)

    def _open(self, prepared: Sequence[Float32Array], solver: SolverName) -> RidgeSearch:
        settings = self.settings
        return open_search(
            [X[self.rows.fit_of_used] for X in prepared],
            self.targets.fit,
            self.folds,
            settings.alphas,
            solver=solver,
            precision=settings.precision,
            device=settings.device,
            n_targets_batch=settings.n_targets_batch,
        )

    def _search(self, search: RidgeSearch, pool: FloatArray, band_keys: Sequence[str] | None) -> SearchTable:
        found: list[tuple[FloatArray, IntArray]] = []
        for gamma in pool:
            make = partial(search.cv_scores, gamma)
            if band_keys is None or self.cache is None:
                found.append(make())
                continue
            support = [(key, float(share)) for key, share in zip(band_keys, gamma, strict=True) if share > 0]
            found.append(self._remember(("search", self._target_key, *support), make, _pair_bytes))
        return SearchTable(pool, np.stack([scores for scores, _ in found]), np.stack([index for _, index in found]))

    def _remember(self, key: tuple[object, ...], make: Callable[[], T], size: Callable[[T], int]) -> T:
        return make() if self.cache is None else self.cache.get(key, make, size)

    def _band_key(self, X: Array, solver: SolverName) -> str:
        """Hash of everything that a prepared band depends on; empty without a cache."""
        if self.cache is None:
            return ""
        settings = self.settings
        text = f"{solver} {settings.delays_trs} {settings.keep_variance} {settings.device}"
        return fingerprint(X, self.rows.groups, self.rows.fit, self.rows.score, text)

    @cached_property
    def _target_key(self) -> str:
        """Hash of the responses, the folds and the grid."""
        folds = [part for fold in self.folds for part in (fold.train, fold.held_out)]
        return fingerprint(self.targets.fit, self.alphas, *folds, self.settings.precision)


def _pair_bytes(pair: tuple[FloatArray, IntArray]) -> int:
    return pair[0].nbytes + pair[1].nbytes
