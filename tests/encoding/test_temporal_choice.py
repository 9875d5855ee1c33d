"""Bands in several temporal forms: equal to plain ones where they should be, weighed rightly, filtered."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from brainlit.encoding import (
    ProbeCache,
    ProbeConfig,
    SolverConfig,
    TemporalBand,
    WarmStart,
    choose_weights,
    region_shares,
    residual_features,
    run_probe,
    run_probes,
)
from brainlit.encoding.arrays import delay_within
from brainlit.encoding.bands import gather_bands, prepare_band
from brainlit.encoding.probe_fit import ProbeFit
from brainlit.encoding.probe_rows import prepare_rows, prepare_targets
from brainlit.encoding.temporal import n_delayed
from brainlit.encoding.temporal_choice import MIXTURES, weighed
from tests.benchmarks.temporal_data_size import Listener, World, measure, simulate, summarise, table
from tests.encoding.conftest import Planted, unit_response

Array = npt.NDArray[np.float64]
AUTO = ProbeConfig(low_level_impact=False, temporal="auto")
QUICK = replace(AUTO, n_gammas={1: 1, 2: 1, 3: 1}, alphas=(0.1, 1.0, 10.0, 100.0))


@cache
def listener() -> Listener:
    return simulate(World(6), 300, seed=20, n_voxels=20, n_scored=1)


def delayed_voxels(heard: Listener, n_voxels: int = 20) -> Array:
    """Responses with a weight of its own for every column and delay, which no haemodynamic response makes."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((len(heard.groups), n_voxels))
    return unit_response(heard.band.parts["fir"], heard.groups, n_voxels, rng) + 0.3 * noise


def without_trend(rows: Array) -> Array:
    """A straight line taken out."""
    line = np.column_stack([np.ones(len(rows)), np.arange(len(rows))])
    return rows - line @ np.linalg.lstsq(line, rows, rcond=None)[0]


# --- What is a plain array in another form gives the same numbers ---


def test_the_only_part_fir_is_the_array_itself_to_the_last_bit(planted: Planted) -> None:
    forms = {name: TemporalBand({"fir": X}) for name, X in planted.bands.items()}
    given = (planted.Y, planted.groups, planted.fit, planted.score)
    plain, same = run_probe(planted.bands, *given), run_probe(forms, *given)
    assert plain.meta == same.meta
    assert plain.meta["temporal"] == {name: {"fir": 1.0} for name in planted.bands}
    tables = ("r_by_model", "r2_by_model", "split", "partition", "impact", "r_rest", "predictions", "rest_predictions")
    for kind in tables:
        for name, values in getattr(plain, kind).items():
            np.testing.assert_array_equal(getattr(same, kind)[name], values)
    shares, again = region_shares(planted.bands, *given), region_shares(forms, *given)
    assert vars(shares) == vars(again)


def test_what_was_convolved_gets_no_delays() -> None:
    heard = listener()
    bands = {"backbone": heard.some("hrf"), "semantic": TemporalBand({"hrf": heard.band.parts["hrf"][:, :2]})}
    arrays = {name: band.parts["hrf"] for name, band in bands.items()}
    found = run_probe(bands, heard.Y, *heard.roles, QUICK)
    undelayed = run_probe(arrays, heard.Y, *heard.roles, replace(QUICK, delays_trs=(0,), purge_trs=QUICK.purge))
    np.testing.assert_array_equal(found.r, undelayed.r)
    shares = region_shares(bands, heard.Y, *heard.roles, QUICK)
    again = region_shares(arrays, heard.Y, *heard.roles, replace(QUICK, delays_trs=(0,)))
    assert vars(shares) == vars(again)


@pytest.mark.parametrize("solver", ["kernel", "primal"])
def test_weights_are_shares_of_the_prior_variance(solver: str) -> None:
    """Parts as bands of their own, with these gammas, are the same ridge."""
    heard, weights = listener(), {"hrf": 0.5, "derivatives": 0.3, "fir": 0.2}
    rows = prepare_rows(*heard.roles, 5, len(heard.Y))
    settings = replace(QUICK, solver=SolverConfig(solver, precision="float64"), keep_variance=1.0)  # type: ignore[arg-type]
    ridges = ProbeFit(rows, prepare_targets(heard.Y, rows), settings)
    every = np.ones(1, dtype=bool)
    whole = ridges.fit_models({"X": TemporalBand(heard.band.parts, weights)}, np.ones((1, 1)), {"X": every})
    parts = {name: TemporalBand({name: X}) for name, X in heard.band.parts.items()}
    apart = ridges.fit_models(parts, np.array([[weights[name] for name in parts]]), {"X": every})
    np.testing.assert_allclose(whole.predictions["X"], apart.predictions["X"], atol=1e-4)


def test_sub_bands_of_one_form_make_up_the_band() -> None:
    band = listener().band
    parts = {"low_level/a": band, "low_level/b": band}
    whole, _ = gather_bands(parts)
    assert whole["low_level"].shape == (len(band), 2 * band.shape[1])
    found = weighed(parts, {"low_level": MIXTURES[1]})["low_level/b"]
    assert isinstance(found, TemporalBand)
    assert found.prior == MIXTURES[1]
    with pytest.raises(ValueError, match="low_level/a, low_level/b differ in their temporal parts"):
        gather_bands({**parts, "low_level/b": band.parts["fir"]})
    with pytest.raises(ValueError, match=r"for the temporal parts of band 'low_level/a' are missing.*for backbone"):
        weighed(parts, {"backbone": MIXTURES[0]})


def test_finer_bands_and_impacts_take_temporal_bands() -> None:
    heard = listener()
    parts = {"low_level/a": TemporalBand({name: X[:, :4] for name, X in heard.band.parts.items()})}
    parts["low_level/b"] = heard.band
    config = replace(AUTO, low_level_impact=True, sub_bands=True, impact_lags_trs=1)
    found = run_probe({"backbone": heard.some("hrf_derivatives"), **parts}, heard.Y, *heard.roles, config)
    assert set(found.sub_unique) == {"low_level/a", "low_level/b"}
    assert found.meta["temporal"]["backbone"] == {"hrf": 0.75, "derivatives": 0.25}
    # the backbone is the low-level band: once that is regressed out, part by part, nothing is left
    assert np.abs(found.r_rest["residual_lag0"]).max() == 0


# --- The choice ---


def test_voxels_that_answer_as_the_basis_do_not_get_delays_and_others_do() -> None:
    heard = simulate(World(30), 300, seed=21, n_voxels=30, n_scored=1)
    bands = {"backbone": heard.band}
    own = choose_weights(bands, {"": heard.Y}, *heard.roles, AUTO)[""]["backbone"]
    assert own["hrf"] >= 0.5
    assert own.get("fir", 0) <= 0.25
    rich = simulate(World(4), 1200, seed=22, n_voxels=2, n_scored=1)
    own = choose_weights({"backbone": rich.band}, {"": delayed_voxels(rich)}, *rich.roles, AUTO)[""]["backbone"]
    assert own["fir"] >= 0.6


@pytest.mark.parametrize(("n_fit", "most"), [(300, 0.02), (1200, 0.01)])
@pytest.mark.parametrize("latest_s", [0.0, 3.0])
def test_auto_is_never_far_behind_the_best_of_the_others(n_fit: int, most: float, latest_s: float) -> None:
    """What tests/benchmarks/temporal_data_size.py finds with more rows, columns and seeds."""
    (line,) = summarise([measure(World(20, latest_s), n_fit, seed, n_voxels=30) for seed in (30, 31)])
    assert line.behind < most
    assert line.scores["auto"].mean() > line.scores["fir"].mean() + 0.01
    assert "auto" in table([line]).splitlines()[0]


def test_subjects_with_other_weights_get_what_they_get_alone() -> None:
    heard = listener()
    Ys = {"one": heard.Y, "two": delayed_voxels(heard), "three": heard.Y[:, :7]}
    bands = {"semantic": heard.band, "backbone": heard.some("hrf")}
    found = choose_weights(bands, Ys, *heard.roles, QUICK)
    assert found["one"] != found["two"]
    assert set(found["one"]) == {"semantic"}
    together = run_probes(bands, Ys, *heard.roles, QUICK, cache=ProbeCache())
    assert list(together) == list(Ys)
    for name, Y in Ys.items():
        alone = run_probe(bands, Y, *heard.roles, QUICK)
        np.testing.assert_allclose(alone.r, together[name].r, atol=1e-5)
        assert alone.meta["temporal"] == together[name].meta["temporal"]
        assert together[name].meta["temporal"]["semantic"] == found[name]["semantic"]
        assert json.loads(json.dumps(alone.meta))["temporal"] == alone.meta["temporal"]
        # voxels in two shares, with the weights of all: the same as at once
        given = run_probe(bands, Y[:, 3:], *heard.roles, QUICK, weights=found[name])
        np.testing.assert_allclose(given.r, together[name].r[3:], atol=1e-5)
    start = {name: WarmStart.from_result(result) for name, result in together.items()}
    warm = run_probes(bands, Ys, *heard.roles, QUICK, warm=start, weights=found)
    np.testing.assert_allclose(warm["two"].r, together["two"].r, atol=1e-5)


def test_scored_rows_and_unusable_voxels_choose_nothing() -> None:
    heard = listener()
    others = np.where(heard.fit[:, None], heard.Y, np.random.default_rng(0).standard_normal(heard.Y.shape))
    others = np.concatenate([others, np.full((len(others), 600), np.nan)], axis=1)
    chosen = [choose_weights({"backbone": heard.band}, {"": Y}, *heard.roles, QUICK) for Y in (heard.Y, others)]
    assert chosen[0] == chosen[1]


def test_the_cache_knows_bands_that_did_not_change() -> None:
    heard, cache = listener(), ProbeCache()
    bands = {"semantic": heard.band}
    first = choose_weights(bands, {"": heard.Y}, *heard.roles, QUICK, cache=cache)
    misses = cache.misses
    assert choose_weights(bands, {"": heard.Y}, *heard.roles, QUICK, cache=cache) == first
    assert cache.misses == misses
    delayed = {"semantic": replace(heard.band, is_delayed=True)}
    choose_weights(delayed, {"": heard.Y}, *heard.roles, QUICK, cache=cache)
    assert cache.misses > misses, "other delays make other columns"


# --- Delays that are there already ---


def test_a_delayed_part_is_not_delayed_again() -> None:
    heard, delays = listener(), (1, 2, 3)
    fir = heard.band.parts["fir"]
    late = delay_within(fir, heard.groups, delays)
    used = heard.roles[1] | heard.roles[2]
    given = (heard.groups, heard.roles[1], used)
    delayed = prepare_band(TemporalBand({"fir": late}, is_delayed=True), *given, delays)
    np.testing.assert_array_equal(delayed, prepare_band(late, *given, (0,)))
    assert n_delayed(TemporalBand({"fir": late}, is_delayed=True), delays) == late.shape[1]
    # other than delays inside the ridge only by the scale of single columns
    config = replace(QUICK, delays_trs=delays)
    forms = [fir, TemporalBand({"fir": late}, is_delayed=True)]
    inside, before = (run_probe({"backbone": X}, heard.Y, *heard.roles, config) for X in forms)
    np.testing.assert_allclose(inside.r, before.r, atol=0.02)


def test_weights_leave_delays_as_they_are() -> None:
    heard = listener()
    band = replace(heard.band, is_delayed=True)
    assert weighed({"backbone": band}, {"backbone": {"fir": 1.0}})["backbone"].is_delayed  # type: ignore[union-attr]
    assert band.only("fir").is_delayed
    assert band[:10].is_delayed


# --- Residuals ---


def test_each_part_is_residualised_by_all_low_level_parts() -> None:
    heard, rng = listener(), np.random.default_rng(1)
    low = heard.some("hrf_derivatives")
    own = {name: X @ rng.standard_normal((X.shape[1], 5)) for name, X in low.parts.items()}
    own["hrf"][:, 0] = rng.standard_normal(len(low))
    given = (heard.groups, heard.fit, (0,), AUTO)
    left = residual_features(TemporalBand(own), low, *given)
    assert isinstance(left, TemporalBand)
    apart = {name: residual_features(TemporalBand({name: X}), low, *given) for name, X in own.items()}
    for name, X in left.parts.items():
        np.testing.assert_allclose(X, apart[name].parts[name], atol=1e-4)  # type: ignore[union-attr]
    assert np.abs(left.parts["hrf"][:, 0]).std() > 0.5
    assert np.abs(left.parts["hrf"][:, 1:]).max() == np.abs(left.parts["derivatives"]).max() == 0
    plain = residual_features(own["hrf"], low.parts["hrf"], *given)
    same = residual_features(TemporalBand({"hrf": own["hrf"]}), TemporalBand({"hrf": low.parts["hrf"]}), *given)
    np.testing.assert_array_equal(plain, same.parts["hrf"])  # type: ignore[union-attr]
