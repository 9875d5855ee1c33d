from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import EncodingModel, ProbeConfig, SolverConfig, run_probe
from brainlit.encoding.bands import learn_band, prepare_band, rotate_band
from tests.encoding.conftest import Planted, make_planted

CONFIG = ProbeConfig(n_gammas={1: 1, 2: 1, 3: 2}, low_level_impact=False)


@pytest.fixture(scope="module")
def data() -> Planted:
    return make_planted(seed=4, n_stories=6, n_trs=60, n_voxels=20)


def rows_of(data: Planted, mask: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    return {band: X[mask] for band, X in data.bands.items()}, 7 * data.Y[mask] + 3, data.groups[mask]


@pytest.fixture(scope="module")
def model(data: Planted) -> EncodingModel:
    return EncodingModel(CONFIG).fit(*rows_of(data, data.fit))


@pytest.mark.parametrize("solver", ["primal", "himalaya"])
def test_fit_and_score_is_what_the_probe_says(data: Planted, solver: str) -> None:
    config = ProbeConfig(n_gammas={1: 1, 2: 1, 3: 2}, low_level_impact=False, solver=SolverConfig(solver))
    probe = run_probe(data.bands, data.Y, data.groups, data.fit, data.score, config)
    model = EncodingModel(config).fit(*rows_of(data, data.fit))
    assert model.solver_ == probe.meta["solver"] == solver
    np.testing.assert_allclose(model.score(*rows_of(data, data.score)), probe.r, atol=1e-4)
    split = model.split(*rows_of(data, data.score))
    for band, values in probe.split.items():
        np.testing.assert_allclose(split[band], values, atol=1e-4)
    np.testing.assert_allclose(model.alphas_, np.asarray(probe.meta["alphas"])[probe.alpha_index[probe.joint]])


def test_predictions_are_in_units_of_the_responses_and_split_adds_up(data: Planted, model: EncodingModel) -> None:
    bands, Y, groups = rows_of(data, data.score)
    predicted = model.predict(bands, groups)
    assert predicted.shape == Y.shape
    late = np.tile(np.arange(60) >= 5, 2)
    y = np.concatenate([Y[late & (groups == g)] - Y[late & (groups == g)].mean(axis=0) for g in np.unique(groups)])
    p = [predicted[late & (groups == g)] for g in np.unique(groups)]
    p = np.concatenate([part - part.mean(axis=0) for part in p])
    r2 = 1 - np.square(y - p).sum(axis=0) / np.square(y).sum(axis=0)
    np.testing.assert_allclose(sum(model.split(bands, Y, groups).values()), r2, atol=1e-5)
    assert r2.mean() > 0.2
    np.testing.assert_allclose(sum(model.predict_bands(bands, groups).values()), predicted, atol=1e-3)
    np.testing.assert_allclose(model.gammas_.sum(axis=0), 1.0)


def test_dropped_voxels_stay_in_their_places(data: Planted) -> None:
    bands, Y, groups = rows_of(data, data.fit)
    Y[:, 2], Y[30, 5] = 1.0, np.nan
    model = EncodingModel(CONFIG).fit({"semantic": bands["semantic"]}, Y, groups)
    held_out, Y_out, groups_out = rows_of(data, data.score)
    predicted = model.predict({"semantic": held_out["semantic"]}, groups_out)
    dropped = np.isnan(predicted).all(axis=0)
    assert np.flatnonzero(dropped).tolist() == [2, 5] == np.flatnonzero(~model.used_).tolist()
    r = model.score({"semantic": held_out["semantic"]}, Y_out, groups_out)
    np.testing.assert_array_equal(np.isnan(r), dropped)


def test_a_band_is_scaled_by_its_fitted_rows_alone(data: Planted) -> None:
    X = data.bands["backbone"]
    scaler, columns = learn_band(X[data.fit], data.groups[data.fit], np.ones(data.fit.sum(), bool), (1, 2), 0.9)
    whole = prepare_band(X, data.groups, data.fit, np.ones(len(X), bool), (1, 2))
    np.testing.assert_allclose(columns, rotate_band(whole, data.fit, 0.9)[data.fit], atol=1e-5)
    rotated = scaler.columns(X[data.score], data.groups[data.score])
    np.testing.assert_allclose(rotated, rotate_band(whole, data.fit, 0.9)[data.score], atol=1e-5)


def test_mistakes_are_named(data: Planted, model: EncodingModel) -> None:
    bands, Y, groups = rows_of(data, data.score)
    with pytest.raises(ValueError, match="call fit first"):
        EncodingModel().predict(bands, groups)
    with pytest.raises(ValueError, match=r"fitted with \['backbone', 'low_level', 'semantic'\]"):
        model.predict({"semantic": bands["semantic"]}, groups)
    with pytest.raises(ValueError, match="19 voxels; the model was fitted with 20"):
        model.score(bands, Y[:, 1:], groups)
    with pytest.raises(ValueError, match="X has 2 features; the band was fitted with 3"):
        model.predict({**bands, "semantic": bands["semantic"][:, 1:]}, groups)
    with pytest.raises(ValueError, match="a row for each group label"):
        model.fit(bands, Y, groups[1:])
