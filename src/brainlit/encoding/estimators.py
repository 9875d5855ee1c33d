"""Encoding models as estimators over arrays, in the manner of scikit-learn: fit, predict, score, split.

What a probe does in one call, in steps: fit on some stories now and score on others later. The parts are those of the
probe, so a model that is fitted on a probe's fit stories scores on its score stories what the probe says.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import (
    Array,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    demean_within,
    naming,
    position_in_group,
)
from brainlit.encoding.bands import BandScaler, learn_band
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.partition import order_bands, split_r2
from brainlit.encoding.probe_fit import Prepared, ProbeFit
from brainlit.encoding.probe_rows import ProbeRows, check_delays, prepare_targets
from brainlit.encoding.search import choose, refit_weights
from brainlit.encoding.statistics import correlation_within


class EncodingModel:
    """Banded ridge from delayed features to responses, with a mixture of bands and an alpha for every voxel.

    Features are centred per story and scaled by their sd on the stories of `fit`, delayed inside stories, and searched
    with folds of whole stories (or purged blocks, where stories are fewer than folds). One band is plain ridge.

    Parameters
    ----------
    config : ProbeConfig, optional
        As of a probe; low_level_impact and sub_bands are not used.

    Attributes
    ----------
    used_ : bool array of shape (n_voxels,)
        Voxels with finite, changing responses; all numbers of the others are NaN.
    gammas_ : array of shape (n_bands, n_voxels)
        Share of the prior variance of each band.
    alphas_ : array of shape (n_voxels,)
    cv_scores_ : array of shape (n_voxels,)
        Minus the mean squared error on the held-out folds, responses in units of their sd.
    weights_ : mapping of band to array of shape (n_columns, n_used)
    solver_ : str
    """

    def __init__(self, config: ProbeConfig | None = None) -> None:
        self.config = config or ProbeConfig()

    def fit(self, bands: Mapping[str, Array], Y: Array, groups: npt.ArrayLike) -> EncodingModel:
        """Fit all stories given, without the first skip_trs rows of each; returns the model itself.

        Parameters are as in `run_probe`; bands come whole, without sub-bands.

        Raises
        ------
        ValueError
            If shapes do not match, a value of the features is not finite, or no voxel or row is usable.
        """
        config, labels = self.config, np.asarray(groups)
        names = order_bands(bands, config.band_names)
        _check_rows({**bands, "Y": Y}, labels)
        rows = ProbeRows(labels.astype(np.int64), self._late(labels), np.zeros(labels.size, dtype=bool))
        if rows.fit.sum() < 2:
            raise ValueError(f"no rows are left after the first {config.skip_trs} of every group; lower skip_trs.")
        check_delays(rows, config.delays_trs)
        targets = prepare_targets(np.asarray(Y), rows)
        ridges = ProbeFit(rows, targets, config)
        solver = ridges.solver_for(sum(np.shape(bands[name])[1] for name in names) * len(config.delays_trs))
        keep = config.keep_variance if solver == "primal" else 1.0
        learned = {}
        for name in names:
            with naming(f"band {name!r}"):
                given = bands[name], labels, rows.fit, config.delays_trs, keep, config.solver.device
                learned[name] = learn_band(*given)
        prepared = Prepared(names, [columns for _, columns in learned.values()], [""] * len(names), solver)
        search = ridges.open(prepared)
        pool = ridges.pool(len(names))
        joint = [np.ones(len(pool), dtype=bool)] if ridges.begins_coarse(search, pool, prepared) else []
        table = ridges.search(search, pool, models=joint)
        chosen = choose(table)
        weights = refit_weights(search, table, chosen, ridges.alphas)
        self._scalers: dict[str, BandScaler] = {name: scaler for name, (scaler, _) in learned.items()}
        self._targets = targets
        self.weights_ = dict(zip(names, weights, strict=True))
        self.used_, self.solver_ = targets.good, search.name
        self.gammas_: FloatArray = targets.spread(table.gammas[chosen.gamma_index].T)
        self.alphas_: FloatArray = targets.spread(ridges.alphas[chosen.alpha_index])
        self.cv_scores_: FloatArray = targets.spread(chosen.cv_scores)
        return self

    def predict_bands(self, bands: Mapping[str, Array], groups: npt.ArrayLike) -> dict[str, Float32Array]:
        """Each band's part of the prediction, (n_trs, n_voxels), in the units of the fitted responses.

        Responses have an arbitrary level in every run, so a prediction says nothing about it: it is zero-mean per
        story. The first rows of a story have incomplete delays.

        Raises
        ------
        ValueError
            If the model is not fitted, bands are others, or shapes do not match.
        """
        scalers, labels = self._fitted(), np.asarray(groups)
        if set(bands) != set(scalers):
            raise ValueError(f"bands are {sorted(bands)}; the model was fitted with {sorted(scalers)}.")
        _check_rows(bands, labels)
        sd = self._targets.sd[self.used_].astype(np.float32)
        return {
            name: self._targets.spread(scaler.columns(bands[name], labels) @ (self.weights_[name] * sd))
            for name, scaler in scalers.items()
        }

    def predict(self, bands: Mapping[str, Array], groups: npt.ArrayLike) -> Float32Array:
        """Prediction of all bands together, (n_trs, n_voxels)."""
        parts = list(self.predict_bands(bands, groups).values())
        return np.asarray(np.sum(parts, axis=0), dtype=np.float32)

    def score(self, bands: Mapping[str, Array], Y: Array, groups: npt.ArrayLike) -> FloatArray:
        """Correlation per voxel, (n_voxels,), without the first skip_trs rows of each story, each story demeaned.

        Give stories that were not fitted; NaN where a voxel was dropped or does not change.
        """
        observed, labels, late = self._observed(Y, groups)
        r = correlation_within(observed, self.predict(bands, groups)[late], labels)
        return np.where(np.isnan(r) & self.used_ & (observed.std(axis=0) > 0), 0.0, r)

    def split(self, bands: Mapping[str, Array], Y: Array, groups: npt.ArrayLike) -> dict[str, FloatArray]:
        """Product measure of each band on the same rows as `score`, (n_voxels,); sums to 1 - SSE / SST."""
        observed, labels, late = self._observed(Y, groups)
        parts = {name: part[late] for name, part in self.predict_bands(bands, groups).items()}
        centred = {name: demean_within(part, labels) for name, part in parts.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            return split_r2(demean_within(observed, labels), centred)

    def _fitted(self) -> dict[str, BandScaler]:
        if not hasattr(self, "_scalers"):
            raise ValueError("this EncodingModel is not fitted yet; call fit first.")
        return self._scalers

    def _observed(self, Y: Array, groups: npt.ArrayLike) -> tuple[Array, IntArray, BoolArray]:
        self._fitted()
        labels, values = np.asarray(groups), np.asarray(Y)
        _check_rows({"Y": values}, labels)
        if values.shape[1] != self.used_.size:
            raise ValueError(f"Y has {values.shape[1]} voxels; the model was fitted with {self.used_.size}.")
        late = self._late(labels)
        return values[late], labels[late], late

    def _late(self, labels: IntArray) -> BoolArray:
        return np.asarray(position_in_group(labels) >= self.config.skip_trs)


def _check_rows(arrays: Mapping[str, npt.ArrayLike], groups: IntArray) -> None:
    for name, values in arrays.items():
        shape = np.shape(values)
        if len(shape) != 2 or shape[0] != groups.size:
            raise ValueError(f"{name} has shape {shape}; need ({groups.size}, n), a row for each group label.")
